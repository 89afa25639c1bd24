package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Load returns the row that Save wrote under key, nil when there is none.
func Load[T any](r Reader, key string) (*T, error) {
	row, err := r.Get(key)
	return Decode[T](key, row, err)
}

// LoadFrom is Load from a snapshot of its own.
func LoadFrom[T any](ctx context.Context, e Engine, key string) (out *T, err error) {
	err = e.View(ctx, func(r Reader) error {
		out, err = Load[T](r, key)
		return err
	})
	return out, err
}

// Decode returns what reading a row came to: nil where there is none, or else the
// row as a T.
func Decode[T any](key string, row []byte, err error) (*T, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := json.Unmarshal(row, out); err != nil {
		return nil, fmt.Errorf("row %q cannot be read: %w", key, err)
	}
	return out, nil
}

// Save writes a row as JSON.
func Save(t Txn, key string, row any) error {
	text, err := json.Marshal(row)
	if err != nil {
		return err
	}
	return t.Put(key, text)
}
