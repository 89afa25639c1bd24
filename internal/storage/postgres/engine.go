// Package postgres is the storage engine on PostgreSQL, for any number of
// nodes at once, and on databases that speak its language: the schema is three
// small tables, a head row and standard statements. It is not for one machine
// alone, where package pebble needs no server, and it gives no other access to
// the database.
//
// # Why it is serializable
//
// An Update runs its function on a snapshot and remembers what it read, and
// what it wants to write. Its commit locks the head row, which every commit of
// every node does first, so commits happen one after the other. Under the lock
// the changes made since the snapshot are compared with what was read. Where
// nothing read has changed, the function would do the same again now, so its
// writes take effect now: that is a serial order, the order of revisions. Where
// something has changed the function runs again, under the lock, where nothing
// can change any more. So a thousand writers of one key take turns within a few
// commits, and none waits for ever. PostgreSQL's own SERIALIZABLE would be right
// as well; this is faster because all waiting Updates of a node share one
// commit, and because a conflict costs no transaction.
//
// A node that was the last to commit knows all changes and validates without
// asking: it sends one batch of statements, the first of which fails when
// another node was faster.
//
// # Why the feed neither loses nor reorders
//
// Revisions are given under the lock of the head row, which is held until the
// commit is visible. So a snapshot that shows revision n shows every revision
// below it, and a reader that goes on from the newest it has seen misses
// nothing.
//
// # Why outcomes are known
//
// Each commit leaves a row with an id of its own. When a connection breaks
// during a commit, the node takes the head lock on a new one, moves the
// revision on, so that no straggler can commit any more, and looks for the row.
// That commit also waits for whatever synchronous replicas the first waited
// for.
//
// # What the operator decides
//
// An acknowledged commit is on the server's disk, and on the replicas that
// synchronous_standby_names asks for; without one, a failover may lose the
// newest commits, as with every client of PostgreSQL. A node notices a history
// that went back, and starts its caches again. A pooler between Coffer and the
// server must pool by session: connections have settings and prepared
// statements. The head row and the changes rely on autovacuum.
package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

// Engine is a storage.Engine in a PostgreSQL database.
type Engine struct {
	o      Options
	log    *slog.Logger
	sql    statements
	config *pgx.ConnConfig // of connections outside the pool
	pool   *pgxpool.Pool   // of snapshots

	committer *committer
	feed      *feed
	prune     chan struct{} // asks for a look at the history's size
	growth    growth

	asked        atomic.Int64 // commits whose outcome had to be asked for
	notifies     bool         // the server has LISTEN
	asynchronous bool         // the server would acknowledge what it may lose

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

// bound returns a context that also ends with the engine.
func (e *Engine) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	release := context.AfterFunc(e.ctx, cancel)
	return ctx, func() { release(); cancel() }
}

// View implements storage.Engine.
func (e *Engine) View(ctx context.Context, fn func(storage.Reader) error) error {
	if err := e.begin(ctx); err != nil {
		return err
	}
	defer e.calls.Done()
	inner, cancel := e.bound(ctx)
	s := &snapshot{e: e, caller: ctx, ctx: inner, cancel: cancel}
	defer s.end()
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
	e.pool.Close()
	return nil
}

// String says which database it is , without the password.
func (e *Engine) String() string {
	return fmt.Sprintf("PostgreSQL at %s:%d, database %q, user %q", e.config.Host, e.config.Port, e.config.Database, e.config.User)
}
