// Package role is what a role of a certificate authority allows, and what it makes
// of a request: the template of a certificate that never says more than the role
// does. It keeps nothing and signs nothing.
package role

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
)

// Role is a role, in Vault's shape.
type Role struct {
	Issuer string       `json:"issuer_ref"`
	TTL    wire.Seconds `json:"ttl"`
	MaxTTL wire.Seconds `json:"max_ttl"`

	AllowLocalhost    bool         `json:"allow_localhost"`
	Domains           wire.Strings `json:"allowed_domains"`
	DomainsTemplate   bool         `json:"allowed_domains_template"`
	BareDomains       bool         `json:"allow_bare_domains"`
	Subdomains        bool         `json:"allow_subdomains"`
	GlobDomains       bool         `json:"allow_glob_domains"`
	Wildcards         bool         `json:"allow_wildcard_certificates"`
	AnyName           bool         `json:"allow_any_name"`
	TokenDisplayName  bool         `json:"allow_token_displayname"`
	EnforceHostnames  bool         `json:"enforce_hostnames"`
	IPSANs            bool         `json:"allow_ip_sans"`
	IPRanges          wire.Strings `json:"allowed_ip_sans_cidr"`
	URISANs           wire.Strings `json:"allowed_uri_sans"`
	URISANsTemplate   bool         `json:"allowed_uri_sans_template"`
	OtherSANs         wire.Strings `json:"allowed_other_sans"`
	SerialNumbers     wire.Strings `json:"allowed_serial_numbers"`
	UserIDs           wire.Strings `json:"allowed_user_ids"`
	RequireCN         bool         `json:"require_cn"`
	CNValidations     wire.Strings `json:"cn_validations"`
	UseCSRCommonName  bool         `json:"use_csr_common_name"`
	UseCSRSANs        bool         `json:"use_csr_sans"`
	ServerFlag        bool         `json:"server_flag"`
	ClientFlag        bool         `json:"client_flag"`
	CodeSigningFlag   bool         `json:"code_signing_flag"`
	EmailFlag         bool         `json:"email_protection_flag"`
	KeyType           string       `json:"key_type"`
	KeyBits           wire.Int     `json:"key_bits"`
	SignatureBits     wire.Int     `json:"signature_bits"`
	PSS               bool         `json:"use_pss"`
	KeyUsage          wire.Strings `json:"key_usage"`
	ExtKeyUsage       wire.Strings `json:"ext_key_usage"`
	ExtKeyUsageOIDs   wire.Strings `json:"ext_key_usage_oids"`
	OU                wire.Strings `json:"ou"`
	Organization      wire.Strings `json:"organization"`
	Country           wire.Strings `json:"country"`
	Locality          wire.Strings `json:"locality"`
	Province          wire.Strings `json:"province"`
	StreetAddress     wire.Strings `json:"street_address"`
	PostalCode        wire.Strings `json:"postal_code"`
	GenerateLease     bool         `json:"generate_lease"`
	NoStore           bool         `json:"no_store"`
	PolicyIdentifiers wire.Strings `json:"policy_identifiers"`
	BasicConstraints  bool         `json:"basic_constraints_valid_for_non_ca"`
	NotBefore         wire.Seconds `json:"not_before_duration"`
	NotAfter          string       `json:"not_after"`
}

// New returns a role as it is where nothing is said of it.
func New() Role {
	return Role{
		Issuer: "default", AllowLocalhost: true, Wildcards: true, EnforceHostnames: true, IPSANs: true, RequireCN: true, UseCSRCommonName: true, UseCSRSANs: true,
		ServerFlag: true, ClientFlag: true, KeyType: key.RSA, KeyUsage: wire.Strings{"DigitalSignature", "KeyAgreement", "KeyEncipherment"},
		CNValidations: wire.Strings{"email", "hostname"}, NotBefore: wire.Seconds(30 * time.Second),
	}
}

// Verbatim returns the role that sign-verbatim has where none is named: whatever
// the request asks for, but for the authority to sign others.
func Verbatim() Role {
	r := New()
	r.AnyName, r.EnforceHostnames, r.RequireCN = true, false, false
	r.URISANs, r.OtherSANs, r.UserIDs, r.SerialNumbers = wire.Strings{"*"}, wire.Strings{"*"}, wire.Strings{"*"}, wire.Strings{"*"}
	r.KeyType, r.CNValidations, r.ServerFlag, r.ClientFlag = key.Any, wire.Strings{"disabled"}, false, false
	return r
}

// maxItems is how many items a list of a role has at most.
const maxItems = 1000

// Check refuses a role that can sign nothing, or that says what nobody can mean,
// and fills in what follows from the rest.
func (r *Role) Check() error {
	k, err := r.Key().Complete()
	if err != nil {
		return err
	}
	if r.KeyType = k.Type; k.Type != key.Any {
		r.KeyBits = wire.Int(k.Bits)
	}
	if err := key.CheckBits(int(r.SignatureBits)); err != nil {
		return err
	}
	for name, list := range r.lists() {
		if len(list) > maxItems {
			return fault.New(fault.Invalid, "%s: at most %d items are accepted", name, maxItems)
		}
	}
	switch {
	case r.TTL < 0 || r.MaxTTL < 0 || r.NotBefore < 0:
		return fault.New(fault.Invalid, "ttl, max_ttl and not_before_duration must not be negative")
	case r.MaxTTL > 0 && r.TTL > r.MaxTTL:
		return fault.New(fault.Invalid, `"ttl" value must be less than "max_ttl" value`)
	case r.NoStore && r.GenerateLease:
		return fault.New(fault.Invalid, "generate_lease needs what no_store leaves out: a lease revokes a certificate that is kept")
	}
	if r.NotAfter != "" {
		if _, err := parseTime(r.NotAfter); err != nil {
			return err
		}
	}
	for _, v := range r.CNValidations {
		if !slices.Contains([]string{"email", "hostname", "disabled"}, v) {
			return fault.New(fault.Invalid, "cn_validations: %q is none of email, hostname, disabled", v)
		}
	}
	if slices.Contains(r.CNValidations, "disabled") && len(r.CNValidations) > 1 {
		return fault.New(fault.Invalid, "cn_validations: disabled stands alone")
	}
	if r.IPRanges, err = ranges(r.IPRanges); err != nil {
		return err
	}
	if _, err := others(r.OtherSANs); err != nil {
		return err
	}
	if _, err := r.usage(); err != nil {
		return err
	}
	if _, _, err := r.extUsage(); err != nil {
		return err
	}
	_, err = policies(r.PolicyIdentifiers)
	return err
}

func (r *Role) lists() map[string]wire.Strings {
	return map[string]wire.Strings{
		"allowed_domains": r.Domains, "allowed_ip_sans_cidr": r.IPRanges, "allowed_uri_sans": r.URISANs, "allowed_other_sans": r.OtherSANs,
		"allowed_serial_numbers": r.SerialNumbers, "allowed_user_ids": r.UserIDs, "key_usage": r.KeyUsage, "ext_key_usage": r.ExtKeyUsage,
		"ext_key_usage_oids": r.ExtKeyUsageOIDs, "policy_identifiers": r.PolicyIdentifiers, "ou": r.OU, "organization": r.Organization,
		"country": r.Country, "locality": r.Locality, "province": r.Province, "street_address": r.StreetAddress, "postal_code": r.PostalCode,
	}
}

// Key is the kind of key that the role is for.
func (r *Role) Key() key.Kind { return key.Kind{Type: r.KeyType, Bits: int(r.KeyBits)} }

// ranges checks networks and writes them in their usual form.
func ranges(list wire.Strings) (wire.Strings, error) {
	var out wire.Strings
	for _, text := range list {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fault.New(fault.Invalid, "allowed_ip_sans_cidr: %q is not a network such as 10.0.0.0/8", shown(text))
		}
		out = append(out, p.Masked().String())
	}
	return out, nil
}

// parseTime reads not_after.
func parseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fault.New(fault.Invalid, "not_after: it is not a time in UTC such as 2030-12-31T23:59:59Z")
	}
	return t.UTC(), nil
}

// shown is text of a request as it is fit to be repeated.
func shown(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
