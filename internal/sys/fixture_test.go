package sys_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/audit/auditstore"
	"github.com/cofferhq/coffer/internal/auth/tokens"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/browser"
	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/cubbyhole"
	"github.com/cofferhq/coffer/internal/gateway"
	"github.com/cofferhq/coffer/internal/member"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/quota"
	"github.com/cofferhq/coffer/internal/realm"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/shamir"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/sys"
	"github.com/cofferhq/coffer/internal/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tokenLength is how long a root token is here, as in the server.
const tokenLength = 100

// server has what a real one has around sys, on storage in memory.
type server struct {
	*gateway.Gateway
	node    *node.Node
	barrier *barrier.Barrier
	audit   *audit.Log
	opened  atomic.Pointer[sys.Unsealed]
	root    string
	shares  []string
	n       atomic.Int32
	end     context.CancelFunc // of what goes on in the background
	work    sync.WaitGroup
	bank    bank // what mounts of the kind bank lend from
	// kinds are the kinds of Coffer's own mounts.
	kinds   func(*sys.Unsealed, *token.Store) map[string]*engine.Spec
	storage atomic.Pointer[sys.Storage] // what sys.Options.Storage says; nil is all well
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newServer returns a server with a Shamir seal that is not initialized.
func newServer(t testing.TB) *server {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := &server{}
	store := memory.New()
	t.Cleanup(func() { _ = store.Close() })
	var err error
	s.audit, err = audit.Open(t.TempDir(), audit.Options{Origin: "coffer-test/audit", Reserve: -1})
	must(t, err)
	t.Cleanup(func() { _ = s.audit.Close() })
	s.barrier = barrier.New(store, log)
	s.node = node.New(node.Options{
		Engine: store, Barrier: s.barrier, Log: log, TokenLength: tokenLength,
		Seals:    []node.Configured{{Named: seal.Named{Name: shamir.Name, Kind: shamir.Name}}},
		OnUnseal: s.open, OnSeal: s.shut,
		NewRootToken: func(ctx context.Context) (string, error) {
			secret, _, err := s.opened.Load().Tokens.Create(ctx, nil, token.Request{Policies: []string{"root"}, Initial: true, DisplayName: "root"})
			return secret.Reveal(), err
		},
		Record: func(ctx context.Context, event string) error {
			return s.audit.Append(ctx, &audit.Entry{Type: audit.Event, Event: event})
		},
	})
	t.Cleanup(s.node.Close)
	system := sys.New(sys.Options{
		Node: s.node, RightsOf: func(ctx context.Context, tok *token.Token, namespace string) (route.Rights, error) {
			return s.RightsOf(ctx, tok, namespace)
		},
		Opened: func(namespace string) *sys.Unsealed {
			u := *s.opened.Load()
			u.Realm = u.Realms.Last(namespace)
			return &u
		},
		RepairAuditLog: s.audit.Repair,
		Why: func(id, namespace string) (sys.Why, error) {
			d, err := s.Why(id, namespace)
			if err != nil {
				return sys.Why{}, err
			}
			return sys.Why{RequestID: d.RequestID, Path: d.Asked.Path, Missing: d.Decision.Missing, Fix: d.Decision.Fix}, nil
		},
		AuditLog: func() (sys.AuditLog, error) {
			c := s.audit.LastCheckpoint()
			return sys.AuditLog{Origin: c.Origin, PublicKey: s.opened.Load().Devices.PublicKey(), Entries: c.Size, Checkpoint: string(c.Note)}, nil
		},
		Metrics: func(format string) (route.Raw, error) {
			return route.Raw{ContentType: "text/plain", Body: []byte("format " + format)}, nil
		},
		OpenAPI: func() ([]byte, error) { return []byte(`{"openapi":"3.0.2"}`), nil },
		Sanitized: func() (sys.SanitizedConfig, error) {
			return sys.SanitizedConfig{Settings: []byte(`{"api_addr":"x"}`)}, nil
		},
		InFlight: func() []sys.InFlight {
			var out []sys.InFlight
			for _, r := range s.InFlight() {
				out = append(out, sys.InFlight{ID: r.ID, Path: r.Path})
			}
			return out
		},
		Kinds:       func() []*engine.Spec { return builtin.Engines },
		ClusterName: func(id string) string { return "name of " + id },
		Storage: func(context.Context, bool) sys.Storage {
			if st := s.storage.Load(); st != nil {
				return *st
			}
			return sys.Storage{Reached: true, Serving: true}
		},
		NewPad:  func() string { return strings.Repeat("p", tokenLength) },
		Address: "https://127.0.0.1:8200", StorageType: "memory", Version: sys.Version{Coffer: "0.1.0"},
	})
	s.Gateway = gateway.New(gateway.Options{
		Audit: s.audit, Sys: system, SysTable: route.NewTable(sys.Kind(system).Spec().Routes), Log: log,
	})
	s.kinds = func(u *sys.Unsealed, store *token.Store) map[string]*engine.Spec {
		return map[string]*engine.Spec{
			"system": sys.Kind(system).Spec(), "cubbyhole": cubbyhole.Kind.Spec(), "bank": bankKind(&s.bank),
			"token": tokens.Kind(tokens.Options{
				Store: store, Granter: func(*token.Token) (tokens.Granter, bool) { return tokens.Granter{}, false },
				HasPolicy: func(context.Context, string, string) (bool, error) { return true, nil },
				IdentityPolicies: func(ctx context.Context, tok *token.Token) ([]string, error) {
					rights, err := u.Access.Of(ctx, tok)
					return rights.Identity, err
				},
			}).Spec(),
		}
	}
	return s
}

// open builds what an unsealed server has.
func (s *server) open(ctx context.Context) error {
	log, u := slog.New(slog.DiscardHandler), &sys.Unsealed{}
	var err error
	if u.Devices, err = auditstore.Open(ctx, storage.Sub(s.barrier, "core/audit/"), auditstore.Own{Log: s.audit, Node: "here", Origin: "coffer-test/audit"}, log); err != nil {
		return err
	}
	u.Members = member.New(member.Options{Engine: s.barrier, Log: log, Self: member.Info{Node: "here", Hostname: "host", Version: "1.19.0+coffer"}})
	if err := u.Members.Join(ctx); err != nil {
		return err
	}
	store, err := token.NewStore(ctx, token.Options{
		Storage:  storage.Sub(s.barrier, "core/tokens/"),
		Defaults: func() (time.Duration, time.Duration) { return 768 * time.Hour, 768 * time.Hour }, Log: log,
		Ended:  func(ctx context.Context, _, id string) error { return u.Leases.EndOf(ctx, id) },
		Within: func(namespace, other string) bool { return u.Realms.Within(namespace, other) },
	})
	if err != nil {
		return err
	}
	if err := s.openTimes(u, store); err != nil {
		return err
	}
	own := s.kinds(u, store)
	if u.Realms, err = realm.Open(ctx, realm.Options{
		Barrier: s.barrier, Log: log, Tokens: store, MaxPayload: 1 << 20, Leases: u.Leases, Agenda: u.Agenda,
		Kinds: func(name, version string) *engine.Spec {
			if spec := own[name]; spec != nil {
				return spec
			}
			return builtin.Engine(name, version)
		},
		Own: []mount.Request{{Path: "sys", Type: "system"}, {Path: "auth/token", Type: "token"}, {Path: "cubbyhole", Type: "cubbyhole"}},
	}); err != nil {
		return err
	}
	u.Realm, u.Browsers = u.Realms.Root(), browser.New(s.barrier)
	if u.Quotas, err = quota.Open(ctx, s.barrier); err != nil {
		return err
	}
	s.opened.Store(u)
	s.Open(&gateway.Services{Realms: u.Realms, Tokens: store, Leases: u.Leases, Quotas: u.Quotas})
	life, end := context.WithCancel(context.Background())
	s.end = end
	s.work.Go(func() { _ = u.Jobs.Run(life) })
	s.work.Go(func() { _ = store.Run(life) })
	return nil
}

func (s *server) shut() {
	s.Shut()
	if s.end != nil {
		s.end()
		s.work.Wait()
	}
	if u := s.opened.Load(); u != nil {
		u.Realms.Close()
		u.Quotas.Close()
		u.Devices.Close()
	}
}

// ready returns a server that is initialized with three of five shares and
// unsealed.
func ready(t testing.TB) *server {
	t.Helper()
	s := newServer(t)
	out := s.must(t, 200, "", "POST", "sys/init", `{"secret_shares":5,"secret_threshold":3}`)
	s.root = out["root_token"].(string)
	for _, share := range out["keys"].([]any) {
		s.shares = append(s.shares, share.(string))
	}
	for _, share := range s.shares[:3] {
		out = s.must(t, 200, "", "PUT", "sys/unseal", fmt.Sprintf(`{"key":%q}`, share))
	}
	if out["sealed"] != false {
		t.Fatalf("three shares did not unseal: %v", out)
	}
	return s
}

// ask makes a request; path may end in a query.
func (s *server) ask(t testing.TB, tok, method, path, body string, change ...func(*gateway.Request)) (int, map[string]any, []byte) {
	t.Helper()
	path, query, _ := strings.Cut(path, "?")
	values, err := url.ParseQuery(query)
	must(t, err)
	if method == "PUT" {
		method = "POST" // as the listener has it
	}
	r := &gateway.Request{
		ID: fmt.Sprint("r", s.n.Add(1)), Method: method, Path: path, Query: values, Body: []byte(body), Token: tok,
		Remote: netip.MustParseAddrPort("127.0.0.1:5000"),
	}
	for _, c := range change {
		c(r)
	}
	a := s.Serve(t.Context(), r)
	var out map[string]any
	if a.ContentType == "application/json" && len(a.Body) > 0 {
		if err := json.Unmarshal(a.Body, &out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, a.Body)
		}
		if d := json.NewDecoder(bytes.NewReader(a.Body)); duplicate(d) {
			t.Errorf("%s %s: a member stands twice in %s", method, path, a.Body)
		}
	}
	return a.Status, out, a.Body
}

// duplicate reports whether the object that follows has a member twice.
func duplicate(d *json.Decoder) bool {
	seen := map[string]bool{}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return false
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return false
		}
		if seen[name.(string)] {
			return true
		}
		seen[name.(string)] = true
	}
	return false
}

// must makes a request that has to be answered with the status, and returns
// the answer's members.
func (s *server) must(t testing.TB, status int, tok, method, path, body string, change ...func(*gateway.Request)) map[string]any {
	t.Helper()
	got, out, raw := s.ask(t, tok, method, path, body, change...)
	if got != status {
		t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, got, raw, status)
	}
	return out
}

// data is must's answer's data.
func (s *server) data(t testing.TB, method, path, body string) map[string]any {
	t.Helper()
	out := s.must(t, 200, s.root, method, path, body)
	d, ok := out["data"].(map[string]any)
	if !ok {
		t.Fatalf("%s %s: no data in %v", method, path, out)
	}
	return d
}

// refused makes a request as root that is refused with the text.
func (s *server) refused(t testing.TB, status int, says, method, path, body string) {
	t.Helper()
	got, _, raw := s.ask(t, s.root, method, path, body)
	if got != status || !strings.Contains(string(raw), says) {
		t.Errorf("%s %s %s: %d %s, want %d and %q", method, path, body, got, raw, status, says)
	}
}

// user makes a token with a policy of the text.
func (s *server) user(t testing.TB, rules string) string {
	t.Helper()
	name := fmt.Sprint("p", s.n.Add(1))
	if status, _, raw := s.ask(t, s.root, "POST", "sys/policies/acl/"+name, quote(map[string]string{"policy": rules})); status >= 300 {
		t.Fatalf("policy %s: %d %s", rules, status, raw)
	}
	out := s.must(t, 200, s.root, "POST", "auth/token/create", fmt.Sprintf(`{"policies":[%q]}`, name))
	return out["auth"].(map[string]any)["client_token"].(string)
}

func quote(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func names(list any) []string {
	var out []string
	items, _ := list.([]any)
	for _, item := range items {
		out = append(out, item.(string))
	}
	return out
}

func keysOf(m map[string]any) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// together runs f many times at once.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}
