package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

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
	recent *overlay.Recent

	self    [8]byte // random; with commits it names a commit in head
	commits atomic.Uint64

	// Keys in etcd.
	format, head, lock, data string

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
