package postgres

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

// lockedRows is the overlay.Source under the lock: the committed rows, which nobody can
// change now.
type lockedRows struct {
	c      *committer
	ctx    context.Context
	w      *work
	cache  map[string][]byte // rows read before, nil where there is none
	failed error             // the first error of the database
}

// prefetch reads the keys that the functions read the first time.
func (r *lockedRows) prefetch(us []*update) error {
	var keys [][]byte
	for _, u := range us {
		for key := range u.reads.Keys {
			if _, known := r.cache[key]; !known && len(keys) < maxCommitUpdates {
				r.cache[key] = nil
				keys = append(keys, []byte(key))
			}
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return r.read(r.c.e.sql.getMany, []any{keys}, func(row pgx.Rows) error {
		var key, value []byte
		err := row.Scan(&key, &value)
		r.cache[string(key)] = value
		return err
	})
}

func (r *lockedRows) read(sql string, args []any, each func(pgx.Rows) error) error {
	if r.failed != nil {
		return r.failed
	}
	rows, err := r.c.conn.Query(r.ctx, sql, args...)
	if err == nil {
		err = drain(rows, each)
	}
	r.failed = err
	return err
}

func (r *lockedRows) At() (storage.Revision, error) {
	return r.w.base.rev + storage.Revision(len(r.w.accepted)), nil
}

func (r *lockedRows) Get(key string) (value []byte, found bool, err error) {
	value, known := r.cache[key]
	if !known {
		err = r.read(r.c.e.sql.get, []any{[]byte(key)}, func(row pgx.Rows) error { return row.Scan(&value) })
		if err != nil {
			return nil, false, err
		}
		r.cache[key] = value
	}
	return append([]byte{}, value...), value != nil, nil
}

func (r *lockedRows) Scan(from, to string, limit int) ([]storage.Entry, error) {
	return scanWith(r.read, r.c.e.sql, from, to, limit)
}

func (r *lockedRows) Names(prefix, from, to string, limit int) ([]string, error) {
	return namesWith(r.read, r.c.e.sql, prefix, from, to, limit)
}

// turn is one function's use of a source. It ends, although the function may go
// on.
type turn struct {
	mu    sync.Mutex
	src   overlay.Source
	ended bool
}

// over ends the turn, after a read that is under way.
func (t *turn) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}

// during runs fn in the turn.
func (t *turn) during(fn func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return overlay.ErrOutside
	}
	return fn()
}

func (t *turn) At() (rev storage.Revision, err error) {
	err = t.during(func() (err error) { rev, err = t.src.At(); return err })
	return rev, err
}

func (t *turn) Get(key string) (value []byte, found bool, err error) {
	err = t.during(func() (err error) { value, found, err = t.src.Get(key); return err })
	return value, found, err
}

func (t *turn) Scan(from, to string, limit int) (entries []storage.Entry, err error) {
	err = t.during(func() (err error) { entries, err = t.src.Scan(from, to, limit); return err })
	return entries, err
}

func (t *turn) Names(prefix, from, to string, limit int) (keys []string, err error) {
	err = t.during(func() (err error) { keys, err = t.src.Names(prefix, from, to, limit); return err })
	return keys, err
}
