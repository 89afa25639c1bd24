package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/cli"
	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
)

// asCoffer lets this test binary run as the command coffer, so that a server is
// a process of its own that can be killed.
const asCoffer = "COFFER_APP_TEST_AS_COFFER"

func TestMain(m *testing.M) {
	if os.Getenv(asCoffer) != "" {
		os.Exit(cli.Main(context.Background(), os.Args[1:], cli.FromProcess()))
	}
	etcdtest.Main()
	endSoftHSM := softHSM()
	code := m.Run()
	endSoftHSM()
	os.Exit(code)
}

// soak is by how much the tests that try their luck are longer in `make soak`.
func soak() int {
	if os.Getenv("COFFER_SOAK") != "" {
		return 50
	}
	return 1
}

// process is a server in a process of its own.
type process struct {
	apptest.Client
	dir    string // the data directory is data in it
	store  string // the storage block; "" is the embedded engine in the data directory
	out    *apptest.Log
	cmd    *exec.Cmd
	exited chan struct{}
	env    []string
	within func(*exec.Cmd) // when set, has a shell start the server in place of the command itself
}

const tcp = "listener \"tcp\" {\n  address = \"127.0.0.1:0\"\n}\n"

// newProcess configures a server that does not run yet. more is HCL beside its
// storage and a TLS listener.
func newProcess(t testing.TB, more string) *process {
	t.Helper()
	p := &process{dir: t.TempDir()}
	p.configure(t, tcp+more)
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill(t)
		}
	})
	return p
}

// configure writes the configuration anew, for the next start.
func (p *process) configure(t testing.TB, text string) {
	t.Helper()
	store := p.store
	if store == "" {
		store = fmt.Sprintf("storage \"pebble\" {\n  path = %q\n}\n", p.data())
	}
	text = store + "disable_mlock = true\n" + text
	if err := os.WriteFile(p.config(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *process) data(names ...string) string {
	return filepath.Join(append([]string{p.dir, "data"}, names...)...)
}

func (p *process) config() string { return filepath.Join(p.dir, "coffer.hcl") }

var serves = regexp.MustCompile(`serves (\S+)\n`)

// start runs the server until it says where it serves.
func (p *process) start(t testing.TB) {
	t.Helper()
	p.run(t, "server", "-config="+p.config())
	deadline := time.After(60 * time.Second)
	for {
		if found := serves.FindStringSubmatch(p.out.String()); found != nil {
			p.Reach(found[1], apptest.Trusting(t, p.ca()))
			return
		}
		select {
		case <-p.exited:
			t.Fatalf("the server ended (%v):\n%s", p.cmd.ProcessState, p.out)
		case <-deadline:
			t.Fatalf("the server does not serve:\n%s", p.out)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ca is the server's own authority, "" where it has none.
func (p *process) ca() string {
	file := p.data("tls", "ca.pem")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// run starts the command coffer with arguments.
func (p *process) run(t testing.TB, args ...string) {
	t.Helper()
	p.out, p.exited = &apptest.Log{}, make(chan struct{})
	p.cmd = coffer(args...)
	p.cmd.Env = append(p.cmd.Env, p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if p.within != nil {
		p.within(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(p.cmd, p.exited)
}

// coffer is the command coffer, in an environment that holds none of its
// settings.
func coffer(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "COFFER_") && !strings.HasPrefix(v, "VAULT_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	// The race detector makes every program wait for a second at its end.
	cmd.Env = append(cmd.Env, asCoffer+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// kill ends the server as a crash does.
func (p *process) kill(t testing.TB) {
	t.Helper()
	_ = p.cmd.Process.Kill()
	p.wait(t)
}

// stop ends the server as its supervisor does, and wants that it ends well.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.wait(t)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the server ended with code %d:\n%s", code, p.out)
	}
}

// wait returns the exit code.
func (p *process) wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(60 * time.Second):
		_ = p.cmd.Process.Kill()
		t.Fatalf("the process does not end:\n%s", p.out)
	}
	if via := p.HTTP(); via != nil {
		via.CloseIdleConnections()
	}
	code := p.cmd.ProcessState.ExitCode()
	return code
}

// initialize initializes a running server that a key file opens, and mounts
// secret/.
func (p *process) initialize(t testing.TB) {
	t.Helper()
	a := p.Must(t, 200, "POST", "sys/init", `{}`)
	var made struct {
		Root string `json:"root_token"`
	}
	decode(t, a.Body, &made)
	p.Root = made.Root
	p.Must(t, 204, "POST", "sys/mounts/secret", `{"type":"kv","options":{"version":"2"}}`)
}

// publicKey is what the audit log is verified with.
func publicKey(t testing.TB, c *apptest.Client) string {
	t.Helper()
	var log struct {
		PublicKey string `json:"public_key"`
	}
	c.Must(t, 200, "GET", "sys/audit-log", "").Into(t, &log)
	return log.PublicKey
}

func decode(t testing.TB, text []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// encode is v as JSON.
func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// eventually waits until ok, which is asked often.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come about: %s", what)
		}
	}
}

// together runs n functions at the same time and waits for all.
func together(n int, run func(i int)) {
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() { run(i) })
	}
	work.Wait()
}
