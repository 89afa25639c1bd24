// Package barrier is a storage.Engine that encrypts: what is written through it
// reaches the engine below only as ciphertext, and what comes back was written
// through it, under that very key.
//
// # Keys
//
// Rows under "mount/<id>/" belong to the scope "mount/<id>", those under
// "ns/<id>/mount/<id>/" and "ns/<id>/" to scopes of these names, all others to the
// scope "core". Each scope has a keyset of its own (Tink, XAES-256-GCM with
// 192-bit random nonces, so that no count of values wears a key out). Keysets
// are rows "barrier/keys/<scope>", encrypted by the root keyset, which package
// seal keeps wrapped outside the barrier. Destroying a scope's keyset makes its
// rows unreadable for good, apart from what a copy of the whole store and the
// root keyset of its day still open. The keysets below "ns/<id>/" are wrapped by that
// of "ns/<id>" before the root keyset wraps them: destroying that one destroys all of
// them at once.
//
// # What is bound
//
// The associated data of a value is a format byte and its full storage key.
// A value that was changed, moved, swapped or put under another name fails with
// ErrTampered. Whoever can write to the engine below can still put an older
// value back under its own name, or remove rows; the barrier does not notice.
//
// # Several nodes
//
// Nodes share nothing but the engine. A reader that meets a key it does not
// know loads the keyset from the snapshot it reads. A writer compares the
// keyset row inside its transaction with the one it holds, so that no value is
// ever written under a key that a rotation has already dropped. Follow keeps a
// node's keys fresh between its own accesses.
//
// # Memory
//
// Shut forgets every key and cached value and zeroes the buffers that this
// package allocated for key material. It cannot reach the copies that Tink and
// crypto/aes keep (key schedules, keyset messages), nor values handed to
// callers, nor what the garbage collector moved: they are overwritten when the
// memory is used again. Lock memory and forbid core dumps in the process.
//
// The package is not for wrapping the root keyset (package seal) nor for
// deciding who may open it (package node).
package barrier

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Errors of the barrier. They come wrapped with the key or scope they concern.
var (
	ErrInitialized    = errors.New("barrier is already initialized")
	ErrNotInitialized = errors.New("barrier is not initialized")
	ErrWrongKey       = errors.New("the root key does not open this store: it belongs to another store, or was replaced by a rotation")
	ErrNoKeys         = errors.New("scope has no keys: they were never created, or are destroyed")
	ErrKeysExist      = errors.New("scope already has keys")
	ErrTampered       = errors.New("stored value does not authenticate: it was changed, moved, or written by another store")
)

// CoreScope is the scope of all rows that are in no other.
const CoreScope = "core"

// Barrier encrypts everything that passes to and from an engine. Its methods
// may be called concurrently.
type Barrier struct {
	engine  storage.Engine
	log     *slog.Logger
	session atomic.Pointer[session] // nil while shut
	closed  atomic.Bool

	opening sync.Mutex // held by Open and Shut

	pulse pulse // how old what is in memory may be

	cachesMu    sync.RWMutex
	caches      []dependent
	subscribers []*subscriber
}

// dependent is a cache that wants to know which keys this node wrote.
type dependent interface {
	forget(keys []string, at storage.Revision)
	forgetAll(at storage.Revision)
	end()
}

// New returns a shut barrier over e.
func New(e storage.Engine, log *slog.Logger) *Barrier {
	b := &Barrier{engine: e, log: log}
	b.pulse.epoch = time.Now().Add(-time.Nanosecond)
	return b
}

// Initialized reports whether the store below holds a barrier's keys.
func (b *Barrier) Initialized(ctx context.Context) (bool, error) {
	var found bool
	err := b.engine.View(ctx, func(r storage.Reader) error {
		_, err := r.Get(rootRow)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		found = err == nil
		return err
	})
	return found, err
}

// Initialize creates the rows of a new store under root, a keyset made by
// NewRootKey. It returns ErrInitialized if there are any. The barrier stays shut.
func (b *Barrier) Initialize(ctx context.Context, root []byte) error {
	_, err := b.engine.Update(ctx, func(t storage.Txn) error { return InitializeIn(t, root) })
	return err
}

// InitializeIn is Initialize as part of a transaction of the engine below, so
// that the wrapped root keyset can be stored in the same one.
func InitializeIn(t storage.Txn, root []byte) error {
	keys, err := parseRoot(root)
	if err != nil {
		return err
	}
	switch _, err := t.Get(rootRow); {
	case err == nil:
		return ErrInitialized
	case !errors.Is(err, storage.ErrNotFound):
		return err
	}
	if err := keys.putCheck(t); err != nil {
		return err
	}
	_, err = putNewKeys(t, wrapping{root: keys}, CoreScope)
	return err
}

// Open opens the barrier with the root keyset; it keeps no reference to root.
// It returns ErrWrongKey when root is not this store's, ErrNotInitialized when
// the store is empty, and does nothing when the barrier is open already.
func (b *Barrier) Open(ctx context.Context, root []byte) error {
	b.opening.Lock()
	defer b.opening.Unlock()
	if b.closed.Load() {
		return storage.ErrClosed
	}
	keys, err := parseRoot(root)
	if err != nil {
		return err
	}
	s := newSession(keys)
	err = b.engine.View(ctx, func(r storage.Reader) error {
		check, err := r.Get(rootRow)
		if errors.Is(err, storage.ErrNotFound) {
			return ErrNotInitialized
		}
		if err != nil {
			return err
		}
		keys, err := s.rootFor(r, check)
		if err != nil {
			return err
		}
		return keys.verifyCheck(check)
	})
	if err != nil {
		s.end()
		return err
	}
	b.pulse.right.Store(b.pulse.now())
	if !b.session.CompareAndSwap(nil, s) {
		s.end()
	}
	return nil
}

// Shut seals the barrier: it forgets all keys and cached values and ends every
// Watch. Later calls, and calls on readers still in use, return fault.Sealed.
func (b *Barrier) Shut() {
	b.opening.Lock()
	defer b.opening.Unlock()
	s := b.session.Swap(nil)
	if s == nil {
		return
	}
	s.end()
	b.cachesMu.Lock()
	defer b.cachesMu.Unlock()
	b.pulse.following.Store(false)
	for _, c := range b.caches {
		c.end()
	}
	b.caches = nil
}

// Opened reports whether the barrier is open.
func (b *Barrier) Opened() bool { return b.session.Load() != nil }

// Close shuts the barrier and closes the engine below.
func (b *Barrier) Close() error {
	b.closed.Store(true)
	if s := b.session.Load(); s != nil {
		s.closed.Store(true)
	}
	b.Shut()
	return b.engine.Close()
}

var errSealed = fault.New(fault.Sealed, "Coffer is sealed")

// away is the error of a barrier that is not open.
func (b *Barrier) away() error {
	if b.closed.Load() {
		return storage.ErrClosed
	}
	return errSealed
}

// current returns the open session, or fault.Sealed.
func (b *Barrier) current() (*session, error) {
	if s := b.session.Load(); s != nil {
		return s, nil
	}
	return nil, b.away()
}

// wrote tells the caches of this node which keys a commit changed.
func (b *Barrier) wrote(keys []string, at storage.Revision) {
	if len(keys) == 0 {
		return
	}
	b.cachesMu.RLock()
	defer b.cachesMu.RUnlock()
	for _, c := range b.caches {
		c.forget(keys, at)
	}
}

// destroyed tells the caches of this node that a scope's rows are gone.
func (b *Barrier) destroyed(at storage.Revision) {
	b.cachesMu.RLock()
	defer b.cachesMu.RUnlock()
	for _, c := range b.caches {
		c.forgetAll(at)
	}
}
