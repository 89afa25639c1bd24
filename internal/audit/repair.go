package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// repair is Log.Repair in the writer's goroutine.
func (w *writer) repair() error {
	if w.broken == nil {
		return nil
	}
	cause := w.broken
	last, err := w.lastIntact()
	if err != nil {
		return err
	}
	if err := w.putBack(); err != nil {
		return err
	}
	old, end := w.file, w.tree.size
	if err := w.start(w.segment+1, &w.tree); err != nil {
		return err
	}
	old.Close()
	w.broken, w.torn, w.suspect = nil, false, false
	w.settle()
	w.told = ""
	text := fmt.Sprintf("after %q writing goes on in %s; no entry was lost", cause, filepath.Base(w.path))
	if last < end {
		text = fmt.Sprintf("after %q writing goes on in %s; entries %d–%d are lost or changed",
			cause, filepath.Base(w.path), last+1, end)
	}
	w.l.options.Logger.Warn("audit log: " + text)
	w.event(EventRepaired, text)
	return w.flush()
}

// lastIntact reads the active segment through the open file, which lives on
// when its name is gone, and returns the last entry that is as it was written.
func (w *writer) lastIntact() (uint64, error) {
	lines := newLineReader(io.NewSectionReader(w.file, 0, w.off))
	seq := w.before.size
	if _, err := lines.next(); err != nil {
		return seq, nil // the header is gone, and so is everything after it
	}
	for seq < w.tree.size {
		line, err := lines.next()
		if err != nil {
			return seq, nil
		}
		want, err := w.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(seq))})
		if err != nil {
			return seq, err
		}
		if tlog.RecordHash(line) != want[0] {
			return seq, nil
		}
		seq++
	}
	return seq, nil
}

// putBack makes the active segment's name stand for what was written to it.
// What others put there is moved beside it.
func (w *writer) putBack() error {
	mine, err := w.file.Stat()
	if err != nil {
		return err
	}
	size := min(mine.Size(), w.off)
	foreign := fmt.Sprintf("%s.foreign-%d", w.path, time.Now().UnixNano())
	there, err := os.Lstat(w.path)
	if err == nil && os.SameFile(mine, there) {
		if mine.Size() > size {
			if err := copyOut(foreign, io.NewSectionReader(w.file, size, mine.Size()-size)); err != nil {
				return err
			}
		}
		return errors.Join(w.file.Truncate(size), w.file.Sync())
	}
	if err == nil {
		err = os.Rename(w.path, foreign)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	part := w.path + partSuffix
	if err := removeIfThere(part); err != nil {
		return err
	}
	if err := copyOut(part, io.NewSectionReader(w.file, 0, size)); err != nil {
		return err
	}
	return errors.Join(os.Rename(part, w.path), syncDir(w.l.dir))
}
