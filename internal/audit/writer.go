package audit

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// maxUnsynced bounds the lines that are kept to be written again when a
	// sync fails.
	maxUnsynced = 4 << 20
	// lastSpace is the part of the reserve that denials leave to events.
	lastSpace = 64 << 10
	// maxEvents bounds the log's own entries that wait for a log that can be
	// written.
	maxEvents = 16
)

// writer owns the active segment and the tree. Only the writer's goroutine
// uses it, and Open before that starts.
type writer struct {
	l       *Log
	hashes  *hashStore
	reserve reserveFile

	segment  int
	file     segmentFile
	path     string
	off      int64    // where the next line goes
	reserved int64    // up to where disk space is held for the file
	noAhead  bool     // the file system cannot reserve
	header   int64    // length of the segment's header
	before   frontier // the tree when the segment began

	tree     frontier // all written entries
	unsynced []byte   // lines after synced
	synced   mark
	pending  []tlog.Hash // hashes after those in the store

	torn      bool  // bytes after off must be cut before the next write
	suspect   bool  // a sync failed: what follows synced is not known to be on disk
	broken    error // others touched the file; only Repair goes on
	emergency bool  // the reserve was given up

	events []Entry // of the log itself, written with the next batch
	told   string  // the problem that the operator heard last
	toldAt time.Time

	buf     []byte
	scratch []byte
	saved   frontier
}

// mark is a state that is on disk.
type mark struct {
	off  int64
	tree frontier
}

// commit writes a batch, syncs it when somebody waits for that, and tells
// everybody.
func (w *writer) commit(b *batch) {
	if b == nil {
		return
	}
	w.l.stats.batch(len(b.records))
	w.writeBatch(b)
	if b.written != nil {
		close(b.written)
	}
	if b.wantDisk || len(w.unsynced) > maxUnsynced {
		b.syncErr = w.sync()
	}
	close(b.durable)
	w.l.markDirty()
}

// writeBatch writes the batch's entries, or those that may still use the
// reserve when the disk is full, and leaves in each record what became of it.
func (w *writer) writeBatch(b *batch) {
	err := w.ready()
	if err != nil {
		w.refuse(b, lifetime+1, err)
		return
	}
	from := plain
	if w.emergency {
		from, err = owed, errFull
	}
	for ; from <= lifetime; from++ {
		if from > plain {
			w.giveUpReserve(err)
		}
		w.refuse(b, from, err)
		if err = w.put(b, from); err == nil {
			return
		}
		if !noSpace(err) {
			break
		}
	}
	w.problem("writing failed", err)
	w.refuse(b, lifetime+1, err)
}

// refuse records err for the entries below a class.
func (w *writer) refuse(b *batch, below class, err error) {
	for i := range b.records {
		if b.records[i].class < below {
			b.records[i].err = err
		}
	}
}

// ready makes sure that the next write may go to the end of the active file.
func (w *writer) ready() error {
	if w.broken != nil {
		return w.broken
	}
	if w.suspect {
		if err := w.rewrite(); err != nil {
			return err
		}
	}
	if w.torn {
		if err := w.file.Truncate(w.off); err != nil {
			return err
		}
		w.torn = false
	}
	if err := w.file.Check(w.path, w.off); err != nil {
		w.broken = err
		w.problem("the active file was touched by others; see Repair", err)
		return err
	}
	if w.emergency {
		w.takeReserveBack()
	}
	if w.off >= w.l.options.SegmentSize && w.off > w.header {
		if err := w.rotate(); err != nil {
			w.l.options.Logger.Warn("audit log: the next segment cannot be started, going on in this one",
				"segment", w.path, "error", err)
		}
	}
	return nil
}

// put writes the log's own waiting events and the batch's entries of a class
// or above. On an error nothing of them is in the log.
func (w *writer) put(b *batch, from class) error {
	w.saved.set(&w.tree)
	stored := len(w.pending)
	w.buf = w.buf[:0]
	for i := range w.events {
		w.scratch = appendBody(w.scratch[:0], &w.events[i])
		w.addLine(w.scratch)
	}
	begin := 0
	for i := range b.records {
		r := &b.records[i]
		if r.class >= from {
			r.seq, r.err = w.addLine(b.bodies[begin:r.end]), nil
		}
		begin = r.end
	}
	if len(w.buf) == 0 {
		return nil
	}
	spare := int64(0)
	if from == owed {
		spare = lastSpace
	}
	err := w.hold(int64(len(w.buf)), spare)
	if err == nil {
		_, err = w.file.WriteAt(w.buf, w.off)
		w.torn = err != nil
	}
	if err != nil {
		w.tree.set(&w.saved)
		w.pending = w.pending[:stored]
		return err
	}
	w.off += int64(len(w.buf))
	w.unsynced = append(w.unsynced, w.buf...)
	w.events = w.events[:0]
	return nil
}

// addLine adds an entry to what is about to be written and to the tree, and
// returns its number.
func (w *writer) addLine(body []byte) uint64 {
	seq := w.tree.size + 1
	start := len(w.buf)
	w.buf = append(w.buf, linePrefix...)
	w.buf = strconv.AppendUint(w.buf, seq, 10)
	w.buf = append(w.buf, body...)
	w.pending = w.tree.add(tlog.RecordHash(w.buf[start:]), w.pending)
	w.buf = append(w.buf, '\n')
	return seq
}

// hold makes sure that n bytes after off, and spare more, have disk space.
func (w *writer) hold(n, spare int64) error {
	if w.noAhead || w.off+n+spare <= w.reserved {
		return nil
	}
	err := errFull
	if !w.emergency {
		err = w.file.Reserve(w.off, n+w.l.options.Ahead)
	}
	if err == nil {
		w.reserved = w.off + n + w.l.options.Ahead
		return nil
	}
	if noSpace(err) {
		if err = w.file.Reserve(w.off, n+spare); err == nil {
			w.reserved = max(w.reserved, w.off+n+spare)
		}
	}
	if errors.Is(err, errNoReserve) {
		w.noAhead = true
		return nil
	}
	return err
}

// sync makes everything written durable and stores its hashes.
func (w *writer) sync() error {
	if w.suspect {
		return errUnsynced
	}
	if len(w.unsynced) == 0 {
		return nil
	}
	start := time.Now()
	if err := w.file.Sync(); err != nil {
		// After a failed sync the kernel may have dropped the pages; what
		// they held is written again, elsewhere.
		w.suspect = true
		w.problem("syncing failed", err)
		return err
	}
	w.l.stats.synced(time.Since(start))
	w.settle()
	return nil
}

// settle notes that everything written is on disk.
func (w *writer) settle() {
	w.synced.off = w.off
	w.synced.tree.set(&w.tree)
	w.unsynced = w.unsynced[:0]
	w.storeHashes()
	w.l.stats.progress(w.tree.size, w.segment)
}

// storeHashes writes the hashes of synced entries. They can be made again
// from the entries, so a failure only waits for the next time.
func (w *writer) storeHashes() {
	var err error
	if w.scratch, err = w.hashes.append(w.pending, w.scratch); err != nil {
		w.l.options.Logger.Warn("audit log: the hashes cannot be stored, they stay in memory", "error", err)
		return
	}
	w.pending = w.pending[:0]
}

// rotate ends the active segment and starts the next. When it fails the
// active segment goes on.
func (w *writer) rotate() error {
	if err := w.sync(); err != nil {
		return err
	}
	old, off := w.file, w.off
	if err := w.start(w.segment+1, &w.tree); err != nil {
		return err
	}
	// Gives back the space held ahead; costs space, not safety, when it fails.
	if err := errors.Join(old.Truncate(off), old.Close()); err != nil {
		w.l.options.Logger.Warn("audit log: closing a segment", "error", err)
	}
	w.synced.off = w.off
	w.l.stats.progress(w.tree.size, w.segment)
	w.l.markRotated()
	return nil
}

// start makes segment n, which begins after the tree before, the active one.
// The file gets its name when its header, and the hashes of all earlier
// entries, are on disk: Open makes only those of the newest segment again.
func (w *writer) start(n int, before *frontier) error {
	path := w.l.path(segmentName(n))
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is in the way", path)
	}
	if err := syncData(w.hashes.file); err != nil {
		return err
	}
	raw, err := os.OpenFile(path+partSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	file := w.l.options.wrap(diskFile{raw}, path)
	header := appendHeader(nil, w.l.options.Origin, n, before.size, before.root())
	_, err = file.WriteAt(header, 0)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(path+partSuffix, path)
	}
	if err == nil {
		err = syncDir(w.l.dir)
	}
	if err != nil {
		file.Close()
		return errors.Join(err, removeIfThere(path+partSuffix))
	}
	w.segment, w.file, w.path = n, file, path
	w.header, w.off, w.reserved = int64(len(header)), int64(len(header)), int64(len(header))
	w.before = before.clone()
	return nil
}

// rewrite recovers from a failed sync: what is not known to be on disk is cut
// off and written again, so that no page is left that the kernel believes to
// be clean.
func (w *writer) rewrite() error {
	if err := w.file.Truncate(w.synced.off); err != nil {
		return err
	}
	if _, err := w.file.WriteAt(w.unsynced, w.synced.off); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	w.suspect = false
	w.settle()
	w.event(EventRepaired, "syncing works again")
	return nil
}

// problem tells the operator and, once it can be written, the log. A problem
// that stays is told every ten seconds.
func (w *writer) problem(what string, err error) {
	text, now := what+": "+err.Error(), time.Now()
	if text == w.told && now.Sub(w.toldAt) < 10*time.Second {
		return
	}
	w.told, w.toldAt = text, now
	w.l.options.Logger.Error("audit log: "+what, "segment", w.path, "error", err)
	w.event(EventProblem, text)
}

// event queues an entry of the log itself. A repetition of the last is not
// queued.
func (w *writer) event(name, text string) {
	if n := len(w.events); n > 0 && w.events[n-1].Error == text || n >= maxEvents {
		return
	}
	w.events = append(w.events, Entry{Time: time.Now().UTC(), Type: Event, Event: name, Error: text})
}

// close gives the files back.
func (w *writer) close() error {
	err := w.sync()
	if w.broken == nil && !w.suspect {
		err = errors.Join(err, w.file.Truncate(w.off))
	}
	return errors.Join(err, w.file.Close(), syncData(w.hashes.file), w.hashes.file.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// flush makes up for a failed sync, writes the log's own waiting events and
// syncs.
func (w *writer) flush() error {
	if w.suspect {
		if err := w.ready(); err != nil {
			return err
		}
	}
	if len(w.events) > 0 {
		w.writeBatch(&batch{})
	}
	return w.sync()
}
