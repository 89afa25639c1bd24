package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/shamir"
	"github.com/cofferhq/coffer/internal/storage"
)

// RotateKeys makes a new encryption key for every scope of the barrier; what is
// written from now on uses it. (Vault: sys/rotate.)
func (n *Node) RotateKeys(ctx context.Context) error {
	scopes, err := n.Barrier.Scopes(ctx)
	if err != nil {
		return err
	}
	if err := n.Record(ctx, "keys-rotated"); err != nil {
		return err
	}
	for _, scope := range scopes {
		if _, err := n.Barrier.RotateKeys(ctx, scope); err != nil && !errors.Is(err, barrier.ErrNoKeys) {
			return fmt.Errorf("rotate the keys of %s: %w", scope, err)
		}
	}
	return nil
}

// Rewrap encrypts every row anew under the newest keys and drops the old ones,
// while the server serves.
func (n *Node) Rewrap(ctx context.Context, progress func(scope string, done int)) error {
	scopes, err := n.Barrier.Scopes(ctx)
	if err != nil {
		return err
	}
	for _, scope := range scopes {
		if err := n.Barrier.Rewrap(ctx, scope, func(done int) { progress(scope, done) }); err != nil && !errors.Is(err, barrier.ErrNoKeys) {
			return fmt.Errorf("rewrap %s: %w", scope, err)
		}
	}
	return nil
}

// KeyStatus is that of the server's own scope. (Vault: sys/key-status.)
func (n *Node) KeyStatus(ctx context.Context) (barrier.KeyStatus, error) {
	return n.Barrier.KeyStatus(ctx, barrier.CoreScope)
}

// RotateRoot replaces the root key under every seal while the server serves. A
// crash at any point is taken up by the next unseal.
func (n *Node) RotateRoot(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sealed {
		return errSealed()
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	n.interrupt.Store(&stop)
	defer n.interrupt.Store(nil)
	if err := n.refreshRoot(ctx); err != nil {
		return err
	}
	if err := n.resumeRotation(ctx); err != nil {
		return err
	}
	if _, err := n.seals(ctx); err != nil {
		return err
	}
	if err := n.Record(ctx, "root-rotated"); err != nil {
		return err
	}
	next, err := n.Barrier.BeginRootRotation(ctx, n.root)
	if err != nil {
		return err
	}
	return n.rotateTo(ctx, next)
}

// resumeRotation takes up a rotation of the root key that was interrupted.
func (n *Node) resumeRotation(ctx context.Context) error {
	step, err := n.Barrier.RootRotation(ctx, n.root)
	if err != nil {
		return err
	}
	switch step {
	case barrier.RootBegun:
		next, err := n.Barrier.BeginRootRotation(ctx, n.root)
		if err != nil {
			return err
		}
		return n.rotateTo(ctx, next)
	case barrier.RootWrapped:
		return n.finishRotation(ctx)
	case barrier.RootReduced:
		return n.Barrier.EndRootRotation(ctx, n.root)
	}
	return nil
}

func (n *Node) rotateTo(ctx context.Context, next []byte) error {
	if err := n.rewrapRoot(ctx, next); err != nil {
		return err
	}
	return n.finishRotation(ctx)
}

func (n *Node) finishRotation(ctx context.Context) error {
	last, err := n.Barrier.FinishRootRotation(ctx, n.root)
	if err != nil {
		return err
	}
	if err := n.rewrapRoot(ctx, last); err != nil {
		return err
	}
	return n.Barrier.EndRootRotation(ctx, last)
}

// rewrapRoot lets every seal that wraps the root key wrap another form of it.
func (n *Node) rewrapRoot(ctx context.Context, root []byte) error {
	rec, err := n.record(ctx)
	if err != nil {
		return err
	}
	seals, err := n.seals(ctx)
	if err != nil {
		return err
	}
	if err := rec.Rewrap(ctx, seals, root); err != nil {
		return err
	}
	if err := n.store(ctx, rec); err != nil {
		return err
	}
	clear(n.root)
	n.root = root
	return nil
}

// seals returns every seal that wraps the root key, or a fault that names the
// one that cannot be reached.
func (n *Node) seals(ctx context.Context) ([]seal.Named, error) {
	rec, err := n.record(ctx)
	if err != nil {
		return nil, err
	}
	out := n.named()
	for _, w := range rec.Seals {
		if w.Kind == shamir.Name {
			s, err := n.shamirSeal(ctx, rec)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		} else if !slices.ContainsFunc(out, func(s seal.Named) bool { return s.Name == w.Name }) {
			return nil, fault.New(fault.Unavailable, "seal %s wraps the root key and cannot be reached, or is not configured; the root key is rotated only under all of its seals", w.Name)
		}
	}
	return out, nil
}

// keptShamir returns the Shamir seal from the key that is kept in the barrier.
func (n *Node) keptShamir(ctx context.Context) (seal.Named, error) {
	var key []byte
	err := n.Barrier.View(ctx, func(r storage.Reader) (err error) {
		key, err = r.Get(shamirRow)
		return err
	})
	if err != nil {
		return seal.Named{}, err
	}
	defer clear(key)
	return n.shamirOf(key)
}

// shamirSeal returns the Shamir seal, made sure that it is the one of rec.
func (n *Node) shamirSeal(ctx context.Context, rec *seal.Record) (seal.Named, error) {
	s, err := n.keptShamir(ctx)
	if err != nil {
		return s, err
	}
	root, _, err := rec.Unwrap(ctx, []seal.Named{s})
	if err != nil {
		return s, fault.Wrap(fault.Unavailable, err, "the key of the Shamir seal is not at hand; `coffer operator rekey` makes a new one")
	}
	clear(root)
	return s, nil
}
