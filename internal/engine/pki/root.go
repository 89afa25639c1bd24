package pki

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/engine/pki/role"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

var rootRoutes = []route.Route[*Engine]{
	route.New("POST", "root/generate/{exported}", "Make a root: a key, and a certificate that it signs itself.", (*Engine).generateRoot,
		route.Shows("root/generate/internal", `{"common_name":"Example Root","issuer_name":"root-2026","key_type":"ec","ttl":"87600h"}`, "")),
	route.New("POST", "issuers/generate/root/{exported}", "Make a root, as root/generate does.", (*Engine).generateRoot,
		route.Shows("issuers/generate/root/internal", `{"common_name":"Example Root","issuer_name":"root-2026"}`, "")),
	route.New("POST", "root/rotate/{exported}", "Make the next root, named next unless it is given a name.", (*Engine).rotateRoot,
		route.Shows("root/rotate/internal", `{"common_name":"Example Root 2"}`, "")),
	route.New("DELETE", "root", "Delete all issuers and keys of the mount.", (*Engine).deleteRoot, route.Sudo(),
		route.Shows("root", "", "")),
	route.New("POST", "root/sign-intermediate", "Have the default issuer certify another authority.", (*Engine).signIntermediate,
		route.Shows("root/sign-intermediate", `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\n…","common_name":"Example Intermediate","ttl":"43800h"}`, "")),
	route.New("POST", "issuer/{issuer_ref}/sign-intermediate", "Have an issuer certify another authority.", (*Engine).issuerSignIntermediate,
		route.Shows("issuer/default/sign-intermediate", `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\n…","common_name":"Example Intermediate"}`, "")),
	route.New("POST", "root/sign-self-issued", "Have the default issuer sign a certificate that another root signed itself, so that who trusts the one trusts the other.", (*Engine).signSelfIssued, route.Sudo(),
		route.Shows("root/sign-self-issued", `{"certificate":"-----BEGIN CERTIFICATE-----\n…"}`, "")),
	route.New("POST", "issuer/{issuer_ref}/sign-self-issued", "Have an issuer sign a certificate that another root signed itself.", (*Engine).issuerSignSelfIssued, route.Sudo(),
		route.Shows("issuer/default/sign-self-issued", `{"certificate":"-----BEGIN CERTIFICATE-----\n…"}`, "")),
}

// Root is a root to be made.
type Root struct {
	Exported string `path:"exported" doc:"internal, exported: its private key is answered, this once; or existing: its key is here already."`
	Subject
	Life
	Form
	MakeKey
	IssuerName string `json:"issuer_name" doc:"A name for the issuer."`
}

// Made is a root that was made.
type Made struct {
	route.Notes
	Certificate string       `json:"certificate"`
	Issuing     string       `json:"issuing_ca"`
	Chain       wire.Strings `json:"ca_chain"`
	Serial      string       `json:"serial_number"`
	Expiration  int64        `json:"expiration"`
	Issuer      string       `json:"issuer_id"`
	IssuerName  string       `json:"issuer_name"`
	Key         string       `json:"key_id"`
	KeyName     string       `json:"key_name"`
	Private     wire.Secret  `json:"private_key,omitempty"`
	PrivateType string       `json:"private_key_type,omitempty"`
}

func (e *Engine) rotateRoot(ctx context.Context, by route.Caller, in Root) (Made, error) {
	if in.IssuerName == "" {
		in.IssuerName = "next"
	}
	return e.generateRoot(ctx, by, in)
}

func (e *Engine) generateRoot(ctx context.Context, _ route.Caller, in Root) (out Made, err error) {
	if err := key.CheckFormat(in.Format, in.PrivateFormat); err != nil {
		return out, err
	}
	if in.CommonName == "" {
		return out, fault.New(fault.Invalid, "the common_name field is required")
	}
	t, warnings, err := in.template(e.limits())
	if err != nil {
		return out, err
	}
	if err := in.to(t); err != nil {
		return out, err
	}
	s, err := e.keyFor(ctx, in.Exported, in.MakeKey)
	if err != nil {
		return out, err
	}
	if t.SubjectKeyId, err = key.ID(s.Public()); err != nil {
		return out, err
	}
	if t.SignatureAlgorithm, err = key.Algorithm(s.Public(), int(in.SignatureBits), bool(in.PSS)); err != nil {
		return out, err
	}
	t.AuthorityKeyId, t.SerialNumber = t.SubjectKeyId, newSerial()
	der, err := x509.CreateCertificate(rand.Reader, t, t, s.Public(), s)
	if err != nil {
		return out, fault.Wrap(fault.Invalid, err, "the root cannot be made of what is asked for: %s", shown(err.Error()))
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return out, err
	}
	if err := e.change(ctx, func(tx engine.Txn, b *book) error {
		k, _, err := b.addKey(tx, in.KeyName, s)
		if err != nil {
			return err
		}
		i, _, err := b.addIssuer(tx, in.IssuerName, c)
		if err != nil {
			return err
		}
		out = Made{Issuer: i.ID, IssuerName: i.Name, Key: k.ID, KeyName: k.Name}
		return saveCert(tx, c, i)
	}); err != nil {
		return out, err
	}
	if err := e.first(ctx); err != nil {
		return out, err
	}
	out.Warnings = warnings
	if out.Private, out.PrivateType, err = private(in.Exported, s, in.Form); err != nil {
		return out, err
	}
	out.Certificate, out.Serial, out.Expiration = text(der, in.Format), serialOf(c), c.NotAfter.Unix()
	out.Issuing, out.Chain = out.Certificate, wire.Strings{out.Certificate}
	if in.Format == key.Bundle {
		out.Certificate = bundled(out.Private.Reveal(), out.Certificate, nil)
	}
	return out, nil
}

// saveCert keeps a certificate in a transaction.
func saveCert(t storage.Txn, c *x509.Certificate, by *issuer) error {
	return storage.Save(t, certRows+serialKey(c.SerialNumber), stored{Certificate: c.Raw, Authority: by.authority, Issuer: by.ID, Expires: c.NotAfter.UTC()})
}

func (e *Engine) deleteRoot(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Empty, error) {
	// Keys are deleted some at a time, and the book last, so that what is left is
	// found again should it stop in between.
	for {
		done := false
		if err := e.change(ctx, func(t engine.Txn, b *book) error {
			n := min(50, len(b.Keys))
			for _, k := range b.Keys[:n] {
				if err := t.Delete(keyRows + k.ID); err != nil {
					return err
				}
				e.signers.Delete(k.ID)
			}
			b.Keys = b.Keys[n:]
			if done = len(b.Keys) == 0; done {
				b.bookText = bookText{}
			}
			return nil
		}); err != nil {
			return route.Empty{}, err
		}
		if done {
			return route.Empty{}, nil
		}
	}
}

// SignIntermediate asks for the certificate of another authority.
type SignIntermediate struct {
	Subject
	Life
	WithCSR
	Format string    `json:"format" doc:"pem unless given, der or pem_bundle."`
	AsIs   wire.Bool `json:"use_csr_values" doc:"Take the subject and the alternative names of the signing request."`
}

// IssuerSignIntermediate asks an issuer for the certificate of another authority.
type IssuerSignIntermediate struct {
	IssuerRef
	SignIntermediate
}

// Signed is a certificate that was signed.
type Signed struct {
	route.Notes
	Certificate string       `json:"certificate"`
	Issuing     string       `json:"issuing_ca"`
	Chain       wire.Strings `json:"ca_chain"`
	Serial      string       `json:"serial_number"`
	Expiration  int64        `json:"expiration"`
}

func (e *Engine) issuerSignIntermediate(ctx context.Context, by route.Caller, in IssuerSignIntermediate) (Signed, error) {
	return e.intermediate(ctx, in.Ref, in.SignIntermediate)
}

func (e *Engine) signIntermediate(ctx context.Context, by route.Caller, in SignIntermediate) (Signed, error) {
	return e.intermediate(ctx, byDefault, in)
}

func (e *Engine) intermediate(ctx context.Context, ref string, in SignIntermediate) (out Signed, err error) {
	if err := key.CheckFormat(in.Format, ""); err != nil {
		return out, err
	}
	csr, err := role.ParseCSR([]byte(in.CSR))
	if err != nil {
		return out, err
	}
	b, err := e.lately(ctx)
	if err != nil {
		return out, err
	}
	by, err := b.find(ref)
	if err != nil {
		return out, err
	}
	if by.cert.MaxPathLen == 0 && by.cert.MaxPathLenZero {
		return out, fault.New(fault.Invalid, "the issuer may not certify other authorities: the max_path_length of its certificate is 0")
	}
	t, warnings, err := in.template(e.limits())
	if err != nil {
		return out, err
	}
	if in.AsIs {
		if err := asIs(csr, t); err != nil {
			return out, err
		}
	} else if err := in.to(t); err != nil {
		return out, err
	}
	if t.Subject.CommonName == "" && t.RawSubject == nil {
		return out, fault.New(fault.Invalid, "the common_name field is required, or use_csr_values to take it of the signing request")
	}
	if left := by.cert.MaxPathLen - 1; by.cert.MaxPathLen > 0 && (t.MaxPathLen < 0 || t.MaxPathLen > left) {
		if t.MaxPathLen > left {
			return out, fault.New(fault.Invalid, "max_path_length is longer than the issuer's leaves, which is %d", left)
		}
		t.MaxPathLen, t.MaxPathLenZero = left, left == 0
	}
	return e.certify(ctx, t, csr.PublicKey, by, in.Life, in.Format, warnings)
}

// asIs takes the subject and the names of a signing request.
func asIs(csr *x509.CertificateRequest, t *x509.Certificate) error {
	for _, n := range csr.Subject.Names {
		if s, ok := n.Value.(string); !ok || role.CheckText(s) != nil {
			return fault.New(fault.Invalid, "the request's subject holds what is no plain text")
		}
	}
	t.RawSubject, t.Subject = csr.RawSubject, csr.Subject
	t.DNSNames, t.EmailAddresses, t.IPAddresses, t.URIs = csr.DNSNames, csr.EmailAddresses, csr.IPAddresses, csr.URIs
	for _, n := range append(append([]string{}, t.DNSNames...), t.EmailAddresses...) {
		if err := role.CheckText(n); err != nil {
			return err
		}
	}
	return nil
}

// certify signs an authority's certificate, and keeps it.
func (e *Engine) certify(ctx context.Context, t *x509.Certificate, public any, by *issuer, in Life, format string, warnings []string) (out Signed, err error) {
	if t.SubjectKeyId, err = key.ID(public); err != nil {
		return out, err
	}
	der, more, err := e.sign(ctx, signing{template: t, public: public, by: by, bits: int(in.SignatureBits), pss: bool(in.PSS), ca: true})
	if err != nil {
		return out, err
	}
	if err := e.keep(ctx, der, t.SerialNumber, by, t.NotAfter); err != nil {
		return out, err
	}
	out = Signed{
		Certificate: text(der, format), Issuing: text(by.Certificate, format), Chain: chainText(by.chain, format, false),
		Serial: serialOf(t), Expiration: t.NotAfter.Unix(),
	}
	if format == key.Bundle {
		out.Certificate = bundled("", out.Certificate, out.Chain)
	}
	out.Warnings = append(warnings, more...)
	return out, nil
}

// SelfIssued is a certificate that its own key signed.
type SelfIssued struct {
	Certificate string    `json:"certificate" doc:"The other root's certificate, in PEM."`
	Matching    wire.Bool `json:"require_matching_certificate_algorithms" doc:"Refuse it where the issuer's key is of another type."`
}

// IssuerSelfIssued is SelfIssued for an issuer.
type IssuerSelfIssued struct {
	IssuerRef
	SelfIssued
}

func (e *Engine) signSelfIssued(ctx context.Context, _ route.Caller, in SelfIssued) (Signed, error) {
	return e.selfIssued(ctx, byDefault, in)
}

func (e *Engine) issuerSignSelfIssued(ctx context.Context, _ route.Caller, in IssuerSelfIssued) (Signed, error) {
	return e.selfIssued(ctx, in.Ref, in.SelfIssued)
}

func (e *Engine) selfIssued(ctx context.Context, ref string, in SelfIssued) (out Signed, err error) {
	parsed, err := parseBundle(in.Certificate, false)
	if err != nil {
		return out, err
	}
	if len(parsed.certs) != 1 || !selfSigned(parsed.certs[0]) {
		return out, fault.New(fault.Invalid, "certificate: one that is signed with its own key is expected")
	}
	c := parsed.certs[0]
	b, err := e.lately(ctx)
	if err != nil {
		return out, err
	}
	by, err := b.find(ref)
	if err != nil {
		return out, err
	}
	if in.Matching && by.cert.PublicKeyAlgorithm != c.PublicKeyAlgorithm {
		return out, fault.New(fault.Invalid, "the certificate's key is of another type than the issuer's")
	}
	if by.cert.MaxPathLenZero && by.cert.MaxPathLen == 0 {
		return out, fault.New(fault.Invalid, "the issuer may not certify other authorities: the max_path_length of its certificate is 0")
	}
	t := &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: c.MaxPathLen, MaxPathLenZero: c.MaxPathLenZero, KeyUsage: c.KeyUsage,
		RawSubject: c.RawSubject, Subject: c.Subject, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		PermittedDNSDomains: c.PermittedDNSDomains, ExcludedDNSDomains: c.ExcludedDNSDomains, PermittedDNSDomainsCritical: c.PermittedDNSDomainsCritical,
		PermittedIPRanges: c.PermittedIPRanges, ExcludedIPRanges: c.ExcludedIPRanges, PermittedEmailAddresses: c.PermittedEmailAddresses,
		ExcludedEmailAddresses: c.ExcludedEmailAddresses, PermittedURIDomains: c.PermittedURIDomains, ExcludedURIDomains: c.ExcludedURIDomains,
	}
	if now := time.Now(); now.After(c.NotAfter) {
		return out, fault.New(fault.Invalid, "the certificate expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	return e.certify(ctx, t, c.PublicKey, by, Life{}, key.PEM, nil)
}
