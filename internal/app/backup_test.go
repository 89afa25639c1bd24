package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/cofferhq/coffer/internal/app"
	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/backup"
)

// fetchBackup gets an archive over the wire.
func fetchBackup(t *testing.T, c *apptest.Client, path string) []byte {
	t.Helper()
	return c.Must(t, 200, "GET", path, "").Body
}

// A backup over the wire is whole, and the audit log tells of it before its last
// byte leaves: by whom, how large, and its checksum.
func TestBackupRoute(t *testing.T) {
	s := apptest.Start(t, "")
	s.Must(t, 200, "POST", "secret/data/app", `{"data":{"password":"tell-nobody"}}`)
	archive := fetchBackup(t, &s.Client, "sys/backup")
	sum, err := backup.Check(bytes.NewReader(archive), nil)
	if err != nil {
		t.Fatal(err)
	}
	var intent, outcome audit.Entry
	for _, e := range entries(t, filepath.Join(s.Dir, "audit")) {
		if e.Request.Path == "sys/backup" {
			if e.Type == audit.Intent {
				intent = e
			} else {
				outcome = e
			}
		}
	}
	if intent.Type == "" || outcome.Status != 200 || outcome.Subject.Fingerprint != "sha256:"+sum.SHA256 ||
		outcome.Subject.Label != fmt.Sprintf("%d rows, %d bytes", sum.Rows, len(archive)) {
		t.Errorf("intent %+v, outcome %+v", intent, outcome)
	}
	if bytes.Contains(archive, []byte("tell-nobody")) || bytes.Contains(archive, []byte("secret/")) {
		t.Error("a secret shows in the archive")
	}
	// It needs sudo, and is not wrapped.
	token := s.Token(t, map[string]string{"reader": `path "sys/backup" { capabilities = ["read"] }`})
	if a := s.Do(t, "GET", "sys/backup", token, ""); a.Status != 403 {
		t.Errorf("without sudo: %d", a.Status)
	}
	if a := s.Do(t, "GET", "sys/backup", s.Root, "", "X-Vault-Wrap-TTL", "60"); a.Status != 400 {
		t.Errorf("wrapped: %d %s", a.Status, a.Body)
	}
}

// The unmodified Vault client takes a snapshot, and what it stored restores.
func TestVaultClientSnapshot(t *testing.T) {
	s := apptest.Start(t, "")
	s.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
	cfg := api.DefaultConfig()
	cfg.Address, cfg.HttpClient = s.URL(), s.HTTP()
	client, err := api.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(s.Root)
	var out bytes.Buffer
	if err := client.Sys().RaftSnapshot(&out); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Check(bytes.NewReader(out.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	to := restoreInto(t, s, out.Bytes(), "", backup.Restore{})
	readsBack(t, to, "secret/data/app", "b")
}

// restoreInto restores an archive of a server into a new one, which is given
// the seal's key, and starts it. The audit log stays behind, which is accepted.
func restoreInto(t *testing.T, s *apptest.Server, archive []byte, more string, how backup.Restore) *apptest.Server {
	t.Helper()
	to := apptest.Prepared(t, more)
	key, err := os.ReadFile(filepath.Join(s.Dir, "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to.Dir, "seal.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	proof := restoreOffline(t, to, archive, how)
	accept := 0
	for _, note := range proof.AuditLogs {
		c, err := audit.ParseCheckpoint(note)
		if err != nil {
			t.Fatal(err)
		}
		accept = int(c.Size)
	}
	to.Add(fmt.Sprintf("audit {\n  accept_loss = %d\n}\n", accept))
	to.Run(t)
	to.Root = s.Root
	return to
}

func restoreOffline(t *testing.T, to *apptest.Server, archive []byte, how backup.Restore) *backup.Proof {
	t.Helper()
	offline := app.NewOffline(to.Config(t), to.Log.Logger())
	seals, err := offline.Seals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	proof, err := backup.Verify(t.Context(), bytes.NewReader(archive), backup.Seals(seals), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := offline.Restore(t.Context(), proof, bytes.NewReader(archive), how); err != nil {
		t.Fatal(err)
	}
	return proof
}

func readsBack(t *testing.T, s *apptest.Server, path, want string) {
	t.Helper()
	var data struct{ Data map[string]string }
	s.Must(t, 200, "GET", path, "").Into(t, &data)
	if data.Data["a"] != want {
		t.Errorf("%s is %q, want %q", path, data.Data["a"], want)
	}
}

// A whole server moves: secrets, versions, policies and tokens are there, and the
// log of the new place says that it was restored.
func TestRestoredServer(t *testing.T) {
	s := apptest.Start(t, "")
	for n := range 5 {
		s.Must(t, 200, "POST", "secret/data/app", fmt.Sprintf(`{"data":{"a":"%d"}}`, n))
	}
	token := s.Token(t, map[string]string{"app": `path "secret/data/app" { capabilities = ["read"] }`})
	inner := team(t, s, "web")
	s.Must(t, 204, "POST", "sys/rotate", "")
	if a := s.Do(t, "POST", "secret/data/app", inner, `{"data":{"a":"inside"}}`, in("web")...); a.Status != 200 {
		t.Fatalf("a write in a namespace whose keys were rotated: %s", a.Body)
	}
	team(t, s, "gone")
	s.Must(t, 200, "DELETE", "sys/namespaces/gone", "")
	archive := fetchBackup(t, &s.Client, "sys/backup")
	s.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"later"}}`)
	body, _ := json.Marshal(map[string]string{"token": token})
	s.Must(t, 204, "POST", "auth/token/revoke", string(body))

	to := restoreInto(t, s, archive, "", backup.Restore{})
	readsBack(t, to, "secret/data/app", "4")
	readsBack(t, to, "secret/data/app?version=2", "1")
	readsBack(t, to, "web/secret/data/app", "inside")
	if a := to.Do(t, "GET", "secret/data/app", inner, "", in("web")...); a.Status != 200 {
		t.Errorf("a token of a namespace is answered %d", a.Status)
	}
	if a := to.Do(t, "GET", "secret/data/app", token, ""); a.Status != 200 {
		t.Errorf("the token of the day is answered %d", a.Status)
	}
	restored := 0
	for _, e := range entries(t, filepath.Join(to.Dir, "audit")) {
		if e.Event == "restored" && strings.HasPrefix(e.Subject.Fingerprint, "sha256:") {
			restored++
		}
	}
	if restored != 1 || !strings.Contains(to.Log.String(), "restored from a backup") {
		t.Errorf("%d entries tell of the restore", restored)
	}

	without := restoreInto(t, s, archive, "", backup.Restore{RevokeTokens: true})
	for _, old := range []string{token, s.Root} {
		if a := without.Do(t, "GET", "secret/data/app", old, ""); a.Status != 403 {
			t.Errorf("a token that was left behind is answered %d", a.Status)
		}
	}
}

// On the same machine, beside a log that is newer than the store, the server
// starts and says what happened.
func TestRestoreBesideANewerAuditLog(t *testing.T) {
	s := apptest.Start(t, "")
	archive := fetchBackup(t, &s.Client, "sys/backup")
	for range 20 {
		s.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
	}
	before := len(entries(t, filepath.Join(s.Dir, "audit")))
	s.Stop(t)
	if err := os.Rename(filepath.Join(s.Dir, "store"), filepath.Join(s.Dir, "store.old")); err != nil {
		t.Fatal(err)
	}
	restoreOffline(t, s, archive, backup.Restore{})
	s.Run(t)
	if a := s.Do(t, "GET", "secret/data/app", s.Root, ""); a.Status != 404 {
		t.Errorf("what was written later is answered %d", a.Status)
	}
	after := entries(t, filepath.Join(s.Dir, "audit"))
	if len(after) <= before {
		t.Errorf("the log has %d entries, and had %d", len(after), before)
	}
	key := publicKey(t, &s.Client)
	report, err := audit.Verify(filepath.Join(s.Dir, "audit"), audit.VerifyOptions{PublicKeys: []string{key}})
	if err != nil || !report.Intact() {
		t.Errorf("the log does not verify: %v %v", err, report.Problems)
	}
}

// A backup that breaks off does not look like a whole one to a client.
func TestBackupBreaksOff(t *testing.T) {
	s := apptest.Start(t, "")
	big := strings.Repeat("x", 600_000)
	for n := range 30 {
		s.Must(t, 200, "POST", fmt.Sprintf("secret/data/big%d", n), `{"data":{"a":"`+big+`"}}`)
	}
	for _, protocol := range []string{"HTTP/2.0", "HTTP/1.1"} {
		transport := s.HTTP().Transport.(*http.Transport).Clone()
		if protocol == "HTTP/1.1" {
			transport.ForceAttemptHTTP2, transport.Protocols = false, new(http.Protocols)
			transport.Protocols.SetHTTP1(true)
		}
		r, err := http.NewRequest("GET", s.URL()+"/v1/sys/backup", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Vault-Token", s.Root)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Proto != protocol {
			t.Errorf("it is %s", resp.Proto)
		}
		part := make([]byte, 1<<20)
		if _, err := io.ReadFull(resp.Body, part); err != nil {
			t.Fatal(err)
		}
		s.Must(t, 204, "POST", "sys/seal", "")
		rest, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		transport.CloseIdleConnections()
		if err == nil {
			t.Errorf("%s: it ends cleanly after %d bytes", protocol, len(part)+len(rest))
		}
		s.Stop(t)
		s.Run(t)
	}
	broken := 0
	for _, e := range entries(t, filepath.Join(s.Dir, "audit")) {
		if e.Request.Path == "sys/backup" && e.Type == audit.Outcome && e.Status >= 500 {
			broken++
		}
	}
	if broken != 2 {
		t.Errorf("%d outcomes tell of a backup that broke off", broken)
	}
}

// Backups on a schedule appear, are proven, are kept as many as they should be,
// and a failure shows everywhere.
func TestScheduledBackups(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backups")
	s := apptest.Start(t, fmt.Sprintf("backup {\n  directory = %q\n  every = \"1m\"\n  keep = 2\n}\n", dir))
	var status struct {
		Scheduled bool
		Failures  int
		Error     string
		Last      *struct {
			File  string
			Bytes int
		}
	}
	eventually(t, "a backup", func() bool {
		s.Must(t, 200, "GET", "sys/backup/status", "").Into(t, &status)
		return status.Last != nil
	})
	file, err := os.Open(status.Last.File)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := backup.Check(file, nil); err != nil {
		t.Error(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, status.Last.File: 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	metrics := string(s.Must(t, 200, "GET", "sys/metrics?format=prometheus", "").Body)
	for _, name := range []string{"coffer_backup_last_success_timestamp_seconds 1", "coffer_backup_failures 0", "coffer_backup_size_bytes "} {
		if !strings.Contains(metrics, name) {
			t.Errorf("the metrics lack %s", name)
		}
	}
	made := 0
	for _, e := range entries(t, filepath.Join(s.Dir, "audit")) {
		if e.Event == "backup-made" && e.Subject.Path == status.Last.File {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d entries tell of the backup", made)
	}
}
