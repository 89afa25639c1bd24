package app_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/monitor"
)

// follow asks for the server's log and returns its lines; the channel is closed
// when the answer ends.
func follow(t *testing.T, s *apptest.Server, token, query string) (status int, lines chan string, leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL()+"/v1/sys/monitor?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := s.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines = make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(lines)
		for body := bufio.NewScanner(resp.Body); body.Scan(); {
			lines <- body.Text()
		}
		_ = resp.Body.Close()
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return resp.StatusCode, lines, cancel
}

// await returns the next line that holds text; "" when the answer has ended.
func await(t *testing.T, lines chan string, text string) string {
	t.Helper()
	late := time.After(15 * time.Second)
	for {
		select {
		case line, ok := <-lines:
			if !ok || strings.Contains(line, text) {
				return line
			}
		case <-late:
			t.Fatalf("no line with %q", text)
		}
	}
}

const watcher = `path "sys/monitor" { capabilities = ["read", "sudo"] }`

func TestMonitor(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t, "")
	for query, status := range map[string]int{"log_level=loud": 400, "log_format=xml": 400} {
		if a := s.Do(t, "GET", "sys/monitor?"+query, s.Root, ""); a.Status != status {
			t.Errorf("%s: %d %s", query, a.Status, a.Body)
		}
	}
	if a := s.Do(t, "GET", "sys/monitor", s.Token(t, map[string]string{"nearly": `path "sys/monitor" { capabilities = ["read"] }`}), ""); a.Status != 403 {
		t.Errorf("without sudo: %d", a.Status)
	}
	if a := s.Do(t, "GET", "sys/monitor", s.Root, "", "X-Vault-Wrap-TTL", "60"); a.Status != 400 {
		t.Errorf("wrapped: %d %s", a.Status, a.Body)
	}
	token := s.Token(t, map[string]string{"watcher": watcher})
	status, text, leave := follow(t, s, token, "log_level=info")
	_, asJSON, _ := follow(t, s, s.Root, "log_level=debug&log_format=json")
	if status != 200 {
		t.Fatal(status)
	}
	const secret = "correct-horse-battery"
	s.Must(t, 200, "POST", "secret/data/app", `{"data":{"password":"`+secret+`"}}`)
	s.Must(t, 204, "POST", "sys/mounts/old", `{"type":"kv"}`)
	s.Must(t, 204, "DELETE", "sys/mounts/old", "")
	if line := await(t, text, "a disabled mount is erased"); !strings.Contains(line, "path=old/") || !strings.Contains(line, "level=INFO") {
		t.Errorf("%s", line)
	}
	if line := await(t, asJSON, "a disabled mount is erased"); !strings.HasPrefix(line, "{") || strings.Contains(line, secret) {
		t.Errorf("%s", line)
	}
	leave()
	s.Must(t, 204, "POST", "sys/seal", "")
	if line := await(t, asJSON, "nothing says this"); line != "" {
		t.Errorf("a sealed server goes on to send its log: %s", line)
	}
	found := map[string]int{}
	for e, err := range audit.Read(t.Context(), s.Dir+"/audit", audit.ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Request.Path == "sys/monitor" && e.Subject.Path == "log" {
			found[string(e.Type)]++
		}
	}
	if found["outcome"] != 2 {
		t.Errorf("%v", found)
	}
}

func TestMonitorEndsWithItsToken(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t, "")
	for name, end := range map[string]func(token string){
		"revoked":   func(token string) { s.Must(t, 204, "POST", "auth/token/revoke", `{"token":"`+token+`"}`) },
		"forbidden": func(string) { s.Must(t, 204, "DELETE", "sys/policies/acl/watcher", "") },
	} {
		token := s.Token(t, map[string]string{"watcher": watcher})
		_, lines, _ := follow(t, s, token, "")
		time.Sleep(10 * time.Millisecond)
		end(token)
		if line := await(t, lines, "nothing says this"); line != "" {
			t.Errorf("%s: %s", name, line)
		}
	}
}

func TestMonitorIsBounded(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t, "")
	for range monitor.MaxListeners {
		if status, _, _ := follow(t, s, s.Root, ""); status != 200 {
			t.Fatal(status)
		}
	}
	if status, _, _ := follow(t, s, s.Root, ""); status != 429 {
		t.Errorf("one more: %d", status)
	}
	begun := time.Now()
	s.Stop(t)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("those who follow the log keep the server from stopping for %v", took)
	}
}
