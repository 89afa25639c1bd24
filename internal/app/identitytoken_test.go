package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// relying is a service that verifies identity tokens with a library of its own.
type relying struct {
	*oidc.IDTokenVerifier
	fetched atomic.Int32
	away    atomic.Bool
	via     http.RoundTripper
}

func (r *relying) RoundTrip(q *http.Request) (*http.Response, error) {
	if r.away.Load() {
		return nil, errors.New("the issuer is away")
	}
	r.fetched.Add(1)
	return r.via.RoundTrip(q)
}

// relyOn finds an issuer by its discovery.
func relyOn(t *testing.T, s *apptest.Server, issuer, audience string) *relying {
	t.Helper()
	r := &relying{via: s.HTTP().Transport}
	ctx := oidc.ClientContext(context.WithoutCancel(t.Context()), &http.Client{Transport: r})
	p, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		t.Fatal(err)
	}
	r.IDTokenVerifier = p.VerifierContext(ctx, &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{"RS256", "ES256", "EdDSA"}})
	return r
}

// identityToken gets a token of a role with a caller's token.
func identityToken(t *testing.T, s *apptest.Server, caller, path string, headers ...string) string {
	t.Helper()
	a := s.Do(t, "GET", path, caller, "", headers...)
	if a.Status != 200 || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("GET %s is answered %d %s (%s)", path, a.Status, a.Body, a.Header.Get("Cache-Control"))
	}
	var out struct {
		Token string `json:"token"`
	}
	a.Into(t, &out)
	return out.Token
}

func TestARelyingPartyVerifiesOffline(t *testing.T) {
	s := apptest.Start(t, "")
	userOf(t, s, "ada", "tokens")
	s.Must(t, 204, "PUT", "sys/policies/acl/tokens", `{"policy":"path \"identity/oidc/token/*\" { capabilities = [\"read\"] }\npath \"auth/token/create\" { capabilities = [\"update\"] }"}`)
	ada := login(t, s, "ada").Auth
	s.Must(t, 204, "POST", "identity/entity/id/"+ada.EntityID, `{"metadata":{"team":"web"}}`)
	s.Must(t, 204, "POST", "identity/oidc/key/web", `{"algorithm":"ES256","allowed_client_ids":"shop,bank"}`)
	s.Must(t, 204, "POST", "identity/oidc/role/web", `{"key":"web","client_id":"shop","allowed_audiences":["bank"],"ttl":"10m","bound_to_token":true,
		"template":"{\"team\": {{identity.entity.metadata.team}}, \"login\": {{identity.entity.name}}}"}`)

	issuer := s.URL() + "/v1/identity/oidc"
	shop := relyOn(t, s, issuer, "shop")
	first := identityToken(t, s, ada.Token, "identity/oidc/token/web")
	got, err := shop.Verify(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Team, Login, Namespace string
	}
	if err := got.Claims(&claims); err != nil || claims.Team != "web" || claims.Namespace != "root" || got.Subject != ada.EntityID || got.Issuer != issuer {
		t.Errorf("it says %+v %+v %v", got, claims, err)
	}
	// From here on the service asks nobody: the next pair was published already.
	shop.away.Store(true)
	s.Must(t, 200, "POST", "identity/oidc/key/web/rotate", `{}`) // with a warning: it was published just now
	second := identityToken(t, s, ada.Token, "identity/oidc/token/web")
	for _, token := range []string{first, second} {
		if _, err := shop.Verify(t.Context(), token); err != nil {
			t.Errorf("after a rotation: %v", err)
		}
	}
	if header(t, first) == header(t, second) {
		t.Error("the same pair signs after a rotation")
	}
	// Narrower: for one audience, of one claim, for a short time.
	narrow := identityToken(t, s, ada.Token, "identity/oidc/token/web?audience=bank&claims=team&ttl=60")
	if _, err := shop.Verify(t.Context(), narrow); err == nil {
		t.Error("a token for the bank is taken by the shop")
	}
	bank := relyOn(t, s, issuer, "bank")
	got, err = bank.Verify(t.Context(), narrow)
	claims.Team, claims.Login = "", ""
	if err != nil || got.Claims(&claims) != nil || claims.Team != "web" || claims.Login != "" || time.Until(got.Expiry) > time.Minute {
		t.Errorf("it says %+v %+v %v", got, claims, err)
	}
	// The role is bound to the caller's token.
	short := s.Do(t, "POST", "auth/token/create", ada.Token, `{"ttl":"90s"}`).Auth.Token
	got, err = shop.Verify(t.Context(), identityToken(t, s, short, "identity/oidc/token/web"))
	if err != nil || time.Until(got.Expiry) > 90*time.Second || got.Subject != ada.EntityID {
		t.Errorf("a token of 90 seconds gets %+v %v", got, err)
	}
	// Withdrawn.
	s.Must(t, 200, "POST", "identity/oidc/key/web/rotate", `{"verification_ttl":0}`)
	if _, err := relyOn(t, s, issuer, "shop").Verify(t.Context(), second); err == nil {
		t.Error("a token of a withdrawn pair is verified")
	}
	s.Must(t, 400, "DELETE", "identity/oidc/key/web", "")
	// Whoever has no entity, or a disabled one, gets none.
	if a := s.Must(t, 400, "GET", "identity/oidc/token/web", ""); !strings.Contains(a.Errors[0], "no entity") {
		t.Errorf("root is told %q", a.Errors)
	}
	active := func(token, want string) {
		t.Helper()
		a := s.Must(t, 200, "POST", "identity/oidc/introspect", `{"token":"`+token+`","client_id":"shop"}`)
		if !strings.HasPrefix(string(a.Body), want) {
			t.Errorf("introspection says %s, want %s", a.Body, want)
		}
	}
	third := identityToken(t, s, ada.Token, "identity/oidc/token/web")
	active(third, `{"active":true}`)
	active(second, `{"active":false,"error":"unable to validate the token signature`)
	s.Must(t, 204, "POST", "identity/entity/id/"+ada.EntityID, `{"disabled":true}`)
	active(third, `{"active":false,"error":"entity is disabled"}`)
	if a := s.Do(t, "GET", "identity/oidc/token/web", ada.Token, ""); a.Status != 403 {
		t.Errorf("a disabled entity is answered %d", a.Status)
	}
	foundNowhere(t, s, first, second, narrow, third)
}

// header returns the first part of a token, which names its key.
func header(t *testing.T, token string) string {
	t.Helper()
	h, _, ok := strings.Cut(token, ".")
	if !ok {
		t.Fatalf("%q is no token", token)
	}
	return h
}

// foundNowhere searches the logs and the store for tokens.
func foundNowhere(t *testing.T, s *apptest.Server, tokens ...string) {
	t.Helper()
	s.Stop(t)
	files := map[string][]byte{"the server's log": []byte(s.Log.String())}
	if err := filepath.WalkDir(s.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[path], err = os.ReadFile(path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, token := range tokens {
		_, rest, _ := strings.Cut(token, ".")
		for name, text := range files {
			if bytes.Contains(text, []byte(rest)) {
				t.Errorf("an identity token stands in %s", name)
			}
		}
	}
}

func TestPublishedKeysMayBeKept(t *testing.T) {
	s := apptest.Start(t, "")
	age := func(path string) string {
		t.Helper()
		a := s.Do(t, "GET", "identity/oidc/.well-known/"+path, "", "")
		if a.Status != 200 || a.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s is answered %d %s", path, a.Status, a.Body)
		}
		return a.Header.Get("Cache-Control")
	}
	if got := age("keys"); got != "public, max-age=300" {
		t.Errorf("without a key: %q", got)
	}
	s.Must(t, 204, "POST", "identity/oidc/key/fast", `{"rotation_period":"1m","verification_ttl":"1m","algorithm":"EdDSA"}`)
	if got := age("keys"); got != "public, max-age=30" {
		t.Errorf("with a key that rotates each minute: %q", got)
	}
	if got := age("openid-configuration"); got != "public, max-age=3600" {
		t.Errorf("the discovery document: %q", got)
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	body := s.Do(t, "GET", "identity/oidc/.well-known/keys", "", "").Body
	if err := json.Unmarshal(body, &set); err != nil || len(set.Keys) != 2 || regexp.MustCompile(`"(d|p|q|dp|dq|qi)":`).Match(body) {
		t.Errorf("published is %s", body)
	}
	// What fails is never kept.
	if a := s.Do(t, "GET", "nowhere/identity/oidc/.well-known/keys", "", ""); a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a refusal is answered with %q", a.Header.Get("Cache-Control"))
	}
}

func TestIssuersOfNamespacesAreApart(t *testing.T) {
	s := apptest.Start(t, "")
	team(t, s, "web")
	team(t, s, "web/dev")
	tokens := map[string]string{}
	for _, path := range []string{"web", "web/dev"} {
		must := func(method, p, body string) *apptest.Answer {
			t.Helper()
			a := s.Do(t, method, p, s.Root, body, in(path)...)
			if a.Status >= 300 {
				t.Fatalf("%s %s in %s is answered %d %s", method, p, path, a.Status, a.Body)
			}
			return a
		}
		must("POST", "sys/auth/userpass", `{"type":"userpass"}`)
		must("POST", "auth/userpass/users/ada", `{"password":"correct horse","token_policies":"all"}`)
		must("POST", "identity/oidc/role/r", `{"key":"default","client_id":"shop"}`)
		caller := must("POST", "auth/userpass/login/ada", `{"password":"correct horse"}`).Auth.Token
		tokens[path] = identityToken(t, s, caller, "identity/oidc/token/r", in(path)...)
		if path == "web" {
			a := s.Do(t, "GET", "identity/oidc/token/r", caller, "", in("web/dev")...)
			if a.Status == 200 {
				t.Error("a caller of the namespace above gets a token of this one")
			}
		}
		issuer := s.URL() + "/v1/" + path + "/identity/oidc"
		got, err := relyOn(t, s, issuer, "shop").Verify(t.Context(), tokens[path])
		if err != nil || got.Issuer != issuer {
			t.Errorf("in %s: %+v %v", path, got, err)
		}
		if a := must("POST", "identity/oidc/introspect", `{"token":"`+tokens[path]+`"}`); !strings.HasPrefix(string(a.Body), `{"active":true}`) {
			t.Errorf("in %s: %s", path, a.Body)
		}
	}
	if _, err := relyOn(t, s, s.URL()+"/v1/web/dev/identity/oidc", "shop").Verify(t.Context(), tokens["web"]); err == nil {
		t.Error("a token of one namespace is verified with the keys of another")
	}
	a := s.Must(t, 200, "POST", "identity/oidc/introspect", `{"token":"`+tokens["web"]+`"}`)
	if !strings.HasPrefix(string(a.Body), `{"active":false`) {
		t.Errorf("the root says of it %s", a.Body)
	}
	// The keys of a deleted namespace are gone with it.
	if a := s.Do(t, "DELETE", "sys/namespaces/dev", s.Root, "", in("web")...); a.Status >= 300 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if a := s.Do(t, "GET", "web/dev/identity/oidc/.well-known/keys", "", ""); a.Status == 200 {
		t.Errorf("published still: %s", a.Body)
	}
}

// TestIdentityTokensOfSeveralNodes asks one node for what another one changed.
func TestIdentityTokensOfSeveralNodes(t *testing.T) {
	e := onPostgres(t)
	c := newCluster(t, 2, e.block, "")
	one, two := c.nodes[0], c.nodes[1]
	one.Must(t, 204, "POST", "sys/auth/userpass", `{"type":"userpass"}`)
	one.Must(t, 204, "PUT", "sys/policies/acl/all", `{"policy":"path \"identity/*\" { capabilities = [\"read\"] }"}`)
	one.Must(t, 204, "POST", "auth/userpass/users/ada", `{"password":"correct horse","token_policies":"all"}`)
	one.Must(t, 204, "POST", "identity/oidc/key/web", `{"algorithm":"ES256","allowed_client_ids":"*"}`)
	one.Must(t, 204, "POST", "identity/oidc/role/web", `{"key":"web","client_id":"shop"}`)
	ada := one.Must(t, 200, "POST", "auth/userpass/login/ada", `{"password":"correct horse"}`).Auth.Token
	// Whose address would be the issuer?
	if a := one.Do(t, "GET", "identity/oidc/token/web", ada, ""); a.Status != 400 || !strings.Contains(a.Errors[0], "issuer of identity tokens is not known") {
		t.Fatalf("without an issuer: %d %s", a.Status, a.Body)
	}
	if a := one.Must(t, 200, "GET", "identity/oidc/config", ""); len(a.Warnings) != 1 {
		t.Errorf("nobody is warned of it: %s", a.Body)
	}
	one.Must(t, 200, "POST", "identity/oidc/config", `{"issuer":"https://coffer.test"}`)
	get := func(p *process) (token string) {
		t.Helper()
		var out struct {
			Token string `json:"token"`
		}
		a := p.Do(t, "GET", "identity/oidc/token/web", ada, "")
		if a.Status != 200 {
			t.Fatalf("a node answers %d %s", a.Status, a.Body)
		}
		a.Into(t, &out)
		return out.Token
	}
	active := func(p *process, token string) bool {
		t.Helper()
		return strings.HasPrefix(string(p.Must(t, 200, "POST", "identity/oidc/introspect", `{"token":"`+token+`"}`).Body), `{"active":true}`)
	}
	keys := func(p *process) string {
		return string(p.Do(t, "GET", "identity/oidc/.well-known/keys", "", "").Body)
	}
	keys(two) // which it keeps in memory from here on
	for range 5 {
		old := get(two)
		if !active(one, old) {
			t.Fatal("a token of one node does not hold at the other")
		}
		one.Must(t, 200, "POST", "identity/oidc/key/web/rotate", `{"verification_ttl":0}`)
		if active(two, old) {
			t.Fatal("a node takes a token whose key another one withdrew")
		}
		if now := get(two); header(t, now) == header(t, old) || !active(one, now) {
			t.Fatal("a node signs with a key that another one withdrew")
		}
	}
	eventually(t, "both publish the same keys", func() bool { return keys(one) == keys(two) })
}

// TestIssuerOfAServerWithoutAnAddress wants no issuer made of a listener on all
// interfaces, and the configured address where there is one.
func TestIssuerOfAServerWithoutAnAddress(t *testing.T) {
	for more, want := range map[string]string{
		"": "", `api_addr = "https://coffer.test:8200"`: "https://coffer.test:8200/v1/identity/oidc",
	} {
		p := newProcess(t, "")
		p.configure(t, strings.ReplaceAll(tcp, "127.0.0.1:0", "0.0.0.0:0")+more+"\n")
		p.start(t)
		p.initialize(t)
		a := p.Do(t, "GET", "identity/oidc/.well-known/openid-configuration", "", "")
		var d struct{ Issuer string }
		_ = json.Unmarshal(a.Body, &d)
		if d.Issuer != want || (a.Status == 200) != (want != "") {
			t.Errorf("with %q: %d %s", more, a.Status, a.Body)
		}
		if want == "" && a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("a refusal may be kept: %q", a.Header.Get("Cache-Control"))
		}
		p.stop(t)
	}
}

// TestMakingAndChangingKeysAreTwoRights wants create for what is new, and update for
// what is there.
func TestMakingAndChangingKeysAreTwoRights(t *testing.T) {
	s := apptest.Start(t, "")
	// With a warning that who may create may mostly want to update, too.
	s.Must(t, 200, "POST", "sys/policies/acl/make", `{"policy":"path \"identity/oidc/+/*\" { capabilities = [\"create\"] }"}`)
	maker := s.Must(t, 200, "POST", "auth/token/create", `{"policies":"make"}`).Auth.Token
	for path, body := range map[string]string{"identity/oidc/key/a": `{"algorithm":"ES256"}`, "identity/oidc/role/a": `{"key":"default"}`} {
		for _, want := range []int{204, 403} {
			if a := s.Do(t, "POST", path, maker, body); a.Status != want {
				t.Errorf("POST %s is answered %d %s, want %d", path, a.Status, a.Body, want)
			}
		}
		if a := s.Do(t, "GET", path, maker, ""); a.Status != 403 {
			t.Errorf("GET %s is answered %d", path, a.Status)
		}
	}
}
