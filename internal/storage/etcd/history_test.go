package etcd

import (
	"context"
	"errors"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

var errEnough = errors.New("enough")

func put(t testing.TB, e storage.Engine, key, text string) storage.Revision {
	t.Helper()
	rev, err := e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put(key, []byte(text)) })
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// told sends what a watch is told until it ends. commits is closed then.
func told(e storage.Engine, from storage.Revision) (commits chan storage.Commit, ended chan error) {
	commits, ended = make(chan storage.Commit, 1000), make(chan error, 1)
	go func() {
		ended <- e.Watch(context.Background(), "", from, func(c storage.Commit) error {
			if len(c.Changes) > 0 {
				commits <- c
			}
			return nil
		})
		close(commits)
	}()
	return commits, ended
}

// TestCompaction: a watch that keeps up is told everything although etcd forgets
// what it was told; one that begins before what etcd has is told that history is gone.
func TestCompaction(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	o := on(c, c.Path())
	e := node(t, o)
	first := put(t, e, "k", "1")
	commits, ended := told(e, first)
	var last storage.Revision
	for i := range 50 {
		last = put(t, e, "k", fmt.Sprint(i))
		got, open := <-commits
		if !open {
			t.Fatalf("the watch ended before %d: %v", i, <-ended)
		}
		if string(got.Changes[0].Value) != fmt.Sprint(i) {
			t.Fatalf("told %s, want %d", got.Changes[0].Value, i)
		}
		if i%10 == 5 {
			if _, err := c.Client(t).Compact(context.Background(), int64(last), clientv3.WithCompactPhysical()); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := node(t, o)
	for from, want := range map[storage.Revision]error{first: storage.ErrHistoryGone, last - 1: storage.ErrHistoryGone} {
		if err := other.Watch(context.Background(), "", from, func(storage.Commit) error { return errEnough }); !errors.Is(err, want) {
			t.Errorf("a watch from %d: %v, want %v", from, err, want)
		}
	}
}

// TestMissed: a node that was cut off while etcd compacted what it had not been
// told ends its watches with ErrHistoryGone, and reads and tells the truth again.
func TestMissed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	path := c.Path()
	p := storagetest.NewProxy(t, c.Members()[0].Address())
	through := on(c, path)
	through.Endpoints = []string{"http://" + p.Addr()}
	cut, other := node(t, through), node(t, on(c, path))
	from := put(t, cut, "k", "old")
	commits, ended := told(cut, from)
	put(t, cut, "k", "told")
	<-commits        // it watches
	get(t, cut, "k") // so that it is remembered
	p.Cut()
	var last storage.Revision
	for i := range 10 {
		last = put(t, other, "k", fmt.Sprint("new", i))
	}
	if _, err := c.Client(t).Compact(context.Background(), int64(last), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	last = put(t, other, "k", "newest")
	p.Heal()
	if err := <-ended; !errors.Is(err, storage.ErrHistoryGone) {
		t.Errorf("the watch ended with %v", err)
	}
	_, err := cut.Update(context.Background(), func(tx storage.Txn) error {
		text, err := storagetest.Value(tx, "k")
		return errors.Join(err, tx.Put("saw", []byte(text)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, other, "saw"); got != "newest" {
		t.Errorf("an Update took effect after reading %q", got)
	}
	commits, ended = told(cut, last)
	put(t, other, "k", "later")
	for got := range commits {
		if string(got.Changes[0].Value) == "later" {
			return
		}
	}
	t.Errorf("the watch that was begun again ended with %v", <-ended)
}

// TestRemovedStore: when all keys are deleted under a node, it says so, and does
// not begin again as if nothing had been there.
func TestRemovedStore(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	path := c.Path()
	e := node(t, on(c, path))
	put(t, e, "k", "v")
	if _, err := c.Client(t).Delete(context.Background(), path, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	view := func() error {
		return e.View(context.Background(), func(r storage.Reader) error { _, err := storagetest.Value(r, "k"); return err })
	}
	if err := view(); !errors.Is(err, storage.ErrFailed) {
		t.Errorf("a read: %v", err)
	}
	_, err := e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("k", []byte("w")) })
	if !errors.Is(err, storage.ErrFailed) {
		t.Errorf("a write: %v", err)
	}
}

// TestReplacedStore: when another store takes the place of one under a node, its
// watches end, and it does not judge by what it knew.
func TestReplacedStore(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	o := on(c, c.Path())
	old := node(t, o)
	from := put(t, old, "k", "old")
	get(t, old, "k")
	commits, ended := told(old, from)
	put(t, old, "k", "told")
	<-commits // it watches
	if _, err := c.Client(t).Delete(context.Background(), o.Path, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	put(t, node(t, o), "k", "new")
	storagetest.Eventually(t, func() error {
		_, err := old.Update(context.Background(), func(tx storage.Txn) error {
			text, err := storagetest.Value(tx, "k")
			return errors.Join(err, tx.Put("saw", []byte(text)))
		})
		return err
	})
	if got := get(t, old, "saw"); got != "new" {
		t.Errorf("an Update took effect after reading %q", got)
	}
	if err := <-ended; !errors.Is(err, storage.ErrHistoryGone) {
		t.Errorf("the watch ended with %v", err)
	}
}

func get(t testing.TB, e storage.Engine, key string) (text string) {
	t.Helper()
	err := e.View(context.Background(), func(r storage.Reader) (err error) { text, err = storagetest.Value(r, key); return err })
	if err != nil {
		t.Fatal(err)
	}
	return text
}
