package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Options configure a Log. Only Origin must be set.
type Options struct {
	// Origin names this log in its checkpoints: no spaces, no plus signs,
	// such as "coffer.example.com/audit". It never changes.
	Origin string
	// SegmentSize is about how many bytes a segment file may have; 64 MiB.
	SegmentSize int64
	// Ahead is how many bytes of disk are reserved before they are written;
	// 4 MiB.
	Ahead int64
	// Reserve is how many bytes of disk are held back for the last entries;
	// 4 MiB. Negative holds nothing back.
	Reserve int64
	// CheckpointEvery is how long entries may be without a checkpoint while a
	// signer is set, and without a sync when they were appended relaxed; 1 s.
	CheckpointEvery time.Duration
	// Signer signs checkpoints. It may be absent while the server is sealed
	// and be given later to SetSigner.
	Signer note.Signer
	// OnCheckpoint, when set, is told every new checkpoint, one after the
	// other, so that the newest can be kept in storage. It must not call the
	// Log.
	OnCheckpoint func(Checkpoint)
	// Logger is told what goes wrong; discarded when nil.
	Logger *slog.Logger

	// wrap lets tests stand between the log and its disk.
	wrap func(segmentFile, string) segmentFile
}

func (o *Options) fill() error {
	if o.Origin == "" || strings.ContainsAny(o.Origin, " +\n\t") {
		return fmt.Errorf("audit log: the origin %q must be a name without spaces or plus signs", o.Origin)
	}
	for value, standard := range map[*int64]int64{&o.SegmentSize: 64 << 20, &o.Ahead: 4 << 20, &o.Reserve: 4 << 20} {
		if *value == 0 {
			*value = standard
		}
	}
	o.Reserve = max(o.Reserve, 0)
	if o.CheckpointEvery == 0 {
		o.CheckpointEvery = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.wrap == nil {
		o.wrap = func(f segmentFile, _ string) segmentFile { return f }
	}
	return nil
}

// Log is an open audit log. Its methods may be called from any goroutine.
type Log struct {
	dir     string
	options Options
	lock    *os.File
	stats   counters

	mu      sync.Mutex
	pending *batch // what the writer takes next; nil when nothing waits
	closed  bool

	wake     chan struct{} // pending has entries
	control  chan func()   // run by the writer between two batches
	dirty    chan struct{} // there are entries without a checkpoint
	rotated  chan struct{} // a segment ended
	stop     chan struct{} // ends the checkpointer
	stopped  chan struct{} // the checkpointer ended
	finish   chan struct{} // ends the writer
	finished chan struct{} // the writer ended

	w           *writer
	checkpoints *checkpointFile
	devices     devices
}

// Open opens the log in dir, which is made when it does not exist, and cuts
// off what a crash left of entries that were never acknowledged. It fails
// with ErrDamaged when acknowledged entries are missing or changed, with
// ErrBehind when the log does not reach its own checkpoints, and with
// ErrForeign when the directory is another log's or in use.
func Open(dir string, options Options) (*Log, error) {
	if err := options.fill(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	l := &Log{
		dir: dir, options: options, lock: lock,
		wake: make(chan struct{}, 1), control: make(chan func()), dirty: make(chan struct{}, 1), rotated: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{}),
		finish: make(chan struct{}), finished: make(chan struct{}),
	}
	if err := l.recover(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("audit log: %w", err)
	}
	go l.write()
	go l.keepCheckpoints()
	if l.w.tree.size > l.checkpoints.last.Size {
		l.markDirty()
	}
	return l, nil
}

// write is the writer's goroutine: the only one that touches the segments and
// the stored hashes.
func (l *Log) write() {
	defer close(l.finished)
	for {
		select {
		case <-l.wake:
			l.w.commit(l.takePending())
		case f := <-l.control:
			f()
		case <-l.finish:
			l.w.commit(l.takePending())
			return
		}
	}
}

func (l *Log) takePending() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.pending
	l.pending = nil
	return b
}

// do runs f in the writer's goroutine.
func (l *Log) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case l.control <- func() { result <- f() }:
		return <-result
	case <-l.finished:
		return ErrClosed
	}
}

// Dir returns the directory of the log's files.
func (l *Log) Dir() string { return l.dir }

// Rotate ends the active segment and starts the next.
func (l *Log) Rotate() error {
	err := l.do(func() error {
		if err := l.w.ready(); err != nil {
			return err
		}
		return l.w.rotate()
	})
	if err != nil {
		return l.unavailable(err)
	}
	return nil
}

// Repair brings a log back that refuses entries because others touched its
// active file. What was deleted, moved or replaced is put back from the open
// file, with anything found in its place kept beside it as *.foreign-*; what
// was cut off is lost, and an event entry says which entries those are.
// Writing then goes on in a new segment. Without damage Repair does nothing.
func (l *Log) Repair() error {
	if err := l.do(l.w.repair); err != nil {
		return l.unavailable(err)
	}
	return nil
}

// CheckAgainst reports whether the log still contains what a checkpoint that
// was kept elsewhere says it contained. It fails with ErrBehind and says what
// is missing.
func (l *Log) CheckAgainst(c Checkpoint) error {
	return l.do(func() error { return l.w.checkAgainst(c) })
}

// Close refuses further entries, writes and signs what was appended, and
// releases the files.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()

	close(l.stop)
	<-l.stopped
	_, err := l.Checkpoint(context.Background())
	if errors.Is(err, ErrNoSigner) {
		err = nil
	}
	close(l.finish)
	<-l.finished
	return errors.Join(err, l.devices.close(), l.w.close(), l.checkpoints.close(), l.lock.Close())
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }
