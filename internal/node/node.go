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
	// stops what was about to happen.
	Record func(ctx context.Context, event string) error
}

// Node is one server's state. Its methods may be called concurrently; changes
// are made one at a time.
type Node struct {
	Options

	mu       sync.Mutex // held through every change
	sealed   bool
	root     []byte // the keyset that the seals wrap, while unsealed
	unseal   quorum
	rekey    rekey
	generate generation
}

// New returns a sealed node.
func New(o Options) *Node { return &Node{Options: o, sealed: true} }

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
}

// Status says how the node stands.
func (n *Node) Status(ctx context.Context) (Status, error) {
	rec, err := n.record(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	s := Status{Sealed: n.sealed, Type: n.Seals[0].Kind, RecoverySeal: n.Seals[0].Seal != nil || n.Seals[0].Err != nil}
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
	s.Progress, s.Nonce, s.Migration = len(n.unseal.shares), n.unseal.nonce, n.migrating(rec)
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

func (n *Node) record(ctx context.Context) (rec *seal.Record, err error) {
	err = n.Engine.View(ctx, func(r storage.Reader) error {
		rec, err = seal.Load(r)
		return err
	})
	return rec, err
}

// store replaces the record.
func (n *Node) store(ctx context.Context, rec *seal.Record) error {
	_, err := n.Engine.Update(ctx, func(t storage.Txn) error { return rec.Put(t) })
	return err
}

// AutoUnseal opens the node with the first seal that can, without people. It
// returns nil when the node is open, or when only people can open it, and
// otherwise what each seal said.
func (n *Node) AutoUnseal(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.sealed {
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
	return n.open(ctx, root)
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

// KeepTrying calls AutoUnseal until the node is open or ctx ends, with growing
// pauses: an HSM or a mounted key may come back.
func (n *Node) KeepTrying(ctx context.Context) {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		err := n.AutoUnseal(ctx)
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

// open opens the barrier with an unwrapped root key and starts the server; then
// it brings the wraps to what is configured.
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
		return fmt.Errorf("the seal opened and the server did not start: %w", err)
	}
	n.sealed, n.root = false, root
	if err := n.settle(ctx); err != nil {
		// The server works with the seals it has.
		n.Log.Error("the seals are not what the configuration says", "error", err)
	}
	return nil
}

// settle finishes a root rotation that was interrupted, lets newly configured
// seals wrap the root key, and leaves disabled ones once another one does.
func (n *Node) settle(ctx context.Context) error {
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
			rec.Shares = nil
		}
		n.Log.Info("a seal was left", "seal", c.Name, "kind", c.Kind)
		changed = true
	}
	if changed {
		errs = append(errs, n.store(ctx, rec))
	}
	return errors.Join(errs...)
}

// Seal closes the server and drops its keys.
func (n *Node) Seal(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sealed {
		return nil
	}
	if err := n.Record(ctx, "seal"); err != nil {
		return err
	}
	n.shut()
	return nil
}

func (n *Node) shut() {
	n.OnSeal()
	n.Barrier.Shut()
	clear(n.root)
	n.sealed, n.root = true, nil
	n.unseal.reset()
	n.rekey, n.generate = rekey{}, generation{}
}

// Close shuts the node without recording it: the process ends.
func (n *Node) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.sealed {
		n.shut()
	}
}

func errSealed() error { return fault.New(fault.Sealed, "Coffer is sealed") }
