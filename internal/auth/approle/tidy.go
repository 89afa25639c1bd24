package approle

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

const (
	tidyEvery = time.Hour
	page      = 500 // rows looked at in one View
)

func (r *Roles) tidy(context.Context, route.Caller, route.Nothing) (route.Empty, error) {
	r.wake()
	out := route.Empty{Notes: route.Notes{Status: 202}}
	out.Warn("Tidy operation successfully started. Any information from the operation will be printed to the server's log.")
	return out, nil
}

func (r *Roles) wake() {
	select {
	case r.tidyNow <- struct{}{}:
	default:
	}
}

// run removes what has ended until ctx ends.
func (r *Roles) run(ctx context.Context) error {
	ticks := time.NewTicker(tidyEvery)
	defer ticks.Stop()
	for {
		if err := errors.Join(r.removeEnded(ctx), r.removeDead(ctx)); err != nil && ctx.Err() == nil {
			r.log.Warn("secret ids that ended could not be removed; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.tidyNow:
		case <-ticks.C:
		}
	}
}

// removeEnded removes the secret ids whose time is over.
func (r *Roles) removeEnded(ctx context.Context) error {
	for after := ""; ; {
		var rows []storage.Entry
		err := r.storage.View(ctx, func(t storage.Reader) (err error) {
			rows, err = t.Scan(secretPrefix, after, page)
			return err
		})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if after = row.Key; ctx.Err() != nil {
				return ctx.Err()
			}
			if err := r.removeIfEnded(ctx, row); err != nil {
				return err
			}
		}
		if len(rows) < page {
			return nil
		}
	}
}

func (r *Roles) removeIfEnded(ctx context.Context, row storage.Entry) error {
	found, err := storage.Decode[secret](row.Key, row.Value, nil)
	if err != nil || !found.ended(time.Now()) {
		return err
	}
	owner, _, _ := strings.Cut(strings.TrimPrefix(row.Key, secretPrefix), "/")
	_, err = r.storage.Update(ctx, func(t storage.Txn) error {
		s, err := storage.Load[secret](t, row.Key) // it may be another one by now
		if err != nil || s == nil || !s.ended(time.Now()) {
			return err
		}
		return errors.Join(t.Delete(row.Key), t.Delete(accessorPrefix+owner+"/"+s.Accessor))
	})
	return err
}

// removeDead removes the secret ids of deleted roles.
func (r *Roles) removeDead(ctx context.Context) error {
	var dead []string
	err := r.storage.View(ctx, func(t storage.Reader) (err error) {
		dead, err = t.List(deadPrefix, "", page)
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range dead {
		for _, prefix := range []string{secretPrefix + id + "/", accessorPrefix + id + "/", deadPrefix + id} {
			if err := r.clear(ctx, prefix); err != nil {
				return err
			}
		}
	}
	return nil
}

// clear removes the rows below a prefix.
func (r *Roles) clear(ctx context.Context, prefix string) error {
	for more := true; more && ctx.Err() == nil; {
		_, err := r.storage.Update(ctx, func(t storage.Txn) error {
			rows, err := t.Scan(prefix, "", storage.MaxUpdateKeys)
			more = len(rows) == storage.MaxUpdateKeys
			for _, row := range rows {
				err = errors.Join(err, t.Delete(row.Key))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
