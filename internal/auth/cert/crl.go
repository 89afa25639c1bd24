package cert

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Limits of revocation lists.
const (
	maxCRL    = 16 << 20 // bytes of a list that is fetched; an upload has the request's limit
	maxSerial = 40       // bytes of a serial number; RFC 5280 has 20
	maxCRLs   = 1000
	partSize  = 10_000 // serial numbers in a row
)

// crl is a revocation list's row. Its serial numbers are in rows of their own.
type crl struct {
	ID         string    `json:"id"` // of its parts, with the time in it (UUID version 7)
	Parts      int       `json:"parts"`
	Serials    int       `json:"serials"`
	URL        string    `json:"url,omitempty"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update,omitzero"`
	TryAt      time.Time `json:"try_at,omitzero"` // when it is fetched again
}

// NamedCRL names a revocation list.
type NamedCRL struct {
	Name string `path:"name" doc:"The list's name, in any case."`
}

func (n NamedCRL) crl() (string, error) { return auth.NameOf("CRL", n.Name) }

// WriteCRL uploads a list or names its URL.
type WriteCRL struct {
	NamedCRL
	CRL string `json:"crl" doc:"The list, in PEM, or its DER in base64. That its time is over does not end it: delete it."`
	URL string `json:"url" doc:"Where the list is fetched, now and every hour."`
}

// ReadCRL is a revocation list.
type ReadCRL struct {
	Serials revokedSerials `json:"serials" doc:"The serial numbers that are revoked, in decimal."`
	CDP     *CDP           `json:"cdp,omitempty" doc:"Where it is fetched."`
}

// CDP is where a revocation list is fetched.
type CDP struct {
	URL        string    `json:"url"`
	ValidUntil time.Time `json:"valid_until" doc:"When the authority means to have issued the next."`
}

// revokedSerials is answered as an object whose members are the numbers.
type revokedSerials []string

// MarshalJSON writes {"7":{},"8":{}}.
func (s revokedSerials) MarshalJSON() ([]byte, error) {
	out := make(map[string]struct{}, len(s))
	for _, serial := range s {
		out[serial] = struct{}{}
	}
	return json.Marshal(out)
}

// parseCRL reads a revocation list in PEM, DER, or the base64 of either.
func parseCRL(raw []byte) (*x509.RevocationList, error) {
	if block, _ := pem.Decode(raw); block != nil {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("it is PEM of something that is no CRL")
		}
		raw = block.Bytes
	} else if der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(raw))); err == nil {
		raw = der
		if block, _ := pem.Decode(raw); block != nil && block.Type == "X509 CRL" {
			raw = block.Bytes
		}
	}
	list, err := x509.ParseRevocationList(raw)
	if err != nil {
		return nil, fmt.Errorf("it is no CRL of version 2 (RFC 5280) in PEM or DER")
	}
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber == nil || len(e.SerialNumber.Bytes()) > maxSerial {
			return nil, fmt.Errorf("it has a serial number longer than %d bytes", maxSerial)
		}
	}
	return list, nil
}

func (m *Method) listCRLs(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return engine.Names(ctx, m.storage, crlPrefix, in)
}

func (m *Method) readCRL(ctx context.Context, _ route.Caller, in NamedCRL) (out ReadCRL, err error) {
	name, err := in.crl()
	if err != nil {
		return out, err
	}
	err = m.storage.View(ctx, func(r storage.Reader) error {
		out = ReadCRL{}
		list, err := storage.Load[crl](r, crlPrefix+name)
		if err != nil {
			return err
		}
		if list == nil {
			return errNoCRL(name)
		}
		if list.URL != "" {
			out.CDP = &CDP{list.URL, list.NextUpdate}
		}
		return eachSerial(r, list, func(serial []byte) { out.Serials = append(out.Serials, new(big.Int).SetBytes(serial).String()) })
	})
	return out, err
}

func errNoCRL(name string) error { return fault.New(fault.Invalid, "no such CRL %s", name) }

func (m *Method) writeCRL(ctx context.Context, _ route.Caller, in WriteCRL) (route.Empty, error) {
	name, err := in.crl()
	if err != nil {
		return route.Empty{}, err
	}
	switch {
	case in.CRL != "" && in.URL != "":
		return route.Empty{}, fault.New(fault.Invalid, "give one of 'crl' and 'url', not both")
	case in.CRL != "":
		list, err := parseCRL([]byte(in.CRL))
		if err != nil {
			return route.Empty{}, fault.New(fault.Invalid, "failed to parse CRL: %v", err)
		}
		return route.Empty{}, m.keep(ctx, name, list, "")
	case in.URL != "":
		if _, err := remote.CheckURL(in.URL); err != nil {
			return route.Empty{}, fault.New(fault.Invalid, "invalid CRL url: %v", err)
		}
		list, err := m.fetch(ctx, in.URL)
		if err != nil {
			return route.Empty{}, fault.New(fault.Invalid, "the CRL at that url cannot be used: %v", err)
		}
		return route.Empty{}, m.keep(ctx, name, list, in.URL)
	}
	return route.Empty{}, fault.New(fault.Invalid, "one of 'crl' or 'url' must be provided")
}

// keep stores a list in place of an earlier one of its name: its parts first, each
// in an Update of its own, and then the row that makes them count.
func (m *Method) keep(ctx context.Context, name string, list *x509.RevocationList, url string) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	now := crl{ID: id.String(), Serials: len(list.RevokedCertificateEntries), URL: url, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate}
	if url != "" {
		now.TryAt = time.Now().UTC().Add(fetchEvery)
	}
	for rest := list.RevokedCertificateEntries; len(rest) > 0; now.Parts++ {
		part := make([][]byte, 0, min(partSize, len(rest)))
		for _, e := range rest[:min(partSize, len(rest))] {
			part = append(part, e.SerialNumber.Bytes())
		}
		rest = rest[len(part):]
		if _, err := m.storage.Update(ctx, func(t storage.Txn) error { return storage.Save(t, partKey(now.ID, now.Parts), part) }); err != nil {
			return m.forget(context.WithoutCancel(ctx), &now, err)
		}
	}
	var before *crl
	_, err = m.storage.Update(ctx, func(t storage.Txn) (err error) {
		if before, err = storage.Load[crl](t, crlPrefix+name); err != nil {
			return err
		}
		more := 0
		if before == nil {
			more = 1
			if n, err := count(t, crlState); err != nil {
				return err
			} else if n >= maxCRLs {
				return fault.New(fault.Invalid, "the method has %d revocation lists, and more it cannot have", n)
			}
		}
		if err := storage.Save(t, crlPrefix+name, now); err != nil {
			return err
		}
		return changed(t, crlState, more)
	})
	if err != nil {
		return m.forget(context.WithoutCancel(ctx), &now, err)
	}
	return m.forget(context.WithoutCancel(ctx), before, nil)
}

func partKey(id string, n int) string { return fmt.Sprintf("%s%s/%06d", partPrefix, id, n) }

// forget removes the parts of a list that counts no more, and returns why.
func (m *Method) forget(ctx context.Context, list *crl, why error) error {
	if list == nil {
		return why
	}
	for n := range list.Parts {
		if _, err := m.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(partKey(list.ID, n)) }); err != nil {
			m.log.Warn("parts of an old revocation list are not removed", "error", err)
			return why
		}
	}
	return why
}

func (m *Method) removeCRL(ctx context.Context, _ route.Caller, in NamedCRL) (route.Empty, error) {
	name, err := in.crl()
	if err != nil {
		return route.Empty{}, err
	}
	var before *crl
	_, err = m.storage.Update(ctx, func(t storage.Txn) (err error) {
		if before, err = storage.Load[crl](t, crlPrefix+name); err != nil {
			return err
		}
		if before == nil {
			return errNoCRL(name)
		}
		if err := t.Delete(crlPrefix + name); err != nil {
			return err
		}
		return changed(t, crlState, -1)
	})
	if err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, m.forget(context.WithoutCancel(ctx), before, nil)
}

// eachSerial calls do with the bytes of each serial number of a list.
func eachSerial(r storage.Reader, list *crl, do func([]byte)) error {
	for n := range list.Parts {
		part, err := storage.Load[[][]byte](r, partKey(list.ID, n))
		if err != nil {
			return err
		}
		if part == nil {
			return fmt.Errorf("part %d of a revocation list is missing", n)
		}
		for _, serial := range *part {
			do(serial)
		}
	}
	return nil
}

// revocations is what all lists of a mount revoke. A number counts whoever issued
// the certificate: two authorities that give one number refuse too much, and never
// too little.
type revocations struct {
	serials map[string]struct{} // by their bytes
}

func loadRevocations(r storage.Reader, _ *revocations) (*revocations, error) {
	out := &revocations{serials: map[string]struct{}{}}
	err := storage.All(r, crlPrefix, func(e storage.Entry) error {
		list, err := storage.Decode[crl](e.Key, e.Value, nil)
		if err != nil {
			return err
		}
		return eachSerial(r, list, func(serial []byte) { out.serials[string(serial)] = struct{}{} })
	})
	return out, err
}

// has reports whether a certificate of the chain is revoked.
func (r *revocations) has(chain []*x509.Certificate) bool {
	for _, c := range chain {
		if _, revoked := r.serials[string(c.SerialNumber.Bytes())]; revoked {
			return true
		}
	}
	return false
}
