package storage

import (
	"context"
	"strings"
)

// Sub returns the part of e below prefix as a store of its own: keys are given
// and returned without the prefix. Closing it does nothing.
func Sub(e Engine, prefix string) Engine { return &sub{e, prefix} }

type sub struct {
	engine Engine
	prefix string
}

func (s *sub) View(ctx context.Context, fn func(Reader) error) error {
	return s.engine.View(ctx, func(r Reader) error { return fn(SubReader(r, s.prefix)) })
}

func (s *sub) Update(ctx context.Context, fn func(Txn) error) (Revision, error) {
	return s.engine.Update(ctx, func(t Txn) error { return fn(SubTxn(t, s.prefix)) })
}

func (s *sub) Watch(ctx context.Context, prefix string, from Revision, fn func(Commit) error) error {
	return s.engine.Watch(ctx, s.prefix+prefix, from, func(c Commit) error {
		changes := make([]Change, len(c.Changes))
		for i, ch := range c.Changes {
			ch.Key = strings.TrimPrefix(ch.Key, s.prefix)
			changes[i] = ch
		}
		return fn(Commit{Revision: c.Revision, Changes: changes})
	})
}

func (s *sub) Close() error { return nil }

// SubReader returns the part of r below prefix, keys without the prefix.
func SubReader(r Reader, prefix string) Reader { return subReader{r, prefix} }

type subReader struct {
	r      Reader
	prefix string
}

func (s subReader) Revision() Revision             { return s.r.Revision() }
func (s subReader) Get(key string) ([]byte, error) { return s.r.Get(s.prefix + key) }

func (s subReader) Scan(prefix, after string, limit int) ([]Entry, error) {
	if after != "" {
		after = s.prefix + after
	}
	entries, err := s.r.Scan(s.prefix+prefix, after, limit)
	for i := range entries {
		entries[i].Key = strings.TrimPrefix(entries[i].Key, s.prefix)
	}
	return entries, err
}

func (s subReader) List(prefix, after string, limit int) ([]string, error) {
	return s.r.List(s.prefix+prefix, after, limit)
}

// SubTxn returns the part of t below prefix, keys without the prefix.
func SubTxn(t Txn, prefix string) Txn { return subTxn{subReader{t, prefix}, t} }

type subTxn struct {
	subReader
	t Txn
}

func (s subTxn) Put(key string, value []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	return s.t.Put(s.prefix+key, value)
}

func (s subTxn) Delete(key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	return s.t.Delete(s.prefix + key)
}

// All calls fn for every entry under prefix, in key order, a page at a time.
func All(r Reader, prefix string, fn func(Entry) error) error {
	const page = 256
	after := ""
	for {
		entries, err := r.Scan(prefix, after, page)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := fn(e); err != nil {
				return err
			}
		}
		if len(entries) < page {
			return nil
		}
		after = entries[len(entries)-1].Key
	}
}
