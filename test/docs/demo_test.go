package docs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// demoPorts are those that scripts/demo-cluster listens on.
var demoPorts = []string{"8201", "8202", "8203", "23791", "23792", "23793", "23801", "23802", "23803"}

// TestDemo runs scripts/demo-cluster, types every hint that it prints, kills
// included, and ends it as Ctrl-C does. Nothing is left of it.
func TestDemo(t *testing.T) {
	t.Parallel()
	s := newSession(t)
	ports := s.demoScript(t)
	demo := exec.Command("scripts/demo-cluster")
	demo.Dir, demo.Env = s.dir, s.env
	demo.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // the test died: it ends what it started
	said := filepath.Join(t.TempDir(), "said")
	out, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	demo.Stdout, demo.Stderr = out, out
	begun := time.Now()
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- demo.Wait() }()
	hints := awaitHints(t, said, ended)
	t.Logf("the demo serves after %v", time.Since(begun).Round(time.Millisecond))
	s.typeHints(t, hints)
	_ = demo.Process.Signal(os.Interrupt)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the demo ends with %v", err)
		}
	case <-time.After(2 * time.Minute):
		_ = demo.Process.Kill()
		t.Fatal("the demo does not end")
	}
	if _, err := os.Stat(filepath.Join(s.dir, "coffer-demo")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its directory is left behind: %v", err)
	}
	for _, port := range ports {
		if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			conn.Close()
			t.Errorf("something still listens on port %s", port)
		}
	}
	t.Logf("all of it took %v", time.Since(begun).Round(time.Millisecond))
}

// demoScript puts the script where it finds the session's bin/coffer, on ports that
// are free, and returns these.
func (s *session) demoScript(t *testing.T) (ports []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "scripts", "demo-cluster"))
	if err != nil {
		t.Fatal(err)
	}
	script := string(text)
	for _, usual := range demoPorts {
		if strings.Count(script, usual) != 1 {
			t.Fatalf("the script does not name port %s just once", usual)
		}
		port := strconv.Itoa(storagetest.FreePort(t))
		script = strings.Replace(script, usual, "@"+port, 1) // no port that was put in is taken for the next
		ports = append(ports, port)
	}
	for _, port := range ports {
		script = strings.ReplaceAll(script, "@"+port, port)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "scripts"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "scripts", "demo-cluster"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return ports
}

// awaitHints waits until the demo has said everything, and returns the commands:
// the lines that are indented.
func awaitHints(t *testing.T, said string, ended chan error) (hints []string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		text, err := os.ReadFile(said)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(string(text), "Ctrl-C here ends it all.\n") {
			for line := range strings.Lines(string(text)) {
				if hint, ok := strings.CutPrefix(line, "  "); ok {
					hints = append(hints, strings.TrimSpace(hint))
				}
			}
			return hints
		}
		select {
		case err := <-ended:
			t.Fatalf("the demo ended with %v:\n%s", err, text)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the demo does not serve; it said\n%s", text)
		}
	}
}

// typeHints types them into one shell, and looks at what is printed.
func (s *session) typeHints(t *testing.T, hints []string) {
	t.Helper()
	script := "set -eu\n" + isRefused.ReplaceAllString(strings.Join(hints, "\n"), "if $1; then echo 'that was not refused'; exit 1; fi") + "\n"
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", `exec bash -c "$0" > "$SHOWN" 2>&1`, script)
	shell.Dir, shell.Env, shell.WaitDelay = s.dir, s.env, time.Second
	runs := shell.Run()
	printed, err := os.ReadFile(s.shown)
	if err != nil {
		t.Fatal(err)
	}
	if runs != nil {
		t.Fatalf("the hints end with %v:\n%s", runs, printed)
	}
	if n := strings.Count(script, "that was not refused"); n != 1 {
		t.Errorf("%d of the hints are to be refused, want 1", n)
	}
	for what, want := range map[string]int{
		`(?m)^node-\d .* true `:                              6, // three nodes, at the start and in the end
		`(?m)^username +app\n`:                               1,
		`(?m)^username +app2\n`:                              2, // from memory too
		`(?m)^version +4\n`:                                  0,
		`(?m)^version +3\n`:                                  1, // the write that was refused is not there
		`stale: the storage engine cannot be reached`:        1,
		`503: the storage engine cannot be reached; try aga`: 1,
	} {
		got := len(regexp.MustCompile(what).FindAll(printed, -1))
		if got < want || want == 0 && got > 0 {
			t.Errorf("the hints print %q %d times, want %d:\n%s", what, got, want, fmt.Sprintf("%.4000s", printed))
		}
	}
}
