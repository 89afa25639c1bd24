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
	stale := func(sealed []byte) bool { id, _ := keyID(sealed); return older[id] }
	err = b.rewriteRows(ctx, rowsOf(scope), stale, func(t storage.Txn, key string, sealed []byte) ([]byte, error) {
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
	if err := b.rewrapInner(ctx, scope); err != nil {
		return err
	}
	return b.dropKeys(ctx, scope, older)
}

// rewrapInner seals the keysets that those of scope wrap under its newest key.
func (b *Barrier) rewrapInner(ctx context.Context, scope string) error {
	scopes, err := b.Scopes(ctx)
	if err != nil {
		return err
	}
	for _, inner := range scopes {
		if outerOf(inner) != scope {
			continue
		}
		var k *scopeKeys
		err := b.changeKeys(ctx, inner, &k, func(*keyRecord) error { return nil })
		if err != nil && !errors.Is(err, ErrNoKeys) { // destroyed meanwhile
			return err
		}
	}
	return nil
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
		return fmt.Errorf("%w: %q is not the scope of a mount or a namespace", storage.ErrInvalidKey, scope)
	}
	for done := 0; ; {
		n := 0
		_, err := b.engine.Update(ctx, func(t storage.Txn) error {
			n = 0
			if s.shut.Load() {
				return s.gone()
			}
			switch _, err := t.Get(keysPrefix + scope); {
			case err == nil:
				return fmt.Errorf("%w: %s; its rows are deleted only once they are destroyed", ErrKeysExist, scope)
			case !errors.Is(err, storage.ErrNotFound):
				return err
			}
			rows, err := t.Scan(keysPrefix+scope+"/", "", pieceRows) // keys that its own wrapped
			if err == nil && len(rows) == 0 {
				rows, err = t.Scan(scope+"/", "", pieceRows)
			}
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
		if n == 0 {
			return nil
		}
	}
}

// rowRange is the keys under prefix. past, if not nil, tells of a key that it
// is not of the range, and after which key to go on instead.
type rowRange struct {
	prefix string
	past   func(key string) (after string, other bool)
}

// rowsOf returns the rows of scope.
func rowsOf(scope string) rowRange {
	if wraps(scope) {
		return rowRange{prefix: scope + "/", past: func(key string) (string, bool) {
			inner := scopeOf(key)
			return lastUnder(inner + "/"), inner != scope
		}}
	}
	if scope != CoreScope {
		return rowRange{prefix: scope + "/"}
	}
	return rowRange{past: func(key string) (string, bool) {
		for _, p := range reservedPrefixes {
			if strings.HasPrefix(key, p) {
				return lastUnder(p), true
			}
		}
		other := scopeOf(key)
		return lastUnder(other + "/"), other != CoreScope
	}}
}

// rewriteRows replaces the value of every stale row of a range, a piece at a
// time. It may meet a row again, so stale must be false of what rewrite returns.
func (b *Barrier) rewriteRows(ctx context.Context, rows rowRange, stale func(sealed []byte) bool, rewrite func(t storage.Txn, key string, sealed []byte) ([]byte, error), progress func(int)) error {
	done, after := 0, ""
	for {
		keys, next, err := b.staleRows(ctx, rows, after, stale)
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			_, err = b.engine.Update(ctx, func(t storage.Txn) error {
				for _, key := range keys {
					sealed, err := t.Get(key)
					if errors.Is(err, storage.ErrNotFound) || err == nil && !stale(sealed) {
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

// staleRows returns the stale rows of the next piece of a range, and the key
// after which the piece after it starts, or "" when there is none.
func (b *Barrier) staleRows(ctx context.Context, of rowRange, after string, stale func([]byte) bool) (keys []string, next string, err error) {
	err = b.engine.View(ctx, func(r storage.Reader) error {
		keys, next = nil, ""
		rows, err := r.Scan(of.prefix, after, pieceRows)
		if err != nil {
			return err
		}
		size := 0
		for _, e := range rows {
			if of.past != nil {
				if goOn, other := of.past(e.Key); other {
					next = goOn
					return nil
				}
			}
			if stale(e.Value) {
				if size += len(e.Key) + len(e.Value); size > pieceBytes && len(keys) > 0 {
					return nil
				}
				keys = append(keys, e.Key)
			}
			next = e.Key
		}
		if len(rows) < pieceRows {
			next = ""
		}
		return nil
	})
	return keys, next, err
}
