package lease

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Revoke ends a lease, also one that was set aside. It is taken back shortly, or,
// where now is asked for, when Revoke returns: the error is the target's then, and
// it is tried again. A key of no lease is no error.
func (b *Book) Revoke(ctx context.Context, key string, now bool) error {
	at := time.Now()
	if now {
		at = at.Add(inTurn)
	}
	var l *Lease
	_, err := b.Engine.Update(ctx, func(t storage.Txn) (err error) {
		if l, err = find(t, key); errors.Is(err, storage.ErrNotFound) {
			l = nil
			return nil
		}
		if err != nil {
			return err
		}
		return b.end(t, l, Revoked, at)
	})
	if err != nil || l == nil || !now {
		return err
	}
	return b.inline(ctx, []*Lease{l}, true)
}

// inTurn is when the workers take up what a request takes back by itself, should
// it not come to its end.
const inTurn = CallTimeout + 5*time.Second

// inline takes leases that are marked as ending back in the caller's time. force
// asks also targets that were out of reach a moment ago.
func (b *Book) inline(ctx context.Context, leases []*Lease, force bool) error {
	tried := b.takeBack(ctx, leases, force)
	_, err := b.Engine.Update(context.WithoutCancel(ctx), func(t storage.Txn) error {
		for _, o := range tried {
			now, err := find(t, o.lease.Key)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			again, at, err := b.settle(t, now, o)
			switch {
			case err != nil:
				return err
			case again:
				err = b.queue.Schedule(t, now.Key, at)
			default:
				err = b.queue.Cancel(t, now.Key)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.report(ctx, tried)
	for _, o := range tried {
		if !o.tried {
			return fault.New(fault.Unavailable, "failed to revoke %s: its target was out of reach a moment ago; it is tried again", b.wireID(o.lease))
		}
		if o.err != nil {
			return fault.New(kindOf(o.err), "failed to revoke %s: %v; it is tried again", b.wireID(o.lease), o.err)
		}
	}
	return nil
}

// How says how what was lent below a path ends.
type How struct {
	Now   bool // it is taken back when the call returns
	Force bool // what cannot be taken back is forgotten
}

// RevokeBelow ends all leases below a path, which is a mount's UUID and what follows
// it in keys, and the lease of that key, a piece at a time. It returns how many there were. What a target refuses
// does not hold up the rest, and the first error is returned; when one is out of
// reach nothing more is asked.
func (b *Book) RevokeBelow(ctx context.Context, path string, how How) (n int, failed error) {
	for after := ""; ; {
		var leases []*Lease
		if _, err := b.Engine.Update(ctx, func(t storage.Txn) (err error) {
			at := time.Now()
			if how.Now || how.Force {
				at = at.Add(inTurn)
			}
			if leases, err = from(t, path, after); err != nil {
				return err
			}
			for _, l := range leases {
				if err := b.end(t, l, Revoked, at); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return n, err
		}
		if len(leases) == 0 {
			break
		}
		n += len(leases)
		after = leases[len(leases)-1].Key
		if !how.Now && !how.Force {
			continue
		}
		err := b.inline(ctx, leases, false)
		if err != nil && how.Force {
			err = b.forget(ctx, leases)
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			return n, err
		}
		if failed == nil {
			failed = err
		}
	}
	return n, failed
}

// from returns a piece of the leases below a path, and that of the path itself first.
func from(r storage.Reader, path, after string) ([]*Lease, error) {
	if after == "" {
		l, err := find(r, path)
		if err == nil {
			return []*Lease{l}, nil
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
	}
	return page(r, path+"/", after, piece)
}

// forget removes those of leases that are there still, whatever is left of what
// they lent.
func (b *Book) forget(ctx context.Context, leases []*Lease) error {
	_, err := b.Engine.Update(ctx, func(t storage.Txn) error {
		for _, was := range leases {
			l, err := find(t, was.Key)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if err := drop(t, l); err != nil {
				return err
			}
			if err := b.queue.Cancel(t, l.Key); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// EndOf ends the leases of a token that ended. It may be called again when it was
// interrupted.
func (b *Book) EndOf(ctx context.Context, token string) error {
	prefix := tokenPrefix + token + "/"
	for {
		n := 0
		if err := b.Engine.View(ctx, func(r storage.Reader) error {
			rows, err := r.Scan(prefix, "", 1)
			n = len(rows)
			return err
		}); err != nil || n == 0 {
			return err
		}
		if _, err := b.Engine.Update(ctx, func(t storage.Txn) error {
			rows, err := t.Scan(prefix, "", piece)
			if err != nil {
				return err
			}
			for _, row := range rows {
				if err := t.Delete(row.Key); err != nil {
					return err
				}
				l, err := find(t, strings.TrimPrefix(row.Key, prefix))
				if errors.Is(err, storage.ErrNotFound) {
					continue
				}
				if err != nil {
					return err
				}
				if l.Ending != nil {
					continue // it is under way, or waits for people
				}
				if err := b.end(t, l, TokenEnd, time.Now()); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
}

// CheckNone refuses, in the transaction that ends a mount, while the mount still
// lends.
func CheckNone(r storage.Reader, uuid string) error {
	for after := ""; ; {
		leases, err := page(r, uuid+"/", after, 100)
		if err != nil || len(leases) == 0 {
			return err
		}
		for _, l := range leases {
			if l.Ending == nil || !l.Ending.Gone {
				return ErrLends
			}
		}
		after = leases[len(leases)-1].Key
	}
}

// ErrLends is why a mount cannot be ended yet.
var ErrLends = errors.New("what the mount lent is not taken back yet")

// EndMount takes everything back that a mount lent, so that the mount can be ended.
func (b *Book) EndMount(ctx context.Context, uuid, path string) error {
	_, err := b.RevokeBelow(ctx, uuid, How{Now: true})
	if err != nil {
		return fault.New(kindOf(err), "%s still lends, and not everything could be taken back: %v; mend that and try again, or forget it by `coffer lease revoke -prefix -force %s`", path, fault.From(err).Message, strings.Trim(path, "/"))
	}
	return nil
}

// wireID is the id of a lease as its holder knows it, from the namespace of its mount.
func (b *Book) wireID(l *Lease) string {
	m, there := b.Find(l.Namespace, l.Mount())
	if !there {
		return l.Key
	}
	return m.Path + strings.TrimPrefix(l.Key, l.Mount()+"/")
}

// kindOf is what an engine's refusal is to the client.
func kindOf(err error) fault.Kind {
	if away(err) {
		return fault.Unavailable
	}
	return fault.Invalid
}

// breaker keeps a node from asking a mount whose target was out of reach a moment
// ago: the longer, the more often it was.
type breaker struct {
	mu    sync.Mutex
	until map[string]rest // by the mount's UUID
}

// rest is how long a mount is left alone.
type rest struct {
	until time.Time
	times int
}

const (
	firstRest = 5 * time.Second
	maxRest   = 5 * time.Minute
)

// open returns until when a mount is left alone; zero when it is not.
func (b *breaker) open(mount string, now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.until[mount]; r.until.After(now) {
		return r.until
	}
	return time.Time{}
}

// away says that a mount's target was out of reach, and near that it answered.
func (b *breaker) away(mount string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until == nil {
		b.until = map[string]rest{}
	}
	r := b.until[mount]
	if r.until.After(now) {
		return // one of those that were asked together
	}
	r.until = now.Add(min(maxRest, firstRest<<min(r.times, 16)))
	r.times++
	b.until[mount] = r
}

func (b *breaker) near(mount string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.until, mount)
}
