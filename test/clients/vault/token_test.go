package vault

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	tokens := client.Auth().Token()
	must(t, client.Sys().PutPolicy("app", `path "secret/data/app" { capabilities = ["read"] }`))
	made, err := tokens.Create(&api.TokenCreateRequest{Policies: []string{"app"}, TTL: "1h", Metadata: map[string]string{"k": "v"}, DisplayName: "job", NumUses: 5})
	must(t, err)
	a := made.Auth
	if len(a.ClientToken) < 95 || a.Accessor == "" || a.LeaseDuration != 3600 || !a.Renewable || a.Orphan || a.EntityID != "" {
		t.Errorf("auth: %+v", a)
	}
	equal(t, "policies", a.Policies, []string{"app", "default"})
	equal(t, "token policies", a.TokenPolicies, []string{"app", "default"})
	equal(t, "metadata", a.Metadata, map[string]string{"k": "v"})

	for name, look := range map[string]func() (*api.Secret, error){
		"lookup":          func() (*api.Secret, error) { return tokens.Lookup(a.ClientToken) },
		"lookup-accessor": func() (*api.Secret, error) { return tokens.LookupAccessor(a.Accessor) },
		"lookup-self":     func() (*api.Secret, error) { return as(t, client, a.ClientToken).Auth().Token().LookupSelf() },
	} {
		s, err := look()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		equal(t, name+" id", first(s.TokenID()), map[bool]string{true: "", false: a.ClientToken}[name == "lookup-accessor"])
		equal(t, name+" accessor", first(s.TokenAccessor()), a.Accessor)
		equal(t, name+" policies", first(s.TokenPolicies()), []string{"app", "default"})
		equal(t, name+" renewable", first(s.TokenIsRenewable()), true)
		equal(t, name+" metadata", first(s.TokenMetadata()), map[string]string{"k": "v"})
		if ttl := first(s.TokenTTL()); ttl < 3500*time.Second || ttl > time.Hour {
			t.Errorf("%s: ttl %v", name, ttl)
		}
		equal(t, name+" display name", s.Data["display_name"], "token-job")
		equal(t, name+" path", s.Data["path"], "auth/token/create")
		equal(t, name+" creation ttl", s.Data["creation_ttl"], json.Number("3600"))
		equal(t, name+" type", s.Data["type"], "service")
		equal(t, name+" explicit max", s.Data["explicit_max_ttl"], json.Number("0"))
		if uses := first(s.TokenRemainingUses()); uses > 5 || uses < 3 {
			t.Errorf("%s: %d uses left", name, uses)
		}
		for _, field := range []string{"issue_time", "expire_time"} {
			if _, err := time.Parse(time.RFC3339, s.Data[field].(string)); err != nil {
				t.Errorf("%s %s: %v", name, field, err)
			}
		}
	}
	self, err := tokens.LookupSelf()
	must(t, err)
	equal(t, "root's ttl", self.Data["ttl"], json.Number("0"))
	equal(t, "root's expiry", self.Data["expire_time"], nil)
	equal(t, "root's policies", first(self.TokenPolicies()), []string{"root"})

	chosen, err := tokens.Create(&api.TokenCreateRequest{ID: "chosen-by-root", Policies: []string{"app"}})
	must(t, err)
	equal(t, "the token that was asked for", chosen.Auth.ClientToken, "chosen-by-root")
	orphan, err := tokens.CreateOrphan(&api.TokenCreateRequest{Policies: []string{"app"}, NoDefaultPolicy: true})
	must(t, err)
	equal(t, "orphan", orphan.Auth.Orphan, true)
	equal(t, "policies", orphan.Auth.Policies, []string{"app"})
	batch, err := tokens.Create(&api.TokenCreateRequest{Policies: []string{"app"}, Type: "batch", TTL: "10m"})
	must(t, err)
	if batch.Auth.ClientToken[:4] != "hvb." || batch.Auth.Accessor != "" || batch.Auth.Renewable {
		t.Errorf("batch: %+v", batch.Auth)
	}
	_, err = client.Logical().Write("auth/token/roles/ci", map[string]any{"allowed_policies": "app", "orphan": true, "token_period": "2h", "renewable": true})
	must(t, err)
	byRole, err := tokens.CreateWithRole(&api.TokenCreateRequest{Policies: []string{"app"}}, "ci")
	must(t, err)
	equal(t, "the period of the role", byRole.Auth.LeaseDuration, 7200)
	_, err = tokens.CreateWithRole(&api.TokenCreateRequest{Policies: []string{"other"}}, "ci")
	refused(t, err, 400, "token policies")
	_, err = tokens.CreateWithRole(nil, "none")
	refused(t, err, 400, "unknown role none")
}

// first returns the value of a call that succeeds.
func first[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestTokensRenewed(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	tokens := client.Auth().Token()
	made, err := tokens.Create(&api.TokenCreateRequest{Policies: []string{"default"}, TTL: "60s"})
	must(t, err)
	own := as(t, client, made.Auth.ClientToken)
	for name, renew := range map[string]func() (*api.Secret, error){
		"renew":               func() (*api.Secret, error) { return tokens.Renew(made.Auth.ClientToken, 120) },
		"renew-accessor":      func() (*api.Secret, error) { return tokens.RenewAccessor(made.Auth.Accessor, 120) },
		"renew-self":          func() (*api.Secret, error) { return own.Auth().Token().RenewSelf(120) },
		"renew-token-as-self": func() (*api.Secret, error) { return tokens.RenewTokenAsSelf(made.Auth.ClientToken, 120) },
	} {
		s, err := renew()
		if err != nil || s.Auth == nil || s.Auth.LeaseDuration != 120 || !s.Auth.Renewable || s.Auth.Accessor != made.Auth.Accessor {
			t.Errorf("%s: %+v %v", name, s, err)
			continue
		}
		want := made.Auth.ClientToken
		if name == "renew-accessor" {
			want = ""
		}
		equal(t, name+" token", s.Auth.ClientToken, want)
	}
	no := false
	fixed, err := tokens.Create(&api.TokenCreateRequest{Policies: []string{"default"}, TTL: "60s", Renewable: &no})
	must(t, err)
	equal(t, "renewable", fixed.Auth.Renewable, false)
	_, err = tokens.Renew(fixed.Auth.ClientToken, 0)
	refused(t, err, 400, "lease is not renewable")
	_, err = tokens.Renew("hvs.none", 0)
	refused(t, err, 400, "token not found")
	capped, err := tokens.Create(&api.TokenCreateRequest{Policies: []string{"default"}, TTL: "10m", ExplicitMaxTTL: "20m"})
	must(t, err)
	s, err := tokens.Renew(capped.Auth.ClientToken, 7200)
	must(t, err)
	if s.Auth.LeaseDuration > 1200 || s.Auth.LeaseDuration < 1190 || len(s.Warnings) == 0 {
		t.Errorf("renewed beyond its end: %+v %q", s.Auth, s.Warnings)
	}
}

func TestTokensRevoked(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	tokens := client.Auth().Token()
	must(t, client.Sys().PutPolicy("maker", `path "auth/token/create" { capabilities = ["update"] }`))
	pair := func() (parent, child *api.Secret) {
		t.Helper()
		parent, err := tokens.Create(&api.TokenCreateRequest{Policies: []string{"maker"}})
		must(t, err)
		child, err = as(t, client, parent.Auth.ClientToken).Auth().Token().Create(&api.TokenCreateRequest{})
		must(t, err)
		return parent, child
	}
	gone := func(what string, s *api.Secret) {
		t.Helper()
		_, err := as(t, client, s.Auth.ClientToken).Auth().Token().LookupSelf()
		refused(t, err, 403, "permission denied")
		_, err = tokens.Lookup(s.Auth.ClientToken)
		refused(t, err, 403, "bad token")
		_, err = tokens.LookupAccessor(s.Auth.Accessor)
		refused(t, err, 400, "invalid accessor")
	}
	parent, child := pair()
	must(t, tokens.RevokeTree(parent.Auth.ClientToken))
	gone("a tree", parent)
	gone("what is below", child)

	parent, child = pair()
	must(t, tokens.RevokeOrphan(parent.Auth.ClientToken))
	gone("a parent", parent)
	left, err := tokens.Lookup(child.Auth.ClientToken)
	must(t, err)
	equal(t, "a child without a parent is an orphan", left.Data["orphan"], true)

	parent, child = pair()
	must(t, tokens.RevokeAccessor(parent.Auth.Accessor))
	gone("by accessor", child)
	parent, child = pair()
	must(t, as(t, client, parent.Auth.ClientToken).Auth().Token().RevokeSelf(""))
	gone("itself", child)
	must(t, tokens.RevokeAccessor("none"))
	must(t, tokens.RevokeTree("hvs.none"))

	listed, err := client.Logical().List("auth/token/accessors")
	must(t, err)
	if keys := listed.Data["keys"].([]any); len(keys) != 2 {
		t.Errorf("accessors: %v", keys)
	}
}

func TestUserpass(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	must(t, client.Sys().EnableAuthWithOptions("people", &api.EnableAuthOptions{Type: "userpass"}))
	_, err := client.Logical().Write("auth/people/users/alice", map[string]any{"password": "correct horse", "token_policies": "default", "token_ttl": "30m"})
	must(t, err)
	stranger := as(t, client, "")
	in, err := stranger.Logical().Write("auth/people/login/alice", map[string]any{"password": "correct horse"})
	must(t, err)
	equal(t, "metadata", in.Auth.Metadata, map[string]string{"username": "alice"})
	equal(t, "policies", in.Auth.Policies, []string{"default"})
	equal(t, "ttl", in.Auth.LeaseDuration, 1800)
	self, err := as(t, client, in.Auth.ClientToken).Auth().Token().LookupSelf()
	must(t, err)
	equal(t, "display name", self.Data["display_name"], "people-alice")
	equal(t, "path", self.Data["path"], "auth/people/login/alice")
	for _, name := range []string{"alice", "nobody"} {
		_, err = stranger.Logical().Write("auth/people/login/"+name, map[string]any{"password": "wrong"})
		refused(t, err, 400, "invalid username or password")
	}
	user, err := client.Logical().Read("auth/people/users/alice")
	must(t, err)
	equal(t, "token_policies", user.Data["token_policies"], []any{"default"})
	equal(t, "token_ttl", user.Data["token_ttl"], json.Number("1800"))
	_, err = client.Logical().Write("auth/people/users/alice/password", map[string]any{"password": "another horse"})
	must(t, err)
	listed, err := client.Logical().List("auth/people/users")
	must(t, err)
	equal(t, "users", listed.Data["keys"], []any{"alice"})
	_, err = client.Logical().Delete("auth/people/users/alice")
	must(t, err)
}
