package vault

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
)

// byPassword is a login as the client's helpers do it.
type byPassword struct{ user, password string }

func (b byPassword) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	return client.Logical().WriteWithContext(ctx, "auth/userpass/login/"+b.user, map[string]any{"password": b.password})
}

// TestMFA logs in with a second factor by the client's own two ways: in two steps, and
// with the passcode in the first.
func TestMFA(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	ctx := context.Background()
	l := client.Logical()
	must(t, client.Sys().EnableAuthWithOptions("userpass", &api.EnableAuthOptions{Type: "userpass"}))
	_, err := l.Write("auth/userpass/users/ada", map[string]any{"password": "correct horse"})
	must(t, err)
	in, err := as(t, client, "").Auth().Login(ctx, byPassword{"ada", "correct horse"})
	must(t, err)
	method, err := l.Write("identity/mfa/method/totp", map[string]any{"issuer": "Coffer", "method_name": "phone", "period": 30, "algorithm": "SHA256", "digits": 8})
	must(t, err)
	id := method.Data["method_id"].(string)
	_, err = l.Write("identity/mfa/login-enforcement/people", map[string]any{"mfa_method_ids": []string{id}, "auth_method_types": []string{"userpass"}})
	must(t, err)
	made, err := l.Write("identity/mfa/method/totp/admin-generate", map[string]any{"method_id": id, "entity_id": in.Auth.EntityID})
	must(t, err)
	key, err := otp.NewKeyFromURL(made.Data["url"].(string))
	must(t, err)
	code := func(periods time.Duration) string {
		text, err := totp.GenerateCodeCustom(key.Secret(), time.Now().Add(periods*30*time.Second), totp.ValidateOpts{Period: 30, Digits: 8, Algorithm: otp.AlgorithmSHA256})
		must(t, err)
		return text
	}
	ada := as(t, client, "")
	waits, err := ada.Auth().MFALogin(ctx, byPassword{"ada", "correct horse"})
	must(t, err)
	_, err = ada.Auth().MFAValidate(ctx, waits, map[string]any{id: []string{"00000000"}})
	refused(t, err, 403, "login MFA validation failed")
	out, err := ada.Auth().MFAValidate(ctx, waits, map[string]any{id: []string{code(0)}})
	must(t, err)
	equal(t, "entity", out.Auth.EntityID, in.Auth.EntityID)
	_, err = ada.Auth().Token().LookupSelf()
	must(t, err)

	at := as(t, client, "")
	_, err = at.Auth().MFALogin(ctx, byPassword{"ada", "correct horse"}, id+":"+code(0))
	refused(t, err, 403, "login MFA validation failed") // the passcode was used
	_, err = at.Auth().MFALogin(ctx, byPassword{"ada", "correct horse"}, id+":"+code(1))
	must(t, err)
	read, err := l.Read("identity/mfa/method/totp/" + id)
	must(t, err)
	equal(t, "algorithm", read.Data["algorithm"], any("SHA256"))
	rule, err := l.Read("identity/mfa/login-enforcement/people")
	must(t, err)
	equal(t, "types", rule.Data["auth_method_types"], any([]any{"userpass"}))
}
