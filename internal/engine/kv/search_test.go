package kv_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// below is the access of a caller who may read metadata below one path.
type below string

func (b below) Can(need policy.Capability, path string) bool {
	return need == policy.Read && strings.HasPrefix(path, string(b))
}

// scanning counts the entries that are read by scanning.
type scanning struct {
	storage.Engine
	scanned int
}

type scanReader struct {
	storage.Reader
	s *scanning
}

func (r scanReader) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	entries, err := r.Reader.Scan(prefix, after, limit)
	r.s.scanned += len(entries)
	return entries, err
}

func (s *scanning) View(ctx context.Context, fn func(storage.Reader) error) error {
	return s.Engine.View(ctx, func(r storage.Reader) error { return fn(scanReader{r, s}) })
}

func TestSearchShowsOnlyWhatTheCallerMaySee(t *testing.T) {
	e := seeded(t)
	e.Must(t, 200, "POST", "data/other/db", `{"data":{}}`)
	for access, want := range map[route.Access]string{
		nil:                              "",
		below("mount/metadata/app/"):     "app/db",
		below("mount/metadata/other/"):   "other/db",
		below("mount/"):                  "app/db other/db",
		below("elsewhere/metadata/app/"): "",
	} {
		a := e.As(route.Caller{DisplayName: "bob", Access: access}, "GET", "search/", "")
		out := a.Output.(kv.SearchResponse)
		if got := strings.Join(out.Keys, " "); got != want || len(out.Info) != len(out.Keys) {
			t.Errorf("with %v: %q and %d infos, want %q", access, got, len(out.Info), want)
		}
	}
}

// lister is the access of a caller who may list one folder.
type lister string

func (l lister) Can(need policy.Capability, path string) bool {
	return need == policy.List && path == string(l)
}

func TestSearchTellsListersOnlyNames(t *testing.T) {
	e := seeded(t)
	e.Must(t, 200, "POST", "data/top", `{"data":{}}`)
	for access, want := range map[lister]string{"mount/metadata/app/": "app/db", "mount/metadata/": "top", "mount/metadata/app": ""} {
		by := route.Caller{DisplayName: "bob", Access: access}
		out := e.As(by, "GET", "search/", "").Output.(kv.SearchResponse)
		if got := strings.Join(out.Keys, " "); got != want || len(out.Info) != 0 {
			t.Errorf("with list on %s: %q, info %v", access, got, out.Info)
		}
		for _, question := range []string{"owner=payments", "tags=env", "kind=k"} {
			if out := e.As(by, "GET", "search/?"+question, "").Output.(kv.SearchResponse); len(out.Keys) != 0 {
				t.Errorf("with list on %s: %s tells of %v", access, question, out.Keys)
			}
		}
	}
}

func TestSearchPagesAreBoundedAndComplete(t *testing.T) {
	store := &scanning{Engine: memory.New()}
	e := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: store})
	const secrets = 6500
	var all []string
	for i := range secrets {
		path := fmt.Sprintf("s/%05d", i)
		all = append(all, path)
		e.Must(t, 204, "POST", "metadata/"+path, `{"kind":"k"}`)
	}
	collect := func(by route.Caller, query string) (found []string, pages int) {
		after := ""
		for {
			store.scanned = 0
			a := e.As(by, "GET", query+"&after="+url.QueryEscape(after), "")
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			if store.scanned > 5200 {
				t.Fatalf("a page looks at %d secrets", store.scanned)
			}
			out := a.Output.(kv.SearchResponse)
			found = append(found, out.Keys...)
			if pages++; out.Cursor == "" {
				return found, pages
			}
			after = out.Cursor
		}
	}
	if found, pages := collect(enginetest.Root(), "search/?limit=1000"); !slices.Equal(found, all) || pages != 7 {
		t.Errorf("found %d in %d pages", len(found), pages)
	}
	// Nothing matches until the second page.
	if found, pages := collect(enginetest.Root(), "search/?q=06499"); len(found) != 1 || pages != 2 {
		t.Errorf("found %v in %d pages", found, pages)
	}
	if found, _ := collect(route.Caller{Access: below("mount/metadata/s/0123")}, "search/?limit=7"); len(found) != 10 {
		t.Errorf("found %v", found)
	}
}
