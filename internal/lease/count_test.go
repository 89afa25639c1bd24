package lease_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// counts expects that the counts are those of the rows.
func (p place) counts(t *testing.T) {
	t.Helper()
	var is, rows lease.Stats
	if err := p.store.View(t.Context(), func(r storage.Reader) error {
		is, rows = lease.Stats{}, lease.Stats{}
		for prefix, n := range map[string]*int{"mount/": &is.Held, "failing/": &is.Failing, "aside/": &is.Aside} {
			if err := storage.All(r, lease.Prefix+"count/"+prefix, func(row storage.Entry) error {
				part, err := strconv.Atoi(string(row.Value))
				*n += part
				return err
			}); err != nil {
				return err
			}
		}
		return storage.All(r, lease.Prefix+"row/", func(row storage.Entry) error {
			var l lease.Lease
			if err := json.Unmarshal(row.Value, &l); err != nil {
				return err
			}
			switch e := l.Ending; {
			case e != nil && e.Gone:
				return nil
			case e != nil && e.Aside:
				rows.Aside++
			case e != nil && e.Error != "":
				rows.Failing++
			}
			rows.Held++
			return nil
		})
	}); err != nil || is != rows {
		t.Errorf("the counts are %+v, the rows %+v, %v", is, rows, err)
	}
}

// bounded opens two nodes over one store whose leases have bounds.
func bounded(t *testing.T, held int, bounds func(*lease.Lease) []lease.Bound) (one, two place) {
	b, store := newBank(), memory.New()
	o := enginetest.Options{Storage: store, Mount: engine.Mount{Path: "bank/"}, Leases: func(o *lease.Options) {
		o.MaxHeld, o.Bounds = func() int { return held }, bounds
	}}
	return place{enginetest.Open(t, kind(b), o), b, store}, place{enginetest.Open(t, kind(b), o), b, store}
}

// TestMostOfOneHolder: no holder has more leases than it may, however many it asks
// for at once on several nodes, and as many as it may.
func TestMostOfOneHolder(t *testing.T) {
	const most = 25
	one, two := bounded(t, most, nil)
	by := enginetest.Root()
	by.EntityID = "ann"
	var wait sync.WaitGroup
	var lent atomic.Int32
	for i := range 3 * most {
		wait.Go(func() {
			by := by
			by.TokenID = fmt.Sprint("t", i) // many tokens of one entity
			a := []place{one, two}[i%2].As(by, "POST", fmt.Sprint("creds/a", i), `{}`)
			switch {
			case a.Err == nil:
				lent.Add(1)
			case !fault.Is(a.Err, fault.Limited) || !strings.Contains(a.Err.Error(), "the entity ann holds 25 leases, and may hold 25 at once"):
				t.Error(a.Err)
			}
		})
	}
	wait.Wait()
	if n := len(one.bank.names()); lent.Load() != most || n != most {
		t.Errorf("%d leases and %d accounts were lent, of %d", lent.Load(), n, most)
	}
	one.counts(t)
	// Another entity has its own, and so have tokens without one.
	by.EntityID = "bob"
	if a := one.As(by, "POST", "creds/bob", `{}`); a.Err != nil {
		t.Error(a.Err)
	}
	by.EntityID, by.TokenID = "", "alone"
	for i := range most + 1 {
		if a := two.As(by, "POST", fmt.Sprint("creds/c", i), `{}`); (a.Err != nil) != (i == most) {
			t.Errorf("lease %d of a token without an entity: %v", i, a.Err)
		}
	}
	if a := two.As(by, "POST", "creds/c", `{}`); a.Err == nil || strings.Contains(a.Err.Error(), "alone") || !strings.Contains(a.Err.Error(), "this token") {
		t.Errorf("%v", a.Err)
	}
}

// TestRoomAgain: what was taken back, and no sooner, makes room, and what could not
// be made takes none.
func TestRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := bounded(t, 1, nil)
		stop := p.Work(t)
		defer stop()
		if a := p.Do("POST", "creds/none", `{"break":"no such role"}`); a.Err == nil {
			t.Fatal("it was made")
		}
		l := p.lend(t, "a", `{"ttl":3600}`)
		full := func(when string) {
			t.Helper()
			if a := p.Do("POST", "creds/b", `{}`); !fault.Is(a.Err, fault.Limited) {
				t.Errorf("%s: %v", when, a.Err)
			}
			p.counts(t)
		}
		full("the only one is there")
		p.bank.set(errors.New("some objects depend on it"))
		_ = p.Leases().Revoke(t.Context(), l.Key, true)
		full("it could not be taken back")
		time.Sleep(time.Hour)
		full("it is set aside")
		if s, err := p.Leases().Stats(t.Context()); err != nil || s != (lease.Stats{Held: 1, Aside: 1}) {
			t.Errorf("%+v, %v", s, err)
		}
		p.bank.set(nil)
		if err := p.Leases().Revoke(t.Context(), l.Key, true); err != nil {
			t.Fatal(err)
		}
		l = p.lend(t, "c", `{}`)
		if err := p.Leases().Revoke(t.Context(), l.Key, true); err != nil {
			t.Fatal(err)
		}
		// It is looked at once more later, and counts no longer.
		p.lend(t, "d", `{"ttl":60}`)
		time.Sleep(2 * time.Minute)
		p.clean(t)
	})
}

// TestBoundsOfGroups: a path, a glob, a mount and everything are counted as they are
// named, and each bound is exact also when it is far away at first.
func TestBoundsOfGroups(t *testing.T) {
	const uuid = "4c1e1b4e-6a2c-4d0f-8f5e-3b9a7d2c6e10" // enginetest's
	groups := map[string]lease.Group{
		"path": lease.OfPath(uuid, "creds/a"), "glob": lease.OfPath(uuid, "creds/a*"), "shard": lease.OfPath(uuid, "creds/a/*"),
		"mount": lease.OfMount("", uuid), "root": lease.OfNamespace(""), "other": lease.OfNamespace("other"), "all": lease.All(),
	}
	one, two := bounded(t, 0, func(l *lease.Lease) []lease.Bound {
		return []lease.Bound{{Max: 400, Groups: []lease.Group{groups["mount"]}, Refuse: func(n int) error {
			return fault.New(fault.Limited, "there are %d", n)
		}}}
	})
	for i := range 10 {
		one.lend(t, "a", `{}`)
		one.lend(t, fmt.Sprint("ab", i), `{}`)
		two.lend(t, "b", `{}`)
	}
	for name, want := range map[string]int{"path": 10, "glob": 20, "shard": 0, "mount": 30, "root": 30, "other": 0, "all": 30} {
		if n, err := one.Leases().Count(t.Context(), groups[name]); err != nil || n != want {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	var wait sync.WaitGroup
	var lent atomic.Int32
	for i := range 8 {
		wait.Go(func() {
			p := []place{one, two}[i%2]
			for range 60 {
				if a := p.Do("POST", fmt.Sprint("creds/c", i), `{}`); a.Err == nil {
					lent.Add(1)
				}
			}
		})
	}
	wait.Wait()
	if lent.Load() != 370 {
		t.Errorf("%d were lent, of 370", lent.Load())
	}
}
