// Package namespace keeps the rows of namespaces: teams apart, each with mounts,
// policies, identities, tokens and keys of its own, nested like directories. What
// lives in a namespace is opened by package realm; that a request goes to one is
// decided by the gateway.
package namespace

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/google/uuid"
)

// Rows is where the rows of namespaces are. Prefix is in front of all keys of what
// is in one.
const (
	Rows   = "core/namespaces/" // + id
	Prefix = "ns/"              // + id + "/"
)

// Limits.
const (
	Max          = 10_000
	MaxDepth     = 16
	MaxPathBytes = 256 // the trailing slash included
	maxMetadata  = 64  // pairs, of 128 and 512 bytes
)

// Namespace is a row. The root namespace has none: its id and path are "".
type Namespace struct {
	ID       string            `json:"id"`
	UUID     string            `json:"uuid"`
	Path     string            `json:"path"` // from the root, with a trailing slash: "team/dev/"
	Metadata map[string]string `json:"metadata,omitempty"`
	Created  time.Time         `json:"created"`
	// Lock is the hash of the key that opens a locked namespace, "" of one that is
	// not locked.
	Lock string `json:"lock,omitempty"`
	// Ending is set once the namespace was deleted: its keys are gone, nothing is
	// routed to it, and its rows are being erased.
	Ending bool `json:"ending,omitempty"`
}

// Root is the namespace that every other one is below.
var Root = &Namespace{}

// Name is the id as the wire has it.
func (n *Namespace) Name() string { return Name(n.ID) }

// Name is how the wire has the id of a namespace.
func Name(id string) string {
	if id == "" {
		return "root"
	}
	return id
}

// Prefix is in front of all keys of what is in the namespace; "" for the root.
func (n *Namespace) Prefix() string {
	if n.ID == "" {
		return ""
	}
	return Prefix + n.ID + "/"
}

// Contains reports whether another namespace is this one or below it.
func (n *Namespace) Contains(other *Namespace) bool { return strings.HasPrefix(other.Path, n.Path) }

// scope is the barrier's scope of the namespace.
func (n *Namespace) scope() string { return Prefix + n.ID }

// Store changes the rows of namespaces.
type Store struct {
	Barrier *barrier.Barrier
	Log     *slog.Logger
	// Taken returns an error when something in the parent namespace is in the way
	// of a name, "dev/".
	Taken func(r storage.Reader, parent *Namespace, name string) error
	// TakeBack takes back what the mounts of a namespace lent, before it is
	// deleted, and Returned refuses, in the transaction that deletes it, while
	// something still is lent.
	TakeBack func(ctx context.Context, id string) error
	Returned func(r storage.Reader, n *Namespace) error
	// Erased is told a deleted namespace before its last row is removed. It may be
	// told again, and is until it returns nil.
	Erased func(ctx context.Context, n *Namespace) error
}

// List returns the namespaces, in the order of their ids, the root left out.
func List(r storage.Reader) ([]*Namespace, error) {
	var all []*Namespace
	err := storage.All(r, Rows, func(row storage.Entry) error {
		n := &Namespace{}
		if err := json.Unmarshal(row.Value, n); err != nil {
			return fmt.Errorf("row %s: %w", row.Key, err)
		}
		all = append(all, n)
		return nil
	})
	return all, err
}

func put(t storage.Txn, n *Namespace) error {
	row, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return t.Put(Rows+n.ID, row)
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// CleanPath returns a path with its one trailing slash, or a fault that says what is
// wrong with it; "" for the root.
func CleanPath(path string) (string, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		return "", nil
	}
	segments := strings.Split(path, "/")
	switch {
	case len(path)+1 > MaxPathBytes:
		return "", invalid("the path of a namespace may have at most %d bytes", MaxPathBytes)
	case len(segments) > MaxDepth:
		return "", invalid("namespaces may be nested %d deep", MaxDepth)
	}
	for _, name := range segments {
		switch name {
		case "", ".", "..", "root", "sys", "audit", "auth", "cubbyhole", "identity":
			return "", invalid("%q is no name for a namespace: it is reserved", name)
		}
		if strings.ContainsFunc(name, func(r rune) bool {
			return r <= ' ' || r == 0x7f || strings.ContainsRune(`*+\%?#{}"`, r) || r == 0xfffd
		}) {
			return "", invalid("%q is no name for a namespace: it holds a character that paths and policies cannot name", name)
		}
	}
	return path + "/", nil
}

// split returns the path of the parent and the last name of a clean path.
func split(path string) (parent, name string) {
	i := strings.LastIndexByte(strings.TrimSuffix(path, "/"), '/')
	return path[:i+1], path[i+1:]
}

func checkMetadata(m map[string]string) error {
	if len(m) > maxMetadata {
		return invalid("custom_metadata has %d pairs; at most %d are accepted", len(m), maxMetadata)
	}
	for k, v := range m {
		if k == "" || len(k) > 128 || len(v) > 512 {
			return invalid("custom_metadata: a key has 1 to 128 bytes and a value at most 512")
		}
	}
	return nil
}

// find returns the namespace at a clean path, nil when there is none.
func find(all []*Namespace, path string) *Namespace {
	if path == "" {
		return Root
	}
	for _, n := range all {
		if n.Path == path && !n.Ending {
			return n
		}
	}
	return nil
}

// need is find that refuses what is not there.
func need(all []*Namespace, path string) (*Namespace, error) {
	n := find(all, path)
	if n == nil || n == Root {
		return nil, fault.New(fault.NotFound, "")
	}
	return n, nil
}

// Create makes a namespace at a path from the root, in a namespace that exists. One
// that is there already is returned with its metadata replaced.
func (s *Store) Create(ctx context.Context, path string, metadata map[string]string) (out *Namespace, err error) {
	if path, err = CleanPath(path); err != nil {
		return nil, err
	}
	if path == "" {
		return nil, invalid("a namespace needs a name")
	}
	if err := checkMetadata(metadata); err != nil {
		return nil, err
	}
	above, name := split(path)
	return out, s.update(ctx, func(t storage.Txn, all []*Namespace) error {
		if n := find(all, path); n != nil {
			out = n
			out.Metadata = metadata
			return put(t, out)
		}
		parent := find(all, above)
		if parent == nil {
			return invalid("there is no namespace %q to make %q in", above, name)
		}
		if len(all) >= Max {
			return fault.New(fault.Limited, "there are %d namespaces, which is the limit", Max)
		}
		if err := s.Taken(t, parent, name); err != nil {
			return err
		}
		out = &Namespace{ID: newID(all), UUID: uuid.NewString(), Path: path, Metadata: metadata, Created: time.Now().UTC()}
		if err := s.Barrier.CreateKeys(t, out.scope()); err != nil {
			return err
		}
		return put(t, out)
	})
}

// newID returns an id that no namespace has.
func newID(all []*Namespace) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	for {
		var b [6]byte
		_, _ = rand.Read(b[:]) // never fails
		for i := range b {
			b[i] = letters[int(b[i])%len(letters)]
		}
		id := string(b[:])
		if id != "root" && !has(all, id) {
			return id
		}
	}
}

func has(all []*Namespace, id string) bool {
	for _, n := range all {
		if n.ID == id {
			return true
		}
	}
	return false
}

// Patch merges metadata into that of a namespace; a nil value removes a key.
func (s *Store) Patch(ctx context.Context, path string, metadata map[string]*string) (out *Namespace, err error) {
	return out, s.change(ctx, path, func(_ storage.Txn, n *Namespace, _ []*Namespace) error {
		merged := maps.Clone(n.Metadata)
		if merged == nil {
			merged = map[string]string{}
		}
		for k, v := range metadata {
			if v == nil {
				delete(merged, k)
			} else {
				merged[k] = *v
			}
		}
		n.Metadata, out = merged, n
		return checkMetadata(merged)
	})
}

// Delete takes back what is lent in a namespace that has none below it, and destroys
// its keys: nothing in it can be read once Delete has returned. Its rows are erased
// by Erase.
func (s *Store) Delete(ctx context.Context, path string) error {
	if err := s.takeBack(ctx, path); err != nil {
		return err
	}
	return s.change(ctx, path, func(t storage.Txn, n *Namespace, all []*Namespace) error {
		for _, other := range all {
			if n.ID != other.ID && !other.Ending && n.Contains(other) {
				return invalid("cannot delete namespace %q: it contains %q; delete that one first", n.Path, other.Path)
			}
		}
		if err := s.Returned(t, n); err != nil {
			return fault.Wrap(fault.Conflict, err, "cannot delete namespace %q: it lends faster than that is taken back; lock it by sys/namespaces/api-lock and try again", n.Path)
		}
		n.Ending = true
		return s.Barrier.DestroyKeys(t, n.scope())
	})
}

// takeBack takes back what is lent in the namespace at a path.
func (s *Store) takeBack(ctx context.Context, path string) error {
	path, err := CleanPath(path)
	if err != nil {
		return err
	}
	var n *Namespace
	if err := s.Barrier.View(ctx, func(r storage.Reader) error {
		all, err := List(r)
		if err == nil {
			n, err = need(all, path)
		}
		return err
	}); err != nil {
		return err
	}
	return s.TakeBack(ctx, n.ID)
}

// There returns an error when a namespace is deleted, by what r reads; the root
// never is.
func There(r storage.Reader, id string) error {
	if id == "" {
		return nil
	}
	row, err := r.Get(Rows + id)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	n := &Namespace{Ending: true}
	if err == nil {
		n.Ending = false
		if err := json.Unmarshal(row, n); err != nil {
			return fmt.Errorf("row %s: %w", Rows+id, err)
		}
	}
	if n.Ending {
		return fault.New(fault.NotFound, "the namespace was deleted while the request was under way")
	}
	return nil
}

// Lock refuses every request in a namespace and below it until it is unlocked with
// the key that is returned.
func (s *Store) Lock(ctx context.Context, path string) (key string, err error) {
	key = rand.Text()
	return key, s.change(ctx, path, func(_ storage.Txn, n *Namespace, _ []*Namespace) error {
		if n.Lock != "" {
			return invalid("namespace %q is locked already", n.Path)
		}
		n.Lock = hash(key)
		return nil
	})
}

// Unlock opens a locked namespace. force needs no key.
func (s *Store) Unlock(ctx context.Context, path, key string, force bool) error {
	return s.change(ctx, path, func(_ storage.Txn, n *Namespace, _ []*Namespace) error {
		switch {
		case n.Lock == "":
			return invalid("namespace %q is not locked", n.Path)
		case !force && subtle.ConstantTimeCompare([]byte(n.Lock), []byte(hash(key))) != 1:
			return invalid("the unlock key is not that of namespace %q", n.Path)
		}
		n.Lock = ""
		return nil
	})
}

func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// change changes the namespace at a path in one transaction.
func (s *Store) change(ctx context.Context, path string, fn func(t storage.Txn, n *Namespace, all []*Namespace) error) error {
	path, err := CleanPath(path)
	if err != nil {
		return err
	}
	return s.update(ctx, func(t storage.Txn, all []*Namespace) error {
		n, err := need(all, path)
		if err != nil {
			return err
		}
		if err := fn(t, n, all); err != nil {
			return err
		}
		return put(t, n)
	})
}

func (s *Store) update(ctx context.Context, fn func(storage.Txn, []*Namespace) error) error {
	_, err := s.Barrier.Update(ctx, func(t storage.Txn) error {
		all, err := List(t)
		if err != nil {
			return err
		}
		return fn(t, all)
	})
	return err
}

// Erase removes what deleted namespaces left, a bounded piece at a time.
func (s *Store) Erase(ctx context.Context) error {
	var all []*Namespace
	if err := s.Barrier.View(ctx, func(r storage.Reader) (err error) {
		all, err = List(r)
		return err
	}); err != nil {
		return err
	}
	for _, n := range all {
		if !n.Ending {
			continue
		}
		if err := s.Erased(ctx, n); err != nil {
			return err
		}
		if err := s.Barrier.DeleteRows(ctx, n.scope(), nil); err != nil {
			return err
		}
		if _, err := s.Barrier.Update(ctx, func(t storage.Txn) error { return t.Delete(Rows + n.ID) }); err != nil {
			return err
		}
		s.Log.Info("a deleted namespace is erased", "path", n.Path)
	}
	return nil
}
