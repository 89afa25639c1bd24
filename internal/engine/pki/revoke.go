package pki

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

var revokeRoutes = []route.Route[*Engine]{
	route.New("POST", "revoke", "Revoke a certificate.", (*Engine).revoke,
		route.Shows("revoke", `{"serial_number":"17:67:16:b0:b9:45:58:c0:3a:29:e3:cb:d6:98:33:7a:a6:3b:66:c1"}`, "")),
	route.New("POST", "revoke-with-key", "Revoke a certificate whose private key the caller has.", (*Engine).revokeWithKey,
		route.Shows("revoke-with-key", `{"serial_number":"17:67:16:b0","private_key":"-----BEGIN PRIVATE KEY-----\n…"}`, "")),
	route.New("LIST", "certs/revoked", "List the serial numbers of the certificates that are revoked.", (*Engine).listRevoked,
		route.Shows("certs/revoked", "", "")),
	route.New("POST", "issuer/{issuer_ref}/revoke", "Have an issuer issue no more, and revoke it in the list of the issuer that signed it.", (*Engine).revokeIssuer,
		route.Shows("issuer/spare/revoke", `{}`, "")),
}

const (
	revokedRows = "revoked/" // by authority and serial number
	staleRows   = "stale/"   // of authorities whose list lacks what was revoked
)

// gone is the row of a certificate that is revoked.
type gone struct {
	At      time.Time `json:"at"`
	Expires time.Time `json:"expires"`
}

// Revoke names a certificate.
type Revoke struct {
	Serial      string `json:"serial_number" doc:"Its serial number, with colons or dashes between its digits."`
	Certificate string `json:"certificate" doc:"The certificate itself, in PEM, where it is not kept here."`
}

// RevokeWithKey names a certificate, and proves that it is the caller's.
type RevokeWithKey struct {
	Revoke
	Private wire.Secret `json:"private_key" doc:"Its private key, in PEM."`
}

// Revoked says when a certificate was revoked.
type Revoked struct {
	route.Notes
	At    int64     `json:"revocation_time"`
	Time  time.Time `json:"revocation_time_rfc3339,omitzero"`
	State string    `json:"state,omitempty"`
}

func (e *Engine) revoke(ctx context.Context, _ route.Caller, in Revoke) (Revoked, error) {
	c, err := e.named(ctx, in)
	if err != nil {
		return Revoked{}, err
	}
	return e.revokeCert(ctx, c)
}

func (e *Engine) revokeWithKey(ctx context.Context, _ route.Caller, in RevokeWithKey) (out Revoked, err error) {
	block, _ := pem.Decode([]byte(in.Private.Reveal()))
	if block == nil {
		return out, fault.New(fault.Invalid, "private_key is not PEM")
	}
	s, err := key.Parse(block)
	if err != nil {
		return out, err
	}
	c, err := e.named(ctx, in.Revoke)
	if err != nil {
		return out, err
	}
	if !key.Same(s.Public(), c.PublicKey) {
		return out, fault.New(fault.Invalid, "the private key is not the certificate's")
	}
	return e.revokeCert(ctx, c)
}

// named returns the certificate that a request names.
func (e *Engine) named(ctx context.Context, in Revoke) (*x509.Certificate, error) {
	switch {
	case in.Serial == "" && in.Certificate == "":
		return nil, fault.New(fault.Invalid, "the serial number or certificate to revoke must be provided")
	case in.Serial != "" && in.Certificate != "":
		return nil, fault.New(fault.Invalid, "must provide either the certificate or the serial to revoke; not both")
	case in.Certificate != "":
		block, _ := pem.Decode([]byte(in.Certificate))
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fault.New(fault.Invalid, "certificate is not PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Invalid, "the certificate cannot be read")
		}
		return c, nil
	}
	serial, err := parseSerial(in.Serial)
	if err != nil {
		return nil, err
	}
	kept, err := e.find(ctx, serial)
	if err != nil {
		return nil, err
	}
	if kept == nil {
		return nil, fault.New(fault.Invalid, "certificate with serial %s not found; one that is not kept is revoked by the certificate itself", colons(serial))
	}
	return x509.ParseCertificate(kept.Certificate)
}

// endsSoon is how close to its end a certificate is left alone: it is over before any
// list could tell.
const endsSoon = 5 * time.Second

// revokeCert revokes a certificate that one of the issuers signed.
func (e *Engine) revokeCert(ctx context.Context, c *x509.Certificate) (out Revoked, err error) {
	b, err := e.book(ctx)
	if err != nil {
		return out, err
	}
	config, err := e.crlConfigLately(ctx)
	if err != nil {
		return out, err
	}
	if time.Now().Add(endsSoon).After(c.NotAfter) && !config.Expired {
		out.Warn("certificate with serial " + serialOf(c) + " already expired; refusing to add to CRL")
		return out, nil
	}
	for _, i := range b.Issuers {
		if i.cert.Equal(c) {
			return out, fault.New(fault.Invalid, "the certificate is that of the issuer %s: issuer/%s/revoke revokes it", i.ID, i.ID)
		}
	}
	var by *issuer
	for _, i := range b.Issuers {
		if signed(i.cert, c) && (by == nil || by.Key == "") {
			by = i
		}
	}
	if by == nil {
		return out, fault.New(fault.Invalid, "the certificate was signed by none of the issuers that are here")
	}
	at, err := e.strike(ctx, c, by)
	if err != nil {
		return out, err
	}
	out = Revoked{At: at.Unix(), Time: at, State: "revoked"}
	if config.AutoRebuild {
		return out, nil
	}
	return out, e.build(ctx, by.authority, false)
}

// strike writes that a certificate is revoked, and returns since when.
func (e *Engine) strike(ctx context.Context, c *x509.Certificate, by *issuer) (at time.Time, err error) {
	_, err = e.env.Agenda.Update(ctx, func(t engine.Txn) error {
		at, err = strikeIn(t, c, by)
		return err
	})
	return at, err
}

// strikeIn is strike in a transaction.
func strikeIn(t engine.Txn, c *x509.Certificate, by *issuer) (time.Time, error) {
	serial := serialKey(c.SerialNumber)
	name := revokedRows + by.authority + "/" + serial
	if before, err := storage.Load[gone](t, name); err != nil || before != nil {
		if before != nil {
			return before.At, nil
		}
		return time.Time{}, err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	kept, err := storage.Load[stored](t, certRows+serial)
	if err != nil {
		return now, err
	}
	if kept == nil || kept.Authority != by.authority {
		kept = &stored{Certificate: c.Raw, Authority: by.authority, Issuer: by.ID, Expires: c.NotAfter.UTC()}
	}
	kept.Revoked = now
	if err := storage.Save(t, certRows+serial, kept); err != nil {
		return now, err
	}
	if err := storage.Save(t, name, gone{now, c.NotAfter.UTC()}); err != nil {
		return now, err
	}
	return now, markStale(t, by.authority)
}

// markStale says that the list of an authority has to be made anew. Who does so in a
// moment need not; should they die, the agenda has it done.
func markStale(t engine.Txn, authority string) error {
	if err := t.Put(staleRows+authority, []byte(newSerial().Text(36))); err != nil {
		return err
	}
	config, err := loadCRLConfig(t)
	if err != nil || config.AutoRebuild {
		return err
	}
	return t.Schedule(listsTask, time.Now().Add(soon))
}

func (e *Engine) listRevoked(ctx context.Context, _ route.Caller, in route.Page) (out route.Keys, err error) {
	b, err := e.book(ctx)
	if err != nil {
		return out, err
	}
	seen := map[string]bool{}
	for _, i := range b.Issuers {
		if seen[i.authority] {
			continue
		}
		seen[i.authority] = true
		page, err := e.serials(ctx, revokedRows+i.authority+"/", in)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return out, err
		}
		out.Keys = append(out.Keys, page.Keys...)
	}
	return pageOf(out.Keys, in).Found()
}

func (e *Engine) revokeIssuer(ctx context.Context, _ route.Caller, in IssuerRef) (out Issuer, err error) {
	var by *issuer
	if err := e.change(ctx, func(t engine.Txn, b *book) error {
		by = nil
		i, err := b.find(in.Ref)
		if err != nil {
			return err
		}
		if i.Revoked.IsZero() {
			i.Revoked = time.Now().UTC().Truncate(time.Second)
		}
		i.Usage = without(i.Usage, usageIssue)
		for _, o := range b.Issuers {
			if o != i && o.authority != i.authority && signed(o.cert, i.cert) {
				by = o
			}
		}
		if by != nil {
			if i.Revoked, err = strikeIn(t, i.cert, by); err != nil {
				return err
			}
		}
		out = i.shown()
		return nil
	}); err != nil {
		return out, err
	}
	if by == nil {
		out.Warn("The issuer is signed by none of the others here, and so in no list: whoever trusts it has to be told.")
		return out, nil
	}
	return out, e.build(ctx, by.authority, false)
}

// revokeLease revokes the certificate that was lent.
func (e *Engine) revokeLease(ctx context.Context, l engine.Leased) error {
	var of lent
	if err := l.Into(&of); err != nil {
		return err
	}
	kept, err := e.find(ctx, of.Serial)
	if err != nil || kept == nil || !kept.Revoked.IsZero() || time.Now().Add(endsSoon).After(kept.Expires) {
		return err
	}
	c, err := x509.ParseCertificate(kept.Certificate)
	if err != nil {
		return err
	}
	_, err = e.revokeCert(ctx, c)
	return err
}

// IsRevoked reports when a serial number of an authority was revoked; the zero time
// is never.
func (e *Engine) revokedAt(ctx context.Context, authority string, serial *big.Int) (time.Time, error) {
	name := revokedRows + authority + "/" + serialKey(serial)
	row, err := e.env.Recent(ctx, name)
	g, err := storage.Decode[gone](name, row, err)
	if err != nil || g == nil {
		return time.Time{}, err
	}
	return g.At, nil
}
