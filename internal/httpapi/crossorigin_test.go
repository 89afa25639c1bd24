package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cofferhq/coffer/internal/browser"
	"github.com/cofferhq/coffer/internal/fault"
)

// TestCrossOrigin sends what browsers send, byte by byte.
func TestCrossOrigin(t *testing.T) {
	const good, bad = "https://good.example.test", "https://bad.example.test"
	type configured struct {
		cors *browser.CORS
		err  error
	}
	var now atomic.Pointer[configured]
	now.Store(&configured{cors: &browser.CORS{Origins: []string{good}, Headers: []string{"X-Page"}}})
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve, CORS: func(context.Context) (*browser.CORS, error) {
		c := now.Load()
		return c.cors, c.err
	}}})
	ask := func(method, headers string) *http.Response {
		t.Helper()
		return raw(t, address, method+" /v1/a HTTP/1.1\r\nHost: coffer.test:8200\r\n"+headers+"\r\n")
	}
	wants := func(what string, resp *http.Response, status int, origin string) {
		t.Helper()
		if got := resp.Header.Get("Access-Control-Allow-Origin"); resp.StatusCode != status || got != origin {
			t.Errorf("%s: %d, allowed %q; want %d, %q", what, resp.StatusCode, got, status, origin)
		}
		if resp.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: credentials are allowed", what)
		}
	}
	preflight := "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-vault-token\r\n"
	resp := ask("OPTIONS", "Origin: "+good+"\r\n"+preflight)
	wants("preflight", resp, 204, good)
	if h := resp.Header; h.Get("Vary") != "Origin" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "PUT") || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "X-Vault-Token") ||
		!strings.Contains(h.Get("Access-Control-Allow-Headers"), "X-Page") || h.Get("Access-Control-Max-Age") != "300" {
		t.Errorf("%v", h)
	}
	for _, origin := range []string{bad, "null", good + ".evil.test", good + ":8443", "http://good.example.test", strings.ToUpper(good), "", good + "\r\nOrigin: " + good, good + "\r\nOrigin: " + bad} {
		wants("preflight of "+origin, ask("OPTIONS", "Origin: "+origin+"\r\n"+preflight), 403, "")
		before := len(g.requests())
		for _, method := range []string{"GET", "DELETE", "LIST"} {
			resp := ask(method, "Origin: "+origin+"\r\n")
			wants(method+" of "+origin, resp, 403, "")
			if resp.Header.Get("Vary") != "Origin" {
				t.Errorf("%s: a cache could answer it to others", origin)
			}
		}
		if len(g.requests()) != before {
			t.Errorf("a request of %q was served", origin)
		}
	}
	wants("POST of another page", raw(t, address, "POST /v1/a HTTP/1.1\r\nHost: coffer.test:8200\r\nOrigin: "+bad+"\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}"), 403, "")
	wants("GET", ask("GET", "Origin: "+good+"\r\n"), 200, good)
	wants("odd method", ask("OPTIONS", "Origin: "+good+"\r\nAccess-Control-Request-Method: TRACE\r\n"), 405, good)
	wants("no page", ask("GET", ""), 200, "")
	for _, own := range []string{"https://coffer.test:8200", "http://coffer.test:8200", "https://COFFER.test:8200"} {
		wants("the server's own page "+own, ask("GET", "Origin: "+own+"\r\n"), 200, "")
	}
	now.Store(&configured{cors: &browser.CORS{Origins: []string{browser.Any}}})
	wants("any", ask("OPTIONS", "Origin: "+bad+"\r\n"+preflight), 204, bad)
	wants("any", ask("GET", "Origin: null\r\n"), 200, "null")
	now.Store(&configured{})
	wants("nothing configured", ask("GET", "Origin: "+bad+"\r\n"), 200, "")
	now.Store(&configured{err: fault.New(fault.Sealed, "sealed")})
	wants("sealed", ask("GET", "Origin: "+bad+"\r\n"), 200, "")
	now.Store(&configured{err: errors.New("the storage is away")})
	wants("unknown", ask("GET", "Origin: "+good+"\r\n"), 503, "")
	wants("unknown, no page", ask("GET", ""), 200, "")
}
