package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// serve runs a TLS server with HTTP/2 and returns a client that trusts it.
func serve(t *testing.T, c Config, handler http.HandlerFunc) (*httptest.Server, *Client) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, connected(t, s, c)
}

func connected(t *testing.T, s *httptest.Server, c Config) *Client {
	t.Helper()
	if c.Address == "" {
		c.Address = s.URL
	}
	if s.Certificate() != nil && !c.SkipVerify && c.CACert == "" {
		c.CACertPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	}
	if c.RetryMin == 0 {
		c.RetryMin, c.RetryMax = time.Millisecond, time.Millisecond
	}
	out, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.Close)
	return out
}

func reply(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body)
}

func TestWhatARequestLooksLike(t *testing.T) {
	var got *http.Request
	var body []byte
	_, c := serve(t, Config{Token: "hvs.t", Namespace: "team/a", UserAgent: "test"}, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		reply(w, fine)
	})
	do := func(c *Client, r Request) {
		t.Helper()
		if _, err := c.Do(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	do(c, Request{Method: "post", Path: "/secret/data/a b%2f/ü?", Query: map[string][]string{"x": {"1&2"}}, Body: map[string]Secret{"p": "q"}, WrapTTL: 1500 * time.Millisecond})
	if got.Method != "POST" || got.URL.Path != "/v1/secret/data/a b%2f/ü?" || got.URL.RawQuery != "x=1%262" || string(body) != `{"p":"q"}` || got.ProtoMajor != 2 {
		t.Errorf("%s %s %s %s", got.Proto, got.Method, got.URL, body)
	}
	for name, want := range map[string]string{
		"X-Vault-Request": "true", "X-Vault-Token": "hvs.t", "X-Vault-Namespace": "team/a", "X-Vault-Wrap-Ttl": "2s",
		"User-Agent": "test", "Content-Type": "application/json", "Accept-Encoding": "",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
	do(c, Request{Method: "LIST", Path: "secret/metadata/", Query: map[string][]string{"limit": {"5"}}})
	if got.Method != "GET" || got.URL.RawQuery != "limit=5&list=true" || got.URL.Path != "/v1/secret/metadata/" || got.Header.Get("Content-Type") != "" || got.ContentLength != 0 {
		t.Errorf("a list is %s %s", got.Method, got.URL)
	}
	do(c, Request{Method: "PATCH", Path: "x", Body: struct{}{}, Token: "other"})
	if got.Header.Get("Content-Type") != "application/merge-patch+json" || got.Header.Get("X-Vault-Token") != "other" {
		t.Errorf("a patch: %v", got.Header)
	}
	do(c.WithNamespace(""), Request{Path: "x", Anonymous: true, Token: "other"})
	if _, there := got.Header["X-Vault-Token"]; there || got.Header.Get("X-Vault-Namespace") != "" {
		t.Errorf("anonymous: %v", got.Header)
	}
	if c.Token().client.CallingToken() != "hvs.t" || c.Namespace() != "team/a" {
		t.Error("the client changed")
	}
	for _, r := range []Request{{Path: ""}, {Path: "/"}, {Path: "a/../b"}, {Path: ".."}, {Path: "a/./b"}, {Path: "x", Token: "a\nb"}, {Path: "x", Token: "a b"}} {
		got = nil
		if _, err := c.Do(t.Context(), r); err == nil || got != nil {
			t.Errorf("%q with token %q was sent: %v", r.Path, r.Token.Reveal(), err)
		}
	}
}

func TestRedirects(t *testing.T) {
	var tokens atomic.Int32
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens.Add(1)
		reply(w, fine)
	}))
	defer plain.Close()
	var target string
	var hits atomic.Int32
	var last *http.Request
	var body []byte
	s, c := serve(t, Config{Token: "hvs.secret"}, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		var status int
		if _, err := fmt.Sscanf(r.URL.Query().Get("status"), "%d", &status); err == nil && status > 0 {
			w.Header().Set("Location", target)
			w.WriteHeader(status)
			return
		}
		last = r
		body, _ = io.ReadAll(r.Body)
		reply(w, fine)
	})
	do := func(method string, status int) error {
		hits.Store(0)
		_, err := c.Do(t.Context(), Request{Method: method, Path: "x", Query: map[string][]string{"status": {fmt.Sprint(status)}}, Body: map[string]int{"a": 1}})
		return err
	}
	target = "/v1/x" // the same server
	for _, method := range []string{"GET", "POST", "PATCH", "DELETE"} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			err := do(method, status)
			follows := status >= 307 || method == "GET"
			if follows != (err == nil) || follows && (last.Method != method || string(body) != `{"a":1}` || last.Header.Get("X-Vault-Token") != "hvs.secret") {
				t.Errorf("%s after %d: %v", method, status, err)
			}
		}
	}
	target = plain.URL + "/v1/x" // out of TLS
	for _, status := range []int{301, 302, 303, 307, 308} {
		if err := do("GET", status); err == nil || !strings.Contains(err.Error(), "https to http") || hits.Load() != 1 {
			t.Errorf("to http after %d: %v", status, err)
		}
	}
	if tokens.Load() != 0 {
		t.Fatal("a token was sent in the clear")
	}
	target = s.URL + "/v1/x?status=307" // in a circle
	if err := do("POST", 307); err == nil || hits.Load() != maxRedirects+1 || errors.Is(err, ErrUncertain) {
		t.Errorf("in a circle, after %d: %v", hits.Load(), err)
	}
	for _, bad := range []string{"ftp://x/", "https://", "https://user:pw@x/", "://", "javascript:alert(1)"} {
		target = bad
		if err := do("GET", 307); err == nil || hits.Load() != 1 {
			t.Errorf("to %q: %v", bad, err)
		}
	}
	target = ""
	if err := do("GET", 307); err == nil {
		t.Error("a redirect to nowhere is no answer")
	}
	// A server that the client does not trust gets nothing.
	stranger := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { tokens.Add(1) }))
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	stranger.StartTLS()
	defer stranger.Close()
	target = stranger.URL + "/v1/x"
	if err := do("GET", 307); err == nil || tokens.Load() != 0 {
		t.Errorf("to a stranger: %v", err)
	}
}

func TestOnlyTrustedServersAreAsked(t *testing.T) {
	var asked atomic.Int32
	s, _ := serve(t, Config{}, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); reply(w, fine) })
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	other := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(t).Certificate[0]})
	var dials int
	for name, c := range map[string]struct {
		Config
		ok bool
	}{
		"the system's authorities": {Config{}, false}, "another authority": {Config{CACertPEM: other}, false},
		"another name":  {Config{CACertPEM: own, ServerName: "coffer.test"}, false},
		"the authority": {Config{CACertPEM: own}, true}, "the authority and a name it has": {Config{CACertPEM: own, ServerName: "example.com"}, true},
		"nothing to be verified": {Config{SkipVerify: true}, true},
	} {
		asked.Store(0)
		c.Address, c.Token, c.MaxRetries = s.URL, "hvs.t", 5
		client, err := New(c.Config)
		if err != nil {
			t.Fatal(err)
		}
		dials = 0
		dial := client.own.DialContext
		client.own.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials++
			return dial(ctx, network, addr)
		}
		_, err = client.Do(t.Context(), Request{Path: "x"})
		if c.ok != (err == nil) || c.ok != (asked.Load() == 1) || dials != 1 {
			t.Errorf("%s: %d requests over %d connections: %v", name, asked.Load(), dials, err)
		}
		client.Close()
	}
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	defer old.Close()
	asked.Store(0)
	if _, err := connected(t, old, Config{}).Do(t.Context(), Request{Path: "x"}); err == nil || asked.Load() != 0 {
		t.Errorf("over TLS 1.1: %v", err)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer plain.Close()
	c, err := New(Config{Address: strings.Replace(plain.URL, "http:", "https:", 1), Token: "hvs.t", CACertPEM: own})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := c.Do(t.Context(), Request{Path: "x"}); err == nil || asked.Load() != 0 || time.Since(began) > 200*time.Millisecond {
		t.Errorf("https to http: %v", err)
	}
}

func TestWritesThatMayHaveBeenCarriedOut(t *testing.T) {
	var asked atomic.Int32
	var cut atomic.Bool
	_, c := serve(t, Config{Token: "t"}, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if cut.Load() {
			_, _ = io.ReadAll(r.Body)
			panic(http.ErrAbortHandler)
		}
		reply(w, fine)
	})
	cut.Store(true)
	for method, times := range map[string]int32{"POST": 1, "PUT": 1, "PATCH": 1, "DELETE": 1, "GET": 3, "LIST": 3} {
		asked.Store(0)
		_, err := c.Do(t.Context(), Request{Method: method, Path: "x", Body: struct{}{}})
		if err == nil || asked.Load() != times || errors.Is(err, ErrUncertain) != (times == 1) {
			t.Errorf("%s arrived %d times: %v", method, asked.Load(), err)
		}
	}
}

func TestAServerThatComesBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	c, err := New(Config{Address: "http://" + address, RetryMin: 200 * time.Millisecond, RetryMax: 200 * time.Millisecond, MaxRetries: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	once, err := New(Config{Address: "http://" + address, MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = once.Do(t.Context(), Request{Method: "POST", Path: "x"})
	if !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, ErrUncertain) || !strings.HasPrefix(err.Error(), "POST x: dial tcp") {
		t.Errorf("nobody there: %v", err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reply(w, fine) }), ReadHeaderTimeout: time.Second}
	done := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() {
		l, err := net.Listen("tcp", address)
		if err == nil {
			err = s.Serve(l)
		}
		done <- err
	})
	if _, err := c.Do(t.Context(), Request{Method: "POST", Path: "x"}); err != nil {
		t.Errorf("a write while the server started: %v", err)
	}
	_ = s.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func TestAnswersThatCannotBe(t *testing.T) {
	var kind, body string
	var status int
	var asked atomic.Int32
	_, c := serve(t, Config{MaxResponse: 1000}, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", kind)
		if len(body) > 2000 {
			w.(http.Flusher).Flush() // no length is announced
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	const json = "application/json"
	for name, a := range map[string]struct {
		status     int
		kind, body string
		text       string // in the error; "" is none
	}{
		"an envelope": {200, json, fine, ""}, "its charset": {200, "application/json; charset=utf-8", fine, ""},
		"nothing": {204, "", "", ""}, "empty": {200, json, "", ""}, "something else": {200, "text/plain", "ok", ""},
		"a list": {200, json, "[1]", ""}, "bare": {200, json, `{"sealed":true,"data":5}`, ""}, "exactly as large as it may be": {200, "text/plain", strings.Repeat("x", 1000), ""},
		"too large": {200, json, strings.Repeat("x", 1001), "larger than 1000 bytes"}, "larger": {200, json, strings.Repeat("x", 5000), "larger than 1000 bytes"},
		"an error that is too large": {500, json, strings.Repeat("x", 5000), "larger than 1000 bytes"},
		"cut":                        {200, json, `{"request_id":"1","da`, "not what a server"}, "two": {200, json, fine + fine, "not what a server"},
		"a name twice": {200, json, `{"request_id":"1","data":{"a":1,"a":2}}`, "not what a server"}, "invalid UTF-8": {200, json, "{\"a\":\"\xff\"}", "not what a server"},
		"wrong types": {200, json, `{"request_id":"hunter2","data":{},"auth":"hunter2"}`, "not what a server"}, "deep": {200, json, strings.Repeat("[", 900), "not what a server"},
		"a proxy's error": {502, "text/html", "<html>hunter2</html>", "502: bad gateway"}, "an error without JSON": {500, json, "hunter2{", "500: internal server error"},
		"errors of another type": {400, json, `{"errors":"hunter2"}`, "400: bad request"}, "an error": {400, json, `{"errors":["a","b"],"request_id":"7"}`, "400: a; b (request 7)"},
		"not modified": {304, json, "", "304: not modified"},
	} {
		kind, body, status = a.kind, a.body, a.status
		asked.Store(0)
		out, err := c.Do(t.Context(), Request{Path: "x", Once: true})
		switch {
		case a.text == "" && (err != nil || string(out.Body) != a.body):
			t.Errorf("%s: %v", name, err)
		case a.text != "" && (err == nil || !strings.Contains(err.Error(), a.text) || strings.Contains(err.Error(), "hunter2") || asked.Load() != 1):
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Sys().Mounts(t.Context()); a.body != fine && status != 204 && err == nil && name != "bare" {
			t.Errorf("%s: taken for mounts", name)
		}
		if err := c.KV("secret").Delete(t.Context(), "x"); a.kind != json && a.body != "" && !strings.HasPrefix(a.kind, json) && err == nil {
			t.Errorf("%s: taken for a deletion", name)
		}
	}
}

func TestCancellingGivesUpAtOnce(t *testing.T) {
	arrived, left := make(chan struct{}), make(chan struct{})
	_, c := serve(t, Config{}, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := c.Do(ctx, Request{Path: "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-left
}

func TestSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/away" {
			http.Redirect(w, r, "https://127.0.0.1:1/v1/x", http.StatusTemporaryRedirect)
			return
		}
		reply(w, fine)
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	defer s.Close()
	c := connected(t, s, Config{Address: "unix://" + path, Token: "t"})
	if _, err := c.Do(t.Context(), Request{Path: "x"}); err != nil {
		t.Errorf("%v", err)
	}
	if _, err := c.Do(t.Context(), Request{Path: "away"}); err == nil || !strings.Contains(err.Error(), "socket") {
		t.Errorf("away: %v", err)
	}
}

func TestClientCertificates(t *testing.T) {
	dir := t.TempDir()
	pair := selfSigned(t)
	writePair(t, dir, pair)
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reply(w, fine) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	defer s.Close()
	with := Config{ClientCert: filepath.Join(dir, "cert.pem"), ClientKey: filepath.Join(dir, "key.pem")}
	if _, err := connected(t, s, with).Do(t.Context(), Request{Path: "x"}); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if _, err := connected(t, s, Config{}).Do(t.Context(), Request{Path: "x"}); err == nil {
		t.Error("without a certificate")
	}
}
