// Package postgrestest runs private PostgreSQL servers for tests, from the
// programs that are installed (Debian's package postgresql). It is not for
// production, and it never touches a server that it did not start.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

const (
	// User is the superuser of every server, and Password is its password.
	User     = "coffer"
	Password = "pass:word/of%tests"
)

// passwordInURL is Password as it stands in a URL.
const passwordInURL = "pass%3Aword%2Fof%25tests"

// Server is a PostgreSQL server on loopback.
type Server struct {
	Port int

	dir      string
	settings []string // name=value
	small    int      // bytes of a disk of its own, 0 for none
	cmd      *exec.Cmd
	exited   chan struct{}
}

// Start starts a new, empty server that ends with the test. settings are
// PostgreSQL's, as name=value.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := prepare(t, settings)
	s.Restart(t)
	return s
}

// prepare makes a server that does not run yet.
func prepare(t testing.TB, settings []string) *Server {
	t.Helper()
	template, err := initialized()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{dir: newDir(t), settings: settings, Port: storagetest.FreePort(t)}
	t.Cleanup(func() { s.end(t) })
	if err := copyTree(template, s.data()); err != nil {
		t.Fatal(err)
	}
	return s
}

// StartSmall is Start, with a small disk of bytes mounted for the server alone.
// Database puts databases on it. It needs root or user namespaces.
func StartSmall(t testing.TB, bytes int, settings ...string) *Server {
	t.Helper()
	s := prepare(t, settings)
	s.small = bytes
	if err := os.Mkdir(s.disk(), 0o755); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	s.Exec(t, "postgres", "CREATE TABLESPACE small LOCATION '"+s.disk()+"'")
	return s
}

func (s *Server) disk() string { return filepath.Join(s.dir, "disk") }

// onSmallDisk mounts the disk in a mount namespace of the server's own.
func (s *Server) onSmallDisk(args []string) *exec.Cmd {
	uid, gid := os.Getuid(), os.Getgid()
	apart, become := []string{"--mount", "--propagation", "private"}, ""
	if c := credential(); c != nil {
		uid, gid = int(c.Uid), int(c.Gid)
		become = fmt.Sprintf("setpriv --reuid=%d --regid=%d --clear-groups ", uid, gid)
	} else {
		apart = append(apart, "--user", "--keep-caps", fmt.Sprintf("--map-user=%d", uid), fmt.Sprintf("--map-group=%d", gid))
	}
	script := fmt.Sprintf(`mount -t tmpfs -o size=%d,mode=0700,uid=%d,gid=%d small "$1" && shift && exec %s"$@"`, s.small, uid, gid, become)
	apart = append(apart, "sh", "-c", script, "sh", s.disk(), program("postgres"))
	cmd := exec.Command("unshare", append(apart, args...)...)
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{}
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// Replica starts a streaming replica of s. name is its application_name, for
// synchronous_standby_names.
func (s *Server) Replica(t testing.TB, name string, settings ...string) *Server {
	t.Helper()
	// A replica whose primary is gone sleeps before it looks again, and before
	// it sees that it was promoted: 5 s unless told otherwise.
	settings = append([]string{"wal_retrieve_retry_interval=100ms"}, settings...)
	r := &Server{dir: newDir(t), settings: settings, Port: storagetest.FreePort(t)}
	out, err := asUser(exec.Command(program("pg_basebackup"), "-D", r.data(), "-R", "-X", "stream", "-c", "fast",
		"-d", s.URL("postgres")+"&application_name="+name)).CombinedOutput()
	if err != nil {
		t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	t.Cleanup(func() { r.end(t) })
	r.Restart(t)
	return r
}

// Promote makes a replica accept writes.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	out, err := asUser(exec.Command(program("pg_ctl"), "promote", "-w", "-D", s.data())).CombinedOutput()
	if err != nil {
		t.Fatalf("promote: %v\n%s", err, out)
	}
}

var databases atomic.Int64

// Database makes a new, empty database and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("d%d", databases.Add(1))
	where := ""
	if s.small > 0 {
		where = " TABLESPACE small"
	}
	s.Exec(t, "postgres", "CREATE DATABASE "+name+where)
	return s.URL(name)
}

// URL names a database, with the superuser and its password.
func (s *Server) URL(database string) string {
	return s.URLAt("127.0.0.1:"+strconv.Itoa(s.Port), database)
}

// URLAt is URL with other hosts, such as that of a proxy.
func (s *Server) URLAt(hosts, database string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", User, passwordInURL, hosts, database)
}

// Exec runs statements as the superuser; each text may hold several.
func (s *Server) Exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// Kill kills the server's processes, all of them, with SIGKILL.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	all := append(s.children(), s.cmd.Process.Pid)
	slices.Reverse(all) // the postmaster first: it must not answer the death of another
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-s.exited
	for _, pid := range all[1:] {
		for range 500 {
			if syscall.Kill(pid, 0) != nil || isZombie(pid) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// Stop ends the server in an orderly way; "fast" breaks connections off, and
// "immediate" is as a crash.
func (s *Server) Stop(t testing.TB, mode string) {
	t.Helper()
	out, err := asUser(exec.Command(program("pg_ctl"), "stop", "-w", "-m", mode, "-D", s.data())).CombinedOutput()
	if err != nil {
		t.Fatalf("stop: %v\n%s", err, out)
	}
	<-s.exited
}

// Signal sends a signal to all of the server's processes, such as SIGSTOP.
func (s *Server) Signal(sig syscall.Signal) {
	for _, pid := range append(s.children(), s.cmd.Process.Pid) {
		_ = syscall.Kill(pid, sig)
	}
}

// Restart starts the server again, in the same place, and waits until it
// answers.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.Port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "shared_buffers=64MB", "-c", "max_connections=200"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if s.small > 0 {
		s.cmd = s.onSmallDisk(args)
	} else {
		s.cmd = asUser(exec.Command(program("postgres"), args...))
	}
	s.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // the test died
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(s.cmd, s.exited)
	if err := s.waitReady(); err != nil {
		t.Fatalf("PostgreSQL does not answer: %v\n%s", err, s.Log())
	}
}

func (s *Server) waitReady() error {
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			err = conn.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("it ended")
		default:
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// Log is what the server has said.
func (s *Server) Log() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Dir is the server's directory; a test may put files of the server beside the
// data.
func (s *Server) Dir() string { return s.dir }

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) end(t testing.TB) {
	if s.cmd != nil && s.cmd.Process != nil {
		s.Signal(syscall.SIGCONT)
		s.Kill(t)
	}
	if t.Failed() {
		lines := strings.Split(s.Log(), "\n")
		t.Logf("the end of PostgreSQL's log:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	if err := os.RemoveAll(s.dir); err != nil {
		t.Error(err)
	}
}

// children are the processes that the postmaster has started.
func (s *Server) children() []int {
	var pids []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	for _, path := range stats {
		if pid, parent, _ := parseStat(path); parent == s.cmd.Process.Pid {
			pids = append(pids, pid)
		}
	}
	return pids
}

func isZombie(pid int) bool {
	_, _, state := parseStat(fmt.Sprintf("/proc/%d/stat", pid))
	return state == "" || state == "Z"
}

func parseStat(path string) (pid, parent int, state string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, ""
	}
	head, rest, _ := strings.Cut(string(text), " (")
	fields := strings.Fields(rest[strings.LastIndex(rest, ")")+1:])
	pid, _ = strconv.Atoi(head)
	parent, _ = strconv.Atoi(fields[1])
	return pid, parent, fields[0]
}

// initialized returns a data directory to copy, made once per process.
var initialized = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("/tmp", "cpgt")
	if err != nil {
		return "", err
	}
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(Password+"\n"), 0o600); err != nil {
		return "", err
	}
	if err := own(dir, password); err != nil {
		return "", err
	}
	template := filepath.Join(dir, "data")
	out, err := asUser(exec.Command(program("initdb"), "-D", template, "-U", User, "-A", "scram-sha-256",
		"--pwfile", password, "--no-locale", "-E", "UTF8", "--no-sync")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("initdb: %w\n%s\n(the tests need Debian's package postgresql: scripts/test-deps)", err, out)
	}
	templateDir = dir
	return template, nil
})

var templateDir string

// Clean removes what Start keeps for the next call. TestMain calls it.
func Clean() error {
	if templateDir == "" {
		return nil
	}
	return os.RemoveAll(templateDir)
}

func copyTree(from, to string) error {
	out, err := asUser(exec.Command("cp", "-a", "--reflink=auto", from, to)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy: %w\n%s", err, out)
	}
	return nil
}

// newDir makes a directory with a short name that the server's user owns.
func newDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cpg")
	if err == nil {
		err = own(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// program finds one of PostgreSQL's programs, of the newest version installed.
func program(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // the pattern is right
	if len(found) == 0 {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
		return name
	}
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	return found[len(found)-1]
}

func version(path string) int {
	n, _ := strconv.Atoi(strings.Split(path, "/")[4]) // 0 sorts first
	return n
}

// credential is the user that servers run as: PostgreSQL refuses root.
var credential = sync.OnceValue(func() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	return nil
})

func asUser(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential()}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGPASSWORD="+Password)
	return cmd
}

func own(paths ...string) error {
	c := credential()
	if c == nil {
		return nil
	}
	for _, path := range paths {
		if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
			return err
		}
	}
	return nil
}
