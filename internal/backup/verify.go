package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/storage"
)

// Check reads an archive without a key: that it is whole, and that its bytes are
// those that were written, as far as a checksum tells. What only the root key
// can prove it does not.
func Check(r io.Reader, watch Watcher) (Summary, error) {
	a, err := Open(r, watch)
	if err != nil {
		return Summary{}, err
	}
	return a.Each(nil)
}

// Opener returns the root keyset of an archive from its header. Its error is
// taken for that of a foreign seal unless the archive turns out to be damaged.
type Opener func(ctx context.Context, h *Header) (root []byte, err error)

// Seals is the Opener of configured seals.
func Seals(seals []seal.Named) Opener {
	return func(ctx context.Context, h *Header) ([]byte, error) {
		root, _, err := h.Seals.Unwrap(ctx, seals)
		return root, err
	}
}

// Proof is what was proven of an archive.
type Proof struct {
	Summary
	// Lost counts rows of mounts that were disabled and not cleared away when the
	// archive was made: their keys are gone, and nothing reads them.
	Lost uint64
	// AuditLogs are the newest checkpoints of the nodes' audit logs that are in the
	// store: their notes, as package audit reads them.
	AuditLogs [][]byte

	verifier *barrier.Verifier
}

// Rows that are looked into.
const (
	checkpointRows = "core/audit/checkpoint"
	tokenRows      = "core/tokens/"
)

// Verify proves that an archive can be restored: its root key is at hand, every
// row is there and decrypts under its own name.
func Verify(ctx context.Context, r io.Reader, open Opener, watch Watcher) (*Proof, error) {
	a, err := Open(r, watch)
	if err != nil {
		return nil, err
	}
	root, err := open(ctx, &a.Header)
	if err != nil {
		if _, damage := a.Each(nil); damage != nil && !errors.Is(damage, context.Canceled) {
			return nil, damage
		}
		return nil, foreign(&a.Header, err)
	}
	defer clear(root)
	v, err := barrier.NewVerifier(root)
	if err != nil {
		return nil, foreign(&a.Header, err)
	}
	return a.prove(ctx, v)
}

// foreign says whose an archive is that cannot be opened.
func foreign(h *Header, err error) error {
	return fmt.Errorf("this archive was sealed by %s (fingerprint %s); %w: %w", sealNames(&h.Seals), Fingerprint(&h.Seals), ErrForeign, err)
}

// prove reads the archive to its end.
func (a *Archive) prove(ctx context.Context, v *barrier.Verifier) (*Proof, error) {
	if err := a.Unlock(v); err != nil {
		return nil, err
	}
	p := &Proof{verifier: v.Again()}
	record := false
	sum, err := a.Each(func(e storage.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		plain, err := v.Row(e.Key, e.Value)
		switch {
		case err != nil:
			return fmt.Errorf("the store was damaged when this archive was made, and could not be opened: %w", err)
		case e.Key == seal.RecordRow:
			record = true
			return a.sameRecord(e.Value)
		case e.Key == seal.RestoreRow:
			return fmt.Errorf("%w: it is of a store that was being restored", ErrDamaged)
		case strings.HasPrefix(e.Key, checkpointRows):
			p.AuditLogs = append(p.AuditLogs, plain)
		case plain == nil && v.Lost(e.Key):
			p.Lost++
		}
		return nil
	})
	p.Summary = sum
	switch {
	case err != nil:
		return nil, err
	case !record:
		return nil, fmt.Errorf("%w: the store has no seals in it", ErrDamaged)
	}
	if err := v.Done(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return p, nil
}

// sameRecord makes sure that the header's seals are those of the rows.
func (a *Archive) sameRecord(row []byte) error {
	rec, err := seal.Parse(row)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if rec.Store != a.Header.Seals.Store || rec.Generation != a.Header.Seals.Generation || rec.Pending {
		return fmt.Errorf("%w: its header is of another store", ErrDamaged)
	}
	return nil
}

// Prove is Verify on an open server, which has the root key already.
func Prove(ctx context.Context, r io.Reader, v *barrier.Verifier, watch Watcher) (*Proof, error) {
	a, err := Open(r, watch)
	if err != nil {
		return nil, err
	}
	return a.prove(ctx, v)
}
