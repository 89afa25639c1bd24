package lease_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// shaky is a store as one node sees it: calls fail now and then, before or after
// they took effect, and all of them once the node is dead.
type shaky struct {
	storage.Engine
	mu    sync.Mutex
	calls int
	dieAt int // the call at which the node dies; 0: it lives
	when  int // 0: before the call, 1: after it
	fail  func() int
	dead  bool
}

var errDead = fmt.Errorf("the node is dead: %w", storage.ErrUnavailable)

// step returns what happens to a call: 0 nothing, 1 it fails, 2 it takes effect and
// that is not told.
func (s *shaky) step() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return 1
	}
	if s.calls++; s.calls == s.dieAt {
		s.dead = true
		return 1 + s.when
	}
	if s.fail != nil {
		return s.fail()
	}
	return 0
}

func (s *shaky) View(ctx context.Context, fn func(storage.Reader) error) error {
	if s.step() != 0 {
		return errDead
	}
	return s.Engine.View(ctx, fn)
}

func (s *shaky) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	switch s.step() {
	case 1:
		return 0, errDead
	case 2:
		_, _ = s.Engine.Update(ctx, fn)
		return 0, storage.ErrUncertain
	}
	return s.Engine.Update(ctx, fn)
}

func (s *shaky) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.dead
}

// TestCrashBetweenEveryTwoSteps kills a node before and after each of its calls to
// the store, and before and after each of its calls to the bank, while it lends and
// takes back. Another node goes on. In the end there is no account, and no row.
func TestCrashBetweenEveryTwoSteps(t *testing.T) {
	tried := 0
	for when := range 2 {
		// The first steps are of lending and taking back; later ones are mostly the
		// workers' looking whether something is due.
		for step := 1; ; step += 1 + step/20 {
			died := false
			synctest.Test(t, func(t *testing.T) { died = crashAt(t, step, when) })
			if t.Failed() {
				t.Fatalf("the node died at step %d, %s it", step, []string{"before", "after"}[when])
			}
			if !died {
				break
			}
			tried++
		}
	}
	t.Logf("%d crashes", tried)
	if tried < 80 {
		t.Errorf("only %d crashes were tried", tried)
	}
}

// crashAt lends, renews and revokes on a node that dies at a step, and returns
// whether it did.
func crashAt(t *testing.T, step, when int) bool {
	b, store := newBank(), memory.New()
	// The calls to the bank are steps, too.
	first := &shaky{Engine: store, dieAt: step, when: when}
	one := enginetest.Open(t, kindOn(b, first), enginetest.Options{Storage: first, Mount: engine.Mount{Path: "bank/"}})
	stop := one.Work(t)
	life, crash := context.WithCancel(t.Context())
	go func() {
		for first.alive() && life.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		crash()
	}()
	by := enginetest.Root()
	lend := func(name string) string {
		a := one.DoContext(life, by, "POST", "creds/"+name, `{"ttl":120}`)
		if a.Err != nil || a.Notes.Lease == nil {
			return ""
		}
		return a.Notes.Lease.Key
	}
	a, z := lend("a"), lend("z")
	if a != "" {
		_, _ = one.Leases().Renew(life, a, 0)
	}
	if z != "" {
		_ = one.Leases().Revoke(life, z, true)
	}
	_ = one.DoContext(life, by, "POST", "creds/late", `{"ttl":120,"break_late":"GRANT failed"}`)
	select {
	case <-life.Done():
	case <-time.After(3 * time.Minute): // a ends by its time
	}
	died := !first.alive()
	crash()
	stop()
	b.step = nil
	two := enginetest.Open(t, kind(b), enginetest.Options{Storage: store, Mount: engine.Mount{Path: "bank/"}})
	stop = two.Work(t)
	time.Sleep(10 * time.Minute)
	place{two, b, store}.clean(t)
	stop()
	return died
}

// TestAnything lends, renews, revokes and ends tokens at random while the bank and
// the store fail at random. Whatever happened, in the end there is no account and no
// row; and before, no account is without a row.
func TestAnything(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) { anything(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func anything(t *testing.T, seed uint64) {
	draw := rand.New(rand.NewPCG(seed, 7))
	b, store := newBank(), memory.New()
	var mu sync.Mutex
	chance := 0.0
	sh := &shaky{Engine: store}
	sh.fail = func() int {
		mu.Lock()
		defer mu.Unlock()
		if draw.Float64() < chance {
			return 1 + draw.IntN(2)
		}
		return 0
	}
	risk := func(p float64) { mu.Lock(); chance = p; mu.Unlock() }
	e := enginetest.Open(t, kind(b), enginetest.Options{Storage: sh, Mount: engine.Mount{Path: "bank/"}})
	stop := e.Work(t)
	ctx, p := t.Context(), place{e, b, store}
	pick := rand.New(rand.NewPCG(seed, 9))
	var keys []string
	var wait sync.WaitGroup
	for i := range 150 {
		risk(0.05)
		by := enginetest.Root()
		by.TokenID = fmt.Sprint("t", pick.IntN(4))
		switch pick.IntN(8) {
		case 0, 1, 2:
			if a := e.DoContext(ctx, by, "POST", fmt.Sprint("creds/n", i), fmt.Sprintf(`{"ttl":%d}`, 30+pick.IntN(600))); a.Err == nil {
				keys = append(keys, a.Notes.Lease.Key)
			}
		case 3:
			b.set([]error{nil, nil, errors.New("refused"), fault.New(fault.Unavailable, "away")}[pick.IntN(4)])
		case 4:
			_ = e.Leases().EndOf(ctx, by.TokenID)
		case 5, 6:
			if len(keys) > 0 {
				key, now, renew := keys[pick.IntN(len(keys))], pick.IntN(2) == 0, pick.IntN(2) == 0
				wait.Go(func() {
					if renew {
						_, _ = e.Leases().Renew(ctx, key, 0)
					} else {
						_ = e.Leases().Revoke(ctx, key, now)
					}
				})
			}
		case 7:
			time.Sleep(time.Duration(pick.IntN(120)) * time.Second)
		}
		if names, rows := b.names(), p.rows(t); len(names) > 0 && len(rows) == 0 {
			t.Fatalf("accounts %q have no lease", names)
		}
		p.counts(t)
	}
	wait.Wait()
	risk(0)
	b.set(nil)
	// What was set aside is for people.
	trouble, err := e.Leases().Troubled(ctx, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range trouble {
		if err := e.Leases().Revoke(ctx, l.Key, false); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(30 * time.Minute)
	p.clean(t)
	stop()
}

// kindOn is kind whose calls to the bank are steps of a node, too.
func kindOn(b *bank, node *shaky) *engine.Spec {
	b.step = func() (before, after error) {
		switch node.step() {
		case 1:
			return errDead, nil
		case 2:
			return nil, errDead
		}
		return nil, nil
	}
	return kind(b)
}
