package app_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/audit"
)

// badServer has a second listener without TLS and with little patience.
func badServer(t *testing.T) (s *apptest.Server, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	s = apptest.Start(t, fmt.Sprintf("listener \"unix\" {\n  address = %q\n  http_read_timeout = \"500ms\"\n  http_read_header_timeout = \"500ms\"\n}\n", socket))
	s.Must(t, 204, "POST", "sys/auth/userpass", `{"type":"userpass"}`)
	s.Must(t, 204, "POST", "sys/mounts/old", `{"type":"kv","options":{"version":"1"}}`)
	s.Must(t, 204, "POST", "sys/policies/acl/p", `{"policy":"path \"secret/*\" { capabilities = [\"read\"] }"}`)
	s.Must(t, 204, "POST", "old/a", `{"a":"b"}`)
	s.Must(t, 200, "POST", "secret/data/a", `{"data":{"a":"b"}}`)
	s.Must(t, 200, "POST", "secret/data/a", `{"data":{"a":"c"}}`)
	return s, socket
}

// dump is everything that requests could have changed.
func dump(t *testing.T, s *apptest.Server) string {
	t.Helper()
	var all strings.Builder
	for _, path := range []string{
		"sys/mounts", "sys/auth", "sys/audit", "sys/policies/acl?list=true", "sys/policies/acl/p", "auth/token/accessors?list=true",
		"auth/token/roles?list=true", "auth/userpass/users?list=true", "secret/config", "secret/search/", "secret/data/a?version=1", "secret/data/a",
		"secret/labels/a", "old/a", "old/?list=true", "cubbyhole/?list=true",
	} {
		a := s.Do(t, "GET", path, s.Root, "")
		fmt.Fprintf(&all, "%s %d %s\n", path, a.Status, a.Data)
	}
	return all.String()
}

// http1 is a request as HTTP/1.1 has it, as root and with a body of its length.
func http1(s *apptest.Server, method, target, body string, headers ...string) string {
	text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: coffer\r\nContent-Length: %d\r\n", method, target, len(body))
	if !strings.Contains(strings.Join(headers, "\n"), "X-Vault-Token") {
		text += "X-Vault-Token: " + s.Root + "\r\n"
	}
	for _, h := range headers {
		text += h + "\r\n"
	}
	return text + "\r\n" + body
}

// over sends bytes over a connection and returns what is answered.
func over(t *testing.T, c net.Conn, text string) (*http.Response, []byte) {
	t.Helper()
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	go func() { _, _ = io.WriteString(c, text) }()
	return answerOf(t, c)
}

func answerOf(t *testing.T, c net.Conn) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Errorf("no answer: %v", err)
		return &http.Response{Header: http.Header{}}, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("the answer ends early: %v", err)
	}
	return resp, body
}

func dialTLS(t *testing.T, s *apptest.Server) net.Conn {
	t.Helper()
	config := s.HTTP().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	c, err := tls.Dial("tcp", strings.TrimPrefix(s.URL(), "https://"), config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused wants an error in Vault's shape, recorded where it has a request id.
func refused(t *testing.T, s *apptest.Server, resp *http.Response, body []byte, want int) {
	t.Helper()
	var got struct{ Errors []string }
	if resp.StatusCode != want {
		t.Errorf("it is answered %d %s, want %d", resp.StatusCode, body, want)
		return
	}
	decode(t, body, &got)
	if len(got.Errors) == 0 || got.Errors[0] == "" {
		t.Errorf("the answer does not say what is wrong: %s", body)
	}
	if strings.Contains(string(body), "canary") {
		t.Errorf("the answer repeats what was sent: %s", body)
	}
	recorded(t, s, resp.Header.Get("X-Coffer-Request-Id"), want)
}

// recorded wants the outcome of a request in the audit log.
func recorded(t *testing.T, s *apptest.Server, id string, status int) {
	t.Helper()
	if id == "" {
		t.Error("the answer names no request")
		return
	}
	dir := filepath.Join(s.Dir, "audit")
	for e, err := range audit.Read(context.Background(), dir, audit.ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == audit.Outcome && e.Request.ID == id {
			if e.Status != status {
				t.Errorf("the audit log says %d, the answer %d", e.Status, status)
			}
			return
		}
	}
	t.Errorf("the request %s is not in the audit log", id)
}

func TestBadInput(t *testing.T) {
	s, _ := badServer(t)
	payload := func(n int) string { return `{"data":{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}}` }
	const limit = 1 << 20
	s.Must(t, 200, "POST", "secret/data/largest", payload(limit))
	s.Must(t, 204, "DELETE", "secret/metadata/largest", "")
	const data = "/v1/secret/data/a"
	post := func(target, body string, headers ...string) string { return http1(s, "POST", target, body, headers...) }
	get := func(target string, headers ...string) string { return http1(s, "GET", target, "", headers...) }
	nested := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	cases := []struct {
		name string
		text string
		want int
	}{
		{"JSON that ends early", post(data, `{"data":{"a":"canary`), 400},
		{"no JSON", post(data, `canary`), 400},
		{"two values", post(data, `{"data":{"a":"b"}}{"data":{}}`), 400},
		{"an array", post(data, `["canary"]`), 400},
		{"a number", post(data, `17`), 400},
		{"no body", post(data, ``), 400},
		{"data is a text", post(data, `{"data":"canary"}`), 400},
		{"data is null", post(data, `{"data":null}`), 400},
		{"the same key twice", post(data, `{"data":{"a":"1"},"data":{"a":"2"}}`), 400},
		{"the same key twice, inside", post(data, `{"data":{"a":"1","a":"canary"}}`), 400},
		{"deep nesting", post(data, `{"data":{"a":`+nested+`}}`), 400},
		{"deep nesting elsewhere", post("/v1/sys/mounts/x", `{"type":`+nested+`}`), 400},
		{"invalid UTF-8 in JSON", post(data, "{\"data\":{\"a\":\"canary\xff\"}}"), 400},
		{"a NUL in JSON", post(data, "{\"data\":{\"a\":\"canary\x00\"}}"), 400},
		{"a lone surrogate", post(data, `{"data":{"a":"\ud800canary"}}`), 400},
		{"a byte beyond the payload's limit", post(data, payload(limit+1)), 413},
		{"a body beyond the limit", post(data, payload(3*limit)), 413},
		{"a chunked body beyond the limit", strings.Replace(post(data, ""), "Content-Length: 0", "Transfer-Encoding: chunked", 1) +
			fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", 3*limit, strings.Repeat("x", 3*limit)), 413},
		{"a body announced beyond all measure", strings.Replace(post(data, ""), "Content-Length: 0", "Content-Length: 9223372036854775807", 1), 413},
		{"a check that is negative", post(data, `{"data":{"a":"b"},"options":{"cas":-1}}`), 400},
		{"a check that is a text", post(data, `{"data":{"a":"b"},"options":{"cas":"canary"}}`), 400},
		{"a check that is a fraction", post(data, `{"data":{"a":"b"},"options":{"cas":1.5}}`), 400},
		{"a check beyond all measure", post(data, `{"data":{"a":"b"},"options":{"cas":1e300}}`), 400},
		{"an old check", post(data, `{"data":{"a":"b"},"options":{"cas":1}}`), 400},
		{"negative versions", post("/v1/secret/destroy/a", `{"versions":[-1]}`), 400},
		{"versions that are texts", post("/v1/secret/destroy/a", `{"versions":["canary"]}`), 400},
		{"a negative version in the query", get(data + "?version=-1"), 400},
		{"a version that is a text", get(data + "?version=canary"), 400},
		{"a negative TTL", post("/v1/auth/token/create", `{"ttl":"-1h"}`), 400},
		{"a TTL beyond all measure", post("/v1/auth/token/create", `{"ttl":"99999999999h"}`), 400},
		{"a number of seconds beyond all measure", post("/v1/auth/token/create", `{"ttl":99999999999999999999}`), 400},
		{"a TTL that is no duration", post("/v1/auth/token/create", `{"ttl":"soon"}`), 400},
		{"a TTL that is a list", post("/v1/auth/token/create", `{"ttl":["1h"]}`), 400},
		{"negative uses", post("/v1/auth/token/create", `{"num_uses":-3}`), 400},
		{"a period that is negative", post("/v1/auth/token/create", `{"period":"-1s"}`), 400},
		{"a type there is not", post("/v1/auth/token/create", `{"type":"canary"}`), 400},
		{"policies that are an object", post("/v1/auth/token/create", `{"policies":{"canary":1}}`), 400},
		{"metadata that nests", post("/v1/auth/token/create", `{"meta":{"a":{"b":"c"}}}`), 400},
		{"a wrapping TTL that is negative", get(data, "X-Vault-Wrap-TTL: -5s"), 400},
		{"a wrapping TTL that is no duration", get(data, "X-Vault-Wrap-TTL: soon"), 400},
		{"a wrapping TTL beyond all measure", get(data, "X-Vault-Wrap-TTL: 99999999999h"), 400},
		{"a policy that is cut", post("/v1/sys/policies/acl/p", `{"policy":"path \"secret/*\" { capabilities = [\"read\""}`), 400},
		{"a policy with a capability there is not", post("/v1/sys/policies/acl/p", `{"policy":"path \"secret/*\" { capabilities = [\"own\"] }"}`), 400},
		{"the root policy", post("/v1/sys/policies/acl/root", `{"policy":""}`), 400},
		{"a mount there is not", post("/v1/sys/mounts/x", `{"type":"engine-x"}`), 400},
		{"a mount in a mount", post("/v1/sys/mounts/secret/x", `{"type":"kv"}`), 400},
		{"a mount over sys", post("/v1/sys/mounts/sys", `{"type":"kv"}`), 400},
		{"a user without a password", post("/v1/auth/userpass/users/u", `{}`), 400},
		{"a user with a name too long", post("/v1/auth/userpass/users/"+strings.Repeat("u", 2000), `{"password":"canary-password"}`), 400},
		{"a path that is too long", get("/v1/secret/data/" + strings.Repeat("a/", 20_000) + "a"), 414},
		{"dots", get("/v1/secret/data/../a"), 400},
		{"dots at the end", get("/v1/secret/data/.."), 400},
		{"encoded dots", get("/v1/secret/data/%2e%2e/a"), 400},
		{"dots behind an encoded slash", get("/v1/secret/data/x%2F..%2Fa"), 400},
		{"one dot", get("/v1/secret/data/./a"), 400},
		{"two slashes", get("/v1/secret//data/a"), 400},
		{"two slashes at the start", get("/v1//secret/data/a"), 400},
		{"two encoded slashes", get("/v1/secret/data/%2F%2Fa"), 400},
		{"a NUL", get("/v1/secret/data/a%00"), 400},
		{"a line break", get("/v1/secret/data/a%0d%0aX-Vault-Token:%20x"), 400},
		{"invalid UTF-8", get("/v1/secret/data/%ff%fe"), 400},
		{"over-long UTF-8", get("/v1/secret/data/%c0%ae%c0%ae/a"), 400},
		{"a change of direction", get("/v1/secret/data/a%E2%80%AEb"), 400},
		{"a query that is malformed", get(data + "?version=%zz"), 400},
		{"a list that is neither", get("/v1/secret/metadata/?list=perhaps"), 400},
		{"large headers", get(data, "X-A: "+strings.Repeat("a", 70_000)), 431},
		{"many headers", get(data, strings.Repeat("X-A: b\r\n", 20_000)+"X-B: c"), 431},
		{"two tokens", get(data, "X-Vault-Token: "+s.Root, "X-Vault-Token: hvs.other"), 400},
		{"an empty token", get(data, "X-Vault-Token: "), 403},
		{"a token that is not", get(data, "X-Vault-Token: hvs."+strings.Repeat("A", 95)), 403},
		{"a token that is long", get(data, "X-Vault-Token: hvs."+strings.Repeat("A", 9000)), 403},
		{"a token of spaces", get(data, "X-Vault-Token:  a b "), 403},
		{"a token of other characters", get(data, "X-Vault-Token: \xff\xfe/../*?"), 403},
		{"a batch token of nonsense", get(data, "X-Vault-Token: hvb.AAAAAQK"+strings.Repeat("A", 200)), 403},
		{"half a token", get(data, "X-Vault-Token: "+s.Root[:20]), 403},
		{"a token and more", get(data, "X-Vault-Token: "+s.Root+"A"), 403},
		{"an accessor there is not", post("/v1/auth/token/lookup-accessor", `{"accessor":"../../x"}`), 400},
		{"a namespace there is not", get(data, "X-Vault-Namespace: team"), 404},
		{"a mount that is not there", get("/v1/nowhere/a"), 404},
		{"a path that is not there", get("/v1/secret/nowhere/a"), 404},
		{"a method that is not there", http1(s, "DELETE", "/v1/sys/health", ""), 405},
		{"a method unheard of", http1(s, "BREW", data, ""), 405},
		{"TRACE", http1(s, "TRACE", data, ""), 405},
		{"an encoded body", post(data, "\x1f\x8b", "Content-Encoding: gzip"), 415},
		{"an upload that is cut", strings.Replace(post(data, `{"data":{"a":"canary"}}`), "Content-Length: 23", "Content-Length: 24", 1), 400},
	}
	before := dump(t, s)
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			c := dialTLS(t, s)
			if strings.HasPrefix(tt.name, "an upload that is cut") {
				_, _ = io.WriteString(c, tt.text)
				_ = c.(*tls.Conn).CloseWrite()
				resp, body := answerOf(t, c)
				_ = c.Close()
				refused(t, s, resp, body, tt.want)
				return
			}
			resp, body := over(t, c, tt.text)
			refused(t, s, resp, body, tt.want)
		})
	}
	if after := dump(t, s); after != before {
		t.Errorf("bad requests changed something:\n%s\nis now\n%s", before, after)
	}
	if text := s.Log.String(); strings.Contains(text, "canary") || strings.Contains(text, s.Root) {
		t.Errorf("the server's log repeats what was sent")
	}
}

// What cannot even be read as a request is refused without harm.
func TestNoRequestAtAll(t *testing.T) {
	s, _ := badServer(t)
	before := dump(t, s)
	for name, text := range map[string]string{
		"nonsense":            "canary\r\n\r\n",
		"other version":       "GET /v1/sys/health HTTP/9.9\r\n\r\n",
		"no host":             "GET /v1/sys/health HTTP/1.1\r\n\r\n",
		"two lengths":         "POST /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"length is negative":  "POST /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\n{}",
		"unknown encoding":    "POST /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{}",
		"broken chunk":        "POST /v1/secret/data/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"header is broken":    "GET /v1/sys/health HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n",
		"headers are endless": "GET /v1/sys/health HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("a", 2<<20) + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := over(t, dialTLS(t, s), text)
			if resp.StatusCode < 400 || resp.StatusCode >= 506 || resp.StatusCode == 500 {
				t.Errorf("it is answered %d %s", resp.StatusCode, body)
			}
		})
	}
	if after := dump(t, s); after != before {
		t.Errorf("bad requests changed something:\n%s\nis now\n%s", before, after)
	}
}

// Clients that send slowly are cut off and hold up nobody.
func TestSlowClients(t *testing.T) {
	s, socket := badServer(t)
	before := dump(t, s)
	full := http1(s, "POST", "/v1/secret/data/a", `{"data":{"a":"slow"}}`)
	body := strings.Index(full, "\r\n\r\n") + 8
	together(40, func(i int) {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		part := full[:30] // of the headers
		if i%2 == 0 {
			part = full[:body]
		}
		begun := time.Now()
		_, _ = io.WriteString(c, part)
		text, _ := io.ReadAll(c)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("a slow client is cut off after %v", took)
		}
		if i%2 == 0 && !strings.Contains(string(text), " 408 ") {
			t.Errorf("a slow body is answered %q", text)
		}
		a := s.Do(t, "GET", "secret/data/a", s.Root, "")
		if a.Status != 200 {
			t.Errorf("beside slow clients a read is answered %d", a.Status)
		}
	})
	if after := dump(t, s); after != before {
		t.Errorf("slow requests changed something:\n%s\nis now\n%s", before, after)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Error(err)
	}
}
