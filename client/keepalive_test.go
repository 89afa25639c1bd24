package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// granted answers a renewal.
func granted(ttl time.Duration, renewable bool) func(*http.Request) (*http.Response, error) {
	return answers(200, fmt.Sprintf(`{"request_id":"1","data":null,"auth":{"client_token":"t","lease_duration":%d,"renewable":%t}}`, int64(ttl/time.Second), renewable))
}

func kept(ttl time.Duration, renewable bool) *Auth {
	return &Auth{Token: "hvs.kept", TTL: Seconds(ttl), Renewable: renewable}
}

func TestKeepAliveRenewsAtTwoThirds(t *testing.T) {
	var waits []time.Duration
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			s, c := scripted(t, Config{Token: "hvs.other"}, granted(time.Hour, true))
			ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
			defer cancel()
			began, times := time.Now(), 0
			err := c.Token().KeepAlive(ctx, kept(time.Hour, true), func(a *Auth) { times++ })
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 24*time.Hour {
				t.Fatalf("ended after %v: %v", time.Since(began), err)
			}
			if times != len(s.at) || times < 36 {
				t.Errorf("%d renewals in a day, %d told", len(s.at), times)
			}
			for i, at := range s.at {
				wait := at.Sub(began)
				if wait > 40*time.Minute || wait < 34*time.Minute {
					t.Errorf("renewal %d came after %v", i, wait)
				}
				waits, began = append(waits, wait), at
				if s.seen[i].Header.Get("X-Vault-Token") != "hvs.kept" {
					t.Error("another token was renewed")
				}
			}
		})
	}
	if slices.Max(waits)-slices.Min(waits) < 4*time.Minute {
		t.Errorf("the waits are all between %v and %v", slices.Min(waits), slices.Max(waits))
	}
}

func TestKeepAliveOfAShortLife(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, c := scripted(t, Config{}, granted(ttl, true))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := c.Token().KeepAlive(ctx, kept(ttl, true), nil); !errors.Is(err, context.DeadlineExceeded) || len(s.at) < 20 {
				t.Errorf("%v: %d renewals: %v", ttl, len(s.at), err)
			}
		})
	}
}

func TestKeepAliveTellsWhenATokenEnds(t *testing.T) {
	denied := answers(403, `{"errors":["permission denied"],"request_id":"2"}`)
	for _, c := range []struct {
		name        string
		token       *Auth
		steps       []func(*http.Request) (*http.Response, error)
		least, most time.Duration
		renewals    int
	}{
		{"not renewable", kept(time.Hour, false), nil, 34 * time.Minute, 40 * time.Minute, 0},
		{"refused", kept(time.Hour, true), []func(*http.Request) (*http.Response, error){denied}, 34 * time.Minute, 40 * time.Minute, 0},
		{"not renewable from then on", kept(time.Hour, true), []func(*http.Request) (*http.Response, error){granted(time.Hour, false)}, 68 * time.Minute, 80 * time.Minute, 1},
		// Of a greatest lifetime of 75 minutes no renewal goes beyond it.
		{"its greatest lifetime", kept(time.Hour, true), []func(*http.Request) (*http.Response, error){nil}, 50 * time.Minute, 74 * time.Minute, 2},
		{"the server is away", kept(time.Hour, true), []func(*http.Request) (*http.Response, error){fails(syscall.ECONNREFUSED)}, time.Hour, time.Hour + time.Second, 0},
		{"the server is sealed", kept(time.Hour, true), []func(*http.Request) (*http.Response, error){answers(503, `{"errors":["sealed"]}`)}, time.Hour, time.Hour + time.Second, 0},
		{"the server hangs", kept(time.Minute, true), []func(*http.Request) (*http.Response, error){hangs}, time.Minute, time.Minute + time.Second, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			began, renewals := time.Now(), 0
			if len(c.steps) == 1 && c.steps[0] == nil {
				c.steps[0] = func(r *http.Request) (*http.Response, error) {
					return granted(min(time.Hour, 75*time.Minute-time.Since(began)), true)(r)
				}
			}
			if c.steps == nil {
				c.steps = append(c.steps, func(*http.Request) (*http.Response, error) {
					t.Errorf("%s: a request was made", c.name)
					return nil, syscall.ECONNREFUSED
				})
			}
			s, client := scripted(t, Config{}, c.steps...)
			err := client.Token().KeepAlive(t.Context(), c.token, func(*Auth) { renewals++ })
			if took := time.Since(began); !errors.Is(err, ErrEnding) || took < c.least || took > c.most || renewals != c.renewals {
				t.Errorf("%s: after %v and %d renewals (%d requests): %v", c.name, took, renewals, len(s.at), err)
			}
			if len(s.at) > 2000 {
				t.Errorf("%s: %d requests", c.name, len(s.at))
			}
		})
	}
}

func TestKeepAliveOutlastsAnAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s, c := scripted(t, Config{}, nil)
		s.steps[0] = func(r *http.Request) (*http.Response, error) {
			switch past := time.Since(began); {
			case past < 50*time.Minute:
				return nil, syscall.ECONNREFUSED
			case past < 100*time.Minute:
				return granted(time.Hour, true)(r)
			}
			return answers(403, `{"errors":["permission denied"]}`)(r)
		}
		renewals := 0
		if err := c.Token().KeepAlive(t.Context(), kept(time.Hour, true), func(*Auth) { renewals++ }); !errors.Is(err, ErrEnding) || renewals == 0 {
			t.Errorf("%d renewals: %v", renewals, err)
		}
	})
}

func TestKeepAliveEndsWithItsContext(t *testing.T) {
	why := errors.New("enough")
	for name, step := range map[string]func(*http.Request) (*http.Response, error){
		"while it waits": granted(time.Hour, true), "while it asks": hangs, "while the server is away": fails(syscall.ECONNREFUSED),
	} {
		synctest.Test(t, func(t *testing.T) {
			_, c := scripted(t, Config{}, step)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(41*time.Minute, func() { cancel(why) })
			began := time.Now()
			if err := c.Token().KeepAlive(ctx, kept(time.Hour, true), nil); !errors.Is(err, why) || time.Since(began) != 41*time.Minute {
				t.Errorf("%s: after %v: %v", name, time.Since(began), err)
			}
		})
	}
	_, c := scripted(t, Config{}, hangs)
	if err := c.Token().KeepAlive(t.Context(), kept(0, false), nil); err != nil {
		t.Errorf("a token that never ends: %v", err)
	}
}
