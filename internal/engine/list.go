package engine

import (
	"context"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Names answers the page of names directly below prefix, or route.Missing when
// there are none, as Vault does.
func Names(ctx context.Context, e storage.Engine, prefix string, page route.Page) (route.Keys, error) {
	const most = 1000 // names fetched at once
	var out route.Keys
	if page.Limit < 0 {
		return out, fault.New(fault.Invalid, "limit: it must not be negative")
	}
	if len(page.After) > MaxPath {
		return out, fault.New(fault.Invalid, "after: it is longer than any name")
	}
	err := e.View(ctx, func(r storage.Reader) error {
		for after := page.After; ; after = out.Keys[len(out.Keys)-1] {
			want := most
			if page.Limit > 0 {
				want = min(most, int(page.Limit)-len(out.Keys))
			}
			names, err := r.List(prefix, after, want)
			if err != nil {
				return err
			}
			out.Keys = append(out.Keys, names...)
			if len(names) < want || len(out.Keys) == int(page.Limit) {
				return nil
			}
		}
	})
	if err != nil {
		return route.Keys{}, err
	}
	return out.Found()
}
