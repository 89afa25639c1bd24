package barrier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/cofferhq/coffer/internal/storage"
)

const (
	// rootRow holds a constant sealed by the root keyset: it tells a right
	// root key from a wrong one, and which root key is the newest.
	rootRow = "barrier/root"
	// upgradeRow holds, during a root rotation, the next root keyset sealed by
	// the one before, for nodes that are open while it happens.
	upgradeRow = "barrier/upgrade"
)

var rootCheck = []byte("coffer root")

// rootKeys is a root keyset ready to use.
type rootKeys struct {
	aead    tink.AEAD
	ids     []uint32
	primary uint32
}

// NewRootKey returns a new root keyset, serialized. Its form is opaque.
func NewRootKey() ([]byte, error) {
	b, _, err := newKeyset()
	return b, err
}

func parseRoot(serialized []byte) (*rootKeys, error) {
	h, a, err := parseKeyset(serialized)
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	info := h.KeysetInfo()
	root := &rootKeys{aead: a, primary: info.GetPrimaryKeyId()}
	for _, k := range info.GetKeyInfo() {
		root.ids = append(root.ids, k.GetKeyId())
	}
	return root, nil
}

func (k *rootKeys) putCheck(t storage.Txn) error {
	check, err := encrypt(k.aead, formatRoot, rootRow, rootCheck)
	if err != nil {
		return err
	}
	return t.Put(rootRow, check)
}

func (k *rootKeys) verifyCheck(check []byte) error {
	plain, err := decrypt(k.aead, formatRoot, rootRow, check)
	if err != nil || string(plain) != string(rootCheck) {
		return ErrWrongKey
	}
	return nil
}

// upgrade returns the next root keyset if r holds one that k can open, or nil.
func (k *rootKeys) upgrade(r storage.Reader) (*rootKeys, error) {
	plain, err := k.openUpgrade(r)
	if plain == nil {
		return nil, err
	}
	defer clear(plain)
	return parseRoot(plain)
}

func (k *rootKeys) openUpgrade(r storage.Reader) ([]byte, error) {
	row, err := r.Get(upgradeRow)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return k.openUpgradeRow(row)
}

func (k *rootKeys) openUpgradeRow(row []byte) ([]byte, error) {
	if id, ok := keyID(row); !ok || !slices.Contains(k.ids, id) {
		return nil, nil
	}
	return decrypt(k.aead, formatUpgrade, upgradeRow, row)
}

// VerifyRoot returns nil when root is the store's root keyset of this moment, or
// one that a rotation under way still accepts, and ErrWrongKey when it is not.
func (b *Barrier) VerifyRoot(ctx context.Context, root []byte) error {
	keys, err := parseRoot(root)
	if err != nil {
		return ErrWrongKey
	}
	return b.engine.View(ctx, func(r storage.Reader) error {
		check, err := r.Get(rootRow)
		if err != nil {
			return err
		}
		return keys.verifyCheck(check)
	})
}

// RootRotation says how far a rotation of the root keyset has come.
type RootRotation uint8

// The steps of a root rotation, in order.
const (
	// RootSettled: no rotation is under way.
	RootSettled RootRotation = iota
	// RootBegun: the next keyset exists; go on with BeginRootRotation.
	RootBegun
	// RootWrapped: the keyset that Open was given has several keys, so the seals
	// wrap the next one; go on with FinishRootRotation.
	RootWrapped
	// RootReduced: the keyset that Open was given has one key and leftovers of a
	// rotation exist; go on with EndRootRotation.
	RootReduced
)

// RootRotation says, given the keyset that the seals unwrap now, whether a
// rotation was left unfinished and with which step it goes on.
func (b *Barrier) RootRotation(ctx context.Context, root []byte) (RootRotation, error) {
	keys, err := parseRoot(root)
	if err != nil {
		return RootSettled, err
	}
	step := RootSettled
	err = b.engine.View(ctx, func(r storage.Reader) error {
		row, err := r.Get(upgradeRow)
		if errors.Is(err, storage.ErrNotFound) {
			row, err = nil, nil
		}
		if err != nil {
			return err
		}
		id, _ := keyID(row)
		switch {
		case len(keys.ids) > 1:
			step = RootWrapped
		case row == nil:
			step = RootSettled
		case slices.Contains(keys.ids, id):
			step = RootBegun
		default:
			step = RootReduced
		}
		return nil
	})
	return step, err
}

// BeginRootRotation makes the next root keyset, [new primary, old keys], and
// returns it serialized. root is the present one. The caller lets every seal
// wrap it, stores that, and goes on with FinishRootRotation. Called again after
// a crash it returns the same keyset.
func (b *Barrier) BeginRootRotation(ctx context.Context, root []byte) ([]byte, error) {
	if _, err := b.current(); err != nil {
		return nil, err
	}
	keys, err := parseRoot(root)
	if err != nil {
		return nil, err
	}
	var next []byte
	_, err = b.engine.Update(ctx, func(t storage.Txn) error {
		check, err := t.Get(rootRow)
		if err != nil {
			return err
		}
		if err := keys.verifyCheck(check); err != nil {
			return err
		}
		if next, err = keys.openUpgrade(t); next != nil || err != nil {
			return err
		}
		if next, _, err = extendKeyset(root); err != nil {
			return err
		}
		row, err := encrypt(keys.aead, formatUpgrade, upgradeRow, next)
		if err != nil {
			return err
		}
		return t.Put(upgradeRow, row)
	})
	return next, err
}

// FinishRootRotation moves every keyset row to the newest key of next, piece by
// piece while the barrier serves, and returns next without its old keys. The
// caller lets every seal wrap that, stores it, and calls EndRootRotation. It
// can be called again with the same keyset after a crash.
func (b *Barrier) FinishRootRotation(ctx context.Context, next []byte) ([]byte, error) {
	s, err := b.current()
	if err != nil {
		return nil, err
	}
	keys, err := parseRoot(next)
	if err != nil {
		return nil, err
	}
	// From here on whoever writes a keyset row uses the new key, or conflicts.
	_, err = b.engine.Update(ctx, func(t storage.Txn) error {
		check, err := t.Get(rootRow)
		if err != nil {
			return err
		}
		if err := keys.verifyCheck(check); err != nil {
			return err
		}
		return keys.putCheck(t)
	})
	if err != nil {
		return nil, err
	}
	s.replaceRoot(s.root.Load(), keys)
	stale := func(sealed []byte) bool { id, _ := keyID(sealed); return id != keys.primary }
	err = b.rewriteRows(ctx, rowRange{prefix: keysPrefix}, stale, func(_ storage.Txn, key string, sealed []byte) ([]byte, error) {
		plain, err := decrypt(keys.aead, formatKeys, key, sealed)
		if err != nil {
			return nil, err
		}
		defer clear(plain)
		return encrypt(keys.aead, formatKeys, key, plain)
	}, func(int) {})
	if err != nil {
		return nil, err
	}
	old := slices.DeleteFunc(slices.Clone(keys.ids), func(id uint32) bool { return id == keys.primary })
	return reduceKeyset(next, old)
}

// EndRootRotation forgets the old root keys, once the seals wrap last, the
// keyset that FinishRootRotation returned. It first waits for CacheBound, in
// which the nodes that Follow learn the new key from the row that it deletes.
// It can be called again.
func (b *Barrier) EndRootRotation(ctx context.Context, last []byte) error {
	s, err := b.current()
	if err != nil {
		return err
	}
	keys, err := parseRoot(last)
	if err != nil {
		return err
	}
	if len(keys.ids) != 1 {
		return errors.New("the root keyset still holds old keys; finish the rotation first")
	}
	select {
	case <-time.After(CacheBound):
	case <-s.ctx.Done():
		return s.gone()
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err = b.engine.Update(ctx, func(t storage.Txn) error {
		check, err := t.Get(rootRow)
		if err != nil {
			return err
		}
		if err := keys.verifyCheck(check); err != nil {
			return err
		}
		return t.Delete(upgradeRow)
	})
	if err != nil {
		return err
	}
	s.replaceRoot(s.root.Load(), keys)
	b.log.Info("root key rotated")
	return nil
}
