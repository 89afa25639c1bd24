// Package certtest issues certificates for tests: authorities, intermediates,
// clients with any names, and revocation lists. Keys are made for each test and
// are on no disk unless it asks.
package certtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// Authority issues certificates.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	Up   []*x509.Certificate // the intermediates from this one on, what its clients present; empty for a root
}

var serials atomic.Int64

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign issues a certificate; nil signs it with its own key.
func sign(t testing.TB, template *x509.Certificate, key crypto.Signer, by *Authority) *x509.Certificate {
	t.Helper()
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(1000 + serials.Add(1))
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Cert, by.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Root returns an authority that signed itself. change may change what it is.
func Root(t testing.TB, name string, change ...func(*x509.Certificate)) *Authority {
	t.Helper()
	key := newKey(t)
	return &Authority{Cert: sign(t, authority(name, change), key, nil), Key: key}
}

// Intermediate returns an authority that a issued.
func (a *Authority) Intermediate(t testing.TB, name string, change ...func(*x509.Certificate)) *Authority {
	t.Helper()
	key := newKey(t)
	c := sign(t, authority(name, change), key, a)
	return &Authority{Cert: c, Key: key, Up: append([]*x509.Certificate{c}, a.Up...)}
}

func authority(name string, change []func(*x509.Certificate)) *x509.Certificate {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	for _, c := range change {
		c(template)
	}
	return template
}

// Client issues a client's certificate; its chain has the intermediates.
func (a *Authority) Client(t testing.TB, name string, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range change {
		c(template)
	}
	leaf := sign(t, template, key, a)
	pair := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	if a != nil {
		for _, c := range a.Up {
			pair.Certificate = append(pair.Certificate, c.Raw)
		}
	}
	return pair
}

// Alone issues a client's certificate that signed itself.
func Alone(t testing.TB, name string, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	return (*Authority)(nil).Client(t, name, change...)
}

// CRL is a revocation list in DER.
func (a *Authority) CRL(t testing.TB, number int64, revoked ...*big.Int) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(time.Duration(number) * time.Second).Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, serial := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.Cert, a.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// PEM is certificates as they stand in files.
func PEM(certificates ...*x509.Certificate) string {
	var out []byte
	for _, c := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return string(out)
}

// Peer is a client's chain as a server sees it.
func Peer(t testing.TB, pair tls.Certificate) (out []*x509.Certificate) {
	t.Helper()
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// Files writes a client's chain and its key into a directory of the test.
func Files(t testing.TB, pair tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for file, text := range map[string][]byte{certFile: []byte(PEM(Peer(t, pair)...)), keyFile: key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
