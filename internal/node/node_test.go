package node_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/keyfile"
	"github.com/cofferhq/coffer/internal/seal/shamir"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "hvs.0123456789"

// server is a node with what a real one has around it, in small.
type server struct {
	*node.Node
	barrier *barrier.Barrier
	open    atomic.Bool
	mu      sync.Mutex
	events  []string
	refuse  error // what Record answers
}

// start makes a node over e, as a process does.
func start(t testing.TB, e storage.Engine, seals ...node.Configured) *server {
	t.Helper()
	s := &server{barrier: barrier.New(e, slog.New(slog.DiscardHandler))}
	s.Node = node.New(node.Options{
		Engine: e, Barrier: s.barrier, Seals: seals, Log: slog.New(slog.DiscardHandler),
		OnUnseal: func(ctx context.Context) error {
			s.open.Store(true)
			_, err := s.barrier.Update(ctx, func(x storage.Txn) error { return x.Put("core/started", []byte("yes")) })
			return err
		},
		OnSeal: func() { s.open.Store(false) },
		NewRootToken: func(ctx context.Context) (string, error) {
			_, err := s.barrier.Update(ctx, func(x storage.Txn) error { return x.Put("core/token", []byte(token)) })
			return token, err
		},
		TokenLength: len(token),
		Record: func(_ context.Context, event string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, event)
			return s.refuse
		},
	})
	t.Cleanup(s.Close)
	return s
}

func store(t testing.TB) storage.Engine {
	t.Helper()
	e := memory.New()
	t.Cleanup(func() { e.Close() })
	return e
}

func file(t testing.TB, path string) node.Configured {
	t.Helper()
	s, err := keyfile.Open(path)
	c := node.Configured{Named: seal.Named{Name: filepath.Base(path), Kind: "keyfile"}, Err: err}
	if err == nil {
		c.Seal = s
	}
	return c
}

func people() node.Configured {
	return node.Configured{Named: seal.Named{Name: shamir.Name, Kind: shamir.Name}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Fatalf("error is %v, want one of kind %d", err, kind)
	}
}

func (s *server) status(t testing.TB) node.Status {
	t.Helper()
	st, err := s.Status(context.Background())
	must(t, err)
	if st.Sealed == s.open.Load() || st.Sealed == s.barrier.Opened() {
		t.Fatalf("sealed is %v, but the server runs: %v, the barrier is open: %v", st.Sealed, s.open.Load(), s.barrier.Opened())
	}
	return st
}

func (s *server) wantSealed(t testing.TB, sealed bool) {
	t.Helper()
	if st := s.status(t); !st.Initialized || st.Sealed != sealed {
		t.Fatalf("status %+v, want sealed %v", st, sealed)
	}
}

func (s *server) put(t testing.TB, key, value string) {
	t.Helper()
	_, err := s.barrier.Update(context.Background(), func(x storage.Txn) error { return x.Put(key, []byte(value)) })
	must(t, err)
}

func (s *server) wantRow(t testing.TB, key, want string) {
	t.Helper()
	must(t, s.barrier.View(context.Background(), func(r storage.Reader) error {
		v, err := r.Get(key)
		if string(v) != want {
			t.Fatalf("%s = %q, want %q", key, v, want)
		}
		return err
	}))
}

// give unseals with shares.
func (s *server) give(t testing.TB, shares [][]byte) error {
	t.Helper()
	for _, share := range shares {
		if err := s.Unseal(context.Background(), share, false); err != nil {
			return err
		}
	}
	return nil
}

func TestKeyFileLife(t *testing.T) {
	ctx, e, path := t.Context(), store(t), filepath.Join(t.TempDir(), "key")
	s := start(t, e, file(t, path))
	must(t, s.AutoUnseal(ctx)) // nothing to open yet
	if st := s.status(t); st.Initialized || !st.Sealed || st.Type != "keyfile" || !st.RecoverySeal {
		t.Fatalf("fresh: %+v", st)
	}
	wantKind(t, s.Unseal(ctx, make([]byte, 33), false), fault.Invalid)
	for _, bad := range []node.InitRequest{{Shares: 2, Threshold: 3}, {Threshold: 1}, {Shares: 3, Threshold: 1}, {RecoveryShares: 2, RecoveryThreshold: 3}} {
		_, err := s.Init(ctx, bad)
		wantKind(t, err, fault.Invalid)
	}
	got, err := s.Init(ctx, node.InitRequest{Shares: 1, Threshold: 1, RecoveryShares: 5, RecoveryThreshold: 3})
	must(t, err)
	if got.RootToken != token || len(got.Shares) != 0 || len(got.RecoveryShares) != 5 {
		t.Fatalf("init: %+v", got)
	}
	s.wantSealed(t, false)
	if st := s.status(t); st.Shares != 5 || st.Threshold != 3 || st.ClusterID == "" || st.Migration {
		t.Fatalf("after init: %+v", st)
	}
	_, err = s.Init(ctx, node.InitRequest{})
	wantKind(t, err, fault.Invalid)
	s.put(t, "x", "1")
	must(t, s.Seal(ctx))
	must(t, s.Seal(ctx))
	s.wantSealed(t, true)
	must(t, s.AutoUnseal(ctx))
	s.wantRow(t, "x", "1")
	s.Close()

	again := start(t, e, file(t, path))
	again.wantSealed(t, true)
	must(t, again.AutoUnseal(ctx))
	again.wantRow(t, "x", "1")
	if want := []string{"unseal"}; fmt.Sprint(again.events) != fmt.Sprint(want) {
		t.Errorf("recorded %v, want %v", again.events, want)
	}
	again.Close()

	must(t, os.Rename(path, path+".gone"))
	lost := start(t, e, file(t, path))
	if err := lost.AutoUnseal(ctx); !errors.Is(err, seal.ErrUnopened) || !strings.Contains(err.Error(), path) {
		t.Fatalf("without the key file: %v", err)
	}
	lost.wantSealed(t, true)
}

func TestShamirLife(t *testing.T) {
	ctx, e := t.Context(), store(t)
	s := start(t, e, people())
	for _, bad := range []node.InitRequest{{}, {Shares: 5}, {Shares: 2, Threshold: 3}, {Shares: 256, Threshold: 3}, {Shares: 3, Threshold: 1}} {
		_, err := s.Init(ctx, bad)
		wantKind(t, err, fault.Invalid)
	}
	got, err := s.Init(ctx, node.InitRequest{Shares: 5, Threshold: 3})
	must(t, err)
	s.wantSealed(t, true) // people open it
	must(t, s.AutoUnseal(ctx))
	must(t, s.give(t, got.Shares[:2]))
	st := s.status(t)
	if st.Progress != 2 || st.Threshold != 3 || st.Shares != 5 || st.Nonce == "" || st.RecoverySeal || st.Type != "shamir" {
		t.Fatalf("after two shares: %+v", st)
	}
	must(t, s.give(t, got.Shares[:2])) // given again: no progress
	if st := s.status(t); st.Progress != 2 {
		t.Fatalf("after the same shares: %+v", st)
	}
	must(t, s.Unseal(ctx, nil, true))
	if st := s.status(t); st.Progress != 0 || st.Nonce != "" {
		t.Fatalf("after reset: %+v", st)
	}
	wrong := append(make([]byte, 32), 99)
	wantKind(t, s.give(t, [][]byte{got.Shares[0], wrong, got.Shares[1]}), fault.Invalid)
	if st := s.status(t); st.Progress != 0 || !st.Sealed {
		t.Fatalf("after a wrong share: %+v", st)
	}
	wantKind(t, s.Unseal(ctx, []byte("short"), false), fault.Invalid)
	must(t, s.give(t, got.Shares[2:]))
	s.wantSealed(t, false)
	must(t, s.Unseal(ctx, got.Shares[0], false)) // open already
	s.put(t, "x", "1")
	s.Close()
	again := start(t, e, people())
	must(t, again.give(t, [][]byte{got.Shares[4], got.Shares[0], got.Shares[2]}))
	again.wantRow(t, "x", "1")
}

func TestAnAuditLogThatRefusesStopsEverything(t *testing.T) {
	ctx, e := t.Context(), store(t)
	s := start(t, e, file(t, filepath.Join(t.TempDir(), "key")))
	s.refuse = errors.New("disk")
	_, err := s.Init(ctx, node.InitRequest{})
	if !errors.Is(err, s.refuse) || s.status(t).Initialized {
		t.Fatalf("init: %v", err)
	}
	s.refuse = nil
	_, err = s.Init(ctx, node.InitRequest{})
	must(t, err)
	s.refuse = errors.New("disk")
	if err := s.Seal(ctx); !errors.Is(err, s.refuse) {
		t.Fatalf("seal: %v", err)
	}
	if err := s.RotateRoot(ctx); !errors.Is(err, s.refuse) {
		t.Fatalf("rotate: %v", err)
	}
	s.refuse = nil
	must(t, s.Seal(ctx))
	s.refuse = errors.New("disk")
	if err := s.AutoUnseal(ctx); !errors.Is(err, s.refuse) {
		t.Fatalf("unseal: %v", err)
	}
	s.wantSealed(t, true)
}

func TestLosingOneOfTwoSeals(t *testing.T) {
	ctx, e, dir := t.Context(), store(t), t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	s := start(t, e, file(t, a), file(t, b))
	_, err := s.Init(ctx, node.InitRequest{})
	must(t, err)
	s.put(t, "x", "1")
	s.Close()

	must(t, os.Remove(a))
	s = start(t, e, file(t, a), file(t, b))
	must(t, s.AutoUnseal(ctx))
	s.wantRow(t, "x", "1")
	s.Close()

	// The lost one is left, a new one takes its place.
	lost := file(t, a)
	lost.Disabled = true
	s = start(t, e, lost, file(t, b), file(t, filepath.Join(dir, "c")))
	must(t, s.AutoUnseal(ctx))
	if st := s.status(t); st.Migration {
		t.Fatalf("not settled: %+v", st)
	}
	must(t, s.RotateRoot(ctx))
	s.Close()
	must(t, os.Remove(b))
	s = start(t, e, file(t, filepath.Join(dir, "c")))
	must(t, s.AutoUnseal(ctx))
	s.wantRow(t, "x", "1")
}

func TestASealAddedToARunningStore(t *testing.T) {
	ctx, e, dir := t.Context(), store(t), t.TempDir()
	s := start(t, e, people())
	got, err := s.Init(ctx, node.InitRequest{Shares: 3, Threshold: 2})
	must(t, err)
	s.Close()

	// Shamir is left for a key file; who held shares holds recovery shares.
	left := people()
	left.Disabled = true
	key := file(t, filepath.Join(dir, "key"))
	s = start(t, e, key, left)
	if !s.status(t).Migration {
		t.Fatal("no migration is shown")
	}
	must(t, s.give(t, got.Shares[:2]))
	if st := s.status(t); st.Migration || st.Shares != 3 || st.Threshold != 2 {
		t.Fatalf("after the migration: %+v", st)
	}
	s.Close()
	s = start(t, e, key)
	must(t, s.AutoUnseal(ctx))
	wantKind(t, generate(t, s, [][]byte{got.Shares[0], append(make([]byte, 32), 200)}), fault.Invalid)
	must(t, generate(t, s, got.Shares[1:]))
	s.Close()

	// And back: new shares are given out while the server runs.
	leaving := key
	leaving.Disabled = true
	s = start(t, e, people(), leaving)
	must(t, s.AutoUnseal(ctx))
	shares, err := s.GiveShares(ctx, 3, 2)
	must(t, err)
	if s.status(t).Migration {
		t.Fatal("not settled")
	}
	must(t, s.Seal(ctx))
	must(t, s.AutoUnseal(ctx))
	s.wantSealed(t, true)
	must(t, s.give(t, shares[:2]))
	s.wantSealed(t, false)
}

func TestStatusWaitsForNothing(t *testing.T) {
	ctx, e := t.Context(), store(t)
	path := filepath.Join(t.TempDir(), "key")
	s := start(t, e, file(t, path))
	_, err := s.Init(ctx, node.InitRequest{})
	must(t, err)
	must(t, s.Seal(ctx))
	slow := file(t, path)
	h := &hung{Seal: slow.Seal, reached: make(chan struct{})}
	slow.Seal = h
	s = start(t, e, slow)
	trying, stop := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- s.AutoUnseal(trying) }()
	<-h.reached
	s.wantSealed(t, true)
	stop()
	if err := <-done; !errors.Is(err, seal.ErrUnopened) {
		t.Fatalf("a seal that hangs: %v", err)
	}
}

type hung struct {
	seal.Seal
	reached chan struct{}
}

func (h *hung) Unwrap(ctx context.Context, _, _ []byte) ([]byte, error) {
	close(h.reached)
	<-ctx.Done()
	return nil, ctx.Err()
}

// A load balancer that asks for the health of a node whose engine is away is
// answered at once.
func TestStatusWhileTheEngineIsAway(t *testing.T) {
	away := storagetest.NewAway(store(t))
	key := filepath.Join(t.TempDir(), "key")
	s := start(t, away, file(t, key))
	if _, err := s.Init(t.Context(), node.InitRequest{}); err != nil {
		t.Fatal(err)
	}
	before, err := s.Status(t.Context())
	if err != nil || before.Sealed || before.Remembered {
		t.Fatalf("%+v %v", before, err)
	}
	away.Set(true)
	before.Remembered = true
	if now, err := s.Status(t.Context()); err != nil || now != before {
		t.Errorf("%+v %v, want %+v", now, err, before)
	}
	fresh := start(t, away, file(t, key))
	if _, err := fresh.Status(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("a node that knows nothing says: %v", err)
	}
}

func TestANodeJoinsWhenAnotherInitializes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, key := store(t), filepath.Join(t.TempDir(), "key")
		first, second := start(t, e, file(t, key)), start(t, e, file(t, key))
		ctx, cancel := context.WithCancel(t.Context())
		joined := make(chan struct{})
		go func() { defer close(joined); second.Join(ctx) }()
		time.Sleep(10 * time.Second)
		if second.open.Load() {
			t.Fatal("an empty store was opened")
		}
		if _, err := first.Init(t.Context(), node.InitRequest{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		second.wantSealed(t, false)
		<-joined
		cancel()
		first.Close()
		second.Close()
	})
}

// An operator who seals a node that waits for its store, or has just initialized it,
// finds it sealed a moment later.
func TestWhatAnOperatorSealedStaysSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, store(t), file(t, filepath.Join(t.TempDir(), "key")))
		joined := make(chan struct{})
		go func() { defer close(joined); n.Join(t.Context()) }()
		time.Sleep(time.Millisecond)
		if _, err := n.Init(t.Context(), node.InitRequest{}); err != nil {
			t.Fatal(err)
		}
		if err := n.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		<-joined
		n.wantSealed(t, true)
		n.Close()
	})
}

// Two nodes asked to initialize one store: one of them does.
func TestTwoNodesInitialize(t *testing.T) {
	for range 50 {
		e, key := store(t), filepath.Join(t.TempDir(), "key")
		nodes := []*server{start(t, e, file(t, key)), start(t, e, file(t, key))}
		var made atomic.Int32
		var work sync.WaitGroup
		for _, n := range nodes {
			work.Go(func() {
				if _, err := n.Init(t.Context(), node.InitRequest{}); err == nil {
					made.Add(1)
				}
			})
		}
		work.Wait()
		if made.Load() > 1 {
			t.Fatal("both were told a root token")
		}
		for _, n := range nodes {
			n.Close()
		}
		if made.Load() == 0 {
			continue // each stood in the other's way; nobody was told anything
		}
		start(t, e, file(t, key)).wantOpens(t)
	}
}

func (s *server) wantOpens(t testing.TB) {
	t.Helper()
	must(t, s.AutoUnseal(t.Context()))
	s.wantSealed(t, false)
	s.Close()
}

func TestNodesShareAStore(t *testing.T) {
	ctx, e, path := t.Context(), store(t), filepath.Join(t.TempDir(), "key")
	a := start(t, e, file(t, path))
	_, err := a.Init(ctx, node.InitRequest{})
	must(t, err)
	b := start(t, e, file(t, path))
	must(t, b.AutoUnseal(ctx))
	must(t, a.RotateRoot(ctx))
	must(t, b.RotateRoot(ctx)) // although its root key is not the newest any more
	shares, err := a.GiveShares(ctx, 3, 2)
	must(t, err)
	must(t, generate(t, b, shares[1:]))
	a.put(t, "x", "1")
	b.wantRow(t, "x", "1")
	must(t, a.RotateKeys(ctx))
	must(t, b.Rewrap(ctx, func(string, int) {}))
	a.wantRow(t, "x", "1")
	c := start(t, e, file(t, path))
	must(t, c.AutoUnseal(ctx))
	c.wantRow(t, "x", "1")
}

func TestEverythingAtOnce(t *testing.T) {
	e, path := store(t), filepath.Join(t.TempDir(), "key")
	s := start(t, e, file(t, path))
	_, err := s.Init(t.Context(), node.InitRequest{RecoveryShares: 3, RecoveryThreshold: 2})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var work sync.WaitGroup
	for _, act := range []func(){
		func() { _ = s.Seal(context.Background()) },
		func() { _ = s.AutoUnseal(context.Background()) },
		func() { _, _ = s.Status(ctx) },
		func() { _ = s.RotateKeys(ctx) },
		func() { _ = s.Rewrap(ctx, func(string, int) {}) },
		func() { _ = s.RotateRoot(ctx) },
		func() { _, _ = s.RekeyInit(ctx, node.RekeyRequest{Shares: 3, Threshold: 2}) },
		func() { s.RekeyCancel() },
		func() { _, _ = s.KeyStatus(ctx) },
		func() { _ = s.Unseal(ctx, make([]byte, 33), false) },
	} {
		work.Go(func() {
			for ctx.Err() == nil {
				act()
				time.Sleep(time.Millisecond)
			}
		})
	}
	work.Wait()
	must(t, s.AutoUnseal(t.Context()))
	s.wantRow(t, "core/started", "yes")
}

// The record on the disk holds nothing that opens the store.
func TestTheRecordHoldsNoKeys(t *testing.T) {
	ctx, e := t.Context(), store(t)
	s := start(t, e, people())
	got, err := s.Init(ctx, node.InitRequest{Shares: 3, Threshold: 2})
	must(t, err)
	key, err := shamir.Combine(got.Shares)
	must(t, err)
	must(t, e.View(ctx, func(r storage.Reader) error {
		return storage.All(r, "", func(row storage.Entry) error {
			if strings.Contains(string(row.Value), string(key)) || strings.Contains(string(row.Value), base64.StdEncoding.EncodeToString(key)) {
				t.Errorf("the key shows in row %s", row.Key)
			}
			if row.Key == seal.RecordRow && !json.Valid(row.Value) {
				t.Errorf("the record is not JSON")
			}
			return nil
		})
	}))
}
