// Package memory is a storage engine that keeps everything in a map. It is for
// tests: it forgets everything when it is closed, and it is simple rather than
// fast.
package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/history"
)

// What a watch may fall behind by.
const (
	historyCommits = 16384
	historyBytes   = 16 << 20
)

// Engine is a storage.Engine in memory.
type Engine struct {
	history *history.Log
	stop    chan struct{} // closed by Close
	writer  chan struct{} // holds one token, taken by the Update that runs
	calls   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	now    snapshot
}

// snapshot is a state that never changes: a commit makes a new one.
type snapshot struct {
	revision storage.Revision
	keys     []string // sorted
	values   map[string][]byte
}

// New returns an empty engine.
func New() *Engine {
	return &Engine{
		history: history.New(0, historyCommits, historyBytes),
		stop:    make(chan struct{}), writer: make(chan struct{}, 1),
	}
}

// begin registers a call and returns the present state.
func (e *Engine) begin(ctx context.Context) (snapshot, error) {
	if err := ctx.Err(); err != nil {
		return snapshot{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return snapshot{}, storage.ErrClosed
	}
	e.calls.Add(1)
	return e.now, nil
}

// View implements storage.Engine.
func (e *Engine) View(ctx context.Context, fn func(storage.Reader) error) error {
	now, err := e.begin(ctx)
	if err != nil {
		return err
	}
	defer e.calls.Done()
	r := &reader{ctx: ctx, e: e, at: now}
	defer func() { r.ended = true }()
	return fn(r)
}

// Update implements storage.Engine.
func (e *Engine) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if _, err := e.begin(ctx); err != nil {
		return 0, err
	}
	defer e.calls.Done()
	select {
	case e.writer <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-e.stop:
		return 0, storage.ErrClosed
	}
	defer func() { <-e.writer }()
	e.mu.Lock()
	t := &txn{reader: reader{ctx: ctx, e: e, at: e.now}}
	e.mu.Unlock()
	defer func() { t.ended = true }()
	err := fn(t)
	if err == nil {
		err = t.writes.Err()
	}
	if err == nil {
		err = t.usable()
	}
	if err != nil {
		return 0, err
	}
	if t.writes.Len() == 0 {
		return t.at.revision, nil
	}
	next := t.merged()
	next.revision++
	e.mu.Lock()
	e.now = next
	e.mu.Unlock()
	e.history.Append(storage.Commit{Revision: next.revision, Changes: t.writes.Changes()})
	return next.revision, nil
}

// Watch implements storage.Engine.
func (e *Engine) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	if _, err := e.begin(ctx); err != nil {
		return err
	}
	defer e.calls.Done()
	return e.history.Watch(ctx, prefix, from, fn)
}

// Close implements storage.Engine.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return storage.ErrClosed
	}
	e.closed = true
	e.mu.Unlock()
	close(e.stop)
	e.history.Close(storage.ErrClosed)
	e.calls.Wait()
	return nil
}

type reader struct {
	ctx   context.Context
	e     *Engine
	at    snapshot
	ended bool // its View or Update has returned
}

var errOutside = errors.New("storage reader used after its View or Update ended")

// usable returns an error when the call that the reader belongs to must end.
func (r *reader) usable() error {
	if r.ended {
		return errOutside
	}
	select {
	case <-r.e.stop:
		return storage.ErrClosed
	default:
		return r.ctx.Err()
	}
}

func (r *reader) Revision() storage.Revision { return r.at.revision }

func (r *reader) Get(key string) ([]byte, error) {
	if err := r.usable(); err != nil {
		return nil, err
	}
	value, ok := r.at.values[key]
	if !ok {
		return nil, storage.ErrNotFound
	}
	return append([]byte{}, value...), nil
}

func (r *reader) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	if limit < 1 {
		return nil, fmt.Errorf("scan of %q with limit %d: the limit must be at least 1", prefix, limit)
	}
	if err := r.usable(); err != nil {
		return nil, err
	}
	from := prefix
	if after != "" && after >= prefix {
		from = after + "\x00"
	}
	var entries []storage.Entry
	for i := r.at.seek(from); i < len(r.at.keys) && len(entries) < limit; i++ {
		key := r.at.keys[i]
		if !strings.HasPrefix(key, prefix) {
			break
		}
		entries = append(entries, storage.Entry{Key: key, Value: append([]byte{}, r.at.values[key]...)})
	}
	return entries, nil
}

func (r *reader) List(prefix, after string, limit int) ([]string, error) {
	if limit < 1 {
		return nil, fmt.Errorf("list of %q with limit %d: the limit must be at least 1", prefix, limit)
	}
	if err := r.usable(); err != nil {
		return nil, err
	}
	var names []string
	for i := r.at.seek(past(prefix, after)); i < len(r.at.keys) && len(names) < limit; {
		name, ok := strings.CutPrefix(r.at.keys[i], prefix)
		if !ok {
			break
		}
		if slash := strings.IndexByte(name, '/'); slash >= 0 {
			name = name[:slash+1]
		}
		names = append(names, name)
		i = r.at.seek(past(prefix, name))
	}
	return names, nil
}

// past returns the first key that can have a name after name.
func past(prefix, name string) string {
	if i := strings.IndexByte(name, '/'); i >= 0 {
		return prefix + name[:i] + string(byte('/'+1))
	}
	return prefix + name + "\x00"
}

// seek returns the index of the first key that is not less than key.
func (s snapshot) seek(key string) int {
	i, _ := slices.BinarySearch(s.keys, key)
	return i
}

// txn is a reader whose snapshot is replaced when its own writes are read.
type txn struct {
	reader
	writes storage.Writes
}

// merged returns the snapshot with the transaction's writes in it.
func (t *txn) merged() snapshot {
	if t.writes.Len() == 0 {
		return t.at
	}
	s := snapshot{t.at.revision, slices.Clone(t.at.keys), maps.Clone(t.at.values)}
	if s.values == nil {
		s.values = make(map[string][]byte)
	}
	for _, c := range t.writes.Changes() {
		i, found := slices.BinarySearch(s.keys, c.Key)
		switch {
		case c.Deleted && found:
			s.keys = slices.Delete(s.keys, i, i+1)
			delete(s.values, c.Key)
		case !c.Deleted && !found:
			s.keys = slices.Insert(s.keys, i, c.Key)
			fallthrough
		case !c.Deleted:
			s.values[c.Key] = c.Value
		}
	}
	return s
}

func (t *txn) Get(key string) ([]byte, error) {
	c, ok := t.writes.Get(key)
	if !ok {
		return t.reader.Get(key)
	}
	if c.Deleted {
		return nil, storage.ErrNotFound
	}
	return append([]byte{}, c.Value...), nil
}

func (t *txn) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	return (&reader{t.ctx, t.e, t.merged(), t.ended}).Scan(prefix, after, limit)
}

func (t *txn) List(prefix, after string, limit int) ([]string, error) {
	return (&reader{t.ctx, t.e, t.merged(), t.ended}).List(prefix, after, limit)
}

func (t *txn) Put(key string, value []byte) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.writes.Put(key, value)
}

func (t *txn) Delete(key string) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.writes.Delete(key)
}
