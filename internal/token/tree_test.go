package token

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"pgregory.net/rapid"
)

// modelToken is a token as the model of the tree sees it.
type modelToken struct {
	secret  string
	tok     *Token
	parent  *modelToken
	ended   bool
	expires time.Time
}

func (m *modelToken) holds(now time.Time) bool {
	for t := m; t != nil; t = t.parent {
		if t.ended || !t.expires.IsZero() && !now.Before(t.expires) {
			return false
		}
	}
	return true
}

// treeMachine does random things to a store and a model of it.
type treeMachine struct {
	ctx    context.Context
	t      *testing.T
	engine storage.Engine
	s      *Store
	all    []*modelToken
}

func (m *treeMachine) any(rt *rapid.T) *modelToken {
	return m.all[rapid.IntRange(0, len(m.all)-1).Draw(rt, "token")]
}

func (m *treeMachine) create(rt *rapid.T) {
	parent := m.any(rt)
	r := Request{Policies: []string{"p"}, Terms: lifetime.Terms{TTL: time.Duration(rapid.IntRange(1, 40).Draw(rt, "minutes")) * time.Minute}}
	switch rapid.IntRange(0, 5).Draw(rt, "kind") {
	case 0:
		r.Type = Batch
	case 1:
		r.Orphan = true
	case 2:
		r.Terms = lifetime.Terms{Period: 10 * time.Minute}
	}
	now := time.Now()
	secret, tok, err := m.s.Create(m.ctx, parent.tok, r)
	child := &modelToken{secret: secret.Reveal(), tok: tok}
	if !r.Orphan {
		child.parent = parent
	}
	allowed := parent.tok.Type == Service && parent.holds(now)
	switch {
	case err == nil && !allowed:
		rt.Fatalf("created a token below one that does not hold")
	case err != nil && allowed && parent.tok.Depth < MaxDepth:
		rt.Fatalf("Create: %v", err)
	case err == nil:
		child.expires = tok.ExpiresAt
		m.all = append(m.all, child)
	}
}

func (m *treeMachine) revoke(rt *rapid.T) {
	x := m.any(rt)
	if x.tok.Type == Batch {
		return
	}
	if err := m.s.Revoke(m.ctx, x.tok.ID); err != nil {
		rt.Fatalf("Revoke: %v", err)
	}
	x.ended = true
}

func (m *treeMachine) revokeOrphan(rt *rapid.T) {
	x := m.any(rt)
	if x.tok.Type == Batch {
		return
	}
	err := m.s.RevokeOrphan(m.ctx, x.tok.ID)
	if held := x.holds(time.Now()); held != (err == nil) {
		rt.Fatalf("RevokeOrphan: %v, though the token holds: %v", err, held)
	}
	if err != nil {
		return
	}
	x.ended = true
	for _, c := range m.all {
		if c.parent == x && c.tok.Type == Service {
			c.parent = nil
		}
	}
}

func (m *treeMachine) renew(rt *rapid.T) {
	x := m.any(rt)
	out, err := m.s.Renew(m.ctx, x.tok.ID, Renewal{Increment: time.Duration(rapid.IntRange(0, 60).Draw(rt, "increment")) * time.Minute})
	held := x.tok.Type == Service && x.tok.Renewable && x.holds(time.Now())
	if held != (err == nil) {
		rt.Fatalf("Renew: %v, though the token holds: %v", err, held)
	}
	if err == nil {
		x.expires = out.Token.ExpiresAt
	}
}

func (m *treeMachine) wait(rt *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 15).Draw(rt, "minutes")) * time.Minute)
}

func (m *treeMachine) tidy(rt *rapid.T) {
	if err := m.s.Tidy(m.ctx); err != nil {
		rt.Fatalf("Tidy: %v", err)
	}
}

func (m *treeMachine) reopen(*rapid.T) { m.s = open(m.t, m.engine) }

// check compares every token with the model.
func (m *treeMachine) check(rt *rapid.T) {
	now := time.Now()
	for i, x := range m.all {
		_, err := m.s.Lookup(m.ctx, x.secret)
		if err != nil && !fault.Is(err, fault.Denied) {
			rt.Fatalf("Lookup: %v", err)
		}
		if want := x.holds(now); want != (err == nil) {
			rt.Fatalf("token %d (%s) holds: %v, want %v", i, x.tok.Type, err == nil, want)
		}
	}
}

// bubbled is a test in a synctest bubble, which must not be asked its deadline.
type bubbled struct{ rapid.TB }

// After any sequence of creations, revocations, renewals and waiting, a token
// holds exactly when the model says so, before and after tidying, and in the
// end no row is left of a token that does not hold.
func TestTreeAgreesWithItsModel(t *testing.T) {
	rounds := 5
	if os.Getenv("COFFER_SOAK") == "1" {
		rounds = 500
	}
	for range rounds { // a round ends after a day of the bubble's time
		agrees(t)
	}
}

func agrees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubbled{t}, func(rt *rapid.T) {
			engine := memory.New()
			defer engine.Close()
			m := &treeMachine{ctx: t.Context(), t: t, engine: engine, s: open(t, engine)}
			secret, tok := root(t, m.s)
			m.all = append(m.all, &modelToken{secret: secret, tok: tok})
			rt.Repeat(map[string]func(*rapid.T){
				"create": m.create, "create2": m.create, "create3": m.create, "revoke": m.revoke,
				"revokeOrphan": m.revokeOrphan, "renew": m.renew, "wait": m.wait, "tidy": m.tidy, "reopen": m.reopen,
				"": m.check,
			})
			m.tidy(rt)
			m.check(rt)
			left := 0
			for _, x := range m.all {
				if x.tok.Type == Service && x.holds(time.Now()) {
					left++
				}
			}
			got := rows(t, m.s)
			if got["id"] != left || got["accessor"] != left || got["ending"] != 0 || got["orphan"] != 0 {
				rt.Fatalf("%d tokens hold, rows left: %v", left, got)
			}
		})
	})
}

// failing is an engine whose n-th Update from now fails, before or after it was
// committed, and every one after it: the process is dead.
type failing struct {
	storage.Engine
	left  int
	after bool
}

var errDead = errors.New("the process is dead")

func (f *failing) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	switch f.left--; {
	case f.left > 0:
		return f.Engine.Update(ctx, fn)
	case f.left == 0 && f.after:
		if rev, err := f.Engine.Update(ctx, fn); err != nil {
			return rev, err
		}
	}
	return 0, errDead
}

// The process dies at every single Update of the revocation of a tree of 1,000
// tokens and of the removal of its rows, before its commit and after it, and is
// started anew each time. At every such point either the whole tree holds or
// none of it, and in the end no row of it is left.
func TestRevokeTreeSurvivesACrashAnywhere(t *testing.T) {
	const tokens = 1000
	engine := memory.New()
	defer engine.Close()
	s := open(t, engine)
	_, top := root(t, s)
	_, victim := issue(t, s, top, Request{Policies: []string{"a"}})
	bystander, _ := issue(t, s, top, Request{Policies: []string{"a"}})
	family := []*Token{victim}
	var secrets []string
	for i := range tokens - 1 {
		parent := family[i/20] // wide enough that one Update cannot remove a token's children
		if i%100 == 99 {
			parent = family[len(family)-1]
		}
		secret, tok := issue(t, s, parent, Request{Policies: []string{"a"}})
		secrets, family = append(secrets, secret), append(family, tok)
	}
	revoked := false
	check := func(n int) {
		t.Helper()
		s := open(t, engine)
		for i := n % 5; i < len(secrets); i += 5 { // over five crashes each token is looked at
			if holdsNow(t.Context(), t, s, secrets[i]) == revoked {
				t.Fatalf("after crash %d token %d holds: %v", n, i, !revoked)
			}
		}
		if !holdsNow(t.Context(), t, s, bystander) {
			t.Fatal("a token beside the tree ended with it")
		}
	}
	// die runs fn in a process that dies at its first Update, and says whether
	// it came to its end without one.
	die := func(after bool, fn func(*Store) error) bool {
		t.Helper()
		s := open(t, engine)
		s.storage = &failing{Engine: engine, left: 1, after: after}
		err := fn(s)
		if err != nil && !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		return err == nil
	}
	revoke := func(s *Store) error { return s.Revoke(t.Context(), victim.ID) }
	die(false, revoke)
	check(0)
	die(true, revoke)
	revoked = true
	check(1)
	crashes := 2
	for ; ; crashes++ {
		die(false, func(s *Store) error { return s.Tidy(t.Context()) })
		before := rows(t, s)
		die(true, func(s *Store) error { return s.Tidy(t.Context()) })
		check(crashes)
		if after := rows(t, s); after["id"] == 2 && after["ending"] == 0 {
			break
		} else if crashes > 2000 {
			t.Fatalf("no end in sight: rows %v, then %v", before, after)
		}
	}
	if got := rows(t, s); got["child"] != 1 || got["accessor"] != 2 || got["due"] != 1 {
		t.Errorf("rows left: %v", got)
	}
	if crashes < 60 {
		t.Errorf("only %d crashes: the pieces are too large to be resumable", crashes)
	}
}

// The same for a parent whose children are made orphans.
func TestRevokeOrphanSurvivesACrashAnywhere(t *testing.T) {
	const children = 70
	for n := 1; ; n++ {
		engine := memory.New()
		s := open(t, engine)
		_, top := root(t, s)
		parentSecret, parent := issue(t, s, top, Request{Policies: []string{"a"}})
		var secrets []string
		var below []string
		for range children {
			secret, tok := issue(t, s, parent, Request{Policies: []string{"a"}})
			secrets = append(secrets, secret)
			secret, _ = issue(t, s, tok, Request{Type: Batch, Policies: []string{"a"}})
			below = append(below, secret)
		}
		s.storage = &failing{Engine: engine, left: n}
		revoked := s.RevokeOrphan(t.Context(), parent.ID)
		err := revoked
		if err == nil {
			err = s.Tidy(t.Context())
		}
		again := open(t, engine)
		for range 2 {
			if holdsNow(t.Context(), t, again, parentSecret) != (revoked != nil) {
				t.Fatalf("crash at update %d: the parent holds: %v", n, revoked == nil)
			}
			for i := range secrets {
				if !holdsNow(t.Context(), t, again, secrets[i]) || !holdsNow(t.Context(), t, again, below[i]) {
					t.Fatalf("crash at update %d: child %d ended", n, i)
				}
			}
			if err := again.Tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		_ = engine.Close()
		if err == nil {
			return
		}
		if !errors.Is(err, errDead) {
			t.Fatal(err)
		}
	}
}

func TestOrphanedChildShowsIt(t *testing.T) {
	s := newStore(t)
	_, top := root(t, s)
	_, parent := issue(t, s, top, Request{})
	secret, child := issue(t, s, parent, Request{})
	for _, step := range []func() error{
		func() error { return s.RevokeOrphan(t.Context(), parent.ID) },
		func() error { return s.Tidy(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		tok, err := s.Lookup(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		if orphan, err := s.Orphaned(t.Context(), tok); err != nil || !orphan {
			t.Errorf("Orphaned: %v, %v", orphan, err)
		}
	}
	// Revoking the grandparent later does not reach it.
	if err := s.Revoke(t.Context(), top.ID); err != nil {
		t.Fatal(err)
	}
	if !holdsNow(t.Context(), t, s, secret) {
		t.Error("the orphan ended with its former grandparent")
	}
	_ = child
}

func TestDepthLimit(t *testing.T) {
	s := newStore(t)
	_, tok := root(t, s)
	for range MaxDepth {
		_, tok = issue(t, s, tok, Request{Policies: []string{"a"}})
	}
	if _, _, err := s.Create(t.Context(), tok, Request{Policies: []string{"a"}}); !fault.Is(err, fault.Invalid) {
		t.Fatalf("one more: %v", err)
	}
	if _, _, err := s.Create(t.Context(), tok, Request{Policies: []string{"a"}, Orphan: true}); err != nil {
		t.Errorf("an orphan from the deepest: %v", err)
	}
}

// Ended is told every token of a tree, and again when it failed.
func TestEndedIsToldUntilItSucceeds(t *testing.T) {
	engine := memory.New()
	defer engine.Close()
	told := map[string]int{}
	refuse := true
	s, err := NewStore(t.Context(), Options{
		Storage: engine, Defaults: func() (time.Duration, time.Duration) { return testDefault, testMax },
		Ended: func(_ context.Context, _, id string) error {
			if refuse && len(told) == 3 {
				return fmt.Errorf("not now")
			}
			told[id]++
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, top := root(t, s)
	ids := []string{top.ID}
	for range 9 {
		_, tok := issue(t, s, top, Request{Policies: []string{"a"}})
		ids = append(ids, tok.ID)
	}
	if err := s.Revoke(t.Context(), top.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Tidy(t.Context()); err == nil {
		t.Fatal("Tidy passed over a refusal")
	}
	refuse = false
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if told[id] == 0 {
			t.Errorf("Ended was not told of %s", id)
		}
	}
}
