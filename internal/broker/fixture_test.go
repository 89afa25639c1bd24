package broker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// fixture is one node with an entity, in the root namespace.
type fixture struct {
	*Store
	t      *testing.T
	entity string
	ids    *identity.Store
	work   *job.Workers

	mu      sync.Mutex
	rotated []string // kids, as they were recorded
}

func opened(t *testing.T, e storage.Engine) *barrier.Barrier {
	t.Helper()
	b := barrier.New(e, slog.New(slog.DiscardHandler))
	root, err := barrier.NewRootKey()
	must(t, err)
	must(t, b.Initialize(t.Context(), root))
	must(t, b.Open(t.Context(), root))
	return b
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newNode(t, opened(t, memory.New()), "n1")
}

// newNode is a node over a store that others may use too.
func newNode(t *testing.T, b *barrier.Barrier, name string) *fixture {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	f := &fixture{t: t}
	f.ids = identity.New(identity.Options{
		Barrier: b, Caches: identity.NewCaches(b, ""), Log: log,
		Mount: func(string) (string, string, bool) { return "auth/userpass/", "userpass", true },
	})
	r := &Rotations{Barrier: b, Log: log, Record: func(_ context.Context, _, _, id string) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.rotated = append(f.rotated, id)
		return nil
	}}
	var err error
	f.work, err = job.New(job.Options{Engine: b, Node: name, Log: log})
	must(t, err)
	must(t, r.Join(f.work))
	f.Store = New(Options{
		Barrier: b, Identities: f.ids, Rotations: r, Log: log,
		Path: func() string { return "" }, Address: func() string { return "https://coffer.test:8200" },
	})
	t.Cleanup(f.Close)
	e, _, err := f.ids.WriteEntity(t.Context(), "", identity.EntityChange{Name: ptr("ada"), Metadata: &map[string]string{"team": "web"}})
	must(t, err)
	f.entity = e.ID
	return f
}

func ptr[T any](v T) *T { return &v }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that an error is a fault of a kind whose message has a text.
func refused(t *testing.T, err error, kind fault.Kind, text string) {
	t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want a %v with %q", err, kind, text)
	}
}

func (f *fixture) key(name string, c KeyChange) {
	f.t.Helper()
	if c.Clients == nil {
		c.Clients = &[]string{"*"}
	}
	if c.Algorithm == nil {
		c.Algorithm = ptr("ES256") // quick to make
	}
	_, err := f.WriteKey(f.t.Context(), name, c)
	must(f.t, err)
}

func (f *fixture) role(name string, c RoleChange) {
	f.t.Helper()
	if c.Key == nil {
		c.Key = ptr("k")
	}
	must(f.t, f.WriteRole(f.t.Context(), name, c))
}

func (f *fixture) issue(ask Ask) *Issued {
	f.t.Helper()
	if ask.Entity == "" {
		ask.Entity = f.entity
	}
	out, err := f.Issue(f.t.Context(), ask)
	must(f.t, err)
	return out
}

// claims reads what a token says, unverified.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	var out map[string]any
	must(t, json.Unmarshal(text, &out))
	return out
}

// document returns the published keys, and fails where they are more than public.
func (f *fixture) document() jose.JSONWebKeySet {
	f.t.Helper()
	p, err := f.Published(f.t.Context())
	must(f.t, err)
	var set jose.JSONWebKeySet
	must(f.t, json.Unmarshal(p.Keys, &set))
	for _, k := range set.Keys {
		if !k.IsPublic() || k.Use != "sig" || strings.Contains(string(p.Keys), `"d":`) {
			f.t.Fatalf("published is %s", p.Keys)
		}
	}
	return set
}

// verifies reports whether a document has the key of a token, and its signature holds.
func verifies(t *testing.T, set jose.JSONWebKeySet, token string) bool {
	t.Helper()
	signed, err := jose.ParseSignedCompact(token, Algorithms)
	must(t, err)
	for _, k := range set.Key(signed.Signatures[0].Header.KeyID) {
		if _, err := signed.Verify(k); err == nil {
			return true
		}
	}
	return false
}

// run lets the node's jobs run until the test ends.
func (f *fixture) run(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = f.work.Run(ctx)
	}()
	return func() { cancel(); <-ended }
}
