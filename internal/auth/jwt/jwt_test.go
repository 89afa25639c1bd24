package jwt

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type server struct {
	*enginetest.Engine
	t testing.TB
}

func newServer(t testing.TB) *server {
	t.Helper()
	e := memory.New()
	t.Cleanup(func() { _ = e.Close() })
	return &server{enginetest.Open(t, Kind.Spec(), enginetest.Options{Storage: e, Mount: engine.Mount{Path: "auth/ci/jwt/"}}), t}
}

// object is JSON text of a request.
func object(fields map[string]any) string {
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// trusting is a server that trusts an issuer, with a role of type jwt.
func trusting(t testing.TB, role map[string]any) (*server, *issuertest.Issuer) {
	t.Helper()
	s, who := newServer(t), issuertest.New(t)
	s.Must(t, 204, "POST", "config", object(map[string]any{"oidc_discovery_url": who.URL, "oidc_discovery_ca_pem": who.CA, "default_role": "Deploy"}))
	s.role("deploy", role)
	return s, who
}

func (s *server) role(name string, fields map[string]any) {
	s.t.Helper()
	all := map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "coffer", "token_policies": "deploy", "token_ttl": "10m"}
	maps.Copy(all, fields)
	s.Must(s.t, 204, "POST", "role/"+name, object(all))
}

func (s *server) login(role, token string) (auth.Login, error) {
	a := s.As(route.Caller{}, "POST", "login", object(map[string]any{"role": role, "jwt": token}))
	out, _ := a.Output.(auth.Login)
	return out, a.Err
}

func (s *server) refused(role, token, want string) {
	s.t.Helper()
	if _, err := s.login(role, token); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.From(err).Message, want) {
		s.t.Errorf("%v, want %q", err, want)
	}
}

func (s *server) accepted(role, token string) auth.Login {
	s.t.Helper()
	out, err := s.login(role, token)
	if err != nil {
		s.t.Error(err)
	}
	return out
}

var forCoffer = map[string]any{"aud": "coffer"}

func with(more map[string]any) map[string]any {
	out := maps.Clone(forCoffer)
	maps.Copy(out, more)
	return out
}

func TestLogin(t *testing.T) {
	s, who := trusting(t, map[string]any{
		"claim_mappings": map[string]string{"repository": "repo", "/k8s/pod": "pod", "run": "run", "none": "none"},
		"groups_claim":   "/teams/list",
	})
	got := s.accepted("DEPLOY", who.Sign(with(map[string]any{
		"repository": "acme/app", "k8s": map[string]any{"pod": "web-1"}, "run": 12345678901234567, "teams": map[string]any{"list": []string{"a", "", "b"}},
	}))+"\n")
	if got.Alias != "somebody" || got.DisplayName != "ci-jwt-somebody" || !slices.Equal(got.Policies, []string{"deploy"}) || got.TTL.Duration() != 10*time.Minute ||
		!slices.Equal(got.Groups, []string{"a", "b"}) ||
		!maps.Equal(got.Metadata, map[string]string{"role": "deploy", "repo": "acme/app", "pod": "web-1", "run": "12345678901234567"}) {
		t.Errorf("%+v", got)
	}
	teams := map[string]any{"teams": map[string]any{"list": "a"}}
	s.accepted("", who.Sign(with(teams)))
	s.refused("", who.Sign(forCoffer), `"/teams/list" claim not found in token`)
	s.refused("", who.Sign(with(map[string]any{"teams": map[string]any{"list": []any{"a", 1}}})), "could not be converted to string list")
	s.refused("nobody", who.Sign(with(teams)), `role "nobody" could not be found`)
	s.refused("../config", who.Sign(with(teams)), "role name")
	s.refused("", "", "missing token")
	s.refused("", "x", "error validating token: the token is not a signed JSON web token")
	s.refused("", who.Sign(with(map[string]any{"exp": 1})), "error validating token: the token is expired")
	s.refused("", who.Sign(with(map[string]any{"aud": "other"})), "error validating token: the token is for the audience")
	s.refused("", who.Sign(with(map[string]any{"iss": "https://x.example"})), "error validating token: the token is of the issuer")
	s.refused("", who.Sign(with(map[string]any{"sub": nil})), `claim "sub" not found in token`)
	s.refused("", who.Sign(with(map[string]any{"sub": 7})), `claim "sub" could not be converted to string`)
	s.refused("", who.Sign(with(map[string]any{"sub": ""})), `claim "sub" is empty`)
	s.refused("", who.Sign(with(map[string]any{"sub": strings.Repeat("x", maxUser+1)})), "1024 bytes")
	s.refused("", who.Sign(with(map[string]any{"run": []int{1}, "teams": teams["teams"]})), "error converting claim 'run' to string")
	who.Stop()
	fresh := newServer(t)
	fresh.Must(t, 200, "POST", "config", object(map[string]any{"jwks_url": who.URL + "/keys", "jwks_ca_pem": who.CA, "skip_jwks_validation": true}))
	fresh.role("deploy", nil)
	if _, err := fresh.login("deploy", who.Sign(forCoffer)); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("an issuer that is away: %v", err)
	}
}

func TestUserByPointer(t *testing.T) {
	s, who := trusting(t, map[string]any{"user_claim": "/a/user"})
	s.refused("", who.Sign(with(map[string]any{"a": map[string]any{"user": "ada"}})), "not found in token")
	if got := s.accepted("", who.Sign(with(map[string]any{"/a/user": "literal"}))); got.Alias != "literal" {
		t.Errorf("%+v", got)
	}
	s.role("deploy", map[string]any{"user_claim": "/a/user", "user_claim_json_pointer": true})
	if got := s.accepted("", who.Sign(with(map[string]any{"a": map[string]any{"user": "ada"}}))); got.Alias != "ada" {
		t.Errorf("%+v", got)
	}
}

// A token for some audience is not taken by a role that expects none.
func TestAudienceThatNobodyExpects(t *testing.T) {
	s, who := trusting(t, map[string]any{"bound_audiences": "", "bound_subject": "somebody"})
	s.accepted("", who.Sign(nil))
	s.refused("", who.Sign(forCoffer), "audience claim found in JWT but no audiences bound to the role")
	s.refused("", who.Sign(map[string]any{"aud": 7}), "audience claim found in JWT")
	s.refused("", who.Sign(map[string]any{"sub": "else"}), "the token's subject is")
}

func TestBoundClaims(t *testing.T) {
	for name, c := range map[string]struct {
		kind  string
		bound string // JSON
		given string // JSON of claims
		want  string // "" where it is accepted
	}{
		"one":                       {"string", `{"ref":"main"}`, `{"ref":"main"}`, ""},
		"another":                   {"string", `{"ref":"main"}`, `{"ref":"main2"}`, `claim "ref" does not match`},
		"case counts":               {"string", `{"ref":"main"}`, `{"ref":"Main"}`, "does not match"},
		"missing":                   {"string", `{"ref":"main"}`, `{}`, `claim "ref" is missing`},
		"null":                      {"string", `{"ref":"main"}`, `{"ref":null}`, "is missing"},
		"one of several":            {"string", `{"ref":["a","main"]}`, `{"ref":"main"}`, ""},
		"a list":                    {"string", `{"ref":["x","main"]}`, `{"ref":["y","main"]}`, ""},
		"a list without":            {"string", `{"ref":["x"]}`, `{"ref":["y","main"]}`, "does not match"},
		"an empty list":             {"string", `{"ref":["x"]}`, `{"ref":[]}`, "does not match"},
		"an empty list is wanted":   {"string", `{"ref":[]}`, `{"ref":[]}`, "does not match"},
		"all must match":            {"string", `{"a":"1","b":"2"}`, `{"a":"1","b":"3"}`, `claim "b" does not match`},
		"a boolean":                 {"string", `{"p":true}`, `{"p":true}`, ""},
		"a boolean is no text":      {"string", `{"p":true}`, `{"p":"true"}`, "does not match"},
		"a number":                  {"string", `{"n":100}`, `{"n":1e2}`, ""},
		"a large number":            {"string", `{"n":9007199254740993}`, `{"n":9007199254740992}`, "does not match"},
		"a number beyond all":       {"string", `{"n":1}`, `{"n":1e999999999}`, "does not match"},
		"an object":                 {"string", `{"o":"x"}`, `{"o":{"a":1}}`, "is not a string, bool, int or list"},
		"inside":                    {"string", `{"/o/a":"x"}`, `{"o":{"a":"x"}}`, ""},
		"a star is no pattern":      {"string", `{"ref":"refs/*"}`, `{"ref":"refs/heads/x"}`, "does not match"},
		"a pattern":                 {"glob", `{"ref":"refs/heads/*"}`, `{"ref":"refs/heads/x"}`, ""},
		"a pattern that is not met": {"glob", `{"ref":"refs/heads/*"}`, `{"ref":"refs/tags/x"}`, "does not match"},
		"a pattern is the whole":    {"glob", `{"ref":"refs/heads/*"}`, `{"ref":"x/refs/heads/x"}`, "does not match"},
		"a pattern and no text":     {"glob", `{"ref":"*"}`, `{"ref":true}`, "does not match"},
		"a pattern in a list":       {"glob", `{"ref":["a*","b*"]}`, `{"ref":["xb","bx"]}`, ""},
		"expressions are none":      {"glob", `{"ref":"[a-z]+.?"}`, `{"ref":"main"}`, "does not match"},
	} {
		t.Run(name, func(t *testing.T) {
			s, who := trusting(t, map[string]any{"bound_claims": json.RawMessage(c.bound), "bound_claims_type": c.kind})
			var claims map[string]any
			d := json.NewDecoder(strings.NewReader(c.given))
			d.UseNumber()
			if err := d.Decode(&claims); err != nil {
				t.Fatal(err)
			}
			token := who.Sign(with(claims))
			if c.want == "" {
				s.accepted("", token)
			} else {
				s.refused("", token, c.want)
			}
		})
	}
}

func TestLeeway(t *testing.T) {
	s, who := trusting(t, nil)
	now := time.Now().Unix()
	s.accepted("", who.Sign(with(map[string]any{"exp": now - 50})))
	s.refused("", who.Sign(with(map[string]any{"exp": now - 65})), "expired")
	s.accepted("", who.Sign(with(map[string]any{"exp": nil, "iat": now - 200})))
	s.refused("", who.Sign(with(map[string]any{"exp": nil, "iat": now - 220})), "expired")
	s.role("deploy", map[string]any{"clock_skew_leeway": -1, "expiration_leeway": "5m", "not_before_leeway": -1})
	s.refused("", who.Sign(with(map[string]any{"exp": now - 5})), "expired")
	s.accepted("", who.Sign(with(map[string]any{"exp": nil, "iat": now - 250})))
	s.accepted("", who.Sign(with(map[string]any{"exp": now + 9000, "iat": nil})))
}

func TestRenew(t *testing.T) {
	s, who := trusting(t, nil)
	got := s.accepted("", who.Sign(forCoffer))
	s.role("deploy", map[string]any{"token_ttl": "20m", "token_max_ttl": "1h"})
	renewer := s.State.(auth.Renewer)
	again, err := renewer.Renew(t.Context(), route.Caller{}, got)
	if err != nil || again.TTL.Duration() != 20*time.Minute || again.MaxTTL.Duration() != time.Hour {
		t.Errorf("%+v %v", again, err)
	}
	s.Must(t, 204, "DELETE", "role/deploy", "")
	if _, err := renewer.Renew(t.Context(), route.Caller{}, got); !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
	s.refused("", who.Sign(forCoffer), "could not be found")
}

// Another configuration counts at once, with its own keys.
func TestConfigurationIsReplaced(t *testing.T) {
	s, first := trusting(t, nil)
	second := issuertest.New(t)
	s.accepted("deploy", first.Sign(forCoffer))
	s.Must(t, 204, "POST", "config", object(map[string]any{"jwks_pairs": []map[string]string{{"jwks_url": second.URL + "/keys", "jwks_ca_pem": second.CA}}}))
	s.accepted("deploy", second.Sign(forCoffer))
	s.refused("deploy", first.Sign(forCoffer), "signature")
	s.refused("", second.Sign(forCoffer), "missing role")
	s.Must(t, 204, "POST", "config", object(map[string]any{"jwt_validation_pubkeys": issuertest.PublicPEM(t, first.Key()), "bound_issuer": first.URL, "jwt_supported_algs": "ES256,RS256"}))
	s.accepted("deploy", first.Sign(forCoffer))
	s.refused("deploy", second.Sign(forCoffer), "signature")
	s.refused("deploy", first.Sign(with(map[string]any{"iss": second.URL})), "issuer")
}

func TestConfig(t *testing.T) {
	s, who := newServer(t), issuertest.New(t)
	s.Must(t, 404, "GET", "config", "")
	s.refused("x", "y", "could not load configuration")
	good := map[string]any{"oidc_discovery_url": who.URL, "oidc_discovery_ca_pem": who.CA, "oidc_client_id": "coffer", "oidc_client_secret": "do not tell"}
	s.Must(t, 204, "POST", "config", object(good))
	a := s.Must(t, 200, "GET", "config", "")
	var out map[string]any
	if err := json.Unmarshal([]byte(a.Data), &out); err != nil || strings.Contains(a.Data, "do not tell") {
		t.Fatal(a.Data, err)
	}
	if out["status"] != "valid" || out["namespace_in_state"] != true || out["oidc_client_id"] != "coffer" || out["provider_config"] == nil {
		t.Error(out)
	}
	if _, told := out["oidc_client_secret"]; told {
		t.Error("the secret's field is answered")
	}
	for name, c := range map[string]struct {
		change map[string]any
		want   string
	}{
		"nothing":             {map[string]any{"oidc_discovery_url": ""}, "exactly one of"},
		"two":                 {map[string]any{"jwks_url": who.URL}, "exactly one of"},
		"no secret":           {map[string]any{"oidc_client_secret": ""}, "both 'oidc_client_id' and"},
		"a client of keys":    {map[string]any{"oidc_discovery_url": "", "jwks_url": who.URL + "/keys"}, "'oidc_discovery_url' must be set for OIDC"},
		"well-known":          {map[string]any{"oidc_discovery_url": who.URL + "/.well-known/openid-configuration"}, "'.well-known'"},
		"HS256":               {map[string]any{"jwt_supported_algs": "HS256"}, "unsupported signing algorithm"},
		"response type":       {map[string]any{"oidc_response_types": "token"}, "invalid response_types"},
		"id_token in a query": {map[string]any{"oidc_response_types": "id_token"}, "query response_mode"},
		"response mode":       {map[string]any{"oidc_response_mode": "fragment"}, "invalid response_mode"},
		"a provider":          {map[string]any{"provider_config": map[string]any{"provider": "gsuite"}}, "provider_config"},
		"server names":        {map[string]any{"override_allowed_server_names": "x"}, "override_allowed_server_names"},
		"another authority":   {map[string]any{"oidc_discovery_ca_pem": ""}, "error checking oidc discovery URL"},
		"no authority":        {map[string]any{"oidc_discovery_ca_pem": "x"}, "PEM"},
		"plain http":          {map[string]any{"oidc_discovery_url": "http://accounts.example.com"}, "https"},
		"a large setting":     {map[string]any{"bound_issuer": strings.Repeat("x", maxSetting+1)}, "at most"},
	} {
		fields := maps.Clone(good)
		maps.Copy(fields, c.change)
		a := s.Do("POST", "config", object(fields))
		if !fault.Is(a.Err, fault.Invalid) || !strings.Contains(fault.From(a.Err).Message, c.want) {
			t.Errorf("%s: %v", name, a.Err)
		}
	}
	if after := s.Must(t, 200, "GET", "config", ""); after.Data != a.Data {
		t.Error("a refused configuration changed something")
	}
	who.Stop()
	s.Must(t, 200, "POST", "config", object(map[string]any{"oidc_discovery_url": who.URL, "skip_jwks_validation": true}))
	if a := s.Must(t, 200, "GET", "config", ""); !strings.Contains(a.Data, `"status":"invalid"`) || len(a.Warnings) != 1 {
		t.Error(a.Data, a.Warnings)
	}
}

func TestRoles(t *testing.T) {
	s := newServer(t)
	s.Must(t, 404, "LIST", "role", "")
	s.Must(t, 404, "GET", "role/deploy", "")
	s.role("Deploy", map[string]any{"bound_claims": `{"n":[1,true,"x"]}`, "claim_mappings": "a=b,c=d", "policies": "old"})
	var out map[string]any
	if err := json.Unmarshal([]byte(s.Must(t, 200, "GET", "role/deploy", "").Data), &out); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"role_type": `"jwt"`, "bound_claims": `{"n":[1,true,"x"]}`, "claim_mappings": `{"a":"b","c":"d"}`, "bound_claims_type": `"string"`,
		"token_policies": `["deploy"]`, "token_ttl": "600", "allowed_redirect_uris": "[]", "user_claim": `"sub"`, "clock_skew_leeway": "0",
	} {
		if got, _ := json.Marshal(out[name]); string(got) != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	// What is left out stays.
	s.Must(t, 204, "POST", "role/deploy", `{"bound_subject":"x"}`)
	if a := s.Must(t, 200, "GET", "role/deploy", ""); !strings.Contains(a.Data, `"role_type":"jwt"`) || !strings.Contains(a.Data, `"bound_subject":"x"`) || !strings.Contains(a.Data, `"user_claim":"sub"`) {
		t.Error(a.Data)
	}
	before := s.Must(t, 200, "GET", "role/deploy", "").Data
	for name, c := range map[string]struct{ request, want string }{
		"no user claim":          {`{"user_claim":""}`, "a user claim must be defined"},
		"nothing is bound":       {`{"bound_audiences":"","bound_subject":"","bound_claims":{}}`, "at least one bound constraint"},
		"no redirect":            {`{"role_type":"oidc"}`, "'allowed_redirect_uris' must be set"},
		"a type":                 {`{"role_type":"saml"}`, "invalid 'role_type'"},
		"a claims type":          {`{"bound_claims_type":"regex"}`, "invalid 'bound_claims_type'"},
		"patterns of no text":    {`{"bound_claims_type":"glob"}`, "only strings can be patterns"},
		"an object in a claim":   {`{"bound_claims":{"a":{"b":1}}}`, "bound_claims"},
		"no object of claims":    {`{"bound_claims":"a=b"}`, "bound_claims: it must be an object"},
		"the metadata role":      {`{"claim_mappings":{"a":"role"}}`, "is reserved"},
		"one metadata twice":     {`{"claim_mappings":{"a":"x","b":"x"}}`, "multiple keys"},
		"a redirect with script": {`{"allowed_redirect_uris":"javascript:alert(1)"}`, "allowed_redirect_uris"},
		"a redirect with a part": {`{"allowed_redirect_uris":"https://x.example/#y"}`, "after #"},
		"a negative age":         {`{"max_age":-1}`, "max_age"},
		"a name":                 {`{"token_type":"x"}`, "token_type"},
	} {
		if a := s.Do("POST", "role/deploy", c.request); !fault.Is(a.Err, fault.Invalid) || !strings.Contains(fault.From(a.Err).Message, c.want) {
			t.Errorf("%s: %v", name, a.Err)
		}
	}
	if after := s.Must(t, 200, "GET", "role/deploy", "").Data; after != before {
		t.Error("a refused change changed something")
	}
	if a := s.Must(t, 200, "POST", "role/deploy", `{"verbose_oidc_logging":true}`); len(a.Warnings) != 1 {
		t.Error(a.Warnings)
	}
	s.Must(t, 400, "POST", "role/-", `{}`)
	if a := s.Must(t, 200, "LIST", "role", ""); a.Data != `{"keys":["deploy"]}` {
		t.Error(a.Data)
	}
	s.Must(t, 204, "DELETE", "role/DEPLOY", "")
	s.Must(t, 404, "GET", "role/deploy", "")
}
