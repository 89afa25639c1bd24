package node

import (
	"context"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/shamir"
)

// RekeyRequest says how many shares the new key has.
type RekeyRequest struct {
	Shares, Threshold int
	// Verify keeps the old shares in force until the new ones were given once.
	Verify bool
}

// RekeyStatus is how a rekey stands.
type RekeyStatus struct {
	Started           bool
	Nonce             string
	Shares, Threshold int // of the new key
	Progress          int // shares of the old key given
	Required          int // of them needed
	Verify            bool
	VerifyNonce       string
	VerifyProgress    int
	Complete          bool
	NewShares         [][]byte // once, when the old shares were proven
}

// rekey is a change of shares under way.
type rekey struct {
	RekeyRequest
	old    quorum
	next   *fresh
	verify quorum
}

// fresh is a key whose shares are out and that is not in force yet.
type fresh struct {
	key    []byte
	rec    *seal.Record // as it will be
	shares [][]byte
}

// RekeyInit starts to replace the shares that open the server or authorize.
// (Vault: sys/rekey/init.)
func (n *Node) RekeyInit(ctx context.Context, r RekeyRequest) (RekeyStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sealed {
		return RekeyStatus{}, errSealed()
	}
	if n.rekey.old.nonce != "" || n.rekey.next != nil {
		return RekeyStatus{}, fault.New(fault.Invalid, "rekey already in progress; cancel it first")
	}
	if err := checkShares(r.Shares, r.Threshold); err != nil {
		return RekeyStatus{}, err
	}
	if _, err := n.authority(ctx); err != nil {
		return RekeyStatus{}, err
	}
	n.rekey = rekey{RekeyRequest: r}
	n.rekey.old.begin()
	return n.rekeyStatus(ctx)
}

// RekeyStatus says how the rekey stands.
func (n *Node) RekeyStatus(ctx context.Context) (RekeyStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sealed {
		return RekeyStatus{}, errSealed()
	}
	return n.rekeyStatus(ctx)
}

func (n *Node) rekeyStatus(ctx context.Context) (RekeyStatus, error) {
	rec, err := n.record(ctx)
	if err != nil {
		return RekeyStatus{}, err
	}
	k := &n.rekey
	s := RekeyStatus{Verify: k.Verify}
	if people := held(rec); people != nil {
		s.Required = people.Threshold
	}
	if k.old.nonce == "" && k.next == nil {
		return s, nil
	}
	s.Started, s.Nonce, s.Shares, s.Threshold = true, k.old.nonce, k.Shares, k.Threshold
	s.Progress, s.VerifyNonce, s.VerifyProgress = len(k.old.shares), k.verify.nonce, len(k.verify.shares)
	return s, nil
}

// RekeyUpdate takes one old share, and makes the new ones once enough were
// given. (Vault: sys/rekey/update.)
func (n *Node) RekeyUpdate(ctx context.Context, nonce string, share []byte) (RekeyStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := &n.rekey
	if k.next != nil {
		return RekeyStatus{}, fault.New(fault.Invalid, "the new shares are out and wait to be verified")
	}
	done, err := n.gather(ctx, &k.old, nonce, share)
	if err != nil {
		return RekeyStatus{}, err
	}
	if !done {
		return n.rekeyStatus(ctx)
	}
	if k.next, err = n.fresh(ctx, k.Shares, k.Threshold); err != nil {
		return RekeyStatus{}, err
	}
	out := RekeyStatus{
		Complete: true, Nonce: nonce, Shares: k.Shares, Threshold: k.Threshold, NewShares: k.next.shares, Verify: k.Verify,
	}
	if !k.Verify {
		err := n.enforce(ctx)
		n.cancel()
		return out, err
	}
	k.verify.begin()
	out.VerifyNonce = k.verify.nonce
	return out, nil
}

// fresh makes a key of the kind that is in force, and its shares.
func (n *Node) fresh(ctx context.Context, shares, threshold int) (*fresh, error) {
	if err := n.refreshRoot(ctx); err != nil {
		return nil, err
	}
	a, err := n.authority(ctx)
	if err != nil {
		return nil, err
	}
	f := &fresh{rec: a.rec}
	if a.recovery == nil {
		f.key, f.shares, err = n.addShamir(ctx, f.rec, n.root, shares, threshold)
		return f, err
	}
	f.rec.Recovery = &seal.Shares{Shares: shares, Threshold: threshold}
	f.key, f.shares, err = split(shares, threshold)
	return f, err
}

// enforce puts the new shares in force and ends the rekey.
func (n *Node) enforce(ctx context.Context) error {
	f := n.rekey.next
	if err := n.Record(ctx, "rekey"); err != nil {
		return err
	}
	// Of the two writes one decides: the record for the Shamir seal, the row
	// inside the barrier for the recovery key. Once it is done the new shares are
	// in force and must be handed out, whatever becomes of the other: the key
	// inside the barrier is only for root rotations, which check it, and the
	// record's numbers of the recovery key are only for show.
	decide := func() error { return n.store(ctx, f.rec) }
	follow := func() error { return n.keep(ctx, f.key, nil, nil) }
	if f.rec.Shares == nil {
		decide, follow = func() error { return n.keep(ctx, nil, f.key, f.rec.Recovery) }, decide
	}
	if err := decide(); err != nil {
		return err
	}
	if err := follow(); err != nil {
		n.Log.Error("the new key shares are in force, but not everything was noted; rekey once more", "error", err)
	}
	n.cancel()
	return nil
}

// RekeyVerify takes one new share, and puts the new shares in force once enough
// were given. (Vault: sys/rekey/verify.)
func (n *Node) RekeyVerify(ctx context.Context, nonce string, share []byte) (RekeyStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := &n.rekey
	switch {
	case n.sealed:
		return RekeyStatus{}, errSealed()
	case k.next == nil:
		return RekeyStatus{}, fault.New(fault.Invalid, "no rekey waits to be verified")
	case nonce != k.verify.nonce:
		return RekeyStatus{}, fault.New(fault.Invalid, "incorrect nonce supplied; nonce for this operation is %q", k.verify.nonce)
	}
	if err := k.verify.add(share); err != nil {
		return RekeyStatus{}, err
	}
	if len(k.verify.shares) < k.Threshold {
		return n.rekeyStatus(ctx)
	}
	key, err := k.verify.combine(k.Threshold)
	if err != nil || string(key) != string(k.next.key) {
		k.verify.nonce = uuid.NewString()
		return RekeyStatus{}, fault.New(fault.Invalid, "the new key shares do not belong together; give them anew with nonce %s", k.verify.nonce)
	}
	if err := n.enforce(ctx); err != nil {
		return RekeyStatus{}, err
	}
	return RekeyStatus{Complete: true, VerifyNonce: nonce}, nil
}

// RekeyVerifyRestart forgets the new shares given so far and starts their
// verification again under another nonce; the rekey goes on. (Vault: DELETE
// sys/rekey/verify.)
func (n *Node) RekeyVerifyRestart(ctx context.Context) (RekeyStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.sealed:
		return RekeyStatus{}, errSealed()
	case n.rekey.next == nil:
		return RekeyStatus{}, fault.New(fault.Invalid, "no rekey waits to be verified")
	}
	n.rekey.verify.begin()
	return n.rekeyStatus(ctx)
}

// RekeyCancel ends a rekey; the old shares stay in force.
func (n *Node) RekeyCancel() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cancel()
}

func (n *Node) cancel() {
	n.rekey.old.reset()
	n.rekey.verify.reset()
	if n.rekey.next != nil {
		clear(n.rekey.next.key)
	}
	n.rekey = rekey{}
}

// GiveShares gives out the first key shares of a server that has none: of the
// Shamir seal where one is configured, else of a recovery key. The caller's
// right to it was checked.
func (n *Node) GiveShares(ctx context.Context, shares, threshold int) ([][]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sealed {
		return nil, errSealed()
	}
	if err := checkShares(shares, threshold); err != nil {
		return nil, err
	}
	if err := n.refreshRoot(ctx); err != nil {
		return nil, err
	}
	if _, err := n.authority(ctx); err == nil && !n.wantsShamir(ctx) {
		return nil, fault.New(fault.Invalid, "people hold key shares of this server already; `coffer operator rekey` replaces them")
	}
	rec, err := n.record(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.Record(ctx, "shares-given"); err != nil {
		return nil, err
	}
	next := rec
	if !n.wantsShamir(ctx) {
		key, parts, err := split(shares, threshold)
		if err != nil {
			return nil, err
		}
		next.Recovery = &seal.Shares{Shares: shares, Threshold: threshold}
		if err := n.keep(ctx, nil, key, next.Recovery); err != nil {
			return nil, err
		}
		if err := n.store(ctx, next); err != nil {
			n.Log.Error("the recovery shares are in force, but the record does not show them", "error", err)
		}
		return parts, nil
	}
	key, parts, err := n.addShamir(ctx, next, n.root, shares, threshold)
	if err != nil {
		return nil, err
	}
	if err := n.keep(ctx, key, nil, nil); err != nil {
		return nil, err
	}
	if err := n.store(ctx, next); err != nil {
		return nil, err
	}
	n.trySettle(ctx)
	return parts, nil
}

// wantsShamir reports whether a Shamir seal is configured that does not wrap the
// root key yet.
func (n *Node) wantsShamir(ctx context.Context) bool {
	rec, err := n.record(ctx)
	if err != nil {
		return false
	}
	for _, c := range n.Seals {
		if c.Kind == shamir.Name && !c.Disabled && !rec.Has(c.Name) {
			return true
		}
	}
	return false
}
