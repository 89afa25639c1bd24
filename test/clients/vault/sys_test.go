package vault

import (
	"encoding/base64"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// opened runs a server of three shares, any two of which open it.
func opened(t *testing.T) (*apptest.Server, *api.Client, []string) {
	t.Helper()
	s := apptest.Uninitialized(t, `seal "shamir" {}`)
	client := connect(t, s)
	made, err := client.Sys().Init(&api.InitRequest{SecretShares: 3, SecretThreshold: 2})
	must(t, err)
	if len(made.Keys) != 3 || len(made.KeysB64) != 3 || made.RootToken == "" {
		t.Fatalf("init: %d %d", len(made.Keys), len(made.KeysB64))
	}
	client.SetToken(made.RootToken)
	unseal(t, client, made.Keys[:2])
	return s, client, made.KeysB64
}

func unseal(t *testing.T, client *api.Client, shares []string) {
	t.Helper()
	for i, share := range shares {
		status, err := client.Sys().Unseal(share)
		must(t, err)
		if last := i == len(shares)-1; status.Sealed == last {
			t.Fatalf("after share %d: %+v", i+1, status)
		}
	}
}

func TestSealLife(t *testing.T) {
	t.Parallel()
	s := apptest.Uninitialized(t, `seal "shamir" {}`)
	before := connect(t, s)
	if done, err := before.Sys().InitStatus(); err != nil || done {
		t.Errorf("init status: %v %v", done, err)
	}
	if h, err := before.Sys().HealthWithContext(t.Context()); err != nil || h.Initialized || !h.Sealed {
		t.Errorf("health before init: %+v %v", h, err)
	}
	_, err := before.Sys().Init(&api.InitRequest{SecretShares: 2, SecretThreshold: 3})
	refused(t, err, 400, "threshold")
	_, client, shares := opened(t)
	c := client.Sys()
	_, err = c.Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	refused(t, err, 400, "already initialized")
	must(t, c.Seal())
	if h, err := c.Health(); err != nil || !h.Initialized || !h.Sealed {
		t.Errorf("health of a sealed server: %+v %v", h, err)
	}
	_, err = c.ListMounts()
	refused(t, err, 503, "Vault is sealed")
	status, err := c.Unseal(shares[0])
	if err != nil || status.Progress != 1 || status.T != 2 || status.N != 3 || status.Type != "shamir" || status.Nonce == "" {
		t.Errorf("half way: %+v %v", status, err)
	}
	if status, err = c.ResetUnsealProcess(); err != nil || status.Progress != 0 {
		t.Errorf("reset: %+v %v", status, err)
	}
	_, err = c.Unseal("not a share")
	refused(t, err, 400, "'key' must be a valid hex or base64 string")
	unseal(t, client, []string{shares[2], shares[0]})
}

func TestRekeyAndRoot(t *testing.T) {
	t.Parallel()
	_, client, shares := opened(t)
	c := client.Sys()
	started, err := c.RekeyInit(&api.RekeyInitRequest{SecretShares: 2, SecretThreshold: 2, RequireVerification: true})
	if err != nil || !started.Started || started.Required != 2 || started.Nonce == "" || !started.VerificationRequired {
		t.Fatalf("rekey: %+v %v", started, err)
	}
	must(t, c.RekeyCancelWithNonce(started.Nonce))
	started, err = c.RekeyInit(&api.RekeyInitRequest{SecretShares: 2, SecretThreshold: 2, RequireVerification: true})
	must(t, err)
	step, err := c.RekeyUpdate(shares[0], started.Nonce)
	if err != nil || step.Complete {
		t.Fatalf("first share: %+v %v", step, err)
	}
	if at, err := c.RekeyStatus(); err != nil || at.Progress != 1 || at.T != 2 || at.N != 2 {
		t.Errorf("rekey status: %+v %v", at, err)
	}
	step, err = c.RekeyUpdate(shares[1], started.Nonce)
	if err != nil || !step.Complete || len(step.KeysB64) != 2 || step.VerificationNonce == "" {
		t.Fatalf("second share: %+v %v", step, err)
	}
	if v, err := c.RekeyVerificationStatus(); err != nil || v.Nonce != step.VerificationNonce || v.T != 2 {
		t.Errorf("verification: %+v %v", v, err)
	}
	for i, share := range step.KeysB64 {
		v, err := c.RekeyVerificationUpdate(share, step.VerificationNonce)
		if err != nil || v.Complete != (i == 1) {
			t.Fatalf("verification share %d: %+v %v", i, v, err)
		}
	}
	must(t, c.Seal())
	unseal(t, client, step.KeysB64)

	root, err := c.GenerateRootInit("", "")
	if err != nil || !root.Started || root.OTP == "" || root.OTPLength != len(root.OTP) {
		t.Fatalf("generate root: %+v %v", root, err)
	}
	otp := root.OTP
	for _, share := range step.KeysB64 {
		root, err = c.GenerateRootUpdate(share, root.Nonce)
		must(t, err)
	}
	text, err := base64.RawStdEncoding.DecodeString(root.EncodedRootToken)
	if err != nil || !root.Complete || root.EncodedToken != root.EncodedRootToken {
		t.Fatalf("generated: %+v %v", root, err)
	}
	for i := range text {
		text[i] ^= otp[i]
	}
	self, err := as(t, client, string(text)).Auth().Token().LookupSelf()
	must(t, err)
	equal(t, "policies", first(self.TokenPolicies()), []string{"root"})
	_, err = c.GenerateRootInit("", "")
	must(t, err)
	must(t, c.GenerateRootCancel())

	before, err := c.KeyStatus()
	must(t, err)
	must(t, c.Rotate())
	if after, err := c.KeyStatus(); err != nil || after.Term != before.Term+1 || time.Since(after.InstallTime) > time.Minute {
		t.Errorf("key status: %+v %v", after, err)
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	c := client.Sys()
	if l, err := c.Leader(); err != nil || !l.IsSelf {
		t.Errorf("leader: %+v %v", l, err)
	}
	if ha, err := c.HAStatus(); err != nil || len(ha.Nodes) != 1 {
		t.Errorf("ha status: %+v %v", ha, err)
	}
	must(t, c.Mount("team/kv", &api.MountInput{Type: "kv", Description: "d", Options: map[string]string{"version": "1"}, Config: api.MountConfigInput{DefaultLeaseTTL: "1h"}}))
	d := "new"
	//lint:ignore SA1019 deployed programs call it
	must(t, c.TuneMount("team/kv", api.MountConfigInput{Description: &d, MaxLeaseTTL: "3h"}))
	tuned, err := c.MountConfig("team/kv")
	if err != nil || tuned.DefaultLeaseTTL != 3600 || tuned.MaxLeaseTTL != 10800 {
		t.Errorf("tuned: %+v %v", tuned, err)
	}
	must(t, client.KVv1("team/kv").Put(t.Context(), "a", map[string]any{"b": "c"}))
	moving, err := c.StartRemount("team/kv", "crew")
	must(t, err)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		status, err := c.RemountStatus(moving.MigrationID)
		must(t, err)
		if status.MigrationInfo.MigrationStatus == "success" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("moving: %+v", status.MigrationInfo)
		}
	}
	if s, err := client.KVv1("crew").Get(t.Context(), "a"); err != nil || s.Data["b"] != "c" {
		t.Errorf("after the move: %+v %v", s, err)
	}
	must(t, c.Unmount("crew"))
	must(t, c.Unmount("crew"))

	must(t, c.EnableAuthWithOptions("people", &api.EnableAuthOptions{Type: "userpass"}))
	auths, err := c.ListAuth()
	if err != nil || auths["people/"] == nil || auths["people/"].Type != "userpass" {
		t.Errorf("auth: %+v %v", auths, err)
	}
	must(t, c.DisableAuth("people"))

	must(t, c.PutPolicy("app", `path "secret/data/app" { capabilities = ["read", "list"] }`))
	all, err := c.ListPolicies()
	must(t, err)
	equal(t, "policies", all, []string{"app", "default", "root"})
	refused(t, c.PutPolicy("bad", `path "x" { capabilities = ["fly"] }`), 400, "fly")
	refused(t, c.DeletePolicy("root"), 400, "cannot delete")
	made, err := client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"app"}})
	must(t, err)
	for name, got := range map[string][]string{
		"capabilities":          first(c.Capabilities(made.Auth.ClientToken, "secret/data/app")),
		"capabilities-accessor": first(c.CapabilitiesAccessor(made.Auth.Accessor, "secret/data/app")),
		"capabilities-self":     first(as(t, client, made.Auth.ClientToken).Sys().CapabilitiesSelf("secret/data/app")),
	} {
		slices.Sort(got)
		equal(t, name, got, []string{"list", "read"})
	}
	equal(t, "no capability", first(c.Capabilities(made.Auth.ClientToken, "secret/data/other")), []string{"deny"})
	must(t, c.DeletePolicy("app"))

	must(t, c.EnableAuditWithOptions("file", &api.EnableAuditOptions{Type: "file", Options: map[string]string{"file_path": filepath.Join(t.TempDir(), "log")}}))
	devices, err := c.ListAudit()
	if err != nil || devices["file/"] == nil || devices["file/"].Path != "file/" {
		t.Errorf("audit: %+v %v", devices, err)
	}
	one, other := first(c.AuditHash("file", "x")), first(c.AuditHash("file", "x"))
	if one != other || one[:12] != "hmac-sha256:" {
		t.Errorf("hashes: %q %q", one, other)
	}
	must(t, c.DisableAudit("file"))
}

// What Coffer has not is refused with words, never answered half.
func TestRefusals(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	c := client.Sys()
	_, err := c.Renew("lease", 0)
	refused(t, err, 400, "invalid lease")
	_, err = c.Lookup("lease")
	refused(t, err, 400, "invalid lease")
	refused(t, c.RegisterPlugin(&api.RegisterPluginInput{Name: "x", Type: api.PluginTypeSecrets, Command: "x"}), 405, "unsupported operation")
}
