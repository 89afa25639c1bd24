package barrier

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

const (
	// CacheBound is how far at most an answer from memory is behind the engine.
	CacheBound = time.Second
	// remarkAfter is how old a mark gets before the next is taken.
	remarkAfter = CacheBound / 10
	// probeBound is how long an engine is waited for before an answer that may be
	// stale is given instead.
	probeBound = time.Second
)

// pulse says how old what this node holds in memory may be.
type pulse struct {
	epoch     time.Time    // carries the monotonic clock
	right     atomic.Int64 // nanoseconds after epoch at which memory was last known to be as the store was
	following atomic.Bool  // the watch reports
	away      atomic.Bool  // the engine did not answer when it was last asked
}

// now is the time since epoch; never 0.
func (p *pulse) now() int64 { return int64(time.Since(p.epoch)) }

// fresh reports whether memory may answer.
func (p *pulse) fresh() bool {
	return p.following.Load() && p.now()-p.right.Load() < int64(CacheBound)
}

// mark pairs a time with a revision that no commit acknowledged before that
// time exceeds. When the watch has reported the revision, memory was right at
// that time, however late the report came.
type mark struct {
	revision storage.Revision
	time     int64 // nanoseconds after the pulse's epoch
}

func (b *Barrier) mark(ctx context.Context) (mark, error) {
	m := mark{time: b.pulse.now()}
	err := b.engine.View(ctx, func(r storage.Reader) error {
		m.revision = r.Revision()
		return nil
	})
	return m, err
}

// Behind returns how long ago what this node holds in memory was last known to be
// as the store was. Beyond CacheBound nothing is answered from memory, except
// where AllowStale says so.
func (b *Barrier) Behind() time.Duration {
	return time.Duration(b.pulse.now() - b.pulse.right.Load())
}

// Fresh reports whether what this node holds in memory was right less than
// CacheBound ago.
func (b *Barrier) Fresh() bool { return b.pulse.fresh() }

// Reached returns nil while the watch is fresh, and otherwise what the engine says
// when it is asked.
func (b *Barrier) Reached(ctx context.Context) error {
	if b.pulse.fresh() {
		return nil
	}
	_, err := b.mark(ctx)
	return err
}

// Stale allows answers from memory while the engine is away, and says how old
// they were.
type Stale struct {
	Grace time.Duration // how old what is answered may be
	age   atomic.Int64
}

// Age returns how old at most what was answered was, 0 when nothing was stale.
func (s *Stale) Age() time.Duration { return time.Duration(s.age.Load()) }

type staleKey struct{}

// AllowStale returns a context whose reads may be answered as s says.
func AllowStale(ctx context.Context, s *Stale) context.Context {
	return context.WithValue(ctx, staleKey{}, s)
}

// Current makes sure that what a subscriber keeps in memory is as the store has
// it: it does nothing while the watch is fresh, and calls reload otherwise. When
// the engine is away it returns nil where ctx allows stale answers.
func (b *Barrier) Current(ctx context.Context, reload func(context.Context) error) error {
	if b.pulse.fresh() {
		return nil
	}
	return b.stale(ctx, reload)
}

// stale calls read, which asks the engine. When the engine is away, and what is in
// memory may be used all the same, it notes that and returns nil.
func (b *Barrier) stale(ctx context.Context, read func(context.Context) error) error {
	s, _ := ctx.Value(staleKey{}).(*Stale)
	if s == nil {
		return read(ctx)
	}
	err := error(storage.ErrUnavailable)
	if !b.pulse.away.Load() {
		bounded, cancel := context.WithTimeout(ctx, probeBound)
		err = read(bounded)
		cancel()
	}
	gone := errors.Is(err, storage.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
	if !gone || ctx.Err() != nil || b.session.Load() == nil {
		return err
	}
	b.pulse.away.Store(true)
	age := b.Behind()
	if age >= s.Grace {
		return err
	}
	s.age.Store(max(s.age.Load(), int64(age)))
	return nil
}
