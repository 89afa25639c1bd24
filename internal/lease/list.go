package lease

import (
	"context"
	"errors"
	"strings"

	"github.com/cofferhq/coffer/internal/storage"
)

// Names returns, in order, up to limit names directly below a part of the keys,
// which ends in a slash; those of leases, and with a slash at the end those of
// paths.
func (b *Book) Names(ctx context.Context, below, after string, limit int) (names []string, err error) {
	err = b.Engine.View(ctx, func(r storage.Reader) error {
		names, err = r.List(rowKey(below), after, limit)
		return err
	})
	return names, err
}

// Troubled returns up to limit of the leases that could not be taken back yet,
// those of keys after one.
func (b *Book) Troubled(ctx context.Context, after string, limit int) (out []*Lease, err error) {
	if after != "" {
		after = troubleKey(after)
	}
	err = b.Engine.View(ctx, func(r storage.Reader) error {
		out = nil
		rows, err := r.Scan(troublePrefix, after, limit)
		if err != nil {
			return err
		}
		for _, row := range rows {
			l, err := find(r, strings.TrimPrefix(row.Key, troublePrefix))
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			out = append(out, l)
		}
		return nil
	})
	return out, err
}
