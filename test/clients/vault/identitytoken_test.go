package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/hashicorp/vault/api"
)

// TestIdentityTokens writes keys and roles, gets a token and has it verified by a
// library that knows nothing but the issuer's URL.
func TestIdentityTokens(t *testing.T) {
	t.Parallel()
	s, client := start(t)
	ctx := context.Background()
	l := client.Logical()
	must(t, client.Sys().EnableAuthWithOptions("userpass", &api.EnableAuthOptions{Type: "userpass"}))
	_, err := l.Write("auth/userpass/users/ada", map[string]any{"password": "correct horse", "token_policies": "tokens"})
	must(t, err)
	must(t, client.Sys().PutPolicy("tokens", `path "identity/oidc/token/*" { capabilities = ["read"] }`))
	in, err := as(t, client, "").Auth().Login(ctx, byPassword{"ada", "correct horse"})
	must(t, err)
	ada := as(t, client, in.Auth.ClientToken)

	_, err = l.Write("identity/oidc/role/web", map[string]any{"key": "named"})
	refused(t, err, 400, `cannot find key "named"`)
	_, err = l.Write("identity/oidc/key/named", map[string]any{"rotation_period": "30s"})
	refused(t, err, 400, "rotation_period must be at least one minute")
	_, err = l.Write("identity/oidc/key/named", map[string]any{"rotation_period": "12h", "verification_ttl": 43200})
	must(t, err)
	key, err := l.Read("identity/oidc/key/named")
	must(t, err)
	equal(t, "rotation_period", key.Data["rotation_period"], json.Number("43200"))
	equal(t, "verification_ttl", key.Data["verification_ttl"], json.Number("43200"))
	equal(t, "algorithm", key.Data["algorithm"], "RS256")
	equal(t, "allowed_client_ids", key.Data["allowed_client_ids"], []any{})
	_, err = l.Write("identity/oidc/role/web", map[string]any{"key": "named", "ttl": "24h"})
	refused(t, err, 400, "a role's token ttl cannot be longer than the verification_ttl of the key it references")
	_, err = l.Write("identity/oidc/role/web", map[string]any{"key": "named", "ttl": "1h", "template": `{"sub":"x"}`})
	refused(t, err, 400, `top level key "sub" not allowed`)
	template := base64.StdEncoding.EncodeToString([]byte(`{"user": {{identity.entity.name}}, "nbf": {{time.now}}}`))
	_, err = l.Write("identity/oidc/role/web", map[string]any{"key": "named", "ttl": "1h", "template": template})
	must(t, err)
	role, err := l.Read("identity/oidc/role/web")
	must(t, err)
	audience := role.Data["client_id"].(string)
	equal(t, "client_id", len(audience), 26)
	equal(t, "ttl", role.Data["ttl"], json.Number("3600"))
	equal(t, "template", role.Data["template"], `{"user": {{identity.entity.name}}, "nbf": {{time.now}}}`)

	_, err = ada.Logical().Read("identity/oidc/token/web")
	refused(t, err, 400, "does not list the client ID")
	_, err = l.Write("identity/oidc/key/named", map[string]any{"allowed_client_ids": []string{audience}})
	must(t, err)
	_, err = l.Read("identity/oidc/token/web")
	refused(t, err, 400, "no entity associated with the request's token")
	_, err = ada.Logical().Read("identity/oidc/token/none")
	refused(t, err, 400, `role "none" not found`)
	made, err := ada.Logical().Read("identity/oidc/token/web")
	must(t, err)
	equal(t, "client_id", made.Data["client_id"], any(audience))
	equal(t, "ttl", made.Data["ttl"], json.Number("3600"))
	token := made.Data["token"].(string)

	via := oidc.ClientContext(ctx, &http.Client{Transport: s.HTTP().Transport, Timeout: 10 * time.Second})
	provider, err := oidc.NewProvider(via, s.URL()+"/v1/identity/oidc")
	must(t, err)
	verified, err := provider.Verifier(&oidc.Config{ClientID: audience}).Verify(via, token)
	must(t, err)
	equal(t, "subject", verified.Subject, in.Auth.EntityID)
	var says struct{ User, Namespace string }
	must(t, verified.Claims(&says))
	equal(t, "namespace", says.Namespace, "root")
	if !strings.HasPrefix(says.User, "entity_") {
		t.Errorf("the user is %q", says.User)
	}

	introspect := func() map[string]any {
		answer, err := l.Write("identity/oidc/introspect", map[string]any{"token": token, "client_id": audience})
		must(t, err)
		return answer.Data
	}
	equal(t, "introspection", introspect(), map[string]any{"active": true})
	_, err = l.Write("identity/oidc/key/named/rotate", map[string]any{"verification_ttl": 0})
	must(t, err)
	if got := introspect(); got["active"] != false || !strings.HasPrefix(got["error"].(string), "unable to validate the token signature") {
		t.Errorf("introspection says %v", got)
	}
	_, err = l.Write("identity/oidc/key/none/rotate", nil)
	refused(t, err, 400, `no named key found at "none"`)
	_, err = l.Delete("identity/oidc/key/named")
	refused(t, err, 400, "currently referenced by these roles: web")

	for path, want := range map[string][]any{"identity/oidc/key": {"named"}, "identity/oidc/role": {"web"}} {
		all, err := l.List(path)
		must(t, err)
		equal(t, path, all.Data["keys"], any(want))
	}
	_, err = l.Delete("identity/oidc/role/web")
	must(t, err)
	_, err = l.Delete("identity/oidc/key/named")
	must(t, err)
	for _, path := range []string{"identity/oidc/key/named", "identity/oidc/role/web"} {
		if gone, err := l.Read(path); gone != nil || err != nil {
			t.Errorf("%s: %v %v", path, gone, err)
		}
	}

	set, err := l.Write("identity/oidc/config", map[string]any{"issuer": "https://coffer.example.com:1234"})
	must(t, err)
	equal(t, "warnings", len(set.Warnings), 1)
	config, err := l.Read("identity/oidc/config")
	must(t, err)
	equal(t, "issuer", config.Data["issuer"], any("https://coffer.example.com:1234"))
	_, err = l.Write("identity/oidc/config", map[string]any{"issuer": "https://coffer.example.com/path"})
	refused(t, err, 400, "invalid issuer, which must include only a scheme, host, and optional port")
	_, err = oidc.NewProvider(via, s.URL()+"/v1/identity/oidc")
	if err == nil || !strings.Contains(err.Error(), "coffer.example.com:1234/v1/identity/oidc") {
		t.Errorf("the issuer of another name: %v", err)
	}
}
