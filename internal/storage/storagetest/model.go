package storagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cofferhq/coffer/internal/storage"
)

// model is what a store must be equal to.
type model map[string]string

func (m model) scan(prefix, after string, limit int) []storage.Entry {
	var entries []storage.Entry
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(key, prefix) && (after == "" || key > after) && len(entries) < limit {
			entries = append(entries, storage.Entry{Key: key, Value: []byte(m[key])})
		}
	}
	return entries
}

func (m model) list(prefix, after string, limit int) []string {
	found := map[string]bool{}
	for key := range m {
		name, ok := strings.CutPrefix(key, prefix)
		if i := strings.IndexByte(name, '/'); i >= 0 {
			name = name[:i+1]
		}
		if ok && name > after {
			found[name] = true
		}
	}
	names := slices.Sorted(maps.Keys(found))
	return names[:min(limit, len(names))]
}

// testModel runs random transactions on the store and on a map.
func testModel(t *testing.T, o Options) {
	e := open(t, o)
	rapid.Check(t, func(rt *rapid.T) {
		m := model{}
		empty(rt, e)
		key := rapid.StringMatching(`[ab/.0\x{ff}]{1,5}`)
		part := rapid.StringMatching(`[ab/.0\x{ff}]{0,4}`)
		// What differs is an error, so that an Update may run again where it does not count.
		compare := func(r storage.Reader) error {
			k, prefix, after := key.Draw(rt, "key"), part.Draw(rt, "prefix"), part.Draw(rt, "after")
			limit := rapid.IntRange(1, 6).Draw(rt, "limit")
			got, found, err := read(r, k)
			if want, ok := m[k]; err != nil || found != ok || got != want {
				return fmt.Errorf("Get(%q) = %q, %v, %w; want %q, %v", k, got, found, err, want, ok)
			}
			entries, err := r.Scan(prefix, after, limit)
			if diff := cmp.Diff(m.scan(prefix, after, limit), entries); err != nil || diff != "" {
				return fmt.Errorf("Scan(%q, %q, %d): %w\n%s", prefix, after, limit, err, diff)
			}
			names, err := r.List(prefix, after, limit)
			if want := m.list(prefix, after, limit); err != nil || !slices.Equal(want, names) {
				return fmt.Errorf("List(%q, %q, %d) = %q, %w; want %q", prefix, after, limit, names, err, want)
			}
			return nil
		}
		rt.Repeat(map[string]func(*rapid.T){
			"view": func(*rapid.T) {
				if err := e.View(context.Background(), compare); err != nil {
					rt.Fatal(err)
				}
			},
			"update": func(*rapid.T) {
				before := maps.Clone(m)
				fails := rapid.IntRange(0, 4).Draw(rt, "fails") == 0
				_, err := e.Update(context.Background(), func(tx storage.Txn) error {
					m = maps.Clone(before) // it may run more than once
					for range rapid.IntRange(0, 5).Draw(rt, "writes") {
						k := key.Draw(rt, "key")
						if rapid.IntRange(0, 2).Draw(rt, "delete") == 0 {
							delete(m, k)
							if err := tx.Delete(k); err != nil {
								return err
							}
						} else {
							m[k] = rapid.StringN(0, 3, 12).Draw(rt, "value")
							if err := tx.Put(k, []byte(m[k])); err != nil {
								return err
							}
						}
						if err := compare(tx); err != nil {
							return err
						}
					}
					if fails {
						return errEnough
					}
					return nil
				})
				if fails && errors.Is(err, errEnough) {
					m, err = before, nil
				}
				if err != nil {
					rt.Fatal(err)
				}
			},
		})
	})
}

// empty deletes every key.
func empty(t rapid.TB, e storage.Engine) {
	for more := true; more; {
		_, err := e.Update(context.Background(), func(tx storage.Txn) error {
			entries, err := tx.Scan("", "", storage.MaxUpdateKeys)
			more = len(entries) == storage.MaxUpdateKeys
			for _, en := range entries {
				err = errors.Join(err, tx.Delete(en.Key))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
