package httpapi

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
)

var discard = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a gateway that keeps what it was given and answers problems as
// the gateway does.
type recorder struct {
	mu     sync.Mutex
	got    []gateway.Request
	answer func(*gateway.Request) gateway.Answer
}

func (g *recorder) Serve(_ context.Context, req *gateway.Request) gateway.Answer {
	g.mu.Lock()
	g.got = append(g.got, *req)
	g.mu.Unlock()
	if req.Problem != nil {
		return gateway.Answer{Status: cmp.Or(req.Status, req.Problem.Kind.Status()), Body: errorsBody(req.Problem.Message), RetryAfter: req.Problem.RetryAfter}
	}
	if g.answer != nil {
		return g.answer(req)
	}
	return gateway.Answer{Status: 200, Body: []byte(`{"data":{}}`)}
}

func (g *recorder) requests() []gateway.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]gateway.Request(nil), g.got...)
}

// last waits for the n-th request and returns it: what net/http refuses by
// itself is recorded as the connection closes, after the client has its answer.
func (g *recorder) wait(t *testing.T, n int) gateway.Request {
	t.Helper()
	for range 500 {
		if got := g.requests(); len(got) >= n {
			return got[n-1]
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("request %d was never recorded", n)
	return gateway.Request{}
}

// start serves l on loopback and returns its address.
func start(t testing.TB, l Listener) (address string, server *Server) {
	t.Helper()
	listener, err := Listen(t.Context(), "tcp", "127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	if l.Log == nil {
		l.Log = discard
	}
	server = NewServer(l)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return listener.Addr().String(), server
}

// testTLS returns a server's configuration and a pool that trusts it.
func testTLS(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates}, pool
}

func errorsOf(t *testing.T, body io.Reader) []string {
	t.Helper()
	raw, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	var shape struct {
		Errors []string `json:"errors"`
	}
	if err := json.Unmarshal(raw, &shape); err != nil || shape.Errors == nil {
		t.Fatalf("the answer is not in Vault's shape: %q", raw)
	}
	return shape.Errors
}

// raw sends text as it is and returns the answer.
func raw(t *testing.T, address, text string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return answerOn(t, c)
}

func answerOn(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestBadRequestsAreRefusedAndRecorded(t *testing.T) {
	long := strings.Repeat("a", 5000)
	huge := strings.Repeat("h", 70<<10)
	const end = " HTTP/1.1\r\nHost: x\r\n\r\n"
	cases := []struct {
		name, request string
		status        int
		says          string // in the error
	}{
		{"parent", "GET /v1/secret/../sys/seal" + end, 400, `".."`},
		{"encoded parent", "GET /v1/secret/%2e%2e/sys/seal" + end, 400, `".."`},
		{"encoded slash and parent", "GET /v1/secret/a%2F..%2Fb" + end, 400, `".."`},
		{"parent at the end", "GET /v1/secret/.." + end, 400, `".."`},
		{"only parent", "GET /v1/.." + end, 400, `".."`},
		{"dot", "GET /v1/secret/./a" + end, 400, `"."`},
		{"empty segment", "GET /v1/secret//a" + end, 400, `"//"`},
		{"encoded empty segment", "GET /v1/secret/%2Fa" + end, 400, `"//"`},
		{"leading empty segment", "GET /v1//secret/a" + end, 400, `"//"`},
		{"trailing empty segment", "LIST /v1/secret//" + end, 400, `"//"`},
		{"NUL", "GET /v1/secret/a%00b" + end, 400, "NUL"},
		{"newline", "GET /v1/secret/a%0ab" + end, 400, "control"},
		{"delete", "GET /v1/secret/a%7fb" + end, 400, "control"},
		{"C1 control", "GET /v1/secret/a%C2%85b" + end, 400, "control"},
		{"line separator", "GET /v1/secret/a%E2%80%A8b" + end, 400, "control"},
		{"direction override", "GET /v1/secret/a%E2%80%AEb" + end, 400, "direction"},
		{"invalid UTF-8", "GET /v1/secret/a%ffb" + end, 400, "UTF-8"},
		{"raw invalid UTF-8", "GET /v1/secret/a\xffb" + end, 400, "UTF-8"},
		{"overlong UTF-8 slash", "GET /v1/secret/%c0%afb" + end, 400, "UTF-8"},
		{"invalid UTF-8 then parent", "GET /v1/secret/%c3%a9/../b" + end, 400, `".."`},
		{"bad escape", "GET /v1/secret/%zz" + end, 400, "parsed"},
		{"raw NUL", "GET /v1/secret/\x00a" + end, 400, "parsed"},
		{"no HTTP", "hello\r\n\r\n", 400, "parsed"},
		{"no host", "GET /v1/secret/a HTTP/1.1\r\n\r\n", 400, "parsed"},
		{"two lengths", "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "parsed"},
		{"negative length", "POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nab", 400, "parsed"},
		{"header with a control character", "GET /v1/a HTTP/1.1\r\nHost: x\r\nX-Vault-Token: a\x01b\r\n\r\n", 400, "parsed"},
		{"unknown transfer encoding", "POST /v1/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nab", 501, "parsed"},
		{"HTTP/3.0", "GET /v1/a HTTP/3.0\r\nHost: x\r\n\r\n", 505, "parsed"},
		{"long path", "GET /v1/secret/" + long + end, 414, "4096"},
		{"huge header", "GET /v1/secret/a HTTP/1.1\r\nHost: x\r\nX-Big: " + huge + "\r\n\r\n", 431, "headers"},
		{"huge token", "GET /v1/secret/a HTTP/1.1\r\nHost: x\r\nX-Vault-Token: " + huge + "\r\n\r\n", 431, "headers"},
		{"monstrous header", "GET /v1/secret/a HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat(huge, 6) + "\r\n\r\n", 431, "far too large"},
		{"two tokens", "GET /v1/secret/a HTTP/1.1\r\nHost: x\r\nX-Vault-Token: a\r\nX-Vault-Token: b\r\n\r\n", 400, "X-Vault-Token"},
		{"two bearers", "GET /v1/secret/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400, "bearer"},
		{"bad query", "GET /v1/secret/a?x=%zz" + end, 400, "query"},
		{"semicolon query", "GET /v1/secret/a?x=1;y=2" + end, 400, "query"},
		{"bad list", "GET /v1/secret/a?list=maybe" + end, 400, "list"},
		{"announced too long", "POST /v1/secret/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{", 413, "2097152"},
		{"compressed", "POST /v1/secret/a HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415, "Content-Encoding"},
		{"bad chunk", "POST /v1/secret/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", 400, "body"},
		{"invalid path with a body that never comes", "POST /v1/secret/.. HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", 400, `".."`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := &recorder{}
			address, _ := start(t, Listener{Options: Options{Serve: g.Serve}})
			resp := raw(t, address, c.request)
			if resp.StatusCode != c.status {
				t.Errorf("status %d, want %d", resp.StatusCode, c.status)
			}
			if got := errorsOf(t, resp.Body); len(got) != 1 || !strings.Contains(got[0], c.says) {
				t.Errorf("errors %q, want one with %q", got, c.says)
			}
			req := g.wait(t, 1)
			if req.Problem == nil || !strings.Contains(req.Problem.Message, c.says) {
				t.Errorf("recorded problem %v, want one with %q", req.Problem, c.says)
			}
			if req.ID == "" || !req.Remote.IsValid() {
				t.Errorf("recorded without id or address: %+v", req)
			}
			if got := len(g.requests()); got != 1 {
				t.Errorf("recorded %d times", got)
			}
		})
	}
}

func TestSlowBodiesAreCutOff(t *testing.T) {
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve, BodyGrace: 200 * time.Millisecond, MinBodyRate: 1000}})
	for _, c := range []struct {
		name, head, drip string
		every            time.Duration
	}{
		{"announced and never sent", "Content-Length: 100\r\n\r\n", "", 0},
		{"a byte at a time", "Content-Length: 100000\r\n\r\n", "x", 20 * time.Millisecond},
		{"a chunk at a time", "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 20 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			started := time.Now()
			_, _ = io.WriteString(conn, "POST /v1/secret/a HTTP/1.1\r\nHost: x\r\n"+c.head)
			stop := make(chan struct{})
			var dripping sync.WaitGroup
			if c.drip != "" {
				dripping.Go(func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(c.every):
							_, _ = io.WriteString(conn, c.drip)
						}
					}
				})
			}
			resp := answerOn(t, conn)
			close(stop)
			dripping.Wait()
			if resp.StatusCode != 408 {
				t.Errorf("status %d, want 408", resp.StatusCode)
			}
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if got := errorsOf(t, resp.Body); !strings.Contains(got[0], "slowly") {
				t.Errorf("errors %q", got)
			}
		})
	}
	for _, req := range g.requests() {
		if req.Problem == nil || req.Problem.Kind != fault.Timeout || req.Body != nil {
			t.Errorf("recorded %+v", req)
		}
	}
}

// The listener's own bound holds, however patient the rate is.
func TestReadTimeoutCutsBodiesOff(t *testing.T) {
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve}, ReadTimeout: 200 * time.Millisecond})
	begun := time.Now()
	resp := raw(t, address, "POST /v1/secret/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	if took := time.Since(begun); resp.StatusCode != 408 || took > DefaultBodyGrace/2 {
		t.Errorf("status %d after %v, want 408", resp.StatusCode, took)
	}
	if got := errorsOf(t, resp.Body); !strings.Contains(got[0], "200ms") {
		t.Errorf("errors %q", got)
	}
}

// A slow but steady sender above the minimum rate is served.
func TestSteadyBodyIsRead(t *testing.T) {
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve, BodyGrace: 300 * time.Millisecond, MinBodyRate: 1000}})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST /v1/secret/a HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n")
	for range 8 {
		time.Sleep(80 * time.Millisecond)
		_, _ = conn.Write(bytes.Repeat([]byte("x"), 500))
	}
	if resp := answerOn(t, conn); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if got := g.wait(t, 1); len(got.Body) != 4000 || got.Problem != nil {
		t.Errorf("body of %d bytes, problem %v", len(got.Body), got.Problem)
	}
}

func TestSlowHeadersAreCutOffAndRecorded(t *testing.T) {
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve}, ReadHeaderTimeout: 200 * time.Millisecond})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /v1/secret/a HTTP/1.1\r\nHost:")
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatalf("the connection is still open: %v", err)
	}
	if req := g.wait(t, 1); req.Problem == nil {
		t.Errorf("recorded %+v", req)
	}
}

func TestTruncatedBodyIsRefused(t *testing.T) {
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve}})
	for _, head := range []string{"Content-Length: 100\r\n\r\n{\"data\":", "Transfer-Encoding: chunked\r\n\r\n8\r\n{\"data\":\r\n"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "POST /v1/secret/a HTTP/1.1\r\nHost: x\r\n"+head)
		_ = conn.(*net.TCPConn).CloseWrite()
		resp := answerOn(t, conn)
		if resp.StatusCode != 400 {
			t.Errorf("status %d, want 400", resp.StatusCode)
		}
		if got := errorsOf(t, resp.Body); !strings.Contains(got[0], "ended before") {
			t.Errorf("errors %q", got)
		}
		conn.Close()
	}
	for _, req := range g.requests() {
		if req.Problem == nil || req.Body != nil {
			t.Errorf("a truncated body was passed on: %+v", req)
		}
	}
}

func TestBodyLimit(t *testing.T) {
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve, MaxBody: 1000}})
	for _, chunked := range []bool{false, true} {
		for size, want := range map[int]int{0: 200, 1: 200, 999: 200, 1000: 200, 1001: 413, 300_000: 413} {
			var body io.Reader = bytes.NewReader(bytes.Repeat([]byte("x"), size))
			if chunked {
				body = io.MultiReader(body)
			}
			resp, err := http.Post("http://"+address+"/v1/a", "application/json", body)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%d bytes, chunked %v: status %d, want %d", size, chunked, resp.StatusCode, want)
			}
		}
	}
	for _, req := range g.requests() {
		if req.Problem == nil && len(req.Body) > 1000 {
			t.Errorf("%d bytes were passed on", len(req.Body))
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestRequestIsUnderstood(t *testing.T) {
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	cases := []struct {
		name, method, target string
		header               map[string]string
		body                 string
		want                 gateway.Request
	}{
		{"read", "GET", "/v1/secret/data/app", map[string]string{"X-Vault-Token": "hvs.a"}, "", gateway.Request{Method: "GET", Path: "secret/data/app", Token: "hvs.a"}},
		{"bearer", "GET", "/v1/a", map[string]string{"Authorization": "bearer hvs.b"}, "", gateway.Request{Method: "GET", Path: "a", Token: "hvs.b"}},
		{"both", "GET", "/v1/a", map[string]string{"X-Vault-Token": "t", "Authorization": "Bearer u"}, "", gateway.Request{Method: "GET", Path: "a", Token: "t"}},
		{"basic is no token", "GET", "/v1/a", map[string]string{"Authorization": "Basic dTpw"}, "", gateway.Request{Method: "GET", Path: "a"}},
		{"put is post", "PUT", "/v1/a", map[string]string{"Content-Type": "application/json"}, "{}", gateway.Request{Method: "POST", Path: "a", Body: []byte("{}"), ContentType: "application/json"}},
		{"patch", "PATCH", "/v1/a", map[string]string{"Content-Type": "application/merge-patch+json"}, "{}", gateway.Request{Method: "PATCH", Path: "a", Body: []byte("{}"), ContentType: "application/merge-patch+json"}},
		{"list", "LIST", "/v1/a/", nil, "", gateway.Request{Method: "LIST", Path: "a/"}},
		{"list by query", "GET", "/v1/a?list=true", nil, "", gateway.Request{Method: "LIST", Path: "a"}},
		{"not list", "GET", "/v1/a?list=false", nil, "", gateway.Request{Method: "GET", Path: "a"}},
		{"post does not list", "POST", "/v1/a?list=true", nil, "", gateway.Request{Method: "POST", Path: "a"}},
		{"help", "GET", "/v1/a?help=1", nil, "", gateway.Request{Method: "GET", Path: "a", Help: true}},
		{"help method", "HELP", "/v1/a", nil, "", gateway.Request{Method: "GET", Path: "a", Help: true}},
		{"head of health", "HEAD", "/v1/sys/health", nil, "", gateway.Request{Method: "GET", Path: "sys/health"}},
		{"head elsewhere", "HEAD", "/v1/a", nil, "", gateway.Request{Method: "HEAD", Path: "a"}},
		{"encoded slash", "GET", "/v1/a%2Fb", nil, "", gateway.Request{Method: "GET", Path: "a/b"}},
		{"space, unicode, dots", "GET", "/v1/a%20b/%C3%A9/.hidden/a..b/...", nil, "", gateway.Request{Method: "GET", Path: "a b/é/.hidden/a..b/..."}},
		{"namespace and wrapping", "GET", "/v1/a", map[string]string{"X-Vault-Namespace": "team/", "X-Vault-Wrap-TTL": "60s"}, "", gateway.Request{Method: "GET", Path: "a", Namespace: "team/", WrapTTL: "60s"}},
		{"trace", "GET", "/v1/a", map[string]string{"Traceparent": parent, "X-Request-ID": "r-1"}, "", gateway.Request{Method: "GET", Path: "a", Traceparent: parent, Correlation: "r-1"}},
		{"correlation first", "GET", "/v1/a", map[string]string{"X-Correlation-ID": "c", "X-Request-ID": "r"}, "", gateway.Request{Method: "GET", Path: "a", Correlation: "c"}},
		{"unprintable correlation", "GET", "/v1/a", map[string]string{"X-Correlation-ID": "é"}, "", gateway.Request{Method: "GET", Path: "a"}},
		{"long correlation", "GET", "/v1/a", map[string]string{"X-Correlation-ID": strings.Repeat("c", 129)}, "", gateway.Request{Method: "GET", Path: "a"}},
		{"version root", "GET", "/v1", nil, "", gateway.Request{Method: "GET"}},
	}
	g := &recorder{}
	h := New(Options{Serve: g.Serve, Log: discard})
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
			for name, value := range c.header {
				r.Header.Set(name, value)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			got := g.requests()[i]
			if !uuid.MatchString(got.ID) {
				t.Errorf("id %q", got.ID)
			}
			if got.Remote != netip.MustParseAddrPort("192.0.2.1:1234") {
				t.Errorf("remote %v", got.Remote)
			}
			want := c.want
			if got.Problem != nil || got.Method != want.Method || got.Path != want.Path || got.Token != want.Token || got.Help != want.Help ||
				got.Namespace != want.Namespace || got.WrapTTL != want.WrapTTL || got.Traceparent != want.Traceparent ||
				got.Correlation != want.Correlation || got.ContentType != want.ContentType || !bytes.Equal(got.Body, want.Body) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestTraceparent(t *testing.T) {
	good := []string{
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-later",
	}
	bad := []string{
		"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-a\x01",
	}
	for _, text := range good {
		if traceparent(text) != text {
			t.Errorf("%q is refused", text)
		}
	}
	for _, text := range bad {
		if traceparent(text) != "" {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestPanicIsAnsweredAndLoggedWithoutData(t *testing.T) {
	var log bytes.Buffer
	serve := func(context.Context, *gateway.Request) gateway.Answer { panic("the password is hunter2") }
	counted := 0
	h := New(Options{Serve: serve, Log: slog.New(slog.NewTextHandler(&log, nil)), Panicked: func() { counted++ }})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/secret/data/hunter2", nil))
	if w.Code != 500 || counted != 1 {
		t.Errorf("status %d, counted %d times", w.Code, counted)
	}
	if got := errorsOf(t, w.Body); !strings.Contains(got[0], "request id") {
		t.Errorf("errors %q", got)
	}
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "TestPanicIsAnswered") {
		t.Errorf("the log: %s", text)
	}
}
