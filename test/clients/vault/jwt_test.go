package vault

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
	"github.com/cofferhq/coffer/internal/auth/issuer/providertest"
)

// TestJWT logs a CI job in, as actions and plugins for Vault do.
func TestJWT(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	who := issuertest.New(t)
	must(t, client.Sys().EnableAuthWithOptions("jwt", &api.EnableAuthOptions{Type: "jwt"}))
	none, err := client.Logical().Read("auth/jwt/config")
	if err != nil || none != nil {
		t.Errorf("a configuration that is not there: %v %v", none, err)
	}
	_, err = client.Logical().Write("auth/jwt/config", map[string]any{"oidc_discovery_url": who.URL, "oidc_discovery_ca_pem": who.CA, "bound_issuer": who.URL})
	must(t, err)
	config, err := client.Logical().Read("auth/jwt/config")
	must(t, err)
	equal(t, "discovery", config.Data["oidc_discovery_url"], who.URL)
	equal(t, "algorithms", config.Data["jwt_supported_algs"], []any{})
	equal(t, "provider", config.Data["provider_config"], map[string]any{})
	_, err = client.Logical().Write("auth/jwt/role/deploy", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"https://vault.example.com"},
		"bound_claims":   map[string]any{"repository": []string{"acme/app", "acme/web"}, "run_attempt": json.Number("1")},
		"claim_mappings": map[string]any{"repository": "repository"}, "token_policies": []string{"default"}, "token_ttl": "10m", "token_max_ttl": "30m",
	})
	must(t, err)
	role, err := client.Logical().Read("auth/jwt/role/deploy")
	must(t, err)
	equal(t, "bound claims", role.Data["bound_claims"], map[string]any{"repository": []any{"acme/app", "acme/web"}, "run_attempt": json.Number("1")})
	equal(t, "mappings", role.Data["claim_mappings"], map[string]any{"repository": "repository"})
	equal(t, "ttl", role.Data["token_ttl"], json.Number("600"))
	roles, err := client.Logical().List("auth/jwt/role")
	must(t, err)
	equal(t, "roles", roles.Data["keys"], []any{"deploy"})

	login := func(claims map[string]any) (*api.Secret, error) {
		return as(t, client, "").Logical().WriteWithContext(context.Background(), "auth/jwt/login", map[string]any{"role": "deploy", "jwt": who.Sign(claims)})
	}
	job := map[string]any{"sub": "repo:acme/app:ref:refs/heads/main", "aud": "https://vault.example.com", "repository": "acme/app", "run_attempt": 1}
	in, err := login(job)
	must(t, err)
	equal(t, "metadata", in.Auth.Metadata, map[string]string{"role": "deploy", "repository": "acme/app"})
	equal(t, "ttl", in.Auth.LeaseDuration, 600)
	own := as(t, client, in.Auth.ClientToken)
	self, err := own.Auth().Token().LookupSelf()
	must(t, err)
	equal(t, "display name", self.Data["display_name"], "jwt-repo:acme/app:ref:refs/heads/main")
	_, err = own.Auth().Token().RenewSelf(60)
	must(t, err)
	job["repository"] = "evil/app"
	_, err = login(job)
	refused(t, err, 400, `error validating claims: claim "repository" does not match any associated bound claim values`)
	delete(job, "aud")
	_, err = login(job)
	refused(t, err, 400, "error validating token")
	_, err = client.Logical().Delete("auth/jwt/role/deploy")
	must(t, err)
	_, err = own.Auth().Token().RenewSelf(60)
	if err == nil {
		t.Error("a token whose role was deleted was renewed")
	}
	_, err = login(job)
	refused(t, err, 400, `role "deploy" could not be found`)
}

// TestOIDC does what Vault's command line does around a login in a browser.
func TestOIDC(t *testing.T) {
	t.Parallel()
	const local = "http://localhost:8250/oidc/callback"
	_, client := start(t)
	p := providertest.New(t, local)
	must(t, client.Sys().EnableAuthWithOptions("oidc", &api.EnableAuthOptions{Type: "oidc"}))
	_, err := client.Logical().Write("auth/oidc/config", map[string]any{
		"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_client_id": providertest.ClientID, "oidc_client_secret": providertest.ClientSecret,
	})
	must(t, err)
	_, err = client.Logical().Write("auth/oidc/role/people", map[string]any{
		"user_claim": "sub", "allowed_redirect_uris": []string{local}, "groups_claim": "groups", "token_policies": []string{"default"},
	})
	must(t, err)
	stranger := as(t, client, "")
	begun, err := stranger.Logical().Write("auth/oidc/oidc/auth_url", map[string]any{"role": "people", "redirect_uri": local, "client_nonce": "nonce"})
	must(t, err)
	answer, err := p.LogIn(t, begun.Data["auth_url"].(string), providertest.Ada, providertest.Password)
	must(t, err)
	in, err := stranger.Logical().ReadWithData("auth/oidc/oidc/callback", map[string][]string{
		"state": {answer.Form.Get("state")}, "code": {answer.Form.Get("code")}, "id_token": {""}, "client_nonce": {"nonce"},
	})
	must(t, err)
	equal(t, "metadata", in.Auth.Metadata, map[string]string{"role": "people"})
	_, err = stranger.Logical().ReadWithData("auth/oidc/oidc/callback", map[string][]string{"state": {answer.Form.Get("state")}, "code": {answer.Form.Get("code")}})
	refused(t, err, 400, "Vault login failed. Expired or missing OAuth state.")
	elsewhere, err := stranger.Logical().Write("auth/oidc/oidc/auth_url", map[string]any{"role": "people", "redirect_uri": "https://evil.example/"})
	must(t, err)
	equal(t, "address", elsewhere.Data["auth_url"], "")
}
