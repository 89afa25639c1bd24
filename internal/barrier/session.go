package barrier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cofferhq/coffer/internal/storage"
)

// session is what an open barrier holds: the root keyset and the scopes'
// keysets met so far.
type session struct {
	ctx    context.Context // ends with the session
	stop   context.CancelFunc
	shut   atomic.Bool
	closed atomic.Bool // set before shut when the store itself is closed
	root   atomic.Pointer[rootKeys]

	mu     sync.RWMutex
	scopes map[string]*scopeKeys
}

func newSession(root *rootKeys) *session {
	s := &session{scopes: map[string]*scopeKeys{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.root.Store(root)
	return s
}

// end forgets all keys. Whoever still holds the session gets fault.Sealed.
func (s *session) end() {
	s.shut.Store(true)
	s.stop()
	s.root.Store(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.scopes {
		clear(k.fingerprint)
	}
	clear(s.scopes)
}

// gone is the error of a session that has ended.
func (s *session) gone() error {
	if s.closed.Load() {
		return storage.ErrClosed
	}
	return errSealed
}

// cached returns the keys held for scope, or nil.
func (s *session) cached(scope string) *scopeKeys {
	s.mu.RLock()
	k := s.scopes[scope]
	s.mu.RUnlock()
	if k == nil || k.destroyed {
		return nil
	}
	return k
}

// install keeps keys that the store held at revision at, unless newer ones are
// held. A destroyed scope stays known as such, so that a reader of an older
// snapshot does not bring its keys back.
func (s *session) install(scope string, k *scopeKeys, at storage.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut.Load() {
		return
	}
	if old := s.scopes[scope]; old != nil {
		if old.installed > at {
			return
		}
		same := !k.destroyed && !old.destroyed && old.primary() == k.primary()
		if same && old.encryptions != k.encryptions {
			old.encryptions.Add(k.encryptions.Load())
			k.encryptions = old.encryptions
		}
		if same && bytes.Equal(old.row, k.row) {
			// Others use what is installed, which must not change under them.
			old.installed = at
			return
		}
		clear(old.fingerprint)
	}
	k.installed = at
	s.scopes[scope] = k
	if !k.destroyed || outerOf(scope) != "" {
		return
	}
	for inner, old := range s.scopes {
		if outerOf(inner) == scope && !old.destroyed {
			clear(old.fingerprint)
			s.scopes[inner] = &scopeKeys{destroyed: true, installed: at}
		}
	}
}

// load reads the keys of scope from r. It does not keep them.
func (s *session) load(r storage.Reader, scope string) (*scopeKeys, error) {
	row, err := r.Get(keysPrefix + scope)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNoKeys, scope)
	}
	if err != nil {
		return nil, err
	}
	return s.parse(r, scope, row)
}

// parse opens a keyset row found in r.
func (s *session) parse(r storage.Reader, scope string, row []byte) (*scopeKeys, error) {
	root, err := s.rootFor(r, row)
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", scope, err)
	}
	outer, err := s.outer(r, scope)
	if err != nil {
		return nil, err
	}
	return parseKeys(wrapping{root, outer}, scope, row)
}

// outer returns the keys that wrap those of scope, exactly as r holds them; nil when
// only the root keyset does.
func (s *session) outer(r storage.Reader, scope string) (*scopeKeys, error) {
	name := outerOf(scope)
	if name == "" {
		return nil, nil
	}
	row, err := r.Get(keysPrefix + name)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNoKeys, name)
	}
	if err != nil {
		return nil, err
	}
	if k := s.cached(name); k != nil && bytes.Equal(k.row, row) {
		return k, nil
	}
	return s.parse(r, name, row)
}

// rootFor returns a root keyset that knows the key which sealed row. Another
// node may be rotating the root keyset: then the snapshot holds the next one,
// sealed by the one that is known here.
func (s *session) rootFor(r storage.Reader, row []byte) (*rootKeys, error) {
	root := s.root.Load()
	if root == nil {
		return nil, s.gone()
	}
	id, ok := keyID(row)
	if !ok {
		return nil, ErrTampered
	}
	if slices.Contains(root.ids, id) {
		return root, nil
	}
	next, err := root.upgrade(r)
	if err != nil {
		return nil, err
	}
	if next == nil || !slices.Contains(next.ids, id) {
		return nil, ErrWrongKey
	}
	s.replaceRoot(root, next)
	return next, nil
}

// replaceRoot puts next in the place of old unless the session has ended or
// moved on.
func (s *session) replaceRoot(old, next *rootKeys) {
	s.root.CompareAndSwap(old, next)
	if s.shut.Load() {
		s.root.Store(nil)
	}
}

// forReading returns keys of scope that know the key id, from memory or else
// from r; kept tells whether what was loaded may be shared with others.
func (s *session) forReading(r storage.Reader, scope string, id uint32, kept bool) (*scopeKeys, error) {
	if k := s.cached(scope); k != nil && k.has(id) {
		return k, nil
	}
	if s.shut.Load() {
		return nil, s.gone()
	}
	k, err := s.load(r, scope)
	if err != nil {
		return nil, err
	}
	if !k.has(id) {
		return nil, fmt.Errorf("%w: sealed with a key that is not one of %s", ErrTampered, scope)
	}
	if kept {
		s.install(scope, k, r.Revision())
	}
	return k, nil
}

// forWriting returns the keys of scope exactly as t holds them. The row becomes
// part of what t has read, so t fails against a rotation that commits before it.
func (s *session) forWriting(t storage.Txn, scope string) (*scopeKeys, error) {
	row, err := t.Get(keysPrefix + scope)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNoKeys, scope)
	}
	if err != nil {
		return nil, err
	}
	if k := s.cached(scope); k != nil && bytes.Equal(k.row, row) {
		return k, nil
	}
	return s.parse(t, scope, row)
}
