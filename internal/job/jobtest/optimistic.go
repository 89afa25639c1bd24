package jobtest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/cofferhq/coffer/internal/storage"
)

// Optimistic makes one node's connection to an engine whose transactions run one
// after the other, and has it behave like one between machines. A transaction runs
// on a snapshot while others commit, and runs again when what it has read was
// changed meanwhile: so a node can be stopped between what it read and its commit
// while others go on. And it runs first on the rows that this node remembers,
// which may be old and of different moments, as after a stop; such a run does not
// count.
func Optimistic(e storage.Engine) storage.Engine {
	return &optimistic{Engine: e, rows: map[string][]byte{}}
}

type optimistic struct {
	storage.Engine

	mu   sync.Mutex
	rows map[string][]byte // as this node last knew them, nil where there is none
}

var errConflict = errors.New("what was read has changed")

func (e *optimistic) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	for guess := true; ; guess = false {
		t := &tracked{node: e, guess: guess}
		err := e.View(ctx, func(r storage.Reader) error {
			t.Reader = r
			err := fn(t)
			if t.stale {
				return errConflict
			}
			return errors.Join(err, t.writes.Err())
		})
		if errors.Is(err, errConflict) {
			continue
		}
		if err != nil {
			return 0, err
		}
		rev, err := e.commit(ctx, t)
		if !errors.Is(err, errConflict) {
			return rev, err
		}
	}
}

// commit writes what a transaction wrote if all is as it has read it.
func (e *optimistic) commit(ctx context.Context, t *tracked) (storage.Revision, error) {
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
	if err == nil {
		for _, c := range t.writes.Changes() {
			e.remember(c.Key, c.Value, c.Deleted)
		}
	}
	return rev, err
}

func (e *optimistic) remember(key string, value []byte, missing bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rows[key] = append([]byte{}, value...)
	if missing {
		e.rows[key] = nil
	}
}

func (e *optimistic) recall(key string) (value []byte, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	value, known = e.rows[key]
	return bytes.Clone(value), known
}

// tracked is a transaction that remembers what it has read.
type tracked struct {
	storage.Reader
	node   *optimistic
	guess  bool // rows are those that the node remembers
	stale  bool // one of them was not as it is
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
	if old, known := t.node.recall(key); t.guess && known && (missing != (old == nil) || !bytes.Equal(old, was)) {
		t.stale = true
		if old == nil {
			return nil, storage.ErrNotFound
		}
		return old, nil
	}
	t.node.remember(key, was, missing)
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
	for _, row := range was {
		t.node.remember(row.Key, row.Value, false)
	}
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
