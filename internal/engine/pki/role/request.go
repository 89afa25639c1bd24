package role

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/fault"
)

// Request is what a certificate is asked to say.
type Request struct {
	CommonName   string
	AltNames     []string // DNS names and addresses of email
	IPs          []string
	URIs         []string
	Others       []string
	SerialNumber string // of the subject
	UserIDs      []string
	ExcludeCN    bool // leave the common name out of the alternative names
	TTL          time.Duration
	NotAfter     string
	// CSR is the signing request; nil where the key is made here.
	CSR *x509.CertificateRequest
	By  Asker
}

// Limits are what bounds the life of a certificate besides its role.
type Limits struct {
	DefaultTTL, MaxTTL time.Duration // of the mount
	Now                time.Time
}

// maxCSR is how long a signing request may be, in bytes of DER: one with an RSA key of
// 8192 bits and some hundred names fits.
const maxCSR = 64 << 10

// ParseCSR reads a signing request, in PEM or bare DER, and sees that whoever made it has
// its key.
func ParseCSR(text []byte) (*x509.CertificateRequest, error) {
	if len(text) == 0 {
		return nil, fault.New(fault.Invalid, `"csr" was empty`)
	}
	if len(text) > 2*maxCSR {
		return nil, fault.New(fault.Invalid, "the signing request is longer than %d bytes", maxCSR)
	}
	der := text
	if block, _ := pem.Decode(text); block != nil {
		if block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
			return nil, fault.New(fault.Invalid, "csr contains no data: its PEM block is no CERTIFICATE REQUEST")
		}
		der = block.Bytes
	} else if text[0] != 0x30 {
		return nil, fault.New(fault.Invalid, "csr contains no data: it is not PEM")
	}
	if len(der) > maxCSR {
		return nil, fault.New(fault.Invalid, "the signing request is longer than %d bytes", maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fault.New(fault.Invalid, "certificate request could not be parsed")
	}
	// The key is looked at before it is calculated with.
	if _, err := key.Of(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fault.New(fault.Invalid, "request signature invalid: it was not signed with its own key")
	}
	return csr, nil
}

// Result is what a request comes to.
type Result struct {
	// Template has everything but the serial number, the issuer and where the issuer is
	// found.
	Template *x509.Certificate
	Warnings []string
}

var oidUserID = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}

// Certificate makes the template of a certificate, or says what of the request the role
// does not allow.
func (r *Role) Certificate(in Request, public crypto.PublicKey, limits Limits) (*Result, error) {
	if in.CSR != nil {
		if err := r.Key().Admits(public); err != nil {
			return nil, err
		}
	} else if _, err := key.Of(public); err != nil {
		return nil, err
	}
	out := &Result{Template: &x509.Certificate{BasicConstraintsValid: r.BasicConstraints}}
	t := out.Template
	others, err := r.names(&in, t)
	if err != nil {
		return nil, err
	}
	if err := r.subject(&in, t); err != nil {
		return nil, err
	}
	if len(others) > 0 {
		e, err := sanExtension(t, others, t.Subject.String() == "")
		if err != nil {
			return nil, fault.New(fault.Invalid, "the alternative names cannot be written to a certificate")
		}
		t.ExtraExtensions = append(t.ExtraExtensions, e)
	}
	if t.KeyUsage, err = r.usage(); err != nil {
		return nil, err
	}
	if t.ExtKeyUsage, t.UnknownExtKeyUsage, err = r.extUsage(); err != nil {
		return nil, err
	}
	policy, err := policies(r.PolicyIdentifiers)
	if err != nil {
		return nil, err
	}
	if policy != nil {
		t.ExtraExtensions = append(t.ExtraExtensions, *policy)
	}
	if t.SubjectKeyId, err = key.ID(public); err != nil {
		return nil, err
	}
	return out, r.life(in, limits, out)
}

// names fills in the common name and the alternative names, and returns those that
// crypto/x509 has no field for.
func (r *Role) names(in *Request, t *x509.Certificate) ([]Other, error) {
	var w wanted
	if err := w.gather(r, in); err != nil {
		return nil, err
	}
	if w.count() > maxNames {
		return nil, fault.New(fault.Invalid, "more than %d names are asked for", maxNames)
	}
	if err := w.check(r, in.By); err != nil {
		return nil, err
	}
	t.Subject.CommonName = w.cn
	t.DNSNames, t.EmailAddresses, t.URIs = w.dns, w.mails, w.uris
	for _, ip := range w.ips {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
	}
	return w.others, nil
}

// wanted are the names that are asked for.
type wanted struct {
	cn         string
	dns, mails []string
	ips        []netip.Addr
	uris       []*url.URL
	others     []Other
}

func (w *wanted) count() int {
	return len(w.dns) + len(w.mails) + len(w.ips) + len(w.uris) + len(w.others)
}

// gather collects the names of the request, and of its CSR where the role has them
// count.
func (w *wanted) gather(r *Role, in *Request) error {
	w.cn = in.CommonName
	if in.CSR != nil && r.UseCSRCommonName && in.CSR.Subject.CommonName != "" {
		w.cn = in.CSR.Subject.CommonName
	}
	if w.cn == "" && r.RequireCN {
		return fault.New(fault.Invalid, `the common_name field is required, or must be provided in a CSR with "use_csr_common_name" set to true, unless "require_cn" is set to false`)
	}
	if err := w.collect(r, in); err != nil {
		return err
	}
	if w.cn != "" && !in.ExcludeCN {
		if strings.Contains(w.cn, "@") {
			w.mails = append(w.mails, w.cn)
		} else if n, ok := parse(w.cn); ok && n.wellFormed() {
			w.dns = append(w.dns, w.cn)
		}
	}
	for i, n := range w.dns {
		ascii, err := toASCII(n)
		if err != nil {
			return fault.New(fault.Invalid, "alt_names: %q is no DNS name", shown(n))
		}
		w.dns[i] = ascii
	}
	slices.Sort(w.dns)
	w.dns = slices.Compact(w.dns)
	slices.Sort(w.mails)
	w.mails = slices.Compact(w.mails)
	return nil
}

func (w *wanted) collect(r *Role, in *Request) error {
	if in.CSR != nil && r.UseCSRSANs {
		w.dns = append(w.dns, in.CSR.DNSNames...)
		w.mails = append(w.mails, in.CSR.EmailAddresses...)
		w.uris = append(w.uris, in.CSR.URIs...)
		for _, ip := range in.CSR.IPAddresses {
			a, ok := netip.AddrFromSlice(ip)
			if !ok {
				return fault.New(fault.Invalid, "the signing request holds an IP address of a wrong length")
			}
			w.ips = append(w.ips, a.Unmap())
		}
		var err error
		w.others, err = OthersOf(in.CSR.Extensions)
		return err
	}
	for _, n := range in.AltNames {
		if strings.Contains(n, "@") {
			w.mails = append(w.mails, n)
		} else {
			w.dns = append(w.dns, n)
		}
	}
	for _, text := range in.IPs {
		ip, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || ip.Zone() != "" {
			return fault.New(fault.Invalid, "the value %q is not a valid IP address", shown(text))
		}
		w.ips = append(w.ips, ip.Unmap())
	}
	for _, text := range in.URIs {
		u, err := ParseURI(text)
		if err != nil {
			return err
		}
		w.uris = append(w.uris, u)
	}
	if len(in.Others) > 0 && slices.Equal(in.Others, []string{"*"}) {
		return fault.New(fault.Invalid, "other_sans: * is no name")
	}
	var err error
	w.others, err = others(in.Others)
	return err
}

// toASCII is a DNS name as a certificate has it.
func toASCII(text string) (string, error) {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return strict.ToASCII(text)
		}
	}
	return text, nil
}

// check refuses what the role does not allow.
func (w *wanted) check(r *Role, by Asker) error {
	if err := plain("common_name", w.cn); err != nil {
		return err
	}
	if w.cn != "" && !r.allowsCN(w.cn, by) {
		return fault.New(fault.Invalid, "common name %s not allowed by this role", shown(w.cn))
	}
	for _, n := range w.dns {
		if err := plain("alt_names", n); err != nil {
			return err
		}
		if strings.Contains(n, "@") || !r.allows(n, by) {
			return fault.New(fault.Invalid, "subject alternate name %s not allowed by this role", shown(n))
		}
	}
	for _, n := range w.mails {
		if err := plain("alt_names", n); err != nil {
			return err
		}
		if !strings.Contains(n, "@") || !r.allows(n, by) {
			return fault.New(fault.Invalid, "email address %s not allowed by this role", shown(n))
		}
	}
	for _, ip := range w.ips {
		if !r.allowsIP(ip) {
			return fault.New(fault.Invalid, "IP Subject Alternative Name %s is not allowed by this role", ip)
		}
	}
	for _, u := range w.uris {
		text := u.String()
		if err := plain("uri_sans", text); err != nil {
			return err
		}
		if !r.allowsURI(text, by) {
			return fault.New(fault.Invalid, "URI Subject Alternative Name %s not allowed by this role", shown(text))
		}
	}
	for _, o := range w.others {
		if err := plain("other_sans", o.Value); err != nil {
			return err
		}
		if !r.allowsOther(o) {
			return fault.New(fault.Invalid, "other SAN %s not allowed for OID %s by this role", shown(o.Value), o.OID)
		}
	}
	return nil
}

// subject fills in the rest of the subject.
func (r *Role) subject(in *Request, t *x509.Certificate) error {
	number := in.SerialNumber
	if number == "" && in.CSR != nil && r.UseCSRCommonName {
		number = in.CSR.Subject.SerialNumber
	}
	if number != "" {
		if err := plain("serial_number", number); err != nil {
			return err
		}
		if !listed(r.SerialNumbers, number) {
			return fault.New(fault.Invalid, "serial_number %s not allowed by this role", shown(number))
		}
	}
	t.Subject = pkix.Name{
		CommonName: t.Subject.CommonName, SerialNumber: number, OrganizationalUnit: r.OU, Organization: r.Organization, Country: r.Country,
		Locality: r.Locality, Province: r.Province, StreetAddress: r.StreetAddress, PostalCode: r.PostalCode,
	}
	for _, id := range in.UserIDs {
		if err := plain("user_ids", id); err != nil {
			return err
		}
		if !listed(r.UserIDs, id) {
			return fault.New(fault.Invalid, "user_id %s is not allowed by this role", shown(id))
		}
		t.Subject.ExtraNames = append(t.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: oidUserID, Value: id})
	}
	return nil
}

// life fills in from when to when the certificate is good.
func (r *Role) life(in Request, limits Limits, out *Result) error {
	most := limits.MaxTTL
	if m := r.MaxTTL.Duration(); m > 0 && (m < most || most == 0) {
		most = m
	}
	until, warnings, err := Life(in.TTL, in.NotAfter, r.TTL.Duration(), r.NotAfter, most, limits)
	if err != nil {
		return err
	}
	out.Warnings = warnings
	out.Template.NotBefore = limits.Now.Add(-r.NotBefore.Duration()).UTC()
	out.Template.NotAfter = until
	return nil
}

// Life is until when a certificate is good: what is asked for, by a time or a TTL, or
// else the standard, bounded by most.
func Life(ttl time.Duration, notAfter string, standardTTL time.Duration, standard string, most time.Duration, limits Limits) (time.Time, []string, error) {
	if ttl < 0 {
		return time.Time{}, nil, fault.New(fault.Invalid, "ttl must not be negative")
	}
	if ttl > 0 && notAfter != "" {
		return time.Time{}, nil, fault.New(fault.Invalid, "either ttl or not_after should be provided. Both should not be provided in the same request")
	}
	if notAfter == "" && ttl == 0 {
		notAfter = standard
	}
	now := limits.Now
	bound := now.Add(most)
	if notAfter != "" {
		until, err := parseTime(notAfter)
		switch {
		case err != nil:
			return until, nil, err
		case !until.After(now):
			return until, nil, fault.New(fault.Invalid, "not_after: the time is past")
		case most > 0 && until.After(bound) && standard != notAfter:
			return bound.UTC(), []string{"not_after is later than the longest TTL that is permitted, which is used instead"}, nil
		}
		return until, nil, nil
	}
	if ttl == 0 {
		ttl = standardTTL
	}
	if ttl == 0 {
		ttl = limits.DefaultTTL
		if most > 0 {
			ttl = min(ttl, most)
		}
	}
	if most > 0 && ttl > most {
		return bound.UTC(), []string{"TTL " + ttl.String() + " is longer than permitted maxTTL " + most.String() + ", so maxTTL is being used"}, nil
	}
	return now.Add(ttl).UTC(), nil, nil
}
