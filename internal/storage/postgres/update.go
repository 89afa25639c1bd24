package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

// Update implements storage.Engine.
func (e *Engine) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if err := e.begin(ctx); err != nil {
		return 0, err
	}
	defer e.calls.Done()
	u := &update{
		ctx: ctx, fn: fn,
		run: make(chan *overlay.Txn, 1), ran: make(chan error, 1), done: make(chan outcome, 1),
	}
	rev, err := u.prepare(e)
	if err != nil || len(u.writes) == 0 {
		return rev, err
	}
	return e.committer.submit(u)
}

// update is an Update whose function has run once, on a snapshot.
type update struct {
	ctx context.Context
	fn  func(storage.Txn) error

	at     point // of the snapshot, where anything was read
	reads  overlay.Reads
	writes []storage.Change
	bytes  int

	run  chan *overlay.Txn // the committer asks to run fn once more, on this
	ran  chan error        // the answer to run
	done chan outcome      // how it ended

	taken     bool // by the committer; guarded by its mutex
	abandoned bool // run again, and did not return in time; owned by the committer
}

// outcome is how an Update ends.
type outcome struct {
	rev storage.Revision
	err error
}

// prepare runs the function on a snapshot. The revision is that of an Update
// that wrote nothing.
func (u *update) prepare(e *Engine) (storage.Revision, error) {
	for deadline := time.Now().Add(e.o.RequestTimeout); ; {
		rev, err := u.tryPrepare(e)
		// A connection that broke half-way costs another run.
		if !errors.Is(err, errBroken) {
			return rev, err
		}
		if time.Now().After(deadline) {
			return 0, e.explain(u.ctx, err)
		}
	}
}

// errBroken is an error of a snapshot that had been read from before.
var errBroken = errors.New("the connection broke")

func (u *update) tryPrepare(e *Engine) (storage.Revision, error) {
	inner, cancel := e.bound(u.ctx)
	s := &snapshot{e: e, caller: u.ctx, ctx: inner, cancel: cancel}
	defer s.end()
	t := overlay.NewTxn(s)
	defer t.End()
	err := u.fn(t)
	if s.conn != nil && errors.Is(t.Failed(), storage.ErrUnavailable) {
		return 0, fmt.Errorf("%w: %w", errBroken, t.Failed())
	}
	if err = t.Verdict(u.ctx, err); err != nil {
		return 0, err
	}
	if t.Writes.Len() == 0 {
		return s.At()
	}
	u.at, u.reads, u.writes, u.bytes = s.point, t.Reads, t.Writes.Changes(), t.Writes.Bytes()
	return 0, nil
}

var errPanicked = errors.New("the function of an Update panicked")

// again runs the function on t, for the committer.
func (u *update) again(t *overlay.Txn) {
	err := errPanicked
	defer func() { u.ran <- err }()
	err = u.fn(t)
}

// submit hands u to the committer and waits for its end.
func (c *committer) submit(u *update) (storage.Revision, error) {
	if err := c.enqueue(u); err != nil {
		return 0, err
	}
	limit := time.NewTimer(c.e.o.RequestTimeout / 2)
	defer limit.Stop()
	ended, stopped, late := u.ctx.Done(), c.e.ctx.Done(), limit.C
	for {
		// What the committer has begun is waited for: its outcome counts.
		select {
		case t := <-u.run:
			u.again(t)
		case o := <-u.done:
			return o.rev, o.err
		case <-ended:
			if c.withdraw(u) {
				return 0, u.ctx.Err()
			}
			ended = nil
		case <-stopped:
			if c.withdraw(u) {
				return 0, storage.ErrClosed
			}
			stopped = nil
		case <-late:
			if c.withdraw(u) {
				return 0, fmt.Errorf("%w: PostgreSQL: commits before this one take longer than %v", storage.ErrUnavailable, c.e.o.RequestTimeout/2)
			}
			late = nil
		}
	}
}

func (c *committer) enqueue(u *update) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return storage.ErrClosed
	}
	c.queue = append(c.queue, u)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// withdraw takes u out of the queue; false means that the committer has it.
func (c *committer) withdraw(u *update) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.taken {
		return false
	}
	for i, q := range c.queue {
		if q == u {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			return true
		}
	}
	return false
}
