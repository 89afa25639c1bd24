// Package node is the life of a server: uninitialized, sealed, unsealed. It
// opens the barrier with the root key that a seal unwraps, collects the key
// shares of people where that is the seal, and replaces shares, seals and root
// key while the server runs. What an open server does is not its business: it
// calls OnUnseal and OnSeal.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/shamir"
	"github.com/cofferhq/coffer/internal/storage"
)

// Configured is a seal as the configuration names it.
type Configured struct {
	seal.Named       // Seal is nil for Shamir, whose key is with people
	Err        error // why Seal could not be opened; the others still may
	Disabled   bool  // opens, and is left once another seal wraps the root key
}

// Options are what a node needs.
type Options struct {
	Engine  storage.Engine
	Barrier *barrier.Barrier
	Seals   []Configured
	Log     *slog.Logger
	// OnUnseal starts what an open server does; its error leaves the node sealed.
	OnUnseal func(ctx context.Context) error
	// OnSeal stops that. The barrier is shut after it.
	OnSeal func()
	// NewRootToken makes a root token in the open server.
	NewRootToken func(ctx context.Context) (string, error)
	// TokenLength is how many characters a root token has, for one-time pads.
	TokenLength int
	// Record is told what happened to the seals, for the audit log; an error
	// stops what was about to happen. It may be called concurrently. None of
	// these functions may call methods of the node other than Status.
	Record func(ctx context.Context, event string) error
}

// Node is one server's state. Its methods may be called concurrently; changes
// are made one at a time.
type Node struct {
	Options

	known     atomic.Pointer[seal.Record]        // as last read by Status
	seen      atomic.Pointer[seen]               // what Status shows, so that it waits for no change
	interrupt atomic.Pointer[context.CancelFunc] // ends the long change under way, for Seal
	life      context.Context                    // ends with Close
	end       context.CancelFunc

	mu       sync.Mutex // held through every change
	sealed   bool
	kept     bool               // an operator sealed it: it does not open by itself
	root     []byte             // the keyset that the seals wrap, while unsealed
	follow   context.CancelFunc // stops following the barrier's keys
	unseal   quorum
	rekey    rekey
	generate generation
}

// New returns a sealed node.
func New(o Options) *Node {
	n := &Node{Options: o, sealed: true}
	n.life, n.end = context.WithCancel(context.Background())
	n.publish()
	return n
}

// seen is the part of a node's state that Status shows.
type seen struct {
	sealed   bool
	progress int
	nonce    string
}

// publish shows the present state to Status. The caller holds the lock.
func (n *Node) publish() {
	n.seen.Store(&seen{sealed: n.sealed, progress: len(n.unseal.shares), nonce: n.unseal.nonce})
}

// Status is how a node stands.
type Status struct {
	Initialized  bool
	Sealed       bool
	Type         string // kind of the first configured seal
	Shares       int    // of the Shamir key, or of the recovery key
	Threshold    int
	Progress     int // shares given of those needed
	Nonce        string
	Migration    bool // a configured seal does not wrap the root key yet, or one is being left
	RecoverySeal bool // people's shares do not open the server; they authorize
	ClusterID    string
	Remembered   bool // the storage engine did not answer; the record is as it was last read
}

// statusBound is how long Status waits for the storage engine when it can answer
// from what the engine last said.
const statusBound = time.Second

// Status says how the node stands. It does not wait for changes under way. While
// the storage engine cannot be reached it tells the seals' record as it was last
// read.
func (n *Node) Status(ctx context.Context) (Status, error) {
	known := n.known.Load()
	reading, cancel := ctx, context.CancelFunc(func() {})
	if known != nil {
		reading, cancel = context.WithTimeout(ctx, statusBound)
	}
	rec, err := n.record(reading)
	remembered := false
	cancel()
	switch {
	case err == nil:
		n.known.Store(rec)
	case known != nil && (errors.Is(err, storage.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)):
		rec, err, remembered = known, nil, true
	}
	now := n.seen.Load()
	s := Status{Remembered: remembered, Sealed: now.sealed, Type: n.Seals[0].Kind, RecoverySeal: n.Seals[0].Seal != nil || n.Seals[0].Err != nil}
	if errors.Is(err, seal.ErrNoRecord) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.Initialized, s.ClusterID = true, rec.Store
	if people := held(rec); people != nil {
		s.Shares, s.Threshold = people.Shares, people.Threshold
	}
	s.Progress, s.Nonce, s.Migration = now.progress, now.nonce, n.migrating(rec)
	return s, nil
}

// migrating reports whether the configured seals and the wraps differ.
func (n *Node) migrating(rec *seal.Record) bool {
	for _, c := range n.Seals {
		if rec.Has(c.Name) == c.Disabled {
			return true
		}
	}
	return false
}

// record returns the record of seals. One whose initialization was not finished
// counts as none.
func (n *Node) record(ctx context.Context) (*seal.Record, error) {
	rec, err := n.stored(ctx)
	if err == nil && rec.Pending {
		return nil, seal.ErrNoRecord
	}
	return rec, err
}

func (n *Node) stored(ctx context.Context) (rec *seal.Record, err error) {
	err = n.Engine.View(ctx, func(r storage.Reader) error {
		rec, err = seal.Load(r)
		return err
	})
	return rec, err
}

// storeTimeout bounds the writing of the record once it was begun.
const storeTimeout = 30 * time.Second

// store replaces the record. A client that goes away does not interrupt it: the
// answer must not say that nothing changed when something did.
func (n *Node) store(ctx context.Context, rec *seal.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	_, err := n.Engine.Update(ctx, rec.Put)
	return err
}

// AutoUnseal opens the node with the first seal that can, without people. It
// returns nil when the node is open, or when only people can open it, and
// otherwise what each seal said.
func (n *Node) AutoUnseal(ctx context.Context) error { return n.autoUnseal(ctx, true) }

// autoUnseal is AutoUnseal; what an operator sealed is left alone unless asked is
// set.
func (n *Node) autoUnseal(ctx context.Context, asked bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.publish()
	if !n.sealed || n.kept && !asked {
		return nil
	}
	rec, err := n.record(ctx)
	if errors.Is(err, seal.ErrNoRecord) {
		return nil
	}
	if err != nil {
		return err
	}
	if !n.automatic(rec) {
		return nil
	}
	root, by, err := rec.Unwrap(ctx, n.named())
	if err != nil {
		for _, c := range n.Seals {
			if c.Err != nil {
				err = fmt.Errorf("%w; seal %q: %w", err, c.Name, c.Err)
			}
		}
		return err
	}
	n.Log.Info("a seal opens the server", "seal", by)
	if err := n.open(ctx, root); err != nil {
		return err
	}
	n.trySettle(ctx)
	return nil
}

// automatic reports whether a seal that needs no people is to open the server.
func (n *Node) automatic(rec *seal.Record) bool {
	for _, w := range rec.Seals {
		if w.Kind != shamir.Name {
			return true
		}
	}
	return false
}

// named returns the configured seals that could be opened.
func (n *Node) named() []seal.Named {
	var out []seal.Named
	for _, c := range n.Seals {
		if c.Seal != nil {
			out = append(out, c.Named)
		}
	}
	return out
}

// held says how the key is split that people hold, nil when they hold none.
func held(rec *seal.Record) *seal.Shares {
	if rec.Shares != nil {
		return rec.Shares
	}
	return rec.Recovery
}

// KeepTrying calls AutoUnseal until the node is open, an operator has sealed it or
// ctx ends, with growing pauses: an HSM or a mounted key may come back.
func (n *Node) KeepTrying(ctx context.Context) {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		err := n.autoUnseal(ctx, false)
		if err == nil {
			return
		}
		n.Log.Error("no seal opens the server", "error", err, "again_in", pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// initPoll is how often a node looks whether another one initialized the store.
const initPoll = 500 * time.Millisecond

// Join opens the node once the store is initialized, be it by another node, or
// until ctx ends.
func (n *Node) Join(ctx context.Context) {
	for {
		if _, err := n.record(ctx); err == nil {
			n.KeepTrying(ctx)
			return
		} else if !errors.Is(err, seal.ErrNoRecord) {
			n.Log.Warn("it cannot be seen yet whether the store is initialized", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(initPoll):
		}
	}
}

// shamir is the name of the configured Shamir seal.
func (n *Node) shamir() string {
	for _, c := range n.Seals {
		if c.Kind == shamir.Name {
			return c.Name
		}
	}
	return shamir.Name
}

func names(rec *seal.Record) string {
	text := ""
	for i, w := range rec.Seals {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s (%s)", w.Name, w.Kind)
	}
	return text
}

// open opens the barrier with an unwrapped root key and starts the server.
func (n *Node) open(ctx context.Context, root []byte) error {
	if err := n.Record(ctx, "unseal"); err != nil {
		return err
	}
	if err := n.Barrier.Open(ctx, root); err != nil {
		return err
	}
	if err := n.OnUnseal(ctx); err != nil {
		n.OnSeal()
		n.Barrier.Shut()
		clear(root)
		return fmt.Errorf("the seal opened and the server did not start: %w", err)
	}
	n.unseal.reset()
	n.sealed, n.kept, n.root = false, false, root
	n.publish()
	following, stop := context.WithCancel(n.life)
	n.follow = stop
	go n.followKeys(following)
	return nil
}

// followKeys keeps the barrier's keys fresh while the node is open. When the
// root key was rotated by other nodes behind this one's back, the node closes
// and opens anew.
func (n *Node) followKeys(ctx context.Context) {
	err := n.Barrier.Follow(ctx)
	if ctx.Err() != nil || !errors.Is(err, barrier.ErrWrongKey) {
		return
	}
	n.Log.Error("the root key was rotated without this node's noticing; it closes and opens anew", "error", err)
	n.mu.Lock()
	if ctx.Err() == nil && !n.sealed {
		n.shut()
	}
	n.mu.Unlock()
	n.KeepTrying(n.life)
}

// trySettle settles. If that fails the server works with the seals it has.
func (n *Node) trySettle(ctx context.Context) {
	if err := n.settle(ctx); err != nil {
		n.Log.Error("the seals are not what the configuration says", "error", err)
	}
}

// refreshRoot makes sure that n.root is what the seals wrap now: another node
// may have rotated it.
func (n *Node) refreshRoot(ctx context.Context) error {
	err := n.Barrier.VerifyRoot(ctx, n.root)
	if !errors.Is(err, barrier.ErrWrongKey) {
		return err
	}
	rec, err := n.record(ctx)
	if err != nil {
		return err
	}
	seals := n.named()
	if s, err := n.keptShamir(ctx); err == nil {
		seals = append(seals, s)
	}
	root, _, err := rec.Unwrap(ctx, seals)
	if err != nil {
		return err
	}
	clear(n.root)
	n.root = root
	return n.Barrier.VerifyRoot(ctx, root)
}

// settle finishes a root rotation that was interrupted, lets newly configured
// seals wrap the root key, and leaves disabled ones once another one does.
func (n *Node) settle(ctx context.Context) error {
	if err := n.refreshRoot(ctx); err != nil {
		return err
	}
	if err := n.resumeRotation(ctx); err != nil {
		return fmt.Errorf("finish the rotation of the root key: %w", err)
	}
	rec, err := n.record(ctx)
	if err != nil {
		return err
	}
	kept, changed := 0, false
	var errs []error
	for _, c := range n.Seals {
		switch {
		case c.Disabled:
			continue
		case rec.Has(c.Name):
			kept++
		case c.Seal != nil:
			if err := rec.Add(ctx, c.Named, n.root); err != nil {
				errs = append(errs, err)
				continue
			}
			n.Log.Info("a seal was added", "seal", c.Name, "kind", c.Kind)
			kept, changed = kept+1, true
		}
	}
	for _, c := range n.Seals {
		if !c.Disabled || kept == 0 || !rec.Has(c.Name) {
			continue
		}
		if err := rec.Remove(c.Name); err != nil {
			errs = append(errs, err)
			continue
		}
		if c.Kind == shamir.Name {
			// Who held its shares holds recovery shares from now on.
			if err := n.keepAsRecovery(ctx, rec.Shares); err != nil {
				return errors.Join(append(errs, err)...)
			}
			rec.Shares, rec.Recovery = nil, rec.Shares
		}
		n.Log.Info("a seal was left", "seal", c.Name, "kind", c.Kind)
		changed = true
	}
	if changed {
		errs = append(errs, n.store(ctx, rec))
	}
	return errors.Join(errs...)
}

// Seal closes the server and drops its keys. // A rotation of the root key under way is
// interrupted; the next unseal takes it up.
func (n *Node) Seal(ctx context.Context) error {
	if stop := n.interrupt.Load(); stop != nil {
		(*stop)()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.publish()
	if n.sealed {
		n.kept = true
		return nil
	}
	if err := n.Record(ctx, "seal"); err != nil {
		return err
	}
	n.kept = true
	n.shut()
	return nil
}

func (n *Node) shut() {
	n.follow()
	n.OnSeal()
	n.Barrier.Shut()
	clear(n.root)
	n.sealed, n.root = true, nil
	n.unseal.reset()
	n.cancel()
	n.generate.quorum.reset()
	n.generate = generation{}
	n.publish()
}

// Close shuts the node without recording it: the process ends.
func (n *Node) Close() {
	n.end()
	if stop := n.interrupt.Load(); stop != nil {
		(*stop)()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.sealed {
		n.shut()
	}
}

func errSealed() error { return fault.New(fault.Sealed, "Coffer is sealed") }
