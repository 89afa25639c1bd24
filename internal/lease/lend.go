package lease

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Lender lends in the name of one mount. It implements engine.Lender.
type Lender struct {
	Book  *Book
	Mount engine.Mount
	// Live returns an error when the mount is not there any more, in the
	// transaction that lends.
	Live func(r storage.Reader) error
}

// Lend implements engine.Lender.
func (m Lender) Lend(ctx context.Context, by route.Caller, loan engine.Loan, makeIt func(context.Context, engine.Leased) error) (route.Notes, error) {
	l, notes, err := m.draft(by, loan)
	if err != nil {
		return route.Notes{}, err
	}
	b := m.Book
	near, err := b.room(ctx, by, *l)
	if err != nil {
		return route.Notes{}, err
	}
	if _, err := b.Engine.Update(ctx, func(t storage.Txn) error {
		if err := m.Live(t); err != nil {
			return err
		}
		who, err := b.Borrower(t, by)
		if err != nil {
			return err
		}
		held := *l
		held.Token, held.Until = who.Token, who.Until.UTC()
		held.Expires, held.Counted = soonest(l.Expires, held.Until), 0
		*l = held
		if err := within(t, near); err != nil {
			return err
		}
		return b.add(t, l)
	}); err != nil {
		return route.Notes{}, err
	}
	making, stop := context.WithTimeout(ctx, MakeTimeout)
	err = makeIt(making, l.leased())
	stop()
	// What follows is done although the client may be gone.
	after := context.WithoutCancel(ctx)
	if err != nil {
		b.unmade(after, l, engine.MadeNothing(err))
		return route.Notes{}, err
	}
	if err := b.stray(after, l); err != nil {
		return route.Notes{}, err
	}
	notes.Lease = &route.Lease{ID: m.Mount.Path + strings.TrimPrefix(l.Key, m.Mount.UUID+"/"), Key: l.Key, TTL: l.Left(), Renewable: l.Renewable}
	return notes, nil
}

// draft is a lease on a loan, by the terms of its role and mount.
func (m Lender) draft(by route.Caller, loan engine.Loan) (*Lease, route.Notes, error) {
	var notes route.Notes
	if len(by.Path) > MaxPathBytes {
		return nil, notes, fault.New(fault.Invalid, "a path that lends may have at most %d bytes below its mount", MaxPathBytes)
	}
	data, err := json.Marshal(loan.Data)
	if err != nil {
		return nil, notes, err
	}
	if len(data) > engine.MaxLoanBytes {
		return nil, notes, fault.New(fault.Invalid, "what is to be kept of this lease has %d bytes, more than %d", len(data), engine.MaxLoanBytes)
	}
	now := time.Now().UTC()
	l := &Lease{
		Key:       m.Mount.UUID + "/" + by.Path + "/" + rand.Text(),
		Namespace: m.Mount.Namespace, Entity: by.EntityID, Issued: now, Renewable: loan.Renewable, Data: data,
		Terms: lifetime.Terms{TTL: loan.TTL, MaxTTL: loan.MaxTTL, MountDefault: m.Mount.DefaultTTL, MountMax: m.Mount.MaxTTL},
	}
	ttl, warnings, err := l.Terms.Left(m.Book.Server, 0, now, now)
	if err != nil {
		return nil, notes, err
	}
	l.Expires, notes.Warnings = now.Add(ttl), warnings
	return l, notes, nil
}

// soonest returns the sooner of two times; b zero is none.
func soonest(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// unmade ends a lease whose making failed.
func (b *Book) unmade(ctx context.Context, l *Lease, nothing bool) {
	_, err := b.Engine.Update(ctx, func(t storage.Txn) error {
		now, err := find(t, l.Key)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if !nothing {
			return b.end(t, now, Unmade, time.Now())
		}
		if err := drop(t, now); err != nil {
			return err
		}
		return b.queue.Cancel(t, l.Key)
	})
	if err != nil {
		b.Log.Warn("what could not be made is taken back when its lease expires", "lease", l.Key, "error", err)
	}
}

// stray takes back what was made for a lease that ended meanwhile, and returns why
// it is not handed out; nil when the lease holds.
func (b *Book) stray(ctx context.Context, l *Lease) error {
	held := false
	if err := b.Engine.View(ctx, func(r storage.Reader) error {
		now, err := find(r, l.Key)
		held = err == nil && now.Ending == nil
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		return err
	}); err != nil || held {
		return err
	}
	if _, err := b.Engine.Update(ctx, func(t storage.Txn) error {
		again := *l
		again.Token, again.Entity, again.Counted = "", "", 0
		now, err := find(t, l.Key)
		if err == nil {
			again = *now
		} else if !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		return b.end(t, &again, Stray, time.Now())
	}); err != nil {
		b.Log.Error("what was made for a lease that had ended could not be noted", "lease", l.Key, "error", err)
	}
	return fault.New(fault.Conflict, "the lease ended while what it is for was made: its token or its mount was ended, or it was revoked; it is taken back")
}
