package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
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

// TestLateWatch: a node that was not there when something was committed tells it
// from the database, and goes on with what is committed meanwhile.
func TestLateWatch(t *testing.T) {
	t.Parallel()
	url := postgrestest.Start(t).Database(t)
	first := node(t, Options{URL: url})
	big := strings.Repeat("v", 100<<10)
	var want []storage.Revision
	for range 300 { // several pages
		want = append(want, put(t, first, "k", big))
	}
	late := node(t, Options{URL: url})
	var writing sync.WaitGroup
	writing.Go(func() {
		for range 100 {
			want = append(want, put(t, first, "k", "small"))
		}
	})
	var got []storage.Revision
	err := late.Watch(context.Background(), "k", 0, func(c storage.Commit) error {
		if len(c.Changes) > 0 {
			got = append(got, c.Revision)
		}
		if len(got) == 400 {
			return errEnough
		}
		return nil
	})
	writing.Wait()
	if !errors.Is(err, errEnough) || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v: told %v, committed %v", err, got, want)
	}
}

// TestPrune: changes are kept for as long, and as many, as is said.
func TestPrune(t *testing.T) {
	t.Parallel()
	url := postgrestest.Start(t).Database(t)
	e := node(t, Options{URL: url, History: time.Second}).(*Engine)
	begin := put(t, e, "k", "1")
	for range 500 {
		put(t, e, "k", "2")
	}
	middle := put(t, e, "k", "3")
	time.Sleep(1100 * time.Millisecond)
	put(t, e, "k", "4")
	storagetest.Eventually(t, func() error {
		var n int
		err := e.pool.QueryRow(context.Background(), "SELECT count(*) FROM coffer_changes").Scan(&n)
		if err == nil && n > 1 {
			err = fmt.Errorf("%d changes are left", n)
		}
		return err
	})
	other := node(t, Options{URL: url})
	for from, want := range map[storage.Revision]error{begin: storage.ErrHistoryGone, middle - 1: storage.ErrHistoryGone, middle: errEnough} {
		err := other.Watch(context.Background(), "", from, func(storage.Commit) error { return errEnough })
		if !errors.Is(err, want) {
			t.Errorf("a watch from %d: %v, want %v", from, err, want)
		}
	}
}

// TestReplacedHistory: when an older state is put in place under a node that
// runs, its watches end, and it does not judge by what it knew.
func TestReplacedHistory(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	url := server.Database(t)
	old := node(t, Options{URL: url})
	for i := range 10 {
		put(t, old, fmt.Sprintf("k/%d", i), "old")
	}
	ended := make(chan error, 1)
	from := storagetest.Head(t, old)
	go func() {
		ended <- old.Watch(context.Background(), "", from, func(storage.Commit) error { return nil })
	}()
	inside, replaced := make(chan bool), make(chan bool)
	updated := make(chan error, 1)
	go func() {
		first := true
		_, err := old.Update(context.Background(), func(tx storage.Txn) error {
			text, err := storagetest.Value(tx, "k/9")
			if first {
				first = false
				close(inside)
				<-replaced
			}
			return errors.Join(err, tx.Put("saw", []byte(text)))
		})
		updated <- err
	}()
	<-inside
	goOn := sync.OnceFunc(func() { close(replaced) })
	defer goOn() // whatever happens, so that the node can be closed
	// As a backup of revision 5 would be restored: by SQL, at once.
	server.Exec(t, database(t, url), `BEGIN; DELETE FROM coffer_rows WHERE key >= 'k/5';
		DELETE FROM coffer_changes WHERE rev > 5; DELETE FROM coffer_commits WHERE rev > 5;
		UPDATE coffer_head SET rev = 5, batch = (SELECT batch FROM coffer_commits WHERE rev = 5); COMMIT`)
	fresh := node(t, Options{URL: url})
	for i := range 10 { // past the revision that the old node knows
		put(t, fresh, "k/9", fmt.Sprint("new", i))
	}
	goOn()
	if err := <-updated; err != nil {
		t.Fatal(err)
	}
	err := old.View(context.Background(), func(r storage.Reader) error {
		saw, err := storagetest.Value(r, "saw")
		if saw != "new9" {
			t.Errorf("an Update took effect after reading %q", saw)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, storage.ErrHistoryGone) {
		t.Errorf("the watch ended with %v", err)
	}
}

// TestStuckFunction: an Update whose function does not return when it is run
// again holds the others up for a short time only.
func TestStuckFunction(t *testing.T) {
	t.Parallel()
	url := postgrestest.Start(t).Database(t)
	e := node(t, Options{URL: url, RequestTimeout: testTimeout})
	put(t, e, "k", "0")
	release := make(chan bool)
	stuck := make(chan error, 1)
	var runs atomic.Int64
	second := make(chan bool)
	go func() {
		_, err := e.Update(context.Background(), func(tx storage.Txn) error {
			_, err := tx.Get("k")
			switch runs.Add(1) {
			case 1:
				put(t, e, "k", "1") // a conflict
			case 2:
				close(second)
				<-release
				if _, err := tx.Get("k2"); err == nil {
					t.Error("a function that was given up could go on reading")
				}
			}
			return errors.Join(err, tx.Put("k", []byte("stuck")))
		})
		stuck <- err
	}()
	<-second
	start := time.Now()
	put(t, e, "k", "2")
	took := time.Since(start)
	close(release)
	if err := <-stuck; !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("the stuck Update: %v", err)
	}
	if took > testTimeout {
		t.Errorf("others were held up for %v", took)
	}
	if got := get(t, e, "k"); got != "2" {
		t.Errorf("k is %q", got)
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

// TestStoppedNode: a node that stops while it holds the lock of a commit holds
// the others up for less than they try, and commits nothing afterwards.
func TestStoppedNode(t *testing.T) {
	t.Parallel()
	url := postgrestest.Start(t).Database(t)
	stopped, goOn := make(chan bool), make(chan bool)
	var once sync.Once
	paused := node(t, Options{URL: url, RequestTimeout: testTimeout, gate: func() {
		once.Do(func() { close(stopped); <-goOn })
	}})
	other := node(t, Options{URL: url, RequestTimeout: testTimeout})
	result := make(chan error, 1)
	go func() {
		_, err := paused.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("k", []byte("paused")) })
		result <- err
	}()
	<-stopped
	start := time.Now()
	put(t, other, "k", "other")
	took := time.Since(start)
	close(goOn)
	if took > testTimeout {
		t.Errorf("the other node was held up for %v", took)
	}
	// It is told the truth: either its commit was run again and is there, or not.
	err := <-result
	if got := get(t, other, "k"); (err == nil) != (got == "paused") {
		t.Errorf("the paused node was told %v, k is %q", err, got)
	}
	t.Logf("held up for %v; the paused node was told: %v", took.Round(time.Millisecond), err)
}
