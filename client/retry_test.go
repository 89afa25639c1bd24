package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// script answers requests in order, the last answer from then on, and keeps the
// requests with the times they came.
type script struct {
	steps []func(*http.Request) (*http.Response, error)
	seen  []*http.Request
	at    []time.Time
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	step := s.steps[min(len(s.seen), len(s.steps)-1)]
	s.seen, s.at = append(s.seen, r), append(s.at, time.Now())
	return step(r)
}

func answers(status int, body string, headers ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/json"}}
		for i := 0; i+1 < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func fails(err error) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

const fine = `{"request_id":"1","data":{"keys":["a"]}}`

func scripted(t *testing.T, c Config, steps ...func(*http.Request) (*http.Response, error)) (*script, *Client) {
	t.Helper()
	s := &script{steps: steps}
	c.Transport = s
	out, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s, out
}

func TestWhatIsSentAgain(t *testing.T) {
	soon := []string{"Retry-After", "1"}
	for _, c := range []struct {
		name        string
		step        func(*http.Request) (*http.Response, error)
		read, write bool
	}{
		{"429", answers(429, `{"errors":["slow down"]}`), true, true},
		{"502", answers(502, ``, "Content-Type", "text/html"), true, false},
		{"503", answers(503, `{"errors":["sealed"]}`), true, false},
		{"503 with Retry-After", answers(503, `{"errors":[]}`, soon...), true, true},
		{"504", answers(504, ``), true, false},
		{"504 with Retry-After", answers(504, ``, soon...), true, false},
		{"400", answers(400, `{"errors":["no"]}`), false, false},
		{"403", answers(403, `{"errors":["no"]}`, soon...), false, false},
		{"404", answers(404, `{"errors":[]}`), false, false},
		{"412", answers(412, `{"errors":[]}`), false, false},
		{"500", answers(500, `{"errors":[]}`), false, false},
		{"501", answers(501, `{"errors":[]}`), false, false},
		{"reset", fails(syscall.ECONNRESET), true, false},
		{"cut", func(r *http.Request) (*http.Response, error) {
			a, err := answers(200, fine)(r)
			a.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"data`), fault{io.ErrUnexpectedEOF}))
			return a, err
		}, true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			for _, r := range []struct {
				Request
				again bool
			}{
				{Request{Method: "GET", Path: "x"}, c.read}, {Request{Method: "LIST", Path: "x"}, c.read}, {Request{Method: "HEAD", Path: "x"}, c.read},
				{Request{Method: "POST", Path: "x", Body: struct{}{}, Reads: true}, c.read}, {Request{Method: "POST", Path: "x", Body: map[string]int{"a": 1}}, c.write},
				{Request{Method: "DELETE", Path: "x"}, c.write}, {Request{Method: "PATCH", Path: "x"}, c.write}, {Request{Method: "GET", Path: "x", Once: true}, false},
			} {
				s, client := scripted(t, Config{}, c.step, answers(200, fine))
				_, err := client.Do(t.Context(), r.Request)
				if r.again != (len(s.seen) == 2) || r.again != (err == nil) {
					t.Errorf("%s: %s was sent %d times: %v", c.name, r.Method, len(s.seen), err)
				}
				if r.again && r.Body != nil {
					again, _ := io.ReadAll(s.seen[1].Body)
					if first, _ := marshal(r.Body); !bytes.Equal(again, first) {
						t.Errorf("%s: %s was sent again with %q", c.name, r.Method, again)
					}
				}
				uncertain := c.name == "reset" || c.name == "cut"
				if writes := !r.Reads && r.Method != "GET" && r.Method != "LIST" && r.Method != "HEAD"; writes && errors.Is(err, ErrUncertain) != uncertain {
					t.Errorf("%s: %s ends with %v", c.name, r.Method, err)
				}
			}
		})
	}
}

type fault struct{ error }

func (f fault) Read([]byte) (int, error) { return 0, f.error }

func TestBackoff(t *testing.T) {
	longest := make([]time.Duration, 8)
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			s, c := scripted(t, Config{MaxRetries: 8, RetryMin: 100 * time.Millisecond, RetryMax: 2 * time.Second, Timeout: -1}, answers(503, `{"errors":["sealed"]}`))
			_, err := c.Do(t.Context(), Request{Path: "x"})
			if !IsSealed(err) || len(s.at) != 9 {
				t.Fatalf("sent %d times: %v", len(s.at), err)
			}
			for i := range longest {
				wait := s.at[i+1].Sub(s.at[i])
				if bound := min(100*time.Millisecond<<i, 2*time.Second); wait > bound {
					t.Fatalf("retry %d came after %v, the bound is %v", i, wait, bound)
				}
				longest[i] = max(longest[i], wait)
			}
		})
	}
	for i, wait := range longest { // of 300 draws one is in the upper fifth, but for one in 10²⁹
		if bound := min(100*time.Millisecond<<i, 2*time.Second); wait < bound*4/5 {
			t.Errorf("retry %d never waits longer than %v", i, wait)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for _, c := range []struct {
		name, value string
		least       time.Duration
		again       bool
	}{
		{"seconds", "7", 7 * time.Second, true},
		{"zero", "0", 0, true},
		{"cap", "30", 30 * time.Second, true},
		{"beyond the cap", "31", 0, false},
		{"far beyond it", "2147483647", 0, false},
		{"nonsense", "soon", 0, true},
		{"negative", "-5", 0, true},
		{"date", "date 9", 9 * time.Second, true},
		{"date gone by", "date -9", 0, true},
		{"date beyond the cap", "date 3600", 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			value := c.value
			if in, ok := strings.CutPrefix(value, "date "); ok {
				d, err := time.ParseDuration(in + "s")
				if err != nil {
					t.Fatal(err)
				}
				value = date(d)
			}
			s, client := scripted(t, Config{RetryAfter: 30 * time.Second}, answers(429, `{"errors":["slow down"]}`, "Retry-After", value), answers(200, fine))
			_, err := client.Do(t.Context(), Request{Method: "POST", Path: "x"})
			if c.again != (err == nil) {
				t.Fatalf("%s: %v", c.name, err)
			}
			var refusal *Error
			if !c.again && (len(s.at) != 1 || !errors.As(err, &refusal) || refusal.RetryAfter <= 30*time.Second) {
				t.Errorf("%s: %d requests, %#v", c.name, len(s.at), err)
			}
			if c.again {
				if wait := s.at[1].Sub(s.at[0]); wait < c.least || wait > c.least+DefaultRetryMin {
					t.Errorf("%s: came again after %v", c.name, wait)
				}
			}
		})
	}
}

func TestTheContextEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The call's own bound, over all attempts.
		began := time.Now()
		_, c := scripted(t, Config{Timeout: 3 * time.Second, MaxRetries: 100}, hangs)
		if _, err := c.Do(t.Context(), Request{Path: "x"}); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if _, err := c.Do(t.Context(), Request{Method: "POST", Path: "x"}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUncertain) {
			t.Errorf("a write: %v", err)
		}
		// Its end while an answer is waited for.
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		time.AfterFunc(time.Second, func() { cancel(why) })
		began = time.Now()
		if _, err := c.Do(ctx, Request{Path: "x"}); !errors.Is(err, why) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		// Its end in the pause before a retry.
		ctx, cancel = context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		s, c := scripted(t, Config{}, answers(429, `{"errors":["slow down"]}`, "Retry-After", "20"))
		began = time.Now()
		_, err := c.Do(ctx, Request{Path: "x"})
		var refusal *Error
		if !errors.Is(err, why) || !errors.As(err, &refusal) || time.Since(began) != time.Second || len(s.at) != 1 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		// A pause that the deadline would cut short is not begun.
		s, c = scripted(t, Config{Timeout: 10 * time.Second}, answers(429, `{"errors":["slow down"]}`, "Retry-After", "20"))
		began = time.Now()
		if _, err := c.Do(t.Context(), Request{Path: "x"}); !errors.As(err, &refusal) || time.Since(began) != 0 || len(s.at) != 1 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
