// Package apptest runs whole servers inside tests: real storage, audit log, TLS
// and sockets, in a directory that ends with the test.
package apptest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/app"
	"github.com/cofferhq/coffer/internal/config"
	"github.com/cofferhq/coffer/internal/sys"
)

// Server is a server that runs until its test ends.
type Server struct {
	*app.Server
	Dir    string // storage "pebble" { path }
	URL    string
	CAFile string
	Root   string // the root token, "" where nobody initialized the server
	Log    *Log   // what the server logged, at every level
	HTTP   *http.Client
	text   string
}

// Start runs an initialized and unsealed server with secret/ mounted. more is
// HCL put behind a configuration that has storage and one TLS listener.
func Start(t testing.TB, more string) *Server {
	t.Helper()
	s := Uninitialized(t, more)
	root, err := s.Initialize(t.Context(), app.FirstStart{KV: true})
	if err != nil {
		t.Fatalf("initialize: %v", err)
	}
	s.Root = root.Reveal()
	return s
}

// Uninitialized runs a server that was never initialized.
func Uninitialized(t testing.TB, more string) *Server {
	t.Helper()
	s := &Server{Dir: filepath.Join(t.TempDir(), "data"), Log: &Log{}}
	s.text = fmt.Sprintf("storage \"pebble\" {\n  path = %q\n}\nlistener \"tcp\" {\n  address = \"127.0.0.1:0\"\n}\ndisable_mlock = true\nlog_level = \"trace\"\n%s\n", s.Dir, more)
	t.Cleanup(func() { s.Stop(t) })
	s.Run(t)
	return s
}

// Run starts the server again after Stop, in the same directory and on another
// port.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	cfg := s.Config(t)
	var err error
	if s.Server, err = app.Start(context.WithoutCancel(t.Context()), cfg, sys.Version{Coffer: "test"}, s.Log.Logger()); err != nil {
		t.Fatalf("start: %v", err)
	}
	s.URL, s.CAFile = s.Address()
	s.HTTP = Trusting(t, s.CAFile)
}

// Config returns the configuration that the server is started with.
func (s *Server) Config(t testing.TB) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "coffer.hcl")
	if err := os.WriteFile(file, []byte(s.text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Source{Paths: []string{file}, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatalf("configuration: %v", err)
	}
	return cfg
}

// Stop closes the server, if it runs.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.Server == nil {
		return
	}
	s.HTTP.CloseIdleConnections()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	s.Server = nil
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
func (s *Server) Do(t testing.TB, method, path, token, body string, headers ...string) *Answer {
	t.Helper()
	a, err := s.Try(method, path, token, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// Must is Do as root, with the status that is expected.
func (s *Server) Must(t testing.TB, status int, method, path, body string) *Answer {
	t.Helper()
	a := s.Do(t, method, path, s.Root, body)
	if a.Status != status {
		t.Fatalf("%s %s is answered %d %s, want %d", method, path, a.Status, a.Body, status)
	}
	return a
}

// Try is Do that returns what goes wrong on the way.
func (s *Server) Try(method, path, token, body string, headers ...string) (*Answer, error) {
	r, err := http.NewRequest(method, s.URL+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.HTTP.Do(r)
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
func (s *Server) Token(t testing.TB, policies map[string]string) string {
	t.Helper()
	var names []string
	for name, text := range policies {
		body, _ := json.Marshal(map[string]string{"policy": text})
		s.Must(t, 204, "POST", "sys/policies/acl/"+name, string(body))
		names = append(names, name)
	}
	body, _ := json.Marshal(map[string][]string{"policies": names})
	return s.Must(t, 200, "POST", "auth/token/create", string(body)).Auth.Token
}
