package jwt

import (
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/issuer/providertest"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

const (
	home    = "https://coffer.example.com/ui/vault/auth/oidc/oidc/callback"
	onLocal = "http://localhost:8250/oidc/callback"
)

// people is a server whose role people logs in with a real provider.
func people(t testing.TB, config, role map[string]any) (*server, *providertest.Provider) {
	t.Helper()
	s, p := newServer(t), providertest.New(t, home, onLocal)
	fields := map[string]any{
		"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "default_role": "people",
		"oidc_client_id": providertest.ClientID, "oidc_client_secret": providertest.ClientSecret,
	}
	maps.Copy(fields, config)
	s.Must(t, 204, "POST", "config", object(fields))
	s.peopleRole(role)
	return s, p
}

func (s *server) peopleRole(role map[string]any) {
	s.t.Helper()
	fields := map[string]any{
		"user_claim": "sub", "allowed_redirect_uris": []string{home, "http://localhost/oidc/callback"}, "oidc_scopes": "profile,email",
		"groups_claim": "groups", "claim_mappings": map[string]string{"email": "email"}, "token_policies": "people",
	}
	maps.Copy(fields, role)
	s.Must(s.t, 204, "POST", "role/people", object(fields))
}

// begin begins a login and returns its address.
func (s *server) begin(redirect, nonce string) string {
	s.t.Helper()
	a := s.Must(s.t, 200, "POST", "oidc/auth_url", object(map[string]any{"role": "people", "redirect_uri": redirect, "client_nonce": nonce}))
	address := a.Output.(AuthURLAnswer).URL
	if address == "" {
		s.t.Fatal(a.Warnings)
	}
	return address
}

// back finishes a login with what the browser came back with.
func (s *server) back(values url.Values, nonce string) (auth.Login, error) {
	values = maps.Clone(values)
	if nonce != "" {
		values.Set("client_nonce", nonce)
	}
	a := s.As(route.Caller{}, "GET", "oidc/callback?"+values.Encode(), "")
	out, _ := a.Output.(auth.Login)
	return out, a.Err
}

func (s *server) fails(values url.Values, nonce, want string) {
	s.t.Helper()
	if _, err := s.back(values, nonce); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.From(err).Message, want) {
		s.t.Errorf("%v, want %q", err, want)
	}
}

// asks logs somebody in at the provider.
func asks(t testing.TB, p *providertest.Provider, address, user string) url.Values {
	t.Helper()
	answer, err := p.LogIn(t, address, user, providertest.Password)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Form
}

func query(t testing.TB, address string) url.Values {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

func TestBrowser(t *testing.T) {
	s, p := people(t, nil, nil)
	for _, redirect := range []string{home, onLocal} {
		address := s.begin(redirect, "nonce")
		q := query(t, address)
		if q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("nonce") == "" || len(q.Get("state")) < 32 ||
			q.Get("scope") != "openid profile email" || q.Get("response_type") != "code" || q.Get("redirect_uri") != redirect || strings.Contains(address, "secret") {
			t.Error(address)
		}
		got, err := s.back(asks(t, p, address, providertest.Ada), "nonce")
		if err != nil {
			t.Fatal(err)
		}
		if got.Alias != "id-ada" || got.DisplayName != "ci-jwt-id-ada" || !slices.Equal(got.Policies, []string{"people"}) ||
			!slices.Equal(got.Groups, []string{"engineers", "admins"}) || !maps.Equal(got.Metadata, map[string]string{"role": "people", "email": "ada@example.com"}) {
			t.Errorf("%+v", got)
		}
	}
	if n := s.states(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// states counts the logins that were begun and not finished.
func (s *server) states() (n int) {
	s.t.Helper()
	err := s.Storage.View(s.t.Context(), func(r storage.Reader) error {
		return storage.All(r, statePrefix, func(storage.Entry) error { n++; return nil })
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func TestBoundClaimsOfPeople(t *testing.T) {
	s, p := people(t, nil, map[string]any{"bound_claims": map[string]any{"groups": "engineers"}})
	if _, err := s.back(asks(t, p, s.begin(home, ""), providertest.Ada), ""); err != nil {
		t.Error(err)
	}
	s.fails(asks(t, p, s.begin(home, ""), providertest.Bob), "", `claim "groups" does not match`)
}

// Another node, over the same store, finishes a login that this one began.
func TestOtherNodeFinishes(t *testing.T) {
	s, p := people(t, nil, nil)
	other := &server{enginetest.Open(t, OIDC.Spec(), enginetest.Options{Storage: s.Storage, Mount: s.Mount}), t}
	values := asks(t, p, s.begin(home, "n"), providertest.Ada)
	if _, err := other.back(values, "n"); err != nil {
		t.Error(err)
	}
	s.fails(values, "n", "Expired or missing OAuth state.")
}

func TestReplay(t *testing.T) {
	s, p := people(t, nil, nil)
	values := asks(t, p, s.begin(home, ""), providertest.Ada)
	if _, err := s.back(values, ""); err != nil {
		t.Fatal(err)
	}
	s.fails(values, "", "Vault login failed. Expired or missing OAuth state.")
	// Nor does the code of one login finish another.
	again := query(t, s.begin(home, ""))
	values.Set("state", again.Get("state"))
	s.fails(values, "", "Error exchanging oidc code: the provider refused")
	s.fails(values, "", "Expired or missing OAuth state.")
	s.fails(url.Values{}, "", "Expired or missing OAuth state.")
	s.fails(url.Values{"state": {strings.Repeat("x", maxState+1)}}, "", "Expired or missing OAuth state.")
	s.fails(url.Values{"state": {"../role/people"}}, "", "Expired or missing OAuth state.")
}

// However many come back with one answer, one of them logs in.
func TestRace(t *testing.T) {
	s, p := people(t, nil, nil)
	values := asks(t, p, s.begin(home, ""), providertest.Ada)
	var in atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if _, err := s.back(values, ""); err == nil {
				in.Add(1)
			} else if !strings.Contains(err.Error(), "Expired or missing OAuth state.") {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if in.Load() != 1 {
		t.Errorf("%d logged in", in.Load())
	}
}

// Who begins logins without end is refused, and fills nothing.
func TestFlood(t *testing.T) {
	s, _ := people(t, nil, nil)
	request := object(map[string]any{"redirect_uri": home})
	from := route.Caller{Remote: netip.MustParseAddr("192.0.2.7")}
	for range maxBegunOne {
		if a := s.As(from, "POST", "oidc/auth_url", request); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	if a := s.As(from, "POST", "oidc/auth_url", request); !fault.Is(a.Err, fault.Limited) {
		t.Error(a.Err)
	}
	if n := s.states(); n != maxBegunOne {
		t.Errorf("%d rows", n)
	}
	s.begin(home, "") // from elsewhere
}

// A stolen code is of no use in a login of the thief's: PKCE ties it to the login
// that it is of.
func TestStolenCode(t *testing.T) {
	s, p := people(t, nil, nil)
	victim := asks(t, p, s.begin(home, "victim"), providertest.Ada)
	thief := query(t, s.begin(home, "thief"))
	s.fails(url.Values{"state": {thief.Get("state")}, "code": {victim.Get("code")}}, "thief", "Error exchanging oidc code: the provider refused")
}

func TestClientNonce(t *testing.T) {
	s, p := people(t, nil, nil)
	s.fails(asks(t, p, s.begin(home, "mine"), providertest.Ada), "another", "invalid client_nonce")
	s.fails(asks(t, p, s.begin(home, "mine"), providertest.Ada), "", "invalid client_nonce")
	s.Must(t, 400, "POST", "oidc/auth_url", object(map[string]any{"redirect_uri": home, "client_nonce": strings.Repeat("x", maxNonce+1)}))
	s.begin(home, strings.Repeat("x", maxNonce))
}

// The state of a login at one mount is nothing at another.
func TestStateOfAnotherMount(t *testing.T) {
	s, p := people(t, nil, nil)
	other := newServer(t)
	other.Must(t, 204, "POST", "config", object(map[string]any{
		"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_client_id": providertest.ClientID, "oidc_client_secret": providertest.ClientSecret,
	}))
	other.peopleRole(nil)
	values := asks(t, p, s.begin(home, ""), providertest.Ada)
	other.fails(values, "", "Expired or missing OAuth state.")
	if _, err := s.back(values, ""); err != nil {
		t.Error(err)
	}
}

func TestMixUp(t *testing.T) {
	s, p := people(t, nil, nil)
	values := asks(t, p, s.begin(home, ""), providertest.Ada)
	values.Set("iss", "https://evil.example")
	s.fails(values, "", "another provider")
	values = asks(t, p, s.begin(home, ""), providertest.Ada)
	values.Set("iss", p.URL)
	if _, err := s.back(values, ""); err != nil {
		t.Error(err)
	}
	// The configuration changes between the two halves of a login.
	values = asks(t, p, s.begin(home, ""), providertest.Ada)
	second := providertest.New(t, home)
	s.Must(t, 204, "POST", "config", object(map[string]any{
		"oidc_discovery_url": second.URL, "oidc_discovery_ca_pem": second.CA, "oidc_client_id": providertest.ClientID, "oidc_client_secret": providertest.ClientSecret,
	}))
	s.fails(values, "", "configuration was changed")
}

func TestRefusedByProvider(t *testing.T) {
	s, _ := people(t, nil, nil)
	state := func() string { return query(t, s.begin(home, "")).Get("state") }
	s.fails(url.Values{"state": {state()}, "error": {"access_denied"}}, "", "access_denied")
	s.fails(url.Values{"state": {state()}, "error": {"<script>"}}, "", "in the server's log")
	s.fails(url.Values{"state": {state()}}, "", "No code or id_token received.")
	s.fails(url.Values{"state": {state()}, "code": {"no_code"}}, "", "No code or id_token received.")
	s.fails(url.Values{"state": {state()}, "code": {"nonsense"}}, "", "the provider refused")
	state = func() string { return query(t, s.begin(home, "")).Get("state") }
	// A code of the largest size goes to the provider, and a larger one nowhere.
	s.fails(url.Values{"state": {state()}, "code": {strings.Repeat("x", maxCode)}}, "", "the provider refused")
	s.fails(url.Values{"state": {state()}, "code": {strings.Repeat("x", maxCode+1)}}, "", "Expired or missing OAuth state.")
	one := state()
	s.Must(t, 204, "DELETE", "role/people", "")
	s.fails(url.Values{"state": {one}, "code": {"x"}}, "", "Role could not be found")
}

func TestRedirects(t *testing.T) {
	s, _ := people(t, nil, map[string]any{"allowed_redirect_uris": []string{home, "http://localhost:8250/oidc/callback", "http://127.0.0.1/cb", "com.example.app:/cb"}})
	for uri, ok := range map[string]bool{
		home: true, "http://localhost:8250/oidc/callback": true, "http://localhost:9999/oidc/callback": true, "http://localhost/oidc/callback": true,
		"http://127.0.0.1:1/cb": true, "com.example.app:/cb": true,
		home + "?x=y": false, home + "/": false, home + "#": false, "https://coffer.example.com.evil.example/ui/vault/auth/oidc/oidc/callback": false,
		"http://localhost:8250/oidc/callback/": false, "https://localhost:8250/oidc/callback": false, "http://localhost@evil.example/oidc/callback": false,
		"http://evil@localhost:8250/oidc/callback": false, "http://127.0.0.1:8250/oidc/callback": false, "http://localhost.evil.example/oidc/callback": false,
		"javascript:alert(1)": false, "://": false, "/oidc/callback": false, strings.Replace(home, ".com", ".com:443", 1): false,
		"http://localhost:8250/oidc/../oidc/callback": false, home + strings.Repeat("x", maxRedirect): false,
	} {
		a := s.Must(t, 200, "POST", "oidc/auth_url", object(map[string]any{"redirect_uri": uri}))
		if got := a.Output.(AuthURLAnswer).URL != ""; got != ok {
			t.Errorf("%s: %t", uri, got)
		} else if !ok && len(a.Warnings) != 1 {
			t.Error(a.Warnings)
		}
	}
}

// A namespace in the address to come back to is carried by the state, so that one
// address serves all namespaces. Clients send the state with it or without.
func TestNamespaceInState(t *testing.T) {
	s, p := people(t, nil, nil)
	address := s.begin(home+"?namespace=team%2Fa", "n")
	q := query(t, address)
	if q.Get("redirect_uri") != home || !strings.HasSuffix(q.Get("state"), ",ns=team/a") {
		t.Error(address)
	}
	values := asks(t, p, address, providertest.Ada)
	values.Set("state", strings.TrimSuffix(values.Get("state"), ",ns=team/a"))
	if _, err := s.back(values, "n"); err != nil {
		t.Error(err)
	}
	values = asks(t, p, s.begin(home+"?namespace=team%2Fa", "n"), providertest.Ada)
	if _, err := s.back(values, "n"); err != nil {
		t.Error(err)
	}
	s.fails(values, "n", "Expired or missing OAuth state.")
	for _, uri := range []string{home + "?namespace=a&x=y", home + "?namespace=" + strings.Repeat("x", maxNamespace+1)} {
		if a := s.Must(t, 200, "POST", "oidc/auth_url", object(map[string]any{"redirect_uri": uri})); a.Output.(AuthURLAnswer).URL != "" {
			t.Errorf("%s is allowed", uri)
		}
	}
	s.Must(t, 204, "POST", "config", object(map[string]any{
		"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_client_id": providertest.ClientID, "oidc_client_secret": providertest.ClientSecret,
		"default_role": "people", "namespace_in_state": false,
	}))
	if a := s.Must(t, 200, "POST", "oidc/auth_url", object(map[string]any{"redirect_uri": home + "?namespace=a"})); a.Output.(AuthURLAnswer).URL != "" {
		t.Error("the address is another, and is allowed")
	}
}

func TestBeginRefusals(t *testing.T) {
	s, p := people(t, nil, nil)
	s.role("job", nil)
	for request, want := range map[string]string{
		`{"redirect_uri":"` + home + `","role":"nobody"}`: "could not be found",
		`{"redirect_uri":"` + home + `","role":"job"}`:    "is of type jwt",
		`{"role":"people"}`:                               "missing redirect_uri",
	} {
		if a := s.Do("POST", "oidc/auth_url", request); !fault.Is(a.Err, fault.Invalid) || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%s: %v", request, a.Err)
		}
	}
	s.refused("people", "x", "role with oidc role_type is not allowed")
	s.Must(t, 405, "POST", "oidc/callback", `{"state":"x","code":"y"}`)
	s.Must(t, 204, "POST", "config", object(map[string]any{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA}))
	if a := s.Do("POST", "oidc/auth_url", `{"redirect_uri":"`+home+`"}`); !fault.Is(a.Err, fault.Invalid) || !strings.Contains(a.Err.Error(), "OIDC login is not configured") {
		t.Error(a.Err)
	}
}

// A login that takes too long is over, and its row goes.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New()
		defer func() { _ = e.Close() }()
		s := &server{enginetest.Open(t, Kind.Spec(), enginetest.Options{Storage: e, Mount: engine.Mount{Path: "auth/oidc/"}}), t}
		m := s.State.(*Method)
		begin := func(param string) {
			_, err := e.Update(t.Context(), func(x storage.Txn) error {
				return storage.Save(x, m.stateKey(param), &state{Role: "people", Expires: time.Now().Add(stateLife)})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		begin("one")
		time.Sleep(stateLife - 1)
		if _, err := m.take(t.Context(), "one"); err != nil {
			t.Error(err)
		}
		begin("two")
		time.Sleep(stateLife)
		if _, err := m.take(t.Context(), "two"); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
		for n := range 3 * page {
			begin(strings.Repeat("x", n+1))
		}
		stop := s.Run(t)
		synctest.Wait()
		if n := s.states(); n != 3*page {
			t.Errorf("%d rows", n)
		}
		time.Sleep(stateLife + tidyEvery)
		synctest.Wait()
		if n := s.states(); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		stop()
	})
}

// Who begins logins without end is refused, and soon nobody else with them.
func TestBegunBound(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	b := newBegun(func() time.Time { return now })
	enter := func(text string) bool {
		err := b.enter(netip.MustParseAddr(text))
		if err != nil && (!fault.Is(err, fault.Limited) || fault.From(err).RetryAfter == 0) {
			t.Fatal(err)
		}
		return err == nil
	}
	for range maxBegunOne {
		if !enter("2001:db8::1") {
			t.Fatal("refused too early")
		}
	}
	if enter("2001:db8::2") || !enter("2001:db8:0:1::1") || !enter("192.0.2.1") || !enter("::ffff:192.0.2.1") {
		t.Error("a /64 is one address, and others are others")
	}
	now = now.Add(stateLife * 3 / 2) // half of the window before counts
	for range maxBegunOne / 2 {
		if !enter("2001:db8::3") {
			t.Fatal("refused too early")
		}
	}
	if enter("2001:db8::3") {
		t.Error("the window before was forgotten")
	}
	now = now.Add(3 * stateLife)
	n := 0
	for from := netip.MustParseAddr("10.0.0.0"); n < maxBegun+1 && enter(from.String()); from = from.Next() {
		n++
	}
	if n != maxBegun {
		t.Errorf("%d logins were begun", n)
	}
}
