package realm_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/namespace"
	"github.com/cofferhq/coffer/internal/realm"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// jar is an engine that keeps texts.
type jar struct{ env engine.Env }

var jarKind = engine.Kind[struct{}, *jar]{
	Name: "jar", Class: engine.Secret, Doc: "Keeps texts.",
	Open:   func(_ context.Context, env engine.Env, _ struct{}) (*jar, error) { return &jar{env}, nil },
	Routes: []route.Route[*jar]{},
}

// dying is an engine that dies after some more commits: what a process does that is
// killed between two steps.
type dying struct {
	storage.Engine
	left atomic.Int64 // commits; negative: any number
}

var errDead = errors.New("the process is gone")

func (d *dying) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if d.left.Load() == 0 {
		return 0, errDead
	}
	d.left.Add(-1)
	return d.Engine.Update(ctx, fn)
}

// node is one server's part.
type node struct {
	*realm.Table
	barrier *barrier.Barrier
	store   *token.Store
}

// start opens a node over an engine; root is nil the first time.
func start(t *testing.T, e storage.Engine, root *[]byte) *node {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b := barrier.New(e, log)
	if *root == nil {
		key, err := barrier.NewRootKey()
		must(t, err)
		must(t, b.Initialize(t.Context(), key))
		*root = key
	}
	must(t, b.Open(t.Context(), append([]byte(nil), *root...)))
	n := &node{barrier: b}
	var err error
	n.store, err = token.NewStore(t.Context(), token.Options{
		Storage:  storage.Sub(b, "core/tokens/"),
		Defaults: func() (time.Duration, time.Duration) { return time.Hour, time.Hour },
		Within:   func(namespace, other string) bool { return n.Within(namespace, other) },
	})
	must(t, err)
	n.Table, err = realm.Open(t.Context(), realm.Options{
		Barrier: b, Tokens: n.store, MaxPayload: 1 << 20, Log: log,
		Kinds: func(name, _ string) *engine.Spec {
			if name == "jar" {
				return jarKind.Spec()
			}
			return nil
		},
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { _ = b.Follow(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done; n.Close(); b.Shut() })
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// make makes a namespace and opens it.
func (n *node) make(t *testing.T, path string) *realm.Realm {
	t.Helper()
	_, err := n.Namespaces.Create(t.Context(), path, nil)
	must(t, err)
	must(t, n.Load(t.Context()))
	return n.At(path)
}

// fill puts something of every kind into a realm.
func fill(t *testing.T, r *realm.Realm, tokens int) {
	t.Helper()
	ctx := t.Context()
	_, err := r.Mounts.Enable(ctx, mount.Request{Path: "jar", Type: "jar", Class: engine.Secret})
	must(t, err)
	keep := r.Mounts.At("jar").State.(*jar).env.Storage
	for i := range 100 {
		_, err := keep.Update(ctx, func(x storage.Txn) error { return x.Put(fmt.Sprint("text/", i), []byte("secret text")) })
		must(t, err)
	}
	_, err = r.Policies.Put(ctx, "app", `path "jar/*" { capabilities = ["read"] }`)
	must(t, err)
	name := "ada"
	_, _, err = r.Identities.WriteEntity(ctx, "", identity.EntityChange{Name: &name})
	must(t, err)
	for range tokens {
		_, _, err := r.Tokens.Create(ctx, nil, token.Request{Policies: []string{"app"}})
		must(t, err)
	}
	_, err = r.Tokens.ChangeRole(ctx, "ci", func(old token.Role, _ bool) (token.Role, error) { return old, nil })
	must(t, err)
}

// left lists the rows of a namespace that an engine holds, tokens included.
func left(t *testing.T, e storage.Engine, id string) (keys []string) {
	t.Helper()
	must(t, e.View(t.Context(), func(r storage.Reader) error {
		return storage.All(r, "", func(row storage.Entry) error {
			if strings.Contains(row.Key, "/"+id+"/") || strings.HasSuffix(row.Key, "/"+id) || strings.HasPrefix(row.Key, "core/tokens/id/") {
				keys = append(keys, row.Key)
			}
			return nil
		})
	}))
	return keys
}

// A namespace is erased to the last row, wherever the process dies on the way, and is
// away from the first commit on.
func TestADeletedNamespaceIsErasedWhereverTheProcessDies(t *testing.T) {
	for step, whole := 0, false; !whole; step++ {
		e := &dying{Engine: memory.New()}
		e.left.Store(-1)
		var root []byte
		n := start(t, e, &root)
		r := n.make(t, "team")
		id := r.Namespace.ID
		fill(t, r, 15)
		if len(left(t, e, id)) < 120 {
			t.Fatal("there is nothing to erase")
		}
		must(t, n.Namespaces.Delete(t.Context(), "team"))
		must(t, n.Load(t.Context()))
		e.left.Store(int64(step))
		err := n.Namespaces.Erase(t.Context())
		if whole = err == nil; !whole && !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		e.left.Store(-1)
		n = start(t, e, &root) // after the crash
		if n.At("team") != nil {
			t.Fatalf("after %d steps the namespace is back", step)
		}
		again := n.make(t, "team") // the name is free meanwhile
		fill(t, again, 0)
		must(t, n.Namespaces.Erase(t.Context()))
		if keys := left(t, e, id); len(keys) > 0 {
			t.Fatalf("dead after %d steps, there are left %q", step, keys)
		}
		if keys := left(t, e, again.Namespace.ID); len(keys) < 100 {
			t.Fatalf("another namespace of the same name lost rows: %d are left", len(keys))
		}
	}
}

func TestOtherNodesSeeNamespacesWithinASecond(t *testing.T) {
	e := memory.New()
	var root []byte
	a := start(t, e, &root)
	b := start(t, e, &root)
	r := a.make(t, "team")
	fill(t, r, 0)
	within(t, "the namespace opens on the other node", func() bool {
		other := b.At("team")
		return other != nil && other.Mounts.At("jar") != nil
	})
	key, err := a.Namespaces.Lock(t.Context(), "team")
	must(t, err)
	within(t, "the lock is seen", func() bool { return b.At("team").Locked != nil })
	must(t, a.Namespaces.Unlock(t.Context(), "team", key, false))
	within(t, "the lock is gone", func() bool { return b.At("team").Locked == nil })
	held := b.At("team").Mounts.At("jar").State.(*jar).env.Storage
	must(t, a.Namespaces.Delete(t.Context(), "team"))
	within(t, "the namespace is away", func() bool { return b.At("team") == nil })
	// Whoever still holds an engine of it reads nothing.
	err = held.View(t.Context(), func(r storage.Reader) error { _, err := r.Get("text/1"); return err })
	if err == nil || errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a handler under way reads on: %v", err)
	}
}

// A namespace that the engine's trouble kept closed is opened when it is over.
func TestANamespaceThatCouldNotBeOpenedIsTriedAgain(t *testing.T) {
	e := &dying{Engine: memory.New()}
	e.left.Store(-1)
	var root []byte
	n := start(t, e, &root)
	_, err := n.Namespaces.Create(t.Context(), "team", nil)
	must(t, err)
	e.left.Store(0)
	must(t, n.Load(t.Context()))
	if n.At("team") != nil {
		t.Fatal("it was opened without its rows")
	}
	e.left.Store(-1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = n.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	within(t, "the namespace is opened", func() bool { return n.At("team") != nil })
}

// within waits for at most a second.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within a second: ", what)
		}
	}
}

func TestFind(t *testing.T) {
	e := memory.New()
	var root []byte
	n := start(t, e, &root)
	for _, path := range []string{"a", "a/b", "ab", "c"} {
		n.make(t, path)
	}
	for path, want := range map[string]string{
		"secret/x": "|secret/x", "a/secret/x": "a/|secret/x", "a/b/x": "a/b/|x", "ab/x": "ab/|x", "a": "|a", "a/": "a/|",
		"a/bx/y": "a/|bx/y", "": "|", "/a/x": "|/a/x", "d/a/x": "|d/a/x", "a/b": "a/|b",
	} {
		r, rest := n.Find(path)
		if got := r.Namespace.Path + "|" + rest; got != want {
			t.Errorf("%q is %s, want %s", path, got, want)
		}
	}
	a, ab, b := n.At("a").Namespace.ID, n.At("ab").Namespace.ID, n.At("a/b").Namespace.ID
	for _, c := range []struct {
		inner, outer string
		want         bool
	}{{b, a, true}, {a, b, false}, {ab, a, false}, {a, "", true}, {"", a, false}, {"", "", true}, {"nosuch", a, false}, {b, "nosuch", false}} {
		if n.Within(c.inner, c.outer) != c.want {
			t.Errorf("%q within %q is not %v", c.inner, c.outer, c.want)
		}
	}
	if below := n.Below(n.At("a")); len(below) != 1 || below[0].Namespace.Path != "a/b/" {
		t.Errorf("below a: %v", below)
	}
}

func TestWhatIsNoNamespaceIsRefused(t *testing.T) {
	e := memory.New()
	var root []byte
	n := start(t, e, &root)
	r := n.make(t, "team")
	_, err := r.Mounts.Enable(t.Context(), mount.Request{Path: "jar/inner", Type: "jar", Class: engine.Secret})
	must(t, err)
	deep := strings.Repeat("d/", namespace.MaxDepth)
	long := strings.Repeat("n", namespace.MaxPathBytes)
	pairs := map[string]string{}
	for i := range 65 {
		pairs[fmt.Sprint(i)] = "v"
	}
	for path, metadata := range map[string]map[string]string{
		"": nil, "/": nil, "nosuch/inner": nil, "team/jar": nil, "team/jar/inner": nil, "team/jar/inner/more": nil,
		"sys": nil, "root": nil, "auth/x": nil, "a//b": nil, ".": nil, "a/..": nil, "a b": nil, "a\x00": nil, "a%2fb": nil,
		"*": nil, "+": nil, deep + "d": nil, long: nil, "pairs": pairs, "key": {"": "v"}, "value": {"k": strings.Repeat("v", 513)},
	} {
		if _, err := n.Namespaces.Create(t.Context(), path, metadata); !fault.Is(err, fault.Invalid) {
			t.Errorf("%.40q: %v", path, err)
		}
	}
	// At the edge of the limits.
	n.make(t, long[:namespace.MaxPathBytes-1])
	path := ""
	for range namespace.MaxDepth {
		path += "d/"
		n.make(t, path)
	}
	_, err = r.Mounts.Enable(t.Context(), mount.Request{Path: "kv", Type: "jar", Class: engine.Secret})
	must(t, err)
	if _, err := n.Namespaces.Create(t.Context(), "team/kv", nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("a namespace over a mount: %v", err)
	}
	if err := r.Mounts.Move(t.Context(), "kv", "moved"); err != nil {
		t.Error(err)
	}
	n.make(t, "team/kv")
	for _, to := range []string{"kv", "kv/below"} {
		if err := r.Mounts.Move(t.Context(), "moved", to); !fault.Is(err, fault.Invalid) {
			t.Errorf("a mount moved to a namespace's path %s: %v", to, err)
		}
	}
	if err := n.Namespaces.Delete(t.Context(), "team"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a namespace with others in it is deleted: %v", err)
	}
	if err := n.Namespaces.Delete(t.Context(), "nosuch"); !fault.Is(err, fault.NotFound) {
		t.Errorf("nothing is deleted: %v", err)
	}
	if err := n.Namespaces.Unlock(t.Context(), "team", "", true); !fault.Is(err, fault.Invalid) {
		t.Errorf("what is not locked is unlocked: %v", err)
	}
}
