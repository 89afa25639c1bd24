package app_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
	"github.com/cofferhq/coffer/internal/auth/spiffe/spiffetest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// presenting returns a client of the server that presents a certificate. Over
// HTTP/2 or not, it resumes its sessions.
func presenting(t testing.TB, s *apptest.Server, pair tls.Certificate, http2 bool) *apptest.Client {
	t.Helper()
	config := s.HTTP().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.Certificates, config.ClientSessionCache = []tls.Certificate{pair}, tls.NewLRUClientSessionCache(1)
	config.NextProtos = nil
	transport := &http.Transport{TLSClientConfig: config, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetHTTP2(http2)
	t.Cleanup(transport.CloseIdleConnections)
	c := &apptest.Client{}
	c.Reach(s.URL(), &http.Client{Transport: transport})
	return c
}

// made is a request's body.
func made(t testing.TB, fields map[string]any) string {
	t.Helper()
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestClientCertificates logs in over real handshakes: by either protocol, on a new
// session and on a resumed one, by an authority and by a trust domain.
func TestClientCertificates(t *testing.T) {
	s := apptest.Start(t, "")
	ca, domain := certtest.Root(t, "ca"), spiffetest.New(t, "example.org")
	s.Must(t, 204, "POST", "sys/auth/cert", `{"type":"cert"}`)
	s.Must(t, 204, "POST", "sys/auth/spiffe", `{"type":"spiffe"}`)
	s.Must(t, 204, "POST", "auth/cert/certs/web", made(t, map[string]any{"certificate": certtest.PEM(ca.Cert), "token_ttl": "20m", "token_policies": "web"}))
	s.Must(t, 204, "POST", "auth/spiffe/config", made(t, map[string]any{"trust_domain": "example.org", "profile": "static", "bundle": domain.Bundle(t, 1, 0), "audience": "coffer"}))
	s.Must(t, 204, "POST", "auth/spiffe/role/web", `{"workload_id_patterns":"/web","token_policies":"web"}`)
	for _, http2 := range []bool{false, true} {
		for path, pair := range map[string]tls.Certificate{"auth/cert/login": ca.Client(t, "web-1"), "auth/spiffe/login": domain.SVID(t, "/web")} {
			c := presenting(t, s, pair, http2)
			body := `{"name":"web"}`
			if path == "auth/spiffe/login" {
				body = `{"role":"web"}`
			}
			token := ""
			for range 2 { // the second on a session that is resumed
				a := c.Do(t, "POST", path, "", body)
				if a.Status != 200 {
					t.Fatalf("%s http2 %v: %d %s", path, http2, a.Status, a.Body)
				}
				token = a.Auth.Token
				c.HTTP().CloseIdleConnections()
			}
			if a := c.Do(t, "POST", "auth/token/renew-self", token, ""); a.Status != 200 {
				t.Errorf("%s: %s", path, a.Body)
			}
			if a := s.Do(t, "POST", path, "", body); a.Status != 400 {
				t.Errorf("%s without a certificate: %d %s", path, a.Status, a.Body)
			}
		}
	}
	// A JWT-SVID as Vault takes it, over a connection without a certificate.
	if a := s.Do(t, "POST", "auth/spiffe/login", "", `{"role":"web"}`, "Authorization", "Bearer "+domain.JWT(t, "/web", "coffer")); a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Body)
	}

	certFile, keyFile := certtest.Files(t, ca.Client(t, "web-2"))
	own, err := client.New(client.Config{Address: s.URL(), CACert: s.CAFile, ClientCert: certFile, ClientKey: keyFile})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if auth, err := own.Login().Cert(t.Context(), "", ""); err != nil || auth.Metadata["common_name"] != "web-2" {
		t.Errorf("%+v %v", auth, err)
	}
	if auth, err := own.Login().SPIFFE(t.Context(), "", "web", client.Secret(domain.JWT(t, "/web", "coffer"))); err != nil || auth.Metadata["spiffe_id"] != "spiffe://example.org/web" {
		t.Errorf("%+v %v", auth, err)
	}
}

// What hostile certificates say is in no log and no answer.
func TestHostileCertificates(t *testing.T) {
	s := apptest.Start(t, "")
	ca := certtest.Root(t, "ca")
	s.Must(t, 204, "POST", "sys/auth/cert", `{"type":"cert"}`)
	s.Must(t, 204, "POST", "auth/cert/certs/web", made(t, map[string]any{"certificate": certtest.PEM(ca.Cert)}))
	s.Must(t, 204, "POST", "auth/cert/config", `{"enable_metadata_on_failures":true}`)
	many := func(c *x509.Certificate) {
		for i := range 1500 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("canary-%d.example.com", i))
		}
	}
	for name, change := range map[string]func(*x509.Certificate){
		"canary\x1b[2J": nil, "canary\x00": nil, "*.canary": nil, strings.Repeat("canary", 1000): nil, "canary": many, "canary\r\nlevel=ERROR": nil,
	} {
		changes := []func(*x509.Certificate){}
		if change != nil {
			changes = append(changes, change)
		}
		a := presenting(t, s, ca.Client(t, name, changes...), true).Do(t, "POST", "auth/cert/login", "", "{}")
		if a.Status != 400 || len(a.Errors) != 1 || len(a.Errors[0]) > 500 || strings.ContainsAny(a.Errors[0], "\x1b\x00\r\n") {
			t.Errorf("%.20q: %d %.600s", name, a.Status, a.Body)
		}
	}
	long := ca.Client(t, "canary")
	for range 100 {
		long.Certificate = append(long.Certificate, ca.Cert.Raw)
	}
	if a := presenting(t, s, long, false).Do(t, "POST", "auth/cert/login", "", "{}"); a.Status != 400 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if text := s.Log.String(); strings.Contains(text, "canary") {
		t.Error("the log holds what a certificate says")
	}
	if a := s.Do(t, "GET", "sys/health", "", ""); a.Status != 200 {
		t.Errorf("%d", a.Status)
	}
}

// A listener that asks for no certificates gets none; one with authorities of its
// own lets nobody in whom they do not know.
func TestListenersOfClientCertificates(t *testing.T) {
	clients, servers := certtest.Root(t, "clients"), certtest.Root(t, "servers")
	certFile, keyFile := certtest.Files(t, servers.Client(t, "server", func(c *x509.Certificate) {
		c.ExtKeyUsage, c.IPAddresses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}))
	authorities, _ := certtest.Files(t, tls.Certificate{Certificate: [][]byte{clients.Cert.Raw}, PrivateKey: clients.Key})
	silent, strict := storagetest.FreePort(t), storagetest.FreePort(t)
	s := apptest.Start(t, fmt.Sprintf(`
listener "tcp" {
  address = "127.0.0.1:%d"
  tls_cert_file = %q
  tls_key_file = %q
  tls_disable_client_certs = true
}
listener "tcp" {
  address = "127.0.0.1:%d"
  tls_cert_file = %[2]q
  tls_key_file = %[3]q
  tls_client_ca_file = %[5]q
}`, silent, certFile, keyFile, strict, authorities))
	other := certtest.Root(t, "other")
	s.Must(t, 204, "POST", "sys/auth/cert", `{"type":"cert"}`)
	s.Must(t, 204, "POST", "auth/cert/certs/web", made(t, map[string]any{"certificate": certtest.PEM(clients.Cert, other.Cert)}))
	pool := x509.NewCertPool()
	pool.AddCert(servers.Cert)
	at := func(port int, pair tls.Certificate) (*apptest.Answer, error) {
		c := presenting(t, s, pair, true)
		c.HTTP().Transport.(*http.Transport).TLSClientConfig.RootCAs = pool
		c.Reach(fmt.Sprintf("https://127.0.0.1:%d", port), c.HTTP())
		return c.Try("POST", "auth/cert/login", "", "{}")
	}
	known, stranger := clients.Client(t, "x"), other.Client(t, "x")
	if a := presenting(t, s, stranger, true).Do(t, "POST", "auth/cert/login", "", "{}"); a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a, err := at(silent, known); err != nil || a.Status != 400 || !strings.Contains(a.Errors[0], "client certificate must be supplied") {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := at(strict, known); err != nil || a.Status != 200 {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := at(strict, stranger); err == nil && a.Status < 400 {
		t.Errorf("%+v", a)
	}
}
