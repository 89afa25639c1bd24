package barrier_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

var quiet = slog.New(slog.DiscardHandler)

// opened returns an initialized, open barrier, the engine below and the root key.
func opened(t testing.TB) (*barrier.Barrier, storage.Engine, []byte) {
	t.Helper()
	e := memory.New()
	t.Cleanup(func() { e.Close() })
	root := newRoot(t)
	b := barrier.New(e, quiet)
	must(t, b.Initialize(t.Context(), root))
	must(t, b.Open(t.Context(), root))
	return b, e, root
}

// another opens a second barrier, as another node would, over the same engine.
func another(t testing.TB, e storage.Engine, root []byte) *barrier.Barrier {
	t.Helper()
	b := barrier.New(e, quiet)
	must(t, b.Open(t.Context(), root))
	return b
}

func newRoot(t testing.TB) []byte {
	t.Helper()
	root, err := barrier.NewRootKey()
	must(t, err)
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, e storage.Engine, key, value string) {
	t.Helper()
	_, err := e.Update(context.Background(), func(x storage.Txn) error { return x.Put(key, []byte(value)) })
	must(t, err)
}

func get(e storage.Engine, key string) (string, error) {
	var v []byte
	err := e.View(context.Background(), func(r storage.Reader) (err error) {
		v, err = r.Get(key)
		return err
	})
	return string(v), err
}

func wantValue(t testing.TB, e storage.Engine, key, want string) {
	t.Helper()
	if v, err := get(e, key); err != nil || v != want {
		t.Fatalf("%s = %q, %v; want %q", key, v, err, want)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

func createScope(t testing.TB, b *barrier.Barrier, scope string) {
	t.Helper()
	_, err := b.Update(context.Background(), func(x storage.Txn) error { return b.CreateKeys(x, scope) })
	must(t, err)
}

func TestValuesComeBackAndOnlyCiphertextIsStored(t *testing.T) {
	b, e, _ := opened(t)
	createScope(t, b, "mount/a")
	secret := "correct horse battery staple"
	for _, key := range []string{"x", "mount/a/x", "mount/a/deep/er", "z/y/x"} {
		put(t, b, key, secret)
		wantValue(t, b, key, secret)
	}
	put(t, b, "empty", "")
	wantValue(t, b, "empty", "")
	err := e.View(t.Context(), func(r storage.Reader) error {
		return storage.All(r, "", func(row storage.Entry) error {
			if bytes.Contains(row.Value, []byte("horse")) {
				t.Errorf("plaintext in row %q", row.Key)
			}
			return nil
		})
	})
	must(t, err)
}

func TestLifecycle(t *testing.T) {
	ctx := t.Context()
	e := memory.New()
	defer e.Close()
	b := barrier.New(e, quiet)
	root, foreign := newRoot(t), newRoot(t)

	if ok, err := b.Initialized(ctx); ok || err != nil {
		t.Fatalf("Initialized = %v, %v", ok, err)
	}
	wantError(t, b.Open(ctx, root), barrier.ErrNotInitialized)
	must(t, b.Initialize(ctx, root))
	if ok, err := b.Initialized(ctx); !ok || err != nil {
		t.Fatalf("Initialized = %v, %v", ok, err)
	}
	wantError(t, b.Initialize(ctx, foreign), barrier.ErrInitialized)
	wantError(t, b.Open(ctx, foreign), barrier.ErrWrongKey)
	if err := b.Open(ctx, []byte("no keyset")); err == nil || b.Opened() {
		t.Fatal("a malformed root key opened the barrier")
	}
	if _, err := get(b, "x"); !fault.Is(err, fault.Sealed) || err.Error() != "Coffer is sealed" {
		t.Fatalf("shut barrier: %v", err)
	}
	must(t, b.Open(ctx, root))
	put(t, b, "x", "1")
	must(t, b.Open(ctx, root)) // open already: nothing to do
	b.Shut()
	if b.Opened() {
		t.Fatal("open after Shut")
	}
	must(t, b.Open(ctx, root))
	wantValue(t, b, "x", "1")
}

func TestShutStopsEverythingUnderWay(t *testing.T) {
	b, _, _ := opened(t)
	put(t, b, "x", "1")
	watching := make(chan error)
	go func() {
		watching <- b.Watch(context.Background(), "", 0, func(storage.Commit) error { return nil })
	}()
	err := b.View(t.Context(), func(r storage.Reader) error {
		b.Shut()
		if _, err := r.Get("x"); !fault.Is(err, fault.Sealed) {
			t.Errorf("Get in a View over Shut: %v", err)
		}
		if _, err := r.Scan("", "", 10); !fault.Is(err, fault.Sealed) {
			t.Errorf("Scan in a View over Shut: %v", err)
		}
		_, err := r.List("", "", 10)
		return err
	})
	if !fault.Is(err, fault.Sealed) {
		t.Fatalf("List in a View over Shut: %v", err)
	}
	if err := <-watching; !fault.Is(err, fault.Sealed) {
		t.Fatalf("Watch over Shut: %v", err)
	}
	for name, call := range map[string]func() error{
		"Update":     func() error { _, err := b.Update(t.Context(), func(storage.Txn) error { return nil }); return err },
		"Watch":      func() error { return b.Watch(t.Context(), "", 0, nil) },
		"RotateKeys": func() error { _, err := b.RotateKeys(t.Context(), "core"); return err },
		"KeyStatus":  func() error { _, err := b.KeyStatus(t.Context(), "core"); return err },
		"Rewrap":     func() error { return b.Rewrap(t.Context(), "core", nil) },
		"DeleteRows": func() error { return b.DeleteRows(t.Context(), "mount/x", nil) },
		"Scopes":     func() error { _, err := b.Scopes(t.Context()); return err },
		"Follow":     func() error { return b.Follow(t.Context()) },
		"Begin":      func() error { _, err := b.BeginRootRotation(t.Context(), nil); return err },
		"Finish":     func() error { _, err := b.FinishRootRotation(t.Context(), nil); return err },
		"End":        func() error { return b.EndRootRotation(t.Context(), nil) },
	} {
		if err := call(); !fault.Is(err, fault.Sealed) {
			t.Errorf("%s of a shut barrier: %v", name, err)
		}
	}
	if f := b.Fingerprint("core", []byte("x")); f != "" {
		t.Errorf("fingerprint of a shut barrier: %q", f)
	}
}

// raw reads and writes the engine below as whoever holds the disk could.
func rawGet(t *testing.T, e storage.Engine, key string) []byte {
	t.Helper()
	v, err := get(e, key)
	must(t, err)
	return []byte(v)
}

func TestEveryChangedByteIsNoticed(t *testing.T) {
	b, e, _ := opened(t)
	put(t, b, "x", "value")
	sealed := rawGet(t, e, "x")
	for i := range sealed {
		for _, flip := range []byte{1, 0x80, 0xff} {
			bad := bytes.Clone(sealed)
			bad[i] ^= flip
			put(t, e, "x", string(bad))
			_, err := get(b, "x")
			wantError(t, err, barrier.ErrTampered)
		}
	}
	for n := range sealed {
		put(t, e, "x", string(sealed[:n]))
		_, err := get(b, "x")
		wantError(t, err, barrier.ErrTampered)
	}
	put(t, e, "x", string(sealed)+"0")
	_, err := get(b, "x")
	wantError(t, err, barrier.ErrTampered)
	put(t, e, "x", string(sealed))
	wantValue(t, b, "x", "value")
}

func TestNothingCanBeMovedOrSwapped(t *testing.T) {
	b, e, root := opened(t)
	createScope(t, b, "mount/a")
	createScope(t, b, "mount/b")
	for _, key := range []string{"x", "y", "mount/a/x", "mount/b/x"} {
		put(t, b, key, "value of "+key)
	}
	for _, move := range [][2]string{
		{"x", "y"}, {"y", "x"}, {"x", "mount/a/x"}, {"mount/a/x", "x"},
		{"mount/a/x", "mount/b/x"}, {"mount/a/x", "mount/a/y"}, {"x", "new"},
		{"barrier/root", "x"}, {"barrier/keys/core", "x"},
	} {
		was, wasErr := get(e, move[1])
		put(t, e, move[1], string(rawGet(t, e, move[0])))
		_, err := get(b, move[1])
		if err == nil {
			t.Errorf("%s moved to %s is read", move[0], move[1])
		}
		err = b.View(t.Context(), func(r storage.Reader) error {
			_, err := r.Scan("", "", 1000)
			return err
		})
		wantError(t, err, barrier.ErrTampered)
		if wasErr == nil {
			put(t, e, move[1], was)
			continue
		}
		_, err = e.Update(t.Context(), func(x storage.Txn) error { return x.Delete(move[1]) })
		must(t, err)
	}

	// Keysets are bound to their scope too: giving one mount's to another is
	// noticed by a node that has to read them.
	put(t, e, "barrier/keys/mount/b", string(rawGet(t, e, "barrier/keys/mount/a")))
	fresh := another(t, e, root)
	_, err := get(fresh, "mount/b/x")
	wantError(t, err, barrier.ErrTampered)
	_, err = fresh.Update(t.Context(), func(x storage.Txn) error { return x.Put("mount/b/x", nil) })
	wantError(t, err, barrier.ErrTampered)
	_, err = b.Update(t.Context(), func(x storage.Txn) error { return x.Put("mount/b/x", nil) })
	wantError(t, err, barrier.ErrTampered)
	put(t, e, "barrier/root", string(rawGet(t, e, "barrier/keys/core")))
	wantError(t, barrier.New(e, quiet).Open(t.Context(), root), barrier.ErrWrongKey)
}

func TestOwnRowsAreOutOfSight(t *testing.T) {
	b, e, _ := opened(t)
	put(t, e, "seal/config", "plain")
	for i := range 5 {
		put(t, b, fmt.Sprintf("a%d", i), "v")
		put(t, b, fmt.Sprintf("t%d", i), "v")
		createScope(t, b, fmt.Sprintf("mount/%d", i))
	}
	put(t, b, "barr", "v")
	want := []string{"a0", "a1", "a2", "a3", "a4", "barr", "t0", "t1", "t2", "t3", "t4"}
	for limit := 1; limit < 20; limit++ {
		err := b.View(t.Context(), func(r storage.Reader) error {
			var scanned, listed []string
			for after := ""; ; {
				page, err := r.Scan("", after, limit)
				if err != nil {
					return err
				}
				for _, row := range page {
					scanned = append(scanned, row.Key)
				}
				if len(page) < limit {
					break
				}
				after = page[len(page)-1].Key
			}
			for after := ""; ; {
				page, err := r.List("", after, limit)
				if err != nil {
					return err
				}
				listed = append(listed, page...)
				if len(page) < limit {
					break
				}
				after = page[len(page)-1]
			}
			if fmt.Sprint(scanned) != fmt.Sprint(want) || fmt.Sprint(listed) != fmt.Sprint(want) {
				t.Errorf("limit %d: scanned %v, listed %v", limit, scanned, listed)
			}
			for _, prefix := range []string{"b", "barrier/", "barrier/keys/", "s", "seal/"} {
				rows, err := r.Scan(prefix, "", 10)
				if err != nil || len(rows) > 1 || len(rows) == 1 && rows[0].Key != "barr" {
					t.Errorf("Scan(%q) = %v, %v", prefix, rows, err)
				}
			}
			_, err := r.Get("barrier/root")
			wantError(t, err, storage.ErrNotFound)
			return nil
		})
		must(t, err)
	}
	for _, key := range []string{"barrier/root", "seal/config"} {
		_, err := b.Update(t.Context(), func(x storage.Txn) error {
			x.Put(key, nil) // the error counts although it is ignored
			return nil
		})
		wantError(t, err, storage.ErrInvalidKey)
	}
	_, err := b.Update(t.Context(), func(x storage.Txn) error { return x.Delete("barrier/root") })
	wantError(t, err, storage.ErrInvalidKey)
}

func TestDestroyedKeysAreGoneForGood(t *testing.T) {
	b, e, root := opened(t)
	second := another(t, e, root)
	_, err := b.Update(t.Context(), func(x storage.Txn) error {
		if err := b.CreateKeys(x, "mount/a"); err != nil {
			return err
		}
		return x.Put("mount/a/x", []byte("in the same transaction"))
	})
	must(t, err)
	for i := range 100 {
		put(t, b, fmt.Sprintf("mount/a/row%d", i), "v")
	}
	wantValue(t, second, "mount/a/x", "in the same transaction")
	following := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { following <- second.Follow(ctx) }()

	_, err = b.Update(t.Context(), func(x storage.Txn) error { return b.CreateKeys(x, "mount/a") })
	wantError(t, err, barrier.ErrKeysExist)
	wantError(t, b.DeleteRows(t.Context(), "mount/a", nil), barrier.ErrKeysExist)
	_, err = b.Update(t.Context(), func(x storage.Txn) error { return b.DestroyKeys(x, "core") })
	if err == nil {
		t.Fatal("the core keys were destroyed")
	}
	_, err = b.Update(t.Context(), func(x storage.Txn) error {
		if err := b.DestroyKeys(x, "mount/a"); err != nil {
			return err
		}
		if _, err := x.Get("mount/a/x"); !errors.Is(err, barrier.ErrNoKeys) {
			t.Errorf("read after DestroyKeys: %v", err)
		}
		if err := x.Put("mount/a/x", nil); !errors.Is(err, barrier.ErrNoKeys) {
			t.Errorf("write after DestroyKeys: %v", err)
		}
		return nil
	})
	wantError(t, err, barrier.ErrNoKeys) // a failed Put fails the Update
	wantValue(t, b, "mount/a/x", "in the same transaction")
	_, err = b.Update(t.Context(), func(x storage.Txn) error { return b.DestroyKeys(x, "mount/a") })
	must(t, err)

	_, err = get(b, "mount/a/x")
	wantError(t, err, barrier.ErrNoKeys)
	eventually(t, "the other node forgets the keys", func() bool {
		_, err := get(second, "mount/a/x")
		return errors.Is(err, barrier.ErrNoKeys)
	})
	// New keys under the same name open nothing old.
	createScope(t, b, "mount/a")
	_, err = get(b, "mount/a/x")
	wantError(t, err, barrier.ErrTampered)
	_, err = b.Update(t.Context(), func(x storage.Txn) error { return b.DestroyKeys(x, "mount/a") })
	must(t, err)

	done := 0
	must(t, b.DeleteRows(t.Context(), "mount/a", func(n int) { done = n }))
	if done != 101 {
		t.Errorf("DeleteRows reported %d rows, want 101", done)
	}
	must(t, e.View(t.Context(), func(r storage.Reader) error {
		rows, err := r.Scan("mount/", "", 10)
		if len(rows) != 0 {
			t.Errorf("rows left: %v", rows)
		}
		return err
	}))
	cancel()
	must(t, <-following)
}

func TestFingerprints(t *testing.T) {
	b, e, root := opened(t)
	createScope(t, b, "mount/a")
	f := b.Fingerprint("core", []byte("value"))
	if len(f) != 64 || strings.Trim(f, "0123456789abcdef") != "" {
		t.Fatalf("fingerprint %q", f)
	}
	if f == b.Fingerprint("mount/a", []byte("value")) || f == b.Fingerprint("core", []byte("other")) {
		t.Fatal("fingerprints of different things are equal")
	}
	_, err := b.RotateKeys(t.Context(), "core")
	must(t, err)
	must(t, b.Rewrap(t.Context(), "core", nil))
	if b.Fingerprint("core", []byte("value")) != f || another(t, e, root).Fingerprint("core", []byte("value")) != f {
		t.Fatal("a rotation or another node changed the fingerprint")
	}
	if b.Fingerprint("mount/none", nil) != "" {
		t.Fatal("fingerprint in a scope without keys")
	}
}

func TestWatchDecrypts(t *testing.T) {
	b, _, _ := opened(t)
	createScope(t, b, "mount/a")
	put(t, b, "x", "1")
	put(t, b, "mount/a/x", "2")
	_, err := b.Update(t.Context(), func(x storage.Txn) error { return x.Delete("x") })
	must(t, err)
	_, err = b.Update(t.Context(), func(x storage.Txn) error { return b.DestroyKeys(x, "mount/a") })
	must(t, err)
	stop := errors.New("stop")
	var seen []string
	err = b.Watch(t.Context(), "", 0, func(c storage.Commit) error {
		for _, ch := range c.Changes {
			seen = append(seen, fmt.Sprintf("%s=%s,%v", ch.Key, ch.Value, ch.Deleted))
		}
		if len(seen) == 3 {
			return stop
		}
		return nil
	})
	wantError(t, err, stop)
	if got, want := fmt.Sprint(seen), "[x=1,false mount/a/x=,true x=,true]"; got != want {
		t.Fatalf("watched %s, want %s", got, want)
	}
}
