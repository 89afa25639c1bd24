package mount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cofferhq/coffer/internal/agenda"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

const rows = "core/mounts/" // below the prefix of a namespace; + UUID

// Prefix is in front of all keys of what is mounted, below the prefix of a
// namespace.
const Prefix = "mount/" // + UUID + "/"

// MaxMounts is how many mounts a namespace may have.
const MaxMounts = 10_000

// Mounted is an opened mount. It is immutable: a change of its row makes
// another one.
type Mounted struct {
	Entry  *Entry
	Spec   *engine.Spec
	State  any
	Routes *route.Table
	stop   context.CancelFunc // ends the engine's background work
}

// Options are what a Table needs.
type Options struct {
	Barrier   *barrier.Barrier
	Namespace string // the id of the namespace whose mounts they are; "" is the root
	Prefix    string // of the namespace's keys
	Kinds     func(name, version string) *engine.Spec
	// Taken returns an error when a namespace is in the way of a mount; nil where
	// there are no namespaces.
	Taken      func(r storage.Reader, path string) error
	Log        *slog.Logger
	MaxPayload int
	// Leases and Agenda are of all mounts; nil where engines get none.
	Leases *lease.Book
	Agenda *agenda.Book
	// Password makes a password by a policy of the namespace.
	Password func(ctx context.Context, policy string) (wire.Secret, error)
	// There returns an error when the namespace is deleted, by what r reads.
	There func(r storage.Reader) error
	// Rows answers engines' Env.Recent by full storage keys; nil reads through.
	Rows *barrier.Cache[[]byte]
}

// Table is the mount table.
type Table struct {
	Options
	routes map[*engine.Spec]*route.Table
	life   context.Context // of the engines' background work
	end    context.CancelFunc
	work   sync.WaitGroup
	leave  func() // ends the subscription

	loading sync.Mutex                          // one load at a time
	current atomic.Pointer[map[string]*Mounted] // by path
	byUUID  atomic.Pointer[map[string]*Mounted]
	ending  atomic.Bool // a disabled mount is to be erased
}

// Open reads the table and opens every mount in it.
func Open(ctx context.Context, options Options) (*Table, error) {
	t := &Table{Options: options, routes: map[*engine.Spec]*route.Table{}}
	t.life, t.end = context.WithCancel(context.WithoutCancel(ctx))
	t.current.Store(&map[string]*Mounted{})
	t.byUUID.Store(&map[string]*Mounted{})
	t.leave = options.Barrier.Subscribe(options.Prefix+rows, t.load)
	if err := t.load(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Close ends the background work of every mount and waits for it.
func (t *Table) Close() {
	t.leave()
	t.end()
	t.work.Wait()
}

// Fresh reports whether the table is known to be no older than other nodes'
// changes may be.
func (t *Table) Fresh() bool { return t.Barrier.Fresh() }

// Current makes sure that the table is no older than other nodes' changes may
// be: it reads the table anew when the node is behind its watch.
func (t *Table) Current(ctx context.Context) error { return t.Barrier.Current(ctx, t.load) }

// Find returns the mount that path lies in and the path below it. Mounts never
// nest, so that the first prefix that is a mount is the only one.
func (t *Table) Find(path string) (*Mounted, string) {
	mounts := *t.current.Load()
	for i := 0; i < len(path); i++ {
		if path[i] == '/' {
			if m := mounts[path[:i+1]]; m != nil {
				return m, path[i+1:]
			}
		}
	}
	if m := mounts[path+"/"]; m != nil {
		return m, ""
	}
	return nil, path
}

// At returns the mount at exactly path, or nil.
func (t *Table) At(path string) *Mounted {
	return (*t.current.Load())[strings.Trim(path, "/")+"/"]
}

// ByUUID returns the mount of a UUID, or nil.
func (t *Table) ByUUID(uuid string) *Mounted { return (*t.byUUID.Load())[uuid] }

// List returns the mounts in the order of their paths.
func (t *Table) List() []*Mounted {
	mounts := *t.current.Load()
	return slices.SortedFunc(maps.Values(mounts), func(a, b *Mounted) int {
		return strings.Compare(a.Entry.Path, b.Entry.Path)
	})
}

// Auth says where the auth method with an accessor is mounted, and its type; false
// when there is none.
func (t *Table) Auth(accessor string) (path, kind string, ok bool) {
	for _, m := range *t.current.Load() {
		if m.Entry.Accessor == accessor && strings.HasPrefix(m.Entry.Path, "auth/") {
			return m.Entry.Path, m.Entry.Type, true
		}
	}
	return "", "", false
}

// Live reports whether a mount with the accessor is there.
func (t *Table) Live(accessor string) bool {
	for _, m := range *t.current.Load() {
		if m.Entry.Accessor == accessor {
			return true
		}
	}
	return false
}

// load makes the current table of the rows, keeping what did not change open.
func (t *Table) load(ctx context.Context) error {
	t.loading.Lock()
	defer t.loading.Unlock()
	var entries []*Entry
	if err := t.Barrier.View(ctx, func(r storage.Reader) (err error) {
		entries, err = read(r, t.Prefix)
		return err
	}); err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
	t.ending.Store(slices.ContainsFunc(entries, func(e *Entry) bool { return e.Ending }))
	old := map[string]*Mounted{}
	for _, m := range *t.current.Load() {
		old[m.Entry.UUID] = m
	}
	next := map[string]*Mounted{}
	for _, e := range entries {
		if e.Ending {
			continue
		}
		m, err := t.open(ctx, e, old[e.UUID])
		if err != nil {
			// One mount that cannot be opened must not keep the others closed.
			t.Log.Error("a mount cannot be opened and is not served", "path", e.Path, "type", e.Type, "error", err)
			continue
		}
		next[e.Path] = m
	}
	byUUID := make(map[string]*Mounted, len(next))
	for _, m := range next {
		byUUID[m.Entry.UUID] = m
	}
	t.byUUID.Store(&byUUID)
	t.current.Store(&next)
	kept := map[any]bool{}
	for _, m := range next {
		kept[m.State] = true
	}
	for _, m := range old {
		if !kept[m.State] {
			m.stop()
		}
	}
	return nil
}

// open returns e opened: with the state of was when nothing that the engine
// sees has changed, or with a new one.
func (t *Table) open(ctx context.Context, e *Entry, was *Mounted) (*Mounted, error) {
	spec := t.Kinds(e.Type, e.Options["version"])
	if spec == nil {
		return nil, fmt.Errorf("no engine is called %q (version %q)", e.Type, e.Options["version"])
	}
	if t.routes[spec] == nil {
		t.routes[spec] = route.NewTable(spec.Routes)
	}
	m := &Mounted{Entry: e, Spec: spec, Routes: t.routes[spec]}
	if was != nil && was.Spec == spec && sameEnv(was.Entry, e) {
		m.State, m.stop = was.State, was.stop
		return m, nil
	}
	state, err := spec.Open(ctx, t.env(e))
	if err != nil {
		return nil, err
	}
	m.State = state
	var life context.Context
	life, m.stop = context.WithCancel(t.life)
	t.work.Go(func() {
		if err := spec.Run(life, state); err != nil && life.Err() == nil {
			t.Log.Error("background work of a mount ended", "path", e.Path, "error", err)
		}
	})
	return m, nil
}

// env is what the engine of a mount gets of its surroundings.
func (t *Table) env(e *Entry) engine.Env {
	prefix := t.scope(e) + "/"
	own := storage.Sub(t.Barrier, prefix)
	recent := engine.ReadThrough(own)
	if t.Rows != nil {
		recent = func(ctx context.Context, key string) ([]byte, error) { return t.Rows.Get(ctx, prefix+key) }
	}
	env := engine.Env{
		Mount: e.env(t.Namespace), Storage: own, Recent: recent,
		Log:         t.Log.With("mount", e.Path),
		Fingerprint: func(value []byte) string { return t.Barrier.Fingerprint(t.scope(e), value) },
		MaxPayload:  t.MaxPayload,
		Password:    t.Password,
	}
	if t.Leases != nil {
		env.Leases = lease.Lender{Book: t.Leases, Mount: env.Mount, Live: func(r storage.Reader) error { return t.live(r, e.UUID) }}
	}
	if t.Agenda != nil {
		env.Agenda = agenda.Agenda{Book: t.Agenda, Mount: env.Mount, Prefix: prefix}
	}
	return env
}

// live returns an error when a mount is gone, or about to be, by what r reads.
func (t *Table) live(r storage.Reader, uuid string) error {
	if t.There != nil {
		if err := t.There(r); err != nil {
			return err
		}
	}
	gone, err := Gone(r, t.Prefix, uuid)
	if err == nil && gone {
		err = fault.New(fault.NotFound, "the mount was disabled while the request was under way")
	}
	return err
}

// Gone reports, in a namespace whose keys begin with prefix, whether a mount was
// disabled.
func Gone(r storage.Reader, prefix, uuid string) (bool, error) {
	row, err := r.Get(prefix + rows + uuid)
	if errors.Is(err, storage.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	var e Entry
	if err := json.Unmarshal(row, &e); err != nil {
		return false, fmt.Errorf("row of mount %s: %w", uuid, err)
	}
	return e.Ending, nil
}

// scope is the barrier's scope of a mount's keys.
func (t *Table) scope(e *Entry) string { return t.Prefix + Prefix + e.UUID }

// Scope is the barrier's scope of the keys of a mount.
func (t *Table) Scope(m *Mounted) string { return t.scope(m.Entry) }

func sameEnv(a, b *Entry) bool {
	return a.Path == b.Path && maps.Equal(a.Options, b.Options) && a.Description == b.Description &&
		a.Config.DefaultTTL == b.Config.DefaultTTL && a.Config.MaxTTL == b.Config.MaxTTL
}

func read(r storage.Reader, prefix string) ([]*Entry, error) {
	var entries []*Entry
	err := storage.All(r, prefix+rows, func(row storage.Entry) error {
		e := &Entry{}
		if err := json.Unmarshal(row.Value, e); err != nil {
			return fmt.Errorf("row %s: %w", row.Key, err)
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

func (t *Table) put(tx storage.Txn, e *Entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return tx.Put(t.Prefix+rows+e.UUID, text)
}

// find returns the entry at path in the transaction, or a fault.
func find(entries []*Entry, path string) (*Entry, error) {
	for _, e := range entries {
		if e.Path == path && !e.Ending {
			return e, nil
		}
	}
	return nil, fault.New(fault.Invalid, "no matching mount at %s", path)
}

// Erase erases the rows of disabled mounts, a bounded piece at a time.
func (t *Table) Erase(ctx context.Context) error {
	if !t.ending.Load() {
		return nil
	}
	var entries []*Entry
	if err := t.Barrier.View(ctx, func(r storage.Reader) (err error) {
		entries, err = read(r, t.Prefix)
		return err
	}); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Ending {
			continue
		}
		if err := t.Barrier.DeleteRows(ctx, t.scope(e), nil); err != nil {
			return err
		}
		if _, err := t.Barrier.Update(ctx, func(tx storage.Txn) error { return tx.Delete(t.Prefix + rows + e.UUID) }); err != nil {
			return err
		}
		t.Log.Info("a disabled mount is erased", "path", e.Path)
	}
	return t.load(ctx)
}

// CheckReturned refuses with lease.ErrLends, in a namespace whose keys begin with
// prefix, while a mount lends.
func CheckReturned(r storage.Reader, prefix string) error {
	entries, err := read(r, prefix)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Ending {
			continue
		}
		if err := lease.CheckNone(r, e.UUID); err != nil {
			return err
		}
	}
	return nil
}

// TakeBack takes everything back that the mounts lent.
func (t *Table) TakeBack(ctx context.Context) error {
	for _, m := range t.List() {
		if err := t.takeBack(ctx, m.Entry.Path); err != nil {
			return err
		}
	}
	return nil
}

// CheckFree refuses, in a namespace whose keys begin with prefix, a path that a mount
// is in the way of.
func CheckFree(r storage.Reader, prefix, path string) error {
	entries, err := read(r, prefix)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Ending && (strings.HasPrefix(path, e.Path) || strings.HasPrefix(e.Path, path)) {
			return ErrInUse(e.Path)
		}
	}
	return nil
}

// ErrInUse refuses a path because of what is there.
func ErrInUse(path string) error {
	return fault.New(fault.Invalid, "path is already in use at %s", path)
}
