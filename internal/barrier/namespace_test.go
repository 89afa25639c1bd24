package barrier_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/storage"
)

// The keys of a namespace wrap those of its mounts, so that one row destroys all.
func TestDestroyingTheKeysOfANamespaceDestroysThoseItWraps(t *testing.T) {
	b, e, root := opened(t)
	other := another(t, e, root)
	createScope(t, b, "ns/a")
	createScope(t, b, "ns/a/mount/m")
	createScope(t, b, "ns/b")
	createScope(t, b, "mount/m")
	rows := []string{"ns/a/core/x", "ns/a/mount/m/x", "ns/b/core/x", "mount/m/x", "core/x"}
	for _, key := range rows {
		put(t, b, key, "value of "+key)
		wantRow(t, other, key, "value of "+key)
	}
	_, err := b.Update(t.Context(), func(x storage.Txn) error { return b.DestroyKeys(x, "ns/a") })
	must(t, err)
	fresh := another(t, e, root)
	for _, node := range []*barrier.Barrier{b, fresh} {
		for _, key := range rows {
			if key == "ns/a/core/x" || key == "ns/a/mount/m/x" {
				wantError(t, read(node, key), barrier.ErrNoKeys)
			} else {
				wantRow(t, node, key, "value of "+key)
			}
		}
	}
	_, err = b.Update(t.Context(), func(x storage.Txn) error { return x.Put("ns/a/mount/m/y", nil) })
	wantError(t, err, barrier.ErrNoKeys)
	// A node that follows forgets them, although the row of the inner keys is still there.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- other.Follow(ctx) }()
	eventually(t, "the other node forgets the keys", func() bool {
		return errors.Is(read(other, "ns/a/mount/m/x"), barrier.ErrNoKeys)
	})
	put(t, b, "core/y", "1") // another commit is followed
	eventually(t, "the other node goes on", func() bool { return read(other, "core/y") == nil })
	cancel()
	must(t, <-done)
	must(t, b.DeleteRows(t.Context(), "ns/a", nil))
	scopes, err := b.Scopes(t.Context())
	must(t, err)
	if want := []string{"core", "mount/m", "ns/b"}; !slices.Equal(scopes, want) {
		t.Errorf("scopes with keys are %v, want %v", scopes, want)
	}
	for _, key := range rows[:2] {
		wantError(t, read(b, key), storage.ErrNotFound)
	}
}

func TestKeysOfANamespaceRotate(t *testing.T) {
	b, e, root := opened(t)
	createScope(t, b, "ns/a")
	createScope(t, b, "ns/a/mount/m")
	put(t, b, "ns/a/core/x", "1")
	put(t, b, "ns/a/mount/m/x", "2")
	for _, scope := range []string{"ns/a", "ns/a/mount/m", "core"} {
		_, err := b.RotateKeys(t.Context(), scope)
		must(t, err)
	}
	fresh := another(t, e, root)
	wantRow(t, fresh, "ns/a/mount/m/x", "2")
	// The keys of the mount are wrapped by the first keys of the namespace until they
	// are rewrapped; nothing is lost with those.
	must(t, b.Rewrap(t.Context(), "ns/a", nil))
	status, err := b.KeyStatus(t.Context(), "ns/a")
	must(t, err)
	if status.Keys != 1 || status.Term != 2 {
		t.Errorf("after a rewrap: %+v", status)
	}
	must(t, b.Rewrap(t.Context(), "core", nil))
	fresh = another(t, e, root)
	wantRow(t, fresh, "ns/a/core/x", "1")
	wantRow(t, fresh, "ns/a/mount/m/x", "2")
	must(t, fresh.Rewrap(t.Context(), "ns/a/mount/m", nil))
	wantRow(t, another(t, e, root), "ns/a/mount/m/x", "2")
}

// read returns the error of reading a row.
func read(b *barrier.Barrier, key string) error {
	return b.View(context.Background(), func(r storage.Reader) error {
		_, err := r.Get(key)
		return err
	})
}

func wantRow(t *testing.T, b *barrier.Barrier, key, want string) {
	t.Helper()
	must(t, b.View(t.Context(), func(r storage.Reader) error {
		got, err := r.Get(key)
		if err == nil && string(got) != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
		return err
	}))
}
