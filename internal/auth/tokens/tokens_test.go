package tokens_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/tokens"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
	wirejson "github.com/go-json-experiment/json"
)

// server is auth/token with callers, as the gateway would call it.
type server struct {
	t     *testing.T
	store *token.Store
	table *route.Table
	state any
	spec  *engine.Spec
	mount tokens.Granter
	gone  bool // the mount that granted was disabled
}

func newServer(t *testing.T) *server {
	t.Helper()
	storage := memory.New()
	t.Cleanup(func() { _ = storage.Close() })
	s := &server{t: t}
	var err error
	s.store, err = token.NewStore(t.Context(), token.Options{
		Storage: storage, Defaults: func() (time.Duration, time.Duration) { return auth.DefaultLifetime, auth.DefaultLifetime },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.spec = tokens.Kind(tokens.Options{
		Store:     s.store,
		Granter:   func(*token.Token) (tokens.Granter, bool) { return s.mount, !s.gone },
		HasPolicy: func(_ context.Context, _, name string) (bool, error) { return name != "absent", nil },
		IdentityPolicies: func(_ context.Context, tok *token.Token) ([]string, error) {
			if tok.EntityID != "" {
				return []string{"of-" + tok.EntityID}, nil
			}
			return nil, nil
		},
	}).Spec()
	s.state, err = s.spec.Open(t.Context(), engine.Env{Mount: engine.Mount{Path: "auth/token/"}})
	if err != nil {
		t.Fatal(err)
	}
	s.table = route.NewTable(s.spec.Routes)
	return s
}

// sudo is the access of a caller who has sudo on some paths.
type sudo []string

func (s sudo) Can(need policy.Capability, path string) bool {
	for _, p := range s {
		if need == policy.Sudo && p == path {
			return true
		}
	}
	return false
}

func (s *server) call(secret, method, path, body string, access ...string) (any, []string, error) {
	s.t.Helper()
	spec, vars, _ := s.table.Find(method, path)
	if spec == nil {
		s.t.Fatalf("no route for %s %s", method, path)
	}
	params, err := wire.ParseBody([]byte(body))
	if err != nil {
		s.t.Fatal(err)
	}
	in, warnings, err := spec.Decode(&route.Input{Vars: vars, Params: params})
	if err != nil {
		return nil, nil, err
	}
	by := route.Caller{Token: secret, Access: sudo(access)}
	if tok, err := s.store.Self(s.t.Context(), secret); err == nil {
		by.Root, by.TokenID, by.Accessor = tok.Root(), tok.ID, tok.Accessor
	}
	out, err := spec.Invoke(s.t.Context(), s.state, by, in)
	if noted, ok := out.(route.Noted); ok && err == nil {
		warnings = append(warnings, noted.Carried().Warnings...)
	}
	return out, warnings, err
}

// must is call for what must succeed.
func (s *server) must(secret, method, path, body string) any {
	s.t.Helper()
	out, _, err := s.call(secret, method, path, body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return out
}

func (s *server) root() string {
	s.t.Helper()
	secret, _, err := s.store.Create(s.t.Context(), nil, token.Request{Policies: []string{"root"}, Initial: true, Path: "auth/token/root", DisplayName: "root"})
	if err != nil {
		s.t.Fatal(err)
	}
	return secret.Reveal()
}

func (s *server) create(secret, path, body string) *token.Issued {
	s.t.Helper()
	return s.must(secret, "POST", path, body).(*token.Issued)
}

func TestLookupHasVaultsShape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		root := s.root()
		made := s.create(root, "create", `{"policies":"web","ttl":"1h","meta":{"a":"b"},"display_name":"my app","period":0}`)
		out := s.must(made.Secret.Reveal(), "GET", "lookup-self", "")
		text, err := wirejson.Marshal(out, wirejson.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"id": made.Secret.Reveal(), "accessor": made.Token.Accessor, "policies": []any{"default", "web"}, "path": "auth/token/create",
			"meta": map[string]any{"a": "b"}, "display_name": "token-my-app", "num_uses": 0., "orphan": false,
			"creation_time": float64(time.Now().Unix()), "creation_ttl": 3600., "expire_time": "2000-01-01T01:00:00Z", "ttl": 3600.,
			"explicit_max_ttl": 0., "entity_id": "", "type": "service", "renewable": true, "issue_time": "2000-01-01T00:00:00Z",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("lookup-self:\n got %v\nwant %v", got, want)
		}
		text, _ = wirejson.Marshal(s.must(root, "GET", "lookup", ""))
		if !strings.Contains(string(text), `"expire_time":null`) || !strings.Contains(string(text), `"meta":null`) || !strings.Contains(string(text), `"ttl":0`) {
			t.Errorf("root token: %s", text)
		}
		// By accessor the token itself is left out.
		looked := s.must(root, "POST", "lookup-accessor", `{"accessor":"`+made.Token.Accessor+`"}`).(tokens.Looked)
		if looked.ID != "" || looked.Accessor != made.Token.Accessor {
			t.Errorf("lookup-accessor: %+v", looked)
		}
		time.Sleep(10 * time.Minute)
		s.must(made.Secret.Reveal(), "POST", "renew-self", `{"increment":"30m"}`)
		looked = s.must(root, "POST", "lookup", `{"token":"`+made.Secret.Reveal()+`"}`).(tokens.Looked)
		if looked.TTL.Duration() != 30*time.Minute || looked.CreationTTL.Duration() != time.Hour || looked.LastRenewalTime != time.Now().Unix() {
			t.Errorf("after renewal: %+v", looked)
		}
	})
}

func TestCreateWarnsOfAbsentPolicies(t *testing.T) {
	s := newServer(t)
	_, warnings, err := s.call(s.root(), "POST", "create", `{"policies":["absent"]}`)
	if err != nil || len(warnings) != 1 || warnings[0] != `Policy "absent" does not exist` {
		t.Errorf("warnings %q, %v", warnings, err)
	}
}

func TestSudoIsOfThePath(t *testing.T) {
	s := newServer(t)
	plain := s.create(s.root(), "create", `{"policies":"a"}`).Secret.Reveal()
	for _, body := range []string{`{"id":"mine"}`, `{"no_parent":true}`, `{"period":"1h"}`, `{"policies":"b"}`} {
		if _, _, err := s.call(plain, "POST", "create", body); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s without sudo: %v", body, err)
		}
		if _, _, err := s.call(plain, "POST", "create", body, "auth/token/create-orphan"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s with sudo elsewhere: %v", body, err)
		}
		if _, _, err := s.call(plain, "POST", "create", body, "auth/token/create"); err != nil {
			t.Errorf("%s with sudo: %v", body, err)
		}
	}
	if _, _, err := s.call(plain, "POST", "create", `{"policies":"root"}`, "auth/token/create"); !fault.Is(err, fault.Invalid) {
		t.Errorf("root with sudo: %v", err)
	}
	orphan := s.create(plain, "create-orphan", `{}`)
	if !orphan.Token.Orphan || orphan.Token.Parent != "" {
		t.Errorf("create-orphan: %+v", orphan.Token)
	}
}

// The texts and kinds of refusal that clients match on.
func TestRefusals(t *testing.T) {
	s := newServer(t)
	root := s.root()
	batch := s.create(root, "create", `{"type":"batch","policies":"a"}`).Secret.Reveal()
	for _, c := range []struct {
		method, path, body string
		kind               fault.Kind
		text               string
	}{
		{"POST", "lookup", `{"token":"nope"}`, fault.Denied, "bad token"},
		{"POST", "lookup-accessor", `{"accessor":"nope"}`, fault.Invalid, "invalid accessor"},
		{"POST", "lookup-accessor", `{}`, fault.Invalid, "missing accessor"},
		{"POST", "renew", `{"token":"nope"}`, fault.Invalid, "token not found"},
		{"POST", "renew", `{}`, fault.Invalid, "missing token ID"},
		{"POST", "renew", `{"token":"` + batch + `"}`, fault.Invalid, "batch tokens cannot be renewed"},
		{"POST", "renew-self", ``, fault.Invalid, "invalid lease ID"},
		{"POST", "renew-accessor", `{"accessor":"nope"}`, fault.Invalid, "invalid accessor"},
		{"POST", "revoke", `{}`, fault.Invalid, "missing token ID"},
		{"POST", "revoke", `{"token":"` + batch + `"}`, fault.Invalid, "batch tokens cannot be revoked"},
		{"POST", "revoke-orphan", `{"token":"nope"}`, fault.Invalid, "token to revoke not found"},
		{"POST", "revoke-orphan", `{"token":"` + batch + `"}`, fault.Invalid, "batch tokens cannot be revoked"},
		{"POST", "revoke-accessor", `{}`, fault.Invalid, "missing accessor"},
		{"POST", "create", `{"ttl":-5}`, fault.Invalid, "ttl must be positive"},
		{"POST", "create", `{"ttl":"1000000h"}`, fault.Invalid, "ttl: it is beyond the limit of 876000h0m0s"},
		{"POST", "create/none", `{}`, fault.Invalid, "unknown role none"},
		{"GET", "roles/none", ``, fault.NotFound, ""},
		{"LIST", "roles", ``, fault.NotFound, ""},
	} {
		_, _, err := s.call(root, c.method, c.path, c.body)
		if !fault.Is(err, c.kind) || err.Error() != c.text {
			t.Errorf("%s %s %s: %v, want %q", c.method, c.path, c.body, err, c.text)
		}
	}
	if _, _, err := s.call(root, "POST", "revoke", `{"token":"nope"}`); err != nil {
		t.Errorf("revoking what is not there: %v", err)
	}
	if _, warnings, err := s.call(root, "POST", "revoke-accessor", `{"accessor":"nope"}`); err != nil || len(warnings) != 1 {
		t.Errorf("revoking an accessor that is not there: %q, %v", warnings, err)
	}
}

func TestRevocations(t *testing.T) {
	s := newServer(t)
	root := s.root()
	holds := func(i *token.Issued) bool {
		_, err := s.store.Lookup(t.Context(), i.Secret.Reveal())
		return err == nil
	}
	parent := s.create(root, "create", `{"policies":"a"}`)
	child := s.create(parent.Secret.Reveal(), "create", `{}`)
	s.must(root, "POST", "revoke-orphan", `{"token":"`+parent.Secret.Reveal()+`"}`)
	if holds(parent) || !holds(child) {
		t.Error("revoke-orphan")
	}
	grandchild := s.create(child.Secret.Reveal(), "create", `{}`)
	s.must(root, "POST", "revoke-accessor", `{"accessor":"`+child.Token.Accessor+`"}`)
	if holds(child) || holds(grandchild) {
		t.Error("revoke-accessor")
	}
	parent = s.create(root, "create", `{"policies":"a"}`)
	child = s.create(parent.Secret.Reveal(), "create", `{}`)
	s.must(parent.Secret.Reveal(), "POST", "revoke-self", "")
	if holds(parent) || holds(child) {
		t.Error("revoke-self")
	}
	s.must(root, "POST", "tidy", "")
	if keys := s.must(root, "LIST", "accessors", "").(route.Keys).Keys; len(keys) != 1 {
		t.Errorf("accessors left: %v", keys)
	}
}

func TestRoles(t *testing.T) {
	s := newServer(t)
	root := s.root()
	s.must(root, "POST", "roles/ci", `{"allowed_policies":"Deploy, build","orphan":"true","period":"1h","bound_cidrs":"10.0.0.0/8"}`)
	s.must(root, "POST", "roles/ci", `{"path_suffix":"v1"}`)
	text, err := wirejson.Marshal(s.must(root, "GET", "roles/ci", ""), wirejson.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"name":"ci","allowed_policies":["build","deploy"],"allowed_policies_glob":[],"disallowed_policies":[],"disallowed_policies_glob":[],` +
		`"allowed_entity_aliases":[],"orphan":true,"renewable":true,"path_suffix":"v1","period":3600,"explicit_max_ttl":0,"bound_cidrs":["10.0.0.0/8"],` +
		`"token_period":3600,"token_explicit_max_ttl":0,"token_bound_cidrs":["10.0.0.0/8"],"token_no_default_policy":false,"token_type":"default-service"}`
	if string(text) != want {
		t.Errorf("role:\n got %s\nwant %s", text, want)
	}
	_, warnings, err := s.call(root, "POST", "roles/ci", `{"token_period":"2h","period":"3h"}`)
	if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "Both 'token_period' and deprecated 'period'") {
		t.Errorf("both names: %q, %v", warnings, err)
	}
	out := s.create(root, "create/ci", `{"ttl":"5m"}`)
	if out.TTL != 2*time.Hour || out.Token.Path != "auth/token/create/ci/v1" || !out.Token.Orphan || strings.Join(out.Token.Policies, ",") != "build,default,deploy" {
		t.Errorf("token by role: %+v", out.Token)
	}
	if out.Token.BoundCIDRs[0] != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("networks %v", out.Token.BoundCIDRs)
	}
	if keys := s.must(root, "LIST", "roles", "").(route.Keys).Keys; len(keys) != 1 || keys[0] != "ci" {
		t.Errorf("roles %v", keys)
	}
	s.must(root, "DELETE", "roles/ci", "")
	if _, _, err := s.call(root, "GET", "roles/ci", ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("after its deletion: %v", err)
	}
}

// method is an auth method that renews while it may.
type method struct{ refuse error }

func (m method) Renew(_ context.Context, _ route.Caller, l auth.Login) (auth.Login, error) {
	l.TTL = wire.Seconds(2 * time.Hour)
	return l, m.refuse
}

func TestRenewAsksTheMethod(t *testing.T) {
	s := newServer(t)
	granted, err := json.Marshal(auth.Login{Alias: "bob", Policies: []string{"a"}, TokenParams: auth.TokenParams{TTL: wire.Seconds(time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	login, err := s.store.Issue(t.Context(), nil, token.Request{Policies: []string{"a"}, Mount: "auth_userpass_1", Login: granted, Terms: lifetime.Terms{TTL: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	secret := login.Secret.Reveal()
	s.mount = tokens.Granter{State: method{}}
	if out := s.must(secret, "POST", "renew-self", "").(*token.Issued); out.TTL != 2*time.Hour || out.Secret.Reveal() != secret {
		t.Errorf("renewed for %v", out.TTL)
	}
	s.mount.MaxTTL = 90 * time.Minute // the mount was tuned
	if _, warnings, err := s.call(secret, "POST", "renew-self", ""); err != nil || len(warnings) != 1 {
		t.Errorf("beyond the mount's max: %q, %v", warnings, err)
	}
	s.mount.State = method{fault.New(fault.Denied, "the user was deleted, not renewing")}
	if _, _, err := s.call(secret, "POST", "renew-self", ""); !fault.Is(err, fault.Denied) {
		t.Errorf("refused by the method: %v", err)
	}
	s.gone = true
	if _, _, err := s.call(secret, "POST", "renew-self", ""); !fault.Is(err, fault.Denied) {
		t.Errorf("the mount was disabled: %v", err)
	}
}

func TestEveryRouteIsDescribed(t *testing.T) {
	s := newServer(t)
	for _, r := range s.spec.Routes {
		if r.Summary == "" || r.Example == nil {
			t.Errorf("%s %s has no summary or example", r.Method, r.Pattern)
			continue
		}
		spec, vars, _ := s.table.Find(r.Method, r.Example.Path)
		params, err := wire.ParseBody([]byte(r.Example.Request))
		if err != nil || spec == nil || spec.Pattern != r.Pattern {
			t.Errorf("%s %s: its example is of another route, or no JSON: %v", r.Method, r.Pattern, err)
			continue
		}
		if _, warnings, err := spec.Decode(&route.Input{Vars: vars, Params: params}); err != nil || len(warnings) > 0 {
			t.Errorf("%s %s: its example is refused: %v, %q", r.Method, r.Pattern, err, warnings)
		}
		for _, f := range r.Fields() {
			if f.Doc == "" {
				t.Errorf("%s %s: field %s has no doc", r.Method, r.Pattern, f.Name)
			}
		}
	}
}
