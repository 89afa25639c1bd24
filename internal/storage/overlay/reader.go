// Package overlay is what engines share whose rows are on a server: readers of a
// snapshot, and transactions that see their own writes on top of it and remember
// what they read, so that their commit can be judged. It knows no server, and
// engines that hold their rows themselves have no use for it.
package overlay

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/cofferhq/coffer/internal/storage"
)

// ErrOutside is what a reader answers after End.
var ErrOutside = errors.New("storage reader used after its View or Update ended")

// Source reads rows as they are at one moment.
type Source interface {
	// At is the newest commit that the rows show.
	At() (storage.Revision, error)
	Get(key string) (value []byte, found bool, err error)
	// Scan returns up to limit entries with from <= key < to, in order. An empty
	// to is no bound.
	Scan(from, to string, limit int) ([]storage.Entry, error)
	// Names returns the first key of each name below prefix, in order, that has
	// from <= key < to, up to limit of them.
	Names(prefix, from, to string, limit int) ([]string, error)
}

// Reader implements storage.Reader on a source.
type Reader struct {
	src    Source
	ended  atomic.Bool
	failed error
}

// NewReader returns a reader that answers until End.
func NewReader(src Source) *Reader { return &Reader{src: src} }

// End ends the reader: every call after it returns ErrOutside.
func (r *Reader) End() { r.ended.Store(true) }

// Failed is the first error of the source. The View or Update fails with it,
// although its function passed over it.
func (r *Reader) Failed() error { return r.failed }

// check remembers the first error.
func (r *Reader) check(err error) error {
	if err != nil && r.failed == nil {
		r.failed = err
	}
	return err
}

// Revision implements storage.Reader.
func (r *Reader) Revision() storage.Revision {
	if r.ended.Load() {
		return 0
	}
	rev, err := r.src.At()
	_ = r.check(err) // the View or Update fails with it
	return rev
}

// Get implements storage.Reader.
func (r *Reader) Get(key string) ([]byte, error) {
	if r.ended.Load() {
		return nil, ErrOutside
	}
	value, found, err := r.src.Get(key)
	if err := r.check(err); err != nil {
		return nil, err
	}
	if !found {
		return nil, storage.ErrNotFound
	}
	return value, nil
}

// Scan implements storage.Reader.
func (r *Reader) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	entries, _, err := r.scan(r.src, prefix, after, limit)
	return entries, err
}

// scan also returns the range of keys that the answer depends on.
func (r *Reader) scan(src Source, prefix, after string, limit int) ([]storage.Entry, Span, error) {
	if limit < 1 {
		return nil, Span{}, fmt.Errorf("scan of %q with limit %d: the limit must be at least 1", prefix, limit)
	}
	if r.ended.Load() {
		return nil, Span{}, ErrOutside
	}
	seen := Span{prefix, EndOf(prefix)}
	if after != "" && after >= prefix {
		seen.From = after + "\x00"
	}
	if seen.Empty() {
		_, err := src.At()
		return nil, seen, r.check(err)
	}
	entries, err := src.Scan(seen.From, seen.To, limit)
	if err := r.check(err); err != nil {
		return nil, seen, err
	}
	if len(entries) == limit {
		seen.To = entries[limit-1].Key + "\x00"
	}
	return entries, seen, nil
}

// List implements storage.Reader.
func (r *Reader) List(prefix, after string, limit int) ([]string, error) {
	names, _, err := r.list(r.src, prefix, after, limit)
	return names, err
}

func (r *Reader) list(src Source, prefix, after string, limit int) ([]string, Span, error) {
	if limit < 1 {
		return nil, Span{}, fmt.Errorf("list of %q with limit %d: the limit must be at least 1", prefix, limit)
	}
	if r.ended.Load() {
		return nil, Span{}, ErrOutside
	}
	// Also skips the key that is the prefix itself: it has no name below it.
	seen := Span{PastName(prefix, after), EndOf(prefix)}
	if seen.Empty() {
		_, err := src.At()
		return nil, seen, r.check(err)
	}
	keys, err := src.Names(prefix, seen.From, seen.To, limit)
	if err := r.check(err); err != nil {
		return nil, seen, err
	}
	var names []string
	for _, key := range keys {
		names = append(names, NameOf(prefix, key))
	}
	if len(names) == limit {
		seen.To = PastName(prefix, names[limit-1])
	}
	return names, seen, nil
}

// NameOf returns the name of key directly below prefix.
func NameOf(prefix, key string) string {
	name := key[len(prefix):]
	if i := strings.IndexByte(name, '/'); i >= 0 {
		return name[:i+1]
	}
	return name
}

// PastName returns the first key that can have a name after name.
func PastName(prefix, name string) string {
	if i := strings.IndexByte(name, '/'); i >= 0 {
		return prefix + name[:i] + string(byte('/'+1))
	}
	return prefix + name + "\x00"
}

// EndOf returns the first key after all that start with prefix, "" when there
// is none.
func EndOf(prefix string) string {
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
