// Package format marks in a store which releases can use it, so that nodes of
// two releases in a row can share one while they are replaced one by one, and a
// node that is too old or too new refuses it before it reads or writes a row
// wrongly.
//
// The store's format is raised once every live node knows the new one; until
// then newer nodes write what the older ones can read. It does not convert
// anything: that is the business of whoever owns the rows.
package format

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cofferhq/coffer/internal/storage"
)

// Current is the newest format that this release knows. It also knows the one
// before.
const Current = 1

// Row is the key of the marker.
const Row = "core/format"

// ErrSkew says that this release cannot use the store.
var ErrSkew = errors.New("the store's format and this release do not fit")

// Marker is what stands in a store.
type Marker struct {
	Format  int    `json:"format"`  // what rows may look like
	Release string `json:"release"` // of the node that raised it, for messages
}

// Release is one release of Coffer.
type Release struct {
	Knows int    // the newest format it knows
	Name  string // such as "0.1.0"
}

// Enter checks that the release can use the store, and marks one that is not
// marked yet. It returns the store's format: rows must be written in it. An error
// is ErrSkew, or the engine's. A node enters after it has made itself known as a
// live one, so that no other raises the format between the two.
func (r Release) Enter(ctx context.Context, e storage.Engine) (int, error) {
	var m Marker
	_, err := e.Update(ctx, func(t storage.Txn) (err error) {
		m, err = read(t)
		if errors.Is(err, storage.ErrNotFound) {
			m = Marker{Format: r.Knows, Release: r.Name}
			return m.put(t)
		}
		if err != nil {
			return err
		}
		return r.fits(m)
	})
	return m.Format, err
}

func (r Release) fits(m Marker) error {
	switch {
	case m.Format > r.Knows:
		return fmt.Errorf("%w: it was raised to format %d by release %s, and release %s knows no more than %d; start a newer release on this node",
			ErrSkew, m.Format, m.Release, r.Name, r.Knows)
	case m.Format < r.Knows-1:
		return fmt.Errorf("%w: it has format %d, last raised by release %s, and release %s knows %d and %d; start the releases in between first, one after the other",
			ErrSkew, m.Format, m.Release, r.Name, r.Knows-1, r.Knows)
	}
	return nil
}

// Raise raises the store's format to what the release knows when every live node
// knows it too, and returns the format that the store has then. live reads, in
// the transaction, the newest format that each live node knows.
func (r Release) Raise(ctx context.Context, e storage.Engine, live func(storage.Reader) ([]int, error)) (int, error) {
	var m Marker
	_, err := e.Update(ctx, func(t storage.Txn) (err error) {
		if m, err = read(t); err != nil || m.Format >= r.Knows {
			return err
		}
		all, err := live(t)
		if err != nil || slices.ContainsFunc(all, func(knows int) bool { return knows < r.Knows }) {
			return err
		}
		m = Marker{Format: r.Knows, Release: r.Name}
		return m.put(t)
	})
	return m.Format, err
}

func read(r storage.Reader) (m Marker, err error) {
	text, err := r.Get(Row)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil || m.Format < 1 {
		return m, fmt.Errorf("the row %s cannot be read: %w", Row, errors.Join(err, ErrSkew))
	}
	return m, nil
}

func (m Marker) put(t storage.Txn) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return t.Put(Row, text)
}
