package seal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// RecordRow is the key of the record in the engine below the barrier.
const RecordRow = "seal/config"

// RestoreRow is there while a restore writes the store; only package backup
// writes it. Until it is gone there is no record to be had, so that no node can
// initialize, open or change what is half there.
const RestoreRow = "seal/restore"

// recordVersion is the layout of the row.
const recordVersion = 1

// wrapTimeout bounds one call of one seal, so that a key service that hangs
// does not keep the next from being tried.
const wrapTimeout = 15 * time.Second

// Errors of the record. They come wrapped with names.
var (
	ErrNoRecord  = errors.New("the store has no seals: it is not initialized")
	ErrChanged   = errors.New("the seals were changed by another node meanwhile; try again")
	ErrUnopened  = errors.New("no seal opens the root key")
	ErrLastSeal  = errors.New("the last seal cannot be removed: nothing could open the store any more")
	ErrNotAtHand = errors.New("seal wraps the root key but is not at hand")
	ErrUnknown   = errors.New("no such seal")
	ErrExists    = errors.New("a seal of this name wraps the root key already")
	ErrRestoring = errors.New("this store was being restored from an archive and is not complete; run `coffer operator restore` again with the same archive, which finishes it")
)

// Record says which seals wrap the root keyset. It is stored as it is, outside
// the barrier, and holds nothing secret: without one of its seals it is of no
// use, and whoever changes it can at most lock the store.
type Record struct {
	Version    int       `json:"version"`
	Store      string    `json:"store"`      // random name of the store; wraps are bound to it
	Generation uint64    `json:"generation"` // grows by one with each change
	Created    time.Time `json:"created"`
	// Pending is set from the first step of initialization to its last. What is
	// found with it was never handed to anybody and may be started over.
	Pending  bool      `json:"pending,omitempty"`
	Seals    []Wrapped `json:"seals"`
	Shares   *Shares   `json:"shares,omitempty"`   // of the seal that people open
	Recovery *Shares   `json:"recovery,omitempty"` // of the recovery key
}

// Wrapped is the root keyset as one seal keeps it.
type Wrapped struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`
	Root    []byte    `json:"root"`
	Created time.Time `json:"created"`
}

// Shares says how a key is split: any Threshold of Shares rebuild it.
type Shares struct {
	Shares    int `json:"shares"`
	Threshold int `json:"threshold"`
}

// NewRecord returns the record of a new store, without seals.
func NewRecord() *Record {
	id := make([]byte, 16)
	rand.Read(id)
	return &Record{Version: recordVersion, Store: hex.EncodeToString(id), Created: now()}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// Load reads the record; r is of the engine below the barrier.
func Load(r storage.Reader) (*Record, error) {
	switch _, err := r.Get(RestoreRow); {
	case err == nil:
		return nil, ErrRestoring
	case !errors.Is(err, storage.ErrNotFound):
		return nil, err
	}
	row, err := r.Get(RecordRow)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, ErrNoRecord
	}
	if err != nil {
		return nil, err
	}
	return Parse(row)
}

// Parse reads a record as it was stored.
func Parse(row []byte) (*Record, error) {
	var rec Record
	if err := json.Unmarshal(row, &rec); err != nil {
		return nil, fmt.Errorf("the row %s is malformed; restore it from a backup: %w", RecordRow, err)
	}
	if rec.Version != recordVersion {
		return nil, fmt.Errorf("the row %s has version %d, this program knows %d", RecordRow, rec.Version, recordVersion)
	}
	return &rec, nil
}

// Put stores the record as the next generation. It returns ErrChanged if the
// stored one is not the generation that rec was loaded from.
func (rec *Record) Put(t storage.Txn) error {
	stored, err := Load(t)
	switch {
	case errors.Is(err, ErrNoRecord):
		stored = &Record{Store: rec.Store}
	case err != nil:
		return err
	}
	if stored.Store != rec.Store || stored.Generation != rec.Generation {
		return ErrChanged
	}
	next := *rec
	next.Generation++
	row, err := json.Marshal(next)
	if err != nil {
		return err
	}
	return t.Put(RecordRow, row)
}

// Delete removes the record.
func Delete(t storage.Txn) error { return t.Delete(RecordRow) }

// Has reports whether the named seal wraps the root keyset.
func (rec *Record) Has(name string) bool { return rec.index(name) >= 0 }

func (rec *Record) index(name string) int {
	return slices.IndexFunc(rec.Seals, func(w Wrapped) bool { return w.Name == name })
}

// aad binds a wrap to its store and seal.
func (rec *Record) aad(name string) []byte {
	return []byte("coffer root key\x00" + rec.Store + "\x00" + name)
}

// Unwrap returns the root keyset and the name of the seal that opened it. It
// tries the given seals in their order. If none opens it, the error is
// ErrUnopened with what each said.
func (rec *Record) Unwrap(ctx context.Context, seals []Named) (root []byte, by string, err error) {
	errs := []error{ErrUnopened}
	for _, s := range seals {
		i := rec.index(s.Name)
		if s.Seal == nil || i < 0 {
			continue
		}
		root, err := unwrap(ctx, s.Seal, rec.Seals[i].Root, rec.aad(s.Name))
		if err == nil {
			return root, s.Name, nil
		}
		errs = append(errs, fmt.Errorf("seal %q (%s): %w", s.Name, s.Kind, err))
	}
	for _, w := range rec.Seals {
		if !slices.ContainsFunc(seals, func(s Named) bool { return s.Name == w.Name && s.Seal != nil }) {
			errs = append(errs, fmt.Errorf("seal %q (%s): %w", w.Name, w.Kind, ErrNotAtHand))
		}
	}
	return nil, "", errors.Join(errs...)
}

func unwrap(ctx context.Context, s Seal, wrapped, aad []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wrapTimeout)
	defer cancel()
	return s.Unwrap(ctx, wrapped, aad)
}

// wrap wraps root and makes sure that it can be unwrapped again.
func (rec *Record) wrap(ctx context.Context, s Named, root []byte) (Wrapped, error) {
	ctx, cancel := context.WithTimeout(ctx, wrapTimeout)
	defer cancel()
	if s.Seal == nil {
		return Wrapped{}, fmt.Errorf("seal %q (%s): %w", s.Name, s.Kind, ErrNotAtHand)
	}
	wrapped, err := s.Seal.Wrap(ctx, root, rec.aad(s.Name))
	if err != nil {
		return Wrapped{}, fmt.Errorf("seal %q (%s): %w", s.Name, s.Kind, err)
	}
	back, err := s.Seal.Unwrap(ctx, wrapped, rec.aad(s.Name))
	defer clear(back)
	if err != nil || string(back) != string(root) {
		return Wrapped{}, fmt.Errorf("seal %q (%s) does not unwrap what it wraps: %w", s.Name, s.Kind, err)
	}
	return Wrapped{Name: s.Name, Kind: s.Kind, Root: wrapped, Created: now()}, nil
}

// Add lets s wrap root too. Put stores the outcome, as after each change.
func (rec *Record) Add(ctx context.Context, s Named, root []byte) error {
	if rec.Has(s.Name) {
		return fmt.Errorf("%w: %q", ErrExists, s.Name)
	}
	w, err := rec.wrap(ctx, s, root)
	if err == nil {
		rec.Seals = append(slices.Clone(rec.Seals), w)
	}
	return err
}

// Replace lets s wrap root in place of the wrap of the same name.
func (rec *Record) Replace(ctx context.Context, s Named, root []byte) error {
	i := rec.index(s.Name)
	if i < 0 {
		return fmt.Errorf("%w: %q", ErrUnknown, s.Name)
	}
	w, err := rec.wrap(ctx, s, root)
	if err == nil {
		rec.Seals = slices.Clone(rec.Seals)
		rec.Seals[i] = w
	}
	return err
}

// Remove takes the named seal away. The last one stays: ErrLastSeal.
func (rec *Record) Remove(name string) error {
	i := rec.index(name)
	switch {
	case i < 0:
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	case len(rec.Seals) == 1:
		return ErrLastSeal
	}
	rec.Seals = slices.Delete(slices.Clone(rec.Seals), i, i+1)
	return nil
}

// Rewrap lets every seal of the record wrap root anew. All of them must be
// among seals; one that is lost is removed first.
func (rec *Record) Rewrap(ctx context.Context, seals []Named, root []byte) error {
	next := make([]Wrapped, len(rec.Seals))
	for i, w := range rec.Seals {
		s := Named{Name: w.Name, Kind: w.Kind}
		if j := slices.IndexFunc(seals, func(s Named) bool { return s.Name == w.Name }); j >= 0 {
			s = seals[j]
		}
		var err error
		if next[i], err = rec.wrap(ctx, s, root); err != nil {
			return err
		}
	}
	rec.Seals = next
	return nil
}
