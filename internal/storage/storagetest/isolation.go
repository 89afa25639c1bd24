package storagetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cofferhq/coffer/internal/storage"
)

func testOwnWrites(t *testing.T, o Options) {
	e := open(t, o)
	put(t, e, "a", "1", "b", "1", "d/x", "1")
	_, err := e.Update(context.Background(), func(tx storage.Txn) error {
		steps := []error{tx.Put("a", []byte("2")), tx.Put("c", []byte("2")), tx.Delete("b"), tx.Delete("d/x"), tx.Put("e/y", nil)}
		if err := errors.Join(steps...); err != nil {
			return err
		}
		if v, err := tx.Get("a"); err != nil || string(v) != "2" {
			t.Errorf("own put: %q, %v", v, err)
		}
		if _, err := tx.Get("b"); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("own delete: %v", err)
		}
		entries, err := tx.Scan("", "", 10)
		want := []storage.Entry{{Key: "a", Value: []byte("2")}, {Key: "c", Value: []byte("2")}, {Key: "e/y", Value: []byte{}}}
		if diff := cmp.Diff(want, entries); err != nil || diff != "" {
			t.Errorf("own writes in Scan: %v %v", diff, err)
		}
		names, err := tx.List("", "", 10)
		if diff := cmp.Diff([]string{"a", "c", "e/"}, names); err != nil || diff != "" {
			t.Errorf("own writes in List: %v %v", diff, err)
		}
		return tx.Put("b", []byte("3"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := get(t, e, "b"); got != "3" {
		t.Errorf("deleted and put again: %q", got)
	}
}

func testErrorsWriteNothing(t *testing.T, o Options) {
	e := open(t, o)
	before := put(t, e, "a", "1")
	mine := errors.New("mine")
	rev, err := e.Update(context.Background(), func(tx storage.Txn) error {
		if err := errors.Join(tx.Put("a", []byte("2")), tx.Put("b", nil)); err != nil {
			return err
		}
		return mine
	})
	if err != mine || rev != 0 {
		t.Errorf("the function's error came back as %v, revision %d", err, rev)
	}
	if err := e.View(context.Background(), func(storage.Reader) error { return mine }); err != mine {
		t.Errorf("the function's error came back as %v", err)
	}
	if got, _ := get(t, e, "a"); got != "1" || count(t, e, "") != 1 {
		t.Errorf("a failed Update wrote: %q", got)
	}
	if after := put(t, e, "a", "2"); after <= before {
		t.Errorf("revision %d after %d", after, before)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = e.Update(context.Background(), func(tx storage.Txn) error { _ = tx.Put("a", nil); panic("in fn") })
	}()
	if got, _ := get(t, e, "a"); got != "2" {
		t.Errorf("an Update that panicked wrote %q", got)
	}
	put(t, e, "a", "3") // and it holds no lock
}

func testSnapshot(t *testing.T, o Options) {
	e := open(t, o)
	put(t, e, "a", "1", "b", "1", "gone", "1")
	view(t, e, func(r storage.Reader) {
		if v, _, err := read(r, "a"); err != nil || v != "1" {
			t.Fatalf("%q, %v", v, err)
		}
		rev := r.Revision()
		put(t, e, "a", "2", "b", "2", "new", "2")
		remove(t, e, "gone")
		if v, _, err := read(r, "b"); err != nil || v != "1" {
			t.Errorf("a View saw a later commit: %q, %v", v, err)
		}
		entries, err := r.Scan("", "", 10)
		want := []storage.Entry{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("1")}, {Key: "gone", Value: []byte("1")}}
		if diff := cmp.Diff(want, entries); err != nil || diff != "" {
			t.Errorf("a View saw a later commit: %v %v", diff, err)
		}
		names, err := r.List("", "", 10)
		if diff := cmp.Diff([]string{"a", "b", "gone"}, names); err != nil || diff != "" {
			t.Errorf("a View saw a later commit: %v %v", diff, err)
		}
		if r.Revision() != rev {
			t.Errorf("the revision of a View went from %d to %d", rev, r.Revision())
		}
	})
	testNoTornView(t, e)
}

// testNoTornView: two keys that every Update sets together are never seen apart.
func testNoTornView(t *testing.T, e storage.Engine) {
	put(t, e, "x", "0", "y", "0")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
				put(t, e, "x", strconv.Itoa(i), "y", strconv.Itoa(i))
			}
		}
	})
	for range 300 {
		view(t, e, func(r storage.Reader) {
			x, _, err1 := read(r, "x")
			y, _, err2 := read(r, "y")
			if err1 != nil || err2 != nil || x != y {
				t.Errorf("x %q, y %q, %v %v", x, y, err1, err2)
			}
		})
	}
	close(stop)
	wg.Wait()
}

func testLostUpdate(t *testing.T, o Options) {
	e := open(t, o)
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				_, err := e.Update(context.Background(), func(tx storage.Txn) error { return add(tx, "n", 1) })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got, _ := get(t, e, "n"); got != strconv.Itoa(workers*each) {
		t.Errorf("%d increments made %s", workers*each, got)
	}
}

func add(tx storage.Txn, key string, n int) error {
	v, _, err := read(tx, key)
	if err != nil {
		return err
	}
	old, _ := strconv.Atoi(v) // "" is 0
	return tx.Put(key, []byte(strconv.Itoa(old+n)))
}

// testWriteSkew: two Updates that each read what the other writes, by key and
// by range, behave as if one came after the other.
func testWriteSkew(t *testing.T, o Options) {
	e := open(t, o)
	for round := range 30 {
		prefix := fmt.Sprintf("ward/%d/", round)
		put(t, e, prefix+"alice", "on call", prefix+"bob", "on call")
		var wg sync.WaitGroup
		for _, who := range []string{"alice", "bob"} {
			wg.Go(func() {
				_, err := e.Update(context.Background(), func(tx storage.Txn) error {
					there, err := tx.Scan(prefix, "", 10)
					if err != nil || len(there) < 2 {
						return err // somebody must stay
					}
					return tx.Delete(prefix + who)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := count(t, e, prefix); n != 1 {
			t.Fatalf("%d are left, want 1", n)
		}
	}
}

func testRevisions(t *testing.T, o Options) {
	e := open(t, o)
	var last storage.Revision
	for i := range 20 {
		rev := put(t, e, "k", strconv.Itoa(i))
		if rev <= last {
			t.Fatalf("revision %d after %d", rev, last)
		}
		last = rev
		view(t, e, func(r storage.Reader) {
			if r.Revision() != rev {
				t.Errorf("View has revision %d after commit %d", r.Revision(), rev)
			}
		})
		got, err := e.Update(context.Background(), func(tx storage.Txn) error {
			if tx.Revision() != rev {
				t.Errorf("Update has revision %d after commit %d", tx.Revision(), rev)
			}
			_, err := tx.Get("k")
			return err
		})
		if err != nil || got != rev {
			t.Errorf("an Update that wrote nothing returned %d, %v, want %d", got, err, rev)
		}
	}
}

// testReaderOutside: a reader that outlives its function gives nothing.
func testReaderOutside(t *testing.T, o Options) {
	e := open(t, o)
	put(t, e, "k", "v")
	var r storage.Reader
	view(t, e, func(inside storage.Reader) { r = inside })
	if v, err := r.Get("k"); err == nil {
		t.Errorf("a reader outside its View gave %q", v)
	}
	var tx storage.Txn
	_, err := e.Update(context.Background(), func(inside storage.Txn) error { tx = inside; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Put("late", nil); err == nil {
		t.Error("a transaction outside its Update took a write")
	}
	if _, err := tx.Scan("", "", 1); err == nil {
		t.Error("a transaction outside its Update gave rows")
	}
}
