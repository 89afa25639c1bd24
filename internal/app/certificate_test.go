package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority issues server certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = template, newKey(t)
	der := a.sign(t, template, a.key)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// issue returns a certificate with a serial number, and its key, in PEM.
func (a *authority) issue(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	private := newKey(t)
	der := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "coffer"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, private)
	bytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes})
}

// caller is a program with one connection of its own, which it keeps.
type caller struct {
	http *http.Client
	url  string
}

func (a *authority) caller(t *testing.T, url string) *caller {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{http: &http.Client{Transport: transport}, url: url}
}

// serial asks for the health and returns the serial number of the certificate
// that the connection was made with.
func (c *caller) serial() (string, error) {
	answer, err := c.http.Get(c.url + "/v1/sys/health")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return "", fmt.Errorf("health is %d", answer.StatusCode)
	}
	return answer.TLS.PeerCertificates[0].SerialNumber.String(), nil
}

// TestCertificatesAreReplaced exchanges the TLS files of a running server. New
// connections see the new certificate, those there are go on with theirs, and
// files that do not belong together change nothing and are logged once.
func TestCertificatesAreReplaced(t *testing.T) {
	p, a := newProcess(t, ""), newAuthority(t)
	certFile, keyFile := filepath.Join(p.dir, "server.pem"), filepath.Join(p.dir, "server.key")
	put := func(file string, text []byte) {
		t.Helper()
		if err := os.WriteFile(file+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	replace := func(serial int64) {
		cert, key := a.issue(t, serial)
		put(keyFile, key)
		put(certFile, cert)
	}
	replace(101)
	p.configure(t, fmt.Sprintf("listener \"tcp\" {\n  address = \"127.0.0.1:0\"\n  tls_cert_file = %q\n  tls_key_file = %q\n}\n", certFile, keyFile))
	p.start(t)
	wants := func(c *caller, serial string) {
		t.Helper()
		if got, err := c.serial(); got != serial || err != nil {
			t.Errorf("the connection has the certificate %s: %v; want %s\n%s", got, err, serial, p.out)
		}
	}
	newest := func(serial string) {
		t.Helper()
		eventually(t, "new connections have the certificate "+serial, func() bool {
			got, err := a.caller(t, p.URL()).serial()
			if err != nil {
				t.Fatalf("%v\n%s", err, p.out)
			}
			return got == serial
		})
	}
	p.Reach(p.URL(), a.caller(t, p.URL()).http)
	p.initialize(t)
	old := a.caller(t, p.URL())
	wants(old, "101")

	replace(102)
	newest("102") // it is seen within a second, without a signal
	wants(old, "101")

	// A certificate whose key is another's, half a file, and none at all.
	foreign, _ := a.issue(t, 103)
	whole, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	for n, text := range [][]byte{foreign, whole[:len(whole)/2], nil} {
		put(certFile, text)
		eventually(t, "the refusal is logged", func() bool {
			return strings.Count(p.out.String(), "the new TLS certificate is refused, the old one stays") > n
		})
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		wants(a.caller(t, p.URL()), "102")
		wants(old, "101")
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the missing file is logged", func() bool {
		return strings.Contains(p.out.String(), "the TLS files cannot be read, the old certificate stays")
	})
	wants(a.caller(t, p.URL()), "102")

	replace(104)
	newest("104")
	wants(old, "101")
	if strings.Contains(p.out.String(), "PRIVATE KEY") {
		t.Error("the log holds a key")
	}
	p.stop(t)
}
