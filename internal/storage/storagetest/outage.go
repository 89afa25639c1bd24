package storagetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// backSoon is how long an engine may take to find a server that is back, however
// long it was away.
const backSoon = 3 * time.Second

// Outage takes the servers behind an engine away, for long enough that whatever
// grows between tries to reconnect has grown, and has them come back. Calls must
// say that it is away, and soon after work again; a watch must be told what is new.
func Outage(t *testing.T, e storage.Engine, leave, comeBack func()) {
	away := 12 * time.Second
	if Rounds(1) > 1 {
		away = 200 * time.Second
	}
	put := func(text string) error {
		_, err := e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("outage", []byte(text)) })
		return err
	}
	if err := put("before"); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 100)
	watching, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- e.Watch(watching, "outage", 0, func(c storage.Commit) error {
			for _, ch := range c.Changes {
				told <- string(ch.Value)
			}
			return nil
		})
	}()
	defer func() { stop(); <-ended }()
	Eventually(t, func() error { // until it watches
		if err := put("watched"); err != nil {
			return err
		}
		if len(told) == 0 {
			return errors.New("the watch is told nothing")
		}
		return nil
	})
	leave()
	refused := 0
	for begun := time.Now(); time.Since(begun) < away; time.Sleep(away / 20) {
		if err := put("never"); !errors.Is(err, storage.ErrUnavailable) && !errors.Is(err, storage.ErrUncertain) {
			t.Fatalf("a write while the server is away: %v", err)
		}
		refused++
	}
	comeBack()
	back := time.Now()
	Eventually(t, func() error { return put("after") })
	wrote := time.Since(back)
	for text := range told {
		if text == "after" {
			break
		}
		if text == "never" {
			t.Error("the watch was told of a write that did not happen")
		}
	}
	heard := time.Since(back)
	t.Logf("away for %v, %d writes refused; then it wrote after %v and heard after %v", away, refused, wrote.Round(time.Millisecond), heard.Round(time.Millisecond))
	if heard > backSoon {
		t.Errorf("it took %v and %v", wrote, heard)
	}
	err := e.View(context.Background(), func(r storage.Reader) error {
		now, err := Value(r, "outage")
		if err == nil && now != "after" {
			err = fmt.Errorf("it reads %q", now)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Partition stalls the way of one of a trial's nodes to the server, silently and for
// so long that its calls are given up, and heals it, again and again.
func Partition(t *testing.T, tr *Trial, way *Proxy, long time.Duration) {
	stalls := Rounds(2)
	tr.Run(t, func() {
		for range stalls {
			way.Stall()
			time.Sleep(long)
			way.Heal()
			tr.More(t, 60)
		}
	})
	t.Logf("partitions: %d of %v each", stalls, long)
	if tr.Count("unavailable") == 0 {
		t.Error("nobody noticed the partition")
	}
}
