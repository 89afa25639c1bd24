package cert

import (
	"context"
	"errors"
	"sync"

	"github.com/cofferhq/coffer/internal/storage"
)

// kept is what was made of many rows, until the state row beside them changes. It
// is as old as Env.Recent lets a row be.
type kept[T any] struct {
	key  string // of the state
	load func(r storage.Reader, before T) (T, error)

	mu    sync.Mutex
	there bool
	value T
	// The state as it was asked for, and as it was read with the value: a memory of
	// rows may be behind what is read.
	asked, read string
}

// get returns the value as of now.
func (k *kept[T]) get(ctx context.Context, m *Method) (T, error) {
	row, err := m.recent(ctx, k.key)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		var none T
		return none, err
	}
	now := string(row)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.there && (now == k.asked || now == k.read) {
		return k.value, nil
	}
	err = m.storage.View(ctx, func(r storage.Reader) error {
		row, err := r.Get(k.key)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		value, err := k.load(r, k.value)
		if err == nil {
			k.there, k.value, k.asked, k.read = true, value, now, string(row)
		}
		return err
	})
	return k.value, err
}
