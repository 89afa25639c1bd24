package process

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain runs the parts that change a whole process, or end it, in a child.
func TestMain(m *testing.M) {
	switch os.Getenv("PROCESS_TEST_CHILD") {
	case "harden":
		childHarden()
	case "lock":
		childLock()
	case "signals":
		childSignals()
	default:
		goleak.VerifyTestMain(m)
	}
}

func child(t *testing.T, role string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), "PROCESS_TEST_CHILD="+role), env...)
	return cmd
}

func childHarden() {
	fmt.Println("error:", Harden())
	var core unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &core)
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	fmt.Println("core:", core.Cur, core.Max, "dumpable:", dumpable)
	path := filepath.Join(os.Getenv("DIR"), "file")
	_ = os.WriteFile(path, nil, 0o666)
	info, _ := os.Stat(path)
	fmt.Println("mode:", info.Mode())
}

func TestHarden(t *testing.T) {
	out, err := child(t, "harden", "DIR="+t.TempDir()).Output()
	if want := "error: <nil>\ncore: 0 0 dumpable: 0\nmode: -rw-------\n"; err != nil || string(out) != want {
		t.Errorf("%v, %s", err, out)
	}
}

// childLock locks its memory, takes and frees a lot of it, and says what is
// locked and what is resident, in KiB.
func childLock() {
	if limit := os.Getenv("MEMLOCK"); limit != "" {
		n, _ := strconv.ParseUint(limit, 10, 64)
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: n, Max: n})
		_ = unix.Capset(&header, &none[0])
	}
	locked := os.Getenv("PLAIN") == "" && LockMemory(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	memory := make([]byte, 64<<20)
	for i := range memory {
		memory[i] = 1
	}
	status, _ := os.ReadFile("/proc/self/status")
	fmt.Println(locked, kib(status, "VmLck:"), kib(status, "VmRSS:"), kib(status, "VmSize:"), len(memory))
}

func kib(status []byte, name string) int {
	_, rest, _ := strings.Cut(string(status), name)
	fields := strings.Fields(rest)
	n, _ := strconv.Atoi(fields[0])
	return n
}

func TestLockMemory(t *testing.T) {
	var warnings bytes.Buffer
	run := func(env ...string) (locked bool, lck, rss, size int) {
		cmd := child(t, "lock", env...)
		cmd.Stderr = &warnings
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, warnings.String())
		}
		var taken int
		if _, err := fmt.Sscan(string(out), &locked, &lck, &rss, &size, &taken); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		return locked, lck, rss, size
	}
	_, _, plain, _ := run("PLAIN=1")
	locked, lck, rss, size := run()
	t.Logf("locked %v: VmLck %d KiB, VmRSS %d KiB, VmSize %d KiB; VmRSS without locking %d KiB", locked, lck, rss, size, plain)
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if allowed := limit.Cur == unix.RLIM_INFINITY || mayLockAll(); locked != allowed {
		t.Errorf("locked %v although allowed is %v: %s", locked, allowed, warnings.String())
	}
	if locked == (warnings.Len() > 0) {
		t.Errorf("locked %v and warned %q", locked, warnings.String())
	}
	if locked && rss > plain+plain/2 {
		t.Errorf("locked it holds %d KiB, else %d KiB: reserved address space was filled", rss, plain)
	}
}

func TestLockMemoryWarnsUnderALimit(t *testing.T) {
	var warnings bytes.Buffer
	cmd := child(t, "lock", "MEMLOCK=65536")
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), "false 0 ") {
		t.Errorf("%v, %q", err, out)
	}
	if text := warnings.String(); strings.Count(text, "WARN") != 1 || !strings.Contains(text, "disable_mlock") {
		t.Errorf("warnings %q", text)
	}
}

func childSignals() {
	reloads := 0
	log := slog.New(slog.DiscardHandler)
	ctx, stop := Signals(context.Background(), log, func() { reloads++; fmt.Println("reload", reloads) })
	fmt.Println("ready")
	<-ctx.Done()
	fmt.Println("stopping")
	if os.Getenv("HANG") != "" {
		select {} // a shutdown that does not end; the second signal must end it
	}
	stop()
}

func TestSignals(t *testing.T) {
	for _, hang := range []string{"", "1"} {
		cmd := child(t, "signals", "HANG="+hang)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		expect := func(want string) {
			t.Helper()
			buffer := make([]byte, 64)
			n, _ := out.Read(buffer)
			if got := strings.TrimSpace(string(buffer[:n])); got != want {
				t.Fatalf("the child says %q, want %q", got, want)
			}
		}
		expect("ready")
		_ = cmd.Process.Signal(syscall.SIGHUP)
		expect("reload 1")
		_ = cmd.Process.Signal(syscall.SIGHUP)
		expect("reload 2")
		_ = cmd.Process.Signal(syscall.SIGTERM)
		expect("stopping")
		if hang != "" {
			_ = cmd.Process.Signal(syscall.SIGINT)
		}
		if err := cmd.Wait(); (err != nil) != (hang != "") {
			t.Errorf("hang %q: %v", hang, err)
		}
	}
}

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "coffer.pid")
	for _, before := range []string{"", "garbage", "999999999", strconv.Itoa(os.Getpid())} {
		if before != "" {
			if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		remove, err := WritePID(path)
		if err != nil {
			t.Fatalf("over %q: %v", before, err)
		}
		if got, _ := os.ReadFile(path); string(got) != strconv.Itoa(os.Getpid())+"\n" {
			t.Errorf("it holds %q", got)
		}
		if err := remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("it is not removed")
		}
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getppid())), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := WritePID(path); err == nil || !strings.Contains(err.Error(), "running") {
		t.Errorf("another server's file: %v", err)
	}
	_ = os.Remove(path)
	remove, err := WritePID(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(path, []byte("1\n"), 0o600)
	if err := remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("another process's file was removed")
	}
	if _, err := WritePID(filepath.Join(t.TempDir(), "none", "pid")); err == nil {
		t.Error("a missing directory is no error")
	}
}

func TestSupervisorHears(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@coffer-test-" + strconv.Itoa(os.Getpid())} {
		socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", name)
		s := FindSupervisor()
		if os.Getenv("NOTIFY_SOCKET") != "" {
			t.Error("children would speak for the server")
		}
		hear := func() string {
			_ = socket.SetReadDeadline(time.Now().Add(5 * time.Second))
			buffer := make([]byte, 1024)
			n, err := socket.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			return string(buffer[:n])
		}
		for _, c := range []struct {
			say  func() error
			want string
		}{
			{func() error { return s.Ready("serving\nEXTRA=1") }, "READY=1\nSTATUS=serving EXTRA=1"},
			{func() error { return s.Status("sealed") }, "STATUS=sealed"},
			{s.Reloading, "RELOADING=1\nMONOTONIC_USEC="},
			{s.Stopping, "STOPPING=1"},
		} {
			if err := c.say(); err != nil {
				t.Fatal(err)
			}
			if got := hear(); !strings.HasPrefix(got, c.want) {
				t.Errorf("heard %q, want %q", got, c.want)
			}
		}
		t.Setenv("WATCHDOG_USEC", "20000")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.Watchdog(ctx); close(done) }()
		if got := hear(); got != "WATCHDOG=1" {
			t.Errorf("heard %q", got)
		}
		cancel()
		<-done
		socket.Close()
		if err := s.Ready("x"); err == nil {
			t.Error("a supervisor that is gone is no error")
		}
	}
	if err := (Supervisor{}).Ready("nobody listens"); err != nil {
		t.Error(err)
	}
}
