package node

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/shamir"
	"github.com/cofferhq/coffer/internal/storage"
)

// InitRequest says how many shares are given out. With a Shamir seal the secret
// shares open the server; with other seals the recovery shares authorize, and
// none may be asked for.
type InitRequest struct {
	Shares, Threshold                 int
	RecoveryShares, RecoveryThreshold int
}

// InitResult is shown once.
type InitResult struct {
	Shares         [][]byte
	RecoveryShares [][]byte
	RootToken      string
}

// Init makes the root key, lets every configured seal wrap it, and makes the
// first root token. Afterwards the server is unsealed where a seal opens by
// itself, and sealed where people do. (Vault: sys/init.)
func (n *Node) Init(ctx context.Context, r InitRequest) (*InitResult, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.record(ctx); err == nil {
		return nil, fault.New(fault.Invalid, "Coffer is already initialized")
	} else if !errors.Is(err, seal.ErrNoRecord) {
		return nil, err
	}
	people, err := n.checkInit(r)
	if err != nil {
		return nil, err
	}
	if err := n.Record(ctx, "init"); err != nil {
		return nil, err
	}
	root, err := barrier.NewRootKey()
	if err != nil {
		return nil, err
	}
	rec := seal.NewRecord()
	out := &InitResult{}
	var key, recovery []byte
	if people {
		if key, out.Shares, err = n.addShamir(ctx, rec, root, r.Shares, r.Threshold); err != nil {
			return nil, err
		}
	} else if r.RecoveryShares > 0 {
		if recovery, out.RecoveryShares, err = split(r.RecoveryShares, r.RecoveryThreshold); err != nil {
			return nil, err
		}
		rec.Recovery = &seal.Shares{Shares: r.RecoveryShares, Threshold: r.RecoveryThreshold}
	}
	auto := false
	for _, c := range n.Seals {
		if c.Seal == nil || c.Disabled {
			continue
		}
		if err := rec.Add(ctx, c.Named, root); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "seal %s cannot wrap the root key; nothing was initialized", c.Name)
		}
		auto = true
	}
	// One transaction: a crash leaves a store that is initialized or is not.
	if _, err := n.Engine.Update(ctx, func(t storage.Txn) error {
		if err := barrier.InitializeIn(t, root); err != nil {
			return err
		}
		return rec.Put(t)
	}); err != nil {
		return nil, err
	}
	if err := n.open(ctx, root); err != nil {
		return nil, err
	}
	if err := n.keep(ctx, key, recovery); err != nil {
		return nil, err
	}
	if out.RootToken, err = n.NewRootToken(ctx); err != nil {
		return nil, err
	}
	if !auto {
		n.shut()
	}
	return out, nil
}

// checkInit refuses numbers that cannot be, and reports whether people's shares
// open the server.
func (n *Node) checkInit(r InitRequest) (people bool, err error) {
	usable := 0
	for _, c := range n.Seals {
		switch {
		case c.Disabled:
		case c.Err != nil:
			return false, fault.Wrap(fault.Unavailable, c.Err, "seal %s cannot be opened; nothing was initialized", c.Name)
		default:
			usable++
			people = people || c.Kind == shamir.Name
		}
	}
	switch {
	case usable == 0:
		return false, fault.New(fault.Invalid, "every configured seal is disabled; one must wrap the root key")
	case people:
		return true, checkShares(r.Shares, r.Threshold)
	case r.RecoveryShares == 0 && r.RecoveryThreshold == 0:
		return false, nil
	}
	return false, checkShares(r.RecoveryShares, r.RecoveryThreshold)
}

// addShamir makes a key, splits it, and lets its seal wrap root.
func (n *Node) addShamir(ctx context.Context, rec *seal.Record, root []byte, shares, threshold int) (key []byte, parts [][]byte, err error) {
	if key, parts, err = split(shares, threshold); err != nil {
		return nil, nil, err
	}
	s, err := n.shamirOf(key)
	if err != nil {
		return nil, nil, err
	}
	rec.Shares = &seal.Shares{Shares: shares, Threshold: threshold}
	if rec.Has(s.Name) {
		return key, parts, rec.Replace(ctx, s, root)
	}
	return key, parts, rec.Add(ctx, s, root)
}

// keep stores inside the barrier what a later change of the seals needs.
func (n *Node) keep(ctx context.Context, key, recovery []byte) error {
	if key == nil && recovery == nil {
		return nil
	}
	_, err := n.Barrier.Update(ctx, func(t storage.Txn) error {
		if key != nil {
			if err := t.Put(shamirRow, key); err != nil {
				return err
			}
		}
		if recovery != nil {
			sum := sha256.Sum256(recovery)
			return t.Put(recoveryRow, sum[:])
		}
		return nil
	})
	clear(key)
	clear(recovery)
	return err
}

// Unseal takes one share of the Shamir key, and opens the node once there are
// enough. reset forgets the shares that were given. (Vault: sys/unseal.)
func (n *Node) Unseal(ctx context.Context, share []byte, reset bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if reset {
		n.unseal.reset()
		return nil
	}
	if !n.sealed {
		return nil
	}
	rec, err := n.record(ctx)
	if errors.Is(err, seal.ErrNoRecord) {
		return fault.New(fault.Invalid, "Coffer is not initialized; run `coffer operator init`")
	}
	if err != nil {
		return err
	}
	if rec.Shares == nil {
		return fault.New(fault.Invalid, "no key shares open this server: its root key is wrapped by %s", names(rec))
	}
	if err := n.unseal.add(share); err != nil {
		return err
	}
	if len(n.unseal.shares) < rec.Shares.Threshold {
		return nil
	}
	key, err := n.unseal.combine(rec.Shares.Threshold)
	if err == nil {
		defer clear(key)
		var s seal.Named
		if s, err = n.shamirOf(key); err == nil {
			var root []byte
			if root, _, err = rec.Unwrap(ctx, []seal.Named{s}); err == nil {
				return n.open(ctx, root)
			}
		}
	}
	_ = n.Record(ctx, "unseal-refused")
	return fault.Wrap(fault.Invalid, err, "the key shares do not belong together, or not to this server; give them anew")
}
