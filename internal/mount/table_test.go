package mount

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// jar is an engine that keeps one text.
type jar struct {
	env     engine.Env
	running *atomic.Int32
}

func (j *jar) read(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Empty, error) {
	return route.Empty{}, j.env.Storage.View(ctx, func(r storage.Reader) error { _, err := r.Get("text"); return err })
}

type fixture struct {
	table   *Table
	barrier *barrier.Barrier
	raw     storage.Engine
	running atomic.Int32
	kinds   func(name, version string) *engine.Spec
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{raw: memory.New()}
	f.barrier = barrier.New(f.raw, slog.New(slog.DiscardHandler))
	root, err := barrier.NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.barrier.Initialize(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if err := f.barrier.Open(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	kind := func(name, version string, class engine.Class, upgrades ...string) *engine.Spec {
		return engine.Kind[struct{}, *jar]{
			Name: name, Version: version, Class: class, Upgradable: upgrades,
			Open: func(_ context.Context, env engine.Env, _ struct{}) (*jar, error) { return &jar{env, &f.running}, nil },
			Routes: []route.Route[*jar]{
				route.New("GET", "read", "Read.", (*jar).read),
			},
			Run: func(j *jar, ctx context.Context) error {
				j.running.Add(1)
				defer j.running.Add(-1)
				<-ctx.Done()
				return nil
			},
		}.Spec()
	}
	specs := []*engine.Spec{
		kind("jar", "1", engine.Secret), kind("jar", "2", engine.Secret, "1"), kind("door", "", engine.Auth), kind("inner", "", engine.System),
	}
	f.kinds = func(name, version string) *engine.Spec {
		for _, s := range specs {
			if s.Name == name && (s.Version == version || version == "" && s.Version == "1") {
				return s
			}
		}
		return nil
	}
	f.open(t)
	return f
}

// open opens the table anew, as a restart does.
func (f *fixture) open(t *testing.T) {
	t.Helper()
	if f.table != nil {
		f.table.Close()
	}
	var err error
	f.table, err = Open(t.Context(), Options{Barrier: f.barrier, Kinds: f.kinds, Log: slog.New(slog.DiscardHandler), MaxPayload: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.table.Close)
}

func (f *fixture) enable(t *testing.T, path string) *jar {
	t.Helper()
	if _, err := f.table.Enable(t.Context(), Request{Path: path, Type: "jar", Class: engine.Secret}); err != nil {
		t.Fatal(err)
	}
	return f.table.At(path).State.(*jar)
}

func (j *jar) put(t *testing.T, key, value string) {
	t.Helper()
	if _, err := j.env.Storage.Update(t.Context(), func(tx storage.Txn) error { return tx.Put(key, []byte(value)) }); err != nil {
		t.Fatal(err)
	}
}

func (j *jar) get(t *testing.T, key string) (string, error) {
	t.Helper()
	var v []byte
	err := j.env.Storage.View(t.Context(), func(r storage.Reader) (err error) { v, err = r.Get(key); return err })
	return string(v), err
}

func TestFindsTheMountOfAPath(t *testing.T) {
	f := newFixture(t)
	f.enable(t, "secret")
	f.enable(t, "team/a")
	f.enable(t, "team/b/")
	for path, want := range map[string][2]string{
		"secret/x/y": {"secret/", "x/y"}, "secret/": {"secret/", ""}, "secret": {"secret/", ""},
		"team/a/x": {"team/a/", "x"}, "team/b": {"team/b/", ""}, "team/": {"", "team/"}, "team/c/x": {"", "team/c/x"},
		"secretx/y": {"", "secretx/y"}, "": {"", ""},
	} {
		m, below := f.table.Find(path)
		got := ""
		if m != nil {
			got = m.Entry.Path
		}
		if got != want[0] || below != want[1] {
			t.Errorf("%q: %q %q, want %q", path, got, below, want)
		}
	}
}

func TestRefusesWhatCannotBeMounted(t *testing.T) {
	f := newFixture(t)
	f.enable(t, "secret")
	f.enable(t, "team/a")
	for name, r := range map[string]Request{
		"taken":         {Path: "secret", Type: "jar", Class: engine.Secret},
		"below another": {Path: "secret/below", Type: "jar", Class: engine.Secret},
		"above another": {Path: "team", Type: "jar", Class: engine.Secret},
		"no path":       {Path: "/", Type: "jar", Class: engine.Secret},
		"dots":          {Path: "a/../b", Type: "jar", Class: engine.Secret},
		"empty segment": {Path: "a//b", Type: "jar", Class: engine.Secret},
		"glob":          {Path: "a*", Type: "jar", Class: engine.Secret},
		"control":       {Path: "a\x01", Type: "jar", Class: engine.Secret},
		"long":          {Path: strings.Repeat("a", MaxPathBytes), Type: "jar", Class: engine.Secret},
		"reserved":      {Path: "sys/x", Type: "jar", Class: engine.Secret},
		"reserved auth": {Path: "auth/token", Type: "door", Class: engine.Auth},
		"wrong class":   {Path: "door", Type: "door", Class: engine.Secret},
		"below auth":    {Path: "auth/jar", Type: "jar", Class: engine.Secret},
		"unknown":       {Path: "x", Type: "nothing", Class: engine.Secret},
		"system":        {Path: "x", Type: "inner", Class: engine.Secret},
		"version":       {Path: "x", Type: "jar", Class: engine.Secret, Options: map[string]string{"version": "9"}},
		"lifetimes":     {Path: "x", Type: "jar", Class: engine.Secret, Config: Config{DefaultTTL: 2e9, MaxTTL: 1e9}},
		"visibility":    {Path: "x", Type: "jar", Class: engine.Secret, Config: Config{ListingVisibility: "maybe"}},
	} {
		before := len(f.table.List())
		if _, err := f.table.Enable(t.Context(), r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if len(f.table.List()) != before {
			t.Errorf("%s: the table changed", name)
		}
	}
	path := strings.Repeat("a", MaxPathBytes-1)
	f.enable(t, path)
}

func TestMountsSurviveARestart(t *testing.T) {
	f := newFixture(t)
	f.enable(t, "secret").put(t, "k", "v")
	f.open(t)
	if got, err := f.table.At("secret").State.(*jar).get(t, "k"); got != "v" || err != nil {
		t.Fatal(got, err)
	}
}

func TestDisabledMountsAreUnreadableAtOnceAndErasedLater(t *testing.T) {
	f := newFixture(t)
	j := f.enable(t, "secret")
	for i := range 250 {
		j.put(t, "k"+strings.Repeat("x", i), "v")
	}
	if err := f.table.Disable(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	if f.table.At("secret") != nil {
		t.Error("still routed")
	}
	if _, err := j.get(t, "k"); err == nil || errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a handler that still holds the engine reads: %v", err)
	}
	if _, err := f.table.Enable(t.Context(), Request{Path: "secret", Type: "jar", Class: engine.Secret}); !fault.Is(err, fault.Conflict) {
		t.Errorf("mounted over one that is being erased: %v", err)
	}
	f.open(t) // the server died before anything was erased
	if err := f.table.Erase(t.Context()); err != nil {
		t.Fatal(err)
	}
	prefix := "mount/" + j.env.Mount.UUID
	if err := f.raw.View(t.Context(), func(r storage.Reader) error {
		left, err := r.Scan(prefix, "", 10)
		if len(left) > 0 {
			t.Errorf("rows are left: %d", len(left))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	f.enable(t, "secret")
}

func TestTuneAndUpgrade(t *testing.T) {
	f := newFixture(t)
	f.enable(t, "secret").put(t, "k", "v")
	tune := func(fn func(*Entry) error) error { return f.table.Tune(t.Context(), "secret", fn) }
	if err := tune(func(e *Entry) error { e.Config.MaxTTL = 3600e9; return nil }); err != nil {
		t.Fatal(err)
	}
	if got := f.table.At("secret").State.(*jar).env.Mount.MaxTTL; got != time.Hour {
		t.Errorf("the engine was told %v", got)
	}
	if err := tune(func(e *Entry) error { e.Options = map[string]string{"version": "2"}; return nil }); err != nil {
		t.Fatal(err)
	}
	if v := f.table.At("secret").Spec.Version; v != "2" {
		t.Errorf("version %s", v)
	}
	if got, err := f.table.At("secret").State.(*jar).get(t, "k"); got != "v" || err != nil {
		t.Errorf("after the upgrade: %q %v", got, err)
	}
	if err := tune(func(e *Entry) error { e.Options = map[string]string{"version": "1"}; return nil }); !fault.Is(err, fault.Invalid) {
		t.Errorf("downgraded: %v", err)
	}
	if err := tune(func(e *Entry) error { e.Config.DefaultTTL = 7200e9; return nil }); !fault.Is(err, fault.Invalid) {
		t.Errorf("default beyond max: %v", err)
	}
	if err := f.table.Tune(t.Context(), "nowhere", func(*Entry) error { return nil }); !fault.Is(err, fault.Invalid) {
		t.Errorf("tuned nothing: %v", err)
	}
}

func TestMove(t *testing.T) {
	f := newFixture(t)
	f.enable(t, "secret").put(t, "k", "v")
	f.enable(t, "other")
	accessor := f.table.At("secret").Entry.Accessor
	if err := f.table.Move(t.Context(), "secret", "other"); !fault.Is(err, fault.Invalid) {
		t.Errorf("moved onto another: %v", err)
	}
	if err := f.table.Move(t.Context(), "secret", "deep/place"); err != nil {
		t.Fatal(err)
	}
	m := f.table.At("deep/place")
	if f.table.At("secret") != nil || m == nil || m.Entry.Accessor != accessor || !f.table.Live(accessor) {
		t.Fatal("the mount did not move whole")
	}
	if got, err := m.State.(*jar).get(t, "k"); got != "v" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestBackgroundWorkEndsWithItsMount(t *testing.T) {
	f := newFixture(t)
	wait := func(want int32) {
		t.Helper()
		for range 500 {
			if f.running.Load() == want {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("%d engines work, want %d", f.running.Load(), want)
	}
	f.enable(t, "a")
	f.enable(t, "b")
	wait(2)
	if err := f.table.Tune(t.Context(), "a", func(e *Entry) error { e.Config.MaxTTL = 3600e9; return nil }); err != nil {
		t.Fatal(err)
	}
	wait(2)
	if err := f.table.Disable(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	wait(1)
	f.table.Close()
	wait(0)
}

func TestSystemMountsStay(t *testing.T) {
	f := newFixture(t)
	for range 2 {
		if err := f.table.Ensure(t.Context(), Request{Path: "sys", Type: "inner", Class: engine.System}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.table.Disable(t.Context(), "sys"); !fault.Is(err, fault.Invalid) {
		t.Errorf("unmounted: %v", err)
	}
	if err := f.table.Move(t.Context(), "sys", "elsewhere"); !fault.Is(err, fault.Invalid) {
		t.Errorf("moved: %v", err)
	}
}

func TestChangesOfAnotherNodeAreFollowed(t *testing.T) {
	f := newFixture(t)
	other, err := Open(t.Context(), f.table.Options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- other.Barrier.Follow(ctx) }()
	defer func() { cancel(); <-done; other.Close() }()
	f.enable(t, "secret")
	begun := time.Now()
	for other.At("secret") == nil {
		if time.Since(begun) > time.Second {
			t.Fatal("not seen within a second")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestOptionsThatDoNotOpenAreRefused(t *testing.T) {
	f := newFixture(t)
	strict := engine.Kind[struct {
		Level string `json:"level"`
	}, *jar]{
		Name: "strict", Class: engine.Secret,
		Open: func(_ context.Context, env engine.Env, o struct {
			Level string `json:"level"`
		}) (*jar, error) {
			if o.Level == "bad" {
				return nil, fault.New(fault.Invalid, "level: it must be good")
			}
			return &jar{env, &f.running}, nil
		},
	}.Spec()
	others := f.kinds
	f.kinds = func(name, version string) *engine.Spec {
		if name == "strict" {
			return strict
		}
		return others(name, version)
	}
	f.open(t)
	bad := Request{Path: "x", Type: "strict", Class: engine.Secret, Options: map[string]string{"level": "bad"}}
	if _, err := f.table.Enable(t.Context(), bad); !fault.Is(err, fault.Invalid) {
		t.Fatalf("enable: %v", err)
	}
	bad.Options = nil
	if _, err := f.table.Enable(t.Context(), bad); err != nil {
		t.Fatalf("the refused mount left something: %v", err)
	}
	err := f.table.Tune(t.Context(), "x", func(e *Entry) error { e.Options = map[string]string{"level": "bad"}; return nil })
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("tune: %v", err)
	}
	if m := f.table.At("x"); m == nil || m.Entry.Options["level"] != "" {
		t.Errorf("after a refused change: %+v", m)
	}
}
