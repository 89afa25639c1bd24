package jwt

import (
	"net/netip"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// Anybody may begin a login in a browser, and each is a row until it ends, so their
// number is bounded: on each node, for each mount, in any stateLife.
const (
	maxBegun    = 10_000 // of all clients
	maxBegunOne = 500    // of one address, or one /64 of IPv6
)

// begun counts the logins that were begun, in windows of stateLife.
type begun struct {
	now func() time.Time

	mu     sync.Mutex
	since  time.Time
	window counts
	last   counts
}

type counts struct {
	all int
	one map[netip.Prefix]int
}

func newBegun(now func() time.Time) *begun { return &begun{now: now} }

// enter counts a login, or refuses it. The window before this one counts for as
// much of it as lies in the last stateLife.
func (b *begun) enter(from netip.Addr) error {
	from = from.Unmap().WithZone("")
	bits := from.BitLen()
	if from.Is6() {
		bits = 64
	}
	who, _ := from.Prefix(bits) // an address that there is none of is one, too
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	switch passed := now.Sub(b.since); {
	case passed >= 2*stateLife:
		b.since, b.last, b.window = now, counts{}, counts{}
	case passed >= stateLife:
		b.since, b.last, b.window = b.since.Add(stateLife), b.window, counts{}
	}
	share := 1 - float64(now.Sub(b.since))/float64(stateLife)
	if b.window.all+int(float64(b.last.all)*share) >= maxBegun || b.window.one[who]+int(float64(b.last.one[who])*share) >= maxBegunOne {
		f := fault.New(fault.Limited, "too many logins were begun in the last %v; try again later", stateLife)
		f.RetryAfter = time.Minute
		return f
	}
	if b.window.one == nil {
		b.window.one = map[netip.Prefix]int{}
	}
	b.window.all++
	b.window.one[who]++
	return nil
}
