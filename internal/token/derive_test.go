package token

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
)

func writeRole(t *testing.T, s *Store, r Role) {
	t.Helper()
	if _, err := s.ChangeRole(t.Context(), r.Name, func(Role, bool) (Role, error) { return r, nil }); err != nil {
		t.Fatal(err)
	}
}

func TestPoliciesOfChildren(t *testing.T) {
	s := newStore(t)
	_, top := root(t, s)
	_, plain := issue(t, s, top, Request{Policies: []string{"a", "b"}})
	_, bare := issue(t, s, top, Request{Policies: []string{"a", "b"}, NoDefaultPolicy: true})
	writeRole(t, s, Role{Name: "allowed", AllowedPolicies: wire.Strings{"x", "y"}, AllowedPoliciesGlob: wire.Strings{"z-*"}})
	writeRole(t, s, Role{Name: "disallowed", DisallowedPolicies: wire.Strings{"a"}, DisallowedPoliciesGlob: wire.Strings{"q-*"}})
	writeRole(t, s, Role{Name: "free"})
	writeRole(t, s, Role{Name: "nodefault", AllowedPolicies: wire.Strings{"x"}, TokenNoDefaultPolicy: true})
	for _, c := range []struct {
		name   string
		parent *Token
		ask    Ask
		want   string // policies, or the refusal
	}{
		{"inherits", plain, Ask{}, "a,b,default"},
		{"inherits without default", bare, Ask{}, "a,b"},
		{"subset", plain, Ask{Policies: []string{"a"}}, "a,default"},
		{"subset of one without default", bare, Ask{Policies: []string{"a"}}, "a"},
		{"no default asked", plain, Ask{Policies: []string{"a"}, NoDefaultPolicy: true}, "a"},
		{"default asked of one without", bare, Ask{Policies: []string{"default"}}, "!child policies must be subset of parent"},
		{"more than the parent", plain, Ask{Policies: []string{"a", "c"}}, "!child policies must be subset of parent"},
		{"more, with sudo", plain, Ask{Policies: []string{"a", "c"}, Sudo: true}, "a,c,default"},
		{"root from no root", plain, Ask{Policies: []string{"root"}, Sudo: true}, "!root tokens may not be created without parent token being root"},
		{"root", top, Ask{Policies: []string{"Root", "a"}, Sudo: true}, "root"},
		{"root by default", top, Ask{Sudo: true}, "root"},
		{"internal policy", top, Ask{Policies: []string{"response-wrapping"}, Sudo: true}, "!cannot assign policy \"response-wrapping\""},
		{"role's policies", plain, Ask{Role: "allowed"}, "default,x,y"},
		{"some of the role's", plain, Ask{Role: "allowed", Policies: []string{"x", "z-1"}}, "default,x,z-1"},
		{"not of the role's", plain, Ask{Role: "allowed", Policies: []string{"a"}}, "!must be subset of the role's allowed policies"},
		{"disallowed", plain, Ask{Role: "disallowed", Policies: []string{"a"}}, "!token policy \"a\" is disallowed by this role"},
		{"disallowed by glob", plain, Ask{Role: "disallowed", Policies: []string{"q-1"}}, "!token policy \"q-1\" is disallowed by this role"},
		{"not disallowed, beyond the parent", plain, Ask{Role: "disallowed", Policies: []string{"other"}}, "default,other"},
		{"a role without lists", plain, Ask{Role: "free", Policies: []string{"c"}}, "!child policies must be subset of parent"},
		{"role without default", plain, Ask{Role: "nodefault"}, "x"},
		{"unknown role", plain, Ask{Role: "none"}, "!unknown role none"},
		{"chosen id without sudo", plain, Ask{ID: "mine"}, "!root or sudo privileges required to specify token id"},
		{"period without sudo", plain, Ask{Period: time.Hour}, "!root or sudo privileges required to create periodic token"},
		{"no parent without sudo", plain, Ask{NoParent: true}, "!root or sudo privileges required to create orphan token"},
		{"wrong type", plain, Ask{Type: "x"}, "!invalid 'token_type' value"},
		{"negative uses", plain, Ask{NumUses: -1}, "!number of uses cannot be negative"},
		{"negative ttl", plain, Ask{TTL: -1}, "!ttl must be positive"},
		{"batch with uses", plain, Ask{Type: "batch", NumUses: 1}, "!batch tokens cannot have \"num_uses\" set"},
		{"batch with explicit max", plain, Ask{Type: "batch", ExplicitMax: 1}, "!batch tokens cannot have \"explicit_max_ttl\" set"},
		{"batch root", top, Ask{Type: "batch", Sudo: true}, "!batch tokens cannot be root tokens"},
	} {
		out, err := s.Derive(t.Context(), c.parent, c.ask)
		switch refusal, refused := strings.CutPrefix(c.want, "!"); {
		case refused && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), refusal)):
			t.Errorf("%s: %v, want a refusal %q", c.name, err, refusal)
		case refused:
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case strings.Join(out.Token.Policies, ",") != c.want:
			t.Errorf("%s: policies %v, want %s", c.name, out.Token.Policies, c.want)
		}
	}
}

func TestRestrictedTokensCreateNone(t *testing.T) {
	s := newStore(t)
	_, limited := issue(t, s, nil, Request{Policies: []string{"a"}, NumUses: 1})
	const want = "restricted use token cannot generate child tokens"
	if _, err := s.Derive(t.Context(), limited, Ask{}); err == nil || err.Error() != want {
		t.Errorf("before its last use: %v", err)
	}
	secret, last := issue(t, s, nil, Request{Policies: []string{"a"}, NumUses: 1})
	if err := s.Use(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	self, err := s.Self(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Derive(t.Context(), self, Ask{Orphan: true}); err == nil || err.Error() != want {
		t.Errorf("in its last use: %v", err)
	}
}

func TestLoginsMakeNoRoot(t *testing.T) {
	s := newStore(t)
	if _, _, err := s.Create(t.Context(), nil, Request{Policies: []string{"root"}}); err == nil || err.Error() != "auth methods cannot create root tokens" {
		t.Errorf("root by a login: %v", err)
	}
}

func TestRoleShapesTokens(t *testing.T) {
	s := newStore(t)
	_, top := root(t, s)
	_, parent := issue(t, s, top, Request{Policies: []string{"a"}})
	writeRole(t, s, Role{
		Name: "r", Orphan: true, PathSuffix: "v1.0", TokenPeriod: wire.Seconds(time.Hour), TokenNumUses: 3,
		TokenBoundCIDRs: wire.Strings{"10.1.2.3", "fd00::/8"}, TokenExplicitMaxTTL: wire.Seconds(5 * time.Hour),
	})
	out, err := s.Derive(t.Context(), parent, Ask{Role: "r", Path: "auth/token/create/r", Renewable: true, ExplicitMax: 9 * time.Hour, NumUses: 9})
	if err != nil {
		t.Fatal(err)
	}
	tok := out.Token
	if !tok.Orphan || tok.Parent != "" || tok.Renewable || tok.Path != "auth/token/create/r/v1.0" || tok.NumUses != 3 ||
		tok.TTL != time.Hour || tok.Terms.ExplicitMax != 5*time.Hour || tok.Role != "r" || len(tok.BoundCIDRs) != 2 ||
		tok.BoundCIDRs[0].String() != "10.1.2.3/32" {
		t.Errorf("token %+v", tok)
	}
	if !slices.Contains(out.Warnings, "Explicit max TTL specified both during creation call and in role; using the lesser value of 18000 seconds") {
		t.Errorf("warnings %q", out.Warnings)
	}
	// Renewal follows the role as it is now, and needs it.
	writeRole(t, s, Role{Name: "p", Renewable: true, TokenPeriod: wire.Seconds(time.Hour)})
	out, err = s.Derive(t.Context(), parent, Ask{Role: "p", Renewable: true})
	if err != nil {
		t.Fatal(err)
	}
	writeRole(t, s, Role{Name: "p", Renewable: true, TokenPeriod: wire.Seconds(2 * time.Hour)})
	again, err := s.Renew(t.Context(), out.Token.ID, Renewal{})
	if err != nil || again.TTL != 2*time.Hour {
		t.Errorf("after the role changed: %v, %v", again, err)
	}
	if err := s.DeleteRole(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Renew(t.Context(), out.Token.ID, Renewal{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("after the role was deleted: %v", err)
	}
}

func TestRolesThatCannotBe(t *testing.T) {
	s := newStore(t)
	for name, r := range map[string]Role{
		"suffix":         {PathSuffix: "a b"},
		"dots":           {PathSuffix: "a..b"},
		"type":           {TokenType: "x"},
		"batch child":    {TokenType: "batch"},
		"batch period":   {TokenType: "batch", Orphan: true, TokenPeriod: wire.Seconds(time.Hour)},
		"batch renew":    {TokenType: "batch", Orphan: true, Renewable: true},
		"batch explicit": {TokenType: "batch", Orphan: true, ExplicitMaxTTL: wire.Seconds(time.Hour)},
		"negative":       {TokenPeriod: -1},
		"uses":           {TokenNumUses: -1},
		"network":        {BoundCIDRs: wire.Strings{"x"}},
	} {
		if _, err := s.ChangeRole(t.Context(), "r", func(Role, bool) (Role, error) { return r, nil }); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Role(t.Context(), "r"); !fault.Is(err, fault.NotFound) {
		t.Errorf("something was stored: %v", err)
	}
}

func TestBatchRoleDefaults(t *testing.T) {
	s := newStore(t)
	_, top := root(t, s)
	writeRole(t, s, Role{Name: "b", TokenType: "default-batch", AllowedPolicies: wire.Strings{"x"}, Renewable: true})
	for asked, want := range map[string]Type{"": Batch, "service": Service, "batch": Batch} {
		out, err := s.Derive(t.Context(), top, Ask{Role: "b", Type: asked, Renewable: true})
		if err != nil || out.Token.Type != want {
			t.Errorf("asked for %q: %v, %v", asked, out, err)
		}
	}
}
