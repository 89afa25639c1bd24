package vault

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/ldap"

	"github.com/cofferhq/coffer/internal/auth/ldap/ldaptest"
)

// TestLDAP logs in with the client's own helper, against a real directory.
func TestLDAP(t *testing.T) {
	t.Parallel()
	directory := ldaptest.New(t)
	_, client := start(t)
	ctx := context.Background()
	must(t, client.Sys().EnableAuthWithOptions("people", &api.EnableAuthOptions{Type: "ldap"}))
	_, err := client.Logical().Write("auth/people/config", map[string]any{
		"url": directory.TLSURL, "certificate": directory.CA, "binddn": ldaptest.BindDN, "bindpass": ldaptest.BindPassword,
		"userdn": ldaptest.People, "userattr": "uid", "groupdn": ldaptest.Groups, "token_ttl": "20m", "request_timeout": 30,
	})
	must(t, err)
	config, err := client.Logical().Read("auth/people/config")
	must(t, err)
	equal(t, "url", config.Data["url"], directory.TLSURL)
	equal(t, "timeout", config.Data["request_timeout"], json.Number("30"))
	equal(t, "bindpass", config.Data["bindpass"], nil)
	_, err = client.Logical().Write("auth/people/groups/operators", map[string]any{"policies": "operate"})
	must(t, err)
	_, err = client.Logical().Write("auth/people/users/ada", map[string]any{"policies": "personal", "groups": "local"})
	must(t, err)
	user, err := client.Logical().Read("auth/people/users/Ada")
	must(t, err)
	equal(t, "user", user.Data, map[string]any{"policies": []any{"personal"}, "groups": "local"})
	groups, err := client.Logical().List("auth/people/groups")
	must(t, err)
	equal(t, "groups", groups.Data["keys"], []any{"operators"})

	login := func(name, password string) (*api.Secret, error) {
		method, err := ldap.NewLDAPAuth(name, &ldap.Password{FromString: password}, ldap.WithMountPath("people"))
		must(t, err)
		return as(t, client, "").Auth().Login(ctx, method)
	}
	in, err := login("Ada", ldaptest.Password)
	must(t, err)
	equal(t, "policies", in.Auth.TokenPolicies, []string{"default", "operate", "personal"})
	equal(t, "metadata", in.Auth.Metadata, map[string]string{"username": "ada"})
	equal(t, "ttl", in.Auth.LeaseDuration, 1200)
	for name, password := range map[string]string{"ada": "wrong", "nobody": ldaptest.Password, "*": "x", "#": "x", "smith, john": "x"} {
		_, err = login(name, password)
		refused(t, err, 400, "failed to bind as user")
	}
	_, err = login("smith, john", ldaptest.Password)
	must(t, err)
	own := as(t, client, in.Auth.ClientToken)
	_, err = own.Auth().Token().RenewSelf(60)
	must(t, err)

	directory.Stop()
	_, err = login("ada", ldaptest.Password)
	refused(t, err, 503, "cannot be asked")
	_, err = own.Auth().Token().RenewSelf(60)
	refused(t, err, 503, "cannot be asked")
	_, err = client.Logical().Delete("auth/people/users/ada")
	must(t, err)
	none, err := client.Logical().Read("auth/people/users/ada")
	if err != nil || none != nil {
		t.Errorf("a deleted user: %v %v", none, err)
	}
}
