package job

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/storage"
)

const (
	// poll is how long a worker waits at most before it looks for itself, for
	// when the watch is gone.
	poll         = 20 * time.Second
	mostTrouble  = 5 * time.Second // between two tries while the store is away
	firstBackoff = time.Second
	maxError     = 256 // bytes of an error that are kept
)

// look is what a worker found when it last looked.
type look struct {
	due    int       // how many were due, at most a batch
	oldest time.Time // when the first of them was, zero for none
}

// work does the jobs of one shard until ctx ends or the claim is lost or left.
func (q *Queue) work(ctx context.Context, c *Claim) {
	for failed := 0; ; {
		c.next.Store(math.MaxInt64) // until it is known, every change wakes
		next, err := q.round(ctx, c)
		wait := q.until(next)
		switch {
		case errors.Is(err, ErrClaimLost), ctx.Err() != nil:
			return
		case err != nil:
			q.w.trouble(q.kind.Name, err)
			c.next.Store(math.MinInt64)
			wait = backoff(failed, mostTrouble)
			failed++
		default:
			failed = 0
			c.next.Store(next.UnixNano())
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-c.leave:
			timer.Stop()
			return
		case <-c.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// until returns how long to wait for a time.
func (q *Queue) until(next time.Time) time.Duration {
	now, ok := q.w.now()
	if !ok {
		return q.w.Beat
	}
	return max(time.Millisecond, min(next.Sub(now), poll))
}

// round does everything that is due and returns when to look again at the latest.
func (q *Queue) round(ctx context.Context, c *Claim) (next time.Time, err error) {
	for ctx.Err() == nil {
		now, ok := q.w.now()
		if !ok || !q.w.steady() {
			return now.Add(q.w.Beat), nil
		}
		var jobs []Job
		err = q.w.Engine.View(ctx, func(r storage.Reader) (err error) {
			if err = c.holds(r); err == nil {
				jobs, next, err = q.keys.first(r, c.shard, q.kind.Batch, now)
			}
			return err
		})
		if err != nil {
			return next, err
		}
		c.found(jobs)
		if len(jobs) == 0 {
			if next.IsZero() {
				next = MaxDue
			}
			return next, nil
		}
		if err := q.do(ctx, c, jobs); err != nil {
			return next, err
		}
		select {
		case <-c.leave:
			return now, nil
		default:
		}
	}
	return next, ctx.Err()
}

func (c *Claim) found(jobs []Job) {
	l := look{due: len(jobs)}
	if len(jobs) > 0 {
		l.oldest = jobs[0].Due
	}
	c.seen.Store(&l)
}

// do does jobs together, and what failed of several again, one by one. The error
// is not the jobs' but that of the claim or of the store.
func (q *Queue) do(ctx context.Context, c *Claim, jobs []Job) error {
	c.begin()
	err := q.call(ctx, c, jobs)
	left := c.rest(jobs)
	q.stats.ran.Add(uint64(len(jobs) - len(left)))
	switch {
	case errors.Is(err, ErrClaimLost):
		return ErrClaimLost
	case ctx.Err() != nil:
		return ctx.Err()
	case away(err):
		return err
	case len(left) == 0:
		return nil
	case len(jobs) == 1:
		if err == nil {
			err = errors.New("the job was neither done nor put off")
		}
		return q.fail(ctx, c, jobs[0], err)
	}
	for i := range left {
		if err := q.do(ctx, c, left[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// away reports whether an error is of the store being out of reach, and says
// nothing of the job that met it.
func away(err error) bool {
	return errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrUncertain) || errors.Is(err, storage.ErrClosed) ||
		errors.Is(err, storage.ErrFailed) || errors.Is(err, storage.ErrFull) || errors.Is(err, storage.ErrReadOnly)
}

// call runs the kind's Run. A panic is a failure of the job like any other, so
// that it does not take down one node after the other.
func (q *Queue) call(ctx context.Context, c *Claim, jobs []Job) (err error) {
	ctx, cancel := context.WithTimeout(ctx, q.kind.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			q.w.Log.Error("a job panicked", "kind", q.kind.Name, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic of type %T", p)
		}
	}()
	return q.kind.Run(ctx, c, jobs)
}

// fail counts a job's failure and puts it off, behind the others.
func (q *Queue) fail(ctx context.Context, c *Claim, j Job, cause error) error {
	now, _ := q.w.now()
	next := place{now.Add(backoff(j.Tries, q.kind.MaxBackoff)).UnixNano(), j.Tries + 1}
	wanted := true
	_, err := c.Update(ctx, func(t *Txn) error {
		old, err := t.same(j)
		if wanted = !errors.Is(err, ErrChanged); !wanted {
			return nil
		}
		if err != nil {
			return err
		}
		if err := q.keys.remove(t, j.ID, old); err != nil {
			return err
		}
		if err := q.keys.put(t, j.ID, next); err != nil {
			return err
		}
		return putJSON(t, q.keys.failed(j.ID), failure{Tries: next.tries, At: now, Error: shorten(cause.Error())})
	})
	if err == nil && wanted {
		q.stats.failed.Add(1)
	}
	return err
}

// backoff returns how long to wait after so many failures before: from a second
// on twice as long each time, up to a bound, and up to a half less by chance, so
// that what failed together is not tried together.
func backoff(before int, bound time.Duration) time.Duration {
	d := bound
	if before < 30 {
		d = min(bound, firstBackoff<<before)
	}
	return d/2 + rand.N(d/2+1)
}

// shorten cuts a text to what is kept of errors.
func shorten(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= maxError {
		return text
	}
	cut := maxError
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}
