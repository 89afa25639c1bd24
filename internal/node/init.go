package node

import (
	"context"
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
	defer n.publish()
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
	if err := n.startOver(ctx); err != nil {
		return nil, err
	}
	root, err := barrier.NewRootKey()
	if err != nil {
		return nil, err
	}
	rec := seal.NewRecord()
	rec.Pending = true
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
	// Until the record is no longer pending nobody was given anything, and a
	// crash leaves a store that may be initialized again.
	if _, err := n.Engine.Update(ctx, func(t storage.Txn) error {
		if err := barrier.InitializeIn(t, root); err != nil {
			return err
		}
		return rec.Put(t)
	}); errors.Is(err, barrier.ErrInitialized) || errors.Is(err, seal.ErrChanged) {
		return nil, fault.Wrap(fault.Invalid, err, "another node is initializing this store")
	} else if err != nil {
		return nil, err
	}
	if err := n.open(ctx, root); err != nil {
		return nil, err
	}
	if out.RootToken, err = n.firstRows(ctx, rec, key, recovery); err != nil {
		n.shut()
		return nil, err
	}
	if !auto {
		n.shut()
	}
	return out, nil
}

// firstRows writes what a new server needs inside the barrier, makes its first
// root token, and declares it initialized.
func (n *Node) firstRows(ctx context.Context, rec *seal.Record, key, recovery []byte) (token string, err error) {
	if err := n.keep(ctx, key, recovery, rec.Recovery); err != nil {
		return "", err
	}
	if token, err = n.NewRootToken(ctx); err != nil {
		return "", err
	}
	now, err := n.stored(ctx)
	if err != nil {
		return "", err
	}
	if now.Store != rec.Store {
		return "", seal.ErrChanged
	}
	now.Pending = false
	return token, n.store(ctx, now)
}

// startOver clears a store whose initialization was never finished.
func (n *Node) startOver(ctx context.Context) error {
	const piece = 32
	rec, err := n.stored(ctx)
	if errors.Is(err, seal.ErrNoRecord) {
		return nil
	}
	if err != nil {
		return err
	}
	for left := true; left; {
		_, err := n.Engine.Update(ctx, func(t storage.Txn) error {
			now, err := seal.Load(t)
			if err != nil {
				return err
			}
			if !now.Pending || now.Store != rec.Store {
				return seal.ErrChanged
			}
			rows, err := t.Scan("", "", piece)
			if err != nil {
				return err
			}
			if left = len(rows) > 1; !left { // only the record itself
				return seal.Delete(t)
			}
			for _, row := range rows {
				if row.Key == seal.RecordRow {
					continue
				}
				if err := t.Delete(row.Key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
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
	case r.Shares != 0 || r.Threshold != 0:
		// None are made; numbers that make no quorum are a mistake all the same.
		if err := checkShares(r.Shares, r.Threshold); err != nil {
			return false, err
		}
	}
	if r.RecoveryShares == 0 && r.RecoveryThreshold == 0 {
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

// keep stores inside the barrier what a later change of the seals needs: the
// Shamir seal's key, and the recovery key's hash with how it is split.
func (n *Node) keep(ctx context.Context, key, recovery []byte, split *seal.Shares) error {
	if key == nil && recovery == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	_, err := n.Barrier.Update(ctx, func(t storage.Txn) error {
		if key != nil {
			if err := t.Put(shamirRow, key); err != nil {
				return err
			}
		}
		if recovery != nil {
			return putRecovery(t, recovery, *split)
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
	defer n.publish()
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
				if err := n.open(ctx, root); err != nil {
					return err
				}
				n.trySettle(ctx)
				return nil
			}
		}
	}
	_ = n.Record(ctx, "unseal-refused")
	return fault.Wrap(fault.Invalid, err, "the key shares do not belong together, or not to this server; give them anew")
}
