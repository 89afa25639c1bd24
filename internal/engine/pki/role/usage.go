package role

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
)

var usages = map[string]x509.KeyUsage{
	"digitalsignature": x509.KeyUsageDigitalSignature, "contentcommitment": x509.KeyUsageContentCommitment, "nonrepudiation": x509.KeyUsageContentCommitment,
	"keyencipherment": x509.KeyUsageKeyEncipherment, "dataencipherment": x509.KeyUsageDataEncipherment, "keyagreement": x509.KeyUsageKeyAgreement,
	"encipheronly": x509.KeyUsageEncipherOnly, "decipheronly": x509.KeyUsageDecipherOnly,
	"certsign": x509.KeyUsageCertSign, "crlsign": x509.KeyUsageCRLSign,
}

// authority are the usages of those who sign certificates and lists, which nobody
// gets through a role.
const authority = x509.KeyUsageCertSign | x509.KeyUsageCRLSign

var extUsages = map[string]x509.ExtKeyUsage{
	"any": x509.ExtKeyUsageAny, "serverauth": x509.ExtKeyUsageServerAuth, "clientauth": x509.ExtKeyUsageClientAuth, "codesigning": x509.ExtKeyUsageCodeSigning,
	"emailprotection": x509.ExtKeyUsageEmailProtection, "ipsecendsystem": x509.ExtKeyUsageIPSECEndSystem, "ipsectunnel": x509.ExtKeyUsageIPSECTunnel,
	"ipsecuser": x509.ExtKeyUsageIPSECUser, "timestamping": x509.ExtKeyUsageTimeStamping, "ocspsigning": x509.ExtKeyUsageOCSPSigning,
	"microsoftservergatedcrypto": x509.ExtKeyUsageMicrosoftServerGatedCrypto, "netscapeservergatedcrypto": x509.ExtKeyUsageNetscapeServerGatedCrypto,
	"microsoftcommercialcodesigning": x509.ExtKeyUsageMicrosoftCommercialCodeSigning, "microsoftkernelcodesigning": x509.ExtKeyUsageMicrosoftKernelCodeSigning,
}

// KeyUsage reads names of usages such as DigitalSignature.
func KeyUsage(names []string) (out x509.KeyUsage, err error) {
	for _, name := range names {
		u, ok := usages[strings.TrimPrefix(strings.ToLower(strings.TrimSpace(name)), "keyusage")]
		if !ok && name != "" {
			return 0, fault.New(fault.Invalid, "key_usage: there is no usage %q; write for example DigitalSignature", shown(name))
		}
		out |= u
	}
	return out, nil
}

func (r *Role) usage() (x509.KeyUsage, error) {
	u, err := KeyUsage(r.KeyUsage)
	if err == nil && u&authority != 0 {
		err = fault.New(fault.Invalid, "key_usage: a role gives neither CertSign nor CRLSign; root/sign-intermediate makes those who sign")
	}
	return u, err
}

// extUsage are the extended usages of what the role signs.
func (r *Role) extUsage() (out []x509.ExtKeyUsage, oids []asn1.ObjectIdentifier, err error) {
	seen := map[x509.ExtKeyUsage]bool{}
	add := func(u x509.ExtKeyUsage) {
		if !seen[u] {
			seen[u], out = true, append(out, u)
		}
	}
	for _, f := range []struct {
		on bool
		u  x509.ExtKeyUsage
	}{
		{r.ServerFlag, x509.ExtKeyUsageServerAuth}, {r.ClientFlag, x509.ExtKeyUsageClientAuth},
		{r.CodeSigningFlag, x509.ExtKeyUsageCodeSigning}, {r.EmailFlag, x509.ExtKeyUsageEmailProtection},
	} {
		if f.on {
			add(f.u)
		}
	}
	for _, name := range r.ExtKeyUsage {
		u, ok := extUsages[strings.TrimPrefix(strings.ToLower(strings.TrimSpace(name)), "extkeyusage")]
		if !ok {
			return nil, nil, fault.New(fault.Invalid, "ext_key_usage: there is no usage %q; write for example ServerAuth, or its OID in ext_key_usage_oids", shown(name))
		}
		add(u)
	}
	for _, text := range r.ExtKeyUsageOIDs {
		oid, err := parseOID(text)
		if err != nil {
			return nil, nil, fault.New(fault.Invalid, "ext_key_usage_oids: %v", err)
		}
		if !slices.ContainsFunc(oids, oid.Equal) {
			oids = append(oids, oid)
		}
	}
	return out, oids, nil
}

// parseOID reads 1.2.3.
func parseOID(text string) (asn1.ObjectIdentifier, error) {
	full, err := x509.ParseOID(strings.TrimSpace(text))
	if err == nil {
		var oid asn1.ObjectIdentifier
		der, _ := full.MarshalBinary()
		var b cryptobyte.Builder
		b.AddASN1(cryptobyte_asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(der) })
		if rest, err := asn1.Unmarshal(b.BytesOrPanic(), &oid); err == nil && len(rest) == 0 {
			return oid, nil
		}
	}
	return nil, fault.New(fault.Invalid, "%q is not an object identifier such as 1.3.6.1.4.1.311.20.2.3", shown(text))
}

var (
	oidPolicies = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidCPS      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 2, 1}
	oidNotice   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 2, 2}
)

// policy is a certificate policy: its OID, and what is said of it.
type policy struct {
	OID    string `json:"oid"`
	CPS    string `json:"cps"`
	Notice string `json:"notice"`
	id     asn1.ObjectIdentifier
}

// Policies makes the extension of certificate policies, nil for none.
func Policies(list wire.Strings) (*pkix.Extension, error) { return policies(list) }

// policies makes the extension of certificate policies, nil for none. Each is an OID,
// or the whole list is JSON of objects with oid, cps and notice, which may have
// been cut at its commas on the way here.
func policies(list wire.Strings) (*pkix.Extension, error) {
	if len(list) == 0 {
		return nil, nil
	}
	var all []policy
	if text := strings.Join(list, ","); strings.HasPrefix(strings.TrimSpace(text), "[") || strings.HasPrefix(strings.TrimSpace(text), "{") {
		if !strings.HasPrefix(strings.TrimSpace(text), "[") {
			text = "[" + text + "]"
		}
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			return nil, fault.New(fault.Invalid, `policy_identifiers: it is neither a list of OIDs nor of objects such as {"oid":"1.3.6.1.4.1.7.8","cps":"https://example.com"}`)
		}
	} else {
		for _, oid := range list {
			all = append(all, policy{OID: oid})
		}
	}
	for i := range all {
		var err error
		if all[i].id, err = parseOID(all[i].OID); err != nil {
			return nil, fault.New(fault.Invalid, "policy_identifiers: %v", err)
		}
		if slices.ContainsFunc(all[:i], func(p policy) bool { return p.id.Equal(all[i].id) }) {
			return nil, fault.New(fault.Invalid, "policy_identifiers: %s is named twice", all[i].id)
		}
	}
	var b cryptobyte.Builder
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, p := range all {
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) { p.write(b) })
		}
	})
	value, err := b.Bytes()
	if err != nil {
		return nil, fault.New(fault.Invalid, "policy_identifiers: it cannot be written to a certificate")
	}
	return &pkix.Extension{Id: oidPolicies, Value: value}, nil
}

// write writes a PolicyInformation of RFC 5280 section 4.2.1.4.
func (p policy) write(b *cryptobyte.Builder) {
	b.AddASN1ObjectIdentifier(p.id)
	if p.CPS == "" && p.Notice == "" {
		return
	}
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if p.CPS != "" {
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidCPS)
				b.AddASN1(cryptobyte_asn1.IA5String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(p.CPS)) })
			})
		}
		if p.Notice != "" {
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidNotice)
				b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cryptobyte_asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(p.Notice)) })
				})
			})
		}
	})
}
