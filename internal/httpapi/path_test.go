package httpapi

import (
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzPath holds that a path that passes has one spelling: no cleaning, by
// whoever, makes another one of it.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"", "a", "a/b/", "/", "//", "a//b", ".", "..", "a/..", "a/./b", "...", "a/.b", "é/..", "a\x00", "\xff", "\u202e", "\u0085", "a/\u2028", "sys/health"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		problem := checkPath(text)
		if problem != nil {
			if problem.Message == "" || problem.Kind.Status() != 400 {
				t.Errorf("%q is refused without a reason", text)
			}
			return
		}
		if !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\r\n\x7f") {
			t.Errorf("%q passed", text)
		}
		if cleaned := strings.TrimPrefix(path.Clean("/"+text), "/"); cleaned != strings.TrimSuffix(text, "/") {
			t.Errorf("%q passed and cleans to %q", text, cleaned)
		}
	})
}

// FuzzTarget sends whole request targets through the handler: whatever comes,
// it answers in shape, and what reaches Serve without a problem is clean.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"/v1/a", "/v1/a%2f..", "/v1/a?list=true", "/v1/a?%zz", "/v1//", "/", "/ui", "//v1/a", "/v1/%00", "/v1/a?help=1&list=0"} {
		f.Add("GET", seed)
	}
	g := &recorder{}
	h := New(Options{Serve: g.Serve, Log: discard})
	f.Fuzz(func(t *testing.T, method, target string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		u, err := r.URL.Parse("http://h")
		if err != nil {
			t.Fatal(err)
		}
		at, query, _ := strings.Cut(target, "?")
		u.Path, u.RawQuery = at, query
		r.URL, r.Method = u, method
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 499 {
			t.Errorf("%s %q: status %d", method, target, w.Code)
		}
		if got := g.requests(); len(got) > 0 && got[len(got)-1].Problem == nil && checkPath(got[len(got)-1].Path) != nil {
			t.Errorf("%q passed", got[len(got)-1].Path)
		}
		g.mu.Lock()
		g.got = nil
		g.mu.Unlock()
	})
}
