package token

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLifetimes(t *testing.T) {
	s := newStore(t)
	const h = time.Hour
	for _, c := range []struct {
		name    string
		terms   lifetime.Terms
		want    time.Duration
		warning string
	}{
		{"server default", lifetime.Terms{}, testDefault, ""},
		{"asked", lifetime.Terms{TTL: h}, h, ""},
		{"above the server's max", lifetime.Terms{TTL: 5000 * h}, testMax, "TTL of \"5000h0m0s\" exceeded the effective max_ttl of \"1000h0m0s\"; TTL value is capped accordingly"},
		{"role's max", lifetime.Terms{TTL: 5 * h, MaxTTL: 2 * h}, 2 * h, "exceeded"},
		{"explicit max", lifetime.Terms{TTL: 5 * h, ExplicitMax: 3 * h}, 3 * h, "exceeded"},
		{"mount default", lifetime.Terms{MountDefault: 2 * h}, 2 * h, ""},
		{"mount max", lifetime.Terms{TTL: 5 * h, MountMax: 4 * h}, 4 * h, "exceeded"},
		{"mount max beyond the server's", lifetime.Terms{TTL: 1500 * h, MountMax: 2000 * h}, 1500 * h, ""},
		{"default above the mount's max", lifetime.Terms{MountMax: h}, h, ""},
		{"period", lifetime.Terms{Period: h, TTL: 5 * h}, h, ""},
		{"period above max", lifetime.Terms{Period: 5000 * h}, testMax, "period of"},
		{"period with explicit max", lifetime.Terms{Period: 3 * h, ExplicitMax: 2 * h}, 2 * h, "exceeded"},
	} {
		out, err := s.Issue(t.Context(), nil, Request{Policies: []string{"a"}, Terms: c.terms})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if out.TTL != c.want || out.Token.TTL != c.want || !out.Token.ExpiresAt.Equal(out.Token.CreatedAt.Add(c.want)) {
			t.Errorf("%s: %v, want %v", c.name, out.TTL, c.want)
		}
		if got := strings.Join(out.Warnings, ";"); (got == "") != (c.warning == "") || !strings.Contains(got, c.warning) {
			t.Errorf("%s: warnings %q, want %q", c.name, got, c.warning)
		}
	}
}

func TestRootTokenEndsOnlyWhenAsked(t *testing.T) {
	s := newStore(t)
	_, forever := root(t, s)
	_, hour := issue(t, s, forever, Request{Policies: []string{"root"}, Terms: lifetime.Terms{TTL: time.Hour}})
	if hour.TTL != time.Hour || !hour.Renewable {
		t.Errorf("root token of an hour: %+v", hour)
	}
	_, capped := issue(t, s, forever, Request{Policies: []string{"root"}, Terms: lifetime.Terms{ExplicitMax: time.Hour}})
	if capped.TTL != time.Hour {
		t.Errorf("root token with an explicit max: %+v", capped)
	}
	if _, _, err := s.Create(t.Context(), hour, Request{Policies: []string{"root"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a root token without end from one with: %v", err)
	}
	if _, err := s.Renew(t.Context(), forever.ID, Renewal{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("renewing a token without end: %v", err)
	}
}

func TestRenewIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		secret, tok := issue(t, s, nil, Request{Policies: []string{"a"}, Terms: lifetime.Terms{TTL: time.Hour, MaxTTL: 2 * time.Hour}})
		renew := func(increment, want time.Duration, warned bool) {
			t.Helper()
			out, err := s.Renew(t.Context(), tok.ID, Renewal{Increment: increment})
			if err != nil {
				t.Fatal(err)
			}
			if out.TTL != want || (len(out.Warnings) > 0) != warned {
				t.Errorf("renewed for %v: %v, warnings %q; want %v", increment, out.TTL, out.Warnings, want)
			}
		}
		renew(0, time.Hour, false)
		renew(10*time.Minute, 10*time.Minute, false) // a renewal may shorten
		renew(90*time.Minute, 90*time.Minute, false)
		time.Sleep(80 * time.Minute)
		renew(time.Hour, 40*time.Minute, true)
		time.Sleep(39 * time.Minute)
		if !holdsNow(t.Context(), t, s, secret) {
			t.Error("ended before its time")
		}
		time.Sleep(time.Minute)
		if holdsNow(t.Context(), t, s, secret) {
			t.Error("holds after its time")
		}
		if _, err := s.Renew(t.Context(), tok.ID, Renewal{}); !fault.Is(err, fault.Denied) {
			t.Errorf("renewing what ended: %v", err)
		}
	})
}

func TestPeriodicTokenLivesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		secret, tok := issue(t, s, nil, Request{Policies: []string{"a"}, Terms: lifetime.Terms{Period: time.Hour}})
		for range 3000 { // three times the greatest lifetime
			time.Sleep(59 * time.Minute)
			out, err := s.Renew(t.Context(), tok.ID, Renewal{Increment: 10 * time.Hour})
			if err != nil || out.TTL != time.Hour {
				t.Fatalf("Renew: %v, %v", out, err)
			}
		}
		time.Sleep(time.Hour)
		if holdsNow(t.Context(), t, s, secret) {
			t.Error("holds after its period")
		}
	})
}

func TestNotRenewable(t *testing.T) {
	s := newStore(t)
	_, tok := issue(t, s, nil, Request{Policies: []string{"a"}, NotRenewable: true})
	if _, err := s.Renew(t.Context(), tok.ID, Renewal{}); !fault.Is(err, fault.Invalid) || err.Error() != "lease is not renewable" {
		t.Errorf("Renew: %v", err)
	}
	if _, err := s.Renew(t.Context(), tok.ID, Renewal{Increment: -1}); !fault.Is(err, fault.Invalid) {
		t.Errorf("negative increment: %v", err)
	}
}

// A parent's end in time ends what is below it, and Run removes all their rows,
// with one goroutine and one timer whatever the number of tokens.
func TestRunSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		_, top := issue(t, s, nil, Request{Policies: []string{"a"}, Terms: lifetime.Terms{TTL: time.Hour}})
		var secrets []string
		for range 50 {
			secret, _ := issue(t, s, top, Request{Policies: []string{"a"}, Terms: lifetime.Terms{TTL: 100 * time.Hour}})
			secrets = append(secrets, secret)
		}
		stays, _ := issue(t, s, nil, Request{Policies: []string{"a"}, Terms: lifetime.Terms{TTL: 2 * time.Hour}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(time.Hour - time.Second)
		for _, secret := range secrets {
			if !holdsNow(t.Context(), t, s, secret) {
				t.Fatal("ended before its parent")
			}
		}
		time.Sleep(time.Second)
		for _, secret := range secrets {
			if holdsNow(t.Context(), t, s, secret) {
				t.Fatal("outlived its parent")
			}
		}
		time.Sleep(sweepEvery)
		synctest.Wait()
		if got := rows(t, s); got["id"] != 1 || got["ending"] != 0 || got["child"] != 0 || got["due"] != 1 || got["accessor"] != 1 {
			t.Errorf("rows left: %v", got)
		}
		// What is revoked is removed at once, without waiting for the next round.
		tok, err := s.Lookup(t.Context(), stays)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Revoke(t.Context(), tok.ID); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := rows(t, s); len(got) != 0 {
			t.Errorf("rows left: %v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
