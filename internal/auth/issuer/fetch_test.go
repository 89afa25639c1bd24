package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
	"github.com/cofferhq/coffer/internal/fault"
)

// timed is an issuer whose clock a test turns.
type timed struct {
	*Issuer
	t    *testing.T
	mu   sync.Mutex
	when time.Time
}

func newTimed(t *testing.T, s Source) *timed {
	t.Helper()
	i, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	out := &timed{Issuer: i, t: t, when: time.Now()}
	i.now = func() time.Time {
		out.mu.Lock()
		defer out.mu.Unlock()
		return out.when
	}
	return out
}

func (i *timed) pass(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.when = i.when.Add(d)
}

func (i *timed) verify(token string) error {
	_, err := i.Verify(i.t.Context(), token, Expect{Skew: 100 * 365 * 24 * time.Hour})
	return err
}

func (i *timed) accepts(token string) {
	i.t.Helper()
	if err := i.verify(token); err != nil {
		i.t.Error(err)
	}
}

func (i *timed) refuses(token string, want error) {
	i.t.Helper()
	if err := i.verify(token); !errors.Is(err, want) {
		i.t.Errorf("%v, want %v", err, want)
	}
}

func (i *timed) unavailable(token, text string) {
	i.t.Helper()
	err := i.verify(token)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.From(err).Message, text) {
		i.t.Errorf("%v, want an issuer that is unavailable: %q", err, text)
	}
}

func TestRotation(t *testing.T) {
	for _, name := range []string{"discovery", "jwks"} {
		t.Run(name, func(t *testing.T) {
			who := issuertest.New(t)
			s := Source{JWKS: []Place{{who.URL + "/keys", who.CA}}}
			if name == "discovery" {
				s = Source{Discovery: Place{who.URL, who.CA}}
			}
			i := newTimed(t, s)
			first := who.Sign(nil)
			i.accepts(first)
			who.Rotate("ES256")
			second := who.Sign(nil)
			i.refuses(second, UnknownKey) // asked less than RefreshEvery ago
			i.pass(RefreshEvery - 1)
			i.refuses(second, UnknownKey)
			i.pass(1)
			i.accepts(second)
			i.refuses(first, UnknownKey) // that key was withdrawn
			if n := who.Asked("/keys"); n != 2 {
				t.Errorf("the issuer was asked %d times", n)
			}
		})
	}
}

// A key that is withdrawn is refused at last when it is no longer fresh.
func TestWithdrawnKey(t *testing.T) {
	who := issuertest.New(t)
	i := newTimed(t, Source{Discovery: Place{who.URL, who.CA}})
	token := who.Sign(nil)
	i.accepts(token)
	who.Rotate("RS256")
	i.pass(Fresh - 1)
	i.accepts(token)
	i.pass(1)
	i.refuses(token, UnknownKey)
}

// However many tokens name keys that nobody knows, the issuer is asked once.
func TestFlood(t *testing.T) {
	who := issuertest.New(t)
	i := newTimed(t, Source{JWKS: []Place{{who.URL + "/keys", who.CA}}})
	var all sync.WaitGroup
	for n := range 64 {
		k := issuertest.NewKey(t, "ES256")
		k.ID = fmt.Sprint("nobody's ", n)
		token := k.Sign([]byte(`{"exp":99999999999}`))
		all.Go(func() { i.refuses(token, UnknownKey) })
	}
	all.Wait()
	if n := who.Asked("/keys"); n != 1 {
		t.Errorf("the issuer was asked %d times", n)
	}
	i.pass(RefreshEvery)
	i.accepts(who.Sign(nil))
}

// Who comes just after an answer did not need to ask again.
func TestJustAfter(t *testing.T) {
	who := issuertest.New(t)
	i := newTimed(t, Source{JWKS: []Place{{who.URL + "/keys", who.CA}}})
	i.fetched[0].fetch()
	i.fetched[0].fetch()
	if n := who.Asked("/keys"); n != 1 {
		t.Errorf("the issuer was asked %d times", n)
	}
}

func TestOutage(t *testing.T) {
	who := issuertest.New(t)
	i := newTimed(t, Source{Discovery: Place{who.URL, who.CA}})
	token := who.Sign(nil)
	i.accepts(token)
	who.Answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "away", http.StatusBadGateway) })
	i.pass(Stale - 1)
	i.accepts(token)
	i.pass(1)
	i.unavailable(token, "502 Bad Gateway")
	who.Answer(nil)
	i.unavailable(token, "502 Bad Gateway") // asked a moment ago
	i.pass(RefreshEvery)
	i.accepts(token)
}

// Nobody waits for an issuer that hangs, once that is known.
func TestHangingIssuer(t *testing.T) {
	who := issuertest.New(t)
	i := newTimed(t, Source{Discovery: Place{who.URL, who.CA}})
	token := who.Sign(nil)
	i.accepts(token)
	who.Answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "away", http.StatusBadGateway) })
	i.pass(Fresh)
	i.accepts(token)
	begun, end := make(chan struct{}, 8), make(chan struct{})
	who.Answer(func(w http.ResponseWriter, r *http.Request) { begun <- struct{}{}; <-end; who.Serve(w, r) })
	i.pass(RefreshEvery)
	i.accepts(token)
	<-begun // it was asked, and the token was accepted meanwhile
	who.Rotate("ES256")
	close(end)
	for deadline := time.Now().Add(10 * time.Second); i.verify(token) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new keys do not count")
		}
	}
}

// A new key of an issuer that is away is not called unknown.
func TestNewKeyInOutage(t *testing.T) {
	who := issuertest.New(t)
	other := issuertest.New(t)
	other.Rotate("ES256")
	i := newTimed(t, Source{JWKS: []Place{{who.URL + "/keys", who.CA}, {other.URL + "/keys", other.CA}}})
	other.Answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "away", 500) })
	i.accepts(who.Sign(nil)) // one that is away does not matter to the other
	i.unavailable(other.Sign(nil), "500")
}

func TestUnreachable(t *testing.T) {
	who := issuertest.New(t)
	i := newTimed(t, Source{Discovery: Place{who.URL, who.CA}})
	token := who.Sign(nil)
	who.Stop()
	i.unavailable(token, "cannot be reached")
	if err := i.Check(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

func TestWrongAuthority(t *testing.T) {
	who := issuertest.New(t)
	i := newTimed(t, Source{Discovery: Place{URL: who.URL}})
	i.unavailable(who.Sign(nil), "certificate")
}

// A request that is given up does not end the fetch that others wait for.
func TestGivenUp(t *testing.T) {
	who := issuertest.New(t)
	begun, go_ := make(chan struct{}), make(chan struct{})
	var once sync.Once
	who.Answer(func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(begun) })
		<-go_
		who.Serve(w, r)
	})
	i := newTimed(t, Source{JWKS: []Place{{who.URL + "/keys", who.CA}}})
	token := who.Sign(nil)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := i.Verify(ctx, token, Expect{}); first <- err }()
	<-begun
	second := make(chan error, 1)
	go func() { second <- i.verify(token) }()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(go_)
	if err := <-second; err != nil {
		t.Error(err)
	}
	if n := who.Asked("/keys"); n != 1 {
		t.Errorf("the issuer was asked %d times", n)
	}
}

func TestGarbage(t *testing.T) {
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	var self string
	write := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	for name, c := range map[string]struct {
		answer    http.HandlerFunc
		discovery bool
		text      string
	}{
		"html":               {write("<html>"), false, "not a JSON object of keys"},
		"html for discovery": {write("<html>"), true, "not a JSON object of OpenID"},
		"nothing":            {write(""), false, "not a JSON object"},
		"no keys":            {write(`{}`), false, "no key"},
		"no jwks_uri":        {write(`{"issuer":"x"}`), true, "no jwks_uri"},
		"another issuer":     {write(`{"issuer":"https://evil.example","jwks_uri":"https://evil.example/keys"}`), true, `"https://evil.example"`},
		"plain http keys": {func(w http.ResponseWriter, r *http.Request) {
			write(`{"issuer":"`+self+`","jwks_uri":"http://keys.example/"}`)(w, r)
		}, true, "jwks_uri"},
		"too large":          {write(`{"keys":[],"x":"` + strings.Repeat("x", MaxDocument) + `"}`), false, "larger than"},
		"a redirect to http": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, false, "another scheme"},
		"redirects for ever": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) }, false, "more than three"},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = w.Write([]byte("x"))
		}, false, "broke off"},
		"an address of no use": {func(w http.ResponseWriter, r *http.Request) { write(`{"issuer":"`+self+`","jwks_uri":"::"}`)(w, r) }, true, "jwks_uri"},
	} {
		t.Run(name, func(t *testing.T) {
			who := issuertest.New(t)
			self = who.URL
			who.Answer(c.answer)
			s := Source{JWKS: []Place{{who.URL + "/keys", who.CA}}}
			if c.discovery {
				s = Source{Discovery: Place{who.URL, who.CA}}
			}
			newTimed(t, s).unavailable(who.Sign(nil), c.text)
		})
	}
}

// A document of exactly the largest size is read.
func TestLargestDocument(t *testing.T) {
	who := issuertest.New(t)
	document := string(who.Document())
	document = document[:len(document)-1] + `,"x":""}`
	document = strings.Replace(document, `"x":""`, `"x":"`+strings.Repeat("x", MaxDocument-len(document))+`"`, 1)
	if len(document) != MaxDocument {
		t.Fatal(len(document))
	}
	who.Answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(document)) })
	newTimed(t, Source{JWKS: []Place{{who.URL + "/keys", who.CA}}}).accepts(who.Sign(nil))
}

// An issuer that is slow is given up.
func TestSlow(t *testing.T) {
	who := issuertest.New(t)
	end := make(chan struct{})
	defer close(end)
	who.Answer(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		_, _ = w.Write([]byte(`{"keys":[`))
		w.(http.Flusher).Flush()
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	i := newTimed(t, Source{JWKS: []Place{{who.URL + "/keys", who.CA}}})
	i.fetched[0].patience = 50 * time.Millisecond
	i.unavailable(who.Sign(nil), "did not answer")
}
