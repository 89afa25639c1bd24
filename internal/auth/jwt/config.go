package jwt

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Settings say whose tokens are trusted. Exactly one of OIDCDiscoveryURL, JWKSURL,
// JWKSPairs and PublicKeys is set.
type Settings struct {
	DiscoveryURL  string       `json:"oidc_discovery_url" doc:"The issuer's address, without .well-known; its keys and endpoints are found from there."`
	DiscoveryCA   string       `json:"oidc_discovery_ca_pem" doc:"Authorities of the issuer's certificate, in PEM; the machine's own list without."`
	ClientID      string       `json:"oidc_client_id" doc:"The id under which the provider knows this server, for logins in a browser."`
	ResponseMode  string       `json:"oidc_response_mode" doc:"How the provider answers a browser: query or form_post."`
	ResponseTypes wire.Strings `json:"oidc_response_types" doc:"What the provider is asked for: code, or id_token with form_post."`
	JWKSURL       string       `json:"jwks_url" doc:"The address of the issuer's keys."`
	JWKSCA        string       `json:"jwks_ca_pem" doc:"Authorities of that address's certificate, in PEM."`
	JWKSPairs     []Pair       `json:"jwks_pairs" doc:"Several addresses of keys, each with its authorities."`
	PublicKeys    wire.Strings `json:"jwt_validation_pubkeys" doc:"Public keys in PEM."`
	BoundIssuer   string       `json:"bound_issuer" doc:"What a token's iss must be; with a discovery address that issuer's name without it."`
	Algorithms    wire.Strings `json:"jwt_supported_algs" doc:"Signature algorithms that are accepted; all known ones without: RS, PS and ES with 256, 384 and 512, and EdDSA."`
	DefaultRole   string       `json:"default_role" doc:"The role of logins that name none."`
}

// Pair is an address of keys and its authorities.
type Pair struct {
	URL string `json:"jwks_url"`
	CA  string `json:"jwks_ca_pem"`
}

// WriteConfig replaces the configuration.
type WriteConfig struct {
	Settings
	ClientSecret  wire.Secret  `json:"oidc_client_secret" doc:"The secret that goes with oidc_client_id; never answered."`
	InState       *wire.Bool   `json:"namespace_in_state" doc:"Whether a namespace in the query of a redirect_uri goes into the state instead, so that one address serves all namespaces; true for a new configuration."`
	Provider      wire.Object  `json:"provider_config" doc:"For providers that have to be asked for groups beyond the token, of which none is known: leave it out."`
	ServerNames   wire.Strings `json:"override_allowed_server_names" doc:"Names that the issuer's certificate may have instead of its own: not supported."`
	SkipKeysCheck wire.Bool    `json:"skip_jwks_validation" doc:"Keep the configuration although the issuer cannot be asked now."`
}

// ReadConfig is the configuration.
type ReadConfig struct {
	route.Notes
	Settings
	InState  bool        `json:"namespace_in_state"`
	Provider wire.Object `json:"provider_config"`
	Status   string      `json:"status" doc:"valid, or invalid when no keys of the issuer are to be had."`
}

// config is the configuration's row.
type config struct {
	ID string `json:"id"` // another with each write
	Settings
	ClientSecret string `json:"oidc_client_secret"`
	InState      bool   `json:"namespace_in_state"`
}

// browsers reports whether people can log in in a browser.
func (c *config) browsers() bool { return c.DiscoveryURL != "" && c.ClientID != "" }

// asks reports whether the provider is asked for a response type.
func (c *config) asks(kind string) bool { return slices.Contains(c.ResponseTypes, kind) }

const maxSetting = 64 << 10 // bytes of a setting

// check refuses a configuration that cannot be, whatever the issuer says.
func (c *config) check() error {
	ways := 0
	for _, set := range []bool{c.DiscoveryURL != "", c.JWKSURL != "", len(c.JWKSPairs) > 0, len(c.PublicKeys) > 0} {
		if set {
			ways++
		}
	}
	switch {
	case ways != 1:
		return fault.New(fault.Invalid, "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs' or 'oidc_discovery_url' must be set")
	case (c.ClientID == "") != (c.ClientSecret == ""):
		return fault.New(fault.Invalid, "both 'oidc_client_id' and 'oidc_client_secret' must be set for OIDC")
	case c.ClientID != "" && c.DiscoveryURL == "":
		return fault.New(fault.Invalid, "'oidc_discovery_url' must be set for OIDC")
	case strings.Contains(c.DiscoveryURL, ".well-known"):
		return fault.New(fault.Invalid, "'oidc_discovery_url' contains '.well-known' component")
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(issuer.Algorithms, a) {
			return fault.New(fault.Invalid, "invalid jwt_supported_algs: unsupported signing algorithm %q; known are %s", a, strings.Join(issuer.Algorithms, ", "))
		}
	}
	for _, kind := range c.ResponseTypes {
		if kind != "code" && kind != "id_token" {
			return fault.New(fault.Invalid, "invalid response_types %v. 'code' and 'id_token' are allowed", []string(c.ResponseTypes))
		}
	}
	switch c.ResponseMode {
	case "", "query":
		if c.asks("id_token") {
			return fault.New(fault.Invalid, "query response_mode may not be used with an id_token response_type")
		}
	case "form_post":
	default:
		return fault.New(fault.Invalid, "invalid response_mode: %q", c.ResponseMode)
	}
	for name, value := range map[string]string{
		"oidc_discovery_ca_pem": c.DiscoveryCA, "jwks_ca_pem": c.JWKSCA, "oidc_client_secret": c.ClientSecret,
		"oidc_client_id": c.ClientID, "bound_issuer": c.BoundIssuer,
	} {
		if len(value) > maxSetting {
			return fault.New(fault.Invalid, "%s: it has at most %d bytes", name, maxSetting)
		}
	}
	return nil
}

// source is where the issuer's keys are.
func (c *config) source() issuer.Source {
	switch {
	case c.DiscoveryURL != "":
		return issuer.Source{Discovery: issuer.Place{URL: c.DiscoveryURL, CA: c.DiscoveryCA}}
	case c.JWKSURL != "":
		return issuer.Source{JWKS: []issuer.Place{{URL: c.JWKSURL, CA: c.JWKSCA}}}
	case len(c.JWKSPairs) > 0:
		var s issuer.Source
		for _, p := range c.JWKSPairs {
			s.JWKS = append(s.JWKS, issuer.Place(p))
		}
		return s
	}
	return issuer.Source{Keys: c.PublicKeys}
}

// ask asks the issuer for all that a configuration needs of it.
func (c *config) ask(ctx context.Context, i *issuer.Issuer) error {
	if err := i.Check(ctx); err != nil || !c.browsers() {
		return err
	}
	e, err := i.Endpoints(ctx)
	if err == nil && (e.Authorization == "" || e.Token == "") {
		err = fault.New(fault.Unavailable, "the issuer's discovery document has no authorization_endpoint or no token_endpoint, so nobody can log in there in a browser")
	}
	return err
}

func (m *Method) writeConfig(ctx context.Context, _ route.Caller, in WriteConfig) (out route.Empty, err error) {
	switch {
	case strings.Trim(string(in.Provider), "{} \t\r\n") != "": // more than {}
		return out, fault.New(fault.Invalid, "provider_config: no provider is asked for more than its tokens and its userinfo endpoint say; leave it out, and have the provider put groups there")
	case len(in.ServerNames) > 0:
		return out, fault.New(fault.Invalid, "override_allowed_server_names: a certificate must be for the name in the issuer's address; leave it out")
	}
	c := config{ID: uuid.NewString(), Settings: in.Settings, ClientSecret: in.ClientSecret.Reveal()}
	c.DefaultRole = strings.ToLower(c.DefaultRole)
	if err := c.check(); err != nil {
		return out, err
	}
	i, err := issuer.New(c.source())
	if err != nil {
		return out, err
	}
	if err := c.ask(ctx, i); err != nil {
		what := "jwks URL"
		if c.DiscoveryURL != "" {
			what = "oidc discovery URL"
		}
		if !in.SkipKeysCheck {
			return out, fault.Wrap(fault.Invalid, err, "error checking %s: %s", what, fault.From(err).Message)
		}
		out.Warn("error checking " + what + ": " + fault.From(err).Message)
	}
	_, err = m.storage.Update(ctx, func(t storage.Txn) error {
		before, err := storage.Load[config](t, configKey)
		if err != nil {
			return err
		}
		switch {
		case in.InState != nil:
			c.InState = bool(*in.InState)
		default:
			c.InState = before == nil || before.InState
		}
		return storage.Save(t, configKey, &c)
	})
	return out, err
}

func (m *Method) readConfig(ctx context.Context, _ route.Caller, _ route.Nothing) (ReadConfig, error) {
	c, err := lately[config](ctx, m, configKey)
	if err != nil {
		return ReadConfig{}, err
	}
	if c == nil {
		return ReadConfig{}, route.Missing()
	}
	out := ReadConfig{Settings: c.Settings, InState: c.InState, Provider: wire.Object("{}"), Status: "valid"}
	if out.JWKSPairs == nil {
		out.JWKSPairs = []Pair{}
	}
	i, err := m.issuerOf(c)
	if err == nil {
		err = c.ask(ctx, i)
	}
	if err != nil {
		out.Status = "invalid"
		out.Warn(fault.From(err).Message)
	}
	return out, nil
}

// trust returns the configuration and its issuer.
func (m *Method) trust(ctx context.Context) (*config, *issuer.Issuer, error) {
	c, err := lately[config](ctx, m, configKey)
	if err != nil {
		return nil, nil, err
	}
	if c == nil {
		return nil, nil, fault.New(fault.Invalid, "could not load configuration: nobody has written auth/%s/config yet", m.mount)
	}
	i, err := m.issuerOf(c)
	return c, i, err
}

// issuerOf returns the issuer of a configuration, with the keys that are known of
// it already. An issuer of an earlier configuration is left to those who use it.
func (m *Method) issuerOf(c *config) (*issuer.Issuer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.issuer == nil || m.config != c.ID {
		i, err := issuer.New(c.source())
		if err != nil {
			return nil, err
		}
		m.config, m.issuer = c.ID, i
	}
	return m.issuer, nil
}

// below is a mount's path below auth/, without its last slash.
func below(path string) string {
	return strings.Trim(strings.TrimPrefix(path, "auth/"), "/")
}
