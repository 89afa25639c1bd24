package spiffe

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// The profiles: where a bundle comes from.
const (
	static       = "static"
	webBundle    = "https_web_bundle"
	webPEM       = "https_web_pem"
	spiffeBundle = "https_spiffe_bundle"
)

// config is the row of the settings.
type config struct {
	ID          string       `json:"id"` // another with each change that is not a fetch
	TrustDomain string       `json:"trust_domain"`
	Profile     string       `json:"profile"`
	Audience    wire.Strings `json:"audience"`
	Bundle      string       `json:"bundle"`
	EndpointURL string       `json:"endpoint_url"`
	EndpointCA  string       `json:"endpoint_root_ca_truststore_pem"`
	EndpointID  string       `json:"endpoint_spiffe_id"`
	Cached      cached       `json:"cached"`
}

// WriteConfig changes the settings.
type WriteConfig struct {
	TrustDomain *string       `json:"trust_domain" doc:"The trust domain, such as example.org; spiffe:// before it may be left out."`
	Profile     *string       `json:"profile" doc:"Where the bundle comes from: static is the field bundle; https_web_bundle, https_web_pem and https_spiffe_bundle are an endpoint."`
	Audience    *wire.Strings `json:"audience" doc:"Of a JWT-SVID's audiences one must be in this list; empty accepts no JWT-SVID."`
	Bundle      *string       `json:"bundle" doc:"The bundle: a SPIFFE bundle (JWKS), or certificates in PEM. With https_spiffe_bundle, by which the endpoint proves itself at first."`
	EndpointURL *string       `json:"endpoint_url" doc:"The endpoint's https URL."`
	EndpointCA  *string       `json:"endpoint_root_ca_truststore_pem" doc:"Authorities of the endpoint's certificate in PEM; what the machine trusts unless given."`
	EndpointID  *string       `json:"endpoint_spiffe_id" doc:"With https_spiffe_bundle: the SPIFFE ID that the endpoint must have."`
	Defer       *wire.Bool    `json:"defer_bundle_fetch" doc:"Keep the settings without fetching the bundle first."`
}

// ReadConfig are the settings.
type ReadConfig struct {
	TrustDomain string       `json:"trust_domain"`
	Profile     string       `json:"profile"`
	Audience    wire.Strings `json:"audience"`
	Bundle      string       `json:"bundle,omitempty"`
	EndpointURL string       `json:"endpoint_url,omitempty"`
	EndpointCA  string       `json:"endpoint_root_ca_truststore_pem,omitempty"`
	EndpointID  string       `json:"endpoint_spiffe_id,omitempty"`
	Fetched     *wire.Time   `json:"cached_bundle_fetched_at,omitempty" doc:"When the bundle in use was fetched."`
	Hint        wire.Seconds `json:"cached_bundle_refresh_hint,omitzero" doc:"How often the bundle means to be fetched."`
	Sequence    uint64       `json:"cached_bundle_sequence_number,omitzero" doc:"The bundle's own number."`
	Problem     string       `json:"cached_bundle_problem,omitempty" doc:"Why the last fetch failed; the bundle before is still in use."`
}

func set[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

// empty reports whether nothing is to be changed: the bundle is to be fetched.
func (w WriteConfig) empty() bool { return w == WriteConfig{} }

// apply changes what the request names, and checks what comes of it.
func (w WriteConfig) apply(c *config) error {
	before := *c
	set(&c.TrustDomain, w.TrustDomain)
	set(&c.Profile, w.Profile)
	set(&c.Audience, w.Audience)
	set(&c.Bundle, w.Bundle)
	set(&c.EndpointURL, w.EndpointURL)
	set(&c.EndpointCA, w.EndpointCA)
	set(&c.EndpointID, w.EndpointID)
	c.ID = uuid.NewString()
	domain, err := spiffeid.TrustDomainFromString(c.TrustDomain)
	if err != nil {
		return fault.New(fault.Invalid, "trust_domain: it is not one; write for example example.org")
	}
	c.TrustDomain = domain.Name()
	if c.TrustDomain != before.TrustDomain || c.Profile != before.Profile || c.EndpointURL != before.EndpointURL {
		c.Cached = cached{} // it is not that domain's, or not from there
	}
	if c.Bundle != "" {
		if _, err := parseBundle(domain, []byte(c.Bundle)); err != nil {
			return fault.New(fault.Invalid, "bundle: %s", bare(err))
		}
	}
	for _, a := range c.Audience {
		if len(a) > 1024 || len(c.Audience) > 100 {
			return fault.New(fault.Invalid, "audience: it has at most 100 entries of at most 1024 bytes")
		}
	}
	return c.checkEndpoint(domain)
}

func (c *config) checkEndpoint(domain spiffeid.TrustDomain) error {
	switch c.Profile {
	case static:
		if c.Bundle == "" {
			return fault.New(fault.Invalid, "bundle: the profile static needs it")
		}
		if c.EndpointURL != "" || c.EndpointCA != "" || c.EndpointID != "" {
			return fault.New(fault.Invalid, "profile: static has no endpoint; leave endpoint_url, endpoint_root_ca_truststore_pem and endpoint_spiffe_id out")
		}
		return nil
	case webBundle, webPEM, spiffeBundle:
	default:
		return fault.New(fault.Invalid, "profile: it is one of static, https_web_bundle, https_web_pem and https_spiffe_bundle")
	}
	u, err := remote.CheckURL(c.EndpointURL)
	if err != nil {
		return fault.New(fault.Invalid, "endpoint_url: %v", err)
	}
	switch {
	case u.Scheme != "https":
		return fault.New(fault.Invalid, "endpoint_url: a bundle comes over https only")
	case len(c.EndpointCA) > maxBundle:
		return fault.New(fault.Invalid, "endpoint_root_ca_truststore_pem: it is longer than %d bytes", maxBundle)
	case c.Profile == spiffeBundle:
		id, err := spiffeid.FromString(c.EndpointID)
		if err != nil || id.TrustDomain() != domain {
			return fault.New(fault.Invalid, "endpoint_spiffe_id: it must be a SPIFFE ID of the trust domain, which https_spiffe_bundle needs")
		}
	case c.EndpointID != "":
		return fault.New(fault.Invalid, "endpoint_spiffe_id: only https_spiffe_bundle has one")
	}
	if _, err := c.endpointTLS(domain); err != nil {
		return fault.New(fault.Invalid, "the endpoint: %s", bare(err))
	}
	return nil
}

func errNoConfig() error {
	return fault.New(fault.Invalid, "the method has no trust domain yet; write its config")
}

func (m *Method) readConfig(ctx context.Context, _ route.Caller, _ route.Nothing) (ReadConfig, error) {
	c, err := storage.LoadFrom[config](ctx, m.storage, configKey)
	if err != nil {
		return ReadConfig{}, err
	}
	if c == nil {
		return ReadConfig{}, route.Missing()
	}
	out := ReadConfig{
		TrustDomain: c.TrustDomain, Profile: c.Profile, Audience: c.Audience, Bundle: c.Bundle, EndpointURL: c.EndpointURL,
		EndpointCA: c.EndpointCA, EndpointID: c.EndpointID, Problem: c.Cached.Problem,
	}
	if c.Cached.Text == "" {
		return out, nil
	}
	out.Fetched = &wire.Time{Time: c.Cached.Fetched}
	t, err := c.trust()
	if err != nil {
		return out, err
	}
	if hint, ok := t.bundle.RefreshHint(); ok {
		out.Hint = wire.Seconds(hint)
	}
	out.Sequence, _ = t.bundle.SequenceNumber()
	return out, nil
}

func (m *Method) writeConfig(ctx context.Context, _ route.Caller, in WriteConfig) (route.Empty, error) {
	before, err := storage.LoadFrom[config](ctx, m.storage, configKey)
	if err != nil {
		return route.Empty{}, err
	}
	if before == nil {
		before = new(config)
		if in.empty() {
			return route.Empty{}, errNoConfig()
		}
	}
	next := *before
	if !in.empty() {
		if err := in.apply(&next); err != nil {
			return route.Empty{}, err
		}
	}
	if next.Profile != static && (in.Defer == nil || !bool(*in.Defer)) {
		text, err := next.fetchBundle(ctx)
		if err != nil {
			return route.Empty{}, fault.New(fault.Invalid, "the bundle cannot be fetched, and nothing was changed: %s", bare(err))
		}
		next.fetched(text, time.Now())
	}
	_, err = m.storage.Update(ctx, func(t storage.Txn) error {
		now, err := storage.Load[config](t, configKey)
		switch {
		case err != nil:
			return err
		case now != nil && now.ID != before.ID:
			return fault.New(fault.Conflict, "the config was changed by somebody else meanwhile; read it and try again")
		}
		return storage.Save(t, configKey, next)
	})
	return route.Empty{}, err
}

// fetched notes a bundle that came from the endpoint.
func (c *config) fetched(text string, now time.Time) {
	domain, _ := spiffeid.TrustDomainFromString(c.TrustDomain)
	c.Cached = cached{Text: text, Fetched: now.UTC(), TryAt: nextFetch(domain, text, now)}
}

// trust is what the settings come to: whose SVIDs are accepted, and by what.
type trust struct {
	row      []byte
	domain   spiffeid.TrustDomain
	bundle   *spiffebundle.Bundle
	audience []string
}

func (c *config) trust() (*trust, error) {
	text := c.Cached.Text
	if c.Profile == static {
		text = c.Bundle
	}
	if text == "" {
		return nil, fault.New(fault.Unavailable, "the trust domain's bundle was not fetched yet")
	}
	domain, err := spiffeid.TrustDomainFromString(c.TrustDomain)
	if err != nil {
		return nil, err
	}
	bundle, err := parseBundle(domain, []byte(text))
	if err != nil {
		return nil, err
	}
	return &trust{domain: domain, bundle: bundle, audience: c.Audience}, nil
}

// trusted returns the trust as of a second ago at most.
func (m *Method) trusted(ctx context.Context) (*trust, error) {
	row, err := m.recent(ctx, configKey)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errNoConfig()
	}
	if err != nil {
		return nil, err
	}
	if known := m.trust.Load(); known != nil && bytes.Equal(known.row, row) {
		return known, nil
	}
	c, err := storage.Decode[config](configKey, row, nil)
	if err != nil {
		return nil, err
	}
	t, err := c.trust()
	if err != nil {
		return nil, err
	}
	t.row = row
	m.trust.Store(t)
	return t, nil
}
