package barrier_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

func decodeString(_ string, value []byte) (string, error) { return string(value), nil }

// cached returns a cache under "c/" that is followed until the test ends.
func cached(t testing.TB, b *barrier.Barrier, entries int) *barrier.Cache[string] {
	t.Helper()
	c := barrier.NewCache(b, "c/", entries, decodeString)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { b.Follow(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

// warm waits until c answers from memory.
func warm(t testing.TB, c *barrier.Cache[string], key string) {
	t.Helper()
	for range 1000 {
		before := c.Stats().Hits
		if _, err := c.Get(context.Background(), key); err != nil && !errors.Is(err, storage.ErrNotFound) {
			t.Fatal(err)
		}
		if c.Stats().Hits > before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the cache does not answer from memory")
}

func wantCached(t testing.TB, c *barrier.Cache[string], key, want string) {
	t.Helper()
	if v, err := c.Get(context.Background(), key); err != nil || v != want {
		t.Fatalf("cached %s = %q, %v; want %q", key, v, err, want)
	}
}

func TestCacheReadsYourWrites(t *testing.T) {
	b, _, _ := opened(t)
	c := cached(t, b, 100)
	warm(t, c, "c/x")
	for i := range 200 {
		put(t, b, "c/x", strconv.Itoa(i))
		wantCached(t, c, "c/x", strconv.Itoa(i))
		wantCached(t, c, "c/x", strconv.Itoa(i))
	}
	_, err := b.Update(t.Context(), func(x storage.Txn) error { return x.Delete("c/x") })
	must(t, err)
	_, err = c.Get(t.Context(), "c/x")
	wantError(t, err, storage.ErrNotFound)
	if _, err := c.Get(t.Context(), "elsewhere"); !errors.Is(err, storage.ErrInvalidKey) {
		t.Fatalf("a key outside the prefix: %v", err)
	}
}

func TestCacheFollowsOtherNodes(t *testing.T) {
	b, e, root := opened(t)
	other := another(t, e, root)
	c := cached(t, b, 100)
	put(t, b, "c/x", "1")
	warm(t, c, "c/x")
	put(t, other, "c/x", "2")
	eventually(t, "another node's write is seen", func() bool {
		v, err := c.Get(t.Context(), "c/x")
		return err == nil && v == "2"
	})
	warm(t, c, "c/absent")
	put(t, other, "c/absent", "3")
	eventually(t, "another node's new row is seen", func() bool {
		v, err := c.Get(t.Context(), "c/absent")
		return err == nil && v == "3"
	})
}

func TestCacheHoldsNoMoreThanItsBound(t *testing.T) {
	b, _, _ := opened(t)
	put(t, b, "c/kept", "v")
	for _, limit := range []int{1, 10, 500} {
		c := cached(t, b, limit)
		for i := range 2000 {
			put(t, b, "c/"+strconv.Itoa(i%1000), "v")
			c.Get(t.Context(), "c/"+strconv.Itoa(i%1000))
			c.Get(t.Context(), "c/absent"+strconv.Itoa(i))
		}
		warm(t, c, "c/kept") // on a slow machine nothing may be held before
		if n := c.Stats().Entries; n > limit || n == 0 {
			t.Errorf("%d entries, want 1 to %d", n, limit)
		}
	}
}

func TestCacheIsEmptyWhileShut(t *testing.T) {
	b, _, root := opened(t)
	c := barrier.NewCache(b, "c/", 10, decodeString)
	ran := make(chan error, 1)
	go func() { ran <- b.Follow(context.Background()) }()
	put(t, b, "c/x", "1")
	warm(t, c, "c/x")
	b.Shut()
	if n := c.Stats().Entries; n != 0 {
		t.Errorf("%d entries after Shut", n)
	}
	if _, err := c.Get(t.Context(), "c/x"); !fault.Is(err, fault.Sealed) {
		t.Errorf("Get after Shut: %v", err)
	}
	if err := <-ran; !fault.Is(err, fault.Sealed) {
		t.Errorf("Follow ended with %v", err)
	}
	must(t, b.Open(t.Context(), root))
	wantCached(t, c, "c/x", "1") // not followed: reads through
}

func TestDestroyedScopeLeavesTheCache(t *testing.T) {
	b, _, _ := opened(t)
	createScope(t, b, "mount/a")
	c := barrier.NewCache(b, "mount/", 10, decodeString)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go b.Follow(ctx)
	put(t, b, "mount/a/x", "1")
	warm(t, c, "mount/a/x")
	_, err := b.Update(t.Context(), func(x storage.Txn) error { return b.DestroyKeys(x, "mount/a") })
	must(t, err)
	_, err = c.Get(t.Context(), "mount/a/x")
	wantError(t, err, barrier.ErrNoKeys)
}

// held lets a test hold back watch reports, as a slow network does.
type held struct {
	storage.Engine
	gate atomic.Pointer[chan struct{}]
	gone atomic.Bool
}

func (h *held) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	return h.Engine.Watch(ctx, prefix, from, func(c storage.Commit) error {
		if gate := h.gate.Load(); gate != nil {
			select {
			case <-*gate:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if h.gone.Swap(false) {
			return storage.ErrHistoryGone
		}
		return fn(c)
	})
}

func TestCacheBehindItsWatchReadsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain, e, root := opened(t)
		h := &held{Engine: e}
		b := another(t, h, root)
		c := cached(t, b, 10)
		put(t, plain, "c/x", "old")
		time.Sleep(time.Second)
		wantCached(t, c, "c/x", "old")
		wantCached(t, c, "c/x", "old")
		if c.Stats().Hits == 0 {
			t.Fatal("not answered from memory")
		}
		gate := make(chan struct{})
		h.gate.Store(&gate)
		put(t, plain, "c/x", "new")
		time.Sleep(barrier.CacheBound)
		for range 100 { // the watch is silent: straight from the store
			wantCached(t, c, "c/x", "new")
		}
		// Reports that arrive late do not make the cache young again: only those
		// of what the store held in the meantime do.
		for i := range 20 {
			put(t, plain, "c/x", strconv.Itoa(i))
			gate <- struct{}{}
			time.Sleep(100 * time.Millisecond)
			put(t, plain, "c/y"+strconv.Itoa(i), "")
		}
		put(t, plain, "c/x", "last")
		for range 20 {
			gate <- struct{}{}
			if v, err := c.Get(t.Context(), "c/x"); err != nil || v != "last" {
				t.Fatalf("a cache behind its watch answered %q, %v", v, err)
			}
		}
		h.gate.Store(nil)
		close(gate)
		time.Sleep(time.Second)
		before := c.Stats().Hits
		wantCached(t, c, "c/x", "last")
		wantCached(t, c, "c/x", "last")
		if c.Stats().Hits == before {
			t.Fatal("the cache did not recover")
		}
	})
}

func TestCacheStartsAfreshWhenHistoryIsGone(t *testing.T) {
	plain, e, root := opened(t)
	h := &held{Engine: e}
	c := cached(t, another(t, h, root), 10)
	for i := range rounds(10) {
		want := strconv.Itoa(i)
		h.gone.Store(true)
		put(t, plain, "c/x", want)
		eventually(t, "the write that the watch lost is seen", func() bool {
			v, err := c.Get(t.Context(), "c/x")
			return err == nil && v == want
		})
		warm(t, c, "c/x")
		wantCached(t, c, "c/x", want)
	}
}

// slowed makes the time between reading a snapshot and using it long, where the
// classic race of a read cache lies.
type slowed struct{ storage.Engine }

func (s slowed) View(ctx context.Context, fn func(storage.Reader) error) error {
	err := s.Engine.View(ctx, fn)
	if rand.IntN(4) == 0 {
		time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
	}
	return err
}

// Values only grow; a reader that has seen one, or whose node has acknowledged
// one, must never see a smaller one afterwards.
func TestCacheNeverGoesBack(t *testing.T) {
	_, e, root := opened(t)
	b := another(t, slowed{e}, root)
	c := cached(t, b, 8)
	const keys = 3
	var acknowledged [keys]atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rounds(2))*time.Second)
	defer cancel()
	var work sync.WaitGroup
	for k := range keys {
		key := fmt.Sprintf("c/%d", k)
		put(t, b, key, "0")
		work.Go(func() {
			for i := int64(1); ctx.Err() == nil; i++ {
				put(t, b, key, strconv.FormatInt(i, 10))
				acknowledged[k].Store(i)
			}
		})
		for range 4 {
			work.Go(func() {
				for ctx.Err() == nil {
					least := acknowledged[k].Load()
					v, err := c.Get(context.Background(), key)
					n, _ := strconv.ParseInt(v, 10, 64)
					if err != nil || n < least {
						t.Errorf("%s = %q, %v although %d was acknowledged", key, v, err, least)
						return
					}
				}
			})
		}
	}
	work.Wait()
	if st := c.Stats(); st.Hits == 0 || st.Misses == 0 {
		t.Errorf("the test did not reach both ways: %+v", st)
	}
}
