package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
)

// client returns a client that trusts the pool and speaks HTTP/2 when asked.
func client(t testing.TB, pool *x509.CertPool, http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: protocols, MaxIdleConnsPerHost: 64,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func TestTLSAndHTTP2(t *testing.T) {
	config, pool := testTLS(t)
	large := bytes.Repeat([]byte("x"), 300<<10)
	g := &recorder{answer: func(r *gateway.Request) gateway.Answer {
		return gateway.Answer{Status: 200, ContentType: "application/octet-stream", Body: r.Body}
	}}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve}, TLS: config})
	for _, http2 := range []bool{false, true} {
		c := client(t, pool, http2)
		resp, err := c.Post("https://"+address+"/v1/echo", "application/json", bytes.NewReader(large))
		if err != nil {
			t.Fatalf("http2 %v: %v", http2, err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, large) {
			t.Errorf("http2 %v: %d bytes back, %v", http2, len(got), err)
		}
		if want := map[bool]int{false: 1, true: 2}[http2]; resp.ProtoMajor != want {
			t.Errorf("spoke HTTP/%d, want %d", resp.ProtoMajor, want)
		}
		for name, want := range map[string]string{
			"Strict-Transport-Security": "max-age=31536000; includeSubDomains", "Cache-Control": "no-store",
			"X-Content-Type-Options": "nosniff", "Content-Type": "application/octet-stream", "Content-Length": "307200",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("http2 %v: %s is %q, want %q", http2, name, got, want)
			}
		}
		resp, err = c.Get("https://" + address + "/v1/a/%2e%2e/b")
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 400 || !strings.Contains(errorsOf(t, resp.Body)[0], "..") {
			t.Errorf("http2 %v: status %d for a bad path", http2, resp.StatusCode)
		}
		resp.Body.Close()
	}
}

func TestSlowBodyOverHTTP2(t *testing.T) {
	config, pool := testTLS(t)
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve, BodyGrace: 200 * time.Millisecond}, TLS: config})
	body, sender := io.Pipe()
	defer sender.Close()
	resp, err := client(t, pool, true).Post("https://"+address+"/v1/a", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 408 || resp.ProtoMajor != 2 {
		t.Errorf("status %d over HTTP/%d", resp.StatusCode, resp.ProtoMajor)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	config, pool := testTLS(t)
	config.MinVersion = tls.VersionTLS10
	address, _ := start(t, Listener{Options: Options{Serve: (&recorder{}).Serve}, TLS: config})
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: version})
		if (err == nil) != ok {
			t.Errorf("TLS %x: %v", version, err)
		}
		if err == nil {
			c.Close()
		}
	}
}

func TestMalformedRequestOverTLS(t *testing.T) {
	config, pool := testTLS(t)
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve}, TLS: config})
	c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A good request first: the refusal must be told from an answer's beginning.
	_, _ = io.WriteString(c, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n")
	buffer := make([]byte, 4096)
	if n, err := c.Read(buffer); err != nil || !strings.HasPrefix(string(buffer[:n]), "HTTP/1.1 200") {
		t.Fatalf("%q, %v", buffer[:n], err)
	}
	_, _ = io.WriteString(c, "GET /v1/%zz HTTP/1.1\r\nHost: x\r\n\r\n")
	resp := answerOn(t, c)
	if resp.StatusCode != 400 || !strings.Contains(errorsOf(t, resp.Body)[0], "parsed") {
		t.Errorf("status %d", resp.StatusCode)
	}
	if req := g.wait(t, 2); req.Problem == nil {
		t.Errorf("recorded %+v", req)
	}
}

// An audit log that cannot be written refuses what cannot be parsed, too.
func TestMalformedRequestIsAnsweredByTheGateway(t *testing.T) {
	serve := func(context.Context, *gateway.Request) gateway.Answer {
		return gateway.Answer{Status: 503, Body: errorsBody("the audit log cannot be written")}
	}
	address, _ := start(t, Listener{Options: Options{Serve: serve}})
	resp := raw(t, address, "GET /v1/%zz HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != 503 || !strings.Contains(errorsOf(t, resp.Body)[0], "audit") {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestPlainHTTPToTLSIsExplained(t *testing.T) {
	config, _ := testTLS(t)
	address, _ := start(t, Listener{Options: Options{Serve: (&recorder{}).Serve}, TLS: config})
	resp := raw(t, address, "GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != 400 || !strings.Contains(errorsOf(t, resp.Body)[0], "HTTPS") {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestSilentHandshakeIsCutOff(t *testing.T) {
	config, _ := testTLS(t)
	address, _ := start(t, Listener{Options: Options{Serve: (&recorder{}).Serve}, TLS: config, ReadHeaderTimeout: 200 * time.Millisecond})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}

func TestShutdownFinishesWhatIsUnderWay(t *testing.T) {
	entered, release := make(chan struct{}, 2), make(chan struct{})
	serve := func(ctx context.Context, _ *gateway.Request) gateway.Answer {
		entered <- struct{}{}
		select {
		case <-release:
			return gateway.Answer{Status: 200, Body: []byte("{}")}
		case <-ctx.Done():
			return refusal(fault.From(ctx.Err()))
		}
	}
	config, pool := testTLS(t)
	address, server := start(t, Listener{Options: Options{Serve: serve}, TLS: config})
	var clients sync.WaitGroup
	for _, http2 := range []bool{false, true} {
		c := client(t, pool, http2)
		clients.Go(func() {
			resp, err := c.Get("https://" + address + "/v1/a")
			if err != nil {
				t.Errorf("http2 %v: cut off: %v", http2, err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("http2 %v: status %d", http2, resp.StatusCode)
			}
		})
	}
	<-entered
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(context.Background()) }()
	for {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(5 * time.Millisecond)
	}
	close(release)
	clients.Wait()
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	serve := func(ctx context.Context, _ *gateway.Request) gateway.Answer {
		close(entered)
		<-ctx.Done()
		close(left)
		return refusal(fault.From(ctx.Err()))
	}
	address, server := start(t, Listener{Options: Options{Serve: serve}})
	go func() {
		if resp, err := http.Get("http://" + address + "/v1/a"); err == nil {
			resp.Body.Close()
		}
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	<-left
	http.DefaultClient.CloseIdleConnections()
}

func TestAnswerHeaders(t *testing.T) {
	answers := map[string]gateway.Answer{
		"method":  {Status: 405, Body: errorsBody("no"), Allow: []string{"GET", "POST", "LIST"}},
		"limited": {Status: 429, Body: errorsBody("later"), RetryAfter: 1200 * time.Millisecond},
		"nothing": {Status: 204},
		"text":    {Status: 200, ContentType: "text/plain", Body: []byte("hi")},
		"json":    {Status: 200, Body: []byte("{}")},
	}
	g := &recorder{answer: func(r *gateway.Request) gateway.Answer { return answers[r.Path] }}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve, Headers: StatusHeaders{
		"default": {"X-All": {"1"}, "Cache-Control": {"public"}}, "4xx": {"x-class": {"4"}, "X-All": {"4"}}, "405": {"X-All": {"405"}},
	}}})
	want := map[string]map[string]string{
		"method":  {"Allow": "GET, LIST, POST, PUT", "X-All": "405", "X-Class": "4", "Cache-Control": "no-store", "Content-Type": "application/json"},
		"limited": {"Retry-After": "2", "X-All": "4", "Allow": ""},
		"nothing": {"Content-Type": "", "X-All": "1", "X-Class": ""},
		"text":    {"Content-Type": "text/plain", "Strict-Transport-Security": ""},
		"json":    {"Content-Type": "application/json"},
	}
	for path, headers := range want {
		resp, err := http.Get("http://" + address + "/v1/" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != answers[path].Status {
			t.Errorf("%s: status %d", path, resp.StatusCode)
		}
		for name, value := range headers {
			if got := resp.Header.Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", path, name, got, value)
			}
		}
	}
	for _, path := range []string{"/", "/ui", "/ui/vault", "/metrics", "/v2/a"} {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		if got := errorsOf(t, resp.Body); resp.StatusCode != 404 || !strings.Contains(got[0], "/v1/") {
			t.Errorf("%s: %d %q", path, resp.StatusCode, got)
		}
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	if err := (StatusHeaders{"6xx": nil}).Validate(); err == nil {
		t.Error("6xx is accepted")
	}
	if err := (StatusHeaders{"200": {"X-Vault-Token": {"a"}}}).Validate(); err == nil {
		t.Error("X-Vault-Token is accepted")
	}
}

func TestRequireRequestHeader(t *testing.T) {
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve, RequireRequestHeader: true}})
	if resp := raw(t, address, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 412 {
		t.Errorf("without: status %d", resp.StatusCode)
	}
	if resp := raw(t, address, "GET /v1/a HTTP/1.1\r\nHost: x\r\nX-Vault-Request: true\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("with: status %d", resp.StatusCode)
	}
}

func TestForwardedFor(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	elsewhere := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	cases := []struct {
		name      string
		forwarded *Forwarded
		headers   []string
		status    int
		client    string // "" is the peer
	}{
		{"believed", &Forwarded{Authorized: loopback}, []string{"203.0.113.9"}, 200, "203.0.113.9"},
		{"the last hop counts", &Forwarded{Authorized: loopback}, []string{"1.1.1.1, 203.0.113.9"}, 200, "203.0.113.9"},
		{"headers join", &Forwarded{Authorized: loopback, HopSkips: 1}, []string{"1.1.1.1", "2.2.2.2,3.3.3.3"}, 200, "2.2.2.2"},
		{"too many skips", &Forwarded{Authorized: loopback, HopSkips: 2}, []string{"1.1.1.1"}, 400, ""},
		{"IPv6 with port", &Forwarded{Authorized: loopback}, []string{"[2001:db8::1]:99"}, 200, "2001:db8::1"},
		{"IPv6", &Forwarded{Authorized: loopback}, []string{"2001:db8::1"}, 200, "2001:db8::1"},
		{"no address", &Forwarded{Authorized: loopback}, []string{"unknown"}, 400, ""},
		{"stranger refused", &Forwarded{Authorized: elsewhere, RejectNotAuthorized: true}, []string{"1.1.1.1"}, 400, ""},
		{"stranger not believed", &Forwarded{Authorized: elsewhere}, []string{"1.1.1.1"}, 200, ""},
		{"absent", &Forwarded{Authorized: loopback}, nil, 200, ""},
		{"absent refused", &Forwarded{Authorized: loopback, RejectNotPresent: true}, nil, 400, ""},
		{"nobody is believed", nil, []string{"1.1.1.1"}, 200, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := &recorder{}
			address, _ := start(t, Listener{Options: Options{Serve: g.Serve, Forwarded: c.forwarded}})
			text := "GET /v1/a HTTP/1.1\r\nHost: x\r\n"
			for _, h := range c.headers {
				text += "X-Forwarded-For: " + h + "\r\n"
			}
			if resp := raw(t, address, text+"\r\n"); resp.StatusCode != c.status {
				t.Errorf("status %d, want %d", resp.StatusCode, c.status)
			}
			want := c.client
			if want == "" {
				want = "127.0.0.1"
			}
			if got := g.wait(t, 1).Remote; got.Addr().String() != want || got.Port() == 0 {
				t.Errorf("client %v, want %v", got, want)
			}
		})
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "coffer.sock")
	g := &recorder{}
	for range 2 { // the second start finds the first one's socket file
		l, err := Listen(t.Context(), "unix", path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode: %v, %v", info, err)
		}
		if _, err := Listen(t.Context(), "unix", path, 0o600); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("a live socket was taken over: %v", err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		server := NewServer(Listener{Options: Options{Serve: g.Serve, Log: discard}})
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp := answerOn(t, c); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
		c.Close()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	if err := Own(path, strconv.Itoa(os.Getuid()), ""); err != nil {
		t.Error(err)
	}
	if err := Own(path, "no-such-user-here", ""); err == nil || !strings.Contains(err.Error(), "no such user") {
		t.Errorf("an unknown owner: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), "unix", file, 0o600); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file was taken for a socket: %v", err)
	}
}

func TestRequestHasAnEnd(t *testing.T) {
	serve := func(ctx context.Context, _ *gateway.Request) gateway.Answer {
		<-ctx.Done()
		return refusal(fault.From(ctx.Err()))
	}
	address, _ := start(t, Listener{Options: Options{Serve: serve, MaxDuration: 50 * time.Millisecond}})
	if resp := raw(t, address, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 503 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestPipelinedMalformedRequest(t *testing.T) {
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve}})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/%zz HTTP/1.1\r\nHost: x\r\n\r\n")
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(all); !strings.HasPrefix(text, "HTTP/1.1 200") || !strings.Contains(text, `{"errors":["the request is not valid HTTP`) {
		t.Errorf("answers %q", text)
	}
	if got := len(g.requests()); got != 2 {
		t.Errorf("%d requests were recorded", got)
	}
}

// A client that comes and goes without asking anything is no request.
func TestQuietConnectionsAreNotRecorded(t *testing.T) {
	config, pool := testTLS(t)
	g := &recorder{}
	plain, _ := start(t, Listener{Options: Options{Serve: g.Serve}})
	secure, server := start(t, Listener{Options: Options{Serve: g.Serve}, TLS: config})
	if c, err := net.Dial("tcp", plain); err == nil {
		c.Close()
	}
	if c, err := tls.Dial("tcp", secure, &tls.Config{RootCAs: pool}); err == nil {
		c.Close()
	}
	for _, http2 := range []bool{false, true} {
		c := client(t, pool, http2)
		resp, err := c.Get("https://" + secure + "/v1/a")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		c.CloseIdleConnections()
	}
	time.Sleep(100 * time.Millisecond)
	_ = server.Shutdown(t.Context())
	if got := g.requests(); len(got) != 2 {
		t.Errorf("%d requests were recorded: %+v", len(got), got)
	}
}

// A client that asks and reads nothing is given up: its answer is too large for
// the sockets between, and the server can shut down all the same.
func TestClientThatNeverReadsIsCutOff(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 8<<20)
	entered := make(chan struct{})
	serve := func(context.Context, *gateway.Request) gateway.Answer {
		close(entered)
		return gateway.Answer{Status: 200, Body: large}
	}
	address, server := start(t, Listener{Options: Options{Serve: serve}, WriteTimeout: 300 * time.Millisecond})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetReadBuffer(4096)
	_, _ = io.WriteString(c, "GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Errorf("the answer is still being written: %v", err)
	}
}
