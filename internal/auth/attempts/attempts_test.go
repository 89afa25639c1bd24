package attempts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errWrong = errors.New("wrong")

func newGuard(t testing.TB, e storage.Engine, o Options) *Guard {
	t.Helper()
	g, err := New(Mount{ID: "m", Storage: e, Fingerprint: func(b []byte) string {
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:])
	}}, o, NewGate())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// attempt is one whose proof comes to ok and err.
func attempt(g *Guard, who Known, ok bool, err error) error {
	return g.Try(context.Background(), errWrong,
		func(context.Context) (Known, error) { return who, nil },
		func(context.Context) (bool, error) { return ok, err })
}

// Failures are counted, and errors are not; a success starts anew; a lock outlives the
// process, and ends by time or by hand.
func TestTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New()
		defer e.Close()
		away := errors.New("away")
		for _, who := range []Known{{"ada", true}, {"nobody", false}} {
			g := newGuard(t, e, Options{Threshold: "3", Duration: "10m"})
			fail := func(n int) {
				t.Helper()
				for range n {
					if err := attempt(g, who, false, nil); !errors.Is(err, errWrong) {
						t.Errorf("%+v: %v", who, err)
					}
				}
			}
			fail(2)
			for range 10 {
				if err := attempt(g, who, false, away); !errors.Is(err, away) {
					t.Error(err)
				}
			}
			if err := attempt(g, who, true, nil); err != nil {
				t.Error(err)
			}
			fail(3)
			for range 2 {
				g = newGuard(t, e, Options{Threshold: "3", Duration: "10m"})
				if err := attempt(g, who, true, nil); !fault.Is(err, fault.Denied) {
					t.Errorf("%+v is not locked: %v", who, err)
				}
			}
			locked, err := g.Locked(t.Context())
			if who.Exists && (err != nil || len(locked.Keys) != 1 || locked.Keys[0] != "ada") || !who.Exists && !fault.Is(err, fault.NotFound) {
				t.Errorf("%+v: %v %v", who, locked, err)
			}
			if err := g.Unlock(t.Context(), who.Name); err != nil {
				t.Fatal(err)
			}
			fail(3)
			time.Sleep(10 * time.Minute)
			if err := attempt(g, who, true, nil); err != nil {
				t.Errorf("after the lock: %v", err)
			}
		}
	})
}

// However many names are guessed, the rows are bounded.
func TestRowsAreBounded(t *testing.T) {
	g := newGuard(t, memory.New(), Options{})
	defer g.storage.Close()
	seen := map[string]bool{}
	for i := range 300_000 {
		seen[g.key(Known{fmt.Sprint(i), false})] = true
	}
	if len(seen) > 1<<16 {
		t.Errorf("%d rows", len(seen))
	}
}

// A flood is refused at once beyond the bounds, of all and of one name.
func TestFloodIsBounded(t *testing.T) {
	g := NewGate()
	var out []func()
	for range maxLogins {
		leave, err := g.admit()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, leave)
	}
	if _, err := g.admit(); !fault.Is(err, fault.Limited) || fault.From(err).RetryAfter == 0 {
		t.Errorf("beyond the bound: %v", err)
	}
	for _, leave := range out {
		leave()
	}
	if g.all != 0 {
		t.Errorf("%d left behind", g.all)
	}
}

func TestOneNameCannotFillTheGate(t *testing.T) {
	g := NewGate()
	ctx, cancel := context.WithCancel(t.Context())
	leave, err := g.turn(ctx, "bob")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var refused atomic.Int64
	for range 100 {
		wg.Go(func() {
			if _, err := g.turn(ctx, "bob"); fault.Is(err, fault.Limited) {
				refused.Add(1)
			}
		})
	}
	for refused.Load() < 100-maxOfName+1 {
		time.Sleep(time.Millisecond)
	}
	other, err := g.turn(ctx, "alice")
	if err != nil {
		t.Errorf("another name: %v", err)
	} else {
		other()
	}
	cancel()
	wg.Wait()
	leave()
	if len(g.names) != 0 {
		t.Errorf("%d names left behind", len(g.names))
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Threshold: "x"}, {Threshold: "-1"}, {Duration: "x"}, {Duration: "-1s"}, {CounterReset: "1y"}, {Disable: "maybe"}} {
		if _, err := o.lockout(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
