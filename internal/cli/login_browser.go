package cli

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cofferhq/coffer/client"
)

// browser are the parameters of a login in a browser, with Vault's names.
var browser = []param{
	{name: "role", optional: true}, {name: "port", optional: true}, {name: "listenaddress", optional: true},
	{name: "callbackhost", optional: true}, {name: "callbackport", optional: true}, {name: "callbackmethod", optional: true},
	{name: "skip_browser", optional: true}, {name: "abort_on_error", optional: true},
}

// browserWait is how long somebody may take to log in at their provider.
const browserWait = 5 * time.Minute

// loginBrowser sends a person to their identity provider, and listens on this
// machine for the browser to come back.
func (s *shell) loginBrowser(ctx context.Context, f *loginFlags, args []string) (*client.Response, error) {
	given, err := s.given("oidc", browser, args)
	if err != nil {
		return nil, err
	}
	skip, err := truth(given, "skip_browser")
	if err != nil {
		return nil, err
	}
	abort, err := truth(given, "abort_on_error")
	if err != nil {
		return nil, err
	}
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(or(given["listenaddress"], "localhost"), or(given["port"], "8250")))
	if err != nil {
		return nil, fmt.Errorf("listen for the browser to come back: %w; choose another port with port=…, 0 for any that is free", err)
	}
	defer func() { _ = listener.Close() }()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	redirect := url.URL{
		Scheme: or(given["callbackmethod"], "http"), Path: "/oidc/callback",
		Host: net.JoinHostPort(or(given["callbackhost"], "localhost"), or(given["callbackport"], port)),
	}
	login, err := c.Login().OIDC(ctx, f.mount(), given["role"], redirect.String())
	if err != nil {
		return nil, refused(err)
	}
	// What is opened is a page, whatever the server says.
	if u, err := url.Parse(login.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("the server's answer is not the address of a page to log in on")
	}
	if err := s.sendToBrowser(login.URL, skip || f.noBrowser); err != nil && abort {
		return nil, err
	}
	return s.awaitBrowser(ctx, listener, login)
}

// or is text, or what stands for it when it is empty.
func or(text, without string) string {
	if text == "" {
		return without
	}
	return text
}

// truth is a parameter that is true or false, and false where it is not given.
func truth(given map[string]string, name string) (bool, error) {
	v, err := strconv.ParseBool(or(given[name], "false"))
	if err != nil {
		return false, usage("%s is true or false, not %q", name, given[name])
	}
	return v, nil
}

// sendToBrowser shows somebody where to log in. The error is that of opening the
// browser, of which they were told.
func (s *shell) sendToBrowser(address string, skip bool) error {
	fmt.Fprintf(s.Stderr, "Log in at your provider:\n\n    %s\n\n", address)
	if skip || s.Browse == nil {
		return nil
	}
	err := s.Browse(address)
	if err != nil {
		s.warn("the browser cannot be opened (%v); open the address yourself", err)
	}
	return err
}

// returned is a browser that came back: with what, and how to tell it what came of
// that.
type returned struct {
	values url.Values
	tell   chan error
}

// awaitBrowser waits for the browser and ends the login. The browser is told what
// came of it.
func (s *shell) awaitBrowser(ctx context.Context, listener net.Listener, login *client.BrowserLogin) (*client.Response, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, browserWait, fmt.Errorf("nobody came back from the provider within %v", browserWait))
	defer cancel()
	back := make(chan returned)
	server := &http.Server{Handler: comesBack(ctx, login.State(), back), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(listener) }()
	defer func() {
		// The page that is being told goes out first.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(end)
	}()
	select {
	case got := <-back:
		answer, err := s.finishBrowser(ctx, login, got.values)
		got.tell <- err
		return answer, err
	case err := <-stopped:
		return nil, fmt.Errorf("listen for the browser to come back: %w", err)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *shell) finishBrowser(ctx context.Context, login *client.BrowserLogin, values url.Values) (*client.Response, error) {
	request, err := login.FinishRequest(ctx, values)
	if err != nil {
		return nil, refused(err)
	}
	return s.do(ctx, request)
}

// comesBack hands on the first request that is of the login. Others, which any page
// in the browser can make, are refused and change nothing.
func comesBack(ctx context.Context, state string, back chan<- returned) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		if r.URL.Path != "/oidc/callback" || r.Method != http.MethodGet && r.Method != http.MethodPost || r.ParseForm() != nil {
			http.NotFound(w, r)
			return
		}
		values := r.Form
		if state == "" || values.Get("state") != state {
			tell(w, http.StatusBadRequest, "This is not the login that is waited for", "Go back to the terminal, and open the address that stands there.")
			return
		}
		got := returned{values, make(chan error, 1)}
		select {
		case back <- got:
		case <-ctx.Done():
			tell(w, http.StatusGone, "Too late", "Nobody waits for this login any more. Begin again in the terminal.")
			return
		}
		select {
		case err := <-got.tell:
			if err != nil {
				tell(w, http.StatusForbidden, "The login failed", "The terminal says why: "+plainly(err))
				return
			}
			tell(w, http.StatusOK, "You are logged in", "You can close this window and go back to the terminal.")
		case <-r.Context().Done():
		}
	})
}

// plainly is what the server said, without how it was asked.
func plainly(err error) string {
	var e *client.Error
	if errors.As(err, &e) && len(e.Errors) > 0 {
		return e.Errors[0]
	}
	return err.Error()
}

// tell shows a page, which runs nothing and loads nothing.
func tell(w http.ResponseWriter, status int, title, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Connection", "close")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Coffer</title>\n<h1>%s</h1>\n<p>%s</p>\n", html.EscapeString(title), html.EscapeString(text))
}
