package storagetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

func testCancel(t *testing.T, o Options) {
	e := open(t, o)
	put(t, e, "k", "1")
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.View(gone, func(storage.Reader) error { t.Error("View ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("View with a cancelled context: %v", err)
	}
	_, err := e.Update(gone, func(storage.Txn) error { t.Error("Update ran"); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Update with a cancelled context: %v", err)
	}

	during, cancel := context.WithCancel(context.Background())
	_, err = e.Update(during, func(tx storage.Txn) error {
		err := tx.Put("k", []byte("2"))
		cancel()
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Update cancelled while it ran: %v", err)
	}
	if got, _ := get(t, e, "k"); got != "1" {
		t.Errorf("a cancelled Update wrote %q", got)
	}
}

// testClose: Close ends what is under way, and later calls say that the engine
// is closed.
func testClose(t *testing.T, o Options) {
	e := open(t, o)
	from := put(t, e, "k", "1")
	watching := make(chan error, 1)
	started := make(chan struct{})
	var once sync.Once
	go func() {
		watching <- e.Watch(context.Background(), "", from, func(storage.Commit) error {
			once.Do(func() { close(started) })
			return nil
		})
	}()
	<-started
	reading := make(chan error, 1)
	inside := make(chan struct{})
	go func() {
		reading <- e.View(context.Background(), func(r storage.Reader) error {
			close(inside)
			for {
				if _, err := r.Get("k"); err != nil {
					return err
				}
				time.Sleep(time.Millisecond)
			}
		})
	}()
	<-inside
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"watch": <-watching, "view": <-reading} {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s ended with %v", what, err)
		}
	}
	ctx := context.Background()
	_, updated := e.Update(ctx, func(tx storage.Txn) error { return tx.Put("k", nil) })
	for what, err := range map[string]error{
		"Update": updated,
		"View":   e.View(ctx, func(storage.Reader) error { return nil }),
		"Watch":  e.Watch(ctx, "", from, func(storage.Commit) error { return nil }),
		"Close":  e.Close(),
	} {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

// testReopen: rows and revisions survive, and history does not.
func testReopen(t *testing.T, o Options) {
	opener := o.New(t)
	e := openFor(t, opener)
	old := put(t, e, "a", "1")
	put(t, e, "b", "1")
	last := remove(t, e, "a")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		e = openFor(t, opener)
		if _, found := get(t, e, "a"); found {
			t.Error("a deleted key is back")
		}
		if got, _ := get(t, e, "b"); got != "1" {
			t.Errorf("reopened: %q", got)
		}
		if got := revision(t, e); got != last {
			t.Errorf("revision %d, was %d", got, last)
		}
		if err := tooOld(e, last); err != nil {
			t.Errorf("a watch from the present after reopening: %v", err)
		}
		w := watch(t, e, "", last)
		next := put(t, e, "c", "1")
		if next <= last {
			t.Errorf("revision %d after %d", next, last)
		}
		if c := w.next(t); c.Revision != next {
			t.Errorf("watched %d, committed %d", c.Revision, next)
		}
		w.end(t)
		last = next
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	e = openFor(t, opener)
	if err := tooOld(e, old); err != nil && !errors.Is(err, storage.ErrHistoryGone) {
		t.Errorf("a watch from before the process: %v", err)
	}
}
