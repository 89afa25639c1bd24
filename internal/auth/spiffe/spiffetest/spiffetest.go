// Package spiffetest is a SPIFFE trust domain for tests: it issues X.509-SVIDs and
// JWT-SVIDs, and serves its bundle.
package spiffetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
)

// Domain is a trust domain.
type Domain struct {
	ID    spiffeid.TrustDomain
	CA    *certtest.Authority
	Key   *ecdsa.PrivateKey
	KeyID string
}

// New returns a trust domain of a name such as "example.org".
func New(t testing.TB, name string) *Domain {
	t.Helper()
	id, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Domain{ID: id, CA: certtest.Root(t, name), Key: key, KeyID: "first"}
}

// Named makes a certificate an SVID of a SPIFFE ID.
func Named(t testing.TB, id string) func(*x509.Certificate) {
	t.Helper()
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) { c.URIs = append(c.URIs, u) }
}

// SVID issues an X.509-SVID for a path such as "/web".
func (d *Domain) SVID(t testing.TB, path string, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	return d.CA.Client(t, "", append([]func(*x509.Certificate){Named(t, "spiffe://"+d.ID.Name()+path)}, change...)...)
}

// JWT issues a JWT-SVID for a path that holds for an hour.
func (d *Domain) JWT(t testing.TB, path string, audience ...string) string {
	t.Helper()
	return d.Sign(t, jwt.Claims{Subject: "spiffe://" + d.ID.Name() + path, Audience: audience, Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour))})
}

// Sign signs any claims with the domain's key.
func (d *Domain) Sign(t testing.TB, claims any) string {
	t.Helper()
	return SignWith(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: d.Key, KeyID: d.KeyID}}, claims)
}

// SignWith signs any claims with any key.
func SignWith(t testing.TB, key jose.SigningKey, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Bundle is the domain's bundle, a JWKS.
func (d *Domain) Bundle(t testing.TB, sequence uint64, hint time.Duration) string {
	t.Helper()
	b := spiffebundle.New(d.ID)
	b.AddX509Authority(d.CA.Cert)
	if err := b.AddJWTAuthority(d.KeyID, d.Key.Public()); err != nil {
		t.Fatal(err)
	}
	b.SetSequenceNumber(sequence)
	b.SetRefreshHint(hint)
	text, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
