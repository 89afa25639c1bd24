package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// segmentFile is what the writer needs of the active segment's file.
type segmentFile interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Stat() (os.FileInfo, error)
	Close() error
	// Sync makes everything written durable.
	Sync() error
	// Reserve takes disk space for the bytes from off to off+n without
	// changing the file's size. It returns errNoReserve where the file
	// system cannot.
	Reserve(off, n int64) error
	// Check says what others did to the file: deleted, moved, replaced, or
	// changed in size.
	Check(path string, size int64) error
}

var errNoReserve = errors.New("the file system cannot reserve space")

// diskFile is a segmentFile on a real disk.
type diskFile struct{ *os.File }

func (f diskFile) Sync() error { return syncData(f.File) }

func (f diskFile) Reserve(off, n int64) error {
	return reserve(f.File, unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (f diskFile) Check(path string, size int64) error {
	var mine, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &mine); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	name := filepath.Base(path)
	switch err := unix.Stat(path, &there); {
	case mine.Nlink == 0 && err != nil:
		return fmt.Errorf("%s was deleted", name)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s was renamed or moved", name)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case mine.Ino != there.Ino || mine.Dev != there.Dev:
		return fmt.Errorf("%s was replaced by another file", name)
	case mine.Size < size:
		return fmt.Errorf("%s was cut from %d to %d bytes", name, size, mine.Size)
	case mine.Size > size:
		return fmt.Errorf("%s was written to by others: it has %d bytes instead of %d", name, mine.Size, size)
	}
	return nil
}

// syncData makes a file's content and size durable.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func reserve(f *os.File, mode uint32, off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), mode, off, n)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return errNoReserve
		}
		return err
	}
}

// errFull is the disk-full error of a log that already lives on its reserve.
var errFull = fmt.Errorf("only the reserve is left: %w", unix.ENOSPC)

// errUnsynced is given to callers while an earlier sync has not been made up for.
var errUnsynced = errors.New("an earlier sync failed")

// noSpace reports whether err says that the disk, a quota or a file size
// limit is exhausted.
func noSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// reserveFile holds disk space that is given up when there is no other, so
// that the last entries still fit.
type reserveFile struct {
	path string
	size int64
	held bool
}

// take reserves the space. Where the file system cannot reserve, the space is
// taken by writing.
func (r *reserveFile) take() error {
	if r.held || r.size == 0 {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	err = reserve(f, 0, 0, r.size)
	if errors.Is(err, errNoReserve) {
		_, err = f.WriteAt(make([]byte, r.size), 0)
	}
	if err != nil {
		return errors.Join(err, f.Truncate(0))
	}
	r.held = true
	return nil
}

// free gives the space back to the file system.
func (r *reserveFile) free() error {
	r.held = false
	if err := os.Truncate(r.path, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lockDir makes this process the only writer in dir. The lock ends with the
// returned file or the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s is in use by another process", ErrForeign, dir)
	}
	return f, nil
}
