package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/keyfile"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/storage/pebble"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := postgrestest.Clean(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}))
}

// soak multiplies what long tests do.
func soak() int {
	if os.Getenv("COFFER_SOAK") != "" {
		return 50
	}
	return 1
}

// store is an open store.
type store struct {
	engine  storage.Engine
	barrier *barrier.Barrier
	root    []byte
	seals   []seal.Named
}

var engines = map[string]func(testing.TB) storage.Engine{
	"memory": func(t testing.TB) storage.Engine {
		e := memory.New()
		t.Cleanup(func() { _ = e.Close() })
		return e
	},
	"pebble": func(t testing.TB) storage.Engine { return openPebble(t, filepath.Join(t.TempDir(), "store")) },
}

func openPebble(t testing.TB, dir string) storage.Engine {
	t.Helper()
	e, err := pebble.Open(context.Background(), pebble.Options{Path: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// keyFile is a seal of a new key file.
func keyFile(t testing.TB) seal.Named {
	t.Helper()
	s, err := keyfile.Open(filepath.Join(t.TempDir(), "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	return seal.Named{Name: "keyfile", Kind: "keyfile", Seal: s}
}

// newStore initializes a store, sealed by a key file, and opens it.
func newStore(t testing.TB, e storage.Engine, seals ...seal.Named) *store {
	t.Helper()
	if len(seals) == 0 {
		seals = []seal.Named{keyFile(t)}
	}
	root, err := barrier.NewRootKey()
	must(t, err)
	rec := seal.NewRecord()
	for _, s := range seals {
		must(t, rec.Add(t.Context(), s, root))
	}
	_, err = e.Update(t.Context(), func(txn storage.Txn) error {
		if err := barrier.InitializeIn(txn, root); err != nil {
			return err
		}
		return rec.Put(txn)
	})
	must(t, err)
	s := &store{engine: e, barrier: barrier.New(e, slog.New(slog.DiscardHandler)), root: root, seals: seals}
	must(t, s.barrier.Open(t.Context(), root))
	t.Cleanup(s.barrier.Shut)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill writes n rows with values of up to size bytes, in the core and in mounts,
// and returns what was written.
func (s *store) fill(t testing.TB, n, size int) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, mount := range []string{"mount/a", "mount/b"} {
		_, err := s.barrier.Update(t.Context(), func(txn storage.Txn) error {
			if err := s.barrier.CreateKeys(txn, mount); err != nil {
				return err
			}
			return txn.Put(mount+"/first", []byte(mount))
		})
		must(t, err)
		all[mount+"/first"] = mount
	}
	value := make([]byte, size)
	for done := 0; done < n; {
		_, err := s.barrier.Update(t.Context(), func(txn storage.Txn) error {
			room := storage.MaxUpdateBytes
			for i := 0; i < 90 && done < n; i++ {
				key := fmt.Sprintf("%s/row/%06d-%x", []string{"core", "mount/a", "mount/b"}[rand.N(3)], done, rand.Uint32())
				v := value[:rand.N(size+1)]
				for j := range v {
					v[j] = byte(rand.Uint32())
				}
				if room -= len(v) + len(key) + barrier.Overhead; room < 0 {
					return nil
				}
				if err := txn.Put(key, v); err != nil {
					return err
				}
				all[key] = string(v)
				done++
			}
			return nil
		})
		must(t, err)
	}
	return all
}

// plain reads everything that the barrier shows.
func plain(t testing.TB, b *barrier.Barrier) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, b.View(t.Context(), func(r storage.Reader) error {
		return storage.All(r, "", func(e storage.Entry) error {
			all[e.Key] = string(e.Value)
			return nil
		})
	}))
	return all
}

// rows reads everything as it lies in an engine.
func rows(t testing.TB, e storage.Engine) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, e.View(t.Context(), func(r storage.Reader) error {
		return storage.All(r, "", func(e storage.Entry) error {
			all[e.Key] = string(e.Value)
			return nil
		})
	}))
	return all
}

func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s: row %q is there: %v, as it was: %v", what, k, ok, g == v)
			return
		}
	}
}

var from = backup.Source{Coffer: "test", Engine: "memory"}

// archive makes an archive of the store.
func (s *store) archive(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	sum, err := backup.Write(t.Context(), s.barrier, from, &out, nil)
	must(t, err)
	if sum.Bytes != uint64(out.Len()) {
		t.Errorf("the archive has %d bytes, and says %d", out.Len(), sum.Bytes)
	}
	return out.Bytes()
}

// restore verifies an archive and restores it into e.
func (s *store) restore(t testing.TB, archive []byte, e storage.Engine, o backup.Restore) *backup.Proof {
	t.Helper()
	p, err := backup.Verify(t.Context(), bytes.NewReader(archive), backup.Seals(s.seals), nil)
	must(t, err)
	must(t, p.Into(t.Context(), e, bytes.NewReader(archive), o))
	return p
}

// reopened opens the barrier over a restored engine, as a server does.
func (s *store) reopened(t testing.TB, e storage.Engine) *barrier.Barrier {
	t.Helper()
	must(t, backup.Whole(t.Context(), e))
	var rec *seal.Record
	must(t, e.View(t.Context(), func(r storage.Reader) (err error) {
		rec, err = seal.Load(r)
		return err
	}))
	root, _, err := rec.Unwrap(t.Context(), s.seals)
	must(t, err)
	b := barrier.New(e, slog.New(slog.DiscardHandler))
	must(t, b.Open(t.Context(), root))
	t.Cleanup(b.Shut)
	return b
}

func put(key, value string) func(storage.Txn) error {
	return func(txn storage.Txn) error { return txn.Put(key, []byte(value)) }
}

func is(err, want error) bool { return errors.Is(err, want) }
