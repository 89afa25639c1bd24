package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/engine/pki/role"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
)

// Subject is what an authority is called.
type Subject struct {
	CommonName    string       `json:"common_name" doc:"The common name of the subject."`
	AltNames      wire.Strings `json:"alt_names" doc:"Alternative DNS names and addresses of email."`
	IPSANs        wire.Strings `json:"ip_sans" doc:"Alternative IP addresses."`
	URISANs       wire.Strings `json:"uri_sans" doc:"Alternative URIs."`
	ExcludeCN     wire.Bool    `json:"exclude_cn_from_sans" doc:"Leave the common name out of the alternative names."`
	OU            wire.Strings `json:"ou" doc:"Organizational units of the subject."`
	Organization  wire.Strings `json:"organization" doc:"Organizations of the subject."`
	Country       wire.Strings `json:"country" doc:"Countries of the subject."`
	Locality      wire.Strings `json:"locality" doc:"Localities of the subject."`
	Province      wire.Strings `json:"province" doc:"Provinces of the subject."`
	StreetAddress wire.Strings `json:"street_address" doc:"Street addresses of the subject."`
	PostalCode    wire.Strings `json:"postal_code" doc:"Postal codes of the subject."`
	SerialNumber  string       `json:"serial_number" doc:"The serial number of the subject; that of the certificate is made here."`
}

// Life is how long an authority is good, and what it may sign.
type Life struct {
	TTL               wire.Seconds `json:"ttl" doc:"How long it is good; the mount's longest unless given."`
	NotAfter          string       `json:"not_after" doc:"Until when it is good, in place of a ttl: 2040-12-31T23:59:59Z."`
	NotBefore         wire.Seconds `json:"not_before_duration" doc:"How long before now it begins, 30s unless given."`
	MaxPathLength     *wire.Int    `json:"max_path_length" doc:"How many authorities may stand between it and what is certified; -1 is any."`
	PermittedDNS      wire.Strings `json:"permitted_dns_domains" doc:"Domains that it may certify names in; all unless given."`
	ExcludedDNS       wire.Strings `json:"excluded_dns_domains" doc:"Domains that it may not certify names in."`
	PermittedIP       wire.Strings `json:"permitted_ip_ranges" doc:"Networks that it may certify addresses of."`
	ExcludedIP        wire.Strings `json:"excluded_ip_ranges" doc:"Networks that it may not certify addresses of."`
	PermittedEmail    wire.Strings `json:"permitted_email_addresses" doc:"Addresses of email that it may certify."`
	ExcludedEmail     wire.Strings `json:"excluded_email_addresses" doc:"Addresses of email that it may not certify."`
	PermittedURI      wire.Strings `json:"permitted_uri_domains" doc:"Domains that it may certify URIs of."`
	ExcludedURI       wire.Strings `json:"excluded_uri_domains" doc:"Domains that it may not certify URIs of."`
	SignatureBits     wire.Int     `json:"signature_bits" doc:"Bits of the hash that an RSA key signs with; what suits the key unless given."`
	PSS               wire.Bool    `json:"use_pss" doc:"Have an RSA key sign by PSS."`
	PolicyIdentifiers wire.Strings `json:"policy_identifiers" doc:"Policies that the certificate names."`
}

// Form is how things are answered.
type Form struct {
	Format        string `json:"format" doc:"pem unless given, der or pem_bundle."`
	PrivateFormat string `json:"private_key_format" doc:"der unless given, which is the key's own form in PEM where the format is, or pkcs8."`
}

// MakeKey says which key an authority has.
type MakeKey struct {
	KeyType string   `json:"key_type" doc:"rsa unless given, ec or ed25519."`
	KeyBits wire.Int `json:"key_bits" doc:"Its size: 2048 of RSA and 256 of EC unless given."`
	KeyName string   `json:"key_name" doc:"A name for the key."`
	KeyRef  string   `json:"key_ref" doc:"With existing: the key that is taken, by id or name."`
}

func (in Subject) name() (pkix.Name, error) {
	for _, list := range []wire.Strings{{in.CommonName, in.SerialNumber}, in.OU, in.Organization, in.Country, in.Locality, in.Province, in.StreetAddress, in.PostalCode} {
		for _, text := range list {
			if err := role.CheckText(text); err != nil {
				return pkix.Name{}, err
			}
		}
	}
	return pkix.Name{
		CommonName: in.CommonName, SerialNumber: in.SerialNumber, OrganizationalUnit: in.OU, Organization: in.Organization, Country: in.Country,
		Locality: in.Locality, Province: in.Province, StreetAddress: in.StreetAddress, PostalCode: in.PostalCode,
	}, nil
}

// names are alternative names.
type names struct {
	dns, mails []string
	ips        []net.IP
	uris       []*url.URL
}

func (in Subject) names() (out names, err error) {
	all := in.AltNames
	if in.CommonName != "" && !bool(in.ExcludeCN) && role.IsHostname(in.CommonName) {
		all = append(wire.Strings{in.CommonName}, all...)
	}
	for _, n := range all {
		if err := role.CheckText(n); err != nil {
			return out, err
		}
		if strings.Contains(n, "@") {
			out.mails = append(out.mails, n)
		} else {
			out.dns = append(out.dns, n)
		}
	}
	for _, text := range in.IPSANs {
		ip, err := netip.ParseAddr(text)
		if err != nil || ip.Zone() != "" {
			return out, fault.New(fault.Invalid, "the value %q is not a valid IP address", shown(text))
		}
		out.ips = append(out.ips, ip.Unmap().AsSlice())
	}
	for _, text := range in.URISANs {
		u, err := role.ParseURI(text)
		if err != nil {
			return out, err
		}
		out.uris = append(out.uris, u)
	}
	return out, nil
}

// maxLife is how long an authority may be good: the mount's longest, unless an end is
// named outright.
func (in Life) until(l role.Limits) (time.Time, []string, error) {
	most := l.MaxTTL
	if in.NotAfter != "" {
		most = 0
	}
	return role.Life(in.TTL.Duration(), in.NotAfter, l.MaxTTL, "", most, l)
}

// template is an authority's certificate to be signed, but for its subject and key.
func (in Life) template(l role.Limits) (t *x509.Certificate, warnings []string, err error) {
	t = &x509.Certificate{IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	if t.NotAfter, warnings, err = in.until(l); err != nil {
		return nil, nil, err
	}
	before := in.NotBefore.Duration()
	if before == 0 {
		before = 30 * time.Second
	}
	if before < 0 {
		return nil, nil, fault.New(fault.Invalid, "not_before_duration must not be negative")
	}
	t.NotBefore = l.Now.Add(-before).UTC()
	if in.MaxPathLength != nil {
		n := int(*in.MaxPathLength)
		if n < -1 || n > 100 {
			return nil, nil, fault.New(fault.Invalid, "max_path_length is -1 for any, or 0 to 100")
		}
		t.MaxPathLen, t.MaxPathLenZero = n, n == 0
	}
	if err := key.CheckBits(int(in.SignatureBits)); err != nil {
		return nil, nil, err
	}
	policies, err := role.Policies(in.PolicyIdentifiers)
	if err != nil {
		return nil, nil, err
	}
	if policies != nil {
		t.ExtraExtensions = append(t.ExtraExtensions, *policies)
	}
	return t, warnings, in.constrain(t)
}

// constrain fills in the name constraints.
func (in Life) constrain(t *x509.Certificate) (err error) {
	t.PermittedDNSDomains, t.ExcludedDNSDomains = in.PermittedDNS, in.ExcludedDNS
	t.PermittedEmailAddresses, t.ExcludedEmailAddresses = in.PermittedEmail, in.ExcludedEmail
	t.PermittedURIDomains, t.ExcludedURIDomains = in.PermittedURI, in.ExcludedURI
	if t.PermittedIPRanges, err = networks(in.PermittedIP); err != nil {
		return err
	}
	t.ExcludedIPRanges, err = networks(in.ExcludedIP)
	t.PermittedDNSDomainsCritical = len(in.PermittedDNS)+len(in.ExcludedDNS)+len(in.PermittedEmail)+len(in.ExcludedEmail)+
		len(in.PermittedURI)+len(in.ExcludedURI)+len(in.PermittedIP)+len(in.ExcludedIP) > 0
	return err
}

func networks(list []string) (out []*net.IPNet, err error) {
	for _, text := range list {
		_, n, err := net.ParseCIDR(text)
		if err != nil {
			return nil, fault.New(fault.Invalid, "%q is not a network such as 10.0.0.0/8", shown(text))
		}
		out = append(out, n)
	}
	return out, nil
}

// name gives the certificate its subject.
func (in Subject) to(t *x509.Certificate) (err error) {
	if t.Subject, err = in.name(); err != nil {
		return err
	}
	n, err := in.names()
	t.DNSNames, t.EmailAddresses, t.IPAddresses, t.URIs = n.dns, n.mails, n.ips, n.uris
	return err
}

// key makes or finds the key that an authority is to have.
func (e *Engine) keyFor(ctx context.Context, how string, in MakeKey) (crypto.Signer, error) {
	if err := checkExported(how, existing); err != nil {
		return nil, err
	}
	if how != existing {
		return key.Kind{Type: in.KeyType, Bits: int(in.KeyBits)}.Generate()
	}
	b, err := e.book(ctx)
	if err != nil {
		return nil, err
	}
	k, err := b.findKey(in.KeyRef)
	if err != nil {
		return nil, err
	}
	return e.signer(ctx, k.ID)
}

// private is a key as it is answered, "" unless it is to be.
func private(how string, s crypto.Signer, f Form) (wire.Secret, string, error) {
	if how != exported {
		return "", "", nil
	}
	kind, err := key.Of(s.Public())
	if err != nil {
		return "", "", err
	}
	out, err := key.Encode(s, f.Format, f.PrivateFormat)
	return wire.Secret(out), kind.Type, err
}

func base64Of(der []byte) string { return base64.StdEncoding.EncodeToString(der) }
