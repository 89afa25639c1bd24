package barrier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/storage"
)

// Bounds of one piece of work on many rows, well inside what one Update may
// hold, so that a piece is short and a crash costs little.
const (
	pieceRows  = 32
	pieceBytes = 512 << 10
)

// Rewrap re-encrypts the rows of scope that are not under its newest key, in
// pieces while the barrier serves, then drops the keys that nothing is under
// any more. It can be given up at any point and started again. progress, if not
// nil, is called after each piece with the rows re-encrypted so far.
func (b *Barrier) Rewrap(ctx context.Context, scope string, progress func(done int)) error {
	k, err := b.loadKeys(ctx, scope)
	if err != nil {
		return err
	}
	if len(k.terms) == 1 {
		return nil
	}
	if progress == nil {
		progress = func(int) {}
	}
	s, err := b.current()
	if err != nil {
		return err
	}
	older := make(map[uint32]bool)
	for _, t := range k.terms[:len(k.terms)-1] {
		older[t.KeyID] = true
	}
	stale := func(e storage.Entry) bool { id, _ := keyID(e.Value); return older[id] }
	for _, part := range partsOf(scope) {
		err := b.rewriteRowsIn(ctx, part.prefix, part.skip, stale, func(t storage.Txn, key string, sealed []byte) ([]byte, error) {
			newest, err := s.forWriting(t, scope)
			if err != nil {
				return nil, err
			}
			plain, err := decrypt(newest.aead, formatValue, key, sealed)
			if err != nil {
				return nil, fmt.Errorf("%w: %q", err, key)
			}
			defer clear(plain)
			return encrypt(newest.aead, formatValue, key, plain)
		}, progress)
		if err != nil {
			return err
		}
	}
	return b.dropKeys(ctx, scope, older)
}

// dropKeys removes keys of scope that no row is under.
func (b *Barrier) dropKeys(ctx context.Context, scope string, ids map[uint32]bool) error {
	var k *scopeKeys
	err := b.changeKeys(ctx, scope, &k, func(rec *keyRecord) error {
		var gone []uint32
		rec.Terms = slices.DeleteFunc(rec.Terms, func(t term) bool {
			if ids[t.KeyID] {
				gone = append(gone, t.KeyID)
			}
			return ids[t.KeyID]
		})
		serialized, err := reduceKeyset(rec.Keyset, gone)
		clear(rec.Keyset)
		rec.Keyset = serialized
		return err
	})
	if err == nil {
		b.log.Info("rows rewrapped and old encryption keys dropped", "scope", scope, "term", k.newest().Term, "dropped", len(ids))
	}
	return err
}

// DeleteRows deletes every row of a scope whose keys are destroyed, in pieces.
// It can be given up at any point and started again. Rows of a scope that has
// keys are refused.
func (b *Barrier) DeleteRows(ctx context.Context, scope string, progress func(done int)) error {
	s, err := b.current()
	if err != nil {
		return err
	}
	if !validScope(scope) || scope == CoreScope {
		return fmt.Errorf("%w: %q is not the scope of a mount", storage.ErrInvalidKey, scope)
	}
	for done := 0; ; {
		n := 0
		_, err := b.engine.Update(ctx, func(t storage.Txn) error {
			n = 0
			if s.shut.Load() {
				return errSealed()
			}
			switch _, err := t.Get(keysPrefix + scope); {
			case err == nil:
				return fmt.Errorf("%w: %s; its rows are deleted only once they are destroyed", ErrKeysExist, scope)
			case !errors.Is(err, storage.ErrNotFound):
				return err
			}
			rows, err := t.Scan(scope+"/", "", pieceRows)
			if err != nil {
				return err
			}
			for _, e := range rows {
				if err := t.Delete(e.Key); err != nil {
					return err
				}
			}
			n = len(rows)
			return nil
		})
		if err != nil {
			return err
		}
		if done += n; progress != nil {
			progress(done)
		}
		if n < pieceRows {
			return nil
		}
	}
}

// part is a range of keys: those under prefix, without those under skip.
type part struct{ prefix, skip string }

// partsOf returns the ranges that hold the rows of scope.
func partsOf(scope string) []part {
	if scope == CoreScope {
		return []part{{prefix: "", skip: mountPrefix}}
	}
	return []part{{prefix: scope + "/"}}
}

// rewriteRows replaces the value of every row of a range that is stale.
func (b *Barrier) rewriteRows(ctx context.Context, prefix, skip string, stale func(storage.Entry) bool, rewrite func(key string, sealed []byte) ([]byte, error), progress func(int)) error {
	return b.rewriteRowsIn(ctx, prefix, skip, stale, func(_ storage.Txn, key string, sealed []byte) ([]byte, error) {
		return rewrite(key, sealed)
	}, progress)
}

func (b *Barrier) rewriteRowsIn(ctx context.Context, prefix, skip string, stale func(storage.Entry) bool, rewrite func(t storage.Txn, key string, sealed []byte) ([]byte, error), progress func(int)) error {
	done, after := 0, ""
	for {
		keys, next, err := b.staleRows(ctx, prefix, skip, after, stale)
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			_, err = b.engine.Update(ctx, func(t storage.Txn) error {
				for _, key := range keys {
					sealed, err := t.Get(key)
					if errors.Is(err, storage.ErrNotFound) || err == nil && !stale(storage.Entry{Key: key, Value: sealed}) {
						continue
					}
					if err != nil {
						return err
					}
					if sealed, err = rewrite(t, key, sealed); err != nil {
						return err
					}
					if err := t.Put(key, sealed); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			done += len(keys)
			progress(done)
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

// staleRows returns the stale rows of the next piece after a key, and where the
// piece after it starts, or "" when there is none.
func (b *Barrier) staleRows(ctx context.Context, prefix, skip, after string, stale func(storage.Entry) bool) (keys []string, next string, err error) {
	err = b.engine.View(ctx, func(r storage.Reader) error {
		keys, next = nil, ""
		rows, err := r.Scan(prefix, after, pieceRows)
		if err != nil {
			return err
		}
		size := 0
		for _, e := range rows {
			if skip != "" && strings.HasPrefix(e.Key, skip) {
				next = lastUnder(skip)
				return nil
			}
			if !strings.HasPrefix(prefix, "barrier/") && reserved(e.Key) || !stale(e) {
				next = e.Key
				continue
			}
			if size += len(e.Key) + len(e.Value); size > pieceBytes && len(keys) > 0 {
				return nil
			}
			keys = append(keys, e.Key)
			next = e.Key
		}
		if len(rows) < pieceRows {
			next = ""
		}
		return nil
	})
	return keys, next, err
}
