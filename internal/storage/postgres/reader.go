package postgres

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/cofferhq/coffer/internal/storage"
)

var errOutside = errors.New("storage reader used after its View or Update ended")

// reader implements storage.Reader on a source.
type reader struct {
	src    source
	ended  atomic.Bool
	failed error // the first error of the source; its View or Update fails with it
}

func (r *reader) end() { r.ended.Store(true) }

// check remembers the first error.
func (r *reader) check(err error) error {
	if err != nil && r.failed == nil {
		r.failed = err
	}
	return err
}

func (r *reader) Revision() storage.Revision {
	if r.ended.Load() {
		return 0
	}
	rev, err := r.src.at()
	_ = r.check(err) // the View or Update fails with it
	return rev
}

func (r *reader) Get(key string) ([]byte, error) {
	if r.ended.Load() {
		return nil, errOutside
	}
	value, found, err := r.src.get(key)
	if err := r.check(err); err != nil {
		return nil, err
	}
	if !found {
		return nil, storage.ErrNotFound
	}
	return value, nil
}

func (r *reader) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	entries, _, err := r.scan(r.src, prefix, after, limit)
	return entries, err
}

// scan also returns the range of keys that the answer depends on.
func (r *reader) scan(src source, prefix, after string, limit int) ([]storage.Entry, span, error) {
	if limit < 1 {
		return nil, span{}, fmt.Errorf("scan of %q with limit %d: the limit must be at least 1", prefix, limit)
	}
	if r.ended.Load() {
		return nil, span{}, errOutside
	}
	seen := span{prefix, endOf(prefix)}
	if after != "" && after >= prefix {
		seen.from = after + "\x00"
	}
	if seen.empty() {
		_, err := src.at()
		return nil, seen, r.check(err)
	}
	entries, err := src.scan(seen.from, seen.to, limit)
	if err := r.check(err); err != nil {
		return nil, seen, err
	}
	if len(entries) == limit {
		seen.to = entries[limit-1].Key + "\x00"
	}
	return entries, seen, nil
}

func (r *reader) List(prefix, after string, limit int) ([]string, error) {
	names, _, err := r.list(r.src, prefix, after, limit)
	return names, err
}

func (r *reader) list(src source, prefix, after string, limit int) ([]string, span, error) {
	if limit < 1 {
		return nil, span{}, fmt.Errorf("list of %q with limit %d: the limit must be at least 1", prefix, limit)
	}
	if r.ended.Load() {
		return nil, span{}, errOutside
	}
	// Also skips the key that is the prefix itself: it has no name below it.
	seen := span{pastName(prefix, after), endOf(prefix)}
	if seen.empty() {
		_, err := src.at()
		return nil, seen, r.check(err)
	}
	keys, err := src.names(prefix, seen.from, seen.to, limit)
	if err := r.check(err); err != nil {
		return nil, seen, err
	}
	var names []string
	for _, key := range keys {
		names = append(names, nameOf(prefix, key))
	}
	if len(names) == limit {
		seen.to = pastName(prefix, names[limit-1])
	}
	return names, seen, nil
}

// nameOf returns the name of key directly below prefix.
func nameOf(prefix, key string) string {
	name := key[len(prefix):]
	if i := strings.IndexByte(name, '/'); i >= 0 {
		return name[:i+1]
	}
	return name
}

// pastName returns the first key that can have a name after name.
func pastName(prefix, name string) string {
	if i := strings.IndexByte(name, '/'); i >= 0 {
		return prefix + name[:i] + string(byte('/'+1))
	}
	return prefix + name + "\x00"
}

// endOf returns the first key after all that start with prefix, "" when there
// is none.
func endOf(prefix string) string {
	end := []byte(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) == 0 {
		return ""
	}
	end[len(end)-1]++
	return string(end)
}

// txn implements storage.Txn: a reader that sees its own writes and remembers
// what it read.
type txn struct {
	reader
	reads  reads
	writes storage.Writes
}

func (t *txn) Get(key string) ([]byte, error) {
	if c, ok := t.writes.Get(key); ok && !t.ended.Load() {
		if c.Deleted {
			return nil, storage.ErrNotFound
		}
		return append([]byte{}, c.Value...), nil
	}
	t.reads.addKey(key)
	return t.reader.Get(key)
}

func (t *txn) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	entries, seen, err := t.scan(layered(t.src, t.own()), prefix, after, limit)
	t.reads.addRange(seen)
	return entries, err
}

func (t *txn) List(prefix, after string, limit int) ([]string, error) {
	names, seen, err := t.list(layered(t.src, t.own()), prefix, after, limit)
	t.reads.addRange(seen)
	return names, err
}

// own returns what the transaction has written.
func (t *txn) own() *overlay {
	var o overlay
	if t.writes.Len() > 0 {
		o.add(t.writes.Changes())
	}
	return &o
}

func (t *txn) Put(key string, value []byte) error {
	if t.ended.Load() {
		return errOutside
	}
	return t.writes.Put(key, value)
}

func (t *txn) Delete(key string) error {
	if t.ended.Load() {
		return errOutside
	}
	return t.writes.Delete(key)
}
