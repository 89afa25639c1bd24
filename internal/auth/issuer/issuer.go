// Package issuer verifies the JSON web tokens of issuers that this server did not
// set up itself: an identity provider, a CI system, a cluster. It finds an issuer's
// public keys, keeps them, and says for each token what it claims or why it is
// refused. It makes no tokens, and it does not decide what a claim is good for: an
// auth method does.
//
// A token is a JWS in its compact form (RFC 7515, RFC 7519) of at most MaxToken
// bytes, signed with one of Algorithms. Unsigned tokens and those signed with a
// shared secret (HS256 …) are always refused: a public key that is taken for a
// shared secret would let everybody sign.
package issuer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/cofferhq/coffer/internal/fault"
)

// The limits.
const (
	MaxToken    = 64 << 10 // bytes of a token
	MaxDocument = 1 << 20  // bytes of a discovery or key document
	MaxKeys     = 256      // keys of an issuer

	// FetchTimeout is how long an issuer may take to answer.
	FetchTimeout = 5 * time.Second
	// Fresh is how long fetched keys are used without asking again, and so how long
	// a key that the issuer withdrew is still accepted.
	Fresh = 10 * time.Minute
	// RefreshEvery is how often an issuer is asked at most, however many tokens name
	// keys that are not known, and whether it answers or not.
	RefreshEvery = 10 * time.Second
	// Stale is how long the last good keys are used while the issuer does not answer.
	Stale = 6 * time.Hour
)

// Place is a URL and the authorities its certificate must be of.
type Place struct {
	URL string // https, or http to this machine's loopback
	CA  string // PEM; "" is the machine's own list
}

// Source says where an issuer's keys are; exactly one of its fields Discovery,
// JWKS, Keys and Document is set.
type Source struct {
	// Discovery is the base of the issuer's OpenID Connect discovery, without
	// /.well-known/openid-configuration.
	Discovery Place
	// Name is what the discovery document must call the issuer; "" is the URL.
	Name string
	// JWKS are key documents (RFC 7517) to fetch.
	JWKS []Place
	// Keys are public keys or certificates, in PEM.
	Keys []string
	// Document is a key document that is not fetched.
	Document []byte
}

// Issuer verifies one issuer's tokens. It is safe for use by many.
type Issuer struct {
	source Source
	now    func() time.Time

	static  []jose.JSONWebKey // nil where keys are fetched
	found   *document[Endpoints]
	fetched []*document[[]jose.JSONWebKey] // one per place

	end func()
}

// New returns the issuer of a source. It asks nobody: see Check. Errors are faults
// of kind Invalid.
func New(s Source) (*Issuer, error) {
	i := &Issuer{source: s, now: time.Now}
	ctx, cancel := context.WithCancel(context.Background())
	i.end = cancel
	ways := 0
	for _, set := range []bool{s.Discovery.URL != "", len(s.JWKS) > 0, len(s.Keys) > 0, s.Document != nil} {
		if set {
			ways++
		}
	}
	switch {
	case ways != 1:
		return nil, fault.New(fault.Invalid, "an issuer's keys come from exactly one of a discovery URL, key URLs, public keys and a key document, not from %d", ways)
	case len(s.Keys) > MaxKeys || len(s.JWKS) > maxPlaces:
		return nil, fault.New(fault.Invalid, "an issuer has at most %d keys, fetched from at most %d places", MaxKeys, maxPlaces)
	case s.Discovery.URL != "":
		client, err := newClient(s.Discovery)
		if err != nil {
			return nil, err
		}
		i.found = newDocument(ctx, i, client, parseEndpoints)
		i.found.url = strings.TrimSuffix(s.Discovery.URL, "/") + "/.well-known/openid-configuration"
		i.fetched = append(i.fetched, newDocument(ctx, i, client, parseKeys))
	case s.Document != nil:
		keys, err := parseKeys(s.Document)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "the key document %s", err)
		}
		i.static = keys
	}
	for _, place := range s.JWKS {
		client, err := newClient(place)
		if err != nil {
			return nil, err
		}
		d := newDocument(ctx, i, client, parseKeys)
		d.url = place.URL
		i.fetched = append(i.fetched, d)
	}
	for _, text := range s.Keys {
		key, err := parsePEM(text)
		if err != nil {
			return nil, err
		}
		i.static = append(i.static, key)
	}
	return i, nil
}

const maxPlaces = 16

// Close gives up what is being fetched and closes idle connections. Static keys
// go on to work.
func (i *Issuer) Close() {
	i.end()
	for _, d := range i.fetched {
		d.client.CloseIdleConnections()
	}
}

// Check asks the issuer for its keys now. Errors are faults of kind Unavailable
// that say what is wrong on the issuer's side. Static keys are always there.
func (i *Issuer) Check(ctx context.Context) error {
	for _, d := range i.fetched {
		if _, err := i.keysOf(ctx, d, true); err != nil {
			return err
		}
	}
	return nil
}

// Endpoints are what an issuer's discovery document says (OpenID Connect Discovery
// 1.0, section 3).
type Endpoints struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Keys          string   `json:"jwks_uri"`
	Userinfo      string   `json:"userinfo_endpoint"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	// NamesItself says that answers of the authorization endpoint carry iss
	// (RFC 9207).
	NamesItself bool `json:"authorization_response_iss_parameter_supported"`
}

func parseEndpoints(body []byte) (e Endpoints, err error) {
	if err := json.Unmarshal(body, &e); err != nil {
		return e, garbage("is not a JSON object of OpenID Connect discovery")
	}
	if e.Keys == "" {
		return e, garbage("has no jwks_uri")
	}
	for name, text := range map[string]string{"jwks_uri": e.Keys, "authorization_endpoint": e.Authorization, "token_endpoint": e.Token, "userinfo_endpoint": e.Userinfo} {
		if text == "" {
			continue
		}
		if _, err := secure(text); err != nil {
			return e, garbage("has a " + name + " that cannot be used: " + err.Error())
		}
	}
	return e, nil
}

// Endpoints returns what the issuer's discovery document says. Errors are faults:
// Invalid where the issuer has none, Unavailable where it cannot be had.
func (i *Issuer) Endpoints(ctx context.Context) (Endpoints, error) {
	if i.found == nil {
		return Endpoints{}, fault.New(fault.Invalid, "the issuer has no discovery URL")
	}
	e, err := i.found.get(ctx, false)
	if err != nil {
		return e, err
	}
	name := i.source.Name
	if name == "" {
		name = i.source.Discovery.URL
	}
	if e.Issuer != name {
		return e, fault.New(fault.Unavailable, "the discovery document at %s is of the issuer %q and not of %q, as configured", i.found.url, clip(e.Issuer), name)
	}
	return e, nil
}

// Client is the HTTP client for requests to the issuer itself, with the bounds of
// this package: its authorities, timeout and redirects. It does not bound answers.
func (i *Issuer) Client() *http.Client {
	if len(i.fetched) == 0 {
		return nil
	}
	return i.fetched[0].client
}

// keysOf returns the keys of one document, at an address that discovery says
// where it says it.
func (i *Issuer) keysOf(ctx context.Context, d *document[[]jose.JSONWebKey], again bool) ([]jose.JSONWebKey, error) {
	if i.found != nil {
		e, err := i.Endpoints(ctx)
		if err != nil {
			return nil, err
		}
		d.move(e.Keys)
	}
	return d.get(ctx, again)
}

// newClient returns a client for a place.
func newClient(p Place) (*http.Client, error) {
	base, err := secure(p.URL)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the URL %q cannot be used: %s", p.URL, err)
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.CA != "" {
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM([]byte(p.CA)) {
			return nil, fault.New(fault.Invalid, "the authorities for %s hold no certificate in PEM", p.URL)
		}
	}
	return &http.Client{
		Timeout: FetchTimeout,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: settings, ForceAttemptHTTP2: true,
			DialContext:         (&net.Dialer{Timeout: FetchTimeout}).DialContext,
			TLSHandshakeTimeout: FetchTimeout, ResponseHeaderTimeout: FetchTimeout,
			MaxResponseHeaderBytes: 64 << 10, MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch {
			case r.URL.Scheme != base.Scheme:
				return garbage("redirects to another scheme, " + r.URL.Scheme)
			case len(via) > 3:
				return garbage("redirects more than three times")
			}
			_, err := secure(r.URL.String())
			return err
		},
	}, nil
}

// secure refuses a URL over which anybody on the way could put keys of their own.
func secure(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return nil, garbage("it is not a URL with a host")
	case u.User != nil:
		return nil, garbage("it holds a username or a password")
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		return u, nil
	}
	return nil, garbage("it must begin with https://")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// garbage is what is wrong with something that an issuer says.
type garbage string

func (g garbage) Error() string { return string(g) }

// clip shortens what a stranger wrote, for messages.
func clip(text string) string {
	if len(text) > 100 {
		return strings.ToValidUTF8(text[:100], "") + "…"
	}
	return text
}
