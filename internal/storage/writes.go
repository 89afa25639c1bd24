package storage

import (
	"bytes"
	"slices"
	"strings"
)

// Writes collects what one Update puts and deletes and enforces the limits of
// the contract. The zero value is ready. It is for engines; it is not safe for
// concurrent use.
type Writes struct {
	changes map[string]Change
	bytes   int
	err     error
}

// Put records a copy of value under key. It returns ErrInvalidKey or
// ErrTooLarge; the first such error is also kept for Err.
func (w *Writes) Put(key string, value []byte) error {
	return w.set(Change{Key: key, Value: bytes.Clone(value)}, len(key)+len(value))
}

// Delete records that key is removed. It counts as a key, and no bytes.
func (w *Writes) Delete(key string) error {
	return w.set(Change{Key: key, Deleted: true}, 0)
}

func (w *Writes) set(c Change, size int) error {
	if err := CheckKey(c.Key); err != nil {
		return w.fail(err)
	}
	old, known := w.changes[c.Key]
	if known && !old.Deleted {
		size -= len(old.Key) + len(old.Value)
	}
	if w.bytes+size > MaxUpdateBytes || !known && len(w.changes) == MaxUpdateKeys {
		return w.fail(ErrTooLarge)
	}
	if w.changes == nil {
		w.changes = make(map[string]Change)
	}
	w.bytes += size
	w.changes[c.Key] = c
	return nil
}

func (w *Writes) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

// Get returns what was recorded for key, and whether anything was.
func (w *Writes) Get(key string) (Change, bool) {
	c, ok := w.changes[key]
	return c, ok
}

// Len is the number of keys put or deleted.
func (w *Writes) Len() int { return len(w.changes) }

// Bytes is the size of the keys and values put.
func (w *Writes) Bytes() int { return w.bytes }

// Err is the first error that Put or Delete returned; an Update fails with it.
func (w *Writes) Err() error { return w.err }

// Changes returns what was recorded, in key order.
func (w *Writes) Changes() []Change {
	changes := make([]Change, 0, len(w.changes))
	for _, c := range w.changes {
		changes = append(changes, c)
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
	return changes
}
