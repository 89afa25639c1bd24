package spiffe

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/cofferhq/coffer/internal/auth/remote"
)

// Limits of bundles.
const (
	maxBundle      = 256 << 10 // bytes
	maxAuthorities = 200       // certificates and keys together
	minRSA         = 2048      // bits
)

// parseBundle reads a bundle: certificates in PEM, or a SPIFFE bundle, which is a
// JWKS.
func parseBundle(domain spiffeid.TrustDomain, text []byte) (*spiffebundle.Bundle, error) {
	if len(text) > maxBundle {
		return nil, fmt.Errorf("it is longer than %d bytes", maxBundle)
	}
	var bundle *spiffebundle.Bundle
	if bytes.Contains(text, []byte("-----BEGIN")) {
		if err := onlyCertificates(text); err != nil {
			return nil, err
		}
		certificates, err := x509bundle.Parse(domain, text)
		if err != nil {
			return nil, errors.New("its certificates cannot be parsed")
		}
		bundle = spiffebundle.FromX509Bundle(certificates)
	} else {
		var err error
		if bundle, err = spiffebundle.Parse(domain, text); err != nil {
			return nil, errors.New("it is neither certificates in PEM nor a SPIFFE bundle (a JWKS)")
		}
	}
	if err := checkKeys(bundle); err != nil {
		return nil, err
	}
	switch n := len(bundle.X509Authorities()) + len(bundle.JWTAuthorities()); {
	case n == 0:
		return nil, errors.New("it holds no authority")
	case n > maxAuthorities:
		return nil, fmt.Errorf("it holds %d authorities, more than %d", n, maxAuthorities)
	}
	return bundle, nil
}

// onlyCertificates refuses PEM of anything else, such as of a private key.
func onlyCertificates(text []byte) error {
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		if block.Type != "CERTIFICATE" {
			return errors.New("it holds something that is no certificate")
		}
	}
}

// checkKeys refuses keys that can sign no JWT-SVID, secret ones among them.
func checkKeys(bundle *spiffebundle.Bundle) error {
	for _, key := range bundle.JWTAuthorities() {
		switch key := key.(type) {
		case *ecdsa.PublicKey:
		case *rsa.PublicKey:
			if key.N.BitLen() < minRSA {
				return fmt.Errorf("it holds an RSA key of less than %d bits", minRSA)
			}
		default:
			return errors.New("it holds a JWT key that is no public RSA or EC key")
		}
	}
	return nil
}

// fetchBundle gets the bundle of an endpoint. How the endpoint proves who it is
// depends on the profile; the bundle before proves a SPIFFE endpoint.
func (c *config) fetchBundle(ctx context.Context) (string, error) {
	q := remote.Question{URL: c.EndpointURL, Limit: maxBundle, Accept: "application/json"}
	domain, err := spiffeid.TrustDomainFromString(c.TrustDomain)
	if err != nil {
		return "", err
	}
	if q.TLS, err = c.endpointTLS(domain); err != nil {
		return "", err
	}
	text, err := q.Ask(ctx)
	if err != nil {
		return "", err
	}
	isPEM := bytes.Contains(text, []byte("-----BEGIN"))
	if isPEM != (c.Profile == webPEM) {
		return "", fmt.Errorf("what it answers is not what the profile %s is for", c.Profile)
	}
	_, err = parseBundle(domain, text)
	return string(text), err
}

func (c *config) endpointTLS(domain spiffeid.TrustDomain) (*tls.Config, error) {
	if c.Profile != spiffeBundle {
		settings := &tls.Config{MinVersion: tls.VersionTLS12}
		if c.EndpointCA != "" {
			settings.RootCAs = x509.NewCertPool()
			if !settings.RootCAs.AppendCertsFromPEM([]byte(c.EndpointCA)) {
				return nil, errors.New("endpoint_root_ca_truststore_pem holds no certificate in PEM")
			}
		}
		return settings, nil
	}
	id, err := spiffeid.FromString(c.EndpointID)
	if err != nil {
		return nil, err
	}
	var last error
	for _, text := range []string{c.Cached.Text, c.Bundle, c.EndpointCA} {
		if text == "" {
			continue
		}
		known, err := parseBundle(domain, []byte(text))
		if err == nil && len(known.X509Authorities()) > 0 {
			return tlsconfig.TLSClientConfig(known.X509Bundle(), tlsconfig.AuthorizeID(id)), nil
		}
		last = err
	}
	return nil, errors.Join(errors.New("nothing is known by which the endpoint could prove itself; give its trust domain's bundle as bundle"), last)
}

// cached is the bundle that was fetched last.
type cached struct {
	Text    string    `json:"text,omitempty"`
	Fetched time.Time `json:"fetched,omitzero"`
	TryAt   time.Time `json:"try_at,omitzero"` // when it is fetched again
	Problem string    `json:"problem,omitempty"`
}

// How often bundles are fetched: as their hint says, within bounds.
const (
	refreshEvery = 5 * time.Minute // without a hint
	minRefresh   = time.Minute
	maxRefresh   = time.Hour
	retryAfter   = 30 * time.Second
	lookEvery    = 10 * time.Second
)

func nextFetch(domain spiffeid.TrustDomain, text string, now time.Time) time.Time {
	every := refreshEvery
	if bundle, err := parseBundle(domain, []byte(text)); err == nil {
		if hint, ok := bundle.RefreshHint(); ok {
			every = min(max(hint, minRefresh), maxRefresh)
		}
	}
	return now.Add(every).UTC()
}

// bare is an error's words as a client may see them: short and printable.
func bare(err error) string {
	text := err.Error()
	for _, prefix := range []string{"jwtsvid: ", "x509svid: ", "spiffebundle: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	text = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, text)
	const most = 200
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}
