package spiffe

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// run fetches the bundle anew until ctx ends.
func (m *Method) run(ctx context.Context) error {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		if err := m.refresh(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("the bundle could not be refreshed; the one before is still in use", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

func (c *config) due(now time.Time) bool { return c.Profile != static && !now.Before(c.Cached.TryAt) }

// refresh fetches the bundle when it is due, unless another node does. Whatever
// goes wrong, the bundle before stays.
func (m *Method) refresh(ctx context.Context) error {
	c, err := storage.LoadFrom[config](ctx, m.storage, configKey)
	if err != nil || c == nil || !c.due(time.Now()) {
		return err
	}
	mine, err := m.change(ctx, c.ID, func(c *config) bool {
		due := c.due(time.Now())
		c.Cached.TryAt = time.Now().Add(retryAfter).UTC()
		return due
	})
	if err != nil || !mine {
		return err
	}
	text, failed := c.fetchBundle(ctx)
	_, err = m.change(context.WithoutCancel(ctx), c.ID, func(c *config) bool {
		if failed != nil {
			c.Cached.Problem = bare(failed)
			return true
		}
		c.fetched(text, time.Now())
		return true
	})
	if failed != nil {
		return failed
	}
	return err
}

// change changes the row, unless the settings are others by now or fn says no.
func (m *Method) change(ctx context.Context, id string, fn func(*config) bool) (changed bool, err error) {
	_, err = m.storage.Update(ctx, func(t storage.Txn) error {
		changed = false
		c, err := storage.Load[config](t, configKey)
		if err != nil || c == nil || c.ID != id || !fn(c) {
			return err
		}
		changed = true
		return storage.Save(t, configKey, c)
	})
	return changed, err
}
