package kv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// mortal is a storage engine that makes some Updates and then none, as the one
// of a server that dies between two of them. With torn set it also loses the
// Update at which it dies after its function ran.
type mortal struct {
	storage.Engine
	left int
	torn bool
}

var errDead = errors.New("the server died")

func (m *mortal) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if m.left--; m.left < 0 {
		if m.torn {
			_, err := m.Engine.Update(ctx, func(t storage.Txn) error { return errors.Join(fn(t), errDead) })
			return 0, err
		}
		return 0, errDead
	}
	return m.Engine.Update(ctx, fn)
}

// TestACrashLeavesAllOrNothing runs every change with a server that dies at
// every possible point, and compares what the next server reads with the state
// before and the state after.
func TestACrashLeavesAllOrNothing(t *testing.T) {
	changes := []struct{ method, path, body string }{
		{"POST", "data/app/db", `{"data":{"n":9}}`},
		{"POST", "data/app/db", `{"data":{"n":9},"options":{"stage":"pending"}}`},
		{"PATCH", "data/app/db", `{"data":{"n":9}}`},
		{"DELETE", "data/app/db", ``},
		{"POST", "delete/app/db", `{"versions":[1,2,3]}`},
		{"POST", "undelete/app/db", `{"versions":[1]}`},
		{"POST", "destroy/app/db", `{"versions":[1,2,3]}`},
		{"POST", "promote/app/db", `{}`},
		{"POST", "rollback/app/db", `{}`},
		{"POST", "labels/app/db", `{"label":"blue","version":2}`},
		{"DELETE", "labels/app/db?label=pending", ``},
		{"POST", "metadata/app/db", `{"owner":"x","max_versions":1}`},
		{"DELETE", "metadata/app/db", ``},
		{"POST", "config", `{"max_versions":1}`},
	}
	for _, c := range changes {
		for _, torn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %s %s torn=%v", c.method, c.path, c.body, torn), func(t *testing.T) {
				before := picture(t, seeded(t).Storage)
				for alive := 0; ; alive++ {
					if alive > 10 {
						t.Fatal("the change takes more than ten updates")
					}
					e := seeded(t)
					dying := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: &mortal{e.Storage, alive, torn}})
					a := dying.Do(c.method, c.path, c.body)
					if a.Err == nil {
						if alive != 1 {
							t.Errorf("the change took %d updates, want one", alive)
						}
						return
					}
					if !errors.Is(a.Err, errDead) {
						t.Fatal(a.Err)
					}
					if after := picture(t, e.Storage); after != before {
						t.Errorf("a change that failed after %d updates left\n%s\nbefore it was\n%s", alive, after, before)
					}
				}
			})
		}
	}
}

// picture is what a fresh server answers, without times.
func picture(t *testing.T, store storage.Engine) string {
	t.Helper()
	e := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: store})
	text := e.Do("GET", "config", "").Data
	for _, path := range []string{"data/app/db", "data/app/db?version=1", "data/app/db?version=2", "data/app/db?version=3", "labels/app/db"} {
		a := e.Do("GET", path, "")
		data := a.Data
		if out, ok := a.Output.(kv.ReadResponse); ok {
			data = fmt.Sprint(orNull(out.Data), out.Metadata.Version, out.Metadata.Gone, out.Metadata.Deletion.IsZero())
		}
		text += fmt.Sprintln(path, a.Status, data)
	}
	out, _ := e.Do("GET", "metadata/app/db", "").Output.(kv.MetadataResponse)
	return text + fmt.Sprintln(out.Owner, out.Labels, len(out.Versions), out.MaxVersions, out.Newest)
}

// TestClearingGoesOnAfterACrash deletes a secret with many versions on servers
// that each live for one piece of the clearing only.
func TestClearingGoesOnAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		e := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: store})
		e.Must(t, 204, "POST", "metadata/a", `{"max_versions":500}`)
		for range 500 {
			e.Must(t, 200, "POST", "data/a", `{"data":{"a":1}}`)
		}
		e.Must(t, 204, "DELETE", "metadata/a", "")
		lives := 0
		for ; countRows(t, store) > 0; lives++ {
			if lives > 20 {
				t.Fatalf("%d rows are left after %d lives", countRows(t, store), lives)
			}
			// One Update clears a piece, and the next dies.
			dying := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: &mortal{Engine: store, left: 1, torn: true}})
			refused(t, dying, 404, "", "GET", "data/a?version=400", "")
			refused(t, dying, 404, "", "GET", "metadata/a", "")
			stop := dying.Run(t)
			synctest.Wait()
			stop()
		}
		if lives < 3 {
			t.Errorf("it took %d lives, so nothing was interrupted", lives)
		}
	})
}
