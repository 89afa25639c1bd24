// Package realm opens what is in each namespace: its mounts, policies, identities
// and its view of the tokens. A request goes to one realm, and its token belongs to
// one. The rows of namespaces are package namespace's.
package realm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/access"
	"github.com/cofferhq/coffer/internal/agenda"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/broker"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/factor"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/namespace"
	"github.com/cofferhq/coffer/internal/password"
	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/token"
)

// Realm is what is in one namespace. It is immutable: a change of the namespace's
// row makes another one of the same parts.
type Realm struct {
	Namespace  *namespace.Namespace
	Mounts     *mount.Table
	Policies   *policystore.Store
	Passwords  *password.Store // by which passwords are made
	Identities *identity.Store
	Factors    *factor.Store
	Broker     *broker.Store // signs identity tokens
	Tokens     *token.Store  // as the namespace sees them
	Access     *access.Book
	// Locked is the innermost locked namespace that the realm is in, itself
	// included; nil when none is.
	Locked *namespace.Namespace
}

// close ends what the realm's parts do by themselves.
func (r *Realm) close() {
	r.Mounts.Close()
	r.Factors.Close()
	r.Broker.Close()
}

// Options are what a Table needs.
type Options struct {
	Barrier *barrier.Barrier
	Tokens  *token.Store // the root's
	// Kinds returns the kind of a name and version. Coffer's own find their realm
	// by the namespace of the mount they were opened for.
	Kinds func(name, version string) *engine.Spec
	// Own are the mounts that every namespace has.
	Own        []mount.Request
	MaxPayload int
	Leases     *lease.Book // nil: nothing is lent
	Agenda     *agenda.Book
	NoRows     bool // keep no rows of mounts in memory
	// Rotations rotates the keys of identity tokens, and Address is where clients reach
	// the server: see broker.Options. Where Rotations is nil, there are no such keys.
	Rotations *broker.Rotations
	Address   func() string
	Log       *slog.Logger
}

// Table holds the realms.
type Table struct {
	Options
	Namespaces *namespace.Store
	caches     [2]caches // of the root, and of all other namespaces
	leave      func()    // ends the subscription

	loading sync.Mutex // one load at a time
	current atomic.Pointer[state]
	last    sync.Map // id: *Realm, deleted ones included
}

// state is which realms there are.
type state struct {
	byID, byPath map[string]*Realm // the root is both under ""
	ending       bool              // a deleted namespace is to be erased
	closed       bool              // a namespace could not be opened, which is tried again
}

// cachedRows is how many rows of mounts are kept in memory, none larger than
// cachedRow bytes: a hundred MiB at most, a tenth of that with usual secrets.
const (
	cachedRows = 16 << 10
	cachedRow  = 6 << 10
)

// caches are those that realms share.
type caches struct {
	policies   *policystore.Cache
	identities *identity.Caches
	rows       *barrier.Cache[[]byte] // nil: none are kept
}

func (t *Table) newCaches(prefix, mounts string) caches {
	c := caches{policies: policystore.NewCache(t.Barrier, prefix), identities: identity.NewCaches(t.Barrier, prefix)}
	if !t.NoRows {
		c.rows = barrier.NewCache(t.Barrier, mounts, cachedRows, func(_ string, row []byte) ([]byte, error) { return bytes.Clone(row), nil })
		c.rows.Keeps = func(row []byte) bool { return len(row) <= cachedRow }
	}
	return c
}

// CacheStats returns what the caches of all realms did, by what they hold.
func (t *Table) CacheStats() map[string]barrier.CacheStats {
	all := map[string]barrier.CacheStats{}
	add := func(name string, s barrier.CacheStats) {
		sum := all[name]
		all[name] = barrier.CacheStats{Hits: sum.Hits + s.Hits, Misses: sum.Misses + s.Misses, Entries: sum.Entries + s.Entries}
	}
	for _, c := range t.caches {
		add("policies", c.policies.Stats())
		add("entities", c.identities.Stats())
		if c.rows != nil {
			add("rows", c.rows.Stats())
		}
	}
	return all
}

// Open opens the root and every namespace there is.
func Open(ctx context.Context, o Options) (*Table, error) {
	t := &Table{Options: o}
	t.Namespaces = &namespace.Store{
		Barrier: o.Barrier, Log: o.Log, Taken: t.taken,
		TakeBack: func(ctx context.Context, id string) error { return t.takeBack(ctx, id) },
		Returned: func(r storage.Reader, n *namespace.Namespace) error { return mount.CheckReturned(r, n.Prefix()) },
		Erased:   func(ctx context.Context, n *namespace.Namespace) error { return o.Tokens.In(n.ID).EndAll(ctx) },
	}
	t.caches = [2]caches{t.newCaches("", mount.Prefix), t.newCaches(namespace.Prefix, namespace.Prefix)}
	t.current.Store(&state{byID: map[string]*Realm{}, byPath: map[string]*Realm{}})
	root, err := t.open(ctx, namespace.Root)
	if err != nil {
		return nil, err
	}
	t.last.Store("", root)
	t.current.Store(&state{byID: map[string]*Realm{"": root}, byPath: map[string]*Realm{"": root}})
	t.leave = o.Barrier.Subscribe(namespace.Rows, t.load)
	if err := t.load(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Close closes the mounts of every realm.
func (t *Table) Close() {
	if t.leave != nil {
		t.leave()
	}
	for _, r := range t.current.Load().byID {
		r.close()
	}
}

// Root is the realm of the root namespace.
func (t *Table) Root() *Realm { return t.current.Load().byID[""] }

// Of returns the realm of a namespace, nil when there is none.
func (t *Table) Of(id string) *Realm { return t.current.Load().byID[id] }

// Last returns the realm of a namespace as it is, or as it was when it was deleted:
// requests under way refer to it still, and its parts refuse what they ask. It is
// nil for one that never was.
func (t *Table) Last(id string) *Realm {
	r, _ := t.last.Load(id)
	realm, _ := r.(*Realm)
	return realm
}

// Find returns the realm that a path from the root lies in, and the path in it.
func (t *Table) Find(path string) (*Realm, string) {
	s := t.current.Load()
	found := s.byPath[""]
	if len(s.byPath) == 1 {
		return found, path
	}
	rest := path
	for i := 0; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		r := s.byPath[path[:i+1]]
		if r == nil {
			break
		}
		found, rest = r, path[i+1:]
	}
	return found, rest
}

// At returns the realm of exactly the namespace at a path from the root, nil when
// there is none.
func (t *Table) At(path string) *Realm {
	if path = strings.Trim(path, "/"); path != "" {
		path += "/"
	}
	return t.current.Load().byPath[path]
}

// Within reports whether a namespace is another one or below it, by their ids.
func (t *Table) Within(id, other string) bool {
	if id == other || other == "" {
		return true
	}
	s := t.current.Load()
	a, b := s.byID[id], s.byID[other]
	return a != nil && b != nil && b.Namespace.Contains(a.Namespace)
}

// Below returns the realms below one, in the order of their paths.
func (t *Table) Below(r *Realm) []*Realm {
	var out []*Realm
	for _, other := range t.current.Load().byID {
		if other.Namespace.ID != r.Namespace.ID && r.Namespace.Contains(other.Namespace) {
			out = append(out, other)
		}
	}
	slices.SortFunc(out, func(a, b *Realm) int { return strings.Compare(a.Namespace.Path, b.Namespace.Path) })
	return out
}

// Fresh reports whether the realms are known to be no older than other nodes'
// changes may be.
func (t *Table) Fresh() bool { return t.Barrier.Fresh() }

// Current makes sure that the realms, and the mounts of one, are no older than other
// nodes' changes may be.
func (t *Table) Current(ctx context.Context) error { return t.Barrier.Current(ctx, t.load) }

// Load reads the namespaces anew, after this node changed one.
func (t *Table) Load(ctx context.Context) error { return t.load(ctx) }

// load makes the realms those of the rows, keeping what is open.
func (t *Table) load(ctx context.Context) error {
	t.loading.Lock()
	defer t.loading.Unlock()
	var rows []*namespace.Namespace
	if err := t.Barrier.View(ctx, func(r storage.Reader) (err error) {
		rows, err = namespace.List(r)
		return err
	}); err != nil {
		return fmt.Errorf("read the namespaces: %w", err)
	}
	old := t.current.Load()
	root := *old.byID[""]
	next := &state{byID: map[string]*Realm{"": &root}, byPath: map[string]*Realm{"": &root}}
	for _, n := range rows {
		if n.Ending {
			next.ending = true
			continue
		}
		r, err := t.reopen(ctx, n, old.byID[n.ID])
		if errors.Is(err, barrier.ErrNoKeys) {
			continue // deleted since the rows were read
		}
		if err != nil {
			// One namespace that cannot be opened must not keep the others closed.
			t.Log.Error("a namespace cannot be opened and is not served; it is tried again shortly", "path", n.Path, "error", err)
			next.closed = true
			continue
		}
		next.byID[n.ID], next.byPath[n.Path] = r, r
	}
	for _, r := range next.byID {
		r.Locked = next.lockOf(r.Namespace.Path)
	}
	t.current.Store(next)
	for id, r := range next.byID {
		t.last.Store(id, r)
	}
	for id, r := range old.byID {
		if next.byID[id] == nil {
			r.close()
		}
	}
	return nil
}

// lockOf returns the innermost locked namespace around a path.
func (s *state) lockOf(path string) *namespace.Namespace {
	for {
		if r := s.byPath[path]; r != nil && r.Namespace.Lock != "" {
			return r.Namespace
		}
		if path == "" {
			return nil
		}
		path = path[:strings.LastIndexByte(path[:len(path)-1], '/')+1]
	}
}

// reopen returns the realm of a row: of the parts it had, or opened.
func (t *Table) reopen(ctx context.Context, n *namespace.Namespace, was *Realm) (*Realm, error) {
	if was == nil {
		return t.open(ctx, n)
	}
	again := *was
	again.Namespace = n
	return &again, nil
}

// open opens what is in a namespace, with Coffer's own mounts in it.
func (t *Table) open(ctx context.Context, n *namespace.Namespace) (*Realm, error) {
	shared := &t.caches[0]
	if n.ID != "" {
		shared = &t.caches[1]
	}
	r := &Realm{Namespace: n, Tokens: t.Tokens.In(n.ID), Policies: policystore.New(t.Barrier, shared.policies, n.Prefix())}
	r.Passwords = password.NewStore(t.Barrier, n.Prefix())
	if err := r.Policies.Seed(ctx); err != nil {
		return nil, err
	}
	r.Identities = identity.New(identity.Options{
		Barrier: t.Barrier, Prefix: n.Prefix(), Caches: shared.identities, Log: t.Log,
		Mount: func(accessor string) (string, string, bool) { return r.Mounts.Auth(accessor) },
	})
	r.Factors = factor.New(factor.Options{Barrier: t.Barrier, Prefix: n.Prefix(), Identities: r.Identities, Log: t.Log})
	r.Broker = broker.New(broker.Options{
		Barrier: t.Barrier, Prefix: n.Prefix(), Namespace: n.ID, Path: func() string { return t.Last(n.ID).Namespace.Path },
		Identities: r.Identities, Rotations: t.Rotations, Address: t.Address, Log: t.Log,
	})
	r.Access = &access.Book{Policies: r.Policies, Identities: r.Identities}
	var err error
	r.Mounts, err = mount.Open(ctx, mount.Options{
		Barrier: t.Barrier, Prefix: n.Prefix(), Namespace: n.ID, Log: t.Log, MaxPayload: t.MaxPayload, Rows: shared.rows,
		Kinds: t.Kinds, Leases: t.Leases, Agenda: t.Agenda, Password: r.Passwords.Generate,
		There: func(reader storage.Reader) error { return namespace.There(reader, n.ID) },
		Taken: func(reader storage.Reader, path string) error { return t.inTheWay(reader, n.Path, path) },
	})
	if err != nil {
		r.Factors.Close()
		r.Broker.Close()
		return nil, err
	}
	for _, m := range t.Own {
		m.Class = engine.System
		if err := r.Mounts.Ensure(ctx, m); err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}

// Run erases what deleted namespaces and disabled mounts left, and ends interrupted
// work on identities, until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	next := time.Now()
	for {
		if t.current.Load().closed {
			if err := t.load(ctx); err != nil && ctx.Err() == nil {
				t.Log.Warn("the namespaces cannot be read; they are tried again shortly", "error", err)
			}
		}
		if t.current.Load().ending {
			if err := t.eraseNamespaces(ctx); err != nil && ctx.Err() == nil {
				t.Log.Warn("erasing a deleted namespace is interrupted and goes on shortly", "error", err)
			}
		}
		sweep := !time.Now().Before(next)
		if sweep {
			next = time.Now().Add(sweepEvery)
		}
		for _, r := range t.current.Load().byID {
			if err := t.tidy(ctx, r, sweep); err != nil && ctx.Err() == nil {
				t.Log.Warn("removing what was deleted is interrupted and goes on shortly", "namespace", r.Namespace.Path, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(eraseEvery):
		}
	}
}

const (
	eraseEvery = 2 * time.Second
	sweepEvery = 10 * time.Minute
)

func (t *Table) tidy(ctx context.Context, r *Realm, sweep bool) error {
	if err := r.Mounts.Erase(ctx); err != nil {
		return err
	}
	if sweep {
		return errors.Join(r.Identities.Sweep(ctx), r.Factors.Sweep(ctx))
	}
	return nil
}

func (t *Table) eraseNamespaces(ctx context.Context) error {
	if err := t.Namespaces.Erase(ctx); err != nil {
		return err
	}
	return t.load(ctx)
}

// taken refuses the name of a namespace that a mount is in the way of.
func (t *Table) taken(r storage.Reader, parent *namespace.Namespace, name string) error {
	return mount.CheckFree(r, parent.Prefix(), name)
}

// inTheWay refuses a mount below a namespace of the same parent, or one at its path.
func (t *Table) inTheWay(r storage.Reader, parent, path string) error {
	rows, err := namespace.List(r)
	if err != nil {
		return err
	}
	full := parent + path
	for _, n := range rows {
		if !n.Ending && len(n.Path) > len(parent) && (strings.HasPrefix(full, n.Path) || strings.HasPrefix(n.Path, full)) {
			return mount.ErrInUse(strings.TrimPrefix(n.Path, parent))
		}
	}
	return nil
}
