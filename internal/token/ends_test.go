package token

import (
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
)

// TestEnds wants the end of a token, or that of the first above it to end.
func TestEnds(t *testing.T) {
	s := newStore(t)
	_, top := root(t, s)
	_, middle := issue(t, s, top, Request{Policies: []string{"a"}, Terms: lifetime.Terms{TTL: time.Hour}})
	for what, c := range map[string]struct {
		parent *Token
		r      Request
		want   time.Duration
	}{
		"below one that never ends":      {top, Request{Terms: lifetime.Terms{TTL: 10 * time.Minute}}, 10 * time.Minute},
		"before the one above it":        {middle, Request{Terms: lifetime.Terms{TTL: 10 * time.Minute}}, 10 * time.Minute},
		"with the one above it":          {middle, Request{Terms: lifetime.Terms{TTL: 10 * time.Hour}}, time.Hour},
		"with the one above, as a batch": {middle, Request{Terms: lifetime.Terms{TTL: 10 * time.Hour}, Type: Batch}, time.Hour},
		"by itself, as a batch":          {middle, Request{Terms: lifetime.Terms{TTL: 10 * time.Minute}, Type: Batch}, 10 * time.Minute},
		"by itself, below nobody":        {nil, Request{Terms: lifetime.Terms{TTL: 10 * time.Minute}}, 10 * time.Minute},
	} {
		c.r.Policies = []string{"a"}
		secret, _ := issue(t, s, c.parent, c.r)
		ends, err := s.Ends(t.Context(), secret)
		if left := time.Until(ends); err != nil || left > c.want || left < c.want-10*time.Second {
			t.Errorf("%s: it ends in %v (%v), want %v", what, left, err, c.want)
		}
	}
	secret, _ := root(t, s)
	if ends, err := s.Ends(t.Context(), secret); err != nil || !ends.IsZero() {
		t.Errorf("the root token ends at %v (%v)", ends, err)
	}
	// A last use is under way.
	secret, last := issue(t, s, top, Request{Policies: []string{"a"}, Terms: lifetime.Terms{TTL: time.Hour}, NumUses: 1})
	if err := s.Use(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if ends, err := s.Ends(t.Context(), secret); err != nil || ends.IsZero() {
		t.Errorf("a token of which this is the last use ends at %v (%v)", ends, err)
	}
	// The one above is gone, and left it behind.
	orphaned, _ := issue(t, s, middle, Request{Policies: []string{"a"}, Terms: lifetime.Terms{TTL: 10 * time.Hour}})
	if err := s.RevokeOrphan(t.Context(), middle.ID); err != nil {
		t.Fatal(err)
	}
	if ends, err := s.Ends(t.Context(), orphaned); err != nil || time.Until(ends) < 9*time.Hour {
		t.Errorf("an orphan ends at %v (%v)", ends, err)
	}
	if _, err := s.Ends(t.Context(), "hvs.nobody"); !fault.Is(err, fault.Denied) {
		t.Errorf("no token: %v", err)
	}
}
