package app_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// pending is a login that waits for its factor.
type pending struct {
	Auth struct {
		Token string `json:"client_token"`
		MFA   *struct {
			ID          string `json:"mfa_request_id"`
			Constraints map[string]struct {
				Any []struct {
					Type         string `json:"type"`
					ID           string `json:"id"`
					UsesPasscode bool   `json:"uses_passcode"`
				} `json:"any"`
			} `json:"mfa_constraints"`
		} `json:"mfa_requirement"`
	} `json:"auth"`
}

// code is the passcode that a phone shows some periods from now.
func code(t *testing.T, url string, periods int) string {
	t.Helper()
	key, err := otp.NewKeyFromURL(url)
	if err != nil {
		t.Fatal(err)
	}
	text, err := totp.GenerateCode(key.Secret(), time.Now().Add(time.Duration(periods)*30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestASecondFactor(t *testing.T) {
	s := apptest.Start(t, "")
	userOf(t, s, "ada")
	userOf(t, s, "bob")
	ada := login(t, s, "ada")
	bob := login(t, s, "bob")
	var method struct {
		ID string `json:"method_id"`
	}
	s.Must(t, 200, "POST", "identity/mfa/method/totp", `{"issuer":"Coffer","method_name":"phone","max_validation_attempts":3}`).Into(t, &method)
	s.Must(t, 204, "POST", "identity/mfa/login-enforcement/ada", `{"mfa_method_ids":["`+method.ID+`"],"identity_entity_ids":["`+ada.Auth.EntityID+`"]}`)
	var made struct {
		URL     string `json:"url"`
		Barcode string `json:"barcode"`
	}
	admin := `{"method_id":"` + method.ID + `","entity_id":"` + ada.Auth.EntityID + `"}`
	s.Must(t, 200, "POST", "identity/mfa/method/totp/admin-generate", admin).Into(t, &made)
	if !strings.HasPrefix(made.URL, "otpauth://totp/Coffer:") || len(made.Barcode) < 100 {
		t.Fatalf("made: %+v", made)
	}
	if a := s.Must(t, 200, "POST", "identity/mfa/method/totp/admin-generate", admin); len(a.Warnings) != 1 || strings.Contains(string(a.Body), "otpauth") {
		t.Errorf("a second secret: %s", a.Body)
	}
	// Who needs none logs in as ever.
	if again := login(t, s, "bob"); again.Auth.Token == "" {
		t.Error("bob needs a factor")
	}
	begin := func() (p pending) {
		t.Helper()
		a := s.Do(t, "POST", "auth/userpass/login/ada", "", `{"password":"correct horse"}`)
		into(t, a, &p)
		if p.Auth.Token != "" || p.Auth.MFA == nil || p.Auth.MFA.Constraints["ada"].Any[0].ID != method.ID || !p.Auth.MFA.Constraints["ada"].Any[0].UsesPasscode {
			t.Fatalf("a login that needs a factor: %s", a.Body)
		}
		return p
	}
	validate := func(id, with, passcode string) *apptest.Answer {
		t.Helper()
		body, _ := json.Marshal(map[string]any{"mfa_request_id": id, "mfa_payload": map[string][]string{with: {passcode}}})
		return s.Do(t, "POST", "sys/mfa/validate", "", string(body))
	}
	p := begin()
	now := code(t, made.URL, 0)
	if a := validate(p.Auth.MFA.ID, method.ID, "000000"); a.Status != 403 {
		t.Errorf("a wrong passcode: %d %s", a.Status, a.Body)
	}
	a := validate(p.Auth.MFA.ID, method.ID, now)
	if a.Status != 200 || a.Auth == nil || a.Auth.Token == "" {
		t.Fatalf("the right one: %d %s", a.Status, a.Body)
	}
	if self := s.Do(t, "GET", "auth/token/lookup-self", a.Auth.Token, ""); !strings.Contains(string(self.Data), `"path":"auth/userpass/login/ada"`) || !strings.Contains(string(self.Data), ada.Auth.EntityID) {
		t.Errorf("the token: %s", self.Data)
	}
	s.Must(t, 200, "POST", "auth/token/renew", `{"token":"`+a.Auth.Token+`"}`)
	// Neither the request's id nor the passcode is good twice, nor for another.
	if a := validate(p.Auth.MFA.ID, method.ID, code(t, made.URL, 1)); a.Status != 400 {
		t.Errorf("the same request again: %d %s", a.Status, a.Body)
	}
	p = begin()
	used := validate(p.Auth.MFA.ID, method.ID, now)
	wrong := validate(p.Auth.MFA.ID, method.ID, "111111")
	if used.Status != 403 || strings.Join(used.Errors, "") != strings.Join(wrong.Errors, "") {
		t.Errorf("a used passcode is told from a wrong one: %s %s", used.Body, wrong.Body)
	}
	if a := validate(p.Auth.MFA.ID, "phone", code(t, made.URL, 1)); a.Status != 200 {
		t.Errorf("the next passcode, by the method's name: %d %s", a.Status, a.Body)
	}
	for _, id := range []string{"", "x", p.Auth.MFA.ID + "x", strings.Repeat("a", 5000), "." + ada.Auth.EntityID, "../../x.y", strings.Split(p.Auth.MFA.ID, ".")[0] + "." + bob.Auth.EntityID} {
		if a := validate(id, method.ID, "123456"); a.Status != 400 {
			t.Errorf("the request id %.20q: %d %s", id, a.Status, a.Body)
		}
	}
	// In one step, by header.
	in := s.Do(t, "POST", "auth/userpass/login/ada", "", `{"password":"correct horse"}`, "X-Vault-MFA", method.ID+":000000")
	if in.Status != 403 {
		t.Errorf("a wrong passcode in the header: %d %s", in.Status, in.Body)
	}
	// Guessing is refused for a while, and then even the right one is.
	for range 3 {
		s.Do(t, "POST", "auth/userpass/login/ada", "", `{"password":"correct horse"}`, "X-Vault-MFA", method.ID+":000000")
	}
	s.Must(t, 204, "POST", "identity/mfa/method/totp/admin-destroy", admin)
	s.Must(t, 200, "POST", "identity/mfa/method/totp/admin-generate", admin).Into(t, &made)
	for range 3 {
		s.Do(t, "POST", "auth/userpass/login/ada", "", `{"password":"correct horse"}`, "X-Vault-MFA", method.ID+":000000")
	}
	in = s.Do(t, "POST", "auth/userpass/login/ada", "", `{"password":"correct horse"}`, "X-Vault-MFA", method.ID+":"+code(t, made.URL, 0))
	if in.Status != 403 {
		t.Errorf("the right passcode while guessing is refused: %d", in.Status)
	}
	// A new secret starts anew; a wrong password never asks for a factor.
	s.Must(t, 204, "POST", "identity/mfa/method/totp/admin-destroy", admin)
	s.Must(t, 200, "POST", "identity/mfa/method/totp/admin-generate", admin).Into(t, &made)
	if a := s.Do(t, "POST", "auth/userpass/login/ada", "", `{"password":"wrong"}`, "X-Vault-MFA", method.ID+":"+code(t, made.URL, 0)); a.Status != 400 {
		t.Errorf("a wrong password with a factor: %d", a.Status)
	}
	p = begin()
	s.Must(t, 204, "POST", "identity/entity/id/"+ada.Auth.EntityID, `{"disabled":true}`)
	if a := validate(p.Auth.MFA.ID, method.ID, code(t, made.URL, 0)); a.Status != 403 {
		t.Errorf("a disabled entity proves its factor: %d %s", a.Status, a.Body)
	}
	s.Must(t, 204, "POST", "identity/entity/id/"+ada.Auth.EntityID, `{"disabled":false}`)
	// A login waits across a restart.
	p = begin()
	s.Stop(t)
	s.Run(t)
	if a := validate(p.Auth.MFA.ID, method.ID, code(t, made.URL, 1)); a.Status != 200 {
		t.Errorf("after a restart: %d %s", a.Status, a.Body)
	}
	s.Must(t, 400, "DELETE", "identity/mfa/method/totp/"+method.ID, "")
	s.Must(t, 204, "DELETE", "identity/mfa/login-enforcement/ada", "")
	s.Must(t, 204, "DELETE", "identity/mfa/method/totp/"+method.ID, "")
	if again := login(t, s, "ada"); again.Auth.Token == "" {
		t.Error("a factor is asked for although no rule is left")
	}
	for _, secret := range []string{made.URL, now} {
		if strings.Contains(s.Log.String(), secret) {
			t.Error("the log holds a secret")
		}
	}
	for _, body := range []string{
		`{}`, `{"issuer":"x","period":1}`, `{"issuer":"x","algorithm":"MD5"}`, `{"issuer":"x","digits":7}`, `{"issuer":"x","skew":2}`,
		`{"issuer":"x","key_size":1}`, `{"issuer":"x","qr_size":100000}`, `{"issuer":"x","max_validation_attempts":-1}`,
	} {
		s.Must(t, 400, "POST", "identity/mfa/method/totp", body)
	}
	for _, body := range []string{`{}`, `{"mfa_method_ids":["x"],"auth_method_types":["userpass"]}`, `{"auth_method_types":["userpass"]}`} {
		s.Must(t, 400, "POST", "identity/mfa/login-enforcement/bad", body)
	}
}
