package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// childEnv names what a child process of these tests does, and its arguments,
// with spaces between them.
const childEnv = "COFFER_PEBBLE_CHILD"

// runChild does in a child process what it was started for, and exits.
func runChild() {
	args := strings.Fields(os.Getenv(childEnv))
	if len(args) == 0 {
		return
	}
	err := map[string]func([]string) error{"fill": fillAndDie, "tmpfs": fillTmpfs}[args[0]](args[1:])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(t *testing.T, attr *syscall.SysProcAttr, args ...string) (string, error) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(args, " "))
	cmd.SysProcAttr = attr
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// fillAndDie fills a store, prints the most memory that the process had, and
// dies by SIGKILL.
func fillAndDie(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	e, err := openAt(args[0])
	if err != nil {
		return err
	}
	value := make([]byte, rowSize)
	for i := 0; i < n; {
		_, err := e.Update(context.Background(), func(tx storage.Txn) error {
			for end := min(n, i+storage.MaxUpdateKeys); i < end; i++ {
				// Scattered, as the names of real rows are.
				if err := tx.Put(fmt.Sprintf("row/%08x", uint32(i)*2654435761), value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	err = e.View(context.Background(), func(r storage.Reader) error {
		return storage.All(r, "row/", func(storage.Entry) error { return nil })
	})
	if err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Println(strings.Fields(peak)[0])
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// TestManyRows: a large store needs little memory and opens fast after kill -9.
func TestManyRows(t *testing.T) {
	rows := 20_000
	if os.Getenv("COFFER_SOAK") == "1" {
		rows = 1_000_000
	}
	dir := filepath.Join(t.TempDir(), "store")
	start := time.Now()
	out, err := child(t, nil, "fill", dir, strconv.Itoa(rows))
	peak, bad := strconv.Atoi(strings.TrimSpace(out))
	if bad != nil {
		t.Fatalf("%v: %s", err, out)
	}
	filled := time.Since(start)
	start = time.Now()
	e, err := openAt(dir)
	if err != nil {
		t.Fatal(err)
	}
	opened := time.Since(start)
	stats := e.(*Engine).Stats()
	n := 0
	err = e.View(context.Background(), func(r storage.Reader) error {
		return storage.All(r, "row/", func(storage.Entry) error { n++; return nil })
	})
	if err != nil || n != rows {
		t.Errorf("%d of %d rows, %v", n, rows, err)
	}
	t.Logf("rows: %d, filled in %v, peak memory: %d MiB, disk: %d MiB, opened after SIGKILL in %v",
		rows, filled, peak>>10, stats.DiskBytes>>20, opened)
	if limit := 350 * raceFactor; peak>>10 > limit {
		t.Errorf("peak memory %d MiB, more than %d", peak>>10, limit)
	}
	if limit := time.Second * raceFactor; opened > limit {
		t.Errorf("opened after SIGKILL in %v, more than %v", opened, limit)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// TestFullTmpfs fills a real file system, in a mount namespace of its own.
func TestFullTmpfs(t *testing.T) {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := child(t, attr, "tmpfs", t.TempDir())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(out)
}

// fillTmpfs mounts a small file system and lets a store and another program
// fill it, each in turn.
func fillTmpfs(args []string) error {
	dir := args[0]
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=112m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	opened, err := openAt(filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	e := opened.(*Engine)
	own, err := putUntilFull(e, "own")
	if err != nil {
		return fmt.Errorf("a store that fills the disk: %w", err)
	}
	// Another program takes the rest, to the last byte.
	hog, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		return err
	}
	for chunk := make([]byte, 4096); err == nil; {
		_, err = hog.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	// What was admitted must still be finished: this writes tables and manifest.
	if err := e.db.Flush(); err != nil {
		return fmt.Errorf("flush on a full disk: %w", err)
	}
	if _, err := putUntilFull(e, "hog"); err != nil {
		return fmt.Errorf("a disk filled by another: %w", err)
	}
	if err := checkRows(e, "own", own); err != nil {
		return fmt.Errorf("reads on a full disk: %w", err)
	}
	if err := e.Close(); err != nil {
		return fmt.Errorf("close on a full disk: %w", err)
	}
	opened, err = openAt(filepath.Join(dir, "store"))
	if err == nil {
		err = errors.Join(checkRows(opened.(*Engine), "own", own), opened.Close())
	} else if errors.Is(err, storage.ErrFull) {
		err = nil // a clear refusal
	}
	if err := errors.Join(err, hog.Close(), os.Remove(hog.Name())); err != nil {
		return fmt.Errorf("open on a full disk: %w", err)
	}
	return afterFull(dir, own)
}

// afterFull gives the file system room and expects the store to go on.
func afterFull(dir string, own int) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=160m"); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	opened, err := openAt(filepath.Join(dir, "store"))
	if err != nil {
		return fmt.Errorf("open with space again: %w", err)
	}
	e := opened.(*Engine)
	if err := checkRows(e, "own", own); err != nil {
		return err
	}
	more, err := putUntilFull(e, "more")
	if err != nil {
		return fmt.Errorf("full again: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=224m"); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	time.Sleep(2 * spaceAge)
	_, err = e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("after", nil) })
	if err != nil {
		return fmt.Errorf("write with space again: %w", err)
	}
	fmt.Printf("full disks: 3, acknowledged writes checked: %d\n", own+more)
	return errors.Join(checkRows(e, "own", own), checkRows(e, "more", more), e.Close())
}

// putUntilFull returns how many rows were acknowledged before ErrFull.
func putUntilFull(e *Engine, prefix string) (int, error) {
	value := bytes.Repeat([]byte("v"), 64<<10)
	for n := 0; n < 100_000; n++ {
		_, err := e.Update(context.Background(), func(tx storage.Txn) error {
			return tx.Put(fmt.Sprintf("%s/%08d", prefix, n), value)
		})
		if errors.Is(err, storage.ErrFull) && !errors.Is(err, storage.ErrFailed) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return 0, errors.New("the disk never filled")
}

func checkRows(e *Engine, prefix string, want int) error {
	n := 0
	err := e.View(context.Background(), func(r storage.Reader) error {
		return storage.All(r, prefix+"/", func(storage.Entry) error { n++; return nil })
	})
	if err == nil && n != want {
		err = fmt.Errorf("%d of %d rows of %s", n, want, prefix)
	}
	return err
}
