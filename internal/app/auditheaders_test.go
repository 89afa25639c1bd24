package app_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/audit"
)

// TestChosenHeadersAreInTheAuditLog reads them from the log and from a device in
// Vault's format, and looks for what was not chosen.
func TestChosenHeadersAreInTheAuditLog(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t, "")
	device := filepath.Join(t.TempDir(), "requests.log")
	s.Must(t, 204, "POST", "sys/audit/file", fmt.Sprintf(`{"type":"file","options":{"file_path":%q}}`, device))
	s.Must(t, 204, "POST", "sys/config/auditing/request-headers/User-Agent", `{"hmac":false}`)
	s.Must(t, 204, "POST", "sys/config/auditing/request-headers/X-Tenant", "")
	headers := []string{"User-Agent", "backup/3 \"nightly\"\xff", "X-Tenant", "tenant-number-seven", "X-Unasked", "unasked-value", "Cookie", "session=cookie-value"}
	s.Do(t, "GET", "secret/data/app", s.Root, "", headers...)
	s.Do(t, "GET", "secret//data", s.Root, "", headers...) // one that could not be read is recorded alike
	var hash struct{ Hash string }
	s.Must(t, 200, "POST", "sys/audit-hash/file", `{"input":"tenant-number-seven"}`).Into(t, &hash)
	found := 0
	for _, e := range entries(t, s.Dir+"/audit") {
		if e.Request.Headers["x-tenant"] == nil {
			continue
		}
		found++
		if got := fmt.Sprint(e.Request.Headers); got != "map[user-agent:[backup/3 \"nightly\"\uFFFD] x-tenant:["+hash.Hash+"]]" {
			t.Errorf("%s", got)
		}
	}
	if found != 2 {
		t.Errorf("%d entries have the headers", found)
	}
	s.Stop(t)
	text, err := os.ReadFile(device)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		var entry struct {
			Request struct{ Headers map[string][]string }
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if h := entry.Request.Headers["x-tenant"]; len(h) == 1 && h[0] == hash.Hash {
			lines++
		}
	}
	if lines != 2 {
		t.Errorf("%d lines of the device have the headers", lines)
	}
	for _, file := range append(segments(t, s.Dir+"/audit"), device) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, never := range []string{"tenant-number-seven", "unasked-value", "cookie-value", s.Root} {
			if strings.Contains(string(text), never) {
				t.Errorf("%s holds %q", file, never)
			}
		}
	}
	s.Run(t) // with what it had
	s.Must(t, 200, "GET", "sys/config/auditing/request-headers/User-Agent", "")
	s.Do(t, "GET", "sys/health", "", "", "User-Agent", "after-restart")
	s.Do(t, "GET", "secret/data/app", s.Root, "", "User-Agent", "after-restart")
	s.Must(t, 204, "DELETE", "sys/config/auditing/request-headers/User-Agent", "")
	s.Do(t, "GET", "secret/data/app", s.Root, "", "User-Agent", "no-longer")
	var agents []string
	for _, e := range entries(t, s.Dir+"/audit") {
		if e.Type == audit.Outcome {
			agents = append(agents, e.Request.Headers["user-agent"]...)
		}
	}
	if all := fmt.Sprint(agents); !strings.Contains(all, "after-restart") || strings.Contains(all, "no-longer") {
		t.Errorf("%v", agents)
	}
}
