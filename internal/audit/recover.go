package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// recover brings the files to the state in which the writer can go on.
func (l *Log) recover() (err error) {
	if err := l.removeParts(); err != nil {
		return err
	}
	w := &writer{l: l, reserve: reserveFile{path: l.path(reserveName), size: l.options.Reserve}}
	l.w = w
	defer func() {
		if err != nil {
			w.abandon()
		}
	}()
	if l.checkpoints, err = openCheckpoints(l.path(checkpointsName), l.options.Signer); err != nil {
		return err
	}
	if w.hashes, err = openHashStore(l.path(hashesName)); err != nil {
		return err
	}
	numbers, err := segments(l.dir)
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		if n := max(w.hashes.leaves(), l.checkpoints.last.Size); n > 0 {
			return fmt.Errorf("%w: %s has no segments, although %d entries were recorded; put them back, "+
				"or move the whole directory away to begin a new log", ErrDamaged, l.dir, n)
		}
		err = w.start(1, &frontier{})
	} else {
		err = w.resume(len(numbers))
	}
	if err != nil {
		return err
	}
	if c := l.checkpoints.last; c.Size > 0 {
		if err := w.checkAgainst(c); err != nil {
			return fmt.Errorf("%w (the newest checkpoint in %s)", err, l.path(checkpointsName))
		}
	}
	w.synced = mark{w.off, w.tree.clone()}
	l.stats.progress(w.tree.size, w.segment)
	l.stats.checkpointSize.Store(l.checkpoints.last.Size)
	if err := w.reserve.take(); err != nil {
		l.options.Logger.Warn("audit log: no space can be held in reserve", "error", err)
	}
	return nil
}

// removeParts removes segments that never got their name.
func (l *Log) removeParts() error {
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), segmentSuffix+partSuffix) {
			if err := os.Remove(l.path(f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// abandon closes what was opened when recovery fails.
func (w *writer) abandon() {
	if w.file != nil {
		w.file.Close()
	}
	if w.hashes != nil {
		w.hashes.file.Close()
	}
	if w.l.checkpoints != nil {
		w.l.checkpoints.close()
	}
}

// resume makes segment n, the newest, the active one.
func (w *writer) resume(n int) error {
	path := w.l.path(segmentName(n))
	raw, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	w.segment, w.path, w.file = n, path, w.l.options.wrap(diskFile{raw}, path)
	if err := raw.Chmod(0o600); err != nil {
		return err
	}
	lines := newLineReader(raw)
	header, err := readHeader(lines, w.l.options.Origin, n)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	w.header = lines.off
	if err := w.loadBefore(header); err != nil {
		return err
	}
	return w.replay(lines, raw)
}

// segmentHeader says where in the log a segment begins.
type segmentHeader struct {
	before uint64
	root   tlog.Hash
}

// readHeader reads the first line of segment n and checks that it is the
// header that the log wrote.
func readHeader(lines *lineReader, origin string, n int) (segmentHeader, error) {
	line, err := lines.next()
	if err != nil {
		return segmentHeader{}, fmt.Errorf("%w: line 1: %w", ErrDamaged, err)
	}
	from, number, before, root, err := headerParts(line)
	if err != nil {
		return segmentHeader{}, fmt.Errorf("%w: line 1: %w", ErrDamaged, err)
	}
	if origin != "" && from != origin {
		return segmentHeader{}, fmt.Errorf("%w: its origin is %q, not %q", ErrForeign, from, origin)
	}
	want := appendHeader(nil, from, n, before, root)
	if number != n || !bytes.Equal(line, want[:len(want)-1]) {
		return segmentHeader{}, fmt.Errorf("%w: line 1 is not the header of segment %d", ErrDamaged, n)
	}
	return segmentHeader{before, root}, nil
}

// loadBefore loads the tree before the active segment from the stored hashes
// when these agree with its header, and from all earlier entries otherwise.
func (w *writer) loadBefore(h segmentHeader) error {
	if tlog.StoredHashCount(int64(h.before)) <= w.hashes.count {
		tree, err := frontierAt(h.before, w.hashes)
		if err != nil {
			return err
		}
		if tree.root() == h.root {
			w.before, w.tree = tree, tree.clone()
			return nil
		}
	}
	w.l.options.Logger.Warn("audit log: making the stored hashes again from the entries", "dir", w.l.dir)
	if err := w.rebuild(); err != nil {
		return err
	}
	if w.tree.size != h.before || w.tree.root() != h.root {
		return fmt.Errorf("%w: the entries before %s are not those that it was written after; run the verifier",
			ErrDamaged, w.path)
	}
	w.before = w.tree.clone()
	return nil
}

// rebuild makes the stored hashes of all segments before the active one.
func (w *writer) rebuild() error {
	if err := w.hashes.cut(0); err != nil {
		return err
	}
	w.tree = frontier{}
	for n := 1; n < w.segment; n++ {
		if err := w.rebuildSegment(n); err != nil {
			return err
		}
	}
	return syncData(w.hashes.file)
}

func (w *writer) rebuildSegment(n int) error {
	path := w.l.path(segmentName(n))
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := newLineReader(f)
	h, err := readHeader(lines, w.l.options.Origin, n)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if h.before != w.tree.size || h.root != w.tree.root() {
		return fmt.Errorf("%w: %s does not follow the segment before it; run the verifier", ErrDamaged, path)
	}
	var hashes []tlog.Hash
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			w.scratch, err = w.hashes.append(hashes, w.scratch)
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: %s:%d: %w", ErrDamaged, path, lines.line, err)
		}
		hashes = w.tree.add(tlog.RecordHash(line), hashes)
		if len(hashes) > 1<<14 {
			if w.scratch, err = w.hashes.append(hashes, w.scratch); err != nil {
				return err
			}
			hashes = hashes[:0]
		}
	}
}

// replay adds the entries of the active segment to the tree and cuts off what
// follows the last whole one. It refuses when anything that is missing or
// changed had been acknowledged: its hash is stored, or a checkpoint covers it.
func (w *writer) replay(lines *lineReader, raw *os.File) error {
	stored, err := w.storedFrom(tlog.StoredHashCount(int64(w.tree.size)))
	if err != nil {
		return err
	}
	known := w.hashes.leaves()
	acknowledged := max(known, w.l.checkpoints.last.Size)
	var hashes []tlog.Hash
	good, bad := lines.off, error(nil)
	for bad == nil {
		var line []byte
		if line, bad = lines.next(); bad != nil {
			break
		}
		seq := w.tree.size + 1
		if got, ok := lineSeq(line); !ok || got != seq || seq > acknowledged && !json.Valid(line) {
			bad = fmt.Errorf("the line is not entry %d", seq)
			break
		}
		leaf := tlog.RecordHash(line)
		// A hash that is zero was lost in a power cut, not written.
		if at := len(hashes); at < len(stored) && stored[at] != leaf && stored[at] != (tlog.Hash{}) {
			return fmt.Errorf("%w: entry %d, %s:%d, is not what was written; run the verifier. If it was %s that "+
				"was damaged, remove that file", ErrDamaged, seq, w.path, lines.line, w.l.path(hashesName))
		}
		hashes = w.tree.add(leaf, hashes)
		good = lines.off
	}
	if !errors.Is(bad, io.EOF) && w.tree.size < acknowledged {
		return fmt.Errorf("%w: entry %d, %s:%d, was acknowledged and is damaged: %w",
			ErrDamaged, w.tree.size+1, w.path, lines.line, bad)
	}
	if w.tree.size < acknowledged {
		return fmt.Errorf("%w: entries %d–%d are missing: %s ends before them. Put the file back; if a power "+
			"cut on a disk that lies about syncing lost them, remove %s and %s to accept that",
			ErrBehind, w.tree.size+1, acknowledged, w.path, w.l.path(hashesName), w.l.path(checkpointsName))
	}
	w.off, w.reserved = good, good
	if known > 0 && w.tree.size > acknowledged {
		// Either written just before a crash or added by others; only the
		// owner can tell.
		w.event(EventRecovered, fmt.Sprintf("found entries %d–%d, which were never acknowledged, and took them up",
			acknowledged+1, w.tree.size))
	}
	if err := w.cutTail(raw, lines.line, bad); err != nil {
		return err
	}
	return w.keepHashes(hashes, stored)
}

// storedFrom returns the stored hashes from index on.
func (w *writer) storedFrom(index int64) ([]tlog.Hash, error) {
	if w.hashes.count <= index {
		return nil, nil
	}
	hashes := make([]tlog.Hash, w.hashes.count-index)
	buf := make([]byte, len(hashes)*tlog.HashSize)
	if _, err := w.hashes.file.ReadAt(buf, index*tlog.HashSize); err != nil {
		return nil, err
	}
	for i := range hashes {
		copy(hashes[i][:], buf[i*tlog.HashSize:])
	}
	return hashes, nil
}

// keepHashes stores the hashes of the active segment's entries, unless they
// stand already.
func (w *writer) keepHashes(hashes, stored []tlog.Hash) error {
	same := len(stored) <= len(hashes)
	for i := 0; same && i < len(stored); i++ {
		same = stored[i] == hashes[i]
	}
	if !same {
		stored = nil
	}
	begin := tlog.StoredHashCount(int64(w.before.size)) + int64(len(stored))
	if err := w.hashes.cut(begin); err != nil {
		return err
	}
	var err error
	w.scratch, err = w.hashes.append(hashes[len(stored):], w.scratch)
	return err
}

// cutTail cuts the active segment after its last whole entry. What is cut is
// kept beside it, because it was written by somebody.
func (w *writer) cutTail(raw *os.File, line int, bad error) error {
	info, err := raw.Stat()
	if err != nil {
		return err
	}
	n := info.Size() - w.off
	if n == 0 {
		return nil
	}
	kept := fmt.Sprintf("%s.cut-%d", w.path, time.Now().UnixNano())
	if err := copyOut(kept, io.NewSectionReader(raw, w.off, n)); err != nil {
		return err
	}
	if err := errors.Join(raw.Truncate(w.off), raw.Sync()); err != nil {
		return err
	}
	text := fmt.Sprintf("cut %d bytes after entry %d from %s, line %d (%v); they are kept in %s",
		n, w.tree.size, filepath.Base(w.path), line, bad, filepath.Base(kept))
	w.l.options.Logger.Warn("audit log: " + text)
	w.event(EventRecovered, text)
	return nil
}

// copyOut writes a new file and makes it durable.
func copyOut(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, from); err != nil {
		return err
	}
	return errors.Join(f.Sync(), syncDir(filepath.Dir(path)))
}

// ReadHashes returns hashes of the tree of all written entries.
func (w *writer) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if at := index - w.hashes.count; at >= 0 && at < int64(len(w.pending)) {
			hashes[i] = w.pending[at]
			continue
		}
		one, err := w.hashes.ReadHashes([]int64{index})
		if err != nil {
			return nil, err
		}
		hashes[i] = one[0]
	}
	return hashes, nil
}

// checkAgainst compares the tree with a checkpoint.
func (w *writer) checkAgainst(c Checkpoint) error {
	if c.Origin != w.l.options.Origin {
		return fmt.Errorf("%w: the checkpoint is of %q", ErrForeign, c.Origin)
	}
	if c.Size > w.tree.size {
		return fmt.Errorf("%w: entries %d–%d are missing, %s ends at entry %d",
			ErrBehind, w.tree.size+1, c.Size, w.path, w.tree.size)
	}
	root, err := tlog.TreeHash(int64(c.Size), w)
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("%w: the first %d entries are not those that were signed; run the verifier. "+
			"If it was %s that was damaged, remove that file", ErrDamaged, c.Size, w.l.path(hashesName))
	}
	return nil
}
