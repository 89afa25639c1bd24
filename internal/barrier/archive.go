package barrier

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cofferhq/coffer/internal/storage"
)

// ErrRotating says that the root key is changing hands at this moment; what was
// asked works a moment later.
var ErrRotating = errors.New("the root key is being rotated at this moment; try again")

// Wrap seals a short secret under the root key of the snapshot it was given
// with, bound to aad.
type Wrap func(secret, aad []byte) ([]byte, error)

// Archive calls fn with one snapshot of the engine below: rows as they lie
// there, for a backup. The context ends when the barrier is shut.
func (b *Barrier) Archive(ctx context.Context, fn func(context.Context, storage.Reader, Wrap) error) error {
	s, err := b.current()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	err = b.engine.View(ctx, func(r storage.Reader) error {
		return fn(ctx, r, func(secret, aad []byte) ([]byte, error) { return s.wrapFor(r, secret, aad) })
	})
	if err != nil && s.shut.Load() {
		return s.gone()
	}
	return err
}

// wrapFor seals secret under the very root key that r holds to be the newest,
// which the seals of the same snapshot unwrap.
func (s *session) wrapFor(r storage.Reader, secret, aad []byte) ([]byte, error) {
	check, err := r.Get(rootRow)
	if err != nil {
		return nil, err
	}
	root, err := s.rootFor(r, check)
	if errors.Is(err, ErrWrongKey) {
		return nil, ErrRotating // this node holds a newer one than the snapshot
	}
	if err != nil {
		return nil, err
	}
	wrapped, err := encrypt(root.aead, formatArchive, string(aad), secret)
	if err != nil {
		return nil, err
	}
	of, _ := keyID(check)
	if with, _ := keyID(wrapped); with != of {
		return nil, ErrRotating
	}
	return wrapped, nil
}

// Verifier proves that the rows of a store can be read with a root keyset. Rows
// are given in key order, so that the keys of a scope come before its rows. It
// is for one goroutine.
type Verifier struct {
	root    *rootKeys
	scopes  map[string]*scopeKeys
	checked bool
}

// NewVerifier returns a verifier for a root keyset; it keeps no reference to it.
func NewVerifier(root []byte) (*Verifier, error) {
	keys, err := parseRoot(root)
	if err != nil {
		return nil, err
	}
	return &Verifier{root: keys, scopes: map[string]*scopeKeys{}}, nil
}

// Verifier returns a verifier for the root keyset that the barrier was opened
// with.
func (b *Barrier) Verifier() (*Verifier, error) {
	s, err := b.current()
	if err != nil {
		return nil, err
	}
	root := s.root.Load()
	if root == nil {
		return nil, s.gone()
	}
	return &Verifier{root: root, scopes: map[string]*scopeKeys{}}, nil
}

// Again returns a verifier for the same root keyset that was given no rows yet.
func (v *Verifier) Again() *Verifier {
	return &Verifier{root: v.root, scopes: map[string]*scopeKeys{}}
}

// Lost reports whether a row is of a scope whose keys were destroyed.
func (v *Verifier) Lost(key string) bool {
	return !reserved(key) && v.scopes[scopeOf(key)] == nil
}

// Unwrap returns what a Wrap sealed under the same root key for the same aad, or
// ErrWrongKey.
func (v *Verifier) Unwrap(wrapped, aad []byte) ([]byte, error) {
	secret, err := decrypt(v.root.aead, formatArchive, string(aad), wrapped)
	if err != nil {
		return nil, ErrWrongKey
	}
	return secret, nil
}

// Row proves a row of the engine below the barrier and returns its plaintext,
// nil for what has none: rows outside the barrier, keys, and rows that are Lost,
// which nothing reads any more.
func (v *Verifier) Row(key string, sealed []byte) ([]byte, error) {
	if scope, ok := strings.CutPrefix(key, keysPrefix); ok {
		w := wrapping{root: v.root}
		if outer := outerOf(scope); outer != "" {
			if w.outer = v.scopes[outer]; w.outer == nil {
				return nil, nil // destroyed with the scope around it
			}
		}
		keys, err := parseKeys(w, scope, sealed)
		if err != nil {
			return nil, err
		}
		v.scopes[scope] = keys
		return nil, nil
	}
	switch {
	case key == rootRow:
		v.checked = true
		return nil, v.root.verifyCheck(sealed)
	case reserved(key):
		return nil, nil
	}
	scope := scopeOf(key)
	keys := v.scopes[scope]
	if keys == nil {
		if scope == CoreScope {
			return nil, fmt.Errorf("%w: %s", ErrNoKeys, scope)
		}
		return nil, nil
	}
	plain, err := decrypt(keys.aead, formatValue, key, sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: %q", err, key)
	}
	return plain, nil
}

// Done returns an error when the rows lacked what every store has.
func (v *Verifier) Done() error {
	if !v.checked || v.scopes[CoreScope] == nil {
		return ErrNotInitialized
	}
	return nil
}
