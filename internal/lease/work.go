package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
)

// batch is how many leases a worker takes back at a time.
const batch = piece

// outcome is what the try to take a lease back came to.
type outcome struct {
	lease *Lease // as it was
	tried bool
	until time.Time // when not tried: when to try
	err   error
}

// run ends leases that are due.
func (b *Book) run(ctx context.Context, c *job.Claim, jobs []job.Job) error {
	ending, err := b.mark(ctx, c, jobs)
	if err != nil || len(ending) == 0 {
		return err
	}
	leases := make([]*Lease, 0, len(ending))
	byKey := map[string]job.Job{}
	for _, e := range ending {
		leases = append(leases, e.lease)
		byKey[e.lease.Key] = e.job
	}
	tried := b.takeBack(ctx, leases, false)
	_, err = c.Update(ctx, func(t *job.Txn) error {
		for _, o := range tried {
			j := byKey[o.lease.Key]
			l, err := find(t, j.ID)
			if errors.Is(err, storage.ErrNotFound) {
				if err := t.Done(j); err != nil {
					return err
				}
				continue
			}
			if err != nil {
				return err
			}
			again, at, err := b.settle(t, l, o)
			switch {
			case err != nil:
				return err
			case again:
				err = t.Again(j, at)
			default:
				err = t.Done(j)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		b.report(ctx, tried)
	}
	return err
}

type endingJob struct {
	job   job.Job
	lease *Lease
}

// mark returns those of the leases that are to be taken back, marked as ending, so
// that none is renewed meanwhile.
func (b *Book) mark(ctx context.Context, c *job.Claim, jobs []job.Job) (ending []endingJob, err error) {
	_, err = c.Update(ctx, func(t *job.Txn) error {
		ending = nil
		for _, j := range jobs {
			l, err := find(t, j.ID)
			switch {
			case errors.Is(err, storage.ErrNotFound):
				err = t.Done(j)
			case err != nil:
			case l.Ending != nil && l.Ending.Aside:
				err = t.Done(j)
			case l.Ending == nil && l.Expires.After(time.Now()):
				err = t.Again(j, l.Expires)
			default:
				if l.Ending == nil {
					l.Ending = &Ending{Why: Expired, Since: time.Now().UTC()}
					err = put(t, l)
				}
				ending = append(ending, endingJob{j, l})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return ending, err
}

// takeBack asks the engines, all at once. force asks also those that are left alone
// because they were out of reach.
func (b *Book) takeBack(ctx context.Context, leases []*Lease, force bool) []outcome {
	out := make([]outcome, len(leases))
	var wait sync.WaitGroup
	for i, l := range leases {
		out[i].lease = l
		if until := b.breaker.open(l.Mount(), time.Now()); !until.IsZero() && !force {
			out[i].until = until.Add(rand.N(firstRest))
			continue
		}
		out[i].tried = true
		wait.Go(func() { out[i].err = b.ask(ctx, l) })
	}
	wait.Wait()
	return out
}

// ask asks the engine of one lease.
func (b *Book) ask(ctx context.Context, l *Lease) (err error) {
	m, there := b.Find(l.Namespace, l.Mount())
	if !there {
		if l.Ending != nil && l.Ending.Gone {
			return nil // its mount went after it
		}
		return errNoMount()
	}
	call, stop := context.WithTimeout(ctx, CallTimeout)
	defer stop()
	defer func() {
		if p := recover(); p != nil {
			b.Log.Error("taking a lease back panicked", "mount", m.Path, "type", m.Spec.Name)
			err = errors.New("taking it back panicked; see the server's log")
		}
	}()
	err = m.Spec.Revoke(call, m.State, l.leased())
	if err != nil && ctx.Err() == nil && call.Err() != nil {
		err = fault.Wrap(fault.Unavailable, err, "no answer within %v: %v", CallTimeout, err)
	}
	if away(err) {
		b.breaker.away(l.Mount(), time.Now())
	} else {
		b.breaker.near(l.Mount())
	}
	return err
}

// away reports whether an error says that the target could not be reached.
func away(err error) bool {
	return fault.Is(err, fault.Unavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// settle writes what the try came to into the lease's rows. again says that it is
// due once more.
func (b *Book) settle(t storage.Txn, l *Lease, o outcome) (again bool, at time.Time, err error) {
	now := time.Now().UTC()
	if l.Ending == nil { // a lease of this key was never ending: it cannot be
		l.Ending = &Ending{Why: Revoked, Since: now}
	}
	e := l.Ending
	if !o.tried {
		return true, o.until, nil
	}
	e.Last = now
	if o.err == nil {
		if settled := l.Issued.Add(Settle); now.Before(settled) {
			// Making it may be under way somewhere.
			if e.Error != "" {
				e.Error = ""
				if err := t.Delete(troubleKey(l.Key)); err != nil {
					return false, at, err
				}
			}
			e.Gone = true
			return true, settled, put(t, l)
		}
		return false, at, drop(t, l)
	}
	e.Error, e.Gone = shorten(o.err.Error()), false
	if err := t.Put(troubleKey(l.Key), nil); err != nil {
		return false, at, err
	}
	if away(o.err) {
		e.Away++
		e.Aside = now.Sub(e.Since) > MaxAway
		at = now.Add(backoff(e.Away))
	} else {
		e.Refused++
		e.Aside = e.Refused >= MaxRefused
		at = now.Add(backoff(e.Refused))
	}
	return !e.Aside, at, put(t, l)
}

// report records what ended, and what was set aside.
func (b *Book) report(ctx context.Context, tried []outcome) {
	ctx = context.WithoutCancel(ctx)
	for _, o := range tried {
		if !o.tried || o.lease.Ending != nil && o.lease.Ending.Gone {
			continue
		}
		if o.err == nil {
			b.Record(ctx, o.lease, b.wireID(o.lease), nil)
			continue
		}
		aside := false
		_ = b.Engine.View(ctx, func(r storage.Reader) error {
			l, err := find(r, o.lease.Key)
			aside = err == nil && l.Ending != nil && l.Ending.Aside
			return nil
		})
		if aside {
			b.Record(ctx, o.lease, b.wireID(o.lease), o.err)
		}
	}
}

// backoff is how long after a try that failed the next one is, by how many failed:
// from some seconds on twice as long each time, up to five minutes, and up to a
// half less by chance.
func backoff(failed int) time.Duration {
	d := min(maxRest, firstRest<<min(failed-1, 16))
	return d/2 + rand.N(d/2+1)
}

// shorten cuts a target's words to what is kept of them.
func shorten(text string) string {
	if len(text) > maxError {
		text = text[:maxError]
	}
	return strings.ToValidUTF8(text, "?")
}
