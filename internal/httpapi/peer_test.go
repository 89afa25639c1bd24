package httpapi

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/gateway"
)

// presented returns a certificate that nobody issued, with another behind it.
func presented(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair := tls.Certificate{PrivateKey: key}
	for _, name := range []string{"a client", "its issuer"} {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		pair.Certificate = append(pair.Certificate, der)
	}
	return pair
}

// What a client presented reaches the gateway with each of its requests, over
// either protocol, on connections that go on and on ones that resume a session.
func TestPeerCertificates(t *testing.T) {
	base, pool := testTLS(t)
	pair := presented(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s http2 %v", tls.VersionName(version), http2), func(t *testing.T) {
				server := base.Clone()
				server.ClientAuth, server.MaxVersion = tls.RequestClientCert, version
				g := &recorder{}
				address, _ := start(t, Listener{Options: Options{Serve: g.Serve}, TLS: server})
				c := client(t, pool, http2)
				config := c.Transport.(*http.Transport).TLSClientConfig
				config.Certificates, config.ClientSessionCache = []tls.Certificate{pair}, tls.NewLRUClientSessionCache(1)
				var resumed []bool
				ask := func() {
					resp, err := c.Get("https://" + address + "/v1/x")
					if err != nil {
						t.Fatal(err)
					}
					var rest bytes.Buffer
					_, _ = rest.ReadFrom(resp.Body)
					_ = resp.Body.Close()
					resumed = append(resumed, resp.TLS.DidResume)
				}
				ask()
				ask()
				c.CloseIdleConnections()
				ask()
				if fmt.Sprint(resumed) != "[false false true]" {
					t.Errorf("resumed: %v", resumed)
				}
				for i, r := range g.requests() {
					if len(r.Peer) != 2 || !bytes.Equal(r.Peer[0].Raw, pair.Certificate[0]) || !bytes.Equal(r.Peer[1].Raw, pair.Certificate[1]) {
						t.Errorf("request %d has %d certificates", i, len(r.Peer))
					}
				}
			})
		}
	}
}

// A certificate belongs to its connection, and is nobody else's.
func TestNoPeerCertificates(t *testing.T) {
	base, pool := testTLS(t)
	pair := presented(t)
	plain, _ := start(t, Listener{Options: Options{Serve: (&recorder{answer: withoutPeer(t)}).Serve}})
	if resp, err := client(t, pool, false).Get("http://" + plain + "/v1/x"); err != nil || resp.Body.Close() != nil {
		t.Error(err)
	}
	for _, asked := range []tls.ClientAuthType{tls.NoClientCert, tls.RequestClientCert} {
		server := base.Clone()
		server.ClientAuth = asked
		address, _ := start(t, Listener{Options: Options{Serve: (&recorder{answer: withoutPeer(t)}).Serve}, TLS: server})
		c := client(t, pool, true)
		if asked == tls.NoClientCert {
			c.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
		}
		if resp, err := c.Get("https://" + address + "/v1/x"); err != nil || resp.Body.Close() != nil {
			t.Error(err)
		}
	}
}

func withoutPeer(t testing.TB) func(*gateway.Request) gateway.Answer {
	return func(r *gateway.Request) gateway.Answer {
		if len(r.Peer) > 0 {
			t.Errorf("a request without certificates has %d", len(r.Peer))
		}
		return gateway.Answer{Status: 204}
	}
}

// Who presents a certificate without its key is not let in.
func TestStolenCertificates(t *testing.T) {
	base, pool := testTLS(t)
	server := base.Clone()
	server.ClientAuth = tls.RequestClientCert
	g := &recorder{}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve}, TLS: server})
	stolen := presented(t)
	stolen.PrivateKey = presented(t).PrivateKey
	c := client(t, pool, false)
	c.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{stolen}
	if resp, err := c.Get("https://" + address + "/v1/x"); err == nil {
		t.Errorf("it is answered %d", resp.StatusCode)
		_ = resp.Body.Close()
	}
	for _, r := range g.requests() {
		if r.Problem == nil || len(r.Peer) > 0 {
			t.Errorf("a request of it: %+v", r)
		}
	}
}
