package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

// Engine is a storage.Engine in an etcd cluster.
type Engine struct {
	o      Options
	log    *slog.Logger
	client *clientv3.Client
	feed   *feed
	turn   chan struct{} // holds one token, taken by the Update that runs again

	// Keys in etcd.
	format, head, data string

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	tasks sync.WaitGroup // of the engine itself

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
	e.calls.Add(1)
	return nil
}

// stopped returns ErrClosed once Close was called.
func (e *Engine) stopped() error {
	if e.ctx.Err() != nil {
		return storage.ErrClosed
	}
	return nil
}

// View implements storage.Engine.
func (e *Engine) View(ctx context.Context, fn func(storage.Reader) error) error {
	if err := e.begin(ctx); err != nil {
		return err
	}
	defer e.calls.Done()
	s := e.snapshot(ctx)
	defer s.cancel()
	r := overlay.NewReader(s)
	defer r.End()
	err := fn(r)
	if err == nil {
		err = r.Failed()
	}
	return err
}

// errConflict says that something an Update had read has changed.
var errConflict = errors.New("what was read has changed")

// Update implements storage.Engine.
func (e *Engine) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if err := e.begin(ctx); err != nil {
		return 0, err
	}
	defer e.calls.Done()
	rev, err := e.try(ctx, fn)
	if !errors.Is(err, errConflict) {
		return rev, err
	}
	deadline := time.NewTimer(4 * e.o.RequestTimeout)
	defer deadline.Stop()
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-e.ctx.Done():
		return 0, storage.ErrClosed
	case <-deadline.C:
		return 0, e.contended()
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		rev, err := e.try(ctx, fn)
		if !errors.Is(err, errConflict) {
			return rev, err
		}
		select {
		case <-deadline.C:
			return 0, e.contended()
		default:
			pause(ctx, wait)
		}
	}
}

func (e *Engine) contended() error {
	return fmt.Errorf("%w: others kept changing what this Update reads, for %v", storage.ErrUnavailable, 4*e.o.RequestTimeout)
}

// try runs fn on a snapshot and commits what it wrote, once.
func (e *Engine) try(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	s := e.snapshot(ctx)
	defer s.cancel()
	s.seen = map[string]int64{}
	t := overlay.NewTxn(s)
	defer t.End()
	if err := t.Verdict(ctx, fn(t)); err != nil {
		return 0, err
	}
	if err := s.usable(); err != nil {
		return 0, err
	}
	if t.Writes.Len() == 0 {
		return s.At()
	}
	resp, err := e.write(s.compares(&t.Reads), e.puts(&t.Writes), nil)
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, errConflict
	}
	return storage.Revision(resp.Header.Revision), nil
}

// puts returns the operations of a commit, that of head last: a commit that a
// watch has told up to head is whole.
func (e *Engine) puts(w *storage.Writes) []clientv3.Op {
	ops := make([]clientv3.Op, 0, w.Len()+1)
	for _, c := range w.Changes() {
		if c.Deleted {
			ops = append(ops, clientv3.OpDelete(e.data+c.Key))
		} else {
			ops = append(ops, clientv3.OpPut(e.data+c.Key, string(c.Value)))
		}
	}
	return append(ops, clientv3.OpPut(e.head, ""))
}

// Watch implements storage.Engine.
func (e *Engine) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	if err := e.begin(ctx); err != nil {
		return err
	}
	defer e.calls.Done()
	return e.feed.watch(ctx, prefix, from, fn)
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
	e.stop()
	e.feed.Close()
	e.calls.Wait()
	e.tasks.Wait()
	return e.disconnect()
}

// disconnect gives up the connections.
func (e *Engine) disconnect() error {
	err := e.client.Close()
	if errors.Is(err, context.Canceled) { // of the client's own
		return nil
	}
	return err
}

// String says which cluster and path it is.
func (e *Engine) String() string {
	return fmt.Sprintf("%s, path %s", strings.Join(e.o.Endpoints, ","), e.o.Path)
}
