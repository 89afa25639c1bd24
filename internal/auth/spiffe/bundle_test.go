package spiffe

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
	"github.com/cofferhq/coffer/internal/auth/spiffe/spiffetest"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/storage"
)

// endpoint serves a bundle; "" answers 502.
type endpoint struct {
	*httptest.Server
	text atomic.Pointer[string]
}

func (e *endpoint) say(text string) { e.text.Store(&text) }

// newEndpoint serves with a certificate; nil with one that CA trusts.
func newEndpoint(t testing.TB, text string, pair *tls.Certificate) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.say(text)
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if text := *e.text.Load(); text != "" {
			_, _ = w.Write([]byte(text))
			return
		}
		http.Error(w, "away", http.StatusBadGateway)
	}))
	if pair != nil {
		e.TLS = &tls.Config{Certificates: []tls.Certificate{*pair}}
	}
	e.StartTLS()
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate().Raw}))
}

// due makes the bundle due and fetches it.
func (s *server) due() error {
	s.t.Helper()
	_, err := s.Storage.Update(s.t.Context(), func(txn storage.Txn) error {
		c, err := storage.Load[config](txn, configKey)
		if err != nil {
			return err
		}
		c.Cached.TryAt = time.Now().Add(-time.Second)
		return storage.Save(txn, configKey, c)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.State.(*Method).refresh(s.t.Context())
}

func (s *server) settings() (out ReadConfig) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.Must(s.t, 200, "GET", "config", "").Data), &out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

func TestStaticBundles(t *testing.T) {
	s := newServer(t)
	s.config(204, map[string]any{"bundle": certtest.PEM(s.domain.CA.Cert)})
	if _, err := s.byCert(s.domain.SVID(t, "/db-1"), "web"); err != nil {
		t.Error(err)
	}
	_, err := s.byJWT(s.domain.JWT(t, "/db-1", "coffer"), "web")
	refused(t, err, "no JWT authority")
	jwks := func(key jose.JSONWebKey) string {
		text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, bad := range map[string]string{
		"nothing": "", "nonsense": "nonsense", "no keys": `{}`, "empty": `{"keys":[]}`, "long": strings.Repeat(" ", maxBundle+1),
		"half":           certtest.PEM(s.domain.CA.Cert)[:200],
		"a key":          "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" + certtest.PEM(s.domain.CA.Cert),
		"a secret":       jwks(jose.JSONWebKey{Key: []byte("a symmetric key of some length..."), KeyID: "a", Use: "jwt-svid"}),
		"a private key":  jwks(jose.JSONWebKey{Key: s.domain.Key, KeyID: "a", Use: "jwt-svid"}),
		"no key id":      jwks(jose.JSONWebKey{Key: s.domain.Key.Public(), Use: "jwt-svid"}),
		"of another use": jwks(jose.JSONWebKey{Key: s.domain.Key.Public(), KeyID: "a", Use: "sig"}),
	} {
		t.Run(name, func(t *testing.T) { s.config(400, map[string]any{"bundle": bad}) })
	}
	for _, bad := range []map[string]any{
		{"trust_domain": "Not A Domain"}, {"trust_domain": ""}, {"profile": "x"}, {"endpoint_url": "https://x"}, {"profile": webBundle},
		{"profile": webBundle, "endpoint_url": "http://127.0.0.1:1/"}, {"profile": webBundle, "endpoint_url": "https://127.0.0.1:1/"},
		{"profile": webBundle, "endpoint_url": "https://127.0.0.1:1/", "endpoint_root_ca_truststore_pem": "x", "defer_bundle_fetch": true},
		{"profile": spiffeBundle, "endpoint_url": "https://127.0.0.1:1/", "defer_bundle_fetch": true},
		{"profile": spiffeBundle, "endpoint_url": "https://127.0.0.1:1/", "endpoint_spiffe_id": "spiffe://example.com/x", "defer_bundle_fetch": true},
		{"profile": webPEM, "endpoint_url": "https://127.0.0.1:1/", "endpoint_spiffe_id": "spiffe://example.org/x", "defer_bundle_fetch": true},
	} {
		s.config(400, bad)
	}
	if got := s.settings(); got.Profile != static || got.TrustDomain != "example.org" || got.Fetched != nil {
		t.Errorf("%+v", got)
	}
}

func TestWebBundle(t *testing.T) {
	s := newServer(t)
	next := spiffetest.New(t, "example.org")
	e := newEndpoint(t, next.Bundle(t, 7, 2*time.Minute), nil)
	fields := map[string]any{"profile": webBundle, "endpoint_url": e.URL, "bundle": "", "endpoint_root_ca_truststore_pem": certtest.PEM(next.CA.Cert)}
	if a := s.config(400, fields); !strings.Contains(a.Err.Error(), "nothing was changed") {
		t.Error(a.Err)
	}
	if _, err := s.byCert(s.domain.SVID(t, "/db-1"), "web"); err != nil {
		t.Error(err)
	}
	fields["endpoint_root_ca_truststore_pem"] = e.ca()
	s.config(204, fields)
	if got := s.settings(); got.Sequence != 7 || got.Hint.Duration() != 2*time.Minute || got.Fetched == nil {
		t.Errorf("%+v", got)
	}
	svid, token := next.SVID(t, "/db-1"), next.JWT(t, "/db-1", "coffer")
	works := func(want bool) {
		t.Helper()
		_, err := s.byCert(svid, "web")
		_, jwtErr := s.byJWT(token, "web")
		if (err == nil) != want || (jwtErr == nil) != want {
			t.Errorf("%v, %v", err, jwtErr)
		}
	}
	works(true)
	_, err := s.byCert(s.domain.SVID(t, "/db-1"), "web")
	refused(t, err, "could not verify leaf certificate")

	// Whatever the endpoint does, the last good bundle stays.
	for _, bad := range []string{"", "garbage", `{"keys":[]}`, certtest.PEM(s.domain.CA.Cert), strings.Repeat("x", maxBundle+1)} {
		e.say(bad)
		if err := s.due(); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
		works(true)
		if s.settings().Problem == "" {
			t.Errorf("%.20q: the settings do not say so", bad)
		}
		s.Must(t, 400, "POST", "config", "{}") // which asks for a fetch
		works(true)
	}
	last := spiffetest.New(t, "example.org")
	e.say(last.Bundle(t, 8, time.Second))
	if err := s.State.(*Method).refresh(t.Context()); err != nil { // it is not due
		t.Error(err)
	}
	works(true)
	if err := s.due(); err != nil {
		t.Error(err)
	}
	works(false)
	if _, err := s.byCert(last.SVID(t, "/db-1"), "web"); err != nil || s.settings().Problem != "" {
		t.Error(err)
	}
	e.say(next.Bundle(t, 9, 0))
	s.Must(t, 204, "POST", "config", "{}")
	works(true)
	// Another trust domain is not served from the bundle of this one.
	s.config(204, map[string]any{"trust_domain": "example.com", "defer_bundle_fetch": true})
	if _, err := s.byCert(svid, "web"); err == nil || !strings.Contains(err.Error(), "not fetched yet") {
		t.Error(err)
	}
}

// The bundle is fetched by itself, by one of the nodes.
func TestRun(t *testing.T) {
	s := newServer(t)
	next := spiffetest.New(t, "example.org")
	var asked atomic.Int32
	e := newEndpoint(t, next.Bundle(t, 3, 0), nil)
	handler := e.Config.Handler
	e.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); handler.ServeHTTP(w, r) })
	s.config(204, map[string]any{"profile": webBundle, "endpoint_url": e.URL, "bundle": "", "endpoint_root_ca_truststore_pem": e.ca(), "defer_bundle_fetch": true})
	twin := &server{enginetest.Open(t, Kind.Spec(), enginetest.Options{Storage: s.Storage, Mount: s.Mount}), t, s.domain}
	stop, stopTwin := s.Run(t), twin.Run(t)
	for deadline := time.Now().Add(10 * time.Second); s.settings().Sequence != 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the bundle is not fetched")
		}
	}
	stop()
	stopTwin()
	if n := asked.Load(); n != 1 {
		t.Errorf("the endpoint was asked %d times", n)
	}
	if _, err := twin.byCert(next.SVID(t, "/db-1"), "web"); err != nil {
		t.Error(err)
	}
}

func TestWebPEM(t *testing.T) {
	s := newServer(t)
	next := spiffetest.New(t, "example.org")
	e := newEndpoint(t, next.Bundle(t, 1, 0), nil)
	fields := map[string]any{"profile": webPEM, "endpoint_url": e.URL, "endpoint_root_ca_truststore_pem": e.ca()}
	s.config(400, fields) // which serves a JWKS
	e.say(certtest.PEM(next.CA.Cert))
	s.config(204, fields)
	if _, err := s.byCert(next.SVID(t, "/db-1"), "web"); err != nil {
		t.Error(err)
	}
}

// A SPIFFE endpoint proves itself with an SVID, first by the bundle that was given
// and then by the one that it served.
func TestSPIFFEBundle(t *testing.T) {
	s := newServer(t)
	pair := s.domain.SVID(t, "/spire/server", func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) })
	next := spiffetest.New(t, "example.org")
	e := newEndpoint(t, next.Bundle(t, 1, 0), &pair)
	fields := map[string]any{"profile": spiffeBundle, "endpoint_url": e.URL, "endpoint_spiffe_id": "spiffe://example.org/other"}
	s.config(400, fields)
	fields["endpoint_spiffe_id"] = "spiffe://example.org/spire/server"
	s.config(204, fields)
	if _, err := s.byCert(next.SVID(t, "/db-1"), "web"); err != nil {
		t.Error(err)
	}
	if err := s.due(); err == nil {
		t.Error("an endpoint is believed whose authority the bundle does not have any more")
	}
	renewed := next.SVID(t, "/spire/server", func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) })
	after := newEndpoint(t, next.Bundle(t, 2, 0), &renewed)
	_, err := s.Storage.Update(t.Context(), func(txn storage.Txn) error { // as if it served there all along
		c, err := storage.Load[config](txn, configKey)
		if err != nil {
			return err
		}
		c.EndpointURL = after.URL
		return storage.Save(txn, configKey, c)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.due(); err != nil || s.settings().Sequence != 2 {
		t.Errorf("%v %+v", err, s.settings())
	}
}

func TestNoConfig(t *testing.T) {
	s := newServer(t)
	_, err := s.Storage.Update(t.Context(), func(txn storage.Txn) error { return txn.Delete(configKey) })
	if err != nil {
		t.Fatal(err)
	}
	s.Must(t, 404, "GET", "config", "")
	s.Must(t, 400, "POST", "config", "{}")
	_, err = s.byCert(s.domain.SVID(t, "/db-1"), "web")
	refused(t, err, "no trust domain yet")
	if err := s.State.(*Method).refresh(t.Context()); err != nil {
		t.Error(err)
	}
}

// What the reference shows is answered.
func TestExamples(t *testing.T) {
	for _, spec := range Kind.Spec().Routes {
		s := newServer(t)
		e := newEndpoint(t, s.domain.Bundle(t, 1, 0), nil)
		with := strings.NewReplacer("eyJ…", s.domain.JWT(t, "/db-1", "coffer"), `"https://spire.example.org:8443"`,
			`"`+e.URL+`","bundle":"","endpoint_root_ca_truststore_pem":`+strings.ReplaceAll(`"`+e.ca()+`"`, "\n", `\n`))
		a := s.Do(spec.Method, spec.Example.Path, with.Replace(spec.Example.Request))
		if a.Err != nil || a.Spec.Pattern != spec.Pattern || len(a.Warnings) > 0 || spec.Example.Response != "" && spec.Example.Response != a.Data {
			t.Errorf("%s %s: %v, %v %s", spec.Method, spec.Example.Path, a.Err, a.Warnings, a.Data)
		}
		for _, f := range spec.Fields() {
			if f.Doc == "" {
				t.Errorf("%s %s: the field %s has no doc", spec.Method, spec.Pattern, f.Name)
			}
		}
	}
}
