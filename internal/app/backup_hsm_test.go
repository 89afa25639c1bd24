//go:build pkcs11

package app_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferhq/coffer/internal/app"
	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/config"
)

// TestBackupUnderAnHSM takes backups of a server that an HSM opens, alone and
// beside a key file. Each of the seals of that day proves and restores them; a
// seal of another key does not.
func TestBackupUnderAnHSM(t *testing.T) {
	p := newProcess(t, "seal \"keyfile\" {\n}\n"+hsm("backups"))
	p.start(t)
	p.initialize(t)
	p.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
	archive := p.Must(t, 200, "GET", "sys/backup", "").Body
	p.stop(t)
	key := p.data("seal.key")
	for name, c := range map[string]struct {
		seals string
		opens bool
	}{
		"both":           {"seal \"keyfile\" {\n  path = \"" + key + "\"\n}\n" + hsm("backups"), true},
		"the key file":   {"seal \"keyfile\" {\n  path = \"" + key + "\"\n}\n", true},
		"the HSM":        {hsm("backups"), true},
		"another key":    {hsm("backups-other"), false},
		"another file":   {"seal \"keyfile\" {\n}\n", false},
		"nothing usable": {"seal \"shamir\" {}\n", false},
	} {
		to := newProcess(t, "")
		to.configure(t, tcp+c.seals)
		offline := app.NewOffline(loaded(t, to), discard())
		seals, err := offline.Seals(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		proof, err := backup.Verify(t.Context(), bytes.NewReader(archive), backup.Seals(seals), nil)
		if !c.opens {
			if !errors.Is(err, backup.ErrForeign) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := offline.Restore(t.Context(), proof, bytes.NewReader(archive), backup.Restore{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The command does the same, and the server opens by the HSM alone.
	file := filepath.Join(t.TempDir(), "one.backup")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	to := newProcess(t, "")
	to.Root = p.Root
	to.configure(t, tcp+hsm("backups"))
	out, err := coffer("operator", "restore", "-config="+to.config(), file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	to.acceptLoss(t, out)
	to.start(t)
	wantUnsealed(t, to)
	to.Must(t, 200, "GET", "secret/data/app", "")
	to.stop(t)
}

// loaded reads the configuration of a process.
func loaded(t *testing.T, p *process) *config.Config {
	t.Helper()
	cfg, err := config.Load(config.Source{Paths: []string{p.config()}, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
