package barrier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// KeyStatus describes the keys of a scope.
type KeyStatus struct {
	Scope       string
	Term        uint32    // number of the key that encrypts; the first is 1
	Installed   time.Time // when it became that
	Encryptions uint64    // values sealed under it by this node since it opened the barrier
	Keys        int       // keys still held; more than 1 asks for Rewrap
}

func (k *scopeKeys) status(scope string) KeyStatus {
	n := k.newest()
	return KeyStatus{Scope: scope, Term: n.Term, Installed: n.Installed, Encryptions: k.encryptions.Load(), Keys: len(k.terms)}
}

// CreateKeys gives scope its first keys, inside an Update of this barrier. It
// returns ErrKeysExist if it has some.
func (b *Barrier) CreateKeys(t storage.Txn, scope string) error {
	x, err := b.own(t, scope)
	if err != nil {
		return err
	}
	switch _, err := x.t.Get(keysPrefix + scope); {
	case err == nil:
		return fmt.Errorf("%w: %s", ErrKeysExist, scope)
	case !errors.Is(err, storage.ErrNotFound):
		return err
	}
	w, err := x.s.wrappingForWriting(x.t, scope)
	if err != nil {
		return err
	}
	row, err := putNewKeys(x.t, w, scope)
	if err != nil {
		return err
	}
	x.own[scope], err = parseKeys(w, scope, row)
	return err
}

// DestroyKeys deletes the keys of scope, inside an Update of this barrier: its
// rows can never be read again. DeleteRows frees the space they take.
func (b *Barrier) DestroyKeys(t storage.Txn, scope string) error {
	x, err := b.own(t, scope)
	if err != nil {
		return err
	}
	if scope == CoreScope {
		return fmt.Errorf("the keys of %s cannot be destroyed", scope)
	}
	x.own[scope] = &scopeKeys{destroyed: true}
	return x.t.Delete(keysPrefix + scope)
}

// own returns t as this barrier's transaction.
func (b *Barrier) own(t storage.Txn, scope string) (*txn, error) {
	x, ok := t.(*txn)
	if !ok {
		return nil, errors.New("keys are created and destroyed in an Update of the barrier itself")
	}
	if !validScope(scope) {
		return nil, fmt.Errorf("%w: %q is not a scope", storage.ErrInvalidKey, scope)
	}
	if x.s.shut.Load() {
		return nil, x.s.gone()
	}
	return x, nil
}

// wrappingForWriting returns what to seal the keyset row of scope with. Reading the
// check row, and that of the scope around it, makes t fail against a rotation of
// either that commits before it, so that no keyset is left under a key about to be
// dropped.
func (s *session) wrappingForWriting(t storage.Txn, scope string) (w wrapping, err error) {
	check, err := t.Get(rootRow)
	if err != nil {
		return w, err
	}
	if w.root, err = s.rootFor(t, check); err != nil {
		return w, err
	}
	w.outer, err = s.outer(t, scope)
	return w, err
}

// RotateKeys gives scope a new key for everything written from now on. What was
// written before stays readable; Rewrap moves it to the new key.
func (b *Barrier) RotateKeys(ctx context.Context, scope string) (KeyStatus, error) {
	var k *scopeKeys
	err := b.changeKeys(ctx, scope, &k, func(rec *keyRecord) error {
		serialized, id, err := extendKeyset(rec.Keyset)
		if err != nil {
			return err
		}
		clear(rec.Keyset)
		rec.Keyset = serialized
		last := rec.Terms[len(rec.Terms)-1]
		rec.Terms = append(rec.Terms, term{Term: last.Term + 1, KeyID: id, Installed: now()})
		return nil
	})
	if err != nil {
		return KeyStatus{}, err
	}
	b.log.Info("encryption key rotated", "scope", scope, "term", k.newest().Term)
	return k.status(scope), nil
}

// changeKeys rewrites the keyset row of scope and installs the outcome in *out.
func (b *Barrier) changeKeys(ctx context.Context, scope string, out **scopeKeys, change func(*keyRecord) error) error {
	s, err := b.current()
	if err != nil {
		return err
	}
	if !validScope(scope) {
		return fmt.Errorf("%w: %q is not a scope", storage.ErrInvalidKey, scope)
	}
	rev, err := b.engine.Update(ctx, func(t storage.Txn) error {
		w, err := s.wrappingForWriting(t, scope)
		if err != nil {
			return err
		}
		row, err := t.Get(keysPrefix + scope)
		if errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("%w: %s", ErrNoKeys, scope)
		}
		if err != nil {
			return err
		}
		rec, err := parseRecord(w, scope, row)
		if err != nil {
			return err
		}
		defer func() { clear(rec.Keyset); clear(rec.Fingerprint) }()
		if err := change(rec); err != nil {
			return err
		}
		if row, err = rec.put(t, w, scope); err != nil {
			return err
		}
		*out, err = parseKeys(w, scope, row)
		return err
	})
	if err != nil {
		return err
	}
	s.install(scope, *out, rev)
	return nil
}

// KeyStatus describes the keys of scope as the store holds them now.
func (b *Barrier) KeyStatus(ctx context.Context, scope string) (KeyStatus, error) {
	k, err := b.loadKeys(ctx, scope)
	if err != nil {
		return KeyStatus{}, err
	}
	return k.status(scope), nil
}

// loadKeys reads the keys of scope from the store and keeps them.
func (b *Barrier) loadKeys(ctx context.Context, scope string) (*scopeKeys, error) {
	s, err := b.current()
	if err != nil {
		return nil, err
	}
	if !validScope(scope) {
		return nil, fmt.Errorf("%w: %q is not a scope", storage.ErrInvalidKey, scope)
	}
	var k *scopeKeys
	err = b.engine.View(ctx, func(r storage.Reader) (err error) {
		if k, err = s.load(r, scope); err == nil {
			s.install(scope, k, r.Revision())
		}
		return err
	})
	return k, err
}

// Scopes lists the scopes that have keys, in key order.
func (b *Barrier) Scopes(ctx context.Context) ([]string, error) {
	if _, err := b.current(); err != nil {
		return nil, err
	}
	var scopes []string
	err := b.engine.View(ctx, func(r storage.Reader) error {
		scopes = nil
		return storage.All(r, keysPrefix, func(e storage.Entry) error {
			scopes = append(scopes, strings.TrimPrefix(e.Key, keysPrefix))
			return nil
		})
	})
	return scopes, err
}
