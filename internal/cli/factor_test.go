package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// A login that needs a second factor takes its passcode from standard input.
func TestLoginWithASecondFactor(t *testing.T) {
	s := apptest.Start(t, "")
	s.Must(t, 204, "POST", "sys/auth/userpass", `{"type":"userpass"}`)
	s.Must(t, 204, "POST", "auth/userpass/users/ada", `{"password":"correct horse"}`)
	var method struct {
		ID string `json:"method_id"`
	}
	s.Must(t, 200, "POST", "identity/mfa/method/totp", `{"issuer":"Coffer"}`).Into(t, &method)
	var who struct {
		ID string `json:"id"`
	}
	s.Must(t, 200, "POST", "auth/userpass/login/ada", `{"password":"correct horse"}`)
	var names struct {
		Keys []string `json:"keys"`
	}
	s.Must(t, 200, "LIST", "identity/entity/id", "").Into(t, &names)
	who.ID = names.Keys[0]
	var made struct {
		URL string `json:"url"`
	}
	s.Must(t, 200, "POST", "identity/mfa/method/totp/admin-generate", `{"method_id":"`+method.ID+`","entity_id":"`+who.ID+`"}`).Into(t, &made)
	s.Must(t, 204, "POST", "identity/mfa/login-enforcement/people", `{"mfa_method_ids":"`+method.ID+`","auth_method_types":"userpass"}`)
	key, err := otp.NewKeyFromURL(made.URL)
	if err != nil {
		t.Fatal(err)
	}
	passcode, err := totp.GenerateCode(key.Secret(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("correct horse"), 0o600); err != nil {
		t.Fatal(err)
	}
	login := func(stdin string, args ...string) (string, error) {
		cmd := exec.Command(os.Args[0], append([]string{"login", "-method=userpass", "-token-only", "username=ada", "password=@" + password}, args...)...)
		cmd.Args[0], cmd.Path = "coffer", coffer(t)
		cmd.Env = []string{"HOME=" + t.TempDir(), "COFFER_ADDR=" + s.URL(), "COFFER_CACERT=" + s.CAFile}
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := login(""); err == nil || !strings.Contains(out, "-mfa-passcode") {
		t.Errorf("without a passcode: %s %v", out, err)
	}
	if out, err := login("000000\n", "-mfa-passcode=-"); err == nil || !strings.Contains(out, "MFA credentials") {
		t.Errorf("with a wrong one: %s %v", out, err)
	}
	if out, err := login(passcode+"\n", "-mfa-passcode=-"); err != nil || !strings.HasPrefix(out, "hvs.") {
		t.Errorf("with the right one: %s %v", out, err)
	}
}

// coffer returns the command line as a program.
func coffer(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "coffer")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/coffer").CombinedOutput(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	return program
}
