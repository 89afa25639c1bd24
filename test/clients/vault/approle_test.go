package vault

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
)

// TestAppRole logs in with the client's own helper, with a secret id as it is and
// with one that came wrapped.
func TestAppRole(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	ctx := context.Background()
	must(t, client.Sys().EnableAuthWithOptions("ci", &api.EnableAuthOptions{Type: "approle"}))
	_, err := client.Logical().Write("auth/ci/role/deploy", map[string]any{
		"token_policies": []string{"default"}, "token_ttl": "20m", "token_max_ttl": "1h", "secret_id_num_uses": 2, "secret_id_ttl": "10m",
	})
	must(t, err)
	about, err := client.Logical().Read("auth/ci/role/deploy/role-id")
	must(t, err)
	roleID := about.Data["role_id"].(string)
	made, err := client.Logical().Write("auth/ci/role/deploy/secret-id", map[string]any{"metadata": `{"host":"ci-1"}`})
	must(t, err)
	equal(t, "ttl", made.Data["secret_id_ttl"], json.Number("600"))
	equal(t, "uses", made.Data["secret_id_num_uses"], json.Number("2"))

	stranger := as(t, client, "")
	login := func(secret *approle.SecretID, options ...approle.LoginOption) (*api.Secret, error) {
		method, err := approle.NewAppRoleAuth(roleID, secret, append(options, approle.WithMountPath("ci"))...)
		must(t, err)
		return as(t, stranger, "").Auth().Login(ctx, method)
	}
	secret := &approle.SecretID{FromString: made.Data["secret_id"].(string)}
	in, err := login(secret)
	must(t, err)
	equal(t, "metadata", in.Auth.Metadata, map[string]string{"role_name": "deploy", "host": "ci-1"})
	equal(t, "policies", in.Auth.Policies, []string{"default"})
	equal(t, "ttl", in.Auth.LeaseDuration, 1200)
	own := as(t, client, in.Auth.ClientToken)
	self, err := own.Auth().Token().LookupSelf()
	must(t, err)
	equal(t, "display name", self.Data["display_name"], "ci")
	equal(t, "path", self.Data["path"], "auth/ci/login")
	_, err = own.Auth().Token().RenewSelf(60)
	must(t, err)

	accessor := map[string]any{"secret_id_accessor": made.Data["secret_id_accessor"]}
	left, err := client.Logical().Write("auth/ci/role/deploy/secret-id-accessor/lookup", accessor)
	must(t, err)
	equal(t, "uses left", left.Data["secret_id_num_uses"], json.Number("1"))
	equal(t, "metadata", left.Data["metadata"], map[string]any{"host": "ci-1"})
	_, err = login(secret)
	must(t, err)
	_, err = login(secret)
	refused(t, err, 400, "invalid role or secret ID")
	none, err := client.Logical().Write("auth/ci/role/deploy/secret-id/lookup", map[string]any{"secret_id": "used up"})
	if err != nil || none != nil {
		t.Errorf("a secret id that is not there: %v %v", none, err)
	}
	_, err = client.Logical().Write("auth/ci/role/deploy/secret-id-accessor/lookup", accessor)
	refused(t, err, 404, "failed to find accessor entry for secret_id_accessor")

	wrapping := as(t, client, client.Token())
	wrapping.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	wrapped, err := wrapping.Logical().Write("auth/ci/role/deploy/secret-id", nil)
	must(t, err)
	_, err = login(&approle.SecretID{FromString: wrapped.WrapInfo.Token}, approle.WithWrappingToken())
	must(t, err)
	_, err = login(&approle.SecretID{FromString: wrapped.WrapInfo.Token}, approle.WithWrappingToken())
	if err == nil {
		t.Error("a wrapped secret id was taken out twice")
	}

	_, err = client.Logical().Delete("auth/ci/role/deploy")
	must(t, err)
	_, err = own.Auth().Token().RenewSelf(60)
	if err == nil {
		t.Error("a token was renewed whose role was deleted")
	}
}
