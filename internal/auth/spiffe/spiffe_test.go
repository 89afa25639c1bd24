package spiffe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
	"github.com/cofferhq/coffer/internal/auth/spiffe/spiffetest"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type server struct {
	*enginetest.Engine
	t      testing.TB
	domain *spiffetest.Domain
}

// newServer trusts example.org and has the role web.
func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{enginetest.Open(t, Kind.Spec(), enginetest.Options{Mount: engine.Mount{Path: "auth/spiffe/"}}), t, spiffetest.New(t, "example.org")}
	s.config(204, map[string]any{"trust_domain": "example.org", "profile": "static", "bundle": s.domain.Bundle(t, 1, 0), "audience": "coffer"})
	s.Must(t, 204, "POST", "role/web", `{"workload_id_patterns":["/env/+/svc/web","/db-*"],"token_policies":"web","token_ttl":"20m"}`)
	return s
}

func (s *server) config(status int, fields map[string]any) enginetest.Answer {
	s.t.Helper()
	body, err := json.Marshal(fields)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.Must(s.t, status, "POST", "config", string(body))
}

func (s *server) login(by route.Caller, body string) (auth.Login, error) {
	by.Remote = netip.MustParseAddr("192.0.2.7")
	a := s.As(by, "POST", "login", body)
	if a.Err != nil {
		return auth.Login{}, a.Err
	}
	return a.Output.(auth.Login), nil
}

func (s *server) byCert(pair tls.Certificate, role string) (auth.Login, error) {
	s.t.Helper()
	return s.login(route.Caller{Peer: certtest.Peer(s.t, pair)}, fmt.Sprintf(`{"role":%q}`, role))
}

func (s *server) byJWT(token, role string) (auth.Login, error) {
	return s.login(route.Caller{}, fmt.Sprintf(`{"role":%q,"jwt":%q}`, role, token))
}

func refused(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || fault.From(err).Kind.Status() >= 500 || !strings.Contains(fault.From(err).Message, want) {
		t.Errorf("%v, want %q", err, want)
	}
}

func TestLogin(t *testing.T) {
	s := newServer(t)
	got, err := s.byCert(s.domain.SVID(t, "/env/prod/svc/web"), "WEB")
	if err != nil || got.Alias != "spiffe://example.org/env/prod/svc/web" || got.DisplayName != "spiffe-web" || !slices.Equal(got.Policies, []string{"web"}) ||
		got.Metadata["role"] != "web" || got.Metadata["workload_id"] != "env/prod/svc/web" || got.Metadata["svid_type"] != "x509" || got.TTL.Duration() != 20*time.Minute {
		t.Errorf("%+v %v", got, err)
	}
	token := s.domain.JWT(t, "/db-1", "other", "coffer")
	got, err = s.byJWT(token, "web")
	if err != nil || got.Alias != "spiffe://example.org/db-1" || got.Metadata["svid_type"] != "jwt" {
		t.Errorf("%+v %v", got, err)
	}
	if _, err = s.login(route.Caller{Token: token}, `{"role":"web"}`); err != nil { // as Authorization: Bearer
		t.Error(err)
	}
	both := route.Caller{Token: token, Peer: certtest.Peer(t, s.domain.SVID(t, "/env/x/svc/web"))}
	for kind, want := range map[string]string{"cert": "x509", "jwt": "jwt", "": "jwt"} {
		if got, err := s.login(both, fmt.Sprintf(`{"role":"web","type":%q}`, kind)); err != nil || got.Metadata["svid_type"] != want {
			t.Errorf("%q: %+v %v", kind, got, err)
		}
	}
	_, err = s.login(route.Caller{Token: "hvs.other"}, `{"role":"web"}`)
	refused(t, err, "no SVID")
	_, err = s.login(both, `{"role":"web","type":"x"}`)
	refused(t, err, "it is cert or jwt")
	_, err = s.login(both, `{}`)
	refused(t, err, "missing role")
	_, err = s.login(route.Caller{}, `{"role":"web","type":"jwt"}`)
	refused(t, err, "missing jwt")
	for _, role := range []string{"web", "none"} {
		_, err = s.byCert(s.domain.SVID(t, "/elsewhere"), role)
		refused(t, err, "permission denied")
	}
	below := s.domain.CA.Intermediate(t, "below")
	if _, err := s.byCert(below.Client(t, "", spiffetest.Named(t, "spiffe://example.org/db-9")), "web"); err != nil {
		t.Error(err)
	}
}

func TestBadCertificates(t *testing.T) {
	s := newServer(t)
	other := spiffetest.New(t, "example.org") // another authority of that name
	for name, pair := range map[string]tls.Certificate{
		"another authority": other.SVID(t, "/db-1"),
		"another domain":    spiffetest.New(t, "example.com").SVID(t, "/db-1"),
		"its domain, ours":  s.domain.CA.Client(t, "", spiffetest.Named(t, "spiffe://example.com/db-1")),
		"no SVID":           s.domain.CA.Client(t, "db-1"),
		"two IDs":           s.domain.SVID(t, "/db-1", spiffetest.Named(t, "spiffe://example.org/db-2")),
		"no path":           s.domain.SVID(t, ""),
		"a query":           s.domain.SVID(t, "/db-1?x=1"),
		"dots":              s.domain.SVID(t, "/../db-1"),
		"encoded":           s.domain.SVID(t, "/db%2d1"),
		"https":             s.domain.CA.Client(t, "", spiffetest.Named(t, "https://example.org/db-1")),
		"expired":           s.domain.SVID(t, "/db-1", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }),
		"early":             s.domain.SVID(t, "/db-1", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }),
		"an authority":      s.domain.SVID(t, "/db-1", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }),
		"may sign":          s.domain.SVID(t, "/db-1", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }),
		"a server":          s.domain.SVID(t, "/db-1", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
	} {
		if _, err := s.byCert(pair, "web"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := s.domain.SVID(t, "/db-1")
	for range maxPresented {
		long.Certificate = append(long.Certificate, s.domain.CA.Cert.Raw)
	}
	_, err := s.byCert(long, "web")
	refused(t, err, "presents 17 certificates")
}

func TestBadJWTs(t *testing.T) {
	s := newServer(t)
	good := func() jwt.Claims {
		return jwt.Claims{Subject: "spiffe://example.org/db-1", Audience: jwt.Audience{"coffer"}, Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour))}
	}
	claims := func(change func(*jwt.Claims)) string {
		c := good()
		change(&c)
		return s.domain.Sign(t, c)
	}
	signed := func(key jose.SigningKey) string { return spiffetest.SignWith(t, key, good()) }
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(s.domain.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	valid := s.domain.Sign(t, good())
	pieces := strings.Split(valid, ".")
	for want, token := range map[string]string{
		"token has expired":           claims(func(c *jwt.Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(-2 * time.Minute)) }),
		"missing exp claim":           claims(func(c *jwt.Claims) { c.Expiry = nil }),
		"missing subject claim":       claims(func(c *jwt.Claims) { c.Subject = "" }),
		"expected audience":           claims(func(c *jwt.Claims) { c.Audience = jwt.Audience{"other"} }),
		"invalid subject claim":       claims(func(c *jwt.Claims) { c.Subject = "db-1" }),
		"no bundle found for trust":   claims(func(c *jwt.Claims) { c.Subject = "spiffe://example.com/db-1" }),
		"is no workload's":            claims(func(c *jwt.Claims) { c.Subject = "spiffe://example.org" }),
		"JWT-SVID is refused: go-jos": claims(func(c *jwt.Claims) { c.NotBefore = jwt.NewNumericDate(time.Now().Add(time.Hour)) }),
		"no JWT authority":            signed(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: stranger, KeyID: "stranger"}}),
		"unable to get claims":        signed(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: stranger, KeyID: "first"}}),
		"missing key id":              signed(jose.SigningKey{Algorithm: jose.ES256, Key: s.domain.Key}),
		"unable to parse JWT":         part(`{"alg":"none","kid":"first"}`) + "." + pieces[1] + ".",
		"unable to parse JWT token":   signed(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: public, KeyID: "first"}}),
		"unable to get claims from":   pieces[0] + "." + part(`{"sub":"spiffe://example.org/db-2","aud":"coffer","exp":99999999999}`) + "." + pieces[2],
		"unable to parse":             "x",
		"longer than 16384 bytes":     valid + strings.Repeat("x", maxJWT),
	} {
		_, err := s.byJWT(token, "web")
		refused(t, err, want)
	}
	if _, err := s.byJWT(valid, "web"); err != nil {
		t.Error(err)
	}
	s.config(204, map[string]any{"audience": []string{}})
	_, err = s.byJWT(valid, "web")
	refused(t, err, "JWT-SVIDs are not accepted here")
	s.Must(t, 204, "POST", "role/web", `{"audience":"only-web"}`)
	_, err = s.byJWT(valid, "web")
	refused(t, err, "expected audience")
	if _, err := s.byJWT(s.domain.JWT(t, "/db-1", "only-web"), "web"); err != nil {
		t.Error(err)
	}
}

func TestRenew(t *testing.T) {
	s := newServer(t)
	granted, err := s.byCert(s.domain.SVID(t, "/db-1"), "web")
	if err != nil {
		t.Fatal(err)
	}
	m := s.State.(*Method)
	var _ auth.Renewer = m
	renew := func(want string) {
		t.Helper()
		out, err := m.Renew(t.Context(), route.Caller{}, granted)
		if want != "" {
			refused(t, err, want)
		} else if err != nil || out.TTL.Duration() != time.Hour {
			t.Errorf("%v %v", out.TTL, err)
		}
	}
	s.Must(t, 204, "POST", "role/web", `{"token_ttl":"1h"}`)
	renew("")
	s.Must(t, 204, "POST", "role/web", `{"workload_id_patterns":"/db-2"}`)
	renew("not for this workload any more")
	s.Must(t, 204, "POST", "role/web", `{"workload_id_patterns":"/db-1","token_policies":"x"}`)
	renew("policies have changed")
	s.Must(t, 204, "POST", "role/web", `{"token_policies":"web"}`)
	renew("")
	s.config(204, map[string]any{"trust_domain": "example.com", "bundle": spiffetest.New(t, "example.com").Bundle(t, 1, 0)})
	renew("not for this workload any more")
	s.Must(t, 204, "DELETE", "role/web", "")
	renew("the role was deleted")
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		matches       bool
	}{
		{"/a/b", "/a/b", true}, {"a/b", "/a/b", true}, {"spiffe://example.org/a/b", "/a/b", true}, {"spiffe://example.com/a/b", "/a/b", false},
		{"/a", "/a/b", false}, {"/a/b", "/a", false}, {"/a/+", "/a/b", true}, {"/a/+", "/a/b/c", false}, {"/+/b", "/a/b", true},
		{"/a/b-*", "/a/b-1", true}, {"/a/b-*", "/a/b-1/c", false}, {"/a/*", "/a/b", true}, {"/a/*", "/a", false}, {"/*x*/b", "/axb/b", true},
		{"/a/**", "/a/b/c", true}, {"/a/**", "/a/b", true}, {"/a/**", "/a", false}, {"/a/**", "/ab/c", false}, {"/**", "/x", true}, {"/A", "/a", false},
	} {
		p, err := parsePattern(c.pattern)
		if err != nil || p.matches("example.org", c.path) != c.matches {
			t.Errorf("%q and %q: %v %v", c.pattern, c.path, !c.matches, err)
		}
	}
	for _, bad := range []string{"", "/", "//", "/a//b", "/a/", "/a/../b", "/./a", "/a b", "/a/**/b", "/a**", "/ä", "/a%2f", "spiffe://example.org", "spiffe:///a", "/" + strings.Repeat("x", maxID), "/a\x00"} {
		if _, err := parsePattern(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestBadRoles(t *testing.T) {
	s := newServer(t)
	many, _ := json.Marshal(slices.Repeat([]string{"/x"}, maxPatterns+1))
	for _, bad := range []string{
		`{}`, `{"workload_id_patterns":[]}`, `{"workload_id_patterns":"/a//b"}`, `{"workload_id_patterns":` + string(many) + `}`,
		`{"workload_id_patterns":"/a","display_name":"a\nb"}`, `{"workload_id_patterns":"/a","token_type":"x"}`,
	} {
		s.Must(t, 400, "POST", "role/new", bad)
	}
	s.Must(t, 204, "POST", "role/new", `{"workload_id_patterns":`+strings.Replace(string(many), `"/x",`, "", 1)+`}`)
	s.Must(t, 400, "POST", "role/-", `{"workload_id_patterns":"/a"}`)
	s.Must(t, 404, "GET", "role/none", "")
	if data := s.Must(t, 200, "LIST", "role", "").Data; data != `{"keys":["new","web"]}` {
		t.Error(data)
	}
	want := `{"workload_id_patterns":["/env/+/svc/web","/db-*"],"display_name":"web","audience":[],"token_ttl":1200,"token_max_ttl":0,"token_explicit_max_ttl":0,"token_period":0,` +
		`"token_num_uses":0,"token_bound_cidrs":[],"token_type":"default","token_no_default_policy":false,"token_policies":["web"]}`
	if diff := enginetest.Differs(want, s.Must(t, 200, "GET", "role/web", "").Data); diff != "" {
		t.Error(diff)
	}
}
