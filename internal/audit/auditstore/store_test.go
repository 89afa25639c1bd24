package auditstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/audit/auditstore"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const origin = "coffer-test/audit"

// faulty is a storage engine whose updates can be made to fail or to wait.
type faulty struct {
	storage.Engine
	refuse  atomic.Bool
	slow    atomic.Bool
	updates atomic.Int32
}

var errRefused = errors.New("the disk is gone")

func (f *faulty) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	f.updates.Add(1)
	if f.slow.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	if f.refuse.Load() {
		return 0, errRefused
	}
	return f.Engine.Update(ctx, fn)
}

// server is a log and its store, as a process has them.
type server struct {
	*auditstore.Store
	log  *audit.Log
	stop func()
}

// start opens both and stores checkpoints, as an unsealed server does.
func start(t testing.TB, dir, origin string, rows storage.Engine, acceptLoss uint64) (*server, error) {
	t.Helper()
	return startNode(t, "here", dir, origin, rows, acceptLoss)
}

func startNode(t testing.TB, node, dir, origin string, rows storage.Engine, acceptLoss uint64) (*server, error) {
	t.Helper()
	s := &server{}
	var kept atomic.Pointer[auditstore.Store]
	log, err := audit.Open(dir, audit.Options{
		Origin: origin, CheckpointEvery: 10 * time.Millisecond, Reserve: -1,
		OnCheckpoint: func(c audit.Checkpoint) {
			if k := kept.Load(); k != nil {
				k.Keep(c)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.log = log
	if s.Store, err = auditstore.Open(t.Context(), rows, auditstore.Own{Log: log, Node: node, Origin: origin, AcceptLoss: acceptLoss}, slog.New(slog.DiscardHandler)); err != nil {
		_ = log.Close()
		return nil, err
	}
	kept.Store(s.Store)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx)
	}()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-ended
		s.Close()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(s.stop)
	return s, nil
}

func mustStart(t testing.TB, dir string, rows storage.Engine) *server {
	t.Helper()
	s, err := start(t, dir, origin, rows, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) append(t testing.TB, n int) {
	t.Helper()
	for range n {
		if err := s.log.Append(t.Context(), &audit.Entry{Type: audit.Event, Event: "started"}); err != nil {
			t.Fatal(err)
		}
	}
}

// stored returns the checkpoint in storage; Size 0 for none.
func stored(t testing.TB, rows storage.Engine) (c audit.Checkpoint) {
	t.Helper()
	err := rows.View(t.Context(), func(r storage.Reader) error {
		text, err := r.Get("checkpoint/here")
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err == nil {
			c, err = audit.ParseCheckpoint(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func verify(t testing.TB, dir, key string) {
	t.Helper()
	report, err := audit.Verify(dir, audit.VerifyOptions{PublicKeys: []string{key}})
	if err != nil || !report.Intact() {
		t.Errorf("%v: %+v", err, report)
	}
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func TestTheSigningKeyIsMadeOnce(t *testing.T) {
	dir, rows := t.TempDir(), memory.New()
	s := mustStart(t, dir, rows)
	key := s.PublicKey()
	if !strings.HasPrefix(key, origin+"+") {
		t.Fatalf("public key %q", key)
	}
	s.append(t, 3)
	s.stop()
	s = mustStart(t, dir, rows)
	if s.PublicKey() != key {
		t.Error("another start, another key")
	}
	s.append(t, 1)
	s.stop()
	verify(t, dir, key)
	other := mustStart(t, t.TempDir(), memory.New())
	if other.PublicKey() == key {
		t.Error("two servers have one key")
	}
}

func TestTheNewestCheckpointIsStored(t *testing.T) {
	dir, rows := t.TempDir(), memory.New()
	s := mustStart(t, dir, rows)
	s.append(t, 5)
	eventually(t, "no checkpoint of 5 entries is stored while the server runs", func() bool { return stored(t, rows).Size >= 5 })
	s.append(t, 2)
	s.stop()
	if got, last := stored(t, rows), uint64(7); got.Size != last {
		t.Errorf("after sealing the stored checkpoint has %d entries, want %d", got.Size, last)
	}
	mustStart(t, dir, rows)
}

// A server that dies soon after every start signs its log all the same.
func TestWhatACrashLeftUnsignedIsSignedAtOnce(t *testing.T) {
	log, err := audit.Open(t.TempDir(), audit.Options{Origin: origin, CheckpointEvery: time.Hour, Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Append(t.Context(), &audit.Entry{Type: audit.Event, Event: "started"}); err != nil {
		t.Fatal(err)
	}
	rows := memory.New()
	s, err := auditstore.Open(t.Context(), rows, auditstore.Own{Log: log, Node: "here", Origin: origin}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if signed, kept := log.LastCheckpoint().Size, stored(t, rows).Size; signed != 1 || kept != 1 {
		t.Errorf("of 1 entry %d are signed and %d are covered by the stored checkpoint", signed, kept)
	}
}

func TestALogThatLostEntriesIsRefused(t *testing.T) {
	older, foreign := t.TempDir(), t.TempDir()
	for name, harm := range map[string]struct {
		origin string
		do     func(t *testing.T, dir string)
		says   string
	}{
		"older copy": {origin, func(t *testing.T, dir string) { copyDir(t, older, dir) }, "entries 4–9 are missing"},
		"cut with its checkpoints": {origin, func(t *testing.T, dir string) {
			copyDir(t, older, dir)
			if err := os.Remove(filepath.Join(dir, "checkpoints")); err != nil {
				t.Fatal(err)
			}
		}, "entries 4–9 are missing"},
		"emptied":       {origin, func(t *testing.T, dir string) { copyDir(t, t.TempDir(), dir) }, "are missing"},
		"other entries": {origin, func(t *testing.T, dir string) { copyDir(t, foreign, dir) }, "not those that were signed"},
		"another log":   {"coffer-other/audit", func(t *testing.T, dir string) { copyDir(t, t.TempDir(), dir) }, "the checkpoint is of \"" + origin + "\""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, rows := t.TempDir(), memory.New()
			s := mustStart(t, dir, rows)
			s.append(t, 3)
			s.stop()
			copyDir(t, dir, older)
			fresh := mustStart(t, t.TempDir(), memory.New())
			fresh.append(t, 12)
			fresh.stop()
			copyDir(t, fresh.log.Dir(), foreign)

			s = mustStart(t, dir, rows)
			s.append(t, 6)
			s.stop()
			whole := stored(t, rows)
			if whole.Size != 9 {
				t.Fatalf("stored %d", whole.Size)
			}
			harm.do(t, dir)
			for _, accepted := range []uint64{0, 1, whole.Size - 1, whole.Size + 1} {
				_, err := start(t, dir, harm.origin, rows, accepted)
				if err == nil || !strings.Contains(err.Error(), harm.says) || !strings.Contains(err.Error(), "accept_loss = 9") {
					t.Fatalf("accept_loss %d: %v", accepted, err)
				}
			}
			if stored(t, rows).Root != whole.Root {
				t.Fatal("a refused start changed the stored checkpoint")
			}
			s, err := start(t, dir, harm.origin, rows, whole.Size)
			if err != nil {
				t.Fatal(err)
			}
			after := stored(t, rows)
			if after.Root == whole.Root || after.Origin != harm.origin {
				t.Error("the loss is accepted and the old checkpoint still stands")
			}
			key := s.PublicKey()
			s.stop()
			noted := false
			for e, err := range audit.Read(t.Context(), dir, audit.ReadOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
				noted = noted || e.Event == "loss-accepted" && strings.Contains(e.Error, "checkpoint of 9 entries")
			}
			if !noted {
				t.Error("the log does not say that a loss was accepted")
			}
			if name != "other entries" { // whose own checkpoints another key signed
				verify(t, dir, key)
			}
			if _, err := start(t, dir, harm.origin, rows, 0); err != nil {
				t.Errorf("the next start without accept_loss: %v", err)
			}
		})
	}
}

func TestALossIsAcceptedOnce(t *testing.T) {
	dir, rows, older := t.TempDir(), memory.New(), t.TempDir()
	s := mustStart(t, dir, rows)
	s.append(t, 2)
	s.stop()
	copyDir(t, dir, older)
	s = mustStart(t, dir, rows)
	s.append(t, 3)
	s.stop()
	copyDir(t, older, dir)
	s, err := start(t, dir, origin, rows, 5)
	if err != nil {
		t.Fatal(err)
	}
	s.append(t, 3)
	s.stop()
	if n := stored(t, rows).Size; n != 6 {
		t.Fatalf("stored %d", n)
	}
	copyDir(t, older, dir)
	if _, err := start(t, dir, origin, rows, 5); err == nil {
		t.Error("accept_loss of an earlier loss covers a later one")
	}
}

func TestAForgedCheckpointInStorageIsRefused(t *testing.T) {
	dir, rows := t.TempDir(), memory.New()
	s := mustStart(t, dir, rows)
	s.append(t, 3)
	s.stop()
	if _, err := rows.Update(t.Context(), func(x storage.Txn) error {
		note, err := x.Get("checkpoint/here")
		if err != nil {
			return err
		}
		return x.Put("checkpoint/here", []byte(strings.Replace(string(note), "\n3\n", "\n1\n", 1)))
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := start(t, dir, origin, rows, 1); err == nil || !strings.Contains(err.Error(), "stored checkpoint") {
		t.Errorf("%v", err)
	}
}

func TestACheckpointThatCannotBeStoredSlowsNothingDown(t *testing.T) {
	dir, rows := t.TempDir(), &faulty{Engine: memory.New()}
	s := mustStart(t, dir, rows)
	rows.slow.Store(true)
	begun := time.Now()
	for range 20 {
		s.append(t, 5)
		time.Sleep(12 * time.Millisecond) // more than one checkpoint
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("appending took %v while the storage hung", took)
	}
	if stored(t, rows).Size != 0 {
		t.Error("something was stored")
	}
	rows.slow.Store(false)
}

func TestACheckpointIsStoredOnceStorageWorksAgain(t *testing.T) {
	dir, rows := t.TempDir(), &faulty{Engine: memory.New()}
	s := mustStart(t, dir, rows)
	rows.refuse.Store(true)
	s.append(t, 4)
	before := rows.updates.Load()
	eventually(t, "nobody tried to store the checkpoint", func() bool { return rows.updates.Load() > before })
	rows.refuse.Store(false)
	eventually(t, "the checkpoint is not stored although storage works", func() bool { return stored(t, rows).Size >= 4 })
}

func TestDevicesAreKept(t *testing.T) {
	dir, rows, files := t.TempDir(), memory.New(), t.TempDir()
	s := mustStart(t, dir, rows)
	device := func(name string) auditstore.Device {
		return auditstore.Device{
			Path: name + "/", Type: "file", Description: "for " + name, Local: true,
			Options: map[string]string{"file_path": filepath.Join(files, name)},
		}
	}
	for _, name := range []string{"file", "second"} {
		if err := s.Enable(t.Context(), device(name)); err != nil {
			t.Fatal(err)
		}
	}
	hash, err := s.Hash(t.Context(), "file/", "an accessor")
	if err != nil || !strings.HasPrefix(hash, "hmac-sha256:") {
		t.Fatalf("%q %v", hash, err)
	}
	if err := s.Disable(t.Context(), "second/"); err != nil {
		t.Fatal(err)
	}
	if err := s.Disable(t.Context(), "second/"); err != nil {
		t.Errorf("disabled twice: %v", err)
	}
	s.stop()
	s = mustStart(t, dir, rows)
	all, err := s.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Path != "file/" || all[0].Description != "for file" || !all[0].Local {
		t.Fatalf("%+v %v", all, err)
	}
	if again, _ := s.Hash(t.Context(), "file/", "an accessor"); again != hash {
		t.Error("a restart changed the hashes")
	}
	if _, err := s.Hash(t.Context(), "second/", "x"); !fault.Is(err, fault.Invalid) {
		t.Errorf("hash of a disabled device: %v", err)
	}
	size := func(name string) int64 {
		info, err := os.Stat(filepath.Join(files, name))
		if err != nil {
			return -1
		}
		return info.Size()
	}
	before, second := size("file"), size("second")
	if err := s.log.Append(t.Context(), &audit.Entry{Type: audit.Outcome, Request: audit.Request{ID: "r1", Operation: "read", Path: "secret/data/x"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device gets nothing after a restart", func() bool { return size("file") > before })
	if size("second") != second {
		t.Error("a disabled device still gets entries")
	}
}

// Nodes share the devices and the key, and each has a log of its own.
func TestTwoNodes(t *testing.T) {
	rows, files, dirs := memory.New(), t.TempDir(), []string{t.TempDir(), t.TempDir()}
	nodes := make([]*server, 2)
	run := func(i int) {
		var err error
		if nodes[i], err = startNode(t, fmt.Sprint("node-", i), dirs[i], fmt.Sprintf("log-%d/audit", i), rows, 0); err != nil {
			t.Fatal(err)
		}
	}
	run(0)
	run(1)
	device := auditstore.Device{Path: "file/", Type: "file", Options: map[string]string{"file_path": filepath.Join(files, "both")}}
	if err := nodes[0].Enable(t.Context(), device); err != nil {
		t.Fatal(err)
	}
	there := func(i int, want bool) {
		t.Helper()
		if err := nodes[i].Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := nodes[i].Hash(t.Context(), "file/", "x"); (err == nil) != want {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	there(1, true)
	if err := nodes[1].Enable(t.Context(), device); !fault.Is(err, fault.Invalid) {
		t.Errorf("enabled twice: %v", err)
	}
	if err := nodes[1].Disable(t.Context(), "file/"); err != nil {
		t.Fatal(err)
	}
	there(0, false)

	nodes[0].append(t, 5)
	nodes[1].append(t, 9)
	nodes[0].stop()
	nodes[1].stop()
	run(0)
	run(1)
	nodes[1].stop()
	_, err := startNode(t, "node-1", t.TempDir(), "log-2/audit", rows, 0)
	if !errors.Is(err, audit.ErrForeign) {
		t.Errorf("a node came back without its log: %v", err)
	}
}

func TestDevicesThatCannotBeEnabled(t *testing.T) {
	files := t.TempDir()
	rows := &faulty{Engine: memory.New()}
	s := mustStart(t, t.TempDir(), rows)
	good := func(name string) auditstore.Device {
		return auditstore.Device{Path: name + "/", Type: "file", Options: map[string]string{"file_path": filepath.Join(files, name)}}
	}
	if err := s.Enable(t.Context(), good("taken")); err != nil {
		t.Fatal(err)
	}
	syslog, raw, lost := good("a"), good("b"), good("c")
	syslog.Type = "syslog"
	raw.Options["log_raw"] = "true"
	lost.Options["file_path"] = filepath.Join(files, "no", "such", "dir")
	for name, d := range map[string]auditstore.Device{"taken": good("taken"), "kind": syslog, "raw": raw, "no directory": lost} {
		if err := s.Enable(t.Context(), d); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	rows.refuse.Store(true)
	if err := s.Enable(t.Context(), good("unstored")); !errors.Is(err, errRefused) {
		t.Errorf("%v", err)
	}
	if _, err := s.Hash(t.Context(), "unstored/", "x"); err == nil {
		t.Error("a device that could not be stored goes on")
	}
	if err := s.Disable(t.Context(), "taken/"); !errors.Is(err, errRefused) {
		t.Errorf("%v", err)
	}
	if _, err := s.Hash(t.Context(), "taken/", "x"); err != nil {
		t.Error("a device that could not be removed is stopped")
	}
	rows.refuse.Store(false)
	for i := range auditstore.MaxDevices - 1 {
		if err := s.Enable(t.Context(), good("n"+string(rune('a'+i)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Enable(t.Context(), good("toomany")); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestADeviceWhoseFileIsGoneKeepsNothingSealed(t *testing.T) {
	dir, rows, files := t.TempDir(), memory.New(), filepath.Join(t.TempDir(), "sub")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, dir, rows)
	d := auditstore.Device{Path: "file/", Type: "file", Options: map[string]string{"file_path": filepath.Join(files, "log")}}
	if err := s.Enable(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if err := os.RemoveAll(files); err != nil {
		t.Fatal(err)
	}
	s = mustStart(t, dir, rows)
	if all, _ := s.List(t.Context()); len(all) != 1 {
		t.Error("the device is forgotten")
	}
	if err := s.Disable(t.Context(), "file/"); err != nil {
		t.Error(err)
	}
}

func TestConcurrentChangesOfDevices(t *testing.T) {
	files, rows := t.TempDir(), memory.New()
	s := mustStart(t, t.TempDir(), rows)
	done := make(chan error, 8)
	for range 8 {
		go func() {
			for range 20 {
				err := s.Enable(t.Context(), auditstore.Device{Path: "file/", Type: "file", Options: map[string]string{"file_path": filepath.Join(files, "f")}})
				if err != nil && !fault.Is(err, fault.Invalid) {
					done <- err
					return
				}
				if err := s.Disable(t.Context(), "file/"); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	all, err := s.List(t.Context())
	_, hashErr := s.Hash(t.Context(), "file/", "x")
	if err != nil || (len(all) == 1) != (hashErr == nil) {
		t.Errorf("%d devices are kept, and running says %v", len(all), hashErr)
	}
}
