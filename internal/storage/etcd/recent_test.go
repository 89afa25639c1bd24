package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
)

// TestReadsRepeat: what an Update reads twice is the same both times, or the run
// does not count, also when the rows that its node remembers change in between.
func TestReadsRepeat(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	get := func(r storage.Reader) (string, error) {
		value, err := r.Get("k")
		if errors.Is(err, storage.ErrNotFound) {
			return "none", nil
		}
		return string(value), err
	}
	scan := func(r storage.Reader) (string, error) {
		rows, err := r.Scan("k", "", 1)
		if err != nil || len(rows) == 0 {
			return "none", err
		}
		return string(rows[0].Value), nil
	}
	told := func(a *Engine) {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if row, _ := a.recent.Get("k"); string(row.Value) == "2" {
				return
			}
		}
		t.Error("the change was not told")
	}
	forgotten := func(a *Engine) { told(a); a.recent.Forget() }
	for name, how := range map[string]struct {
		before  string // the row, if any, that the node remembers
		between func(a *Engine)
		second  func(storage.Reader) (string, error)
	}{
		"told":                         {"1", told, get},
		"told of a first one":          {"", told, get},
		"told and forgotten":           {"1", forgotten, get},
		"scanned":                      {"1", func(*Engine) {}, scan},
		"scanned when there was none":  {"", func(*Engine) {}, scan},
		"scanned, told, and forgotten": {"1", forgotten, scan},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Endpoints: c.Endpoints(), Path: c.Path()}
			a, b := node(t, o), node(t, o)
			put := func(e *Engine, value string) {
				if _, err := e.Update(t.Context(), func(tx storage.Txn) error { return tx.Put("k", []byte(value)) }); err != nil {
					t.Error(err)
				}
			}
			if how.before != "" {
				put(a, how.before)
			}
			if _, err := a.Update(t.Context(), func(tx storage.Txn) error { _, err := get(tx); return err }); err != nil {
				t.Fatal(err)
			}
			var first, second string
			runs := 0
			_, err := a.Update(context.Background(), func(tx storage.Txn) (err error) {
				runs++
				if first, err = get(tx); err != nil {
					return err
				}
				if runs == 1 {
					put(b, "2")
					how.between(a)
				}
				if second, err = how.second(tx); err != nil {
					return err
				}
				return tx.Put("read", []byte(first+second))
			})
			if err != nil || first != "2" || second != "2" || runs < 2 {
				t.Errorf("the run that counts, the %d., has read %q and then %q: %v", runs, first, second, err)
			}
		})
	}
}

// TestAhead: a run that follows another finds the small rows which that has read
// without asking for each.
func TestAhead(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	e := node(t, Options{Endpoints: c.Endpoints(), Path: c.Path(), RequestTimeout: 200 * time.Millisecond})
	small := make([]byte, mostAheadValue)
	_, err := e.Update(t.Context(), func(tx storage.Txn) error {
		return errors.Join(tx.Put("small", small), tx.Put("large", append(small, 0)), tx.Put("empty", nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"small", "large", "empty"}
	for i := range 3 * aheadAtOnce {
		keys = append(keys, fmt.Sprint("absent/", i))
	}
	read := func(s *snapshot) (failed []string) {
		s.seen = map[string]int64{}
		for _, key := range slices.Concat(keys, keys) {
			value, found, err := s.Get(key)
			is := map[string]int{"small": mostAheadValue, "large": mostAheadValue + 1, "empty": 0}
			switch want, there := is[key]; {
			case err != nil:
				failed = append(failed, key)
			case found != there || len(value) != want || found && s.seen[key] == 0:
				t.Errorf("%s: found %v, %d bytes, revision %d", key, found, len(value), s.seen[key])
			}
		}
		return failed
	}
	first, second := e.snapshot(t.Context()), e.snapshot(t.Context())
	defer first.cancel()
	defer second.cancel()
	if failed := read(first); failed != nil {
		t.Fatal(failed)
	}
	if err := second.ahead(first.small); err != nil {
		t.Fatal(err)
	}
	if err := e.disconnect(); err != nil {
		t.Fatal(err)
	}
	if failed := read(second); !slices.Equal(failed, []string{"large", "large"}) {
		t.Errorf("asked for: %v", failed)
	}
}
