package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// testPowerCut cuts the power under load, again and again, and looks each time
// for what was told before. Some rounds cut the power again on what was left.
func testPowerCut(t *testing.T, o Options) {
	cuts := Rounds(60)
	total := map[string]int{}
	rng := rand.New(rand.NewPCG(3, 4))
	var disk *Disk
	for round := range cuts {
		if disk == nil || round%5 == 0 {
			disk = o.Disk(uint64(round))
		}
		e, err := disk.Open()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		disk.Slow(time.Duration(rng.IntN(3)) * time.Millisecond) // what is visible and not durable shows
		told := &sightings{}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { runLoad(ctx, e, told.note); close(done) }()
		time.Sleep(10*time.Millisecond + time.Duration(rng.IntN(60))*time.Millisecond)
		before := told.copy() // first: what is told while the power is cut may be lost
		next := disk.Cut()
		cancel()
		<-done
		if err := e.Close(); err != nil {
			t.Errorf("round %d: close: %v", round, err)
		}
		disk = next
		after, err := disk.Open()
		if err != nil {
			t.Fatalf("round %d: after the power cut: %v", round, err)
		}
		if err := before.check(after); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := after.Close(); err != nil {
			t.Errorf("round %d: close: %v", round, err)
		}
		for how, n := range before.counts {
			total[how] += n
		}
	}
	t.Logf("power cuts: %d, acknowledged writes checked: %d, reads: %d, watched: %d",
		cuts, total["acknowledged"], total["read"], total["watched"])
	if total["acknowledged"] < 10*cuts || total["read"] < cuts || total["watched"] < cuts {
		t.Errorf("too little happened before the power cuts to prove anything")
	}
}

// testFullDisk: a full disk refuses writes by name, leaves reads alone, and
// writes go on when there is space.
func testFullDisk(t *testing.T, o Options) {
	disk := o.Disk(1)
	e := openFor(t, disk.Open)
	put(t, e, "k", "1")
	refused := 0
	for i := range 3 {
		disk.Full(true)
		deadline := time.Now().Add(20 * time.Second)
		for value := "in between"; ; {
			_, err := e.Update(context.Background(), func(tx storage.Txn) error {
				return errors.Join(tx.Put("k", []byte(value)), tx.Put("l", []byte(value)))
			})
			if errors.Is(err, storage.ErrFull) {
				refused++
				break
			}
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("round %d: a full disk: %v", i, err)
			}
		}
		k, _ := get(t, e, "k")
		l, _ := get(t, e, "l")
		if l != k && l != "" {
			t.Errorf("a refused Update is there in part: %q and %q", k, l)
		}
		if n := count(t, e, ""); n < 1 {
			t.Errorf("%d keys can be read on a full disk", n)
		}
		_, err := e.Update(context.Background(), func(tx storage.Txn) error { _, err := tx.Get("k"); return err })
		if err != nil {
			t.Errorf("an Update that writes nothing, on a full disk: %v", err)
		}
		disk.Full(false)
		eventually(t, func() error {
			_, err := e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("k", []byte("after")) })
			return err
		})
		if got, _ := get(t, e, "k"); got != "after" {
			t.Errorf("after there was space again: %q", got)
		}
	}
	t.Logf("full disks: %d, refused: %d", 3, refused)
}

// eventually waits until fn returns nil.
func eventually(t testing.TB, fn func() error) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// testSlowDisk: a read of what is on its way to a slow disk waits for it, any
// other read does not, and order is kept.
func testSlowDisk(t *testing.T, o Options) {
	const slow = time.Second
	disk := o.Disk(2)
	e := openFor(t, disk.Open)
	put(t, e, "calm/x", "1", "busy/x", "0", "busy/y", "0")
	from := revision(t, e)
	disk.Slow(slow)
	tests := []struct {
		name  string
		waits bool
		fn    func(storage.Reader) error
	}{
		{"get of another key", false, func(r storage.Reader) error { _, err := r.Get("calm/x"); return err }},
		{"scan of other keys", false, func(r storage.Reader) error { _, err := r.Scan("calm/", "", 10); return err }},
		{"scan that ends before", false, func(r storage.Reader) error { _, err := r.Scan("busy/", "", 1); return err }},
		{"scan that begins after", false, func(r storage.Reader) error { _, err := r.Scan("busy/", "busy/z", 1); return err }},
		{"list of other keys", false, func(r storage.Reader) error { _, err := r.List("calm/", "", 10); return err }},
		{"get", true, func(r storage.Reader) error { _, err := r.Get("busy/y"); return err }},
		{"get of a deleted key", true, func(r storage.Reader) error { _, _, err := read(r, "busy/z"); return err }},
		{"scan of a deleted key", true, func(r storage.Reader) error { _, err := r.Scan("busy/", "busy/y", 1); return err }},
		{"scan", true, func(r storage.Reader) error { _, err := r.Scan("busy/", "", 10); return err }},
		{"list", true, func(r storage.Reader) error { _, err := r.List("busy/", "", 10); return err }},
		{"list above", true, func(r storage.Reader) error { _, err := r.List("", "", 10); return err }},
		{"revision", true, func(r storage.Reader) error { r.Revision(); return nil }},
		{"failing read", true, func(r storage.Reader) error { _, err := r.Get("busy/y"); return errors.Join(err, errEnough) }},
	}
	var waiting sync.WaitGroup
	committed := make(chan struct{})
	go func() {
		defer close(committed)
		_, err := e.Update(context.Background(), func(tx storage.Txn) error {
			return errors.Join(tx.Put("busy/y", []byte("1")), tx.Delete("busy/z"))
		})
		if err != nil {
			t.Error(err)
		}
	}()
	waitVisible(t, e)
	began := time.Now()
	for _, tt := range tests {
		waiting.Go(func() {
			err := e.View(context.Background(), tt.fn)
			took := time.Since(began)
			if err != nil && err != errEnough && !errors.Is(err, errEnough) {
				t.Errorf("%s: %v", tt.name, err)
			}
			durable := isClosed(committed) || took > slow/2
			if tt.waits != durable {
				t.Errorf("%s returned after %v with a sync of %v under way", tt.name, took, slow)
			}
		})
	}
	waiting.Wait()
	<-committed
	testSlowOrder(t, disk, e, from)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// waitVisible returns when a View can see busy/y at 1.
func waitVisible(t testing.TB, e storage.Engine) {
	t.Helper()
	for {
		seen := make(chan bool, 1)
		go func() {
			_ = e.View(context.Background(), func(r storage.Reader) error {
				v, _, err := read(r, "busy/y")
				seen <- v == "1"
				return err
			})
		}()
		if <-seen {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// testSlowOrder: commits to a slow disk are told in their order.
func testSlowOrder(t *testing.T, disk *Disk, e storage.Engine, from storage.Revision) {
	disk.Slow(5 * time.Millisecond)
	w := watch(t, e, "", from)
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for id := range writers {
		wg.Go(func() {
			for n := range each {
				put(t, e, fmt.Sprintf("order/%d", id), strings.Repeat("v", n))
			}
		})
	}
	wg.Wait()
	var last storage.Revision
	next := map[string]int{}
	for range 1 + writers*each {
		c := w.next(t)
		if c.Revision <= last {
			t.Errorf("revision %d after %d", c.Revision, last)
		}
		last = c.Revision
		for _, ch := range c.Changes {
			if strings.HasPrefix(ch.Key, "order/") {
				if len(ch.Value) != next[ch.Key] {
					t.Errorf("%s: commit %d came as number %d", ch.Key, len(ch.Value), next[ch.Key])
				}
				next[ch.Key]++
			}
		}
	}
	w.end(t)
}

// testBrokenDisk: after a sync has failed nothing is answered any more, and what
// was acknowledged before is there when the store is opened again.
func testBrokenDisk(t *testing.T, o Options) {
	lost := 0
	for round := range Rounds(10) {
		disk := o.Disk(uint64(round))
		e := openFor(t, disk.Open)
		put(t, e, "k", "before")
		ctx := context.Background()
		told := &sightings{}
		done := make(chan struct{})
		go func() { runLoad(ctx, e, told.note); close(done) }()
		watching := make(chan error, 1)
		go func() { watching <- e.Watch(ctx, "nothing", 0, func(storage.Commit) error { return nil }) }()
		time.Sleep(time.Duration(round) * 3 * time.Millisecond)
		disk.Break(true)
		<-done // every writer ends with an error, never with a pretence
		_, updated := e.Update(ctx, func(tx storage.Txn) error { return tx.Put("k", []byte("later")) })
		for what, err := range map[string]error{
			"Update": updated,
			"View":   e.View(ctx, func(r storage.Reader) error { _, err := r.Get("k"); return err }),
			"Watch":  e.Watch(ctx, "", 0, func(storage.Commit) error { return nil }),
			"watch":  <-watching,
		} {
			if !errors.Is(err, storage.ErrFailed) {
				t.Errorf("%s on a broken disk: %v", what, err)
			}
		}
		before := told.copy()
		next := disk.Cut()
		_ = e.Close() // reports the failure
		after := openFor(t, next.Open)
		if err := before.check(after); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if got, _ := get(t, after, "k"); got != "before" {
			t.Errorf("round %d: %q", round, got)
		}
		lost += before.counts["acknowledged"]
	}
	t.Logf("broken disks: %d, acknowledged writes checked: %d", Rounds(10), lost)
}
