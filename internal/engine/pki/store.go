package pki

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// stored is the row of a certificate.
type stored struct {
	Certificate []byte    `json:"certificate"`
	Authority   string    `json:"authority"`
	Issuer      string    `json:"issuer_id"`
	Expires     time.Time `json:"expires"`
	Revoked     time.Time `json:"revoked,omitzero"`
}

// colons writes hexadecimal digits as serial numbers are shown: 0a:1b:2c.
func colons(digits string) string {
	var b strings.Builder
	b.Grow(len(digits) * 3 / 2)
	for i := 0; i+2 <= len(digits); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(digits[i : i+2])
	}
	return b.String()
}

// serialOf is a certificate's serial number as it is shown.
func serialOf(c *x509.Certificate) string { return colons(serialKey(c.SerialNumber)) }

// serialKey is a serial number as it stands in the names of rows.
func serialKey(n *big.Int) string { return hex.EncodeToString(n.Bytes()) }

// parseSerial reads a serial number as people write it, with colons, dashes or nothing
// between its digits, and returns it as it stands in the names of rows.
func parseSerial(text string) (string, error) {
	digits := strings.ToLower(strings.NewReplacer(":", "", "-", "", " ", "").Replace(strings.TrimSpace(text)))
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) == 0 || len(raw) > 64 {
		return "", fault.New(fault.Invalid, "%q is no serial number such as 17:67:16:b0:b9:45", shown(text))
	}
	return serialKey(new(big.Int).SetBytes(raw)), nil
}

// newSerial is a serial number that nobody guesses, of 20 bytes at most (RFC 5280
// section 4.1.2.2).
func newSerial() *big.Int {
	b := make([]byte, 20)
	_, _ = rand.Read(b) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

func pemOf(der []byte) string {
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// text writes a certificate in a format.
func text(der []byte, format string) string {
	if format == key.DER {
		return base64.StdEncoding.EncodeToString(der)
	}
	return pemOf(der)
}

// text writes an issuer's certificate in a format.
func (i *issuer) text(format string) string {
	if format == key.DER {
		return text(i.Certificate, format)
	}
	return i.pem
}

// signing is a certificate to be signed.
type signing struct {
	template *x509.Certificate
	public   crypto.PublicKey
	by       *issuer
	bits     int // of the hash
	pss      bool
	ca       bool
}

// sign signs a certificate. It gives it its serial number, the addresses of its
// issuer, and an end that its issuer's allows.
func (e *Engine) sign(ctx context.Context, s signing) (der []byte, warnings []string, err error) {
	if !s.by.may(usageIssue) {
		return nil, nil, fault.New(fault.Invalid, "the issuer %s may not issue certificates: its usage has no %s", s.by.ID, usageIssue)
	}
	now := time.Now()
	if !now.Before(s.by.cert.NotAfter) {
		return nil, nil, fault.New(fault.Invalid, "the issuer %s expired at %s", s.by.ID, s.by.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	signer, err := e.signer(ctx, s.by.Key)
	if err != nil {
		return nil, nil, err
	}
	if warnings, err = s.bound(); err != nil {
		return nil, nil, err
	}
	if s.template.SignatureAlgorithm, err = key.Algorithm(signer.Public(), s.bits, s.pss); err != nil {
		return nil, nil, err
	}
	if err := e.address(ctx, s.template, s.by); err != nil {
		return nil, nil, err
	}
	s.template.SerialNumber = newSerial()
	der, err = x509.CreateCertificate(rand.Reader, s.template, s.by.cert, s.public, signer)
	if err != nil {
		// What it says is of the template, which the request made.
		return nil, nil, fault.Wrap(fault.Invalid, err, "the certificate cannot be made of what is asked for: %s", shown(strings.TrimPrefix(err.Error(), "x509: ")))
	}
	return der, warnings, nil
}

// bound keeps a certificate within its issuer's life.
func (s *signing) bound() (warnings []string, err error) {
	end := s.by.cert.NotAfter
	if !s.template.NotAfter.After(end) {
		return nil, nil
	}
	behavior := s.by.Behavior
	if s.ca && behavior == behaviorErr {
		behavior = behaviorPermit // as Vault has it
	}
	switch behavior {
	case behaviorPermit:
		return []string{"The certificate outlives its issuer, which ends at " + end.UTC().Format(time.RFC3339) + "."}, nil
	case behaviorTruncate:
		s.template.NotAfter = end
		return nil, nil
	}
	return nil, fault.New(fault.Invalid, "cannot satisfy request, as TTL would result in notAfter of %s that is beyond the expiration of the CA certificate at %s",
		s.template.NotAfter.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))
}

// keep keeps a certificate.
func (e *Engine) keep(ctx context.Context, der []byte, serial *big.Int, by *issuer, expires time.Time) error {
	_, err := e.env.Storage.Update(ctx, func(t storage.Txn) error {
		return storage.Save(t, certRows+serialKey(serial), stored{Certificate: der, Authority: by.authority, Issuer: by.ID, Expires: expires.UTC()})
	})
	return err
}

// find returns a certificate that is kept, nil when it is not.
func (e *Engine) find(ctx context.Context, serial string) (*stored, error) {
	return storage.LoadFrom[stored](ctx, e.env.Storage, certRows+serial)
}

// chainText is a chain in a format. A root that people have anyway can be left out.
func chainText(chain []*issuer, format string, withoutRoots bool) (out []string) {
	for _, i := range chain {
		if withoutRoots && selfSigned(i.cert) {
			continue
		}
		out = append(out, i.text(format))
	}
	return out
}

// bundled is what stands in place of a certificate where its format is pem_bundle.
func bundled(private, certificate string, chain []string) string {
	parts := make([]string, 0, len(chain)+2)
	if private != "" {
		parts = append(parts, private)
	}
	return strings.Join(append(append(parts, certificate), chain...), "\n")
}
