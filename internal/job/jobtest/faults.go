package jobtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Fault is what happens to a node at one of its steps.
type Fault string

// The faults. A step is the moment before or after a View or an Update, or that
// between what a transaction did and its commit.
const (
	None        Fault = "none"
	Die         Fault = "die"         // every call from then on fails: the node is gone for good
	Unavailable Fault = "unavailable" // the call fails and nothing was written
	Uncertain   Fault = "uncertain"   // as after a connection broke: the outcome is not told
	Pause       Fault = "pause"       // nothing happens for long, and then it goes on
	Cut         Fault = "cut"         // every call fails for long, and then no more
)

// faulty is a node's engine that fails at one step.
type faulty struct {
	storage.Engine
	fault Fault
	at    int           // the step
	long  time.Duration // how long what is long takes

	mu    sync.Mutex
	steps int
	hit   string // at which step it happened
	until time.Time
	dead  context.CancelFunc
	life  context.Context
}

func newFaulty(e storage.Engine, fault Fault, at int, long time.Duration) *faulty {
	f := &faulty{Engine: e, fault: fault, at: at, long: long}
	f.life, f.dead = context.WithCancel(context.Background())
	return f
}

// step counts a step and does what is to happen at it.
func (f *faulty) step(what string) error {
	f.mu.Lock()
	f.steps++
	now := f.steps == f.at && f.fault != None
	if now {
		f.hit = what
		if f.fault == Die {
			f.dead()
		}
		if f.fault == Cut || f.fault == Pause {
			f.until = time.Now().Add(f.long)
		}
	}
	left := time.Until(f.until)
	f.mu.Unlock()
	switch {
	case f.life.Err() != nil:
		return fmt.Errorf("%w: killed", storage.ErrClosed)
	case left > 0 && f.fault == Pause: // whatever else the node does stops too
		time.Sleep(left)
	case left > 0:
		return fmt.Errorf("%w: cut off", storage.ErrUnavailable)
	case now && f.fault == Unavailable:
		return fmt.Errorf("%w: once", storage.ErrUnavailable)
	case now && f.fault == Uncertain:
		return fmt.Errorf("%w: once", storage.ErrUncertain)
	}
	return nil
}

// View implements storage.Engine.
func (f *faulty) View(ctx context.Context, fn func(storage.Reader) error) error {
	if err := f.step("before a view"); err != nil {
		return err
	}
	if err := f.Engine.View(ctx, fn); err != nil {
		return err
	}
	return f.step("after a view")
}

// Update implements storage.Engine.
func (f *faulty) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if err := f.step("before an update"); err != nil {
		return 0, err
	}
	rev, err := f.Engine.Update(ctx, func(t storage.Txn) error {
		if err := fn(t); err != nil {
			return err
		}
		return f.step("before a commit")
	})
	if err != nil {
		return rev, err
	}
	return rev, f.committed()
}

// committed is the step after a commit: what fails here is of unknown outcome.
func (f *faulty) committed() error {
	err := f.step("after a commit")
	if err != nil && f.life.Err() == nil {
		err = fmt.Errorf("%w: %v", storage.ErrUncertain, err)
	}
	return err
}

// Watch implements storage.Engine.
func (f *faulty) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	if err := f.step("before a watch"); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(f.life, stop)()
	return f.Engine.Watch(ctx, prefix, from, func(c storage.Commit) error {
		f.mu.Lock()
		left := time.Until(f.until)
		f.mu.Unlock()
		switch {
		case left > 0 && f.fault == Pause:
			time.Sleep(left)
		case left > 0:
			return storage.ErrUnavailable
		}
		return fn(c)
	})
}

// happened returns what was under way when the fault came, "" if it did not.
func (f *faulty) happened() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}
