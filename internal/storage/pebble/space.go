package pebble

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cofferhq/coffer/internal/storage"
)

// Free space on the disk, in bytes.
const (
	// lowWater is what must stay free after a commit: Pebble's own work, which
	// follows a commit, must find room, since it cannot be refused any more.
	lowWater = 64 << 20
	// reserveSize is kept in a file that is given up when the disk is full in
	// spite of lowWater, so that what is under way can still be finished.
	reserveSize = 16 << 20
)

// reserveFile is not one of Pebble's names; Pebble leaves it alone.
const reserveFile = "RESERVE"

// How long, and for how many bytes of commits, an answer of the file system
// about its free space is used.
const (
	spaceAge   = 100 * time.Millisecond
	spaceBytes = 4 << 20
)

// space refuses commits while the disk is full.
type space struct {
	fs  vfs.FS // without the retry that asks space for room
	dir string

	mu       sync.Mutex
	asked    time.Time
	written  int // bytes admitted since asked
	refusal  error
	reserved vfs.File // the reserve, nil when it was given up
}

// admit returns an error that wraps ErrFull when a commit of n bytes must not
// be started.
func (s *space) admit(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += n
	if s.written > spaceBytes || time.Since(s.asked) > spaceAge {
		s.refusal = s.check()
		s.asked, s.written = time.Now(), n
	}
	return s.refusal
}

func (s *space) check() error {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err != nil {
		return fmt.Errorf("free space of %s: %w", s.dir, err)
	}
	need := uint64(lowWater)
	if s.reserved == nil {
		need += reserveSize
	}
	if usage.AvailBytes < need {
		return fmt.Errorf("%w: %s has %d MiB free and needs %d MiB; free space or grow the disk, no restart is needed",
			storage.ErrFull, s.dir, usage.AvailBytes>>20, need>>20)
	}
	if s.reserved == nil {
		s.reserve()
	}
	return nil
}

// reserve sets space aside. A file system that cannot has no reserve.
func (s *space) reserve() {
	f, err := s.fs.Create(filepath.Join(s.dir, reserveFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	_ = narrow(s.fs, filepath.Join(s.dir, reserveFile), 0o600) // it is empty
	_ = f.Preallocate(0, reserveSize)                          // see above
	s.reserved = f
}

// give releases the reserve and stops commits until there is space again.
func (s *space) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reserved != nil {
		_ = s.reserved.Close() // nothing was written to it
		s.reserved = nil
		_ = s.fs.Remove(filepath.Join(s.dir, reserveFile)) // nothing better can be done
	}
	s.refusal = s.check()
	if s.refusal == nil {
		s.refusal = fmt.Errorf("%w: %s", storage.ErrFull, s.dir)
	}
	s.asked, s.written = time.Now(), 0
}

func (s *space) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reserved == nil {
		return nil
	}
	f := s.reserved
	s.reserved = nil
	return f.Close()
}

// isFull says whether the space at hand ran out.
func (s *space) isFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal != nil
}

// full adds ErrFull to an error that says that the disk is full.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	return err
}

// guarded is the file system that Pebble writes to: files are the owner's
// alone, the log is watched, and a full disk is met with the reserve.
func guarded(fs vfs.FS, e *Engine) vfs.FS {
	return &files{FS: vfs.OnDiskFull(fs, e.space.give), e: e}
}

// files narrows the mode of what it creates and watches the log.
type files struct {
	vfs.FS
	e *Engine
}

func (fs *files) Unwrap() vfs.FS { return fs.FS }

func (fs *files) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	return fs.own(name, f, err)
}

func (fs *files) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(from, to, category)
	return fs.own(to, f, err)
}

func (fs *files) own(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	if err := narrow(fs.FS, name, 0o600); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if filepath.Ext(name) == ".log" {
		return &logFile{f, fs.e}, nil
	}
	return f, nil
}

// narrow takes a file or directory from everyone but its owner. A file system
// in memory has no modes.
func narrow(fs vfs.FS, name string, mode os.FileMode) error {
	if vfs.Root(fs) != vfs.Default {
		return nil
	}
	return os.Chmod(name, mode)
}

// logFile is a write-ahead log. Its errors fail the engine before Pebble knows
// of them: Pebble panics, holding its locks, when it is given a commit after an
// error of its log.
type logFile struct {
	vfs.File
	e *Engine
}

func (f *logFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.check(err)
}

func (f *logFile) Sync() error     { return f.check(f.e.syncs.time(f.File.Sync)) }
func (f *logFile) SyncData() error { return f.check(f.e.syncs.time(f.File.SyncData)) }

func (f *logFile) check(err error) error {
	if err != nil {
		f.e.fail("the write-ahead log cannot be written", err)
	}
	return err
}
