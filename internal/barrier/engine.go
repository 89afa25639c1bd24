package barrier

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cofferhq/coffer/internal/storage"
)

var _ storage.Engine = (*Barrier)(nil)

// View is storage.Engine's, over decrypted values.
func (b *Barrier) View(ctx context.Context, fn func(storage.Reader) error) error {
	s, err := b.current()
	if err != nil {
		return err
	}
	return b.engine.View(ctx, func(r storage.Reader) error { return fn(&reader{s: s, r: r}) })
}

// Update is storage.Engine's, over decrypted values. The caches of this barrier
// have forgotten the written keys when it returns.
func (b *Barrier) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	s, err := b.current()
	if err != nil {
		return 0, err
	}
	var t *txn
	rev, err := b.engine.Update(ctx, func(below storage.Txn) error {
		t = &txn{reader: reader{s: s, r: below, own: map[string]*scopeKeys{}}, t: below}
		if err := fn(t); err != nil {
			return err
		}
		return t.failed
	})
	if t == nil {
		return rev, err
	}
	if err != nil {
		// It may have been committed although it failed. What the caches held
		// is forgotten; a commit still to come reaches them through the watch.
		b.wrote(t.written, 0)
		return rev, err
	}
	for scope, k := range t.own {
		s.install(scope, k, rev)
		if k.destroyed {
			b.destroyed(rev)
		}
	}
	b.wrote(t.written, rev)
	return rev, nil
}

// Watch is storage.Engine's, over decrypted values. A value whose keys have
// been destroyed since is reported as deleted. When a rotation has dropped the
// key of a value since, its later form under the new key follows in the store's
// history, so the watch ends with storage.ErrHistoryGone.
func (b *Barrier) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	s, err := b.current()
	if err != nil {
		return err
	}
	return b.watch(ctx, s, prefix, from, func(c storage.Commit) error {
		changes := make([]storage.Change, 0, len(c.Changes))
		for _, ch := range c.Changes {
			if reserved(ch.Key) {
				continue
			}
			if !ch.Deleted {
				if err := b.openChange(ctx, s, &ch); err != nil {
					return err
				}
			}
			changes = append(changes, ch)
		}
		return fn(storage.Commit{Revision: c.Revision, Changes: changes})
	})
}

// watch follows the engine below until ctx or the session ends.
func (b *Barrier) watch(ctx context.Context, s *session, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	err := b.engine.Watch(ctx, prefix, from, fn)
	if s.shut.Load() {
		return s.gone()
	}
	return err
}

func (b *Barrier) openChange(ctx context.Context, s *session, ch *storage.Change) error {
	scope := scopeOf(ch.Key)
	id, ok := keyID(ch.Value)
	if !ok {
		return fmt.Errorf("%w: %q", ErrTampered, ch.Key)
	}
	k := s.cached(scope)
	if k == nil || !k.has(id) {
		err := b.engine.View(ctx, func(r storage.Reader) (err error) {
			if k, err = s.load(r, scope); err == nil {
				s.install(scope, k, r.Revision())
			}
			return err
		})
		if errors.Is(err, ErrNoKeys) {
			ch.Value, ch.Deleted = nil, true
			return nil
		}
		if err != nil {
			return err
		}
		if !k.has(id) {
			return storage.ErrHistoryGone
		}
	}
	var err error
	if ch.Value, err = decrypt(k.aead, formatValue, ch.Key, ch.Value); err != nil {
		return fmt.Errorf("%w: %q", err, ch.Key)
	}
	return nil
}

// reader decrypts a snapshot.
type reader struct {
	s   *session
	r   storage.Reader
	own map[string]*scopeKeys // in a transaction: keys that it has read or written
}

func (r *reader) Revision() storage.Revision { return r.r.Revision() }

func (r *reader) Get(key string) ([]byte, error) {
	if r.s.shut.Load() {
		return nil, r.s.gone()
	}
	if reserved(key) {
		return nil, storage.ErrNotFound
	}
	sealed, err := r.r.Get(key)
	if err != nil {
		return nil, err
	}
	return r.open(key, sealed)
}

func (r *reader) open(key string, sealed []byte) ([]byte, error) {
	scope := scopeOf(key)
	id, ok := keyID(sealed)
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrTampered, key)
	}
	k := r.own[scope]
	if k != nil && k.destroyed {
		return nil, fmt.Errorf("%w: %s", ErrNoKeys, scope)
	}
	if k == nil || !k.has(id) {
		var err error
		if k, err = r.s.forReading(r.r, scope, id, r.own == nil); err != nil {
			return nil, fmt.Errorf("%w: %q", err, key)
		}
	}
	value, err := decrypt(k.aead, formatValue, key, sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: %q", err, key)
	}
	return value, nil
}

func (r *reader) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	if r.s.shut.Load() {
		return nil, r.s.gone()
	}
	entries, err := r.visible(prefix, after, limit)
	for i := range entries {
		if err != nil {
			break
		}
		entries[i].Value, err = r.open(entries[i].Key, entries[i].Value)
	}
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// visible scans the engine below, past the rows that are not shown.
func (r *reader) visible(prefix, after string, limit int) ([]storage.Entry, error) {
	if !mayMeetReserved(prefix) {
		return r.r.Scan(prefix, after, limit)
	}
	var found []storage.Entry
	for {
		page, err := r.r.Scan(prefix, after, limit-len(found))
		if err != nil {
			return nil, err
		}
		full := len(page) == limit-len(found)
		for _, e := range page {
			if !reserved(e.Key) {
				found = append(found, e)
			}
		}
		if !full || len(found) == limit {
			return found, nil
		}
		after = page[len(page)-1].Key
		for _, p := range reservedPrefixes {
			if strings.HasPrefix(after, p) {
				after = lastUnder(p)
			}
		}
	}
}

func (r *reader) List(prefix, after string, limit int) ([]string, error) {
	if r.s.shut.Load() {
		return nil, r.s.gone()
	}
	if !mayMeetReserved(prefix) {
		return r.r.List(prefix, after, limit)
	}
	var found []string
	for {
		page, err := r.r.List(prefix, after, limit-len(found))
		if err != nil {
			return nil, err
		}
		full := len(page) == limit-len(found)
		for _, name := range page {
			if !reserved(prefix + name) {
				found = append(found, name)
			}
		}
		if !full || len(found) == limit {
			return found, nil
		}
		after = page[len(page)-1]
	}
}

// txn encrypts what a transaction writes.
type txn struct {
	reader
	t       storage.Txn
	written []string
	failed  error
}

func (t *txn) Put(key string, value []byte) error {
	err := t.put(key, value)
	if err != nil && t.failed == nil {
		t.failed = err
	}
	return err
}

func (t *txn) put(key string, value []byte) error {
	if t.s.shut.Load() {
		return t.s.gone()
	}
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	if reserved(key) {
		return fmt.Errorf("%w: %q has no place behind the barrier", storage.ErrInvalidKey, key)
	}
	k, err := t.keys(scopeOf(key))
	if err != nil {
		return err
	}
	sealed, err := encrypt(k.aead, formatValue, key, value)
	if err != nil {
		return err
	}
	k.encryptions.Add(1)
	t.written = append(t.written, key)
	return t.t.Put(key, sealed)
}

// keys returns the keys that encrypt what t writes to scope.
func (t *txn) keys(scope string) (*scopeKeys, error) {
	k := t.own[scope]
	if k == nil {
		var err error
		if k, err = t.s.forWriting(t.t, scope); err != nil {
			return nil, err
		}
		t.own[scope] = k
	}
	if k.destroyed {
		return nil, fmt.Errorf("%w: %s", ErrNoKeys, scope)
	}
	return k, nil
}

func (t *txn) Delete(key string) error {
	err := t.delete(key)
	if err != nil && t.failed == nil {
		t.failed = err
	}
	return err
}

func (t *txn) delete(key string) error {
	if t.s.shut.Load() {
		return t.s.gone()
	}
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	if reserved(key) {
		return fmt.Errorf("%w: %q has no place behind the barrier", storage.ErrInvalidKey, key)
	}
	t.written = append(t.written, key)
	return t.t.Delete(key)
}
