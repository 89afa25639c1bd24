// Package process is what the server asks of the operating system for itself:
// that its memory is neither dumped nor swapped, that its files are its own,
// that a supervisor hears how it is, and that signals end or reload it. It knows
// nothing of secrets or requests.
//
// It is for Linux.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Harden keeps other users of the machine from the server's memory and files:
// no core dumps, no ptrace by processes of the same user, files made with mode
// 0600 and directories with 0700 unless said otherwise.
func Harden() error {
	unix.Umask(0o077)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turn core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("turn core dumps off: %w", err)
	}
	return nil
}

// LockMemory keeps the process's memory from being written to swap, and reports
// whether it does. Where that is not allowed it warns and the server goes on, for
// swap may be off or encrypted.
//
// Pages are locked as they are first touched (MCL_ONFAULT). Go reserves far more
// address space than it uses, and locking all of it, as plain MCL_FUTURE does,
// would cost gigabytes. What the garbage collector gives back to the system is
// given back all the same, so a locked process is about as large as one that is
// not. VmLck in /proc counts reserved address space and looks frightening; VmRSS
// is what is used.
func LockMemory(log *slog.Logger) bool {
	// Under a limit that is not "unlimited", locking works at first and fails
	// later: once the heap reaches the limit, Go cannot get memory and the server
	// dies. That is worse than swapping, so the limit is looked at first.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err == nil && limit.Cur != unix.RLIM_INFINITY && !mayLockAll() {
		return warnUnlocked(log, fmt.Errorf("the limit of locked memory is %d bytes", limit.Cur))
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return warnUnlocked(log, err)
	}
	return true
}

// capIPCLock is CAP_IPC_LOCK, see capabilities(7): the limit does not bind
// those who have it.
const capIPCLock = 14

func mayLockAll() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<capIPCLock) != 0
}

func warnUnlocked(log *slog.Logger, why error) bool {
	log.Warn("the server's memory can be swapped out; turn swap off or encrypt it, set LimitMEMLOCK=infinity, or set disable_mlock to accept it", "error", why)
	return false
}

// WritePID writes the process's number to a file and returns what removes it.
// A file that names a process that is alive is not replaced.
func WritePID(path string) (remove func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	if other := alive(path); other != 0 && other != os.Getpid() {
		return nil, fmt.Errorf("%s names process %d, which is running; is a server running already?", path, other)
	}
	own := []byte(strconv.Itoa(os.Getpid()) + "\n")
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return nil, fmt.Errorf("write the PID file: %w", err)
	}
	_, err = f.Write(own)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write the PID file: %w", err), os.Remove(f.Name()))
	}
	return func() error {
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && string(content) != string(own) {
			return nil // another process's by now
		}
		return errors.Join(err, os.Remove(path))
	}, nil
}

// alive returns the number in a PID file when such a process runs, else 0.
func alive(path string) int {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || pid <= 0 {
		return 0
	}
	if err := unix.Kill(pid, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return 0
	}
	return pid
}

// Signals returns a context that ends at the first SIGINT or SIGTERM, and calls
// reload at each SIGHUP, one at a time. A second SIGINT or SIGTERM ends the
// process at once. Call stop when the server is down.
func Signals(parent context.Context, log *slog.Logger, reload func()) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case s := <-signals:
				switch {
				case s == syscall.SIGHUP && ctx.Err() == nil:
					reload()
				case s == syscall.SIGHUP:
				case ctx.Err() == nil:
					log.Info("shutting down; what is under way is finished first", "signal", s.String())
					cancel()
				default:
					log.Warn("ending at once", "signal", s.String())
					os.Exit(1)
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(quit)
		<-done
		cancel()
	}
}
