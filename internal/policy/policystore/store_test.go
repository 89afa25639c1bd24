package policystore_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a barrier on e; the first time with a new root key.
func open(t testing.TB, e storage.Engine, root []byte) (*barrier.Barrier, []byte) {
	t.Helper()
	b := barrier.New(e, slog.New(slog.DiscardHandler))
	if root == nil {
		var err error
		if root, err = barrier.NewRootKey(); err != nil {
			t.Fatal(err)
		}
		if err := b.Initialize(t.Context(), root); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Open(t.Context(), slices.Clone(root)); err != nil {
		t.Fatal(err)
	}
	return b, root
}

// newStore returns a store whose cache follows the watch.
func newStore(t testing.TB, b *barrier.Barrier) *policystore.Store {
	t.Helper()
	s := policystore.New(b, policystore.NewCache(b, ""), "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Follow(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func fixture(t testing.TB) *policystore.Store {
	b, _ := open(t, memory.New(), nil)
	s := newStore(t, b)
	if err := s.Seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *policystore.Store, name, text string) {
	t.Helper()
	if _, err := s.Put(t.Context(), name, text); err != nil {
		t.Fatal(err)
	}
}

// allows reports whether the named policies allow reading path.
func allows(t testing.TB, s *policystore.Store, path string, names ...string) bool {
	t.Helper()
	acl, err := s.ACL(t.Context(), names, nil)
	if err != nil {
		t.Fatal(err)
	}
	return acl.Allows(policy.Request{Path: path, Need: policy.Read})
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestSeed(t *testing.T) {
	s := fixture(t)
	names, err := s.List(t.Context())
	if err != nil || !slices.Equal(names, []string{"default", "root"}) {
		t.Fatalf("%v %v", names, err)
	}
	acl, err := s.ACL(t.Context(), []string{"default"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, need := range map[string]policy.Capability{
		"auth/token/lookup-self": policy.Read, "auth/token/renew-self": policy.Update, "auth/token/revoke-self": policy.Update,
		"sys/capabilities-self": policy.Update, "sys/wrapping/wrap": policy.Update, "cubbyhole/a/b": policy.Create, "cubbyhole/": policy.List,
		"sys/internal/ui/mounts/secret/x": policy.Read,
	} {
		if !acl.Allows(policy.Request{Path: path, Need: need}) {
			t.Errorf("default does not allow %v on %s", need, path)
		}
	}
	for _, path := range []string{"secret/data/x", "sys/mounts", "sys/policies/acl/default", "auth/token/lookup"} {
		if acl.Allows(policy.Request{Path: path, Need: policy.Read}) {
			t.Errorf("default allows reading %s", path)
		}
	}
	put(t, s, "default", `path "secret/*" { capabilities = ["read"] }`)
	if err := s.Seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !allows(t, s, "secret/x", "default") {
		t.Error("a second start undid an edit of the default policy")
	}
}

func TestWriteReadListDelete(t *testing.T) {
	engine := memory.New()
	b, root := open(t, engine, nil)
	s := newStore(t, b)
	text := `path "secret/app/*" { capabilities = ["read"] }`
	put(t, s, " App ", text)
	p, err := s.Get(t.Context(), "APP")
	if err != nil || p.Name != "app" || p.Source != text {
		t.Fatalf("%+v %v", p, err)
	}
	again, _ := open(t, engine, root)
	if p, err := newStore(t, again).Get(t.Context(), "app"); err != nil || p.Source != text {
		t.Fatalf("after a restart: %+v %v", p, err)
	}
	put(t, s, "app", `path "secret/other" { capabilities = ["read"] }`)
	if allows(t, s, "secret/app/x", "app") || !allows(t, s, "secret/other", "app") {
		t.Error("a rewritten policy means what it meant")
	}
	if err := s.Delete(t.Context(), "App"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "app"); err != nil {
		t.Errorf("deleted twice: %v", err)
	}
	if _, err := s.Get(t.Context(), "app"); !fault.Is(err, fault.NotFound) || err.Error() != "" {
		t.Errorf("%v", err)
	}
	if allows(t, s, "secret/other", "app") {
		t.Error("a deleted policy still grants")
	}
}

func TestNames(t *testing.T) {
	s := fixture(t)
	for _, name := range []string{"a", "team-a/app.v2", "_internal", "with space", "a@b:c+d", strings.Repeat("n", policystore.MaxNameBytes), "UPPER"} {
		put(t, s, name, `path "x" { capabilities = ["read"] }`)
	}
	for _, name := range []string{"", " ", "a,b", "-a", "a\x00b", "a\nb", "ä", "a*", "a\"b", strings.Repeat("n", policystore.MaxNameBytes+1)} {
		if _, err := s.Put(t.Context(), name, `path "x" { capabilities = ["read"] }`); !fault.Is(err, fault.Invalid) {
			t.Errorf("write %q: %v", name, err)
		}
		if _, err := s.Get(t.Context(), name); !fault.Is(err, fault.Invalid) {
			t.Errorf("read %q: %v", name, err)
		}
		if err := s.Delete(t.Context(), name); !fault.Is(err, fault.Invalid) {
			t.Errorf("delete %q: %v", name, err)
		}
	}
}

func TestPoliciesThatStay(t *testing.T) {
	s := fixture(t)
	all := `path "*" { capabilities = ["read", "sudo"] }`
	for name, writable := range map[string]bool{"root": false, "ROOT": false, "response-wrapping": false, "default": true} {
		_, err := s.Put(t.Context(), name, all)
		if (err == nil) != writable || !writable && !strings.Contains(err.Error(), "cannot update") {
			t.Errorf("write %s: %v", name, err)
		}
		if err := s.Delete(t.Context(), name); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cannot delete") {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	if allows(t, s, "secret/x", "response-wrapping") {
		t.Error("the tokens of wrapped answers were given more")
	}
	p, err := s.Get(t.Context(), "root")
	if err != nil || p.Name != "root" || p.Source != "" {
		t.Errorf("%+v %v", p, err)
	}
}

func TestWhatIsNoPolicyIsRefusedAndKeepsTheOld(t *testing.T) {
	s := fixture(t)
	put(t, s, "app", `path "secret/a" { capabilities = ["read"] }`)
	for _, text := range []string{`path "x" {`, `path "x" { capabilities = ["fly"] }`, `{"path": 7}`} {
		if _, err := s.Put(t.Context(), "app", text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if !allows(t, s, "secret/a", "app") {
		t.Error("a refused policy replaced the one there was")
	}
}

func TestUnknownNamesGrantNothing(t *testing.T) {
	s := fixture(t)
	put(t, s, "app", `path "secret/a" { capabilities = ["read"] }`)
	for _, names := range [][]string{nil, {}, {"nobody"}, {""}, {"App"}, {"a\x00b"}, {strings.Repeat("x", 100_000)}, {"../policies/app"}, {"app\x00"}, {"Root"}} {
		if allows(t, s, "secret/a", names...) {
			t.Errorf("%.20q allow reading", names)
		}
	}
	if !allows(t, s, "secret/a", "nobody", "a\x00b", "app") {
		t.Error("an unknown name takes away what a known one grants")
	}
	if !allows(t, s, "anything", "app", "root") {
		t.Error("root does not allow everything")
	}
}

func TestDenyOfOnePolicyBeatsAnother(t *testing.T) {
	s := fixture(t)
	put(t, s, "yes", `path "secret/*" { capabilities = ["read"] }`)
	put(t, s, "no", `path "secret/*" { capabilities = ["deny"] }`)
	if !allows(t, s, "secret/a", "yes") || allows(t, s, "secret/a", "yes", "no") || allows(t, s, "secret/a", "no", "yes") {
		t.Error("deny does not win")
	}
}

func TestTemplatesGrantNothingToCallersWithoutAnEntity(t *testing.T) {
	s := fixture(t)
	put(t, s, "own", `path "secret/{{identity.entity.id}}/*" { capabilities = ["read"] }`)
	for _, path := range []string{"secret//x", "secret/x", "secret/{{identity.entity.id}}/x", "secret/identity.entity.id/x"} {
		if allows(t, s, path, "own") {
			t.Errorf("a template of nobody allows %s", path)
		}
	}
}

// Another node's change is one that goes past this store's barrier.
func TestTheCacheFollowsOtherNodes(t *testing.T) {
	engine := memory.New()
	b, root := open(t, engine, nil)
	here := newStore(t, b)
	other, _ := open(t, engine, root)
	there := newStore(t, other)
	put(t, there, "app", `path "secret/a" { capabilities = ["read"] }`)
	eventually(t, "another node's policy is not seen", func() bool { return allows(t, here, "secret/a", "app") })
	eventually(t, "nothing is answered from the cache", func() bool {
		return allows(t, here, "secret/a", "app") && here.CacheStats().Hits > 0
	})
	put(t, there, "app", `path "secret/b" { capabilities = ["read"] }`)
	changed := time.Now()
	eventually(t, "another node's change is not seen", func() bool {
		return allows(t, here, "secret/b", "app") && !allows(t, here, "secret/a", "app")
	})
	if took := time.Since(changed); took > 2*barrier.CacheBound {
		t.Errorf("it took %v", took)
	}
	if err := there.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another node's removal is not seen", func() bool { return !allows(t, here, "secret/b", "app") })
}

func TestACombinationIsCompiledOnce(t *testing.T) {
	s := fixture(t)
	put(t, s, "app", `path "secret/a" { capabilities = ["read"] }`)
	first, err := s.ACL(t.Context(), []string{"default", "app"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the same policies are compiled again and again", func() bool {
		next, err := s.ACL(t.Context(), []string{"default", "app"}, nil)
		same := err == nil && next == first
		first = next
		return same
	})
	put(t, s, "app", `path "secret/b" { capabilities = ["read"] }`)
	if next, _ := s.ACL(t.Context(), []string{"default", "app"}, nil); next == first {
		t.Error("a changed policy is not compiled again")
	}
	for i := range 5000 { // more than are kept
		if _, err := s.ACL(t.Context(), []string{"app", fmt.Sprint("unknown-", i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if !allows(t, s, "secret/b", "default", "app") {
		t.Error("lost")
	}
}

func TestSealedStoresAnswerNothing(t *testing.T) {
	b, _ := open(t, memory.New(), nil)
	s := policystore.New(b, policystore.NewCache(b, ""), "")
	put(t, s, "app", `path "secret/a" { capabilities = ["read"] }`)
	b.Shut()
	if _, err := s.ACL(t.Context(), []string{"app"}, nil); !fault.Is(err, fault.Sealed) {
		t.Errorf("%v", err)
	}
	if _, err := s.Get(t.Context(), "app"); !fault.Is(err, fault.Sealed) {
		t.Errorf("%v", err)
	}
}

// What one goroutine wrote last is what the next ACL means, whoever else reads
// and writes.
func TestConcurrentChanges(t *testing.T) {
	s := fixture(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			name := fmt.Sprint("p", w)
			for i := range 60 {
				path := fmt.Sprintf("secret/%d/%d", w, i)
				if _, err := s.Put(t.Context(), name, fmt.Sprintf(`path %q { capabilities = ["read"] }`, path)); err != nil {
					t.Error(err)
					return
				}
				acl, err := s.ACL(t.Context(), []string{"p0", "p1", "p2", "p3"}, nil)
				if err != nil || !acl.Allows(policy.Request{Path: path, Need: policy.Read}) {
					t.Errorf("%s is not allowed after the write that allows it: %v", path, err)
				}
				if i > 0 && acl.Allows(policy.Request{Path: fmt.Sprintf("secret/%d/%d", w, i-1), Need: policy.Read}) {
					t.Errorf("%s: the policy before still holds", name)
				}
			}
			if err := s.Delete(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range 200 {
				if _, err := s.List(t.Context()); err != nil {
					t.Error(err)
				}
				if _, err := s.ACL(t.Context(), []string{"p1", "default"}, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if names, _ := s.List(t.Context()); len(names) != 2 {
		t.Errorf("%v", names)
	}
}
