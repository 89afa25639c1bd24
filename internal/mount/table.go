package mount

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

const rows = "core/mounts/" // + UUID

// Prefix is in front of all keys of what is mounted.
const Prefix = "mount/" // + UUID + "/"

// MaxMounts is how many mounts a server may have.
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
	Barrier    *barrier.Barrier
	Kinds      func(name, version string) *engine.Spec
	Log        *slog.Logger
	MaxPayload int
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

	loading sync.Mutex // one load at a time
	current atomic.Pointer[map[string]*Mounted]
}

// Open reads the table and opens every mount in it.
func Open(ctx context.Context, options Options) (*Table, error) {
	t := &Table{Options: options, routes: map[*engine.Spec]*route.Table{}}
	t.life, t.end = context.WithCancel(context.WithoutCancel(ctx))
	t.current.Store(&map[string]*Mounted{})
	t.leave = options.Barrier.Subscribe(rows, t.load)
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

// Run erases what disabled mounts left, until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	t.eraseEnding(ctx)
	return ctx.Err()
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

// List returns the mounts in the order of their paths.
func (t *Table) List() []*Mounted {
	mounts := *t.current.Load()
	return slices.SortedFunc(maps.Values(mounts), func(a, b *Mounted) int {
		return strings.Compare(a.Entry.Path, b.Entry.Path)
	})
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
		entries, err = read(r)
		return err
	}); err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
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
	own := storage.Sub(t.Barrier, e.prefix())
	recent := engine.ReadThrough(own)
	if t.Rows != nil {
		prefix := e.prefix()
		recent = func(ctx context.Context, key string) ([]byte, error) { return t.Rows.Get(ctx, prefix+key) }
	}
	return engine.Env{
		Mount: e.env(), Storage: own, Recent: recent,
		Log:         t.Log.With("mount", e.Path),
		Fingerprint: func(value []byte) string { return t.Barrier.Fingerprint(e.Scope(), value) },
		MaxPayload:  t.MaxPayload,
	}
}

func sameEnv(a, b *Entry) bool {
	return a.Path == b.Path && maps.Equal(a.Options, b.Options) && a.Description == b.Description &&
		a.Config.DefaultTTL == b.Config.DefaultTTL && a.Config.MaxTTL == b.Config.MaxTTL
}

func read(r storage.Reader) ([]*Entry, error) {
	var entries []*Entry
	err := storage.All(r, rows, func(row storage.Entry) error {
		e := &Entry{}
		if err := json.Unmarshal(row.Value, e); err != nil {
			return fmt.Errorf("row %s: %w", row.Key, err)
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

func put(tx storage.Txn, e *Entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return tx.Put(rows+e.UUID, text)
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

// eraseEnding erases the rows of disabled mounts, a bounded piece at a time, at
// start and whenever there are some.
func (t *Table) eraseEnding(ctx context.Context) {
	for {
		if err := t.erase(ctx); err != nil && ctx.Err() == nil {
			t.Log.Warn("erasing a disabled mount is interrupted and goes on shortly", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(2 * time.Second):
		}
	}
}

func (t *Table) erase(ctx context.Context) error {
	var entries []*Entry
	if err := t.Barrier.View(ctx, func(r storage.Reader) (err error) {
		entries, err = read(r)
		return err
	}); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Ending {
			continue
		}
		if err := t.Barrier.DeleteRows(ctx, e.Scope(), nil); err != nil {
			return err
		}
		if _, err := t.Barrier.Update(ctx, func(tx storage.Txn) error { return tx.Delete(rows + e.UUID) }); err != nil {
			return err
		}
		t.Log.Info("a disabled mount is erased", "path", e.Path)
	}
	return nil
}
