package pki

import (
	"context"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var fetchRoutes = []route.Route[*Engine]{
	route.New("GET", "ca", "The default issuer's certificate, in DER.", (*Engine).fetchCA, route.Public(),
		route.Shows("ca", "", "")),
	route.New("GET", "ca/pem", "The default issuer's certificate, in PEM.", (*Engine).fetchCAPEM, route.Public(),
		route.Shows("ca/pem", "", "")),
	route.New("GET", "ca_chain", "The default issuer's certificate and those above it, in PEM.", (*Engine).fetchChain, route.Public(),
		route.Shows("ca_chain", "", "")),
	route.New("GET", "cert/ca_chain", "The default issuer's certificate and those above it.", (*Engine).certChain, route.Public(),
		route.Shows("cert/ca_chain", "", "")),
	route.New("GET", "cert/ca", "The default issuer's certificate.", (*Engine).certCA, route.Public(),
		route.Shows("cert/ca", "", "")),
	route.New("GET", "cert/{serial}", "Read a certificate that is kept, and whether it is revoked.", (*Engine).readCert, route.Public(),
		route.Shows("cert/17:67:16:b0:b9:45:58:c0:3a:29:e3:cb:d6:98:33:7a:a6:3b:66:c1", "", "")),
	route.New("GET", "cert/{serial}/raw", "A certificate that is kept, in DER.", (*Engine).readCertDER, route.Public(),
		route.Shows("cert/17:67:16:b0:b9:45/raw", "", "")),
	route.New("GET", "cert/{serial}/raw/pem", "A certificate that is kept, in PEM.", (*Engine).readCertPEM, route.Public(),
		route.Shows("cert/17:67:16:b0:b9:45/raw/pem", "", "")),
	route.New("LIST", "certs", "List the serial numbers of the certificates that are kept.", (*Engine).listCerts,
		route.Shows("certs", "", "")),
	route.New("GET", "issuer/{issuer_ref}/json", "An issuer's certificate and its chain.", (*Engine).issuerJSON, route.Public(),
		route.Shows("issuer/default/json", "", "")),
	route.New("GET", "issuer/{issuer_ref}/der", "An issuer's certificate, in DER.", (*Engine).issuerDER, route.Public(),
		route.Shows("issuer/default/der", "", "")),
	route.New("GET", "issuer/{issuer_ref}/pem", "An issuer's certificate, in PEM.", (*Engine).issuerPEM, route.Public(),
		route.Shows("issuer/default/pem", "", "")),
}

const (
	typeDER = "application/pkix-cert"
	typePEM = "application/pem-certificate-chain"
)

// published returns an issuer, and no error that says more than that it is not there.
func (e *Engine) published(ctx context.Context, ref string) (*issuer, error) {
	b, err := e.lately(ctx)
	if err != nil {
		return nil, err
	}
	i, err := b.find(ref)
	if err != nil {
		return nil, fault.New(fault.NotFound, "%s", err)
	}
	return i, nil
}

func (e *Engine) fetchCA(ctx context.Context, by route.Caller, _ route.Nothing) (route.Raw, error) {
	return e.issuerDER(ctx, by, IssuerRef{byDefault})
}

func (e *Engine) fetchCAPEM(ctx context.Context, by route.Caller, _ route.Nothing) (route.Raw, error) {
	return e.issuerPEM(ctx, by, IssuerRef{byDefault})
}

func (e *Engine) issuerDER(ctx context.Context, _ route.Caller, in IssuerRef) (route.Raw, error) {
	i, err := e.published(ctx, in.Ref)
	if err != nil {
		return route.Raw{}, err
	}
	return route.Raw{ContentType: typeDER, Body: i.Certificate}, nil
}

func (e *Engine) issuerPEM(ctx context.Context, _ route.Caller, in IssuerRef) (route.Raw, error) {
	i, err := e.published(ctx, in.Ref)
	if err != nil {
		return route.Raw{}, err
	}
	return route.Raw{ContentType: typePEM, Body: []byte(pemOf(i.Certificate) + "\n")}, nil
}

func (e *Engine) fetchChain(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Raw, error) {
	i, err := e.published(ctx, byDefault)
	if err != nil {
		return route.Raw{}, err
	}
	return route.Raw{ContentType: typePEM, Body: []byte(strings.Join(chainText(i.chain, "", false), "\n") + "\n")}, nil
}

// Cert is a certificate in Vault's shape.
type Cert struct {
	Certificate string       `json:"certificate"`
	Chain       wire.Strings `json:"ca_chain,omitempty"`
	RevokedAt   int64        `json:"revocation_time"`
	RevokedTime string       `json:"revocation_time_rfc3339,omitempty"`
	Issuer      string       `json:"issuer_id,omitempty"`
}

func (e *Engine) certChain(ctx context.Context, _ route.Caller, _ route.Nothing) (Cert, error) {
	i, err := e.published(ctx, byDefault)
	if err != nil {
		return Cert{}, err
	}
	chain := chainText(i.chain, "", false)
	return Cert{Certificate: strings.Join(chain, "\n"), Chain: chain}, nil
}

func (e *Engine) certCA(ctx context.Context, _ route.Caller, _ route.Nothing) (Cert, error) {
	i, err := e.published(ctx, byDefault)
	if err != nil {
		return Cert{}, err
	}
	return Cert{Certificate: pemOf(i.Certificate)}, nil
}

// IssuerCert is an issuer's certificate.
type IssuerCert struct {
	Certificate string       `json:"certificate"`
	Chain       wire.Strings `json:"ca_chain"`
	Issuer      string       `json:"issuer_id"`
	Name        string       `json:"issuer_name"`
}

func (e *Engine) issuerJSON(ctx context.Context, _ route.Caller, in IssuerRef) (IssuerCert, error) {
	i, err := e.published(ctx, in.Ref)
	if err != nil {
		return IssuerCert{}, err
	}
	return IssuerCert{Certificate: pemOf(i.Certificate) + "\n", Chain: chainText(i.chain, "", false), Issuer: i.ID, Name: i.Name}, nil
}

// Serial names a certificate.
type Serial struct {
	Serial string `path:"serial" doc:"The serial number, with colons or dashes between its digits."`
}

func (e *Engine) cert(ctx context.Context, text string) (*stored, error) {
	serial, err := parseSerial(text)
	if err != nil {
		return nil, err
	}
	c, err := e.find(ctx, serial)
	if err == nil && c == nil {
		err = route.Missing()
	}
	return c, err
}

func (e *Engine) readCert(ctx context.Context, _ route.Caller, in Serial) (Cert, error) {
	c, err := e.cert(ctx, in.Serial)
	if err != nil {
		return Cert{}, err
	}
	out := Cert{Certificate: pemOf(c.Certificate) + "\n", Issuer: c.Issuer}
	if !c.Revoked.IsZero() {
		out.RevokedAt, out.RevokedTime = c.Revoked.Unix(), c.Revoked.UTC().Format(time.RFC3339Nano)
	}
	return out, nil
}

func (e *Engine) readCertDER(ctx context.Context, _ route.Caller, in Serial) (route.Raw, error) {
	c, err := e.cert(ctx, in.Serial)
	if err != nil {
		return route.Raw{}, err
	}
	return route.Raw{ContentType: typeDER, Body: c.Certificate}, nil
}

func (e *Engine) readCertPEM(ctx context.Context, _ route.Caller, in Serial) (route.Raw, error) {
	c, err := e.cert(ctx, in.Serial)
	if err != nil {
		return route.Raw{}, err
	}
	return route.Raw{ContentType: typePEM, Body: []byte(pemOf(c.Certificate) + "\n")}, nil
}

func (e *Engine) listCerts(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return e.serials(ctx, certRows, in)
}

// serials lists serial numbers below a prefix, as they are shown.
func (e *Engine) serials(ctx context.Context, prefix string, in route.Page) (route.Keys, error) {
	if in.After != "" {
		after, err := parseSerial(in.After)
		if err != nil {
			return route.Keys{}, err
		}
		in.After = after
	}
	out, err := engine.Names(ctx, e.env.Storage, prefix, in)
	for n, k := range out.Keys {
		out.Keys[n] = colons(k)
	}
	return out, err
}
