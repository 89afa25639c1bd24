package app_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// TestARequestUnderWayIsFinished ends the server while a request runs.
func TestARequestUnderWayIsFinished(t *testing.T) {
	p := newProcess(t, "")
	p.start(t)
	p.initialize(t)
	answered := make(chan *apptest.Answer, 1)
	go func() {
		a, _ := p.Try("GET", "sys/pprof/profile?seconds=1", p.Root, "")
		answered <- a
	}()
	eventually(t, "the request is under way", func() bool {
		return strings.Contains(string(p.Must(t, 200, "GET", "sys/in-flight-req", "").Body), "pprof/profile")
	})
	p.stop(t)
	if a := <-answered; a == nil || a.Status != 200 || len(a.Body) == 0 {
		t.Errorf("the request under way is answered %v", a)
	}
}

// TestLogsMayBeMovedAway sends SIGHUP after the log file was renamed, as log
// rotation does.
func TestLogsMayBeMovedAway(t *testing.T) {
	file := filepath.Join(t.TempDir(), "coffer.log")
	p := newProcess(t, "log_file = \""+file+"\"\npid_file = \""+file+".pid\"\n")
	p.start(t)
	p.initialize(t)
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log goes on in a fresh file", func() bool {
		_, err := os.Stat(file)
		return err == nil
	})
	if text, err := os.ReadFile(file + ".pid"); err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(p.cmd.Process.Pid) {
		t.Errorf("the PID file holds %q: %v", text, err)
	}
	p.Must(t, 200, "GET", "sys/mounts", "")
	p.stop(t)
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "shutting down") {
		t.Errorf("the fresh log holds %q: %v", text, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log has mode %v: %v", info.Mode(), err)
	}
	if _, err := os.Stat(file + ".pid"); !os.IsNotExist(err) {
		t.Errorf("the PID file is left: %v", err)
	}
}

// TestTheProcessIsClosed looks at a running server from outside.
func TestTheProcessIsClosed(t *testing.T) {
	p := newProcess(t, "")
	p.start(t)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (fields[4] != "0" || fields[5] != "0") {
			t.Errorf("cores may be dumped: %s", line)
		}
	}
	if p.Do(t, "GET", "sys/health", "", "").Status != 501 {
		t.Error("a new server does not say that it is not initialized")
	}
}

// TestSupervisor speaks systemd's protocol with the server.
func TestSupervisor(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	supervisor, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer supervisor.Close()
	p := newProcess(t, "")
	p.env = []string{"NOTIFY_SOCKET=" + socket}
	hears := func(what string) {
		t.Helper()
		message := make([]byte, 4096)
		for {
			if err := supervisor.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := supervisor.Read(message)
			if err != nil {
				t.Fatalf("it does not say %s: %v", what, err)
			}
			if strings.Contains(string(message[:n]), what) {
				return
			}
		}
	}
	p.start(t)
	hears("READY=1")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	hears("RELOADING=1")
	hears("READY=1")
	p.stop(t)
	hears("STOPPING=1")
}

// TestDevelopmentServersKeepNothing wants the directory of a development server
// gone after its end.
func TestDevelopmentServersKeepNothing(t *testing.T) {
	temp := t.TempDir()
	p := &process{dir: t.TempDir(), env: []string{"TMPDIR=" + temp, "HOME=" + temp}}
	p.run(t, "server", "-dev", "-dev-root-token-id=root", "-dev-listen-address=127.0.0.1:0", "-dev-no-store-token")
	text := says(t, p, "Root Token: root")
	_, url, _ := strings.Cut(text, "VAULT_ADDR='")
	url, _, _ = strings.Cut(url, "'")
	p.Reach(url, apptest.Trusting(t, ""))
	p.Root = "root"
	p.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
	p.Must(t, 200, "GET", "secret/data/app", "")
	p.stop(t)
	left, err := os.ReadDir(temp)
	if err != nil || len(left) != 0 {
		t.Errorf("%v is left: %v", left, err)
	}
}
