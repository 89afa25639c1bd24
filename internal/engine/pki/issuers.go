package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var issuerRoutes = []route.Route[*Engine]{
	route.New("LIST", "issuers", "List the issuers.", (*Engine).listIssuers, route.Public(),
		route.Shows("issuers", "", "")),
	route.New("GET", "issuer/{issuer_ref}", "Read an issuer and how it is used.", (*Engine).readIssuer,
		route.Shows("issuer/default", "", "")),
	route.New("POST", "issuer/{issuer_ref}", "Change how an issuer is used; what is not given returns to the standard.", (*Engine).writeIssuer,
		route.Shows("issuer/default", `{"issuer_name":"root-2026","leaf_not_after_behavior":"truncate"}`, "")),
	route.New("PATCH", "issuer/{issuer_ref}", "Change some of how an issuer is used.", (*Engine).patchIssuer,
		route.Shows("issuer/default", `{"leaf_not_after_behavior":"truncate"}`, "")),
	route.New("DELETE", "issuer/{issuer_ref}", "Delete an issuer. Its key stays.", (*Engine).deleteIssuer,
		route.Shows("issuer/spare", "", "")),
	route.New("POST", "issuers/import/bundle", "Take over issuers and their keys.", (*Engine).importBundle,
		route.Shows("issuers/import/bundle", `{"pem_bundle":"-----BEGIN CERTIFICATE-----\n…"}`, "")),
	route.New("POST", "issuers/import/cert", "Take over issuers, without keys.", (*Engine).importCerts,
		route.Shows("issuers/import/cert", `{"pem_bundle":"-----BEGIN CERTIFICATE-----\n…"}`, "")),
	route.New("POST", "config/ca", "Take over an issuer and its key, as issuers/import/bundle does.", (*Engine).importBundle,
		route.Shows("config/ca", `{"pem_bundle":"-----BEGIN CERTIFICATE-----\n…"}`, "")),
	route.New("GET", "config/issuers", "Read which issuer is taken where none is named.", (*Engine).readDefaults,
		route.Shows("config/issuers", "", "")),
	route.New("POST", "config/issuers", "Say which issuer is taken where none is named.", (*Engine).writeDefaults,
		route.Shows("config/issuers", `{"default":"root-2026"}`, "")),
	route.New("POST", "root/replace", "Have another issuer be the one that is taken where none is named.", (*Engine).replaceRoot,
		route.Shows("root/replace", `{"default":"next"}`, "")),
}

// IssuerInfo is an issuer in a list.
type IssuerInfo struct {
	Name    string `json:"issuer_name"`
	Default bool   `json:"is_default"`
	Serial  string `json:"serial_number"`
	Key     string `json:"key_id"`
}

func (e *Engine) listIssuers(ctx context.Context, _ route.Caller, _ route.Page) (route.KeysInfo[IssuerInfo], error) {
	out := route.KeysInfo[IssuerInfo]{Info: map[string]IssuerInfo{}}
	b, err := e.book(ctx)
	if err != nil {
		return out, err
	}
	for _, i := range b.Issuers {
		out.Keys = append(out.Keys, i.ID)
		out.Info[i.ID] = IssuerInfo{i.Name, i.ID == b.DefaultIssuer, serialOf(i.cert), i.Key}
	}
	if len(out.Keys) == 0 {
		return out, route.Missing()
	}
	slices.Sort(out.Keys)
	return out, nil
}

// IssuerRef names an issuer.
type IssuerRef struct {
	Ref string `path:"issuer_ref" doc:"The issuer: its id, its name, or default."`
}

// Issuer is an issuer in Vault's shape.
type Issuer struct {
	route.Notes
	ID           string       `json:"issuer_id"`
	Name         string       `json:"issuer_name"`
	Key          string       `json:"key_id"`
	Certificate  string       `json:"certificate"`
	Manual       []string     `json:"manual_chain"`
	Chain        wire.Strings `json:"ca_chain"`
	Behavior     string       `json:"leaf_not_after_behavior"`
	Usage        string       `json:"usage"`
	CRLAlgorithm string       `json:"revocation_signature_algorithm"`
	Revoked      bool         `json:"revoked"`
	RevokedAt    int64        `json:"revocation_time,omitempty"`
	RevokedTime  *time.Time   `json:"revocation_time_rfc3339,omitempty"`
	Issuing      wire.Strings `json:"issuing_certificates"`
	CRL          wire.Strings `json:"crl_distribution_points"`
	OCSP         wire.Strings `json:"ocsp_servers"`
	Templates    bool         `json:"enable_aia_url_templating"`
}

func (i *issuer) shown() Issuer {
	out := Issuer{
		ID: i.ID, Name: i.Name, Key: i.Key, Certificate: pemOf(i.Certificate) + "\n", Manual: i.Manual, Behavior: i.Behavior, Usage: strings.Join(i.Usage, ","), CRLAlgorithm: i.CRLAlgorithm,
		Issuing: i.URLs.Issuing, CRL: i.URLs.CRL, OCSP: i.URLs.OCSP, Templates: i.URLs.Templates,
	}
	for _, c := range i.chain {
		out.Chain = append(out.Chain, pemOf(c.Certificate)+"\n")
	}
	if !i.Revoked.IsZero() {
		at := i.Revoked
		out.Revoked, out.RevokedAt, out.RevokedTime = true, at.Unix(), &at
	}
	return out
}

func (e *Engine) readIssuer(ctx context.Context, _ route.Caller, in IssuerRef) (Issuer, error) {
	b, err := e.book(ctx)
	if err != nil {
		return Issuer{}, err
	}
	i, err := b.find(in.Ref)
	if err != nil {
		return Issuer{}, err
	}
	return i.shown(), nil
}

// WriteIssuer changes how an issuer is used.
type WriteIssuer struct {
	IssuerRef
	Name         *string       `json:"issuer_name" doc:"A name for it."`
	Behavior     *string       `json:"leaf_not_after_behavior" doc:"Of certificates that would outlive it: err refuses them, truncate shortens them, permit lets them be; always_enforce_err refuses those of authorities, too."`
	Usage        *wire.Strings `json:"usage" doc:"What it is used for: read-only, issuing-certificates, crl-signing, ocsp-signing."`
	Manual       *wire.Strings `json:"manual_chain" doc:"Ids or names of the issuers of its chain, itself first; worked out unless given."`
	CRLAlgorithm *string       `json:"revocation_signature_algorithm" doc:"How its lists and answers are signed, such as SHA256WithRSAPSS; what suits its key unless given."`
	Issuing      *wire.Strings `json:"issuing_certificates" doc:"URLs of its certificate, for the certificates that it signs; those of config/urls unless any of these three is given."`
	CRL          *wire.Strings `json:"crl_distribution_points" doc:"URLs of its list of revoked certificates."`
	OCSP         *wire.Strings `json:"ocsp_servers" doc:"URLs of its OCSP responder."`
	Templates    *wire.Bool    `json:"enable_aia_url_templating" doc:"Fill {{issuer_id}}, {{cluster_path}} and {{cluster_aia_path}} in in these URLs."`
}

func (e *Engine) patchIssuer(ctx context.Context, _ route.Caller, in WriteIssuer) (out Issuer, err error) {
	err = e.change(ctx, func(_ engine.Txn, b *book) error {
		i, err := b.find(in.Ref)
		if err != nil {
			return err
		}
		if err := in.apply(b, i); err != nil {
			return err
		}
		i.chain = b.chainOf(i)
		out = i.shown()
		return nil
	})
	return out, err
}

func (e *Engine) writeIssuer(ctx context.Context, by route.Caller, in WriteIssuer) (Issuer, error) {
	standard(&in.Name, "")
	standard(&in.Behavior, behaviorErr)
	standard(&in.Usage, wire.Strings(allUsages))
	standard(&in.Manual, nil)
	standard(&in.CRLAlgorithm, "")
	standard(&in.Issuing, nil)
	standard(&in.CRL, nil)
	standard(&in.OCSP, nil)
	standard(&in.Templates, false)
	return e.patchIssuer(ctx, by, in)
}

// standard has a field that is not given be what is meant then.
func standard[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func (in WriteIssuer) apply(b *book, i *issuer) error {
	if in.Name != nil {
		if err := b.freeIssuerName(*in.Name, i.ID); err != nil {
			return err
		}
		i.Name = *in.Name
	}
	rows.Set(&i.Behavior, in.Behavior)
	if !slices.Contains([]string{behaviorErr, behaviorTruncate, behaviorPermit, behaviorAlways}, i.Behavior) {
		return fault.New(fault.Invalid, "leaf_not_after_behavior is err, truncate, permit or always_enforce_err, not %q", shown(i.Behavior))
	}
	if err := in.usage(i); err != nil {
		return err
	}
	if in.CRLAlgorithm != nil {
		i.CRLAlgorithm = *in.CRLAlgorithm
		if _, err := listAlgorithm(i); err != nil {
			return err
		}
	}
	rows.Set(&i.URLs.Issuing, in.Issuing)
	rows.Set(&i.URLs.CRL, in.CRL)
	rows.Set(&i.URLs.OCSP, in.OCSP)
	rows.Set((*wire.Bool)(&i.URLs.Templates), in.Templates)
	if err := i.URLs.check(); err != nil {
		return err
	}
	if in.Manual == nil {
		return nil
	}
	i.Manual = nil
	for n, ref := range *in.Manual {
		if ref == "self" {
			ref = i.ID
		}
		of, err := b.find(ref)
		if err != nil {
			return err
		}
		if n == 0 && of != i {
			return fault.New(fault.Invalid, "manual_chain begins with the issuer itself")
		}
		i.Manual = append(i.Manual, of.ID)
	}
	return nil
}

func (in WriteIssuer) usage(i *issuer) error {
	if in.Usage == nil {
		return nil
	}
	i.Usage = []string{usageRead}
	for _, u := range *in.Usage {
		if !slices.Contains(allUsages, u) {
			return fault.New(fault.Invalid, "usage: there is no %q; there are %s", shown(u), strings.Join(allUsages, ", "))
		}
		if !slices.Contains(i.Usage, u) {
			i.Usage = append(i.Usage, u)
		}
	}
	if i.may(usageIssue) && !i.Revoked.IsZero() {
		return fault.New(fault.Invalid, "the issuer is revoked, and issues no more")
	}
	if i.may(usageCRL) && i.cert.KeyUsage != 0 && i.cert.KeyUsage&x509.KeyUsageCRLSign == 0 {
		if !slices.Equal(*in.Usage, allUsages) {
			return fault.New(fault.Invalid, "usage: the issuer's certificate does not let it sign lists (its key usage has no CRLSign)")
		}
		i.Usage = slices.DeleteFunc(slices.Clone(i.Usage), func(u string) bool { return u == usageCRL })
	}
	return nil
}

// check refuses what is no list of URLs.
func (a addresses) check() error {
	for name, list := range map[string][]string{"issuing_certificates": a.Issuing, "crl_distribution_points": a.CRL, "ocsp_servers": a.OCSP} {
		for _, text := range list {
			if len(text) > 2048 || len(list) > 50 {
				return fault.New(fault.Invalid, "%s: it is too long", name)
			}
			if a.Templates && strings.Contains(text, "{{") {
				text = strings.NewReplacer("{{cluster_path}}", "https://example.com", "{{cluster_aia_path}}", "https://example.com", "{{issuer_id}}", "id").Replace(text)
			}
			if u, err := url.Parse(text); err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "" && u.Path == "" || strings.Contains(text, "{{") {
				return fault.New(fault.Invalid, "invalid URL found in %s: %s", name, shown(text))
			}
		}
	}
	return nil
}

func (e *Engine) deleteIssuer(ctx context.Context, _ route.Caller, in IssuerRef) (out route.Empty, err error) {
	err = e.change(ctx, func(_ engine.Txn, b *book) error {
		out = route.Empty{}
		i, err := b.find(in.Ref)
		if err != nil {
			return err
		}
		b.Issuers = slices.DeleteFunc(b.Issuers, func(o *issuer) bool { return o == i })
		for _, o := range b.Issuers {
			o.Manual = slices.DeleteFunc(o.Manual, func(id string) bool { return id == i.ID })
		}
		if b.DefaultIssuer == i.ID {
			b.DefaultIssuer = ""
			out.Warn("Deleted the default issuer: config/issuers names another")
		}
		return nil
	})
	return out, err
}

// Import takes over issuers.
type Import struct {
	Bundle wire.Secret `json:"pem_bundle" doc:"Certificates, and keys that are not encrypted, in PEM."`
}

// Imported says what was taken over.
type Imported struct {
	route.Notes
	Issuers         wire.Strings      `json:"imported_issuers"`
	Keys            wire.Strings      `json:"imported_keys"`
	ExistingIssuers wire.Strings      `json:"existing_issuers"`
	ExistingKeys    wire.Strings      `json:"existing_keys"`
	Mapping         map[string]string `json:"mapping"`
}

func (e *Engine) importBundle(ctx context.Context, _ route.Caller, in Import) (Imported, error) {
	return e.take(ctx, in.Bundle.Reveal(), true)
}

func (e *Engine) importCerts(ctx context.Context, _ route.Caller, in Import) (Imported, error) {
	return e.take(ctx, in.Bundle.Reveal(), false)
}

// bundle is what a text of PEM holds.
type bundle struct {
	certs []*x509.Certificate
	keys  []crypto.Signer
}

// parseBundle reads a text of PEM. Parameters of a curve, which openssl writes before
// a key, are passed over.
func parseBundle(text string, keys bool) (b bundle, err error) {
	// Files that end without a newline, put one behind the other.
	rest := []byte(strings.ReplaceAll(text, "----------BEGIN ", "-----\n-----BEGIN "))
	for blocks := 0; ; blocks++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if blocks == 50 {
			return b, fault.New(fault.Invalid, "pem_bundle: at most 50 blocks are taken at once")
		}
		switch block.Type {
		case "EC PARAMETERS":
		case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return b, fault.New(fault.Invalid, "pem_bundle: a certificate cannot be read")
			}
			if !c.BasicConstraintsValid || !c.IsCA {
				return b, fault.New(fault.Invalid, "refusing to import non-CA certificate: it may not sign others")
			}
			if _, err := key.Of(c.PublicKey); err != nil {
				return b, err
			}
			b.certs = append(b.certs, c)
		default:
			if !keys {
				return b, fault.New(fault.Invalid, "private keys found in the PEM bundle but not allowed by the path; use issuers/import/bundle")
			}
			s, err := key.Parse(block)
			if err != nil {
				return b, err
			}
			b.keys = append(b.keys, s)
		}
	}
	if len(b.certs)+len(b.keys) == 0 {
		return b, fault.New(fault.Invalid, "pem_bundle holds no certificate and no key in PEM")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return b, fault.New(fault.Invalid, "pem_bundle: what follows its last block is no PEM")
	}
	return b, nil
}

// take takes over what a text of PEM holds.
func (e *Engine) take(ctx context.Context, text string, keys bool) (out Imported, err error) {
	parsed, err := parseBundle(text, keys)
	if err != nil {
		return out, err
	}
	err = e.change(ctx, func(t engine.Txn, b *book) error {
		out = Imported{Mapping: map[string]string{}}
		for _, s := range parsed.keys {
			k, existed, err := b.addKey(t, "", s)
			if err != nil {
				return err
			}
			if existed {
				out.ExistingKeys = append(out.ExistingKeys, k.ID)
			} else {
				out.Keys = append(out.Keys, k.ID)
			}
		}
		for _, c := range parsed.certs {
			i, existed, err := b.addIssuer(t, "", c)
			if err != nil {
				return err
			}
			if existed {
				out.ExistingIssuers = append(out.ExistingIssuers, i.ID)
			} else {
				out.Issuers = append(out.Issuers, i.ID)
			}
			out.Mapping[i.ID] = i.Key
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	return out, e.first(ctx)
}

// Defaults says which issuer is taken where none is named.
type Defaults struct {
	Default string `json:"default"`
	Follows bool   `json:"default_follows_latest_issuer"`
}

// WriteDefaults changes it.
type WriteDefaults struct {
	Default string     `json:"default" doc:"The issuer's id or name."`
	Follows *wire.Bool `json:"default_follows_latest_issuer" doc:"Have every new issuer that has a key be the default."`
}

func (e *Engine) readDefaults(ctx context.Context, _ route.Caller, _ route.Nothing) (Defaults, error) {
	b, err := e.book(ctx)
	if err != nil {
		return Defaults{}, err
	}
	return Defaults{b.DefaultIssuer, b.FollowLatest}, nil
}

func (e *Engine) writeDefaults(ctx context.Context, _ route.Caller, in WriteDefaults) (out Defaults, err error) {
	if in.Default == byDefault || in.Default == "" && in.Follows == nil {
		return out, fault.New(fault.Invalid, "default: name the issuer's id or name")
	}
	err = e.change(ctx, func(_ engine.Txn, b *book) error {
		if in.Default != "" {
			i, err := b.find(in.Default)
			if err != nil {
				return err
			}
			b.DefaultIssuer = i.ID
		}
		rows.Set((*wire.Bool)(&b.FollowLatest), in.Follows)
		out = Defaults{b.DefaultIssuer, b.FollowLatest}
		return nil
	})
	return out, err
}

// ReplaceRoot names the issuer that is to be the default.
type ReplaceRoot struct {
	Default string `json:"default" doc:"The issuer's id or name; next unless given."`
}

func (e *Engine) replaceRoot(ctx context.Context, by route.Caller, in ReplaceRoot) (Defaults, error) {
	if in.Default == "" {
		in.Default = "next"
	}
	return e.writeDefaults(ctx, by, WriteDefaults{Default: in.Default})
}
