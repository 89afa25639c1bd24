package userpass

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
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

// gateSlots is how many passwords are hashed at once.
func gateSlots() int { return min(4, max(1, runtime.GOMAXPROCS(0))) }

// gate lets logins through: one at a time for each name, so that guesses made at
// once are counted like guesses made in turn, and a few for all.
type gate struct {
	slots chan struct{}

	mu    sync.Mutex
	all   int
	names map[string]*queue

	hashed atomic.Uint64 // passwords hashed
}

type queue struct {
	turn chan struct{}
	here int
}

func newGate() *gate {
	return &gate{slots: make(chan struct{}, gateSlots()), names: map[string]*queue{}}
}

// enter waits until it is the name's turn. leave must be called.
func (g *gate) enter(ctx context.Context, name string) (leave func(), err error) {
	g.mu.Lock()
	q := g.names[name]
	if g.all >= maxLogins || q != nil && q.here >= maxOfName {
		g.mu.Unlock()
		refused := fault.New(fault.Limited, "too many logins are under way; try again in a moment")
		refused.RetryAfter = retry
		return nil, refused
	}
	if q == nil {
		q = &queue{turn: make(chan struct{}, 1)}
		g.names[name] = q
	}
	g.all++
	q.here++
	g.mu.Unlock()
	out := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
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

// work runs fn, which hashes a password, when there is a slot.
func (g *gate) work(ctx context.Context, fn func()) error {
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-g.slots }()
	g.hashed.Add(1)
	fn()
	return nil
}
