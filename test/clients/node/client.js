// Runs node-vault, unmodified, against the server at VAULT_ADDR with the root
// token in VAULT_TOKEN. It ends with an error at the first answer that is not
// Vault's.
'use strict';

const assert = require('node:assert/strict');
const connect = require('node-vault');

const { VAULT_ADDR: endpoint, VAULT_TOKEN: root } = process.env;
const vault = connect({ endpoint, token: root });

// as connects with a token; '' is none, where node-vault would take VAULT_TOKEN.
function as(token) {
  const client = connect({ endpoint });
  client.token = token;
  return client;
}

// refused is what node-vault makes of an answer that is an error. Coffer says
// more behind Vault's words.
async function refused(promise, statusCode, errors) {
  await assert.rejects(promise, (err) => {
    assert.equal(err.response.statusCode, statusCode);
    const said = err.response.body.errors;
    assert.equal(said.length, errors.length);
    assert.ok(errors.every((text, i) => said[i].startsWith(text)), `${said} is not ${errors}`);
    assert.equal(err.message, said.length ? said[0] : `Status ${statusCode}`);
    return true;
  });
}

async function system() {
  assert.deepEqual(await vault.initialized(), { initialized: true });
  const health = await vault.health();
  assert.equal(health.initialized, true);
  assert.equal(health.sealed, false);
  assert.equal((await vault.status()).sealed, false);

  assert.equal((await vault.mounts()).data['secret/'].type, 'kv');
  await vault.mount({ mount_point: 'plain', type: 'kv', description: 'kv of version 1' });
  await vault.write('plain/a', { b: 'c' });
  assert.deepEqual((await vault.read('plain/a')).data, { b: 'c' });
  await vault.remount({ from: 'plain', to: 'simple' });
  await vault.unmount({ mount_point: 'simple' });

  const rules = 'path "secret/data/app" { capabilities = ["read"] }';
  await vault.addPolicy({ name: 'app', rules });
  assert.deepEqual((await vault.policies()).data.policies.sort(), ['app', 'default', 'root']);
  assert.equal((await vault.getPolicy({ name: 'app' })).data.rules, rules);
  assert.ok((await vault.help('sys/policy')).help);
}

async function versions() {
  const first = await vault.write('secret/data/app', { data: { user: 'app' }, options: { cas: 0 } });
  assert.equal(first.data.version, 1);
  const read = await vault.read('secret/data/app');
  assert.deepEqual(read.data.data, { user: 'app' });
  assert.equal(read.data.metadata.version, 1);
  await vault.update('secret/data/app', { data: { port: 5432 } });
  assert.deepEqual((await vault.read('secret/data/app')).data.data, { user: 'app', port: 5432 });
  assert.deepEqual((await vault.list('secret/metadata')).data.keys, ['app']);
  assert.deepEqual((await connect({ endpoint, token: root, noCustomHTTPVerbs: true }).list('secret/metadata')).data.keys, ['app']);
  await vault.delete('secret/data/app');
  await assert.rejects(vault.read('secret/data/app'), (err) => err.response.statusCode === 404 && err.response.body.data.data === null);
  await vault.write('secret/undelete/app', { versions: [2] });
  await refused(vault.read('secret/data/none'), 404, []);
  await refused(vault.write('secret/data/app', { data: {}, options: { cas: 9 } }), 400,
    ['check-and-set parameter did not match the current version']);
}

async function tokens() {
  // a client that creates or renews a token holds it from then on
  const { auth } = await as(root).tokenCreate({ policies: ['app'], ttl: '1h', renewable: true });
  const own = as(auth.client_token);
  assert.deepEqual((await own.tokenLookupSelf()).data.policies, ['app', 'default']);
  assert.equal((await vault.tokenLookup({ token: auth.client_token })).data.accessor, auth.accessor);
  assert.equal((await vault.tokenLookupAccessor({ accessor: auth.accessor })).data.id, '');
  assert.equal((await own.tokenRenewSelf({ increment: 600 })).auth.lease_duration, 600);
  assert.equal((await as(root).tokenRenew({ token: auth.client_token, increment: 1200 })).auth.lease_duration, 1200);
  assert.ok((await own.read('secret/data/app')).data);
  await refused(own.write('secret/data/app', { data: {} }), 403, ['permission denied']);
  await vault.tokenRevoke({ token: auth.client_token });
  await refused(own.tokenLookupSelf(), 403, ['permission denied']);
  await refused(as('').read('secret/data/app'), 403, ['permission denied']);
}

async function people() {
  await vault.enableAuth({ mount_point: 'userpass', type: 'userpass' });
  assert.equal((await vault.auths()).data['userpass/'].type, 'userpass');
  await vault.write('auth/userpass/users/alice', { password: 'correct horse', policies: 'app' });
  const alice = as('');
  const login = await alice.userpassLogin({ username: 'alice', password: 'correct horse' });
  assert.equal(login.auth.metadata.username, 'alice');
  assert.equal(alice.token, login.auth.client_token);
  await alice.read('secret/data/app');
  await refused(as('').userpassLogin({ username: 'alice', password: 'wrong' }), 400, ['invalid username or password']);
  await vault.disableAuth({ mount_point: 'userpass' });
}

async function wrapping() {
  const wrapped = await vault.read('secret/data/app', { headers: { 'X-Vault-Wrap-TTL': '60s' } });
  assert.equal(wrapped.data, null);
  assert.equal(wrapped.wrap_info.ttl, 60);
  assert.deepEqual((await vault.unwrap({ token: wrapped.wrap_info.token })).data.data, { user: 'app', port: 5432 });
  await refused(vault.unwrap({ token: wrapped.wrap_info.token }), 400, ['wrapping token is not valid or does not exist']);
}

(async () => {
  for (const part of [system, versions, tokens, people, wrapping]) {
    await part();
    console.log(`ok ${part.name}`);
  }
})().catch((err) => {
  console.error(err.stack || err, err.response ? JSON.stringify(err.response) : '');
  process.exit(1);
});
