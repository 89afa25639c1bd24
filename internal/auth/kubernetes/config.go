package kubernetes

import (
	"context"
	"strings"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Settings say how the cluster is asked.
type Settings struct {
	Host         string       `json:"kubernetes_host" doc:"The API server: a URL, or a host and port."`
	CA           string       `json:"kubernetes_ca_cert" doc:"Authorities of the API server's certificate, in PEM. Without, those of this server's own pod, or else the machine's."`
	Keys         wire.Strings `json:"pem_keys" doc:"The cluster's public keys, or certificates with them, in PEM; tokens must be signed by one."`
	Issuer       string       `json:"issuer" doc:"The issuer that tokens must be of, where disable_iss_validation is false or the keys come by discovery."`
	AnyIssuer    bool         `json:"disable_iss_validation"`
	NoOwn        bool         `json:"disable_local_ca_jwt"`
	Annotations  bool         `json:"use_annotations_as_alias_metadata"`
	Offline      bool         `json:"offline_validation"`
	DiscoveryURL string       `json:"oidc_discovery_url" doc:"The cluster's issuer, whose keys are found by discovery; managed clusters publish them."`
	DiscoveryCA  string       `json:"oidc_discovery_ca_pem" doc:"Authorities of the issuer's certificate, in PEM; the machine's own list without."`
	JWKSURL      string       `json:"jwks_url" doc:"The address of the cluster's keys, such as https://10.96.0.1/openid/v1/jwks where it may be read without a token."`
	JWKSCA       string       `json:"jwks_ca_pem" doc:"Authorities of that address's certificate, in PEM; the machine's own list without."`
}

// WriteConfig replaces the settings.
type WriteConfig struct {
	Settings
	Reviewer    wire.Secret `json:"token_reviewer_jwt" doc:"The token with which the cluster is asked; never answered. Without, that of this server's own pod, or else the one that logs in."`
	AnyIssuer   *wire.Bool  `json:"disable_iss_validation" doc:"Whether tokens may be of any issuer; true unless written, since the cluster itself knows its own."`
	NoOwn       wire.Bool   `json:"disable_local_ca_jwt" doc:"Do not use the certificate and the token of the pod that this server runs in."`
	Annotations wire.Bool   `json:"use_annotations_as_alias_metadata" doc:"Take annotations of the service account that begin with vault.hashicorp.com/alias-metadata- into the alias's metadata."`
	Offline     wire.Bool   `json:"offline_validation" doc:"Verify tokens by the cluster's keys only, and do not ask the cluster. The token of a deleted pod or service account is accepted until it ends."`
	SkipCheck   wire.Bool   `json:"skip_jwks_validation" doc:"Keep the settings although the keys cannot be fetched now."`
}

// ReadConfig are the settings.
type ReadConfig struct {
	Settings
	ReviewerSet bool `json:"token_reviewer_jwt_set"`
}

// config is the settings' row.
type config struct {
	ID string `json:"id"` // another with each write
	Settings
	Reviewer string `json:"token_reviewer_jwt"`
}

const (
	configKey  = "config"
	maxSetting = 256 << 10 // bytes
)

// check refuses settings that cannot be, and puts the host into its one spelling.
func (c *config) check() error {
	for name, value := range map[string]string{
		"kubernetes_ca_cert": c.CA, "token_reviewer_jwt": c.Reviewer, "oidc_discovery_ca_pem": c.DiscoveryCA, "jwks_ca_pem": c.JWKSCA, "issuer": c.Issuer,
	} {
		if len(value) > maxSetting {
			return fault.New(fault.Invalid, "%s: it has at most %d bytes", name, maxSetting)
		}
	}
	switch {
	case c.Host == "" && !c.Offline:
		return fault.New(fault.Invalid, "no host provided: write kubernetes_host, or offline_validation=true with the cluster's keys")
	case c.NoOwn && c.CA == "" && c.Host != "":
		return fault.New(fault.Invalid, "kubernetes_ca_cert must be given when disable_local_ca_jwt is true")
	case c.ways() > 1:
		return fault.New(fault.Invalid, "the cluster's keys come from one of pem_keys, jwks_url and oidc_discovery_url, not from several")
	case c.Offline && c.ways() == 0:
		return fault.New(fault.Invalid, "offline_validation needs the cluster's keys: write pem_keys, jwks_url or oidc_discovery_url")
	case c.Annotations && c.Host == "":
		return fault.New(fault.Invalid, "use_annotations_as_alias_metadata: annotations are read from the API server; write kubernetes_host")
	case strings.ContainsAny(c.Reviewer, "\r\n"):
		return fault.New(fault.Invalid, "token_reviewer_jwt: it holds a line break, which no token does")
	}
	if c.Host != "" {
		if !strings.Contains(c.Host, "://") {
			c.Host = "https://" + c.Host
		}
		if u, err := remote.Secure(c.Host); err != nil || u.RawQuery != "" || u.Fragment != "" {
			return fault.New(fault.Invalid, "kubernetes_host: it is a host, a host and port, or an https URL, such as https://10.96.0.1:443")
		}
		if _, err := remote.NewClient(c.CA, 1); err != nil {
			return fault.New(fault.Invalid, "kubernetes_ca_cert: %s", err)
		}
	}
	return nil
}

// ways is in how many ways the settings say where the keys are.
func (c *config) ways() (n int) {
	for _, set := range []bool{len(c.Keys) > 0, c.JWKSURL != "", c.DiscoveryURL != ""} {
		if set {
			n++
		}
	}
	return n
}

func (c *config) source() issuer.Source {
	switch {
	case c.DiscoveryURL != "":
		return issuer.Source{Discovery: issuer.Place{URL: c.DiscoveryURL, CA: c.DiscoveryCA}, Name: c.Issuer}
	case c.JWKSURL != "":
		return issuer.Source{JWKS: []issuer.Place{{URL: c.JWKSURL, CA: c.JWKSCA}}}
	}
	return issuer.Source{Keys: c.Keys}
}

func (m *Method) writeConfig(ctx context.Context, _ route.Caller, in WriteConfig) (out route.Empty, err error) {
	c := config{ID: uuid.NewString(), Settings: in.Settings, Reviewer: strings.TrimSpace(in.Reviewer.Reveal())}
	c.AnyIssuer = in.AnyIssuer == nil || bool(*in.AnyIssuer)
	c.Settings.NoOwn, c.Settings.Annotations, c.Settings.Offline = bool(in.NoOwn), bool(in.Annotations), bool(in.Offline)
	if err := c.check(); err != nil {
		return out, err
	}
	if c.ways() > 0 {
		i, err := issuer.New(c.source())
		if err != nil {
			return out, err
		}
		defer i.Close()
		if err := i.Check(ctx); err != nil && !bool(in.SkipCheck) {
			return out, fault.Wrap(fault.Invalid, err, "the cluster's keys cannot be fetched, and nothing was changed: %s", fault.From(err).Message)
		}
	}
	return out, m.config.Change(ctx, configKey, func(row *config) error { *row = c; return nil })
}

func (m *Method) readConfig(ctx context.Context, _ route.Caller, _ route.Nothing) (ReadConfig, error) {
	c, err := m.config.Find(ctx, configKey)
	if err != nil {
		return ReadConfig{}, err
	}
	if c == nil {
		return ReadConfig{}, route.Missing()
	}
	return ReadConfig{c.Settings, c.Reviewer != ""}, nil
}
