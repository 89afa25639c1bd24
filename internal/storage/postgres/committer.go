package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cofferhq/coffer/internal/storage"
)

// Bounds of one commit to the database.
const (
	maxCommitBytes   = 4 << 20
	maxCommitUpdates = 512
)

// calmAfter is how many commits in a row must find the head where it was left
// before the committer commits without looking first.
const calmAfter = 32

// committer commits the Updates of this node, one batch after the other.
type committer struct {
	e     *Engine
	known validator
	conn  *pgx.Conn // nil when it must be made
	calm  int       // commits since another node's was met
	node  [8]byte   // names this committer in batch ids
	seq   uint64

	wake chan struct{} // holds one token when the queue has something

	mu     sync.Mutex
	queue  []*update
	closed bool
}

func newCommitter(e *Engine, head point) *committer {
	c := &committer{e: e, wake: make(chan struct{}, 1), calm: calmAfter}
	_, _ = rand.Read(c.node[:]) // never fails
	c.known.reset(head)
	return c
}

// nextBatch returns an id for a commit, never used before.
func (c *committer) nextBatch() string {
	c.seq++
	return string(binary.BigEndian.AppendUint64(c.node[:8:8], c.seq))
}

// run commits until the engine is closed.
func (c *committer) run() {
	defer c.end()
	for {
		select {
		case <-c.e.ctx.Done():
			return
		case <-c.wake:
		}
		for batch := c.take(); len(batch) > 0 && c.e.stopped() == nil; batch = c.take() {
			c.commit(batch)
		}
	}
}

func (c *committer) end() {
	c.mu.Lock()
	rest := c.queue
	c.queue, c.closed = nil, true
	for _, u := range rest {
		u.done <- outcome{err: storage.ErrClosed}
	}
	c.mu.Unlock()
	c.drop()
}

// take takes the next Updates from the queue.
func (c *committer) take() []*update {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := 0, 0
	for n < len(c.queue) && n < maxCommitUpdates && (n == 0 || bytes+c.queue[n].bytes <= maxCommitBytes) {
		bytes += c.queue[n].bytes
		c.queue[n].taken = true
		n++
	}
	batch := append([]*update(nil), c.queue[:n]...)
	c.queue = append(c.queue[:0], c.queue[n:]...)
	return batch
}

// putBack returns Updates to the front of the queue.
func (c *committer) putBack(batch []*update) {
	if len(batch) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range batch {
		u.taken = false
	}
	c.queue = append(append([]*update(nil), batch...), c.queue...)
}

// Errors that one try of a commit ends with, beside those of the database.
var (
	errMoved   = errors.New("another node has committed")                   // nothing was written; look first
	errUnknown = errors.New("the connection broke while a commit was sent") // it may have been written
)

// commit ends every Update of batch, or puts it back into the queue.
func (c *committer) commit(batch []*update) {
	deadline := time.Now().Add(c.e.o.RequestTimeout / 2)
	look := c.calm < calmAfter || c.e.o.gate != nil
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		w := newWork(c.nextBatch())
		err := c.try(w, batch, look, deadline)
		look = true
		if errors.Is(err, errUnknown) {
			err = c.resolve(w, err)
		}
		switch {
		case err == nil:
			c.putBack(w.left)
			w.tell()
			return
		case errors.Is(err, errMoved):
			wait = time.Millisecond
			continue
		case errors.Is(err, storage.ErrUncertain):
			w.fail(batch, err)
			return
		case classify(err) == refused, time.Now().After(deadline), c.e.away(), c.e.stopped() != nil:
			err = c.e.explain(context.Background(), err)
			for _, u := range batch {
				u.done <- outcome{err: err}
			}
			return
		}
		select {
		case <-time.After(wait):
		case <-c.e.ctx.Done():
		}
	}
}

// try tries once to commit batch. look locks the head and learns of changes
// first; otherwise they are taken to be known, and errMoved says that they
// were not.
func (c *committer) try(w *work, batch []*update, look bool, deadline time.Time) error {
	if err := c.connect(deadline); err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if !look {
		for _, u := range batch {
			if !c.known.holds(&u.reads, u.at) || u.reads.Meets(&w.over) {
				return errMoved // it must run again, under the lock
			}
			w.accept(u, u.writes, u.bytes)
		}
		w.base = c.known.head
		w.number()
		return c.settle(w, c.send(ctx, w, true))
	}
	if err := c.lock(ctx); err != nil {
		return c.settle(w, err)
	}
	w.base = c.known.head
	if err := c.fill(ctx, w, batch); err != nil {
		return c.settle(w, err)
	}
	if c.e.o.gate != nil {
		c.e.o.gate()
	}
	if len(w.accepted) == 0 {
		c.rollback()
		return nil
	}
	w.number()
	return c.settle(w, c.send(ctx, w, false))
}

// settle does what follows a commit, or what an error needs.
func (c *committer) settle(w *work, err error) error {
	switch {
	case err == nil:
		c.committed(w)
	case errors.Is(err, errUnknown) || classify(err) == lost:
		c.drop()
	default:
		c.rollback()
	}
	if errors.Is(err, errMoved) {
		c.calm = 0
	}
	return err
}

// committed tells the validator and the feed of what has just been committed.
func (c *committer) committed(w *work) {
	commits := make([]storage.Commit, len(w.accepted))
	for i, a := range w.accepted {
		for _, ch := range a.changes {
			c.known.change(a.rev, ch.Key)
		}
		commits[i] = storage.Commit{Revision: a.rev, Changes: a.changes}
	}
	c.known.advance(w.end)
	c.e.feed.offer(w.base, w.end, commits)
	c.e.grown(w.bytes)
}

// connect makes sure that there is a connection.
func (c *committer) connect(deadline time.Time) error {
	if c.conn != nil && !c.conn.IsClosed() {
		return nil
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	conn, err := c.e.connect(ctx, c.e.commitSession())
	if err != nil {
		return err
	}
	c.conn = conn
	return nil
}

// drop gives the connection up.
func (c *committer) drop() {
	if c.conn != nil {
		hangUp(c.conn)
		c.conn = nil
	}
}

// hangUp closes a connection without waiting long for the other side.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx) // whatever it says, the connection is gone
}

// rollback ends a transaction, so that the connection can be used again.
func (c *committer) rollback() {
	if c.conn == nil || c.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.e.o.RequestTimeout/4)
	defer cancel()
	if _, err := c.conn.Exec(ctx, "ROLLBACK"); err != nil {
		c.drop()
	}
}

// resolve finds out whether the commit w took effect. It returns nil when it
// did, and an error that says that nothing was written, or ErrUncertain.
func (c *committer) resolve(w *work, cause error) error {
	c.calm = 0
	c.e.asked.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), c.e.o.RequestTimeout/2)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		found, err := c.find(ctx, w)
		if err == nil && found {
			return nil
		}
		if err == nil {
			return fmt.Errorf("%w: PostgreSQL: %w", storage.ErrUnavailable, cause)
		}
		c.drop()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: PostgreSQL: %w; it was asked about it: %w", storage.ErrUncertain, cause, err)
		}
	}
}

// errForgotten: the row that would tell of a commit may have been pruned.
var errForgotten = errors.New("the history is too short to tell of the commit")

// find takes the head lock, moves the head so that a commit still on its way
// fails, and looks for w's.
func (c *committer) find(ctx context.Context, w *work) (bool, error) {
	deadline, _ := ctx.Deadline()
	if err := c.connect(deadline); err != nil {
		return false, err
	}
	var b pgx.Batch
	b.Queue(beginCommit)
	b.Queue(c.e.sql.fenceHead, []byte(c.nextBatch()))
	b.Queue(c.e.sql.fenceCommit)
	b.Queue(c.e.sql.findCommit, int64(w.end.rev), []byte(w.end.batch))
	b.Queue("COMMIT")
	results := c.conn.SendBatch(ctx, &b)
	defer results.Close()
	for range 3 {
		if _, err := results.Exec(); err != nil {
			return false, err
		}
	}
	var first, count int64
	if err := results.QueryRow().Scan(&first, &count); err != nil {
		return false, err
	}
	if _, err := results.Exec(); err != nil {
		return false, err
	}
	if count == 0 && first > int64(w.end.rev) {
		return false, errForgotten
	}
	return count > 0, results.Close()
}
