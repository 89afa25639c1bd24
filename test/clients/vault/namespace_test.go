package vault

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/api"
)

// TestNamespaces uses namespaces as Vault's programs do: by the client's own
// namespace, and by paths.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	ctx := context.Background()
	made, err := client.Logical().Write("sys/namespaces/team", map[string]any{"custom_metadata": map[string]any{"owner": "web"}})
	must(t, err)
	equal(t, "path", made.Data["path"], any("team/"))
	team := client.WithNamespace("team")
	must(t, team.Sys().Mount("kv", &api.MountInput{Type: "kv-v2"}))
	_, err = team.KVv2("kv").Put(ctx, "app", map[string]any{"k": "inside"})
	must(t, err)
	by, err := client.Logical().Read("team/kv/data/app")
	must(t, err)
	equal(t, "data", by.Data["data"], any(map[string]any{"k": "inside"}))

	must(t, team.Sys().EnableAuthWithOptions("userpass", &api.EnableAuthOptions{Type: "userpass"}))
	must(t, team.Sys().PutPolicy("app", `path "kv/data/app" { capabilities = ["read"] }`))
	_, err = team.Logical().Write("auth/userpass/users/ada", map[string]any{"password": "correct horse", "token_policies": "app"})
	must(t, err)
	in, err := team.Logical().Write("auth/userpass/login/ada", map[string]any{"password": "correct horse"})
	must(t, err)
	ada := as(t, client, in.Auth.ClientToken)
	_, err = ada.WithNamespace("team").KVv2("kv").Get(ctx, "app")
	must(t, err)
	_, err = ada.KVv2("secret").Get(ctx, "app")
	refused(t, err, 403, "permission denied")
	about, err := ada.WithNamespace("team").Auth().Token().LookupSelf()
	must(t, err)
	equal(t, "policies", about.Data["policies"], any([]any{"app", "default"}))

	list, err := client.Logical().List("sys/namespaces")
	must(t, err)
	equal(t, "keys", list.Data["keys"], any([]any{"team/"}))
	lock, err := client.Logical().Write("sys/namespaces/api-lock/lock/team", nil)
	must(t, err)
	_, err = ada.WithNamespace("team").KVv2("kv").Get(ctx, "app")
	refused(t, err, 503, "API access to this namespace has been locked by an administrator")
	_, err = client.Logical().Write("sys/namespaces/api-lock/unlock/team", map[string]any{"unlock_key": lock.Data["unlock_key"]})
	must(t, err)
	_, err = client.Logical().Delete("sys/namespaces/team")
	must(t, err)
	_, err = ada.WithNamespace("team").KVv2("kv").Get(ctx, "app")
	refused(t, err, 403, "permission denied")
	if uses, ok := about.Data["num_uses"].(json.Number); !ok || uses != "0" {
		t.Errorf("num_uses: %v", about.Data["num_uses"])
	}
}
