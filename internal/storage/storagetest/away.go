package storagetest

import (
	"context"
	"fmt"
	"sync"

	"github.com/cofferhq/coffer/internal/storage"
)

// Away is an engine that tests can make unreachable.
type Away struct {
	storage.Engine
	mu   sync.Mutex
	gone chan struct{} // closed while the engine is away
}

// NewAway returns an engine that can be reached.
func NewAway(e storage.Engine) *Away { return &Away{Engine: e, gone: make(chan struct{})} }

// Set makes the engine unreachable, or reachable again.
func (a *Away) Set(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.gone:
		if !away {
			a.gone = make(chan struct{})
		}
	default:
		if away {
			close(a.gone)
		}
	}
}

func (a *Away) leaving() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.gone
}

func (a *Away) err() error {
	select {
	case <-a.leaving():
		return fmt.Errorf("dial: %w", storage.ErrUnavailable)
	default:
		return nil
	}
}

// View implements storage.Engine.
func (a *Away) View(ctx context.Context, fn func(storage.Reader) error) error {
	if err := a.err(); err != nil {
		return err
	}
	return a.Engine.View(ctx, fn)
}

// Update implements storage.Engine.
func (a *Away) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if err := a.err(); err != nil {
		return 0, err
	}
	return a.Engine.Update(ctx, fn)
}

// Watch implements storage.Engine.
func (a *Away) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	if err := a.err(); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	gone := a.leaving()
	go func() {
		select {
		case <-gone:
			stop()
		case <-watching.Done():
		}
	}()
	err := a.Engine.Watch(watching, prefix, from, fn)
	if ctx.Err() == nil && watching.Err() != nil {
		return fmt.Errorf("watch: %w", storage.ErrUnavailable)
	}
	return err
}
