package audit

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

func TestFileDeviceWritesVaultsFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	o, err := ParseFileOptions(map[string]string{"file_path": path, "mode": "0640", "format": "json"}, "salt")
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewFileDevice(o)
	if err != nil {
		t.Fatal(err)
	}
	l := openLog(t, t.TempDir(), Options{Signer: testSigner(t)})
	if err := l.EnableDevice("file/", d); err != nil {
		t.Fatal(err)
	}
	if err := l.EnableDevice("file/", d); err == nil {
		t.Error("a name is taken twice")
	}
	intent := outcome(1)
	intent.Type = Intent
	for _, e := range []*Entry{intent, outcome(1), {Type: Event, Event: "seal"}} {
		if err := l.Append(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.DisableDevice("file/"); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 1)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	if len(lines) != 2 {
		t.Fatalf("wrote %q", content)
	}
	type vault struct {
		Time time.Time
		Type string
		Auth struct {
			Accessor      string
			DisplayName   string `json:"display_name"`
			Policies      []string
			PolicyResults struct {
				Allowed  bool
				Granting []struct{ Name, Type string } `json:"granting_policies"`
			} `json:"policy_results"`
		}
		Request struct {
			ID, Operation, Path string
			MountPoint          string `json:"mount_point"`
			TokenAccessor       string `json:"client_token_accessor"`
			Namespace           struct{ ID string }
			RemotePort          int `json:"remote_port"`
		}
		Response *struct {
			MountType string `json:"mount_type"`
		}
	}
	var request, response vault
	for i, into := range []*vault{&request, &response} {
		if err := json.Unmarshal([]byte(lines[i]), into); err != nil {
			t.Fatalf("%v in %s", err, lines[i])
		}
	}
	hashed := Hash("salt", outcome(1).Principal.Accessor)
	if request.Type != "request" || request.Response != nil || request.Request.Path != "secret/data/app/1" ||
		request.Request.Namespace.ID != "root" || request.Auth.Accessor != hashed || request.Request.TokenAccessor != hashed ||
		!request.Auth.PolicyResults.Allowed || request.Auth.PolicyResults.Granting[0].Name != "app-read" {
		t.Errorf("request %s", lines[0])
	}
	if response.Type != "response" || response.Response == nil || response.Response.MountType != "kv" || response.Time.IsZero() {
		t.Errorf("response %s", lines[1])
	}
	if strings.Contains(string(content), outcome(1).Principal.Accessor) {
		t.Error("an accessor stands in clear")
	}
}

func TestHashIsVaults(t *testing.T) {
	// A widely published vector of HMAC-SHA256.
	want := "hmac-sha256:f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
	if got := Hash("key", "The quick brown fox jumps over the lazy dog"); got != want {
		t.Errorf("got %s", got)
	}
}

func TestFileDeviceSurvivesLogRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	d, err := NewFileDevice(FileOptions{Path: path, Mode: 0o600, Salt: "s", HMACAccessor: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i := range 2 {
		if err := d.Write([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
		if content, _ := os.ReadFile(path); string(content) != "line\n" {
			t.Errorf("round %d: %q", i, content)
		}
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFileDeviceOptionsAreRefused(t *testing.T) {
	for _, bad := range []map[string]string{
		{}, {"file_path": "relative"}, {"file_path": "/x", "log_raw": "true"}, {"file_path": "/x", "format": "jsonx"},
		{"file_path": "/x", "mode": "9"}, {"file_path": "/x", "mode": "04755"}, {"file_path": "/x", "hmac_accessor": "maybe"},
		{"file_path": "/x", "surprise": "1"},
	} {
		if _, err := ParseFileOptions(bad, "s"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v gave %v", bad, err)
		}
	}
	if o, err := ParseFileOptions(map[string]string{"path": "STDOUT", "mode": "0755", "log_raw": "false"}, "s"); err != nil ||
		o.Path != "stdout" || o.Mode != 0o644 {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := NewFileDevice(FileOptions{Path: "/nowhere/at/all", Salt: "s", HMACAccessor: true}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a path that cannot be written gave %v", err)
	}
}

// stuckDevice hangs or fails.
type stuckDevice struct {
	release chan struct{} // nil fails at once
	calls   atomic.Int64
}

func (d *stuckDevice) Encode(b []byte, _ *Entry) []byte {
	return append(b, make([]byte, deviceQueue/4)...)
}

func (d *stuckDevice) Write([]byte) error {
	d.calls.Add(1)
	if d.release != nil {
		<-d.release
	}
	return errors.New("no device")
}

func (d *stuckDevice) Close() error { return nil }

// TestABadDeviceHoldsNothingUp counts by a clock that shows what is waited for,
// and not how fast the machine is.
func TestABadDeviceHoldsNothingUp(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { testBadDevices(t, dir) })
}

func testBadDevices(t *testing.T, dir string) {
	l := openLog(t, dir, Options{Signer: testSigner(t)})
	stuck := &stuckDevice{release: make(chan struct{})}
	if err := l.EnableDevice("stuck/", stuck); err != nil {
		t.Fatal(err)
	}
	if err := l.EnableDevice("failing/", &stuckDevice{}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	appendN(t, l, 20)
	if took := time.Since(start); took > 20*2*deviceWait {
		t.Errorf("20 entries took %v", took)
	}
	byName := map[string]DeviceStats{}
	for _, s := range l.Stats().Devices {
		byName[s.Name] = s
	}
	if s := byName["stuck/"]; s.Lost == 0 || s.Written != 0 {
		t.Errorf("stuck: %+v", s)
	}
	close(stuck.release)
	closeLog(t, l)
	if s := l.Stats(); s.Size != 20 || s.Failures != 0 {
		t.Errorf("the log itself: %+v", s)
	}
}
