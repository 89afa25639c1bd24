package apptest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// Client asks one server, wherever that serves: a server that is started again
// has another address, and some may be asking it meanwhile.
type Client struct {
	Root string // the root token, "" where nobody initialized the server
	way  atomic.Pointer[way]
}

// way is how a server is reached.
type way struct {
	url  string
	http *http.Client
}

// Reach says where the server serves from now on.
func (c *Client) Reach(url string, via *http.Client) { c.way.Store(&way{url, via}) }

// URL returns where the server serves, "" as long as it never did.
func (c *Client) URL() string {
	if w := c.way.Load(); w != nil {
		return w.url
	}
	return ""
}

// HTTP returns the client that trusts the server, nil as long as it never served.
func (c *Client) HTTP() *http.Client {
	if w := c.way.Load(); w != nil {
		return w.http
	}
	return nil
}

// Trusting returns a client that trusts the authority in caFile, and no other.
func Trusting(t testing.TB, caFile string) *http.Client {
	t.Helper()
	transport := &http.Transport{ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64}
	if caFile != "" {
		text, err := os.ReadFile(caFile)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(text)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// Answer is what was answered, with the parts of Vault's envelope.
type Answer struct {
	Status   int
	Header   http.Header
	Body     []byte
	ID       string          `json:"request_id"`
	Data     json.RawMessage `json:"data"`
	Errors   []string        `json:"errors"`
	Warnings []string        `json:"warnings"`
	Auth     *struct {
		Token    string   `json:"client_token"`
		Accessor string   `json:"accessor"`
		Policies []string `json:"policies"`
	} `json:"auth"`
	Wrap *struct {
		Token string `json:"token"`
		TTL   int    `json:"ttl"`
	} `json:"wrap_info"`
}

// Into decodes the answer's data.
func (a *Answer) Into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.Data, v); err != nil {
		t.Fatalf("data %s: %v", a.Data, err)
	}
}

// Do sends a request below /v1/; headers are pairs of name and value.
func (c *Client) Do(t testing.TB, method, path, token, body string, headers ...string) *Answer {
	t.Helper()
	a, err := c.Try(method, path, token, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// Must is Do as root, with the status that is expected.
func (c *Client) Must(t testing.TB, status int, method, path, body string) *Answer {
	t.Helper()
	a := c.Do(t, method, path, c.Root, body)
	if a.Status != status {
		t.Fatalf("%s %s is answered %d %s, want %d", method, path, a.Status, a.Body, status)
	}
	return a
}

// Try is Do that returns what goes wrong on the way.
func (c *Client) Try(method, path, token, body string, headers ...string) (*Answer, error) {
	w := c.way.Load()
	r, err := http.NewRequest(method, w.url+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(a.Body, []byte("{")) {
		err = json.Unmarshal(a.Body, a)
	}
	return a, err
}

// Token makes a token with policies given as HCL, each under a name of its own.
func (c *Client) Token(t testing.TB, policies map[string]string) string {
	t.Helper()
	var names []string
	for name, text := range policies {
		body, _ := json.Marshal(map[string]string{"policy": text})
		c.Must(t, 204, "POST", "sys/policies/acl/"+name, string(body))
		names = append(names, name)
	}
	body, _ := json.Marshal(map[string][]string{"policies": names})
	return c.Must(t, 200, "POST", "auth/token/create", string(body)).Auth.Token
}
