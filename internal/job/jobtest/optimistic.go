package jobtest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/storage"
)

// Optimistic makes an engine whose transactions run one after the other behave
// like one between machines: a transaction runs on a snapshot while others
// commit, and runs again when what it has read was changed meanwhile. So a node
// can be stopped between what it read and its commit while others go on.
func Optimistic(e storage.Engine) storage.Engine { return &optimistic{e} }

type optimistic struct{ storage.Engine }

var errConflict = errors.New("what was read has changed")

func (e *optimistic) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	for {
		t := &tracked{}
		err := e.View(ctx, func(r storage.Reader) error {
			t.Reader = r
			if err := fn(t); err != nil {
				return err
			}
			return t.writes.Err()
		})
		if err != nil {
			return 0, err
		}
		rev, err := e.Engine.Update(ctx, func(below storage.Txn) error {
			for _, unchanged := range t.reads {
				if ok, err := unchanged(below); err != nil || !ok {
					return errors.Join(err, errConflict)
				}
			}
			for _, c := range t.writes.Changes() {
				err := below.Delete(c.Key)
				if !c.Deleted {
					err = below.Put(c.Key, c.Value)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if !errors.Is(err, errConflict) {
			return rev, err
		}
	}
}

// tracked is a transaction that remembers what it has read.
type tracked struct {
	storage.Reader
	writes storage.Writes
	reads  []func(storage.Reader) (unchanged bool, err error)
}

func (t *tracked) Get(key string) ([]byte, error) {
	if c, ok := t.writes.Get(key); ok {
		if c.Deleted {
			return nil, storage.ErrNotFound
		}
		return bytes.Clone(c.Value), nil
	}
	was, err := t.Reader.Get(key)
	missing := errors.Is(err, storage.ErrNotFound)
	if err != nil && !missing {
		return nil, err
	}
	t.reads = append(t.reads, func(r storage.Reader) (bool, error) {
		is, err := r.Get(key)
		if errors.Is(err, storage.ErrNotFound) {
			return missing, nil
		}
		return !missing && bytes.Equal(is, was), err
	})
	return was, err
}

func (t *tracked) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	more := limit + t.writes.Len() // as many could be deleted
	was, err := t.Reader.Scan(prefix, after, more)
	if err != nil {
		return nil, err
	}
	t.reads = append(t.reads, func(r storage.Reader) (bool, error) {
		is, err := r.Scan(prefix, after, more)
		same := slices.EqualFunc(is, was, func(a, b storage.Entry) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) })
		return same, err
	})
	found := slices.DeleteFunc(slices.Clone(was), func(e storage.Entry) bool { _, own := t.writes.Get(e.Key); return own })
	for _, c := range t.writes.Changes() {
		beyond := len(was) == more && c.Key > was[more-1].Key
		if !c.Deleted && strings.HasPrefix(c.Key, prefix) && c.Key > after && !beyond {
			found = append(found, storage.Entry{Key: c.Key, Value: bytes.Clone(c.Value)})
		}
	}
	slices.SortFunc(found, func(a, b storage.Entry) int { return strings.Compare(a.Key, b.Key) })
	return found[:min(limit, len(found))], nil
}

// List is not tracked, and package job does not list.
func (t *tracked) List(string, string, int) ([]string, error) { return nil, errors.ErrUnsupported }

func (t *tracked) Put(key string, value []byte) error { return t.writes.Put(key, value) }
func (t *tracked) Delete(key string) error            { return t.writes.Delete(key) }
