package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/engine/pki/role"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var issueRoutes = []route.Route[*Engine]{
	route.New("POST", "issue/{role}", "Make a key and certify it.", (*Engine).issue,
		route.Shows("issue/web", `{"common_name":"shop.example.com","ttl":"24h"}`, "")),
	route.New("POST", "sign/{role}", "Certify the key of a signing request.", (*Engine).signRequest,
		route.Shows("sign/web", `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\n…","common_name":"shop.example.com"}`, "")),
	route.New("POST", "sign-verbatim", "Certify a signing request as it is; for those who are trusted with every name.", (*Engine).signVerbatim,
		route.Shows("sign-verbatim", `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\n…"}`, "")),
	route.New("POST", "sign-verbatim/{role}", "Certify a signing request as it is, for as long as a role has it.", (*Engine).signVerbatimRole,
		route.Shows("sign-verbatim/web", `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\n…"}`, "")),
	route.New("POST", "issuer/{issuer_ref}/issue/{role}", "Make a key and have an issuer certify it.", (*Engine).issuerIssue,
		route.Shows("issuer/default/issue/web", `{"common_name":"shop.example.com"}`, "")),
	route.New("POST", "issuer/{issuer_ref}/sign/{role}", "Have an issuer certify the key of a signing request.", (*Engine).issuerSign,
		route.Shows("issuer/default/sign/web", `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\n…","common_name":"shop.example.com"}`, "")),
	route.New("POST", "issuer/{issuer_ref}/sign-verbatim", "Have an issuer certify a signing request as it is.", (*Engine).issuerVerbatim,
		route.Shows("issuer/default/sign-verbatim", `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\n…"}`, "")),
	route.New("POST", "issuer/{issuer_ref}/sign-verbatim/{role}", "Have an issuer certify a signing request as it is, for as long as a role has it.", (*Engine).issuerVerbatimRole,
		route.Shows("issuer/default/sign-verbatim/web", `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\n…"}`, "")),
}

// Wish is what a certificate is asked to say.
type Wish struct {
	CommonName    string       `json:"common_name" doc:"The common name of the subject."`
	AltNames      wire.Strings `json:"alt_names" doc:"Further DNS names and addresses of email."`
	IPSANs        wire.Strings `json:"ip_sans" doc:"IP addresses."`
	URISANs       wire.Strings `json:"uri_sans" doc:"URIs."`
	OtherSANs     wire.Strings `json:"other_sans" doc:"Other names, written OID;UTF8:value."`
	SerialNumber  string       `json:"serial_number" doc:"The serial number of the subject; that of the certificate is made here."`
	UserIDs       wire.Strings `json:"user_ids" doc:"User ids of the subject."`
	TTL           wire.Seconds `json:"ttl" doc:"How long it is good; the role's unless given."`
	NotAfter      string       `json:"not_after" doc:"Until when it is good, in place of a ttl: 2030-12-31T23:59:59Z."`
	Format        string       `json:"format" doc:"pem unless given, der, or pem_bundle: key, certificate and chain in one."`
	PrivateFormat string       `json:"private_key_format" doc:"der unless given, which is the key's own form in PEM where the format is, or pkcs8."`
	ExcludeCN     wire.Bool    `json:"exclude_cn_from_sans" doc:"Leave the common name out of the alternative names."`
	RemoveRoots   wire.Bool    `json:"remove_roots_from_chain" doc:"Leave roots out of the chain."`
}

// ByRole names a role.
type ByRole struct {
	Role string `path:"role" doc:"The role."`
}

// Issue asks for a key and its certificate.
type Issue struct {
	ByRole
	Wish
}

// WithCSR is a signing request.
type WithCSR struct {
	CSR string `json:"csr" doc:"The signing request, in PEM."`
}

// Sign asks for the certificate of a signing request.
type Sign struct {
	ByRole
	Wish
	WithCSR
}

// Issued is a certificate, and its key where that was made here.
type Issued struct {
	route.Notes
	Certificate string       `json:"certificate"`
	Issuing     string       `json:"issuing_ca"`
	Chain       wire.Strings `json:"ca_chain"`
	Private     wire.Secret  `json:"private_key,omitempty"`
	PrivateType string       `json:"private_key_type,omitempty"`
	Serial      string       `json:"serial_number"`
	Expiration  int64        `json:"expiration"`
}

// order is a certificate to be issued by a role.
type order struct {
	by     route.Caller
	name   string // of the role, "" for none
	role   *role.Role
	issuer string // another than the role's, "" for that
	wish   Wish
	csr    *x509.CertificateRequest
	// also adds to the template what sign-verbatim takes of a signing request.
	also func(*role.Result) error
}

func (e *Engine) issue(ctx context.Context, by route.Caller, in Issue) (Issued, error) {
	return e.byRole(ctx, in.Role, order{by: by, wish: in.Wish})
}

func (e *Engine) signRequest(ctx context.Context, by route.Caller, in Sign) (Issued, error) {
	return e.byRoleCSR(ctx, in.Role, in.WithCSR, order{by: by, wish: in.Wish})
}

// IssuerIssue asks an issuer for a key and its certificate.
type IssuerIssue struct {
	IssuerRef
	ByRole
	Wish
}

// IssuerSign asks an issuer for the certificate of a signing request.
type IssuerSign struct {
	IssuerRef
	ByRole
	Wish
	WithCSR
}

func (e *Engine) issuerIssue(ctx context.Context, by route.Caller, in IssuerIssue) (Issued, error) {
	return e.byRole(ctx, in.Role, order{by: by, issuer: in.Ref, wish: in.Wish})
}

func (e *Engine) issuerSign(ctx context.Context, by route.Caller, in IssuerSign) (Issued, error) {
	return e.byRoleCSR(ctx, in.Role, in.WithCSR, order{by: by, issuer: in.Ref, wish: in.Wish})
}

func (e *Engine) byRoleCSR(ctx context.Context, name string, csr WithCSR, o order) (out Issued, err error) {
	if o.csr, err = role.ParseCSR([]byte(csr.CSR)); err != nil {
		return out, err
	}
	return e.byRole(ctx, name, o)
}

func (e *Engine) byRole(ctx context.Context, name string, o order) (out Issued, err error) {
	if o.role, err = e.role(ctx, name); err != nil {
		return out, err
	}
	o.name = name
	return e.fill(ctx, o)
}

// fill issues a certificate.
func (e *Engine) fill(ctx context.Context, o order) (out Issued, err error) {
	if err := key.CheckFormat(o.wish.Format, o.wish.PrivateFormat); err != nil {
		return out, err
	}
	b, err := e.lately(ctx)
	if err != nil {
		return out, err
	}
	if o.issuer == "" {
		o.issuer = o.role.Issuer
	}
	by, err := b.find(o.issuer)
	if err != nil {
		return out, err
	}
	var signer crypto.Signer
	var public crypto.PublicKey
	if o.csr != nil {
		public = o.csr.PublicKey
	} else {
		if signer, err = o.role.Key().Generate(); err != nil {
			return out, err
		}
		public = signer.Public()
	}
	result, err := o.role.Certificate(o.request(), public, e.limits())
	if err != nil {
		return out, err
	}
	if o.also != nil {
		if err := o.also(result); err != nil {
			return out, err
		}
	}
	der, warnings, err := e.sign(ctx, signing{template: result.Template, public: public, by: by, bits: int(o.role.SignatureBits), pss: o.role.PSS})
	if err != nil {
		return out, err
	}
	if out.Notes, err = e.deliver(ctx, o, der, result.Template, by); err != nil {
		return out, err
	}
	out.Warnings = append(out.Warnings, slices.Concat(result.Warnings, warnings)...)
	out.Serial, out.Expiration = serialOf(result.Template), result.Template.NotAfter.Unix()
	return out, out.write(o.wish, der, by, signer)
}

func (o order) request() role.Request {
	w := o.wish
	return role.Request{
		CommonName: w.CommonName, AltNames: w.AltNames, IPs: w.IPSANs, URIs: w.URISANs, Others: w.OtherSANs, SerialNumber: w.SerialNumber, UserIDs: w.UserIDs,
		ExcludeCN: bool(w.ExcludeCN), TTL: w.TTL.Duration(), NotAfter: w.NotAfter, CSR: o.csr, By: role.Asker{DisplayName: o.by.DisplayName},
	}
}

// lent is what a lease says of a certificate.
type lent struct {
	Serial string `json:"serial"`
}

// deliver keeps a certificate, and lends it, as its role has it.
func (e *Engine) deliver(ctx context.Context, o order, der []byte, t *x509.Certificate, by *issuer) (route.Notes, error) {
	if o.role.NoStore {
		return route.Notes{}, nil
	}
	keep := func(ctx context.Context) error { return e.keep(ctx, der, t.SerialNumber, by, t.NotAfter) }
	if !o.role.GenerateLease {
		return route.Notes{}, keep(ctx)
	}
	ttl := time.Until(t.NotAfter)
	return e.env.Leases.Lend(ctx, o.by, engine.Loan{Data: lent{serialKey(t.SerialNumber)}, TTL: ttl, MaxTTL: ttl}, func(ctx context.Context, _ engine.Leased) error {
		return keep(ctx)
	})
}

// write fills in the certificate and its key.
func (out *Issued) write(w Wish, der []byte, by *issuer, signer crypto.Signer) error {
	out.Certificate, out.Issuing = text(der, w.Format), by.text(w.Format)
	out.Chain = chainText(by.chain, w.Format, bool(w.RemoveRoots))
	private := ""
	if signer != nil {
		kind, err := key.Of(signer.Public())
		if err != nil {
			return err
		}
		if private, err = key.Encode(signer, w.Format, w.PrivateFormat); err != nil {
			return err
		}
		out.Private, out.PrivateType = wire.Secret(private), kind.Type
	}
	if w.Format == key.Bundle {
		out.Certificate = bundled(private, out.Certificate, out.Chain)
	}
	return nil
}

// Verbatim asks for the certificate of a signing request as it is.
type Verbatim struct {
	WithCSR
	TTL             wire.Seconds  `json:"ttl" doc:"How long it is good."`
	NotAfter        string        `json:"not_after" doc:"Until when it is good, in place of a ttl."`
	Format          string        `json:"format" doc:"pem unless given, der or pem_bundle."`
	KeyUsage        *wire.Strings `json:"key_usage" doc:"Usages of the key where the request names none: DigitalSignature, KeyAgreement and KeyEncipherment unless given."`
	ExtKeyUsage     wire.Strings  `json:"ext_key_usage" doc:"Further usages where the request names none."`
	ExtKeyUsageOIDs wire.Strings  `json:"ext_key_usage_oids" doc:"Further usages, as object identifiers."`
	SignatureBits   wire.Int      `json:"signature_bits" doc:"Bits of the hash that an RSA issuer signs with."`
	PSS             wire.Bool     `json:"use_pss" doc:"Have an RSA issuer sign by PSS."`
	RemoveRoots     wire.Bool     `json:"remove_roots_from_chain" doc:"Leave roots out of the chain."`
}

// VerbatimRole is Verbatim by a role.
type VerbatimRole struct {
	ByRole
	Verbatim
}

// IssuerVerbatim is Verbatim by an issuer.
type IssuerVerbatim struct {
	IssuerRef
	Verbatim
}

// IssuerVerbatimRole is Verbatim by an issuer and a role.
type IssuerVerbatimRole struct {
	IssuerRef
	ByRole
	Verbatim
}

func (e *Engine) signVerbatim(ctx context.Context, by route.Caller, in Verbatim) (Issued, error) {
	return e.verbatim(ctx, by, "", "", in)
}

func (e *Engine) signVerbatimRole(ctx context.Context, by route.Caller, in VerbatimRole) (Issued, error) {
	return e.verbatim(ctx, by, "", in.Role, in.Verbatim)
}

func (e *Engine) issuerVerbatim(ctx context.Context, by route.Caller, in IssuerVerbatim) (Issued, error) {
	return e.verbatim(ctx, by, in.Ref, "", in.Verbatim)
}

func (e *Engine) issuerVerbatimRole(ctx context.Context, by route.Caller, in IssuerVerbatimRole) (Issued, error) {
	return e.verbatim(ctx, by, in.Ref, in.Role, in.Verbatim)
}

func (e *Engine) verbatim(ctx context.Context, by route.Caller, ref, name string, in Verbatim) (out Issued, err error) {
	csr, err := role.ParseCSR([]byte(in.CSR))
	if err != nil {
		return out, err
	}
	r := role.Verbatim()
	if name != "" {
		of, err := e.role(ctx, name)
		if err != nil {
			return out, err
		}
		r.Issuer, r.TTL, r.MaxTTL, r.NotAfter, r.NotBefore = of.Issuer, of.TTL, of.MaxTTL, of.NotAfter, of.NotBefore
		r.NoStore, r.GenerateLease = of.NoStore, of.GenerateLease
	}
	if in.KeyUsage != nil {
		r.KeyUsage = *in.KeyUsage
	}
	r.ExtKeyUsage, r.ExtKeyUsageOIDs, r.SignatureBits, r.PSS = in.ExtKeyUsage, in.ExtKeyUsageOIDs, in.SignatureBits, bool(in.PSS)
	if err := r.Check(); err != nil {
		return out, err
	}
	return e.fill(ctx, order{
		by: by, name: name, role: &r, issuer: ref, csr: csr,
		wish: Wish{TTL: in.TTL, NotAfter: in.NotAfter, Format: in.Format, RemoveRoots: in.RemoveRoots, ExcludeCN: true},
		also: func(res *role.Result) error { return takeVerbatim(csr, res) },
	})
}

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSAN              = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// takeVerbatim takes the subject and the usages of a signing request, which are not
// those of an authority. Other extensions could say anything, and are left out.
func takeVerbatim(csr *x509.CertificateRequest, res *role.Result) error {
	for _, n := range csr.Subject.Names {
		if s, ok := n.Value.(string); !ok || role.CheckText(s) != nil {
			return fault.New(fault.Invalid, "the request's subject holds what is no plain text")
		}
	}
	res.Template.RawSubject = csr.RawSubject
	for _, x := range csr.Extensions {
		switch {
		case x.Id.Equal(oidSAN):
		case x.Id.Equal(oidBasicConstraints):
			if isCA(x.Value) {
				return fault.New(fault.Invalid, "the request asks for the authority to sign others (basicConstraints CA:TRUE); root/sign-intermediate gives it")
			}
		case x.Id.Equal(oidKeyUsage):
			if signsOthers(x.Value) {
				return fault.New(fault.Invalid, "the request asks for a key usage of those who sign others or lists; root/sign-intermediate gives it")
			}
			res.Template.ExtraExtensions = append(res.Template.ExtraExtensions, pkix.Extension{Id: x.Id, Critical: true, Value: x.Value})
		case x.Id.Equal(oidExtKeyUsage):
			var usages []asn1.ObjectIdentifier
			if rest, err := asn1.Unmarshal(x.Value, &usages); err != nil || len(rest) > 0 {
				return fault.New(fault.Invalid, "the request's extended key usage cannot be read")
			}
			res.Template.ExtraExtensions = append(res.Template.ExtraExtensions, x)
		default:
			res.Warnings = append(res.Warnings, "The request's extension "+x.Id.String()+" was left out.")
		}
	}
	return nil
}

// isCA reports whether basic constraints are an authority's, or cannot be read.
func isCA(value []byte) bool {
	var c struct {
		CA  bool `asn1:"optional"`
		Len int  `asn1:"optional,default:-1"`
	}
	rest, err := asn1.Unmarshal(value, &c)
	return err != nil || len(rest) > 0 || c.CA
}

// signsOthers reports whether a key usage has keyCertSign or cRLSign, or cannot be read.
func signsOthers(value []byte) bool {
	var bits asn1.BitString
	rest, err := asn1.Unmarshal(value, &bits)
	return err != nil || len(rest) > 0 || bits.At(5) != 0 || bits.At(6) != 0
}
