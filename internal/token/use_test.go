package token

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// Of any number of requests at once exactly as many get through as the token
// has uses.
func TestUseLimitIsExact(t *testing.T) {
	s := newStore(t)
	const uses = 7
	secret, tok := issue(t, s, nil, Request{Policies: []string{"a"}, NumUses: uses})
	var through atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			seen, err := s.Lookup(t.Context(), secret)
			if err == nil {
				err = s.Use(t.Context(), seen)
			}
			switch {
			case err == nil:
				through.Add(1)
			case !fault.Is(err, fault.Denied):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if through.Load() != uses {
		t.Fatalf("%d requests got through, want %d", through.Load(), uses)
	}
	if holdsNow(t.Context(), t, s, secret) {
		t.Error("the token holds after its last use")
	}
	if self, err := s.Self(t.Context(), secret); err != nil || self.Accessor != tok.Accessor {
		t.Errorf("the last request cannot look itself up: %v", err)
	}
	if err := s.Release(t.Context(), tok); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Self(t.Context(), secret); !fault.Is(err, fault.Denied) {
		t.Errorf("after its release: %v", err)
	}
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := rows(t, s); len(left) != 0 {
		t.Errorf("rows left: %v", left)
	}
}

// A token that nobody released after its last use is swept.
func TestSpentTokenIsSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		_, tok := issue(t, s, nil, Request{Policies: []string{"a"}, NumUses: 1})
		if err := s.Use(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		if err := s.Use(t.Context(), tok); !fault.Is(err, fault.Denied) {
			t.Fatalf("second use: %v", err)
		}
		time.Sleep(lastUse)
		if err := s.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := rows(t, s); len(left) != 0 {
			t.Errorf("rows left: %v", left)
		}
	})
}

// Of 100 callers at once exactly one gets the response.
func TestUnwrapExactlyOnce(t *testing.T) {
	s := newStore(t)
	body := strings.Repeat("x", 1<<20)
	info, err := s.Wrap(t.Context(), WrapRequest{Body: []byte(body), TTL: time.Hour, CreationPath: "secret/data/a", WrappedAccessor: "acc"})
	if err != nil {
		t.Fatal(err)
	}
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			switch out, err := s.Unwrap(t.Context(), info.Token.Reveal()); {
			case err == nil && string(out.Body) == body && out.CreationPath == "secret/data/a":
				got.Add(1)
			case !fault.Is(err, fault.Invalid):
				t.Errorf("Unwrap: %v", err)
			}
		})
	}
	wg.Wait()
	if got.Load() != 1 {
		t.Fatalf("%d callers got the response", got.Load())
	}
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := rows(t, s); len(left) != 0 {
		t.Errorf("rows left: %v", left)
	}
}

// A crash before the commit leaves the response wrapped; after it the response
// is gone. In neither case does anyone get it twice.
func TestUnwrapAcrossACrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		s := newStore(t)
		engine := s.storage
		info, err := s.Wrap(t.Context(), WrapRequest{Body: []byte("{}"), TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		s.storage = &failing{Engine: engine, left: 1, after: after}
		if out, err := s.Unwrap(t.Context(), info.Token.Reveal()); err == nil || out.Body != nil {
			t.Fatalf("a dead process answered %q", out.Body)
		}
		_, err = open(t, engine).Unwrap(t.Context(), info.Token.Reveal())
		if (err == nil) == after {
			t.Errorf("crash after the commit: %v; then Unwrap: %v", after, err)
		}
	}
}

func TestWrapLookupAndRewrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		first, err := s.Wrap(t.Context(), WrapRequest{Body: []byte(`{"a":1}`), TTL: time.Minute, CreationPath: "cubbyhole/x"})
		if err != nil {
			t.Fatal(err)
		}
		secret := first.Token.Reveal()
		// It passes the gateway as the calling token too, which takes no use of it.
		tok, err := s.Lookup(t.Context(), secret)
		if err != nil || tok.Policies[0] != WrappingPolicy {
			t.Fatalf("Lookup: %+v, %v", tok, err)
		}
		if err := s.Use(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		info, err := s.WrapLookup(t.Context(), secret)
		if err != nil || info.CreationPath != "cubbyhole/x" || info.TTL.Duration() != time.Minute || info.Token != "" {
			t.Errorf("WrapLookup: %+v, %v", info, err)
		}
		time.Sleep(50 * time.Second)
		second, err := s.Rewrap(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Unwrap(t.Context(), secret); !fault.Is(err, fault.Invalid) {
			t.Errorf("the old token: %v", err)
		}
		time.Sleep(50 * time.Second)
		if out, err := s.Unwrap(t.Context(), second.Token.Reveal()); err != nil || string(out.Body) != `{"a":1}` {
			t.Errorf("the new token: %s, %v", out.Body, err)
		}
		late, err := s.Wrap(t.Context(), WrapRequest{Body: []byte("{}"), TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := s.Unwrap(t.Context(), late.Token.Reveal()); !fault.Is(err, fault.Invalid) {
			t.Errorf("after its time: %v", err)
		}
		if err := s.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := rows(t, s); len(left) != 0 {
			t.Errorf("rows left: %v", left)
		}
		// A token that wraps nothing is refused the same way.
		plain, _ := issue(t, s, nil, Request{Policies: []string{"a"}})
		for _, secret := range []string{"", plain, "hvb.x", strings.Repeat("x", 10000)} {
			if _, err := s.Unwrap(t.Context(), secret); !fault.Is(err, fault.Invalid) {
				t.Errorf("Unwrap(%.20q): %v", secret, err)
			}
		}
		if !holdsNow(t.Context(), t, s, plain) {
			t.Error("unwrapping a token that wraps nothing ended it")
		}
	})
}

func TestTooLarge(t *testing.T) {
	s := newStore(t)
	if _, err := s.Wrap(t.Context(), WrapRequest{Body: make([]byte, 2<<20), TTL: time.Hour}); !fault.Is(err, fault.TooLarge) {
		t.Errorf("Wrap: %v", err)
	}
	_, _, err := s.Create(t.Context(), nil, Request{Meta: map[string]string{"a": strings.Repeat("x", maxRow)}})
	if !fault.Is(err, fault.TooLarge) {
		t.Errorf("Create: %v", err)
	}
	if left := rows(t, s); len(left) != 0 {
		t.Errorf("rows: %v", left)
	}
}

func TestAccessorsArePaged(t *testing.T) {
	s := newStore(t)
	want := map[string]bool{}
	for range 25 {
		_, tok := issue(t, s, nil, Request{Policies: []string{"a"}})
		want[tok.Accessor] = true
	}
	after := ""
	for {
		page, err := s.Accessors(t.Context(), after, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			if !want[a] || a <= after {
				t.Errorf("accessor %s is foreign, or out of order", a)
			}
			delete(want, a)
			after = a
		}
		if len(page) < 10 {
			break
		}
	}
	if len(want) != 0 {
		t.Errorf("%d accessors were not listed", len(want))
	}
}

func TestByAccessor(t *testing.T) {
	s := newStore(t)
	secret, tok := issue(t, s, nil, Request{Policies: []string{"a"}})
	got, err := s.ByAccessor(t.Context(), tok.Accessor)
	if err != nil || got.ID != tok.ID {
		t.Fatalf("ByAccessor: %v, %v", got, err)
	}
	for _, bad := range []string{"", "nope", "a\x00b", strings.Repeat("a", 5000), "../id", tok.Accessor + "/x"} {
		if _, err := s.ByAccessor(t.Context(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("ByAccessor(%.20q): %v", bad, err)
		}
	}
	if err := s.RevokeAccessor(t.Context(), tok.Accessor); err != nil {
		t.Fatal(err)
	}
	if holdsNow(t.Context(), t, s, secret) {
		t.Error("the token outlived its revocation")
	}
	if err := s.RevokeAccessor(t.Context(), tok.Accessor); !fault.Is(err, fault.Invalid) {
		t.Errorf("again: %v", err)
	}
}

func TestChosenTokens(t *testing.T) {
	s := newStore(t)
	issue(t, s, nil, Request{ID: "dev-root", Policies: []string{"root"}, Initial: true})
	if !holdsNow(t.Context(), t, s, "dev-root") {
		t.Error("a chosen token does not hold")
	}
	for _, bad := range []string{"dev-root", "hvs.x", "s.x", "a.b", "a b", "a\nb", "\xff", strings.Repeat("x", 300)} {
		if _, _, err := s.Create(t.Context(), nil, Request{ID: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("chosen %q: %v", bad, err)
		}
	}
}

// Tokens are made and ended at once below one parent; none that was made before
// the parent's end, nor after it, holds.
func TestCreateRacesRevoke(t *testing.T) {
	s := newStore(t)
	_, top := root(t, s)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var made []string
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				secret, _, err := s.Create(t.Context(), top, Request{Policies: []string{fmt.Sprint("p", i)}})
				if err != nil {
					if !fault.Is(err, fault.Denied) {
						t.Errorf("Create: %v", err)
					}
					return
				}
				mu.Lock()
				made = append(made, secret.Reveal())
				mu.Unlock()
			}
		})
	}
	if err := s.Revoke(t.Context(), top.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, secret := range made {
		if holdsNow(t.Context(), t, s, secret) {
			t.Fatal("a child of a revoked token holds")
		}
	}
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := rows(t, s); len(left) != 0 {
		t.Errorf("rows left: %v", left)
	}
}
