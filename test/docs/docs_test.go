package docs

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// TestDocuments types every document.
func TestDocuments(t *testing.T) {
	guides, err := filepath.Glob(filepath.Join(root, "docs", "guides", "*.md"))
	if err != nil || len(guides) == 0 {
		t.Fatalf("there are no guides: %v", err)
	}
	for _, file := range append([]string{filepath.Join(root, "README.md")}, guides...) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".md"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newSession(t)
			guide := string(text)
			switch filepath.Base(file) {
			case "cluster.md":
				s.readDocument(t, s.clusterGuide(t, guide))
				return
			case "ci.md":
				guide = s.ciGuide(t, guide)
			case "leases.md":
				guide = s.leasesGuide(t, guide)
			case "ldap.md":
				guide = s.ldapGuide(t, guide)
			case "people.md":
				guide = s.peopleGuide(t, guide)
			}
			s.makeRun(t)
			s.readDocument(t, guide)
		})
	}
}

// session is a person at a machine of their own.
type session struct {
	dir     string
	env     []string
	machine *strings.Replacer // from the documents' machine to this one
	shown   string            // file that the shell prints to

	prologue string // what the shell begins with
}

func newSession(t *testing.T) *session {
	t.Helper()
	s := &session{dir: t.TempDir(), prologue: prologue}
	s.shown = filepath.Join(t.TempDir(), "shown")
	goroot, err := exec.Command("go", "env", "GOPATH", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	places := strings.Fields(string(goroot))
	s.env = []string{
		"HOME=" + s.dir, "PATH=" + program + ":" + os.Getenv("PATH"), "SHOWN=" + s.shown,
		"GOPATH=" + places[0], "GOMODCACHE=" + places[1], "GOCACHE=" + places[2],
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(program, "coffer"), filepath.Join(s.dir, "bin", "coffer")); err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for _, port := range []string{"8200", "8300"} {
		pairs = append(pairs, "127.0.0.1:"+port, fmt.Sprint("127.0.0.1:", storagetest.FreePort(t)))
	}
	for _, dir := range []string{"/etc/coffer", "/var/lib/coffer", "/var/log/coffer", "/mnt/elsewhere"} {
		here := filepath.Join(s.dir, dir)
		if err := os.MkdirAll(here, 0o700); err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, dir, here)
	}
	s.machine = strings.NewReplacer(pairs...)
	return s
}

// makeRun starts a server as `make run` does, with which most documents begin.
func (s *session) makeRun(t *testing.T) {
	t.Helper()
	s.prologue += asRun
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil || !bytes.Contains(makefile, []byte("\n\tbin/coffer quickstart -data ./coffer-data\n")) {
		t.Fatalf("`make run` does something else than this test: %v", err)
	}
	address := s.machine.Replace("127.0.0.1:8200")
	server := exec.Command("bin/coffer", "quickstart", "-data", "./coffer-data", "-listen", address)
	server.Dir, server.Env = s.dir, s.env
	var printed bytes.Buffer
	server.Stdout, server.Stderr = &printed, &printed
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(os.Interrupt)
		if err := server.Wait(); err != nil {
			t.Errorf("the server ended with %v:\n%s", err, printed.String())
		}
		// What it printed is to be tried as printed.
		for _, want := range []string{"https://" + address, "Root token:", "CA file:", "kv put secret/hello", "kv get secret/hello"} {
			if !strings.Contains(printed.String(), want) {
				t.Errorf("it does not print %q:\n%s", want, printed.String())
			}
		}
	})
	token := filepath.Join(s.dir, "coffer-data", "root-token")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			if _, err := os.Stat(token); err == nil {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not answer")
		}
	}
}

// prologue is what the shell of every document begins with.
const prologue = `
set -eu -o pipefail
shopt -s expand_aliases

# request_id prints the request that was refused last.
request_id() { sed -n 's/.*policy why \([0-9a-f-]\{36\}\).*/\1/p' "$SHOWN" | tail -1; }

# serve runs a server beside the shell, after the one of the same arguments.
declare -A servers=()
serve() {
	if [ -n "${servers["$*"]:-}" ]; then kill -INT "${servers["$*"]}"; wait "${servers["$*"]}"; fi
	: > server.log
	"$@" >> server.log 2>&1 &
	servers["$*"]=$!
	for _ in $(seq 600); do
		if grep -q -e ' serves ' -e 'Root Token' server.log; then return 0; fi
		if ! kill -0 $! 2>/dev/null; then break; fi
		sleep 0.05
	done
	cat server.log
	return 1
}
trap 'code=$?; trap - EXIT; for pid in "${servers[@]}"; do kill -INT $pid; wait $pid || code=1; done; exit $code' EXIT
`

// asRun leads to the server that makeRun starts.
const asRun = `
export COFFER_ADDR=https://127.0.0.1:8200
export COFFER_CACERT=coffer-data/tls/ca.pem
export COFFER_TOKEN=$(cat coffer-data/root-token)
`

var (
	startsServer = regexp.MustCompile(`(?m)^((?:bin/)?coffer server .*)$`)
	forTests     = regexp.MustCompile(`(?m)^(serve .* -dev .*)$`) // beside the server that there is
	isRefused    = regexp.MustCompile(`(?m)^(.*?)\s+# refused$`)
)

// between stands in what is printed where a block ends.
const between = "-- end of block %d --"

// readDocument types a document's commands and looks at what they print.
func (s *session) readDocument(t *testing.T, text string) {
	t.Helper()
	all := blocks(text)
	var script strings.Builder
	script.WriteString(s.prologue)
	for n, b := range all {
		switch b.kind {
		case "sh":
			if strings.HasPrefix(b.text, "make ") { // it is what the test does, and what started it
				continue
			}
			commands := startsServer.ReplaceAllString(b.text, "serve $1")
			commands = forTests.ReplaceAllString(commands, "$1 -dev-listen-address=127.0.0.1:8300")
			commands = isRefused.ReplaceAllString(commands, "if $1; then echo 'that was not refused'; exit 1; fi")
			script.WriteString(strings.ReplaceAll(commands, "REQUEST_ID", "$(request_id)"))
		case "go":
			fmt.Fprintf(&script, "%s\n", s.build(t, b))
		default:
			continue
		}
		fmt.Fprintf(&script, "\necho '"+between+"'\n", n)
	}
	typed := filepath.Join(t.TempDir(), "typed")
	if err := os.WriteFile(typed, []byte(s.machine.Replace(script.String())), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", `exec bash "$0" > "$SHOWN" 2>&1`, typed)
	shell.Dir, shell.Env, shell.WaitDelay = s.dir, s.env, time.Second
	runs := shell.Run()
	printed, err := os.ReadFile(s.shown)
	if err != nil {
		t.Fatal(err)
	}
	left := string(printed)
	for n, b := range all {
		out, rest, ended := strings.Cut(left, fmt.Sprintf(between, n)+"\n")
		if !ended {
			continue
		}
		left = rest
		if b.shows == "" {
			continue
		}
		if wrong := prints(s.machine.Replace(b.shows), out); wrong != "" {
			t.Errorf("the block at line %d: %s", b.line, wrong)
		}
	}
	if runs != nil {
		t.Fatalf("the commands end with %v:\n%s", runs, left)
	}
}

// build builds a program of a document, and returns the command that runs it.
func (s *session) build(t *testing.T, b block) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(b.text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "program"), filepath.Join(dir, "main.go"))
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the program at line %d: %v\n%s", b.line, err, out)
	}
	return filepath.Join(dir, "program")
}

// TestPrints holds the comparison to what it is for.
func TestPrints(t *testing.T) {
	for _, c := range []struct {
		shown, printed string
		same           bool
	}{
		{"a  b\n", "a     b\n", true},
		{"a …\n", "a 12 34\n", true},
		{"a …\n", "b 12\n", false},
		{"a\n…\nd\n", "a\nb\nc\nd\n", true},
		{"a\n…\nd\n", "a\nd\n", true},
		{"a\n…\n", "a\nb\nc\n", true},
		{"a\n", "a\nb\n", false},
		{"a\nb\n", "a\n", false},
		{"a…c\n", "a\nc\n", false},
		{"a.c\n", "abc\n", false},
	} {
		if got := prints(c.shown, c.printed) == ""; got != c.same {
			t.Errorf("%q shows %q: %v, want %v", c.shown, c.printed, got, c.same)
		}
	}
}
