package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var ocspRoutes = []route.Route[*Engine]{
	route.New("POST", "ocsp", "Ask whether a certificate is revoked (RFC 6960); the body is of the type application/ocsp-request.", (*Engine).ocspPost, route.Public(), route.Reads(),
		route.Shows("ocsp", "", "")),
	route.New("GET", "ocsp/{request...}", "Ask whether a certificate is revoked (RFC 6960), by the request in base64.", (*Engine).ocspGet, route.Public(),
		route.Shows("ocsp/MEMwQTA%2FMD0wOzAJBgUrDgMCGgUABBQ", "", "")),
}

// OCSPPost is a request of RFC 6960.
type OCSPPost struct {
	Body wire.Object `json:"request" body:"whole" doc:"The request, in DER."`
}

// OCSPGet is a request of RFC 6960 in a path.
type OCSPGet struct {
	Request string `path:"request" doc:"The request, in base64."`
}

const (
	typeOCSP = "application/ocsp-response"
	maxOCSP  = 4 << 10
)

func (e *Engine) ocspGet(ctx context.Context, _ route.Caller, in OCSPGet) (route.Raw, error) {
	text := strings.TrimRight(in.Request, "=")
	if strings.ContainsAny(text, "-_") {
		text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	}
	der, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(text) > 2*maxOCSP {
		return ocspAnswer(ocsp.MalformedRequestErrorResponse), nil
	}
	return e.respond(ctx, der)
}

func (e *Engine) ocspPost(ctx context.Context, _ route.Caller, in OCSPPost) (route.Raw, error) {
	return e.respond(ctx, in.Body)
}

func ocspAnswer(der []byte) route.Raw { return route.Raw{ContentType: typeOCSP, Body: der} }

// respond answers a request. Requests that cannot be answered are told so in the
// protocol's own way.
func (e *Engine) respond(ctx context.Context, der []byte) (route.Raw, error) {
	if len(der) > maxOCSP {
		return ocspAnswer(ocsp.MalformedRequestErrorResponse), nil
	}
	q, err := ocsp.ParseRequest(der)
	if err != nil || q.SerialNumber.Sign() <= 0 {
		return ocspAnswer(ocsp.MalformedRequestErrorResponse), nil
	}
	c, err := e.crlConfigLately(ctx)
	if err != nil {
		return route.Raw{}, err
	}
	b, err := e.lately(ctx)
	if err != nil {
		return route.Raw{}, err
	}
	of := b.asked(q)
	if c.OCSPDisable || of == nil {
		return ocspAnswer(ocsp.UnauthorizedErrorResponse), nil
	}
	by := b.signerOf(of.authority, usageOCSP)
	if by == nil {
		return ocspAnswer(ocsp.UnauthorizedErrorResponse), nil
	}
	signer, err := e.signer(ctx, by.Key)
	if err != nil {
		return route.Raw{}, err
	}
	at, err := e.revokedAt(ctx, of.authority, q.SerialNumber)
	if err != nil {
		return route.Raw{}, err
	}
	now := time.Now().UTC().Truncate(time.Minute)
	t := ocsp.Response{Status: ocsp.Good, SerialNumber: q.SerialNumber, IssuerHash: q.HashAlgorithm, ThisUpdate: now}
	if d := duration(c.OCSPExpiry); d > 0 {
		t.NextUpdate = now.Add(d)
	}
	if !at.IsZero() {
		t.Status, t.RevokedAt, t.RevocationReason = ocsp.Revoked, at, ocsp.Unspecified
	}
	out, err := answerOCSP(by, t, signer)
	return ocspAnswer(out), err
}

// asked returns the issuer that a request is about, nil where it is none of these.
func (b *book) asked(q *ocsp.Request) *issuer {
	if !q.HashAlgorithm.Available() {
		return nil
	}
	for _, i := range b.Issuers {
		h := q.HashAlgorithm.New()
		h.Write(i.cert.RawSubject)
		if !bytes.Equal(h.Sum(nil), q.IssuerNameHash) {
			continue
		}
		var info struct {
			Algorithm pkix.AlgorithmIdentifier
			Bits      asn1.BitString
		}
		if _, err := asn1.Unmarshal(i.cert.RawSubjectPublicKeyInfo, &info); err != nil {
			continue
		}
		h.Reset()
		h.Write(info.Bits.RightAlign())
		if bytes.Equal(h.Sum(nil), q.IssuerKeyHash) {
			return i
		}
	}
	return nil
}

// answerOCSP signs an answer.
func answerOCSP(by *issuer, t ocsp.Response, signer crypto.Signer) ([]byte, error) {
	if s, ok := signer.(ed25519.PrivateKey); ok {
		return answerEd25519(by, t, s)
	}
	return ocsp.CreateResponse(by.cert, by.cert, t, signer)
}

// The parts of an answer (RFC 6960 section 4.2.1) that package ocsp does not export.
type (
	ocspResponse struct {
		Status asn1.Enumerated
		Bytes  ocspBytes `asn1:"explicit,tag:0,optional"`
	}
	ocspBytes struct {
		Type     asn1.ObjectIdentifier
		Response []byte
	}
	ocspBasic struct {
		Data      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
)

var oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}

// answerEd25519 signs an answer with a kind of key that package ocsp does not know: it
// has the package write the answer with a key for the moment, and signs what it wrote.
func answerEd25519(by *issuer, t ocsp.Response, signer ed25519.PrivateKey) ([]byte, error) {
	moment, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := ocsp.CreateResponse(by.cert, by.cert, t, moment)
	if err != nil {
		return nil, err
	}
	var outer ocspResponse
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, err
	}
	var basic ocspBasic
	if _, err := asn1.Unmarshal(outer.Bytes.Response, &basic); err != nil {
		return nil, err
	}
	sum := ed25519.Sign(signer, basic.Data.FullBytes)
	basic.Algorithm = pkix.AlgorithmIdentifier{Algorithm: oidEd25519}
	basic.Signature = asn1.BitString{Bytes: sum, BitLength: 8 * len(sum)}
	if outer.Bytes.Response, err = asn1.Marshal(basic); err != nil {
		return nil, err
	}
	return asn1.Marshal(outer)
}
