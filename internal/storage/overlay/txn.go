package overlay

import (
	"context"

	"github.com/cofferhq/coffer/internal/storage"
)

// Txn implements storage.Txn: a reader that sees its own writes and remembers
// what it read.
type Txn struct {
	Reader
	Reads  Reads
	Writes storage.Writes
}

// NewTxn returns a transaction that answers until End.
func NewTxn(src Source) *Txn { return &Txn{Reader: Reader{src: src}} }

// Verdict returns the error that a transaction ends with whose function returned
// err.
func (t *Txn) Verdict(ctx context.Context, err error) error {
	switch {
	case err != nil:
		return err
	case t.failed != nil:
		return t.failed
	case t.Writes.Err() != nil:
		return t.Writes.Err()
	}
	return ctx.Err()
}

// Get implements storage.Reader.
func (t *Txn) Get(key string) ([]byte, error) {
	if c, ok := t.Writes.Get(key); ok && !t.ended.Load() {
		if c.Deleted {
			return nil, storage.ErrNotFound
		}
		return append([]byte{}, c.Value...), nil
	}
	t.Reads.addKey(key)
	return t.Reader.Get(key)
}

// Scan implements storage.Reader.
func (t *Txn) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	entries, seen, err := t.scan(Over(t.src, t.own()), prefix, after, limit)
	t.Reads.addRange(seen)
	return entries, err
}

// List implements storage.Reader.
func (t *Txn) List(prefix, after string, limit int) ([]string, error) {
	names, seen, err := t.list(Over(t.src, t.own()), prefix, after, limit)
	t.Reads.addRange(seen)
	return names, err
}

// own returns what the transaction has written.
func (t *Txn) own() *Changes {
	var o Changes
	if t.Writes.Len() > 0 {
		o.Add(t.Writes.Changes())
	}
	return &o
}

// Put implements storage.Txn.
func (t *Txn) Put(key string, value []byte) error {
	if t.ended.Load() {
		return ErrOutside
	}
	return t.Writes.Put(key, value)
}

// Delete implements storage.Txn.
func (t *Txn) Delete(key string) error {
	if t.ended.Load() {
		return ErrOutside
	}
	return t.Writes.Delete(key)
}
