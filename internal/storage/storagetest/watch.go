package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cofferhq/coffer/internal/storage"
)

// watched is a watch that runs until stop.
type watched struct {
	commits chan storage.Commit // without progress reports
	ended   chan error
	stop    context.CancelFunc
}

func watch(t testing.TB, e storage.Engine, prefix string, from storage.Revision) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{make(chan storage.Commit, 10_000), make(chan error, 1), cancel}
	go func() {
		w.ended <- e.Watch(ctx, prefix, from, func(c storage.Commit) error {
			if len(c.Changes) > 0 {
				w.commits <- c
			}
			return nil
		})
	}()
	t.Cleanup(cancel)
	return w
}

// next returns the next commit with changes.
func (w *watched) next(t testing.TB) storage.Commit {
	t.Helper()
	select {
	case c := <-w.commits:
		return c
	case err := <-w.ended:
		t.Fatalf("watch ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came from the watch")
	}
	return storage.Commit{}
}

// end stops the watch and checks that it says so, with nothing left to report.
func (w *watched) end(t testing.TB) {
	t.Helper()
	w.stop()
	if err := <-w.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled watch returned %v", err)
	}
	select {
	case c := <-w.commits:
		t.Errorf("one report too many: %+v", c)
	default:
	}
}

func revision(t testing.TB, e storage.Engine) (rev storage.Revision) {
	t.Helper()
	view(t, e, func(r storage.Reader) { rev = r.Revision() })
	return rev
}

// testWatchOrder: while many write, a watch tells every commit once, whole and
// in order, so that a copy kept by it ends up equal to the store.
func testWatchOrder(t *testing.T, o Options) {
	e := open(t, o)
	const writers, each = 8, 40
	w := watch(t, e, "", revision(t, e))
	var mu sync.Mutex
	revs := map[storage.Revision]string{}
	var wg sync.WaitGroup
	for id := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(id)))
			for n := range each {
				mark := fmt.Sprintf("%d.%d", id, n)
				rev, err := e.Update(context.Background(), func(tx storage.Txn) error {
					// One key is written by all, some are put and deleted.
					key := fmt.Sprintf("k%d", rng.IntN(10))
					if rng.IntN(3) == 0 {
						return errors.Join(tx.Put("last", []byte(mark)), tx.Delete(key))
					}
					return errors.Join(tx.Put("last", []byte(mark)), tx.Put(key, []byte(mark)))
				})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				revs[rev] = mark
				mu.Unlock()
			}
		})
	}
	copied := map[string]string{}
	var last storage.Revision
	marks := map[storage.Revision]string{}
	for range writers * each {
		c := w.next(t)
		if c.Revision <= last {
			t.Fatalf("revision %d after %d", c.Revision, last)
		}
		last = c.Revision
		for i, ch := range c.Changes {
			if i > 0 && ch.Key <= c.Changes[i-1].Key {
				t.Errorf("changes out of order: %q after %q", ch.Key, c.Changes[i-1].Key)
			}
			if ch.Deleted {
				if ch.Value != nil {
					t.Errorf("a deletion of %q has a value", ch.Key)
				}
				delete(copied, ch.Key)
			} else {
				copied[ch.Key] = string(ch.Value)
			}
			if ch.Key == "last" {
				marks[c.Revision] = string(ch.Value)
			}
		}
	}
	wg.Wait()
	if diff := cmp.Diff(revs, marks); diff != "" {
		t.Errorf("commits as returned (-) and as watched (+):\n%s", diff)
	}
	stored := map[string]string{}
	view(t, e, func(r storage.Reader) {
		err := storage.All(r, "", func(en storage.Entry) error { stored[en.Key] = string(en.Value); return nil })
		if err != nil {
			t.Error(err)
		}
	})
	if diff := cmp.Diff(stored, copied); diff != "" {
		t.Errorf("store (-) and what a watcher knows (+):\n%s", diff)
	}
	w.end(t)
}

func testWatchPrefix(t *testing.T, o Options) {
	e := open(t, o)
	w := watch(t, storage.Sub(e, "in/"), "a", revision(t, e))
	put(t, e, "out", "1")
	put(t, e, "in/b", "1")
	first := put(t, e, "in/ab", "2", "in/a", "1", "in/b", "3", "in", "4")
	second := remove(t, e, "in/a", "in/b")
	want := []storage.Commit{
		{Revision: first, Changes: []storage.Change{{Key: "a", Value: []byte("1")}, {Key: "ab", Value: []byte("2")}}},
		{Revision: second, Changes: []storage.Change{{Key: "a", Deleted: true}}},
	}
	if diff := cmp.Diff(want, []storage.Commit{w.next(t), w.next(t)}); diff != "" {
		t.Error(diff)
	}
	w.end(t)
}

// testWatchPast: a watch from the past begins with what came after it; one from
// a revision that never was is refused.
func testWatchPast(t *testing.T, o Options) {
	e := open(t, o)
	var revs []storage.Revision
	for i := range 10 {
		revs = append(revs, put(t, e, "k", strconv.Itoa(i)))
	}
	w := watch(t, e, "", revs[3])
	for i := 4; i < 10; i++ {
		c := w.next(t)
		if c.Revision != revs[i] || string(c.Changes[0].Value) != strconv.Itoa(i) {
			t.Errorf("%+v, want revision %d", c, revs[i])
		}
	}
	w.end(t)
	err := e.Watch(context.Background(), "", revs[9]+1000, func(storage.Commit) error { return nil })
	if !errors.Is(err, storage.ErrHistoryGone) {
		t.Errorf("a watch from the future: %v", err)
	}
	big := strings.Repeat("v", 1<<20)
	for range 64 {
		put(t, e, "big", big)
		err = tooOld(e, revs[0])
		if err != nil {
			break
		}
	}
	if !errors.Is(err, storage.ErrHistoryGone) {
		t.Errorf("a watch from long ago: %v", err)
	}
}

var errEnough = errors.New("enough")

// tooOld returns nil when a watch can begin at from.
func tooOld(e storage.Engine, from storage.Revision) error {
	err := e.Watch(context.Background(), "", from, func(storage.Commit) error { return errEnough })
	if err == errEnough {
		return nil
	}
	return err
}

func testWatchProgress(t *testing.T, o Options) {
	e := open(t, o)
	from := put(t, e, "other", "1")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	reports, last := 0, time.Now()
	var rev storage.Revision
	err := e.Watch(ctx, "k", from, func(c storage.Commit) error {
		late := time.Since(last) - storage.ProgressInterval
		if late > 2*time.Second { // a busy machine, not a missing report
			t.Errorf("report %v late", late)
		}
		last = time.Now()
		if len(c.Changes) > 0 || c.Revision < rev {
			t.Errorf("progress after %d is %+v", rev, c)
		}
		rev = c.Revision
		if reports++; reports == 2 {
			from = put(t, e, "other", "2")
		}
		if reports > 2 && rev == from {
			return errEnough
		}
		return nil
	})
	if err != errEnough {
		t.Errorf("watch ended: %v", err)
	}
}

func testWatchEnds(t *testing.T, o Options) {
	e := open(t, o)
	put(t, e, "k", "1")
	mine := errors.New("mine")
	err := e.Watch(context.Background(), "", 0, func(storage.Commit) error { return mine })
	if err != mine {
		t.Errorf("the function's error came back as %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.Watch(ctx, "", 0, func(storage.Commit) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a watch with a cancelled context: %v", err)
	}
}

// testWatchSlowConsumer: a slow watcher is told that it missed something, and
// holds nobody up.
func testWatchSlowConsumer(t *testing.T, o Options) {
	e := open(t, o)
	release := make(chan struct{})
	ended := make(chan error, 1)
	from := revision(t, e)
	go func() {
		ended <- e.Watch(context.Background(), "", from, func(storage.Commit) error { <-release; return nil })
	}()
	big := strings.Repeat("v", 1<<20)
	for range 100 {
		put(t, e, "big", big)
	}
	close(release)
	select {
	case err := <-ended:
		if !errors.Is(err, storage.ErrHistoryGone) {
			t.Errorf("watch ended: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the watch goes on although it missed commits")
		_ = e.Close()
	}
}
