package browser_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/browser"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node returns a node's barrier on e, which follows the others.
func node(t testing.TB, e storage.Engine, root []byte) *barrier.Barrier {
	t.Helper()
	b := barrier.New(e, slog.New(slog.DiscardHandler))
	must(t, b.Open(t.Context(), slices.Clone(root)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Follow(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return b
}

func store(t testing.TB) *browser.Store {
	one, _ := nodes(t)
	return one
}

// nodes returns the stores of two nodes that share the storage.
func nodes(t testing.TB) (one, two *browser.Store) {
	t.Helper()
	e := memory.New()
	root, err := barrier.NewRootKey()
	must(t, err)
	must(t, barrier.New(e, slog.New(slog.DiscardHandler)).Initialize(t.Context(), slices.Clone(root)))
	return browser.New(node(t, e, root)), browser.New(node(t, e, root))
}

func TestOrigins(t *testing.T) {
	s := store(t)
	if c, err := s.CORS(t.Context()); c != nil || err != nil {
		t.Errorf("nothing is configured: %v %v", c, err)
	}
	for _, origin := range []string{
		"https://portal.example.com", "http://127.0.0.1:8300", "https://[::1]:8443", "http://localhost:3000", "chrome-extension://aapocclcgogkmnckokdopfmhonfmgoek",
		"https://xn--bcher-kva.example", "https://" + strings.Repeat("a", browser.MaxOriginBytes-8), "*",
	} {
		must(t, s.Allow(t.Context(), browser.CORS{Origins: []string{origin}}))
		c, err := s.CORS(t.Context())
		must(t, err)
		if !c.Allows(origin) || c.Allows("https://evil.example.com") != (origin == "*") || c.Allows("null") != (origin == "*") || c.Allows("") {
			t.Errorf("%s: %+v", origin, c)
		}
	}
	must(t, s.Allow(t.Context(), browser.CORS{Origins: []string{"https://a.example"}}))
	for _, origin := range []string{
		"", "null", "portal.example.com", "https://portal.example.com/", "https://portal.example.com/app", "https://*.example.com", "https://Portal.example.com",
		"https://portal.example.com:443", "http://portal.example.com:80", "https://user@portal.example.com", "https://portal.example.com?x", "//portal.example.com",
		"https://bücher.example", "https:// ", "https://a\r\nX: y", "https://", "https://a.example,https://b.example/x", "https://" + strings.Repeat("a", browser.MaxOriginBytes-7),
	} {
		if err := s.Allow(t.Context(), browser.CORS{Origins: []string{origin}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", origin, err)
		}
	}
	many := make([]string, browser.MaxOrigins+1)
	for i := range many {
		many[i] = fmt.Sprintf("https://a%d.example", i)
	}
	for _, c := range []browser.CORS{
		{}, {Origins: []string{"*", "https://a.example"}}, {Origins: many}, {Origins: many[:1], Headers: []string{"X Y"}},
		{Origins: many[:1], Headers: []string{"X-A\r\nX-B"}}, {Origins: many[:1], Headers: make([]string, browser.MaxHeaders+1)},
	} {
		if err := s.Allow(t.Context(), c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	c, err := s.CORS(t.Context())
	if err != nil || !slices.Equal(c.Origins, []string{"https://a.example"}) {
		t.Errorf("a refusal changed it: %+v %v", c, err)
	}
	must(t, s.Allow(t.Context(), browser.CORS{Origins: many[:browser.MaxOrigins], Headers: []string{"X-Page"}}))
	if c, err = s.CORS(t.Context()); err != nil || !slices.Contains(c.AllowedHeaders(), "X-Page") || !slices.Contains(c.AllowedHeaders(), "X-Vault-Token") {
		t.Errorf("%+v %v", c, err)
	}
	must(t, s.Forbid(t.Context()))
	if c, err = s.CORS(t.Context()); c != nil || err != nil {
		t.Errorf("%v %v", c, err)
	}
}

func TestOtherNodesFollow(t *testing.T) {
	one, two := nodes(t)
	within := func(what string, want bool) {
		t.Helper()
		for end := time.Now().Add(2 * barrier.CacheBound); ; time.Sleep(5 * time.Millisecond) {
			c, err := two.CORS(t.Context())
			must(t, err)
			if (c != nil && c.Allows("https://a.example")) == want {
				return
			}
			if time.Now().After(end) {
				t.Fatal("the other node does not know: " + what)
			}
		}
	}
	within("nothing is allowed", false)
	must(t, one.Allow(t.Context(), browser.CORS{Origins: []string{"https://a.example"}}))
	within("allowed", true)
	must(t, one.Allow(t.Context(), browser.CORS{Origins: []string{"https://b.example"}}))
	within("another one", false)
	must(t, one.Allow(t.Context(), browser.CORS{Origins: []string{"*"}}))
	within("all", true)
	must(t, one.Forbid(t.Context()))
	within("forbidden", false)
}

func TestHeaders(t *testing.T) {
	s := store(t)
	must(t, s.SetHeader(t.Context(), "X-Frame-Options", []string{"DENY"}))
	must(t, s.SetHeader(t.Context(), "content-security-policy", []string{"default-src 'self'", "img-src *"}))
	must(t, s.SetHeader(t.Context(), "X-FRAME-OPTIONS", []string{"SAMEORIGIN"}))
	if names, err := s.Headers(t.Context()); err != nil || fmt.Sprint(names) != "[Content-Security-Policy X-Frame-Options]" {
		t.Errorf("%v %v", names, err)
	}
	if v, err := s.Header(t.Context(), "x-frame-options"); err != nil || fmt.Sprint(v) != "[SAMEORIGIN]" {
		t.Errorf("%v %v", v, err)
	}
	for _, name := range []string{
		"X-Vault-Token", "x-vault-anything", "X-Coffer-Request-Id", "Connection", "keep-alive", "Transfer-Encoding", "Proxy-Authenticate", "TE", "Trailer", "Upgrade",
		"Content-Length", "Content-Type", "Set-Cookie", "Access-Control-Allow-Origin", "", "X Y", "X:Y", "X\r\nY", "Ü", strings.Repeat("x", 129),
	} {
		if err := s.SetHeader(t.Context(), name, []string{"x"}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q is accepted: %v", name, err)
		}
	}
	for _, values := range [][]string{nil, {""}, {"a\r\nSet-Cookie: b"}, {"a\nb"}, {"a\x00b"}, {strings.Repeat("x", browser.MaxValueBytes+1)}, make([]string, browser.MaxValues+1)} {
		if err := s.SetHeader(t.Context(), "X-Own", values); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.40q is accepted: %v", values, err)
		}
	}
	must(t, s.SetHeader(t.Context(), "X-Own", []string{strings.Repeat("x", browser.MaxValueBytes)}))
	must(t, s.DeleteHeader(t.Context(), "X-OWN"))
	must(t, s.DeleteHeader(t.Context(), "X-Own"))
	if _, err := s.Header(t.Context(), "X-Own"); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	for i := range browser.MaxHeaders - 2 {
		must(t, s.SetHeader(t.Context(), fmt.Sprint("X-N", i), []string{"x"}))
	}
	if err := s.SetHeader(t.Context(), "X-One-More", []string{"x"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	must(t, s.SetHeader(t.Context(), "X-N0", []string{"y"})) // not one more
}
