package postgres

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/history"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

const (
	// pollEvery is how often the head is looked at, whether or not a
	// notification came.
	pollEvery = 100 * time.Millisecond
	// pageBytes bounds what is read at once.
	pageBytes = 8 << 20
)

// feed reads the changes of all nodes once, for all Watches of this one.
type feed struct {
	*history.Feed
	e    *Engine
	wake chan struct{} // holds one token when there may be something to read

	mu sync.Mutex
	at point // newest commit in the history
}

func newFeed(e *Engine, head point) *feed {
	f := &feed{e: e, wake: make(chan struct{}, 1), at: head}
	f.Feed = history.NewFeed(head.rev, e.o.RequestTimeout, func(ctx context.Context) (head storage.Revision, err error) {
		err = e.View(ctx, func(r storage.Reader) error { head = r.Revision(); return nil })
		return head, err
	})
	return f
}

// offer appends what this node has committed, if nothing is missing before it.
func (f *feed) offer(base, end point, commits []storage.Commit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at != base {
		f.nudge()
		return
	}
	for _, c := range commits {
		f.Append(c)
	}
	f.at = end
}

func (f *feed) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feed) reached() point {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

// run follows the database until the engine is closed.
func (f *feed) run() {
	const longest = 500 * time.Millisecond
	wait := 10 * time.Millisecond
	for f.e.stopped() == nil {
		began := time.Now()
		err := f.follow()
		if f.e.stopped() != nil {
			return
		}
		if time.Since(began) > longest {
			wait = 10 * time.Millisecond
			f.e.log.Warn("the change feed lost its connection; connecting again", "error", err)
		}
		select {
		case <-time.After(wait):
		case <-f.e.ctx.Done():
		}
		wait = min(2*wait, longest)
	}
}

// follow reads over one connection until it breaks.
func (f *feed) follow() error {
	ctx, cancel := context.WithTimeout(f.e.ctx, f.e.o.RequestTimeout)
	conn, err := f.e.connect(ctx, nil)
	cancel()
	if err != nil {
		return err
	}
	defer hangUp(conn)
	if f.e.notifies {
		if _, err := conn.Exec(f.e.ctx, "LISTEN "+f.e.sql.channel); err != nil {
			return err
		}
	}
	for {
		more, err := f.poll(conn)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		if err := f.sleep(conn); err != nil {
			return err
		}
	}
}

// sleep waits for a notification, a nudge or the next poll.
func (f *feed) sleep(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(f.e.ctx, pollEvery)
	defer cancel()
	if !f.e.notifies {
		select {
		case <-ctx.Done():
		case <-f.wake:
		}
		return f.e.stopped()
	}
	_, err := conn.WaitForNotification(ctx)
	if err != nil && ctx.Err() == nil {
		return err
	}
	return f.e.stopped()
}

// poll reads the next page of changes. more says that there is another.
func (f *feed) poll(conn *pgx.Conn) (more bool, err error) {
	ctx, cancel := context.WithTimeout(f.e.ctx, f.e.o.RequestTimeout/2)
	defer cancel()
	at := f.reached()
	began := time.Now()
	p, err := f.e.page(ctx, conn, at.rev)
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.start != at.batch || p.head.rev < at.rev {
		if f.at != at {
			return true, nil // this node committed meanwhile: look again
		}
		f.Restart(p.head.rev)
		f.at = p.head
		f.e.log.Warn("the store's history does not go on where it was left: caches start again", "revision", uint64(at.rev), "now", uint64(p.head.rev))
		return false, nil
	}
	for _, c := range p.commits {
		if c.Revision > f.at.rev {
			f.Append(c)
		}
	}
	if p.end.rev > f.at.rev {
		f.at = p.end
	}
	if f.at.rev < p.head.rev {
		return true, nil
	}
	f.Heard(began)
	return false, nil
}

// commitPage is a piece of the history, read in one snapshot.
type commitPage struct {
	head    point
	first   storage.Revision // the oldest whose changes are kept
	start   string           // the batch that ended at the revision before the page, "" when that is not known
	end     point            // the last commit of the page, or the zero point
	commits []storage.Commit
}

// page reads the commits after a revision.
func (e *Engine) page(ctx context.Context, conn *pgx.Conn, after storage.Revision) (p commitPage, err error) {
	var b pgx.Batch
	b.Queue(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`)
	b.Queue(e.sql.tail, int64(after))
	b.Queue(e.sql.pageEnd, int64(after), pageBytes)
	b.Queue(e.sql.pageChanges, int64(after), pageBytes)
	b.Queue(`COMMIT`)
	results := conn.SendBatch(ctx, &b)
	defer results.Close()
	if _, err := results.Exec(); err != nil {
		return p, err
	}
	var rev, first int64
	var batch, start []byte
	if err := results.QueryRow().Scan(&rev, &batch, &first, &start); err != nil {
		return p, err
	}
	p.head, p.first, p.start = point{storage.Revision(rev), string(batch)}, storage.Revision(first), string(start)
	if p.end, err = scanPoint(results.QueryRow()); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return p, err
	}
	rows, err := results.Query()
	if err != nil {
		return p, err
	}
	if err := drain(rows, p.add); err != nil {
		return p, err
	}
	if _, err := results.Exec(); err != nil {
		return p, err
	}
	return p, results.Close()
}

func (p *commitPage) add(row pgx.Rows) error {
	var rev int64
	var key, value []byte
	if err := row.Scan(&rev, &key, &value); err != nil {
		return err
	}
	at := storage.Revision(rev)
	if n := len(p.commits); n == 0 || p.commits[n-1].Revision != at {
		p.commits = append(p.commits, storage.Commit{Revision: at})
	}
	c := &p.commits[len(p.commits)-1]
	c.Changes = append(c.Changes, storage.Change{Key: string(key), Value: value, Deleted: value == nil})
	return nil
}

// watch implements Engine.Watch: from the database what is too old for the feed,
// then from the feed.
func (f *feed) watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	for {
		told, err := f.Watch(ctx, prefix, from, fn)
		if told || !errors.Is(err, storage.ErrHistoryGone) {
			return err
		}
		if from, err = f.backfill(ctx, prefix, from, fn); err != nil {
			return err
		}
	}
}

// backfill tells a page of commits after from and returns how far it went.
func (f *feed) backfill(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) (storage.Revision, error) {
	p, err := f.e.oldPage(ctx, from)
	if err != nil {
		return 0, err
	}
	if p.first > from+1 || p.end.rev <= from {
		return 0, storage.ErrHistoryGone
	}
	for _, c := range p.commits {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		c.Changes = overlay.Below(c.Changes, prefix)
		if len(c.Changes) == 0 {
			continue
		}
		if err := fn(c); err != nil {
			return 0, err
		}
	}
	return p.end.rev, nil
}

// oldPage reads a page through the pool.
func (e *Engine) oldPage(caller context.Context, after storage.Revision) (commitPage, error) {
	ctx, cancel := e.bound(caller)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, e.o.RequestTimeout)
	defer cancelTimeout()
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return commitPage{}, e.explain(caller, err)
	}
	defer e.release(conn)
	p, err := e.page(ctx, conn.Conn(), after)
	return p, e.explain(caller, err)
}
