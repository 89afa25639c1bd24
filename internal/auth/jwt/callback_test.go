package jwt

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
	"github.com/cofferhq/coffer/internal/auth/issuer/providertest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

// The provider posts its answer to the server, and the browser goes on from there.
func TestFormPost(t *testing.T) {
	s, p := people(t, map[string]any{"oidc_response_mode": "form_post"}, nil)
	for _, direct := range []bool{false, true} {
		answer, err := p.LogIn(t, s.begin(home, "n"), providertest.Ada, providertest.Password)
		if err != nil || answer.Method != http.MethodPost || answer.URL.String() != home {
			t.Fatalf("%+v %v", answer, err)
		}
		post := object(map[string]any{"state": answer.Form.Get("state"), "code": answer.Form.Get("code")})
		page := s.Must(t, 200, "POST", "oidc/callback", post).Output.(route.Raw)
		if text := string(page.Body); !strings.Contains(text, "/ui/vault/auth/ci/jwt/oidc/callback?code=no_code&amp;state=") || strings.Contains(text, "<script") || strings.Contains(text, answer.Form.Get("code")) {
			t.Error(text)
		}
		s.Must(t, 400, "POST", "oidc/callback", post) // once
		values := url.Values{"state": {answer.Form.Get("state")}, "code": {"no_code"}}
		if direct {
			values.Set("code", answer.Form.Get("code"))
		}
		if got, err := s.back(values, "n"); err != nil || got.Alias != "id-ada" {
			t.Error(got, err)
		}
	}
	s.Must(t, 400, "POST", "oidc/callback", `{"state":"<b>","code":"x"}`)
	one := query(t, s.begin(home, "")).Get("state")
	if page := s.Must(t, 400, "POST", "oidc/callback", object(map[string]any{"state": one, "error": "access_denied"})); !strings.Contains(string(page.Output.(route.Raw).Body), "access_denied") {
		t.Error(page)
	}
	s.fails(url.Values{"state": {one}, "code": {"x"}}, "", "Expired or missing OAuth state.")
	s.Must(t, 400, "POST", "oidc/callback", object(map[string]any{"state": query(t, s.begin(home, "")).Get("state"), "code": strings.Repeat("x", maxCode+1)}))
}

func TestIDTokenPosted(t *testing.T) {
	s, p := people(t, map[string]any{"oidc_response_mode": "form_post", "oidc_response_types": "id_token"}, nil)
	address := s.begin(home, "")
	answer, err := p.LogIn(t, address, providertest.Ada, providertest.Password)
	if err != nil {
		t.Fatal(err)
	}
	token := answer.Form.Get("id_token")
	finish := func(state string) (auth.Login, error) {
		s.Must(t, 200, "POST", "oidc/callback", object(map[string]any{"state": state, "id_token": token}))
		return s.back(url.Values{"state": {state}, "code": {"no_code"}}, "")
	}
	if got, err := finish(answer.Form.Get("state")); err != nil || got.Alias != "id-ada" {
		t.Error(got, err)
	}
	// The token of one login is of no use in another.
	if _, err := finish(query(t, s.begin(home, "")).Get("state")); err == nil || !strings.Contains(err.Error(), "nonce") {
		t.Error(err)
	}
}

// hostile is a server whose provider answers with the id token that make makes.
func hostile(t *testing.T, role map[string]any) (*server, *issuertest.Issuer, func(answer http.HandlerFunc)) {
	t.Helper()
	s, who := newServer(t), issuertest.New(t)
	s.Must(t, 204, "POST", "config", object(map[string]any{
		"oidc_discovery_url": who.URL, "oidc_discovery_ca_pem": who.CA, "oidc_client_id": "coffer", "oidc_client_secret": "x", "default_role": "people",
	}))
	s.peopleRole(map[string]any{"groups_claim": ""})
	s.Must(t, 204, "POST", "role/people", object(role))
	return s, who, func(answer http.HandlerFunc) {
		who.Answer(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				answer(w, r)
				return
			}
			who.Serve(w, r)
		})
	}
}

func TestHostileProvider(t *testing.T) {
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		role   map[string]any
		claims map[string]any
		want   string // "" where it is accepted
	}{
		"good":                       {nil, nil, ""},
		"another nonce":              {nil, map[string]any{"nonce": "x"}, "nonce"},
		"no nonce":                   {nil, map[string]any{"nonce": nil}, "nonce"},
		"another audience":           {nil, map[string]any{"aud": "x"}, "audience"},
		"no audience":                {nil, map[string]any{"aud": nil}, "no audience"},
		"another issuer":             {nil, map[string]any{"iss": "https://x.example"}, "issuer"},
		"expired":                    {nil, map[string]any{"exp": now - 100}, "expired"},
		"no expiry":                  {nil, map[string]any{"exp": nil}, "no expiry"},
		"two audiences":              {nil, map[string]any{"aud": []string{"coffer", "x"}}, "azp"},
		"two audiences, ours":        {nil, map[string]any{"aud": []string{"coffer", "x"}, "azp": "coffer"}, ""},
		"another party":              {nil, map[string]any{"azp": "x"}, "azp"},
		"bound audience":             {map[string]any{"bound_audiences": "b"}, nil, "bound_audiences"},
		"bound audience, and ours":   {map[string]any{"bound_audiences": "b"}, map[string]any{"aud": []string{"coffer", "b"}, "azp": "coffer"}, ""},
		"no age":                     {map[string]any{"max_age": 60}, nil, "auth_time"},
		"too old":                    {map[string]any{"max_age": 60}, map[string]any{"auth_time": now - 130}, "max_age"},
		"old, not too much":          {map[string]any{"max_age": 60}, map[string]any{"auth_time": now - 90}, ""},
		"an age of another type":     {map[string]any{"max_age": 60}, map[string]any{"auth_time": "x"}, "auth_time"},
		"another subject than bound": {map[string]any{"bound_subject": "x"}, nil, "subject"},
	} {
		t.Run(name, func(t *testing.T) {
			s, who, answer := hostile(t, c.role)
			q := query(t, s.begin(home, ""))
			answer(func(w http.ResponseWriter, _ *http.Request) {
				claims := map[string]any{"aud": "coffer", "nonce": q.Get("nonce")}
				maps.Copy(claims, c.claims)
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": who.Sign(claims)})
			})
			values := url.Values{"state": {q.Get("state")}, "code": {"c"}}
			if c.want != "" {
				s.fails(values, "", c.want)
			} else if _, err := s.back(values, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

// What the token endpoint answers instead of tokens, and what comes of it.
func TestHostileTokenEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   fault.Kind
		want   string
	}{
		"html": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, fault.Unavailable, "not understood"},
		"down": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a secret text", http.StatusBadGateway) }, fault.Unavailable, "cannot be reached"},
		"refusal": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
		}, fault.Invalid, "refused"},
		"no id token": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"access_token":"a"}`))
		}, fault.Invalid, "No id_token found"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/", http.StatusTemporaryRedirect)
		}, fault.Unavailable, "cannot be reached"},
		"a large answer": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"access_token":"` + strings.Repeat("x", 3<<20) + `"}`))
		}, fault.Unavailable, "not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, answer := hostile(t, nil)
			q := query(t, s.begin(home, ""))
			answer(c.answer)
			_, err := s.back(url.Values{"state": {q.Get("state")}, "code": {"c"}}, "")
			if !fault.Is(err, c.kind) || !strings.Contains(fault.From(err).Message, c.want) || strings.Contains(fault.From(err).Message, "a secret text") {
				t.Error(err)
			}
		})
	}
}

// What the userinfo endpoint says counts if it is of the same person, and where the
// signed token says nothing.
func TestUserinfo(t *testing.T) {
	for name, c := range map[string]struct{ info, want string }{
		"more of the same person": {`{"sub":"somebody","groups":"a","email":"forged@example.com"}`, ""},
		"of another":              {`{"sub":"else","groups":"a"}`, `claim "groups" is missing`},
		"of nobody":               {`{"groups":"a"}`, `claim "groups" is missing`},
		"of an empty name":        {`{"sub":"","groups":"a"}`, `claim "groups" is missing`},
		"nothing":                 {``, `claim "groups" is missing`},
		"a list":                  {`["groups"]`, `claim "groups" is missing`},
		"too much":                {`{"sub":"somebody","x":"` + strings.Repeat("x", issuer.MaxDocument) + `","groups":"a"}`, `claim "groups" is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			s, who := newServer(t), issuertest.New(t)
			nonce := ""
			who.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch r.URL.Path {
				case "/.well-known/openid-configuration":
					_, _ = io.WriteString(w, strings.ReplaceAll(`{"issuer":"URL","jwks_uri":"URL/keys","authorization_endpoint":"URL/a","token_endpoint":"URL/token","userinfo_endpoint":"URL/info"}`, "URL", who.URL))
				case "/token":
					_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": who.Sign(map[string]any{"aud": "coffer", "nonce": nonce, "email": "ada@example.com"})})
				case "/info":
					if r.Header.Get("Authorization") != "Bearer a" {
						t.Error(r.Header)
					}
					_, _ = io.WriteString(w, c.info)
				default:
					who.Serve(w, r)
				}
			})
			s.Must(t, 204, "POST", "config", object(map[string]any{"oidc_discovery_url": who.URL, "oidc_discovery_ca_pem": who.CA, "oidc_client_id": "coffer", "oidc_client_secret": "x"}))
			s.peopleRole(map[string]any{"groups_claim": "", "bound_claims": map[string]any{"groups": "a"}})
			q := query(t, s.begin(home, ""))
			nonce = q.Get("nonce")
			values := url.Values{"state": {q.Get("state")}, "code": {"c"}}
			if c.want != "" {
				s.fails(values, "", c.want)
			} else if got, err := s.back(values, ""); err != nil || got.Metadata["email"] != "ada@example.com" {
				t.Error(got, err)
			}
		})
	}
}
