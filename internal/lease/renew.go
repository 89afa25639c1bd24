package lease

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Renewed is what a renewal came to.
type Renewed struct {
	Lease    *Lease
	Warnings []string
}

// Renew makes a lease last for increment from now on, 0 for as long as its role
// says, at most as its terms allow. Errors are faults.
func (b *Book) Renew(ctx context.Context, key string, increment time.Duration) (Renewed, error) {
	l, err := b.Get(ctx, key)
	if err != nil {
		return Renewed{}, err
	}
	expires, warnings, err := b.renewable(l, increment)
	if err != nil {
		return Renewed{}, err
	}
	m, there := b.Find(l.Namespace, l.Mount())
	if !there {
		return Renewed{}, errNoMount()
	}
	asked := *l
	asked.Expires = expires
	extending, stop := context.WithTimeout(ctx, MakeTimeout)
	defer stop()
	// First outside: should it fail, the lease ends when it would have.
	if err := m.Spec.Extend(extending, m.State, asked.leased()); err != nil {
		return Renewed{}, err
	}
	_, err = b.Engine.Update(ctx, func(t storage.Txn) error {
		if l, err = find(t, key); err != nil || l.Ending != nil {
			return fault.New(fault.Invalid, "lease not found: it ended while it was renewed")
		}
		l.Expires, l.Renewed = expires, time.Now().UTC()
		if err := put(t, l); err != nil {
			return err
		}
		return b.queue.Schedule(t, key, expires)
	})
	return Renewed{l, warnings}, err
}

// renewable returns until when a lease can be renewed.
func (b *Book) renewable(l *Lease, increment time.Duration) (time.Time, []string, error) {
	now := time.Now().UTC()
	switch {
	case l.Ending != nil, !l.Expires.After(now):
		return now, nil, fault.New(fault.Invalid, "lease not found: it has ended")
	case !l.Renewable:
		return now, nil, fault.New(fault.Invalid, "lease is not renewable")
	case increment < 0:
		return now, nil, fault.New(fault.Invalid, "increment cannot be negative")
	}
	ttl, warnings, err := l.Terms.Left(b.Server, increment, l.Issued, now)
	if err != nil {
		return now, nil, err
	}
	expires := now.Add(ttl)
	if capped := soonest(expires, l.Until); capped.Before(expires) {
		expires, warnings = capped, append(warnings, "the lease lasts no longer than the batch token that it was lent to")
	}
	return expires, warnings, nil
}

func errNoMount() error {
	return fault.New(fault.Unavailable, "the mount of this lease is not open on this node; see sys/mounts and the server's log")
}
