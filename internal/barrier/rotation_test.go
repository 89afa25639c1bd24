package barrier_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/storage"
)

// rounds multiplies n on soak runs.
func rounds(n int) int {
	if os.Getenv("COFFER_SOAK") == "1" {
		return n * 50
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not within 5 s: %s", what)
}

func TestRotationWhileServing(t *testing.T) {
	b, e, root := opened(t)
	createScope(t, b, "mount/a")
	nodes := []*barrier.Barrier{b, another(t, e, root)}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for n, node := range nodes {
		work.Go(func() {
			if err := node.Follow(ctx); err != nil {
				t.Error(err)
			}
		})
		for w := range 2 {
			work.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					for _, prefix := range []string{"core-", "mount/a/"} {
						key := fmt.Sprintf("%s%d-%d-%d", prefix, n, w, i%40)
						put(t, node, key, key)
						if v, err := get(nodes[i%2], key); err != nil || v != key {
							t.Errorf("%s = %q, %v", key, v, err)
							return
						}
					}
				}
			})
		}
	}
	for i := range rounds(6) {
		node := nodes[i%2]
		for _, scope := range []string{"core", "mount/a"} {
			st, err := node.RotateKeys(t.Context(), scope)
			must(t, err)
			if st.Term != uint32(i+2) {
				t.Errorf("term %d after %d rotations", st.Term, i+1)
			}
			must(t, nodes[(i+1)%2].Rewrap(t.Context(), scope, nil))
			st, err = node.KeyStatus(t.Context(), scope)
			must(t, err)
			if st.Keys != 1 {
				t.Errorf("%d keys after Rewrap", st.Keys)
			}
		}
	}
	cancel()
	work.Wait()
	fresh := another(t, e, root)
	must(t, fresh.View(t.Context(), func(r storage.Reader) error {
		return storage.All(r, "", func(row storage.Entry) error {
			if string(row.Value) != row.Key {
				t.Errorf("%s = %q", row.Key, row.Value)
			}
			return nil
		})
	}))
}

func TestAStaleNodeNeverWritesUnderADroppedKey(t *testing.T) {
	b, e, root := opened(t)
	stale := another(t, e, root) // does not Follow
	put(t, stale, "x", "1")
	for i := range 3 {
		_, err := b.RotateKeys(t.Context(), "core")
		must(t, err)
		must(t, b.Rewrap(t.Context(), "core", nil))
		put(t, stale, "x", fmt.Sprint(i))
		wantValue(t, b, "x", fmt.Sprint(i))
		wantValue(t, stale, "x", fmt.Sprint(i))
	}
}

func TestRewrapDropsTheOldKey(t *testing.T) {
	b, e, _ := opened(t)
	for i := range 200 {
		put(t, b, fmt.Sprintf("a%03d", i), "v")
		put(t, b, fmt.Sprintf("n%03d", i), strings.Repeat("v", 8<<10))
	}
	createScope(t, b, "mount/m")
	put(t, b, "mount/m/x", "v")
	for _, key := range []string{"mount", "mount/", "mount/lone", "mount//x", "z"} { // not below a mount: core
		put(t, b, key, "v")
	}
	put(t, b, "big1", strings.Repeat("v", 1<<20))
	put(t, b, "big2", strings.Repeat("v", 1<<20))
	mountRow := string(rawGet(t, e, "mount/m/x"))
	before := string(rawGet(t, e, "a000"))
	_, err := b.RotateKeys(t.Context(), "core")
	must(t, err)
	st, err := b.KeyStatus(t.Context(), "core")
	must(t, err)
	if st.Keys != 2 || st.Term != 2 {
		t.Fatalf("status %+v", st)
	}
	last, calls := 0, 0
	must(t, b.Rewrap(t.Context(), "core", func(n int) { last = n; calls++ }))
	if last != 407 || calls < 407/100 {
		t.Errorf("progress ended at %d rows after %d pieces, want 407 in several", last, calls)
	}
	if string(rawGet(t, e, "mount/m/x")) != mountRow {
		t.Error("another scope was touched")
	}
	wantValue(t, b, "a000", "v")
	put(t, e, "a000", before)
	_, err = get(b, "a000")
	wantError(t, err, barrier.ErrTampered)
}

// faulty fails its n-th Update, before or after it was committed, and every one
// after it, as a process that was killed would.
type faulty struct {
	storage.Engine
	left  atomic.Int64
	after bool
}

var errKilled = errors.New("killed")

func (f *faulty) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	n := f.left.Add(-1)
	if n < 0 || n == 0 && !f.after {
		return 0, errKilled
	}
	rev, err := f.Engine.Update(ctx, fn)
	if n == 0 && err == nil {
		return 0, errKilled
	}
	return rev, err
}

func TestRewrapResumesAfterACrashAnywhere(t *testing.T) {
	for _, after := range []bool{false, true} {
		for kill := int64(1); ; kill++ {
			b, e, root := opened(t)
			for i := range 100 {
				put(t, b, fmt.Sprintf("k%03d", i), "v")
			}
			_, err := b.RotateKeys(t.Context(), "core")
			must(t, err)
			f := &faulty{Engine: e, after: after}
			f.left.Store(kill)
			err = another(t, f, root).Rewrap(t.Context(), "core", nil)
			if err != nil {
				wantError(t, err, errKilled)
			}
			again := another(t, e, root)
			must(t, again.Rewrap(t.Context(), "core", nil))
			for i := range 100 {
				wantValue(t, again, fmt.Sprintf("k%03d", i), "v")
			}
			st, serr := again.KeyStatus(t.Context(), "core")
			must(t, serr)
			if st.Keys != 1 || st.Term != 2 {
				t.Fatalf("killed at update %d: %+v", kill, st)
			}
			if err == nil {
				break
			}
		}
	}
}

// rotateRoot does what a node does, from whatever step the store is at, with
// *wrapped standing for what the seals unwrap.
func rotateRoot(ctx context.Context, b *barrier.Barrier, wrapped *[]byte, start bool) error {
	step, err := b.RootRotation(ctx, *wrapped)
	if err != nil || step == barrier.RootSettled && !start {
		return err
	}
	if step <= barrier.RootBegun {
		next, err := b.BeginRootRotation(ctx, *wrapped)
		if err != nil {
			return err
		}
		*wrapped = next
	}
	if step <= barrier.RootWrapped {
		last, err := b.FinishRootRotation(ctx, *wrapped)
		if err != nil {
			return err
		}
		*wrapped = last
	}
	return b.EndRootRotation(ctx, *wrapped)
}

func TestRootRotationResumesAfterACrashAnywhere(t *testing.T) {
	synctest.Test(t, rootRotationResumes) // for EndRootRotation's wait
}

func rootRotationResumes(t *testing.T) {
	for _, after := range []bool{false, true} {
		for kill := int64(1); ; kill++ {
			b, e, root := opened(t)
			old := root
			for i := range 70 {
				createScope(t, b, fmt.Sprintf("mount/%02d", i))
			}
			put(t, b, "mount/00/x", "v")
			put(t, b, "x", "v")
			other := another(t, e, root) // open all the time
			f := &faulty{Engine: e, after: after}
			f.left.Store(kill)
			wrapped := root
			err := rotateRoot(t.Context(), another(t, f, root), &wrapped, true)
			if err != nil {
				wantError(t, err, errKilled)
			}
			again := another(t, e, wrapped)
			// A node that was open all the time goes on, unless the rotation
			// ended behind its back.
			writer := other
			if step, serr := again.RootRotation(t.Context(), wrapped); serr != nil {
				t.Fatal(serr)
			} else if step == barrier.RootSettled && kill > 1 {
				_, serr := other.Update(t.Context(), func(x storage.Txn) error { return other.CreateKeys(x, "mount/between") })
				wantError(t, serr, barrier.ErrWrongKey)
				writer = again
			}
			createScope(t, writer, "mount/between")
			put(t, writer, "mount/between/x", "v")
			wantValue(t, again, "mount/00/x", "v")
			must(t, rotateRoot(t.Context(), again, &wrapped, false))
			if step, serr := again.RootRotation(t.Context(), wrapped); serr != nil || step != barrier.RootSettled {
				t.Fatalf("killed at update %d: step %v, %v", kill, step, serr)
			}
			fresh := another(t, e, wrapped)
			for _, key := range []string{"x", "mount/00/x", "mount/between/x"} {
				wantValue(t, fresh, key, "v")
			}
			if err == nil || kill > 1 {
				wantError(t, barrier.New(e, quiet).Open(t.Context(), old), barrier.ErrWrongKey)
			}
			if err == nil {
				break
			}
		}
	}
}

func TestNodesLearnTheNextRootKey(t *testing.T) {
	b, e, root := opened(t)
	other := another(t, e, root)
	late := another(t, e, root) // hears nothing of it
	ctx, cancel := context.WithCancel(t.Context())
	following := make(chan error, 1)
	go func() { following <- other.Follow(ctx) }()
	lost := make(chan error, 1)

	next, err := b.BeginRootRotation(t.Context(), root)
	must(t, err)
	again, err := b.BeginRootRotation(t.Context(), root)
	must(t, err)
	if string(again) != string(next) {
		t.Fatal("beginning again made another keyset")
	}
	last, err := b.FinishRootRotation(t.Context(), next)
	must(t, err)
	createScope(t, other, "mount/during") // learns the next root key, if not before
	must(t, b.EndRootRotation(t.Context(), last))
	createScope(t, other, "mount/after")
	put(t, other, "mount/after/x", "v")
	wantValue(t, b, "mount/after/x", "v")

	go func() { lost <- late.Follow(ctx) }()
	wantError(t, <-lost, barrier.ErrWrongKey)
	_, err = late.Update(t.Context(), func(x storage.Txn) error { return late.CreateKeys(x, "mount/late") })
	wantError(t, err, barrier.ErrWrongKey)
	cancel()
	must(t, <-following)
}

func TestRootRotationUnderLoad(t *testing.T) {
	b, e, root := opened(t)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for n := range 2 {
		node := another(t, e, root)
		work.Go(func() {
			if err := node.Follow(ctx); err != nil {
				t.Error(err)
			}
		})
		work.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				scope := fmt.Sprintf("mount/%d-%d", n, i)
				createScope(t, node, scope)
				put(t, node, scope+"/x", scope)
			}
		})
	}
	wrapped := root
	for range rounds(3) {
		must(t, rotateRoot(t.Context(), b, &wrapped, true))
	}
	cancel()
	work.Wait()
	fresh := another(t, e, wrapped)
	must(t, fresh.View(t.Context(), func(r storage.Reader) error {
		return storage.All(r, "mount/", func(row storage.Entry) error {
			if string(row.Value)+"/x" != row.Key {
				t.Errorf("%s = %q", row.Key, row.Value)
			}
			return nil
		})
	}))
}
