// Package auditstore keeps in storage what the audit log needs while the server
// is unsealed: the key that signs checkpoints, the newest checkpoint of each
// node's log, against which a log that was cut shows, and the devices enabled
// beside the logs. A log itself is files: package audit.
package auditstore

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Rows, below the store's part of the barrier.
const (
	keyRow           = "key"         // seed of the key that signs every node's checkpoints
	saltRow          = "salt"        // of hashes in devices
	checkpointPrefix = "checkpoint/" // + node: the newest signed checkpoint of its log
)

// DevicePrefix is in front of the rows of devices, below the store's part; their
// paths follow it.
const DevicePrefix = "device/"

// MaxDevices is how many devices may be enabled.
const MaxDevices = 16

// Device is an audit device as it was asked for.
type Device struct {
	Path        string            `json:"path"` // one word and a slash: "file/"
	Type        string            `json:"type"` // file
	Description string            `json:"description"`
	Options     map[string]string `json:"options"`
	Local       bool              `json:"local"`
}

// Own is this node's audit log.
type Own struct {
	Log    *audit.Log
	Node   string // names the node among those that share the storage
	Origin string // names the log
	// AcceptLoss is the size of a stored checkpoint that the log no longer reaches
	// and that an operator has given up; 0 accepts nothing.
	AcceptLoss uint64
}

// Store is open while the server is unsealed.
type Store struct {
	storage storage.Engine
	log     *audit.Log
	slog    *slog.Logger
	origin  string
	row     string // of this node's checkpoint
	salt    string
	public  ed25519.PublicKey

	changes sync.Mutex // one change of the devices at a time

	mu     sync.Mutex
	hashes map[string]func(string) string // by device path, of the devices that are open
	open   map[string]Device              // same
	newest chan audit.Checkpoint          // the newest one that is not stored yet

	chosen atomic.Pointer[[]chosen] // headers that are recorded; nil while the store is closed
}

// Open holds the log against the newest checkpoint in storage, starts signing,
// and enables the devices that are kept.
func Open(ctx context.Context, part storage.Engine, own Own, logger *slog.Logger) (*Store, error) {
	log, origin := own.Log, own.Origin
	s := &Store{
		storage: part, log: log, slog: logger, origin: origin, row: checkpointPrefix + own.Node,
		hashes: map[string]func(string) string{}, open: map[string]Device{}, newest: make(chan audit.Checkpoint, 1),
	}
	seed, err := s.keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the audit log's keys: %w", err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	s.public = private.Public().(ed25519.PublicKey)
	if err := s.check(ctx, own.AcceptLoss); err != nil {
		return nil, err
	}
	signer, err := audit.NewSigner(origin, private)
	if err != nil {
		return nil, err
	}
	if err := s.Reconcile(ctx); err != nil {
		return nil, err
	}
	if err := s.ReconcileHeaders(ctx); err != nil {
		return nil, err
	}
	log.SetSigner(signer)
	// What a crash left unsigned is signed before anything is added to it, and a
	// loss that was accepted is accepted once.
	s.settle(ctx)
	return s, nil
}

// closing bounds how long Close waits for the storage.
const closing = 5 * time.Second

// Close stores a checkpoint of all there is, stops signing and closes the
// devices.
func (s *Store) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	s.settle(ctx)
	s.log.SetSigner(nil)
	s.chosen.Store(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	for path := range s.hashes {
		if err := s.log.DisableDevice(path); err != nil {
			s.slog.Warn("an audit device did not close well", "device", path, "error", err)
		}
	}
	clear(s.hashes)
	clear(s.open)
}

// settle makes a checkpoint of everything in the log and stores it.
func (s *Store) settle(ctx context.Context) {
	c, err := s.log.Checkpoint(ctx)
	if err == nil && c.Size > 0 {
		err = s.keep(ctx, c)
	}
	if err != nil {
		s.slog.Warn("the newest checkpoint of the audit log is not stored", "error", err)
	}
}

// keys returns the seed of the signing key; the first time it makes it and the
// salt.
func (s *Store) keys(ctx context.Context) (seed []byte, err error) {
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		made := make([]byte, ed25519.SeedSize+32)
		if seed, err = t.Get(keyRow); errors.Is(err, storage.ErrNotFound) {
			_, _ = rand.Read(made)
			seed = made[:ed25519.SeedSize]
			if err := t.Put(keyRow, seed); err != nil {
				return err
			}
			return t.Put(saltRow, made[ed25519.SeedSize:])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return seed, s.storage.View(ctx, func(r storage.Reader) error {
		salt, err := r.Get(saltRow)
		s.salt = string(salt)
		return err
	})
}

// check holds the log against the stored checkpoint.
func (s *Store) check(ctx context.Context, acceptLoss uint64) error {
	var stored []byte
	err := s.storage.View(ctx, func(r storage.Reader) (err error) {
		stored, err = r.Get(s.row)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := s.parse(stored)
	if err != nil {
		return fmt.Errorf("the stored checkpoint: %w", err)
	}
	err = s.log.CheckAgainst(c)
	switch {
	case err == nil:
		return nil
	case acceptLoss != c.Size:
		return fmt.Errorf("%w; bring the log's files back, or, to go on without what is missing, set accept_loss = %d in the audit block", err, c.Size)
	}
	s.slog.Error("the audit log does not reach its newest checkpoint, and the loss is accepted by configuration", "checkpoint_size", c.Size, "error", err)
	return s.log.Append(ctx, &audit.Entry{
		Type: audit.Event, Event: "loss-accepted",
		Error: fmt.Sprintf("the log does not reach the checkpoint of %d entries of %s with root %s; an operator accepted that", c.Size, c.Origin, c.Root),
	})
}

// parse reads a stored checkpoint and verifies its signature. It may be of
// another log than the one that is open, when all files were replaced.
func (s *Store) parse(stored []byte) (audit.Checkpoint, error) {
	c, err := audit.ParseCheckpoint(stored)
	if err != nil {
		return c, err
	}
	verifier, err := audit.NewVerifier(c.Origin, s.public)
	if err != nil {
		return c, err
	}
	return audit.ParseCheckpoint(stored, verifier)
}

// Keep takes a new checkpoint to be stored. It never waits; the log calls it.
func (s *Store) Keep(c audit.Checkpoint) {
	select {
	case <-s.newest:
	default:
	}
	select {
	case s.newest <- c:
	default:
	}
}

// retryAfter is how long after a failure a checkpoint is stored again.
const retryAfter = time.Second

// Run stores new checkpoints until ctx ends. One that could not be stored is
// tried again until there is a newer one.
func (s *Store) Run(ctx context.Context) error {
	var waiting audit.Checkpoint
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case waiting = <-s.newest:
		case <-again:
		}
		again = nil
		if err := s.keep(ctx, waiting); err != nil && ctx.Err() == nil {
			s.slog.Warn("a checkpoint of the audit log is not stored yet", "size", waiting.Size, "error", err)
			again = time.After(retryAfter)
		}
	}
}

func (s *Store) keep(ctx context.Context, c audit.Checkpoint) error {
	_, err := s.storage.Update(ctx, func(t storage.Txn) error { return t.Put(s.row, c.Note) })
	return err
}

// Reconcile opens the devices that have a row and closes those that have none:
// other nodes enable and disable them too.
func (s *Store) Reconcile(ctx context.Context) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	devices, err := s.List(ctx)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, d := range devices {
		wanted[d.Path] = true
		if was, open := s.opened(d.Path); open {
			if reflect.DeepEqual(was, d) {
				continue
			}
			s.stop(d.Path)
		}
		if err := s.start(d); err != nil {
			// The log decides; a device that cannot be opened must not keep the
			// server sealed.
			s.slog.Error("an audit device cannot be opened and gets nothing", "device", d.Path, "error", err)
		}
	}
	s.mu.Lock()
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, path := range open {
		if !wanted[path] {
			s.stop(path)
		}
	}
	return nil
}

func (s *Store) opened(path string) (Device, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, open := s.open[path]
	return d, open
}

// PublicKey is the key that checkpoints are verified with, in the form of
// package note: origin, hash and key.
func (s *Store) PublicKey() string {
	key, err := audit.VerifierKey(s.origin, s.public)
	if err != nil {
		return "" // the origin was checked when the log was opened
	}
	return key
}

// List returns the devices in the order of their paths.
func (s *Store) List(ctx context.Context) ([]Device, error) {
	var out []Device
	err := s.storage.View(ctx, func(r storage.Reader) error {
		return storage.All(r, DevicePrefix, func(e storage.Entry) error {
			var d Device
			if err := json.Unmarshal(e.Value, &d); err != nil {
				return fmt.Errorf("row %s: %w", e.Key, err)
			}
			out = append(out, d)
			return nil
		})
	})
	return out, err
}

// Enable starts a device and keeps it.
func (s *Store) Enable(ctx context.Context, d Device) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	all, err := s.List(ctx)
	if err != nil {
		return err
	}
	switch {
	case slices.ContainsFunc(all, func(o Device) bool { return o.Path == d.Path }):
		return inUse(d.Path)
	case len(all) >= MaxDevices:
		return fault.New(fault.Invalid, "there are %d audit devices, which is the limit", MaxDevices)
	}
	if err := s.start(d); err != nil {
		return err
	}
	row, err := json.Marshal(d)
	if err != nil {
		return err
	}
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		if _, err := t.Get(DevicePrefix + d.Path); !errors.Is(err, storage.ErrNotFound) {
			return errors.Join(err, inUse(d.Path)) // by another node, just now
		}
		return t.Put(DevicePrefix+d.Path, row)
	})
	if err != nil {
		s.stop(d.Path)
	}
	return err
}

func inUse(path string) error {
	return fault.New(fault.Invalid, "path already in use: an audit device is enabled at %s", path)
}

// Disable stops a device and forgets it; one that is not there is no error.
func (s *Store) Disable(ctx context.Context, path string) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	if _, err := s.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(DevicePrefix + path) }); err != nil {
		return err
	}
	s.stop(path)
	return nil
}

// Hash returns input as the device writes it where it hides a value.
func (s *Store) Hash(_ context.Context, path, input string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hash := s.hashes[path]; hash != nil {
		return hash(input), nil
	}
	return "", fault.New(fault.Invalid, "unknown audit backend %q", strings.TrimSuffix(path, "/"))
}

func (s *Store) start(d Device) error {
	if d.Type != "file" {
		return fault.New(fault.Invalid, "unknown audit device type %q; there is: file", d.Type)
	}
	options, err := audit.ParseFileOptions(d.Options, s.salt)
	if err != nil {
		return fault.New(fault.Invalid, "%v", err)
	}
	device, err := audit.NewFileDevice(options)
	if err != nil {
		return fault.New(fault.Invalid, "%v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.log.EnableDevice(d.Path, device); err != nil {
		_ = device.Close()
		return fault.New(fault.Invalid, "%v", err)
	}
	s.hashes[d.Path], s.open[d.Path] = device.Hash, d
	return nil
}

func (s *Store) stop(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hashes[path] == nil {
		return
	}
	delete(s.hashes, path)
	delete(s.open, path)
	if err := s.log.DisableDevice(path); err != nil {
		s.slog.Warn("an audit device did not close well", "device", path, "error", err)
	}
}
