package sys_test

import (
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	vault "github.com/hashicorp/vault/api"
	bao "github.com/openbao/openbao/api/v2"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// vaultClient is Vault's own Go client, unmodified, with the root token.
func vaultClient(t testing.TB, s *apptest.Server) *vault.Client {
	t.Helper()
	c := vault.DefaultConfig()
	must(t, c.Error)
	c.Address, c.MaxRetries = s.URL(), 0
	must(t, c.ConfigureTLS(&vault.TLSConfig{CACert: s.CAFile}))
	t.Cleanup(c.HttpClient.Transport.(*http.Transport).CloseIdleConnections)
	client, err := vault.NewClient(c)
	must(t, err)
	client.SetToken(s.Root)
	return client
}

// tune is the call that deployed clients make: it sends the settings that stay
// as empty ones.
func tune(c *vault.Sys, path string, config vault.MountConfigInput) error {
	//lint:ignore SA1019 what is tested is what it sends
	return c.TuneMount(path, config)
}

func TestVaultsClientReadsTheSystem(t *testing.T) {
	s := apptest.Start(t, "")
	client := vaultClient(t, s)
	c := client.Sys()
	health, err := c.Health()
	if err != nil || !health.Initialized || health.Sealed || health.ClusterID == "" || health.Version != "1.19.0+coffer" {
		t.Errorf("health: %+v %v", health, err)
	}
	status, err := c.SealStatus()
	if err != nil || status.Sealed || status.ClusterID != health.ClusterID {
		t.Errorf("seal status: %+v %v", status, err)
	}
	if done, err := c.InitStatus(); err != nil || !done {
		t.Errorf("init: %v %v", done, err)
	}
	leader, err := c.Leader()
	if err != nil || !leader.IsSelf || time.Since(leader.ActiveTime) > time.Hour {
		t.Errorf("leader: %+v %v", leader, err)
	}
	if ha, err := c.HAStatus(); err != nil || len(ha.Nodes) != 1 || !ha.Nodes[0].ActiveNode {
		t.Errorf("ha status: %+v %v", ha, err)
	}
	must(t, c.Rotate())
	if key, err := c.KeyStatus(); err != nil || key.Term != 2 || time.Since(key.InstallTime) > time.Hour {
		t.Errorf("key status: %+v %v", key, err)
	}
	if _, err := c.RekeyStatus(); err != nil {
		t.Errorf("rekey: %v", err)
	}
	if g, err := c.GenerateRootStatus(); err != nil || g.OTPLength == 0 {
		t.Errorf("generate root: %+v %v", g, err)
	}
	must(t, c.StepDown())
	kinds, err := c.ListPlugins(&vault.ListPluginsInput{})
	if err != nil || !slices.Contains(kinds.PluginsByType[vault.PluginTypeCredential], "userpass") {
		t.Errorf("plugins: %+v %v", kinds, err)
	}
	if p, err := c.GetPlugin(&vault.GetPluginInput{Name: "kv", Type: vault.PluginTypeSecrets}); err != nil || !p.Builtin {
		t.Errorf("plugin: %+v %v", p, err)
	}
	must(t, c.Seal())
	if status, err := c.SealStatus(); err != nil || !status.Sealed {
		t.Errorf("%+v %v", status, err)
	}
}

func TestVaultsClientKeepsMountsAndPolicies(t *testing.T) {
	s := apptest.Start(t, "")
	client := vaultClient(t, s)
	c := client.Sys()
	must(t, c.Mount("team", &vault.MountInput{Type: "kv", Description: "d", Options: map[string]string{"version": "1"}, Config: vault.MountConfigInput{DefaultLeaseTTL: "1h"}}))
	mounts, err := c.ListMounts()
	if err != nil || mounts["team/"] == nil || mounts["team/"].Config.DefaultLeaseTTL != 3600 || mounts["sys/"] == nil {
		t.Fatalf("mounts: %+v %v", mounts, err)
	}
	after := "after"
	must(t, tune(c, "team", vault.MountConfigInput{Description: &after}))
	tuned, err := c.MountConfig("team")
	if err != nil || tuned.DefaultLeaseTTL != 3600 {
		t.Errorf("a new description changed %+v %v", tuned, err)
	}
	must(t, tune(c, "team", vault.MountConfigInput{Options: map[string]string{"version": "2"}}))
	must(t, c.Remount("team", "crew"))
	if m, err := c.GetMount("crew"); err != nil || m.Options["version"] != "2" || m.Description != after {
		t.Errorf("mount: %+v %v", m, err)
	}
	must(t, c.Unmount("crew"))

	off := true
	must(t, c.EnableAuthWithOptions("people", &vault.EnableAuthOptions{Type: "userpass", Config: vault.MountConfigInput{
		UserLockoutConfig: &vault.UserLockoutConfigInput{LockoutThreshold: "3", DisableLockout: &off},
	}}))
	must(t, tune(c, "auth/people", vault.MountConfigInput{MaxLeaseTTL: "2h", UserLockoutConfig: &vault.UserLockoutConfigInput{LockoutDuration: "10m"}}))
	auths, err := c.ListAuth()
	if err != nil || auths["people/"] == nil || auths["people/"].Config.MaxLeaseTTL != 7200 || auths["token/"] == nil {
		t.Errorf("auth: %+v %v", auths, err)
	}
	must(t, c.DisableAuth("people"))

	must(t, c.PutPolicy("app", readApp))
	desc := "newest"
	must(t, c.Mount("third", &vault.MountInput{Type: "kv", Config: vault.MountConfigInput{MaxLeaseTTL: "1h"}}))
	must(t, c.TuneMountAllowNil("third", vault.TuneMountConfigInput{Description: &desc}))
	if m, err := c.GetMount("third"); err != nil || m.Description != desc || m.Config.MaxLeaseTTL != 3600 {
		t.Errorf("mount: %+v %v", m, err)
	}
	if text, err := c.GetPolicy("app"); err != nil || text != readApp {
		t.Errorf("policy: %q %v", text, err)
	}
	if all, err := c.ListPolicies(); err != nil || !slices.Equal(all, []string{"app", "default", "root"}) {
		t.Errorf("policies: %v %v", all, err)
	}
	must(t, c.DeletePolicy("app"))
	if text, err := c.GetPolicy("app"); err != nil || text != "" {
		t.Errorf("a policy that is gone: %q %v", text, err)
	}
	for _, path := range []string{"secret/data/x", "data", "auth"} {
		if got, err := c.CapabilitiesSelf(path); err != nil || !slices.Equal(got, []string{"root"}) {
			t.Errorf("capabilities on %s: %v %v", path, got, err)
		}
	}
	if got, err := c.Capabilities(s.Root, "secret/data/x"); err != nil || !slices.Equal(got, []string{"root"}) {
		t.Errorf("capabilities: %v %v", got, err)
	}

	must(t, c.EnableAuditWithOptions("file", &vault.EnableAuditOptions{Type: "file", Options: map[string]string{"file_path": filepath.Join(t.TempDir(), "log")}}))
	if devices, err := c.ListAudit(); err != nil || devices["file/"] == nil || devices["file/"].Type != "file" {
		t.Errorf("audit: %+v %v", devices, err)
	}
	if hash, err := c.AuditHash("file", "x"); err != nil || hash == "" {
		t.Errorf("audit hash: %q %v", hash, err)
	}
	must(t, c.DisableAudit("file"))

	client.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	wrapped, err := client.Logical().Write("sys/wrapping/wrap", map[string]any{"a": "b"})
	if err != nil || wrapped.WrapInfo == nil || wrapped.WrapInfo.CreationTime.IsZero() {
		t.Fatalf("wrap: %+v %v", wrapped, err)
	}
	client.SetWrappingLookupFunc(nil)
	if out, err := client.Logical().Unwrap(wrapped.WrapInfo.Token); err != nil || out.Data["a"] != "b" {
		t.Errorf("unwrap: %+v %v", out, err)
	}
}

// OpenBao's client goes its own ways in places.
func TestOpenBaosClient(t *testing.T) {
	s := apptest.Start(t, "")
	config := bao.DefaultConfig()
	must(t, config.Error)
	config.Address, config.MaxRetries = s.URL(), 0
	must(t, config.ConfigureTLS(&bao.TLSConfig{CACert: s.CAFile}))
	t.Cleanup(config.HttpClient.Transport.(*http.Transport).CloseIdleConnections)
	client, err := bao.NewClient(config)
	must(t, err)
	client.SetToken(s.Root)
	c := client.Sys()
	if h, err := c.Health(); err != nil || h.Sealed {
		t.Errorf("health: %+v %v", h, err)
	}
	if l, err := c.Leader(); err != nil || !l.IsSelf {
		t.Errorf("leader: %+v %v", l, err)
	}
	must(t, c.Mount("team", &bao.MountInput{Type: "kv-v2"}))
	must(t, c.TuneMount("team", bao.MountConfigInput{MaxLeaseTTL: "1h"}))
	must(t, c.Remount("team", "crew"))
	if m, err := c.ListMounts(); err != nil || m["crew/"] == nil || m["crew/"].Config.MaxLeaseTTL != 3600 {
		t.Errorf("mounts: %+v %v", m, err)
	}
	if k, err := c.ListPlugins(&bao.ListPluginsInput{}); err != nil || len(k.Details) == 0 {
		t.Errorf("plugins: %+v %v", k, err)
	}
	if got, err := c.CapabilitiesSelf("data"); err != nil || !slices.Equal(got, []string{"root"}) {
		t.Errorf("capabilities: %v %v", got, err)
	}
	must(t, c.PutPolicy("app", readApp))
	if all, err := c.ListPolicies(); err != nil || len(all) != 3 {
		t.Errorf("policies: %v %v", all, err)
	}
}
