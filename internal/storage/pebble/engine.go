// Package pebble is the embedded storage engine, the default: one directory on
// a local disk, kept by CockroachDB's Pebble. It is for one process; two nodes
// need an engine that lives elsewhere.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	lsm "github.com/cockroachdb/pebble/v2"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/history"
)

// What a watch may fall behind by.
const (
	historyCommits = 16384
	historyBytes   = 16 << 20
)

// Engine is a storage.Engine in a directory.
//
// One Update at a time runs its function and applies its batch; it then lets
// the next one in and waits for its sync, so commits share syncs.
type Engine struct {
	dir     string
	log     *slog.Logger
	db      *lsm.DB
	lock    io.Closer // keeps other processes out of the directory
	space   *space
	syncs   *syncMeter
	history *history.Log

	writer  chan struct{}    // holds one token, taken by the Update that runs
	applied storage.Revision // newest commit applied; owned by the token's holder
	flights flights
	queue   chan *flight  // applied commits, in order
	landed  chan struct{} // closed when land has returned

	commits, updates, views atomic.Uint64

	stop     chan struct{} // closed by Close and by a failure
	stopOnce sync.Once
	broken   atomic.Pointer[error] // the failure
	wedged   atomic.Bool           // Pebble holds locks for good and cannot be closed
	flushErr atomic.Pointer[error] // of Pebble's last flush; see listener

	mu     sync.Mutex
	calls  sync.WaitGroup // guarded by mu against a concurrent Close
	closed bool
}

// begin registers a call; e.calls.Done ends it.
func (e *Engine) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return storage.ErrClosed
	}
	if err := e.failure(); err != nil {
		return err
	}
	e.calls.Add(1)
	return nil
}

// stopped returns why the engine answers no more, or nil.
func (e *Engine) stopped() error {
	select {
	case <-e.stop:
		if err := e.failure(); err != nil {
			return err
		}
		return storage.ErrClosed
	default:
		return nil
	}
}

func (e *Engine) failure() error {
	if p := e.broken.Load(); p != nil {
		return *p
	}
	return nil
}

// fail makes every later call, and those under way, return an error: what
// Pebble shows can no longer be trusted to be on the disk. It returns the
// error of the first failure.
func (e *Engine) fail(what string, cause error) error {
	if errors.Is(cause, storage.ErrFailed) {
		return cause
	}
	err := fmt.Errorf("%w: %s: %s: %w", storage.ErrFailed, e.dir, what, full(cause))
	if e.broken.CompareAndSwap(nil, &err) {
		e.log.Error("storage engine failed; it answers nothing until restarted", "dir", e.dir, "what", what, "error", cause)
		e.history.Close(err)
		e.stopOnce.Do(func() { close(e.stop) })
	}
	return e.failure()
}

// readError explains an error of a read.
func (e *Engine) readError(err error) error {
	if lsm.IsCorruptionError(err) {
		return fmt.Errorf("storage in %s is damaged; stop the server and restore a backup: %w", e.dir, err)
	}
	return err
}

// View implements storage.Engine.
func (e *Engine) View(ctx context.Context, fn func(storage.Reader) error) error {
	if err := e.begin(ctx); err != nil {
		return err
	}
	defer e.calls.Done()
	e.views.Add(1)
	snapshot := e.db.NewSnapshot()
	r := &reader{e: e, ctx: ctx, src: snapshot}
	err := func() error {
		defer func() {
			r.src = nil
			_ = snapshot.Close() // always nil
		}()
		return fn(r)
	}()
	if waited := r.touched.wait(); waited != nil {
		return waited
	}
	if err == nil {
		err = e.failure()
	}
	return err
}

// Update implements storage.Engine.
func (e *Engine) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if err := e.begin(ctx); err != nil {
		return 0, err
	}
	defer e.calls.Done()
	e.updates.Add(1)
	select {
	case e.writer <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-e.stop:
		return 0, e.stopped()
	}
	rev, f, err := e.run(ctx, fn)
	// What fn read is waited for even when it failed: its error tells of it.
	if waited := f.wait(); waited != nil {
		return 0, waited
	}
	if err != nil {
		return 0, err
	}
	return rev, e.failure()
}

// run runs fn and applies what it wrote. It returns the revision, and the
// commit to wait for before anything is answered. It gives the writer token back.
func (e *Engine) run(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, *flight, error) {
	defer func() { <-e.writer }()
	if err := e.stopped(); err != nil {
		return 0, nil, err
	}
	t := &txn{batch: e.db.NewIndexedBatch()}
	t.reader = reader{e: e, ctx: ctx, src: t.batch}
	keep := false
	defer func() {
		t.src = nil
		if !keep {
			_ = t.batch.Close() // only returns the batch to its pool
		}
	}()
	err := fn(t)
	if err == nil {
		err = t.writes.Err()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, t.touched, err
	}
	if t.writes.Len() == 0 {
		return e.applied, e.flights.any(), nil
	}
	if err := e.space.admit(t.writes.Bytes()); err != nil {
		return 0, t.touched, err
	}
	keep = true
	f, err := e.apply(t)
	return f.commit.Revision, f, err
}

// apply makes the writes of t visible and starts their way to the disk.
func (e *Engine) apply(t *txn) (f *flight, err error) {
	f = &flight{
		commit: storage.Commit{Revision: e.applied + 1, Changes: t.writes.Changes()},
		batch:  t.batch,
		done:   make(chan struct{}),
	}
	defer func() {
		// Pebble panics, holding its locks, when its log breaks at some moments.
		if p := recover(); p != nil {
			e.wedged.Store(true)
			err = fmt.Errorf("%v", p)
			if cause, ok := p.(error); ok {
				err = cause
			}
		}
		if err != nil {
			f.err = e.fail("a commit cannot be written", err)
			err = f.err
			close(f.done)
		}
	}()
	row := binary.BigEndian.AppendUint64(nil, uint64(f.commit.Revision))
	if err := t.batch.Set(revisionKey, row, nil); err != nil {
		return f, err
	}
	if err := e.failure(); err != nil {
		return f, err
	}
	e.flights.add(f)
	if err := e.db.ApplyNoSyncWait(t.batch, lsm.Sync); err != nil {
		return f, err
	}
	e.applied = f.commit.Revision
	e.queue <- f
	return f, nil
}

// Watch implements storage.Engine.
func (e *Engine) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	if err := e.begin(ctx); err != nil {
		return err
	}
	defer e.calls.Done()
	return e.history.Watch(ctx, prefix, from, fn)
}

// Close implements storage.Engine.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return storage.ErrClosed
	}
	e.closed = true
	e.mu.Unlock()
	e.stopOnce.Do(func() { close(e.stop) })
	e.history.Close(storage.ErrClosed)
	e.calls.Wait()
	close(e.queue)
	<-e.landed
	if e.wedged.Load() {
		// Pebble still runs, and may still write, so the directory stays locked
		// until the process ends.
		return e.failure()
	}
	err := closeDB(e.db)
	if failure := e.failure(); failure != nil {
		err = failure
	}
	return errors.Join(err, e.space.close(), e.lock.Close())
}

// closeDB closes db; a Pebble that failed may panic in it.
func closeDB(db *lsm.DB) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("closing after a failure: %v", p)
		}
	}()
	return db.Close()
}
