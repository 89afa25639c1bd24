package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cofferhq/coffer/internal/storage"
)

func testValues(t *testing.T, o Options) {
	e := open(t, o)
	if _, found := get(t, e, "a"); found {
		t.Error("a key in an empty store")
	}
	put(t, e, "a", "1", "b", "", "ü/\xff", "binary\x00value")
	for key, want := range map[string]string{"a": "1", "b": "", "ü/\xff": "binary\x00value"} {
		if got, found := get(t, e, key); !found || got != want {
			t.Errorf("get %q = %q, %v; want %q", key, got, found, want)
		}
	}
	put(t, e, "a", "2")
	if got, _ := get(t, e, "a"); got != "2" {
		t.Errorf("after overwriting: %q", got)
	}
	remove(t, e, "a", "never there")
	if got, found := get(t, e, "a"); found {
		t.Errorf("after deleting: %q", got)
	}
	for _, key := range []string{"", strings.Repeat("k", 3000), "x\x00y"} {
		if _, found := get(t, e, key); found {
			t.Errorf("key %.10q exists", key)
		}
	}
	testOwnership(t, e)
}

// testOwnership: neither side sees what the other does to its slices.
func testOwnership(t *testing.T, e storage.Engine) {
	value := []byte("before")
	_, err := e.Update(context.Background(), func(tx storage.Txn) error {
		if err := tx.Put("own", value); err != nil {
			return err
		}
		value[0] = 'X'
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	value[1] = 'X'
	for range 2 {
		view(t, e, func(r storage.Reader) {
			got, err := r.Get("own")
			if err != nil || string(got) != "before" {
				t.Fatalf("%q, %v", got, err)
			}
			got[0] = 'X'
			entries, err := r.Scan("own", "", 1)
			if err != nil || len(entries) != 1 || string(entries[0].Value) != "before" {
				t.Fatalf("%v, %v", entries, err)
			}
			entries[0].Value[0] = 'X'
		})
	}
}

func testScan(t *testing.T, o Options) {
	e := open(t, o)
	put(t, e, "a", "1", "a/", "2", "a/b", "3", "a/b/c", "4", "a0", "5", "b", "6", "a/\xff", "7", "a/\xff\xff", "8", "\xff", "9")
	tests := []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"", "", 100, "a a/ a/b a/b/c a/\xff a/\xff\xff a0 b \xff"},
		{"", "", 9, "a a/ a/b a/b/c a/\xff a/\xff\xff a0 b \xff"},
		{"", "", 8, "a a/ a/b a/b/c a/\xff a/\xff\xff a0 b"},
		{"", "b", 8, "\xff"},
		{"", "\xff", 8, ""},
		{"a", "", 100, "a a/ a/b a/b/c a/\xff a/\xff\xff a0"},
		{"a", "a", 2, "a/ a/b"},
		{"a/", "", 2, "a/ a/b"},
		{"a/", "a/b", 1, "a/b/c"},
		{"a/", "a/aaa", 2, "a/b a/b/c"},
		{"a/", "A", 1, "a/"},
		{"a/", "a/\xff\xff", 5, ""},
		{"a/", "b", 5, ""},
		{"a/", "a0", 5, ""},
		{"a/\xff", "", 5, "a/\xff a/\xff\xff"},
		{"\xff", "", 5, "\xff"},
		{"\xff\xff", "", 5, ""},
		{"nothing", "", 5, ""},
	}
	view(t, e, func(r storage.Reader) {
		for _, tt := range tests {
			entries, err := r.Scan(tt.prefix, tt.after, tt.limit)
			if err != nil {
				t.Error(err)
			}
			keys := make([]string, len(entries))
			for i, en := range entries {
				keys[i] = en.Key
			}
			if got := strings.Join(keys, " "); got != tt.want {
				t.Errorf("Scan(%q, %q, %d) = %q, want %q", tt.prefix, tt.after, tt.limit, got, tt.want)
			}
		}
		for _, limit := range []int{0, -1} {
			if _, err := r.Scan("", "", limit); err == nil {
				t.Errorf("Scan with limit %d did not fail", limit)
			}
			if _, err := r.List("", "", limit); err == nil {
				t.Errorf("List with limit %d did not fail", limit)
			}
		}
	})
	for _, n := range []int{255, 256, 257, 512} { // edges of the pages of All
		prefix := fmt.Sprintf("page%d/", n)
		fill(t, e, n, func(i int) string { return fmt.Sprintf("%s%04d", prefix, i) }, "v")
		if got := count(t, e, prefix); got != n {
			t.Errorf("All returned %d of %d keys", got, n)
		}
	}
}

// fill puts n keys with the same value.
func fill(t testing.TB, e storage.Engine, n int, key func(i int) string, value string) {
	t.Helper()
	for i := 0; i < n; i += storage.MaxUpdateKeys {
		var pairs []string
		for j := i; j < min(i+storage.MaxUpdateKeys, n); j++ {
			pairs = append(pairs, key(j), value)
		}
		put(t, e, pairs...)
	}
}

func testList(t *testing.T, o Options) {
	e := open(t, o)
	put(t, e, "a", "", "a.b", "", "a/", "", "a/b", "", "a/b/c", "", "a/b/d", "", "a//x", "", "a/c/d/e", "", "a0", "", "b/c", "", "\xff/x", "")
	tests := []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"", "", 100, "a a.b a/ a0 b/ \xff/"},
		{"", "", 3, "a a.b a/"},
		{"", "", 1, "a"},
		{"", "a", 1, "a.b"},
		{"", "a.b", 100, "a/ a0 b/ \xff/"},
		{"", "a/", 100, "a0 b/ \xff/"},
		{"", "a/zzz", 100, "a0 b/ \xff/"},
		{"", "b", 100, "b/ \xff/"},
		{"", "\xff/", 100, ""},
		{"a/", "", 100, "/ b b/ c/"},
		{"a/", "/", 100, "b b/ c/"},
		{"a/", "b", 100, "b/ c/"},
		{"a/b/", "", 100, "c d"},
		{"a/b/", "c", 1, "d"},
		{"b/", "", 1, "c"},
		{"b/c/", "", 1, ""},
		{"nothing/", "", 1, ""},
	}
	view(t, e, func(r storage.Reader) {
		for _, tt := range tests {
			names, err := r.List(tt.prefix, tt.after, tt.limit)
			if err != nil {
				t.Error(err)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("List(%q, %q, %d) = %q, want %q", tt.prefix, tt.after, tt.limit, got, tt.want)
			}
		}
	})
}

// testListCost: two names cost much less than the keys below them.
func testListCost(t *testing.T, o Options) {
	e := open(t, o)
	fill(t, e, o.Keys, func(i int) string { return fmt.Sprintf("big/%08d", i) }, "v")
	put(t, e, "small/x", "v")
	var list, scan time.Duration
	view(t, e, func(r storage.Reader) {
		list = fastest(5, func() {
			names, err := r.List("", "", 10)
			if diff := cmp.Diff([]string{"big/", "small/"}, names); err != nil || diff != "" {
				t.Errorf("%v, %v", diff, err)
			}
		})
		scan = fastest(2, func() {
			if err := storage.All(r, "big/", func(storage.Entry) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	})
	t.Logf("%d keys: list %v, scan %v", o.Keys, list, scan)
	if list*10 > scan { // a round trip to a server counts for much on a busy machine
		t.Errorf("listing 2 names took %v, reading the %d keys below them %v", list, o.Keys, scan)
	}
}

func fastest(n int, fn func()) time.Duration {
	best := time.Hour
	for range n {
		start := time.Now()
		fn()
		best = min(best, time.Since(start))
	}
	return best
}

// testLimits: each limit is met exactly, and one more is refused, even when
// the function ignores it.
func testLimits(t *testing.T, o Options) {
	e := open(t, o)
	long := strings.Repeat("k", storage.MaxKeyBytes)
	big := bytes.Repeat([]byte("v"), storage.MaxUpdateBytes-len("big")-o.Overhead)
	many := func(n int) func(storage.Txn) {
		return func(tx storage.Txn) {
			for i := range n {
				if i%2 == 0 {
					_ = tx.Put(fmt.Sprintf("many/%d", i), nil)
				} else {
					_ = tx.Delete(fmt.Sprintf("many/%d", i))
				}
			}
		}
	}
	tests := []struct {
		name string
		want error
		fn   func(storage.Txn)
	}{
		{"long key", nil, func(tx storage.Txn) { _ = tx.Put(long, nil) }},
		{"longer key", storage.ErrInvalidKey, func(tx storage.Txn) { _ = tx.Put(long+"k", nil) }},
		{"empty key", storage.ErrInvalidKey, func(tx storage.Txn) { _ = tx.Put("", nil) }},
		{"NUL in key", storage.ErrInvalidKey, func(tx storage.Txn) { _ = tx.Put("a\x00", nil) }},
		{"deleted empty key", storage.ErrInvalidKey, func(tx storage.Txn) { _ = tx.Delete("") }},
		{"big value", nil, func(tx storage.Txn) { _ = tx.Put("big", big) }},
		{"bigger value", storage.ErrTooLarge, func(tx storage.Txn) { _ = tx.Put("big2", big) }},
		{"big value and a key", storage.ErrTooLarge, func(tx storage.Txn) { _ = tx.Put("big", big); _ = tx.Put("k", nil) }},
		{"big value replaced", nil, func(tx storage.Txn) { _ = tx.Put("big", big); _ = tx.Put("big", big) }},
		{"big value deleted again", nil, func(tx storage.Txn) {
			_ = tx.Put("big", big)
			_ = tx.Delete("big")
			_ = tx.Put("k", nil)
		}},
		{"many keys", nil, many(storage.MaxUpdateKeys)},
		{"more keys", storage.ErrTooLarge, many(storage.MaxUpdateKeys + 1)},
		{"many keys, one again", nil, func(tx storage.Txn) { many(storage.MaxUpdateKeys)(tx); _ = tx.Put("many/7", nil) }},
	}
	for _, tt := range tests {
		_, err := e.Update(context.Background(), func(tx storage.Txn) error {
			if err := tx.Put("mark", []byte(tt.name)); err != nil && tt.want == nil {
				return err
			}
			if err := tx.Delete("mark"); err != nil {
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		before := count(t, e, "")
		_, err = e.Update(context.Background(), func(tx storage.Txn) error { tt.fn(tx); return nil })
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if after := count(t, e, ""); tt.want != nil && after != before {
			t.Errorf("%s: refused and left %d keys", tt.name, after-before)
		}
	}
	if got, _ := get(t, e, long); got != "" {
		t.Errorf("long key has %q", got)
	}
}

func testSub(t *testing.T, o Options) {
	e := open(t, o)
	sub := storage.Sub(e, "mount/1/")
	put(t, sub, "x", "1", "y/z", "2")
	put(t, e, "mount/10", "other", "mount/1", "other", "mount/1/", "self")
	if got, _ := get(t, e, "mount/1/x"); got != "1" {
		t.Errorf("below the prefix: %q", got)
	}
	view(t, sub, func(r storage.Reader) {
		names, err := r.List("", "", 10)
		if diff := cmp.Diff([]string{"x", "y/"}, names); err != nil || diff != "" {
			t.Errorf("%v %v", diff, err)
		}
		entries, err := r.Scan("", "x", 10)
		if diff := cmp.Diff([]storage.Entry{{Key: "y/z", Value: []byte("2")}}, entries); err != nil || diff != "" {
			t.Errorf("%v %v", diff, err)
		}
	})
	if _, err := sub.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("", nil) }); !errors.Is(err, storage.ErrInvalidKey) {
		t.Errorf("empty key below a prefix: %v", err)
	}
}
