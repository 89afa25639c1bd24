// Package rows keeps what an engine or an auth method is told: its settings and its
// roles, each a row of JSON in the mount's storage. What a row means, and whether it
// may be kept, is the engine's.
package rows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Book are the rows of one kind, by name below a prefix: "role/" and "ci".
type Book[T any] struct {
	storage storage.Engine
	recent  func(ctx context.Context, key string) ([]byte, error)
	prefix  string
}

// New returns the book of a mount's rows below a prefix.
func New[T any](env engine.Env, prefix string) Book[T] {
	return Book[T]{env.Storage, env.Recent, prefix}
}

// Lately returns a row as it was at most a second ago, nil when there is none. It
// may be the caller's own to change.
func (b Book[T]) Lately(ctx context.Context, name string) (*T, error) {
	row, err := b.recent(ctx, b.prefix+name)
	return b.decode(name, row, err)
}

// Find returns a row as it is now, nil when there is none.
func (b Book[T]) Find(ctx context.Context, name string) (out *T, err error) {
	err = b.storage.View(ctx, func(r storage.Reader) error {
		row, err := r.Get(b.prefix + name)
		out, err = b.decode(name, row, err)
		return err
	})
	return out, err
}

// Change lets a function change a row, or a new one, and keeps it unless the
// function refuses. The function may run again.
func (b Book[T]) Change(ctx context.Context, name string, change func(row *T) error) error {
	_, err := b.storage.Update(ctx, func(t storage.Txn) error {
		text, err := t.Get(b.prefix + name)
		row, err := b.decode(name, text, err)
		if err != nil {
			return err
		}
		if row == nil {
			row = new(T)
		}
		if err := change(row); err != nil {
			return err
		}
		if text, err = json.Marshal(row); err != nil {
			return err
		}
		return t.Put(b.prefix+name, text)
	})
	return err
}

// Remove removes a row; there need not be one.
func (b Book[T]) Remove(ctx context.Context, name string) error {
	_, err := b.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(b.prefix + name) })
	return err
}

// List lists the names.
func (b Book[T]) List(ctx context.Context, page route.Page) (route.Keys, error) {
	return engine.Names(ctx, b.storage, b.prefix, page)
}

func (b Book[T]) decode(name string, row []byte, err error) (*T, error) {
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := json.Unmarshal(row, out); err != nil {
		return nil, fmt.Errorf("row %q: %w", b.prefix+name, err)
	}
	return out, nil
}

// Set sets dst where a request names the field, which is nil otherwise.
func Set[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}
