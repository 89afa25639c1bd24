package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServer answers by path.
func newServer(t testing.TB) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		switch {
		case r.URL.Path == "/echo":
			text, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Header.Get("Content-Type"), r.Header.Get("Accept"), text)
		case scan(r.URL.Path, "/long/%d", &n):
			_, _ = w.Write(make([]byte, n))
		case scan(r.URL.Path, "/hop/%d", &n) && n > 0:
			http.Redirect(w, r, fmt.Sprintf("/hop/%d", n-1), http.StatusFound)
		case r.URL.Path == "/plain":
			http.Redirect(w, r, "http://"+r.Host+"/echo", http.StatusFound)
		case r.URL.Path == "/secret":
			http.Error(w, "a secret", http.StatusForbidden)
		case r.URL.Path == "/cut":
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("cut"))
		}
	}))
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func scan(path, format string, n *int) bool {
	read, err := fmt.Sscanf(path, format, n)
	return err == nil && read == 1
}

func TestAsk(t *testing.T) {
	s := newServer(t)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	ask := func(q Question, path string) (string, error) {
		q.URL, q.TLS = s.URL+path, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		if q.Limit == 0 {
			q.Limit = 100
		}
		text, err := q.Ask(t.Context())
		return string(text), err
	}
	if got, err := ask(Question{Accept: "a"}, "/echo"); err != nil || got != "GET  a " {
		t.Errorf("%q %v", got, err)
	}
	if got, err := ask(Question{Post: []byte("body"), Type: "b"}, "/echo"); err != nil || got != "POST b  body" {
		t.Errorf("%q %v", got, err)
	}
	for path, want := range map[string]string{
		"/long/100": "", "/long/101": "longer than 100 bytes", "/hop/3": "", "/hop/4": "redirects more than 3 times", "/plain": "from https to http",
		"/secret": "it answers 403", "/cut": "unexpected EOF",
	} {
		_, err := ask(Question{}, path)
		if (want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := (Question{URL: s.URL + "/echo", Limit: 100}).Ask(t.Context()); err == nil {
		t.Error("a server is believed whose authority nobody knows")
	}
	for _, bad := range []string{"", "x", "ftp://x", "https://", "https://user@x/", "https:opaque", "file:///etc/passwd"} {
		if _, err := (Question{URL: bad, Limit: 1}).Ask(t.Context()); err == nil {
			t.Errorf("%q is asked", bad)
		}
	}
}

// A server that says nothing is given up when its caller gives up.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := (Question{URL: "http://" + l.Addr().String(), Limit: 1}).Ask(ctx); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Error(err)
	}
}
