package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	lsm "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/history"
)

// The format file names what a directory holds. It is written before anything
// else, so that a directory without it is not ours.
const (
	formatFile    = "FORMAT"
	formatName    = "coffer-storage-pebble"
	formatVersion = 1
)

// Open opens the store in o.Path, and makes it when the directory is absent or
// empty. It refuses a directory that another process has open, that holds
// something else, or that is damaged; the error says what to do.
func Open(ctx context.Context, o Options) (_ *Engine, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if err := prepareDir(o.fs, o.Path); err != nil {
		return nil, err
	}
	lock, err := lsm.LockDirectory(o.Path, o.fs)
	if err != nil {
		return nil, fmt.Errorf("storage directory %s is in use by another process, or cannot be locked: %w", o.Path, err)
	}
	e := &Engine{
		dir: o.Path, log: o.Logger, lock: lock,
		space: &space{fs: o.fs, dir: o.Path}, syncs: newSyncMeter(),
		writer: make(chan struct{}, 1), flights: flights{newest: map[string]*flight{}},
		queue: make(chan *flight, 4096), landed: make(chan struct{}), stop: make(chan struct{}),
	}
	e.history = history.New(0, historyCommits, historyBytes)
	defer func() {
		if err != nil {
			err = errors.Join(full(err), e.space.close(), lock.Close())
		}
	}()
	if err := narrow(o.fs, filepath.Join(o.Path, "LOCK"), 0o600); err != nil {
		return nil, err
	}
	if err := checkFormat(o.fs, o.Path); err != nil {
		return nil, err
	}
	// The last process's reserve is room to open in; there is a new one afterwards.
	if err := o.fs.Remove(filepath.Join(o.Path, reserveFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("storage reserve: %w", err)
	}
	if e.db, err = openDB(o, e, lock); err != nil {
		return nil, err
	}
	if e.applied, err = e.loadRevision(); err != nil {
		return nil, errors.Join(err, closeDB(e.db))
	}
	e.history = history.New(e.applied, historyCommits, historyBytes)
	e.space.mu.Lock()
	e.space.refusal = e.space.check()
	e.space.mu.Unlock()
	go e.land()
	return e, nil
}

// openDB opens Pebble; a Pebble that finds the directory damaged may panic.
func openDB(o Options, e *Engine, lock *lsm.Lock) (db *lsm.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil {
			err = fmt.Errorf("storage in %s cannot be opened; if it is damaged, move it away and restore a backup: %w", o.Path, err)
		}
	}()
	return lsm.Open(o.Path, tuning(o, e, lock))
}

// loadRevision reads the revision of the newest commit, and writes the row
// into a new store.
func (e *Engine) loadRevision() (storage.Revision, error) {
	rev, err := readRevision(e.db)
	if !errors.Is(err, lsm.ErrNotFound) {
		return rev, err
	}
	it, err := e.db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	some := it.First()
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return 0, err
	}
	if some {
		return 0, fmt.Errorf("storage in %s has rows and no revision: it is damaged; move it away and restore a backup", e.dir)
	}
	return 0, e.db.Set(revisionKey, binary.BigEndian.AppendUint64(nil, 0), lsm.Sync)
}

// prepareDir makes dir, mode 0700, or takes it from everyone but its owner.
func prepareDir(fs vfs.FS, dir string) error {
	info, err := fs.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := fs.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("storage directory: %w", full(err))
		}
		return syncParents(fs, dir)
	case err != nil:
		return fmt.Errorf("storage directory: %w", err)
	case !info.IsDir():
		return fmt.Errorf("storage path %s is a file and must be a directory; name another path, or move the file away", dir)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := narrow(fs, dir, 0o700); err != nil {
		return fmt.Errorf("storage directory %s can be read by others and its mode cannot be changed to 0700: %w", dir, err)
	}
	return nil
}

// syncParents makes sure that dir, and each directory that was made for it, is
// found after a power cut.
func syncParents(fs vfs.FS, dir string) error {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		if err := syncDir(fs, parent); err != nil {
			return err
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("sync of directory %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkFormat refuses a directory that is not a store of a known format. It
// marks an empty one.
func checkFormat(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("storage directory: %w", err)
	}
	text, err := readFile(fs, filepath.Join(dir, formatFile))
	if errors.Is(err, os.ErrNotExist) {
		for _, name := range names {
			switch name {
			case "LOCK", formatFile + ".new", "lost+found":
			default:
				return fmt.Errorf("directory %s holds %s and is not a Coffer store; name an empty directory", dir, name)
			}
		}
		return writeFormat(fs, dir)
	}
	if err != nil {
		return fmt.Errorf("storage format: %w", err)
	}
	name, version, _ := strings.Cut(strings.TrimSpace(text), " ")
	n, err := strconv.Atoi(version)
	switch {
	case name != formatName || err != nil:
		return fmt.Errorf("%s in %s says %q and not %q: the directory is damaged or not a Coffer store; name another directory or restore a backup",
			formatFile, dir, text, formatName)
	case n > formatVersion:
		return fmt.Errorf("storage in %s has format %d and this Coffer knows up to %d: run the newer Coffer that wrote it", dir, n, formatVersion)
	}
	return checkComplete(dir, names)
}

// checkComplete refuses a directory that has lost the file that names its
// tables: Pebble would take it for a new store and delete them.
func checkComplete(dir string, names []string) error {
	tables := ""
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "marker.manifest."):
			return nil
		case filepath.Ext(name) == ".sst" || filepath.Ext(name) == ".log":
			tables = name
		}
	}
	if tables == "" {
		return nil
	}
	return fmt.Errorf("storage in %s is damaged: it has %s and no marker.manifest file; move it away and restore a backup", dir, tables)
}

func writeFormat(fs vfs.FS, dir string) error {
	path := filepath.Join(dir, formatFile)
	f, err := fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("storage format: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s %d\n", formatName, formatVersion)
	if err := errors.Join(err, f.Sync(), f.Close(), narrow(fs, path+".new", 0o600)); err != nil {
		return fmt.Errorf("storage format: %w", err)
	}
	if err := fs.Rename(path+".new", path); err != nil {
		return fmt.Errorf("storage format: %w", err)
	}
	return syncDir(fs, dir)
}

func readFile(fs vfs.FS, path string) (string, error) {
	f, err := fs.Open(path)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return string(text), errors.Join(err, f.Close())
}

// pebbleLog passes Pebble's messages on.
type pebbleLog struct {
	log *slog.Logger
	e   *Engine
}

func (l pebbleLog) Infof(format string, args ...any) {
	l.log.Debug(fmt.Sprintf(format, args...), "dir", l.e.dir)
}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...), "dir", l.e.dir)
}

// Fatalf is Pebble's last word, such as a manifest that cannot be written. It
// must not return. A caller of the engine gets an error; in Pebble's own
// goroutines the process ends, as nothing of the store can be trusted until it
// is read again from the disk.
func (l pebbleLog) Fatalf(format string, args ...any) {
	panic(l.e.fail("Pebble gave up", fmt.Errorf(format, args...)))
}
