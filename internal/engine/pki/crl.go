package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// An authority's list of revoked certificates is made by whoever revokes one, or by
// the clock, and kept in pieces that fit into rows. Its head says which pieces are
// the list; a list that is made is nothing until its head is written.

const (
	listsTask = "crl"
	headRows  = "crl/"      // by authority
	pieceRows = "crlpiece/" // by authority, make and number
	pieceSize = 512 << 10
	maxPieces = 80
	// soon is how long whoever revoked has to make the list before a worker does.
	soon = 10 * time.Second
	// overlap is how much earlier than its base a delta list begins, for clocks that
	// differ and commits that took long.
	overlap = 10 * time.Minute
)

// list is a list that was made, in its head.
type list struct {
	Number int64     `json:"number"`
	Made   time.Time `json:"made"`
	Next   time.Time `json:"next"`
	Make   string    `json:"make"` // names its pieces
	Pieces int       `json:"pieces"`
}

// head says which lists of an authority are the current ones.
type head struct {
	Number int64 `json:"number"` // the last that was given
	Full   list  `json:"full"`
	Delta  list  `json:"delta,omitzero"`
}

// snapshot is what a list is made of.
type snapshot struct {
	config  crlConfig
	head    head
	by      *issuer
	stale   []byte
	entries []x509.RevocationListEntry
}

var errNoList = fault.New(fault.Invalid, "no issuer of it has its key and may sign lists")

// signerOf returns the issuer that signs an authority's lists: of those that may, the
// one that lasts longest.
func (b *book) signerOf(authority, usage string) *issuer {
	var best *issuer
	for _, i := range b.Issuers {
		if i.authority == authority && i.Key != "" && i.may(usage) && (best == nil || i.cert.NotAfter.After(best.cert.NotAfter)) {
			best = i
		}
	}
	return best
}

func (b *book) authorities() (out []string) {
	for _, i := range b.Issuers {
		if !slices.Contains(out, i.authority) {
			out = append(out, i.authority)
		}
	}
	return out
}

// survey reads what a list is made of: everything that is revoked, or of a delta what
// is since its base.
func (e *Engine) survey(ctx context.Context, authority string, delta bool) (s snapshot, err error) {
	err = e.env.Storage.View(ctx, func(r storage.Reader) error {
		s = snapshot{}
		b, err := loadBook(r)
		if err != nil {
			return err
		}
		if s.config, err = loadCRLConfig(r); err != nil {
			return err
		}
		if s.by = b.signerOf(authority, usageCRL); s.by == nil {
			return errNoList
		}
		h, err := storage.Load[head](r, headRows+authority)
		if err != nil {
			return err
		}
		if h != nil {
			s.head = *h
		}
		if s.stale, err = r.Get(staleRows + authority); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if s.config.Disable {
			return nil
		}
		return s.collect(r, authority, delta)
	})
	return s, err
}

func (s *snapshot) collect(r storage.Reader, authority string, delta bool) error {
	prefix, after := revokedRows+authority+"/", ""
	const page = 1000
	for {
		entries, err := r.Scan(prefix, after, page)
		if err != nil {
			return err
		}
		for _, row := range entries {
			g, err := storage.Decode[gone](row.Key, row.Value, nil)
			if err != nil {
				return err
			}
			if delta && g.At.Before(s.head.Full.Made.Add(-overlap)) {
				continue
			}
			serial, ok := new(big.Int).SetString(strings.TrimPrefix(row.Key, prefix), 16)
			if !ok {
				return fmt.Errorf("row %q: its name is no serial number", row.Key)
			}
			s.entries = append(s.entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: g.At})
		}
		if len(entries) < page {
			return nil
		}
		after = entries[len(entries)-1].Key
	}
}

// oidDelta is the extension that says of which list a delta is (RFC 5280 section 5.2.4).
var oidDelta = asn1.ObjectIdentifier{2, 5, 29, 27}

// sign makes the list.
func (s *snapshot) sign(signer crypto.Signer, delta bool, now time.Time) (der []byte, next time.Time, err error) {
	algorithm, err := listAlgorithm(s.by)
	if err != nil {
		return nil, next, err
	}
	next = now.Add(duration(s.config.Expiry))
	t := &x509.RevocationList{SignatureAlgorithm: algorithm, RevokedCertificateEntries: s.entries, Number: big.NewInt(s.head.Number + 1), ThisUpdate: now.UTC(), NextUpdate: next.UTC()}
	if delta {
		base, err := asn1.Marshal(big.NewInt(s.head.Full.Number))
		if err != nil {
			return nil, next, err
		}
		t.ExtraExtensions = []pkix.Extension{{Id: oidDelta, Critical: true, Value: base}}
	}
	der, err = x509.CreateRevocationList(rand.Reader, t, s.by.cert, signer)
	return der, next, err
}

// errOvertaken says that another node wrote a list meanwhile, which may lack what this
// one has.
var errOvertaken = errors.New("another list was made meanwhile")

// make makes an authority's list, or the delta to it.
func (e *Engine) make(ctx context.Context, authority string, delta bool) error {
	for try := 0; ; try++ {
		err := e.makeOnce(ctx, authority, delta)
		if !errors.Is(err, errOvertaken) || try == 5 {
			return err
		}
	}
}

func (e *Engine) makeOnce(ctx context.Context, authority string, delta bool) error {
	s, err := e.survey(ctx, authority, delta)
	if err != nil {
		return err
	}
	signer, err := e.signer(ctx, s.by.Key)
	if err != nil {
		return err
	}
	now := time.Now()
	der, next, err := s.sign(signer, delta, now)
	if err != nil {
		return err
	}
	made := list{Number: s.head.Number + 1, Made: now.UTC(), Next: next.UTC(), Make: newSerial().Text(36)}
	var pieces [][]byte
	for piece := range slices.Chunk(der, pieceSize) {
		pieces = append(pieces, piece)
	}
	if made.Pieces = len(pieces); made.Pieces > maxPieces {
		return fault.New(fault.Invalid, "the list of revoked certificates is longer than %d bytes; tidy removes what expired", maxPieces*pieceSize)
	}
	prefix := pieceRows + authority + "/" + made.Make + "/"
	for n, piece := range pieces[1:] {
		if _, err := e.env.Storage.Update(ctx, func(t storage.Txn) error { return t.Put(pieceName(prefix, n+1), piece) }); err != nil {
			return err
		}
	}
	_, err = e.env.Agenda.Update(ctx, func(t engine.Txn) error {
		if err := t.Put(pieceName(prefix, 0), pieces[0]); err != nil {
			return err
		}
		return s.publish(t, authority, made, delta)
	})
	return err
}

func pieceName(prefix string, n int) string { return fmt.Sprintf("%s%04d", prefix, n) }

// publish writes the head.
func (s *snapshot) publish(t engine.Txn, authority string, made list, delta bool) error {
	h, err := storage.Load[head](t, headRows+authority)
	if err != nil {
		return err
	}
	if h == nil {
		h = &head{}
	}
	if h.Number != s.head.Number {
		return errOvertaken
	}
	h.Number = made.Number
	if delta {
		h.Delta = made
	} else {
		h.Full, h.Delta = made, list{}
	}
	if err := sweep(t, authority, h); err != nil {
		return err
	}
	stale, err := t.Get(staleRows + authority)
	switch {
	case errors.Is(err, storage.ErrNotFound):
	case err != nil:
		return err
	case bytes.Equal(stale, s.stale):
		if err := t.Delete(staleRows + authority); err != nil {
			return err
		}
	}
	if err := storage.Save(t, headRows+authority, h); err != nil {
		return err
	}
	next, err := nextLists(t, time.Now())
	if err != nil || next.IsZero() {
		return err
	}
	return t.Schedule(listsTask, next)
}

// sweep deletes pieces that are of no list: of those before, and of makes that never
// came to their end.
func sweep(t storage.Txn, authority string, h *head) error {
	prefix := pieceRows + authority + "/"
	rows, err := piecesBelow(t, prefix)
	if err != nil {
		return err
	}
	for _, name := range rows {
		of, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "/")
		if of == h.Full.Make || of == h.Delta.Make {
			continue
		}
		if err := t.Delete(name); err != nil {
			return err
		}
	}
	return nil
}

// piecesBelow are the names of pieces that may be deleted in one transaction.
func piecesBelow(r storage.Reader, prefix string) (out []string, err error) {
	makes, err := r.List(prefix, "", 20)
	if err != nil {
		return nil, err
	}
	for _, m := range makes {
		numbers, err := r.List(prefix+m, "", maxPieces)
		if err != nil {
			return nil, err
		}
		for _, n := range numbers {
			if len(out) < maxPieces {
				out = append(out, prefix+m+n)
			}
		}
	}
	return out, nil
}

// due says when an authority's list has to be made next, and whether that is a delta.
func (h *head) due(c crlConfig, stale bool, now time.Time) (at time.Time, delta bool) {
	if h == nil || h.Full.Made.IsZero() {
		return now, false
	}
	at = h.Full.Next.Add(-c.grace())
	if stale && !c.AutoRebuild {
		return now, false
	}
	if !c.Delta || !stale {
		return at, false
	}
	last := h.Full.Made
	if h.Delta.Made.After(last) {
		last = h.Delta.Made
	}
	if next := last.Add(duration(c.DeltaInterval)); next.Before(at) {
		return next, true
	}
	return at, false
}

// idle is how often a delta is looked for where nothing is revoked.
func (c *crlConfig) idle(at, now time.Time) time.Time {
	if next := now.Add(duration(c.DeltaInterval)); c.Delta && next.Before(at) {
		return next
	}
	return at
}

// nextLists is when the next list of any authority has to be made.
func nextLists(r storage.Reader, now time.Time) (next time.Time, err error) {
	b, err := loadBook(r)
	if err != nil {
		return next, err
	}
	c, err := loadCRLConfig(r)
	if err != nil {
		return next, err
	}
	for _, authority := range b.authorities() {
		if b.signerOf(authority, usageCRL) == nil {
			continue
		}
		h, stale, err := listState(r, authority)
		if err != nil {
			return next, err
		}
		at, delta := h.due(c, stale, now)
		if !delta {
			at = c.idle(at, now)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next, nil
}

func listState(r storage.Reader, authority string) (h *head, stale bool, err error) {
	if h, err = storage.Load[head](r, headRows+authority); err != nil {
		return nil, false, err
	}
	_, err = r.Get(staleRows + authority)
	if errors.Is(err, storage.ErrNotFound) {
		return h, false, nil
	}
	return h, err == nil, err
}
