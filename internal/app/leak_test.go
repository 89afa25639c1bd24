package app_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// canaries are values that must not be seen anywhere but in the answers to those
// who asked for them.
type canaries map[string]string // what it is: value

// find reports every canary in text.
func (c canaries) find(t *testing.T, where string, text []byte) {
	t.Helper()
	for what, value := range c {
		if bytes.Contains(text, []byte(value)) {
			t.Errorf("%s holds %s", where, what)
		}
	}
}

// TestSecretsNeverLeave plants secrets in every place that takes one, makes
// requests go right and wrong, and searches all that was written since.
func TestSecretsNeverLeave(t *testing.T) {
	s := apptest.Start(t, "")
	planted := canaries{
		"a secret's value": "canary-value-71f3a9", "a staged value": "canary-staged-5c21d7", "a v1 value": "canary-single-0b44e1",
		"a cubbyhole's value": "canary-cubby-9d10aa", "a wrapped value": "canary-wrapped-33c8b2", "a password": "canary-password-88e0c4",
		"a wrong password": "canary-wrong-2f6d51", "a refused value": "canary-refused-a45b90", "a value under a wrong name": "canary-misnamed-6e77",
		"a token nobody has": "hvs.canarytoken" + strings.Repeat("x", 80),
	}
	device := filepath.Join(t.TempDir(), "device.log")
	s.Must(t, 204, "POST", "sys/audit/file", `{"type":"file","options":{"file_path":"`+device+`"}}`)
	s.Must(t, 204, "POST", "sys/mounts/single", `{"type":"kv"}`)
	s.Must(t, 204, "POST", "sys/auth/userpass", `{"type":"userpass"}`)
	var errors []byte
	ask := func(status int, method, path, token, body string, headers ...string) *apptest.Answer {
		t.Helper()
		a := s.Do(t, method, path, token, body, headers...)
		if a.Status != status {
			t.Fatalf("%s %s is answered %d %s, want %d", method, path, a.Status, a.Body, status)
		}
		if status >= 400 {
			errors = append(errors, a.Body...)
		}
		return a
	}
	v := planted
	ask(200, "POST", "secret/data/app", s.Root, `{"data":{"password":"`+v["a secret's value"]+`"}}`)
	ask(200, "POST", "secret/data/app", s.Root, `{"data":{"password":"`+v["a staged value"]+`"},"options":{"stage":"pending"}}`)
	ask(200, "GET", "secret/data/app", s.Root, "")
	ask(400, "POST", "secret/data/app", s.Root, `{"data":{"password":"`+v["a refused value"]+`"},"options":{"cas":99}}`)
	ask(400, "POST", "secret/data/app", s.Root, `{"data":"`+v["a value under a wrong name"]+`"}`)
	ask(400, "POST", "auth/token/create", s.Root, `{"ttl":"`+v["a value under a wrong name"]+`"}`)
	ask(400, "POST", "secret/data/app", s.Root, `{"data":{"x":"`+v["a refused value"])
	ask(204, "POST", "single/app", s.Root, `{"key":"`+v["a v1 value"]+`"}`)
	ask(200, "GET", "single/app", s.Root, "")
	ask(204, "POST", "cubbyhole/mine", s.Root, `{"key":"`+v["a cubbyhole's value"]+`"}`)
	ask(204, "POST", "auth/userpass/users/ada", s.Root, `{"password":"`+v["a password"]+`"}`)
	ask(400, "POST", "auth/userpass/login/ada", "", `{"password":"`+v["a wrong password"]+`"}`)
	login := ask(200, "POST", "auth/userpass/login/ada", "", `{"password":"`+v["a password"]+`"}`)
	planted["a login's token"] = login.Auth.Token
	ask(403, "GET", "secret/data/app", login.Auth.Token, "")
	ask(403, "GET", "secret/data/app", v["a token nobody has"], "")
	wrapped := ask(200, "POST", "sys/wrapping/wrap", s.Root, `{"key":"`+v["a wrapped value"]+`"}`, "X-Vault-Wrap-TTL", "60")
	planted["a wrapping token"] = wrapped.Wrap.Token
	unwrapped := ask(200, "POST", "sys/wrapping/unwrap", wrapped.Wrap.Token, "")
	if !bytes.Contains(unwrapped.Body, []byte(v["a wrapped value"])) {
		t.Errorf("unwrapped %s", unwrapped.Body)
	}
	ask(400, "POST", "sys/wrapping/unwrap", wrapped.Wrap.Token, "")
	planted["the root token"] = s.Root

	planted.find(t, "an error", errors)
	for _, path := range []string{"sys/metrics?format=prometheus", "sys/metrics", "sys/config/state/sanitized", "sys/audit", "sys/host-info", "sys/internal/specs/openapi", "sys/in-flight-req"} {
		planted.find(t, path, s.Must(t, 200, "GET", path, "").Body)
	}
	planted.find(t, "the log", []byte(s.Log.String()))
	s.Stop(t)
	planted.find(t, "the log after the end", []byte(s.Log.String()))
	searched := 0
	for _, dir := range []string{s.Dir, filepath.Dir(device)} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			searched += len(text)
			planted.find(t, path, text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if searched < 10_000 {
		t.Fatalf("only %d bytes were searched", searched)
	}
}

// TestFilesAreTheirOwnersOnly wants that nobody else can read or list what a
// server keeps, whatever the umask.
func TestFilesAreTheirOwnersOnly(t *testing.T) {
	p := newProcess(t, "")
	p.start(t)
	p.initialize(t)
	p.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
	p.stop(t)
	seen := 0
	err := filepath.WalkDir(p.data(), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		seen++
		public := strings.HasSuffix(path, ".pem") // certificates
		if mode := info.Mode().Perm(); mode&0o077 != 0 && !public || mode&0o022 != 0 {
			t.Errorf("%s has mode %o", path, mode)
		}
		return nil
	})
	if err != nil || seen < 10 {
		t.Fatalf("%d files: %v", seen, err)
	}
}

// TestAnswersAreKeptByNobody looks at the headers that keep answers out of
// caches and browsers from guessing.
func TestAnswersAreKeptByNobody(t *testing.T) {
	s := apptest.Start(t, "")
	s.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
	for _, path := range []string{"secret/data/app", "secret/data/none", "sys/health", "nowhere"} {
		h := s.Do(t, "GET", path, s.Root, "").Header
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "application/json",
			"Strict-Transport-Security": "max-age=31536000; includeSubDomains",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

// TestTracesAreFollowed wants that a request is found in the audit log by what
// its client called it.
func TestTracesAreFollowed(t *testing.T) {
	s := apptest.Start(t, "")
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	a := s.Do(t, "GET", "sys/mounts", s.Root, "", "Traceparent", trace, "X-Correlation-Id", "order-17")
	s.Stop(t)
	found := false
	for _, e := range entries(t, filepath.Join(s.Dir, "audit")) {
		if e.Request.ID != a.ID {
			continue
		}
		found = true
		if e.Request.TraceParent != trace || e.Request.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || e.Request.CorrelationID != "order-17" {
			text, _ := json.Marshal(e.Request)
			t.Errorf("the entry is %s", text)
		}
	}
	if !found {
		t.Errorf("request %q is not in the audit log", a.ID)
	}
}
