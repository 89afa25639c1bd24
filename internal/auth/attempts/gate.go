package attempts

import (
	"context"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// Bounds of the logins under way, so that a flood of them costs neither the
// memory nor the processors that the rest of the server needs. Beyond them a
// login is refused at once with 429.
const (
	maxLogins = 256 // waiting or running
	maxOfName = 16  // of them for one name
	retry     = time.Second
)

// Gate lets logins through: one at a time for each name, so that guesses made at
// once are counted like guesses made in turn, and so many for all. All mounts of a
// kind share one.
type Gate struct {
	mu    sync.Mutex
	all   int
	names map[string]*queue
}

type queue struct {
	turn chan struct{}
	here int
}

// NewGate returns a gate that nobody is in.
func NewGate() *Gate { return &Gate{names: map[string]*queue{}} }

func limited() error {
	refused := fault.New(fault.Limited, "too many logins are under way; try again in a moment")
	refused.RetryAfter = retry
	return refused
}

// admit counts a login among all. leave must be called.
func (g *Gate) admit() (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= maxLogins {
		return nil, limited()
	}
	g.all++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
	}, nil
}

// turn waits until it is the name's turn. done must be called.
func (g *Gate) turn(ctx context.Context, name string) (done func(), err error) {
	g.mu.Lock()
	q := g.names[name]
	if q != nil && q.here >= maxOfName {
		g.mu.Unlock()
		return nil, limited()
	}
	if q == nil {
		q = &queue{turn: make(chan struct{}, 1)}
		g.names[name] = q
	}
	q.here++
	g.mu.Unlock()
	out := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if q.here--; q.here == 0 {
			delete(g.names, name)
		}
	}
	select {
	case q.turn <- struct{}{}:
		return func() { <-q.turn; out() }, nil
	case <-ctx.Done():
		out()
		return nil, ctx.Err()
	}
}
