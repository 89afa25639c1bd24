package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/namespace"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// rotates reports whether a key's rotation is due at some time.
func (f *fixture) rotates(namespace, key string) (there bool) {
	f.t.Helper()
	must(f.t, f.Barrier.View(f.t.Context(), func(r storage.Reader) (err error) {
		_, there, err = f.Rotations.queue.Due(r, jobID(namespace, key))
		return err
	}))
	return there
}

func TestEmergency(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.key("k", KeyChange{})
	f.role("r", RoleChange{})
	old := f.issue(Ask{Role: "r"}).Token.Reveal()
	soon, err := f.Rotate(t.Context(), "k", ptr(time.Duration(0)))
	must(t, err)
	if !soon {
		t.Error("nobody is told that the new pair was published just now")
	}
	if why, _ := f.Introspect(t.Context(), old, ""); why == "" || verifies(t, f.document(), old) {
		t.Error("a token of a withdrawn pair holds")
	}
	if again := f.issue(Ask{Role: "r"}).Token.Reveal(); !verifies(t, f.document(), again) {
		t.Error("a token of the new pair does not hold")
	}
	_, err = f.Rotate(t.Context(), "k", nil)
	must(t, err)
	k, err := f.Key(t.Context(), "k")
	must(t, err)
	if len(k.Old) != 1 || k.Old[0].Private != nil {
		t.Errorf("kept of the pairs that sign no more is %+v", k.Old)
	}
	if _, err := f.Rotate(t.Context(), "no", nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("rotating what is not there: %v", err)
	}
	if _, err := f.Rotate(t.Context(), "k", ptr(-time.Second)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a negative verification: %v", err)
	}
}

// TestCachedKeysNeverFail is a verifier that keeps the document for as long as it may,
// and never asks for a key that it does not know, through rotations and changes.
func TestCachedKeysNeverFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.run(t.Context())()
		f.key("k", KeyChange{Rotation: ptr(time.Hour), Verification: ptr(time.Hour)})
		f.role("r", RoleChange{TTL: ptr(time.Hour)})
		var kept jose.JSONWebKeySet
		var until time.Time
		type live struct {
			token string
			until time.Time
		}
		var tokens []live
		kids := map[string]bool{}
		for step := range 900 {
			switch step {
			case 262: // while a document is about that was fetched shortly before
				f.key("k", KeyChange{Rotation: ptr(time.Minute), Verification: ptr(10 * time.Minute)})
			case 400:
				f.key("k", KeyChange{Algorithm: ptr("EdDSA")})
			case 520:
				f.key("k", KeyChange{Rotation: ptr(20 * time.Minute)})
			case 700:
				f.key("k", KeyChange{Algorithm: ptr("ES384")})
			}
			if step == 261 {
				f.role("r", RoleChange{TTL: ptr(5 * time.Minute)})
			}
			now := time.Now()
			if !now.Before(until) {
				p, err := f.Published(t.Context())
				must(t, err)
				kept, until = f.document(), now.Add(p.MaxAge)
			}
			out := f.issue(Ask{Role: "r"})
			kids[out.KeyID] = true
			if !verifies(t, kept, out.Token.Reveal()) {
				t.Fatalf("step %d: the kept document lacks the key that signs", step)
			}
			tokens = append(tokens, live{out.Token.Reveal(), out.Expires})
			fresh := f.document()
			tokens = slices.DeleteFunc(tokens, func(l live) bool { return !now.Before(l.until) })
			for _, l := range tokens {
				if l.until.Sub(now) < 8*time.Second && !verifies(t, fresh, l.token) {
					t.Fatalf("step %d: a token that ends at %v is not verified at %v", step, l.until, now)
				}
			}
			if len(fresh.Keys) > 40 {
				t.Fatalf("step %d: %d keys are published", step, len(fresh.Keys))
			}
			time.Sleep(7 * time.Second)
		}
		if len(kids) < 20 {
			t.Errorf("only %d pairs have signed", len(kids))
		}
	})
}

// TestRotatedOnceWhoeverDies has two nodes over one store, of which one after the other
// dies and comes back.
func TestRotatedOnceWhoeverDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := opened(t, memory.New())
		nodes := []*fixture{newNode(t, b, "n0"), newNode(t, b, "n1")}
		a := nodes[0]
		a.key("k", KeyChange{Rotation: ptr(time.Minute), Verification: ptr(time.Minute)})
		seen := []string{}
		k, err := a.Key(t.Context(), "k")
		must(t, err)
		begun := k.Rotates.Add(-time.Minute)
		look := func() {
			t.Helper()
			k, err := a.Key(t.Context(), "k")
			must(t, err)
			if len(seen) == 0 || seen[len(seen)-1] != k.Signing.ID {
				if slices.Contains(seen, k.Signing.ID) {
					t.Fatal("a pair signs again")
				}
				seen = append(seen, k.Signing.ID)
			}
		}
		stops := []func(){nodes[0].run(t.Context()), nodes[1].run(t.Context())}
		for i := range 1200 {
			if i%97 == 0 {
				n := i / 97 % 2
				stops[n]()
				again := newNode(t, b, fmt.Sprint("n", n))
				again.rotated = nodes[n].rotated
				nodes[n], stops[n] = again, again.run(t.Context())
			}
			time.Sleep(time.Second)
			look()
		}
		for _, stop := range stops {
			stop()
		}
		look() // it may have been rotated at the last moment
		took := time.Since(begun)
		if want := int(took / time.Minute); len(seen) < want-2 || len(seen) > want+1 {
			t.Errorf("%d pairs in %v", len(seen), took)
		}
		var told []string
		for _, n := range nodes {
			told = append(told, n.rotated...)
		}
		if want := seen[1:]; !slices.Equal(slices.Sorted(slices.Values(told)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%d rotations are recorded, of %d", len(told), len(want))
		}
	})
}

// TestNoUseOfWithdrawnPairs issues while another node withdraws what signs.
func TestNoUseOfWithdrawnPairs(t *testing.T) {
	t.Parallel()
	b := opened(t, memory.New())
	ctx, cancel := context.WithCancel(t.Context())
	following := make(chan struct{})
	go func() { defer close(following); _ = b.Follow(ctx) }()
	defer func() { cancel(); <-following }()
	one, two := newNode(t, b, "n1"), newNode(t, b, "n2")
	one.key("k", KeyChange{})
	one.role("r", RoleChange{})
	two.document()
	for range 20 {
		_, err := one.Rotate(t.Context(), "k", ptr(time.Duration(0)))
		must(t, err)
		k, err := one.Key(t.Context(), "k")
		must(t, err)
		if got := two.issue(Ask{Role: "r", Entity: two.entity}); got.KeyID != k.Signing.ID {
			t.Fatalf("signed with %s, and %s signs", got.KeyID, k.Signing.ID)
		}
		if !verifies(t, one.document(), two.issue(Ask{Role: "r", Entity: two.entity}).Token.Reveal()) {
			t.Fatal("this node's own document is old")
		}
	}
}

// TestNamespaceAndItsEnd has the key of a namespace rotate, until that is deleted.
func TestNamespaceAndItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.run(t.Context())()
		spaces := &namespace.Store{
			Barrier: f.Barrier, Log: f.Log,
			Taken:    func(storage.Reader, *namespace.Namespace, string) error { return nil },
			Returned: func(storage.Reader, *namespace.Namespace) error { return nil },
			TakeBack: func(context.Context, string) error { return nil },
		}
		n, err := spaces.Create(t.Context(), "web/", nil)
		must(t, err)
		inside := New(Options{
			Barrier: f.Barrier, Prefix: n.Prefix(), Namespace: n.ID, Path: func() string { return n.Path },
			Identities: f.ids, Rotations: f.Rotations, Address: f.Address, Log: f.Log,
		})
		defer inside.Close()
		_, err = inside.WriteKey(t.Context(), "k", KeyChange{Algorithm: ptr("ES256"), Rotation: ptr(time.Hour), Verification: ptr(time.Hour)})
		must(t, err)
		f.key("k", KeyChange{Rotation: ptr(time.Hour), Verification: ptr(time.Hour)}) // another one, of the root
		before, err := inside.Key(t.Context(), "k")
		must(t, err)
		time.Sleep(61 * time.Minute)
		after, err := inside.Key(t.Context(), "k")
		must(t, err)
		own, err := f.Key(t.Context(), "k")
		must(t, err)
		if after.Signing.ID != before.Next.ID || own.Signing.ID == after.Signing.ID || !slices.Contains(f.rotated, after.Signing.ID) {
			t.Error("it does not rotate, or not by itself")
		}
		must(t, spaces.Delete(t.Context(), "web/"))
		if !f.rotates(n.ID, "k") {
			t.Error("the test deletes the job itself")
		}
		time.Sleep(time.Hour)
		if f.rotates(n.ID, "k") || !f.rotates("", "k") {
			t.Error("the job of a deleted namespace's key is there, or another's is not")
		}
		if failing, err := f.Rotations.queue.Failing(t.Context(), "", 10); len(failing) > 0 || err != nil {
			t.Errorf("it fails: %v %v", failing, err)
		}
	})
}

// faulty is an engine that loses every third commit, and says of every third that it
// may be lost although it is not. arm has it do something after the next View.
type faulty struct {
	storage.Engine
	on    atomic.Bool
	count atomic.Int64
	after atomic.Pointer[func()]
}

func (e *faulty) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if !e.on.Load() {
		return e.Engine.Update(ctx, fn)
	}
	switch e.count.Add(1) % 3 {
	case 0:
		return 0, storage.ErrUnavailable
	case 1:
		if _, err := e.Engine.Update(ctx, fn); err != nil {
			return 0, err
		}
		return 0, storage.ErrUncertain
	}
	return e.Engine.Update(ctx, fn)
}

func (e *faulty) View(ctx context.Context, fn func(storage.Reader) error) error {
	err := e.Engine.View(ctx, fn)
	if do := e.after.Swap(nil); do != nil {
		(*do)()
	}
	return err
}

// TestRotatedOnceThoughCommitsAreLost wants one rotation each period of an engine on
// which nobody can rely.
func TestRotatedOnceThoughCommitsAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &faulty{Engine: memory.New()}
		f := newNode(t, opened(t, e), "n1")
		f.key("k", KeyChange{Rotation: ptr(time.Minute), Verification: ptr(time.Minute)})
		e.on.Store(true)
		defer f.run(t.Context())()
		var last Key
		var at time.Time
		turns := 0
		for range 1800 {
			time.Sleep(time.Second)
			k, err := f.Key(t.Context(), "k")
			must(t, err)
			if k.Signing.ID == last.Signing.ID {
				continue
			}
			if last.Next.ID != "" && k.Signing.ID != last.Next.ID {
				t.Fatal("a pair signs that was not the next")
			}
			if !at.IsZero() && time.Since(at) < 59*time.Second {
				t.Fatalf("it is rotated again after %v", time.Since(at))
			}
			last, at = *k, time.Now()
			turns++
		}
		if turns < 20 {
			t.Errorf("it was rotated %d times in half an hour", turns)
		}
	})
}

// TestKeysReadWhileTheyChange reads the rows, has them changed before it keeps what it
// read, and must not go by it.
func TestKeysReadWhileTheyChange(t *testing.T) {
	t.Parallel()
	e := &faulty{Engine: memory.New()}
	b := opened(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	following := make(chan struct{})
	go func() { defer close(following); _ = b.Follow(ctx) }()
	defer func() { cancel(); <-following }()
	one, two := newNode(t, b, "n1"), newNode(t, b, "n2")
	one.key("k", KeyChange{})
	for !b.Fresh() {
		time.Sleep(time.Millisecond)
	}
	change := func() {
		_, err := one.Rotate(context.WithoutCancel(t.Context()), "k", ptr(time.Duration(0)))
		if err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond) // until the other has heard of it
	}
	two.changes.Add(1)
	e.after.Store(&change)
	two.document()
	p, err := two.Published(t.Context())
	must(t, err)
	k, err := one.Key(t.Context(), "k")
	must(t, err)
	if !strings.Contains(string(p.Keys), k.Next.ID) {
		t.Error("what was read before a change is published after it")
	}
}
