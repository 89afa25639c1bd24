package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"slices"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/shamir"
	"github.com/cofferhq/coffer/internal/storage"
)

// Rows inside the barrier.
const (
	shamirRow   = "core/node/shamir"   // the Shamir seal's key, so that a root rotation needs no people
	recoveryRow = "core/node/recovery" // hash of the recovery key
)

// quorum collects key shares.
type quorum struct {
	nonce  string
	shares [][]byte
}

func (q *quorum) reset() {
	for _, s := range q.shares {
		clear(s)
	}
	*q = quorum{}
}

// begin starts a collection of its own.
func (q *quorum) begin() {
	q.reset()
	q.nonce = uuid.NewString()
}

// add takes one share. A share that was given already does not count.
func (q *quorum) add(share []byte) error {
	if len(share) != shamir.KeySize+1 {
		return fault.New(fault.Invalid, "a key share has %d bytes (%d hex digits); this one does not", shamir.KeySize+1, 2*(shamir.KeySize+1))
	}
	if q.nonce == "" {
		q.begin()
	}
	if !slices.ContainsFunc(q.shares, func(s []byte) bool { return bytes.Equal(s, share) }) {
		q.shares = append(q.shares, bytes.Clone(share))
	}
	return nil
}

// combine returns the key that the shares give, and forgets them.
func (q *quorum) combine(threshold int) ([]byte, error) {
	defer q.reset()
	return shamir.Combine(q.shares[:threshold])
}

// split makes a new key and its shares.
func split(shares, threshold int) (key []byte, parts [][]byte, err error) {
	key = shamir.NewKey()
	parts, err = shamir.Split(key, shares, threshold)
	return key, parts, err
}

// checkShares refuses numbers of shares that make no quorum.
func checkShares(shares, threshold int) error {
	if err := shamir.Check(shares, threshold); err != nil {
		return fault.New(fault.Invalid, "invalid seal configuration: %v", err)
	}
	return nil
}

// authority says whose shares authorize: those of the Shamir seal, or recovery
// shares.
type authority struct {
	rec       *seal.Record
	recovery  []byte // hash of the recovery key; nil where the Shamir seal decides
	threshold int
}

// authority returns whose shares authorize; the node must be unsealed.
func (n *Node) authority(ctx context.Context) (authority, error) {
	rec, err := n.record(ctx)
	if err != nil {
		return authority{}, err
	}
	a := authority{rec: rec}
	if rec.Shares != nil {
		a.threshold = rec.Shares.Threshold
		return a, nil
	}
	// The record lies open on the disk; what it says of the recovery key is only
	// for show while the node is sealed.
	kept, err := n.recovery(ctx)
	if errors.Is(err, storage.ErrNotFound) {
		return a, errNoShares()
	}
	a.recovery, a.threshold = kept.Hash, kept.Threshold
	return a, err
}

// recoveryKey is what is kept of the recovery key.
type recoveryKey struct {
	Hash []byte `json:"hash"` // SHA-256; the key has 256 random bits
	seal.Shares
}

func putRecovery(t storage.Txn, key []byte, split seal.Shares) error {
	sum := sha256.Sum256(key)
	row, err := json.Marshal(recoveryKey{Hash: sum[:], Shares: split})
	if err != nil {
		return err
	}
	return t.Put(recoveryRow, row)
}

func (n *Node) recovery(ctx context.Context) (kept recoveryKey, err error) {
	err = n.Barrier.View(ctx, func(r storage.Reader) error {
		row, err := r.Get(recoveryRow)
		if err != nil {
			return err
		}
		return json.Unmarshal(row, &kept)
	})
	return kept, err
}

// keepAsRecovery turns the Shamir seal's key into the recovery key.
func (n *Node) keepAsRecovery(ctx context.Context, split *seal.Shares) error {
	_, err := n.Barrier.Update(ctx, func(t storage.Txn) error {
		key, err := t.Get(shamirRow)
		if err != nil {
			return err
		}
		defer clear(key)
		return putRecovery(t, key, *split)
	})
	return err
}

func errNoShares() error {
	return fault.New(fault.Invalid, "nobody holds key shares of this server; a token with sudo on sys/seal/shares can give some out")
}

// prove reports whether key is what the shares of the authority combine to.
func (n *Node) prove(ctx context.Context, a authority, key []byte) bool {
	if a.recovery != nil {
		sum := sha256.Sum256(key)
		return subtle.ConstantTimeCompare(sum[:], a.recovery) == 1
	}
	s, err := n.shamirOf(key)
	if err != nil {
		return false
	}
	root, _, err := a.rec.Unwrap(ctx, []seal.Named{s})
	if err != nil {
		return false
	}
	defer clear(root)
	// That a key unwraps something proves nothing: whoever can write to the disk
	// can put there what he wrapped himself. It has to be the root key.
	return n.Barrier.VerifyRoot(ctx, root) == nil
}

// shamirOf returns the Shamir seal of a key.
func (n *Node) shamirOf(key []byte) (seal.Named, error) {
	s, err := shamir.Open(key)
	return seal.Named{Name: n.shamir(), Kind: shamir.Name, Seal: s}, err
}

// gather adds a share to q and, once there are enough, proves them. done says
// that they were proven.
func (n *Node) gather(ctx context.Context, q *quorum, nonce string, share []byte) (done bool, err error) {
	if n.sealed {
		return false, errSealed()
	}
	if q.nonce == "" {
		return false, fault.New(fault.Invalid, "nothing is in progress; start it first")
	}
	if nonce != q.nonce {
		return false, fault.New(fault.Invalid, "incorrect nonce supplied; nonce for this operation is %q", q.nonce)
	}
	a, err := n.authority(ctx)
	if err != nil {
		return false, err
	}
	if err := q.add(share); err != nil {
		return false, err
	}
	if len(q.shares) < a.threshold {
		return false, nil
	}
	key, err := q.combine(a.threshold)
	if err != nil || !n.prove(ctx, a, key) {
		clear(key)
		q.nonce = nonce
		return false, fault.New(fault.Invalid, "the key shares do not belong together, or not to this server; give them anew")
	}
	clear(key)
	return true, nil
}
