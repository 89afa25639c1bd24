package pki

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var intermediateRoutes = []route.Route[*Engine]{
	route.New("POST", "intermediate/generate/{exported}", "Make a key and a signing request for it, for another authority to certify.", (*Engine).generateIntermediate,
		route.Shows("intermediate/generate/internal", `{"common_name":"Example Intermediate","key_type":"ec"}`, "")),
	route.New("POST", "issuers/generate/intermediate/{exported}", "Make a key and a signing request, as intermediate/generate does.", (*Engine).generateIntermediate,
		route.Shows("issuers/generate/intermediate/internal", `{"common_name":"Example Intermediate"}`, "")),
	route.New("POST", "intermediate/cross-sign", "Make a signing request for a key that is here, for a second authority to certify.", (*Engine).crossSign,
		route.Shows("intermediate/cross-sign", `{"common_name":"Example Root","key_ref":"default"}`, "")),
	route.New("POST", "intermediate/set-signed", "Take over the certificate that another authority made of a signing request.", (*Engine).setSigned,
		route.Shows("intermediate/set-signed", `{"certificate":"-----BEGIN CERTIFICATE-----\n…"}`, "")),
}

// Intermediate is an authority whose certificate another is to sign.
type Intermediate struct {
	Exported string `path:"exported" doc:"internal, exported: its private key is answered, this once; or existing: its key is here already."`
	Request
}

// Request is a signing request to be made.
type Request struct {
	Subject
	Form
	MakeKey
	SignatureBits wire.Int  `json:"signature_bits" doc:"Bits of the hash that an RSA key signs with."`
	PSS           wire.Bool `json:"use_pss" doc:"Have an RSA key sign by PSS."`
	Basic         wire.Bool `json:"add_basic_constraints" doc:"Say in the request that it is for an authority, which some want."`
}

// Requested is a signing request that was made.
type Requested struct {
	CSR         string      `json:"csr"`
	Key         string      `json:"key_id"`
	KeyName     string      `json:"key_name,omitempty"`
	Private     wire.Secret `json:"private_key,omitempty"`
	PrivateType string      `json:"private_key_type,omitempty"`
}

func (e *Engine) crossSign(ctx context.Context, by route.Caller, in Request) (Requested, error) {
	return e.generateIntermediate(ctx, by, Intermediate{Exported: existing, Request: in})
}

func (e *Engine) generateIntermediate(ctx context.Context, _ route.Caller, in Intermediate) (out Requested, err error) {
	if err := key.CheckFormat(in.Format, in.PrivateFormat); err != nil {
		return out, err
	}
	t := &x509.CertificateRequest{}
	if t.Subject, err = in.name(); err != nil {
		return out, err
	}
	n, err := in.names()
	if err != nil {
		return out, err
	}
	t.DNSNames, t.EmailAddresses, t.IPAddresses, t.URIs = n.dns, n.mails, n.ips, n.uris
	if in.Basic {
		t.ExtraExtensions = []pkix.Extension{{Id: oidBasicConstraints, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
	}
	s, err := e.keyFor(ctx, in.Exported, in.MakeKey)
	if err != nil {
		return out, err
	}
	if t.SignatureAlgorithm, err = key.Algorithm(s.Public(), int(in.SignatureBits), bool(in.PSS)); err != nil {
		return out, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, t, s)
	if err != nil {
		return out, fault.Wrap(fault.Invalid, err, "the signing request cannot be made of what is asked for: %s", shown(err.Error()))
	}
	if err := e.change(ctx, func(tx engine.Txn, b *book) error {
		k, _, err := b.addKey(tx, in.KeyName, s)
		if err == nil {
			out = Requested{Key: k.ID, KeyName: k.Name}
		}
		return err
	}); err != nil {
		return out, err
	}
	out.CSR = strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
	if in.Format == key.DER {
		out.CSR = base64Of(der)
	}
	if out.Private, out.PrivateType, err = private(in.Exported, s, in.Form); err != nil {
		return out, err
	}
	if in.Format == key.Bundle && out.Private != "" {
		out.CSR = bundled(out.Private.Reveal(), out.CSR, nil)
	}
	return out, nil
}

// SetSigned is what another authority signed.
type SetSigned struct {
	Certificate string `json:"certificate" doc:"The certificate, and those above it, in PEM."`
}

func (e *Engine) setSigned(ctx context.Context, _ route.Caller, in SetSigned) (Imported, error) {
	parsed, err := parseBundle(in.Certificate, false)
	if err != nil {
		return Imported{}, err
	}
	b, err := e.book(ctx)
	if err != nil {
		return Imported{}, err
	}
	if b.keyOf(parsed.certs[0].PublicKey) == nil {
		return Imported{}, fault.New(fault.Invalid, "the certificate is of none of the keys that are here: the one that intermediate/generate made a request for is expected first")
	}
	return e.take(ctx, in.Certificate, false)
}
