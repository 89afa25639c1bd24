package cert

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
)

// responder is an OCSP server that answers as a test says.
type responder struct {
	*httptest.Server
	mu     sync.Mutex
	answer ocsp.Response
	issuer *x509.Certificate
	signer *x509.Certificate
	key    crypto.Signer
	raw    []byte // answered as it is, where set
	status int
	asked  int
}

func newResponder(t testing.TB, ca *certtest.Authority) *responder {
	r := &responder{issuer: ca.Cert, signer: ca.Cert, key: ca.Key, answer: ocsp.Response{Status: ocsp.Good}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		request, err := ocsp.ParseRequest(body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked++
		if err != nil || r.status != 0 {
			w.WriteHeader(max(r.status, 400))
			return
		}
		if r.raw != nil {
			_, _ = w.Write(r.raw)
			return
		}
		a := r.answer
		a.SerialNumber = request.SerialNumber
		if a.ThisUpdate.IsZero() {
			a.ThisUpdate = time.Now().Add(-time.Minute)
		}
		der, err := ocsp.CreateResponse(r.issuer, r.signer, a, r.key)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(der)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *responder) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

const unlearned = "cannot be learned from OCSP"

func TestOCSP(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	r := newResponder(t, ca)
	s.role("r", certtest.PEM(ca.Cert), `"ocsp_enabled":true,"ocsp_max_retries":0`)
	pair := ca.Client(t, "x", func(c *x509.Certificate) { c.OCSPServer = []string{r.URL} })
	s.accepted(pair, "", "r")
	s.refused(ca.Client(t, "x"), "", unlearned) // it names no server
	stranger := certtest.Root(t, "ca")
	delegate := ca.Client(t, "ocsp", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })
	late := ca.Client(t, "ocsp", func(c *x509.Certificate) {
		c.ExtKeyUsage, c.NotAfter = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, time.Now().Add(-time.Second)
	})
	by := func(p tls.Certificate) func() {
		return func() {
			r.answer.Certificate, r.signer, r.key = p.Leaf, p.Leaf, p.PrivateKey.(crypto.Signer)
		}
	}
	for name, c := range map[string]struct {
		change func()
		want   string
	}{
		"good":               {func() {}, ""},
		"revoked":            {func() { r.answer.Status, r.answer.RevokedAt = ocsp.Revoked, time.Now() }, "the certificate was revoked"},
		"unknown":            {func() { r.answer.Status = ocsp.Unknown }, unlearned},
		"away":               {func() { r.status = 503 }, unlearned},
		"garbage":            {func() { r.raw = []byte("garbage") }, unlearned},
		"endless":            {func() { r.raw = make([]byte, maxOCSP+1) }, unlearned},
		"of the future":      {func() { r.answer.ThisUpdate = time.Now().Add(time.Hour) }, unlearned},
		"out of date":        {func() { r.answer.NextUpdate = time.Now().Add(-time.Second) }, unlearned},
		"of a stranger":      {func() { r.issuer, r.signer, r.key = stranger.Cert, stranger.Cert, stranger.Key }, unlearned},
		"of the client":      {by(pair), unlearned},
		"of a delegate":      {by(delegate), ""},
		"of a late delegate": {by(late), unlearned},
	} {
		r.set(func() {
			r.answer, r.issuer, r.signer, r.key, r.raw, r.status = ocsp.Response{Status: ocsp.Good}, ca.Cert, ca.Cert, ca.Key, nil, 0
			c.change()
		})
		_, err := s.login(pair, "")
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
		s.Must(t, 204, "POST", "certs/r", `{"ocsp_fail_open":true}`)
		if _, err := s.login(pair, ""); (err == nil) != (name != "revoked") {
			t.Errorf("%s, failing open: %v", name, err)
		}
		s.Must(t, 204, "POST", "certs/r", `{"ocsp_fail_open":false}`)
	}
	r.set(func() {
		r.answer, r.issuer, r.raw, r.status = ocsp.Response{Status: ocsp.Good, ThisUpdate: time.Now().Add(-2 * time.Hour)}, ca.Cert, nil, 0
		r.signer, r.key = ca.Cert, ca.Key
	})
	s.accepted(pair, "", "r")
	s.Must(t, 204, "POST", "certs/r", `{"ocsp_this_update_max_age":"1h"}`)
	s.refused(pair, "", unlearned)
}

// An answer is kept as long as it says, and no longer; a role's responders may
// sign; of several servers one suffices, or all are needed.
func TestOCSPServers(t *testing.T) {
	s := newServer(t)
	ca, third := certtest.Root(t, "ca"), certtest.Root(t, "third")
	one, two := newResponder(t, ca), newResponder(t, third)
	two.issuer = ca.Cert
	s.role("r", certtest.PEM(ca.Cert), fmt.Sprintf(`"ocsp_enabled":true,"ocsp_max_retries":1,"ocsp_servers_override":[%q,%q]`, one.URL, two.URL))
	pair := ca.Client(t, "x")
	one.set(func() { one.status = 500 })
	s.refused(pair, "", unlearned) // the second is nobody to the role
	if one.asked != 2 {
		t.Errorf("a server that fails is asked %d times, want 2", one.asked)
	}
	text := fmt.Sprintf("%q", certtest.PEM(third.Cert))
	s.Must(t, 204, "POST", "certs/r", `{"ocsp_ca_certificates":`+text+`}`)
	s.accepted(pair, "", "r")
	s.Must(t, 204, "POST", "certs/r", `{"ocsp_query_all_servers":true}`)
	s.refused(pair, "", unlearned)
	one.set(func() { one.status, one.answer.NextUpdate = 0, time.Now().Add(time.Hour) })
	two.set(func() { two.answer.Status, two.answer.RevokedAt = ocsp.Revoked, time.Now() })
	s.refused(pair, "", "was revoked")
	two.set(func() { two.answer = ocsp.Response{Status: ocsp.Good, NextUpdate: time.Now().Add(time.Hour)} })
	s.accepted(pair, "", "r")
	asked := one.asked
	one.set(func() { one.status = 500 })
	s.accepted(pair, "", "r")
	if one.asked != asked {
		t.Error("an answer was not kept")
	}
}

func TestKeptAnswers(t *testing.T) {
	var a answers
	for i := range 10 {
		a.put([32]byte{byte(i)}, ocsp.Good, time.Now().Add(time.Hour), 4)
	}
	a.put([32]byte{99}, ocsp.Good, time.Now(), 4)
	if _, ok := a.get([32]byte{99}); ok || len(a.known) != 4 {
		t.Errorf("%d are kept", len(a.known))
	}
	if _, ok := a.get([32]byte{9}); !ok {
		t.Error("the newest is not kept")
	}
}
