package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

const beginCommit = `BEGIN ISOLATION LEVEL READ COMMITTED`

// work is one commit in the making.
type work struct {
	base, end point // the head before and after it
	accepted  []accepted
	over      overlay.Changes
	bytes     int       // of changes, as the history counts them
	answered  []answer  // Updates that ended without writing anything
	left      []*update // for a later commit
}

// accepted is an Update that takes effect, at rev, with changes.
type accepted struct {
	u       *update
	rev     storage.Revision
	changes []storage.Change
}

type answer struct {
	u *update
	outcome
}

func newWork(batch string) *work { return &work{end: point{batch: batch}} }

// changeOverhead is what a change costs beside its key and value.
const changeOverhead = 64

func (w *work) accept(u *update, changes []storage.Change, bytes int) {
	w.accepted = append(w.accepted, accepted{u: u, changes: changes})
	w.over.Add(changes)
	w.bytes += bytes + changeOverhead*len(changes)
}

// number gives the accepted Updates their revisions.
func (w *work) number() {
	for i := range w.accepted {
		w.accepted[i].rev = w.base.rev + storage.Revision(i) + 1
	}
	w.end.rev = w.base.rev + storage.Revision(len(w.accepted))
}

// tell ends the Updates after the commit.
func (w *work) tell() {
	for _, a := range w.accepted {
		a.u.done <- outcome{rev: a.rev}
	}
	for _, a := range w.answered {
		a.u.done <- a.outcome
	}
}

// fail ends every Update of batch when the outcome is uncertain: with err where
// writes were sent, and as unavailable where not.
func (w *work) fail(batch []*update, err error) {
	sent := map[*update]bool{}
	for _, a := range w.accepted {
		sent[a.u] = true
	}
	for _, u := range batch {
		if sent[u] {
			u.done <- outcome{err: err}
		} else {
			u.done <- outcome{err: fmt.Errorf("%w: PostgreSQL: an earlier commit has not ended", storage.ErrUnavailable)}
		}
	}
}

// lock begins a transaction, locks the head row and learns of the commits since
// the last that is known.
func (c *committer) lock(ctx context.Context) error {
	from := c.known.head
	var b pgx.Batch
	b.Queue(beginCommit)
	b.Queue(c.e.sql.lockHead)
	b.Queue(c.e.sql.chain, int64(from.rev), maxKnown)
	b.Queue(c.e.sql.changedKeys, int64(from.rev), maxKnown)
	results := c.conn.SendBatch(ctx, &b)
	defer results.Close()
	if _, err := results.Exec(); err != nil {
		return err
	}
	head, err := scanPoint(results.QueryRow())
	if err != nil {
		return err
	}
	chain, err := queryPoints(results)
	if err != nil {
		return err
	}
	var keys []changed
	rows, err := results.Query()
	if err != nil {
		return err
	}
	err = drain(rows, func(row pgx.Rows) error {
		var rev int64
		var key []byte
		err := row.Scan(&rev, &key)
		keys = append(keys, changed{storage.Revision(rev), string(key)})
		return err
	})
	if err != nil {
		return err
	}
	c.learn(head, chain, keys)
	return results.Close()
}

func queryPoints(results pgx.BatchResults) (points []point, err error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	err = drain(rows, func(row pgx.Rows) error {
		p, err := scanPoint(row)
		points = append(points, p)
		return err
	})
	return points, err
}

// learn brings the validator to the head. chain begins with what it knows
// already, unless the history was cut off or replaced.
func (c *committer) learn(head point, chain []point, keys []changed) {
	if head == c.known.head {
		c.calm++
		return
	}
	c.calm = 0
	whole := len(chain) < maxKnown && len(keys) < maxKnown
	if !whole || len(chain) == 0 || chain[0] != c.known.head || chain[len(chain)-1] != head {
		c.known.reset(head)
		return
	}
	for _, k := range keys {
		c.known.change(k.rev, k.key)
	}
	for _, p := range chain[1:] {
		c.known.chain[p.rev] = p.batch
	}
	c.known.advance(head)
}

// fill decides, under the lock, what the commit consists of: Updates whose
// reads still hold as they are, the others by running their functions again.
func (c *committer) fill(ctx context.Context, w *work, batch []*update) error {
	var conflicts []*update
	for _, u := range batch {
		if c.known.holds(&u.reads, u.at) && !u.reads.Meets(&w.over) {
			w.accept(u, u.writes, u.bytes)
		} else {
			conflicts = append(conflicts, u)
		}
	}
	if len(conflicts) == 0 {
		return nil
	}
	rows := &lockedRows{c: c, ctx: ctx, w: w, cache: map[string][]byte{}}
	if err := rows.prefetch(conflicts); err != nil {
		return err
	}
	// Nobody can commit meanwhile, so it must not take long.
	enough := time.Now().Add(c.e.o.RequestTimeout / 10)
	for i, u := range conflicts {
		if i > 0 && (time.Now().After(enough) || w.bytes > maxCommitBytes) {
			w.left = conflicts[i:]
			return nil
		}
		if err := c.runAgain(w, rows, u); err != nil {
			return err
		}
	}
	return nil
}

// runAgain runs the function of u under the lock, in the goroutine that called
// Update. Its error is one of the database.
func (c *committer) runAgain(w *work, rows *lockedRows, u *update) error {
	end := func(o outcome) { w.answered = append(w.answered, answer{u, o}) }
	if err := u.ctx.Err(); err != nil {
		end(outcome{err: err})
		return nil
	}
	if u.abandoned {
		return c.abandon(w, u)
	}
	own := &turn{src: overlay.Over(rows, &w.over)}
	t := overlay.NewTxn(own)
	u.run <- t
	limit := time.NewTimer(c.e.mostUnderLock())
	defer limit.Stop()
	var err error
	select {
	case err = <-u.ran:
	case <-limit.C:
		t.End()
		own.over()
		// The function goes on, on a reader that answers nothing any more.
		u.abandoned = true
		return c.abandon(w, u)
	}
	t.End()
	own.over()
	if t.Failed() != nil && rows.failed != nil {
		return rows.failed
	}
	err = t.Verdict(u.ctx, err)
	switch {
	case err != nil:
		end(outcome{err: err})
	case t.Writes.Len() == 0:
		end(outcome{rev: w.base.rev + storage.Revision(len(w.accepted))})
	default:
		w.accept(u, t.Writes.Changes(), t.Writes.Bytes())
	}
	return nil
}

// mostUnderLock is how long the function of an Update may take while it holds
// all others up.
func (e *Engine) mostUnderLock() time.Duration { return e.o.RequestTimeout / 5 }

// abandon ends an Update whose function does not return.
func (c *committer) abandon(w *work, u *update) error {
	w.answered = append(w.answered, answer{u, outcome{err: fmt.Errorf(
		"%w: the function of an Update took longer than %v while others waited for it", storage.ErrUnavailable, c.e.mostUnderLock())}})
	return nil
}
