package issuer_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
	"github.com/cofferhq/coffer/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, s issuer.Source) *issuer.Issuer {
	t.Helper()
	i, err := issuer.New(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

func byDiscovery(i *issuertest.Issuer) issuer.Source {
	return issuer.Source{Discovery: issuer.Place{URL: i.URL, CA: i.CA}}
}

func byJWKS(i *issuertest.Issuer) issuer.Source {
	return issuer.Source{JWKS: []issuer.Place{{URL: i.URL + "/keys", CA: i.CA}}}
}

// refused demands a reason.
func refused(t testing.TB, err error, want issuer.Reason) {
	t.Helper()
	var got issuer.Reason
	if !errors.As(err, &got) || got != want || !fault.Is(err, fault.Invalid) {
		t.Errorf("%v, want the reason %q", err, want)
	}
}

func TestSources(t *testing.T) {
	who := issuertest.New(t)
	second := issuertest.New(t)
	key := issuertest.NewKey(t, "ES256")
	pem := issuertest.PublicPEM(t, key)
	for name, c := range map[string]struct {
		source issuer.Source
		token  string
	}{
		"discovery":   {byDiscovery(who), who.Sign(nil)},
		"a slash":     {issuer.Source{Discovery: issuer.Place{URL: who.URL + "/", CA: who.CA}, Name: who.URL}, who.Sign(nil)},
		"jwks":        {byJWKS(who), who.Sign(nil)},
		"second jwks": {issuer.Source{JWKS: append(byJWKS(who).JWKS, byJWKS(second).JWKS...)}, second.Sign(nil)},
		"document":    {issuer.Source{Document: who.Document()}, who.Sign(nil)},
		"pem":         {issuer.Source{Keys: []string{pem}}, key.Sign([]byte(`{"sub":"somebody","exp":99999999999}`))},
		"pem, 1 line": {issuer.Source{Keys: []string{strings.ReplaceAll(pem, "\n", `\n`)}}, key.Sign([]byte(`{"sub":"somebody","exp":99999999999}`))},
	} {
		i := open(t, c.source)
		claims, err := i.Verify(t.Context(), c.token, issuer.Expect{})
		if err != nil || claims.Text("sub") != "somebody" {
			t.Errorf("%s: %v %v", name, claims, err)
		}
	}
}

func TestAlgorithms(t *testing.T) {
	for _, algorithm := range issuer.Algorithms {
		who := issuertest.New(t)
		who.Rotate(algorithm)
		i := open(t, byJWKS(who))
		if _, err := i.Verify(t.Context(), who.Sign(nil), issuer.Expect{Algorithms: []string{algorithm}}); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
}

// Numbers are as they stood, and a claim inside others is found.
func TestClaims(t *testing.T) {
	who := issuertest.New(t)
	text := fmt.Sprintf(`{"exp":%d,"big":9007199254740993,"n":1.10,"a":{"b/c":["x",{"~":7}]},"one":"s","list":["s","t"],"mixed":["s",1]}`, time.Now().Unix()+100)
	claims, err := open(t, byJWKS(who)).Verify(t.Context(), who.Key().Sign([]byte(text)), issuer.Expect{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"big": json.Number("9007199254740993"), "n": json.Number("1.10"), "/a/b~1c/0": "x", "/a/b~1c/1/~0": json.Number("7"),
		"/a/b~1c/2": nil, "/a/b~1c/01": nil, "/a/b~1c/-1": nil, "/a/x/y": nil, "/one/x": nil, "a/b": nil, "/": nil,
	} {
		if got := claims.Find(name); got != want {
			t.Errorf("%s: %#v, want %#v", name, got, want)
		}
	}
	if list, ok := claims.Texts("one"); !ok || len(list) != 1 {
		t.Error(list, ok)
	}
	if list, ok := claims.Texts("list"); !ok || len(list) != 2 {
		t.Error(list, ok)
	}
	if _, ok := claims.Texts("mixed"); ok {
		t.Error("a list with a number is no list of strings")
	}
}

func b64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestForgeries(t *testing.T) {
	who := issuertest.New(t)
	i := open(t, byJWKS(who))
	good := who.Sign(nil)
	part := strings.Split(good, ".")
	other := issuertest.NewKey(t, "RS256")
	other.ID = who.Key().ID
	elliptic := issuertest.NewKey(t, "ES256")
	elliptic.ID = who.Key().ID
	unknown := other
	unknown.ID = "nobody's"
	claims, _ := json.Marshal(who.Claims(nil))
	changed, _ := json.Marshal(who.Claims(map[string]any{"sub": "root"}))
	for name, c := range map[string]struct {
		token string
		want  issuer.Reason
	}{
		"empty":                    {"", issuer.Malformed},
		"words":                    {"no token at all", issuer.Malformed},
		"two parts":                {part[0] + "." + part[1], issuer.Malformed},
		"five parts, encrypted":    {good + ".x.y", issuer.Malformed},
		"a line break in it":       {part[0] + ".\n" + part[1] + "." + part[2], issuer.Malformed},
		"header is no base64":      {"!!!." + part[1] + "." + part[2], issuer.Malformed},
		"header is no JSON":        {b64("x") + "." + part[1] + "." + part[2], issuer.Malformed},
		"header is a list":         {b64("[]") + "." + part[1] + "." + part[2], issuer.Malformed},
		"alg twice":                {b64(`{"alg":"none","alg":"RS256"}`) + "." + part[1] + "." + part[2], issuer.Malformed},
		"json form":                {`{"payload":"` + part[1] + `","signatures":[{"protected":"` + part[0] + `","signature":"` + part[2] + `"}]}`, issuer.Several},
		"none":                     {b64(`{"alg":"none"}`) + "." + part[1] + ".", issuer.Unsigned},
		"none in capitals":         {b64(`{"alg":"NonE"}`) + "." + part[1] + "." + part[2], issuer.Unsigned},
		"no alg":                   {b64(`{"typ":"JWT"}`) + "." + part[1] + "." + part[2], issuer.Unsigned},
		"HS256":                    {b64(`{"alg":"HS256"}`) + "." + part[1] + "." + part[2], issuer.Shared},
		"unheard of":               {b64(`{"alg":"XS256"}`) + "." + part[1] + "." + part[2], issuer.Algorithm},
		"critical":                 {b64(`{"alg":"RS256","crit":["b64"],"b64":false}`) + "." + part[1] + "." + part[2], issuer.Critical},
		"signature of another key": {other.Sign(claims), issuer.Signature},
		"another kind of key":      {elliptic.Sign(claims), issuer.WrongKey},
		"unknown key":              {unknown.Sign(claims), issuer.UnknownKey},
		"changed claims":           {part[0] + "." + base64.RawURLEncoding.EncodeToString(changed) + "." + part[2], issuer.Signature},
		"no signature":             {part[0] + "." + part[1] + ".", issuer.Signature},
		"its own key in it":        {b64(`{"alg":"RS256","kid":"`+who.Key().ID+`","jku":"https://evil.example/keys"}`) + "." + part[1] + "." + part[2], issuer.Signature},
		"claims are a list":        {who.Key().Sign([]byte(`[1]`)), issuer.BadClaims},
		"claims are null":          {who.Key().Sign([]byte(`null`)), issuer.BadClaims},
		"claims are nothing":       {who.Key().Sign([]byte(``)), issuer.BadClaims},
		"a claim twice":            {who.Key().Sign([]byte(`{"sub":"a","sub":"b","exp":99999999999}`)), issuer.BadClaims},
		"exp is a text":            {who.Sign(map[string]any{"exp": "tomorrow"}), issuer.BadClaims},
		"exp is no number":         {who.Key().Sign([]byte(`{"exp":1e999}`)), issuer.BadClaims},
		"exp before 1970":          {who.Sign(map[string]any{"exp": -1}), issuer.BadClaims},
	} {
		_, err := i.Verify(t.Context(), c.token, issuer.Expect{})
		t.Run(name, func(t *testing.T) { refused(t, err, c.want) })
	}
	_, err := i.Verify(t.Context(), good, issuer.Expect{Algorithms: []string{"ES256"}})
	refused(t, err, issuer.Algorithm)
	if _, err := i.Verify(t.Context(), good, issuer.Expect{}); err != nil {
		t.Error(err)
	}
}

// The public key, taken for a shared secret, signs nothing.
func TestKeyConfusion(t *testing.T) {
	key := issuertest.NewKey(t, "RS256")
	pem := issuertest.PublicPEM(t, key)
	i := open(t, issuer.Source{Keys: []string{pem}})
	_, err := i.Verify(t.Context(), issuertest.SignShared(t, []byte(pem), []byte(`{"exp":99999999999}`)), issuer.Expect{Algorithms: []string{"HS256", "RS256"}})
	refused(t, err, issuer.Shared)
}

func TestLength(t *testing.T) {
	who := issuertest.New(t)
	i := open(t, byJWKS(who))
	most := who.Sign(map[string]any{"x": ""})
	// Each three bytes of a claim are four of the token.
	fill := (issuer.MaxToken - len(most)) * 3 / 4
	token := who.Sign(map[string]any{"x": strings.Repeat("x", fill)})
	for ; len(token) > issuer.MaxToken; fill-- {
		token = who.Sign(map[string]any{"x": strings.Repeat("x", fill)})
	}
	if _, err := i.Verify(t.Context(), token, issuer.Expect{}); err != nil || issuer.MaxToken-len(token) > 4 {
		t.Error(len(token), err)
	}
	_, err := i.Verify(t.Context(), strings.Repeat("x", issuer.MaxToken+1), issuer.Expect{})
	refused(t, err, issuer.TooLong)
}

func TestExpectations(t *testing.T) {
	who := issuertest.New(t)
	now := time.Now().Unix()
	jwks, discovery := open(t, byJWKS(who)), open(t, byDiscovery(who))
	skew := issuer.Expect{Skew: time.Minute}
	without := issuer.Expect{Skew: time.Minute, ExpiryAfter: 150 * time.Second, StartBefore: 150 * time.Second}
	audience := issuer.Expect{Audiences: []string{"coffer", "vault"}}
	for name, c := range map[string]struct {
		i      *issuer.Issuer
		claims map[string]any
		want   issuer.Expect
		reason issuer.Reason // "" where it is accepted
	}{
		"expired":                      {jwks, map[string]any{"exp": now - 5}, issuer.Expect{}, issuer.Expired},
		"expired within the skew":      {jwks, map[string]any{"exp": now - 50}, skew, ""},
		"expired beyond the skew":      {jwks, map[string]any{"exp": now - 61}, skew, issuer.Expired},
		"not yet":                      {jwks, map[string]any{"nbf": now + 65}, skew, issuer.NotYet},
		"not yet, within the skew":     {jwks, map[string]any{"nbf": now + 50}, skew, ""},
		"issued in the future":         {jwks, map[string]any{"iat": now + 65, "nbf": now}, skew, issuer.Future},
		"issued in the future, alone":  {jwks, map[string]any{"iat": now + 65}, skew, issuer.Future},
		"no exp":                       {jwks, map[string]any{"exp": nil}, without, ""},
		"no exp, too old":              {jwks, map[string]any{"exp": nil, "iat": now - 215}, without, issuer.Expired},
		"no exp, from nbf":             {jwks, map[string]any{"exp": nil, "iat": now - 1000, "nbf": now - 10}, without, ""},
		"no exp where it must be":      {jwks, map[string]any{"exp": nil}, issuer.Expect{NeedExpiry: true}, issuer.NoTime},
		"no time":                      {jwks, map[string]any{"exp": nil, "iat": nil}, without, issuer.NoTime},
		"exp alone, far away":          {jwks, map[string]any{"exp": now + 300, "iat": nil}, without, issuer.NotYet},
		"exp alone":                    {jwks, map[string]any{"exp": now + 100, "iat": nil}, without, ""},
		"audience":                     {jwks, map[string]any{"aud": "coffer"}, audience, ""},
		"one audience of several":      {jwks, map[string]any{"aud": []string{"x", "vault"}}, audience, ""},
		"another audience":             {jwks, map[string]any{"aud": "vault.example"}, audience, issuer.Audience},
		"no audience":                  {jwks, nil, audience, issuer.NoAudience},
		"an empty audience":            {jwks, map[string]any{"aud": []string{}}, audience, issuer.NoAudience},
		"an audience of another type":  {jwks, map[string]any{"aud": 7}, audience, issuer.BadClaims},
		"subject":                      {jwks, nil, issuer.Expect{Subject: "somebody"}, ""},
		"another subject":              {jwks, nil, issuer.Expect{Subject: "some"}, issuer.WrongSubject},
		"issuer":                       {jwks, nil, issuer.Expect{Issuer: who.URL}, ""},
		"another issuer":               {jwks, nil, issuer.Expect{Issuer: who.URL + "/"}, issuer.WrongIssuer},
		"no issuer":                    {jwks, map[string]any{"iss": nil}, issuer.Expect{Issuer: who.URL}, issuer.WrongIssuer},
		"any issuer":                   {jwks, map[string]any{"iss": "https://x.example"}, issuer.Expect{}, ""},
		"not the discovered issuer":    {discovery, map[string]any{"iss": "https://x.example"}, issuer.Expect{}, issuer.WrongIssuer},
		"another, and it is expected":  {discovery, map[string]any{"iss": "https://x.example"}, issuer.Expect{Issuer: "https://x.example"}, ""},
		"no issuer, and it discovered": {discovery, map[string]any{"iss": nil}, issuer.Expect{}, issuer.WrongIssuer},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.i.Verify(t.Context(), who.Sign(c.claims), c.want)
			if c.reason != "" {
				refused(t, err, c.reason)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// As many keys as are accepted, of which the last is the one.
func TestMostKeys(t *testing.T) {
	key := issuertest.NewKey(t, "ES256")
	one, err := json.Marshal(jose.JSONWebKey{Key: key.Private.Public(), KeyID: key.ID})
	if err != nil {
		t.Fatal(err)
	}
	i := open(t, issuer.Source{Document: []byte(`{"keys":[` + strings.Repeat("{},", issuer.MaxKeys-1) + string(one) + `]}`)})
	if _, err := i.Verify(t.Context(), key.Sign([]byte(`{"exp":99999999999}`)), issuer.Expect{}); err != nil {
		t.Error(err)
	}
}

// What a key is published for counts, and a key that was published whole does not.
func TestUses(t *testing.T) {
	key := issuertest.NewKey(t, "ES256")
	token := key.Sign([]byte(`{"exp":99999999999}`))
	for use, ok := range map[string]bool{"": true, "sig": true, "jwt-svid": true, "enc": false, "x509-svid": false} {
		set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Private.Public(), KeyID: key.ID, Use: use}}})
		if err != nil {
			t.Fatal(err)
		}
		i, err := issuer.New(issuer.Source{Document: set})
		if ok != (err == nil) {
			t.Errorf("%q: %v", use, err)
		}
		if err != nil {
			continue
		}
		if _, err := i.Verify(t.Context(), token, issuer.Expect{}); err != nil {
			t.Errorf("%q: %v", use, err)
		}
		i.Close()
	}
	whole, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Private, KeyID: key.ID}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issuer.New(issuer.Source{Document: whole}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a private key for everybody to see: %v", err)
	}
}

func TestBadSources(t *testing.T) {
	who := issuertest.New(t)
	small := issuertest.SmallRSA(t)
	for name, c := range map[string]struct {
		source issuer.Source
		text   string
	}{
		"nothing":           {issuer.Source{}, "exactly one"},
		"two":               {issuer.Source{Discovery: byDiscovery(who).Discovery, JWKS: byJWKS(who).JWKS}, "exactly one"},
		"plain http":        {issuer.Source{JWKS: []issuer.Place{{URL: "http://keys.example/x"}}}, "https"},
		"a file":            {issuer.Source{Discovery: issuer.Place{URL: "file:///etc/passwd"}}, "URL"},
		"no URL":            {issuer.Source{Discovery: issuer.Place{URL: "accounts"}}, "URL"},
		"with a password":   {issuer.Source{Discovery: issuer.Place{URL: "https://me:word@keys.example"}}, "password"},
		"no authority":      {issuer.Source{Discovery: issuer.Place{URL: who.URL, CA: "nothing"}}, "certificate"},
		"no PEM":            {issuer.Source{Keys: []string{"key"}}, "PEM"},
		"a private key":     {issuer.Source{Keys: []string{issuertest.PrivatePEM(t, who.Key())}}, "public key"},
		"a short key":       {issuer.Source{Keys: []string{small}}, "2048"},
		"garbage in PEM":    {issuer.Source{Keys: []string{"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}}, "cannot be read"},
		"no document":       {issuer.Source{Document: []byte("x")}, "JWKS"},
		"an empty document": {issuer.Source{Document: []byte(`{"keys":[]}`)}, "no key"},
		"a shared secret":   {issuer.Source{Document: []byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`)}, "no key"},
		"too many keys":     {issuer.Source{Document: []byte(`{"keys":[{}` + strings.Repeat(",{}", issuer.MaxKeys) + `]}`)}, "at most 256"},
	} {
		_, err := issuer.New(c.source)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(fault.From(err).Message, c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
