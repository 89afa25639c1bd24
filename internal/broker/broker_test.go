package broker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
)

func TestEveryAlgorithm(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, a := range Algorithms {
		f.key("k", KeyChange{Algorithm: ptr(string(a))})
		// Once for the pair of the new algorithm to be the next, once for it to sign.
		_, err := f.Rotate(t.Context(), "k", nil)
		must(t, err)
		f.role("r", RoleChange{ClientID: ptr("shop")})
		out := f.issue(Ask{Role: "r"})
		signed, err := jose.ParseSignedCompact(out.Token.Reveal(), []jose.SignatureAlgorithm{a})
		if err != nil || !verifies(t, f.document(), out.Token.Reveal()) {
			t.Errorf("%s: %v", a, err)
			continue
		}
		if h := signed.Signatures[0].Header; h.KeyID != out.KeyID || h.Algorithm != string(a) {
			t.Errorf("%s: header %+v", a, h)
		}
		if why, err := f.Introspect(t.Context(), out.Token.Reveal(), "shop"); why != "" || err != nil {
			t.Errorf("%s: inactive: %s %v", a, why, err)
		}
	}
}

func TestStandardClaims(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.key("k", KeyChange{})
	f.role("r", RoleChange{ClientID: ptr("shop"), TTL: ptr(10 * time.Minute), Template: ptr(`{"team": {{identity.entity.metadata.team}}}`)})
	before := time.Now().Unix()
	out := f.issue(Ask{Role: "r"})
	got := claims(t, out.Token.Reveal())
	for name, want := range map[string]any{
		"iss": "https://coffer.test:8200/v1/identity/oidc", "sub": f.entity, "aud": "shop", "namespace": "root", "team": "web",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	iat, exp := int64(got["iat"].(float64)), int64(got["exp"].(float64))
	if iat < before || iat > time.Now().Unix() || exp-iat != 600 || len(got) != 7 {
		t.Errorf("claims are %v", got)
	}
	if out.ClientID != "shop" || out.TTL != 10*time.Minute || strings.Contains(fmt.Sprintf("%v %+v", *out, out), out.Token.Reveal()) {
		t.Errorf("issued is %+v", out)
	}
}

func TestNarrowing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.key("k", KeyChange{Clients: &[]string{"shop", "bank", "mill"}})
	f.role("r", RoleChange{
		ClientID: ptr("shop"), Audiences: &[]string{"bank", "mill", "closed"}, TTL: ptr(time.Hour),
		Template: ptr(`{"team": {{identity.entity.metadata.team}}, "name": {{identity.entity.name}}}`),
	})
	got := claims(t, f.issue(Ask{Role: "r", Audience: []string{"bank"}, Claims: &[]string{"team"}, TTL: time.Minute}).Token.Reveal())
	if got["aud"] != "bank" || got["team"] != "web" || got["name"] != nil || got["exp"].(float64)-got["iat"].(float64) != 60 {
		t.Errorf("narrowed to %v", got)
	}
	got = claims(t, f.issue(Ask{Role: "r", Audience: []string{"bank", "shop", "bank"}, Claims: &[]string{}}).Token.Reveal())
	if fmt.Sprint(got["aud"]) != "[bank shop]" || got["team"] != nil || got["name"] != nil || got["sub"] != f.entity {
		t.Errorf("narrowed to %v", got)
	}
	for text, ask := range map[string]Ask{
		"has no audience":        {Audience: []string{"elsewhere"}},
		"allowed client ID":      {Audience: []string{"closed"}},
		"has no claim":           {Claims: &[]string{"team", "iss"}},
		"longer than the 1h0m0s": {TTL: time.Hour + time.Second},
		"at least a second":      {TTL: -time.Second},
	} {
		ask.Role, ask.Entity = "r", f.entity
		_, err := f.Issue(t.Context(), ask)
		refused(t, err, fault.Invalid, text)
	}
}

func TestWhoGetsTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	f.key("k", KeyChange{Clients: &[]string{"shop"}})
	f.role("r", RoleChange{ClientID: ptr("shop")})
	f.role("other", RoleChange{ClientID: ptr("mill")})
	_, err := f.Issue(ctx, Ask{Role: "other", Entity: f.entity})
	refused(t, err, fault.Invalid, "does not list the client ID")
	_, err = f.Issue(ctx, Ask{Role: "nothing", Entity: f.entity})
	refused(t, err, fault.Invalid, `role "nothing" not found`)
	_, err = f.Issue(ctx, Ask{Role: "../k", Entity: f.entity})
	refused(t, err, fault.Invalid, "not found")
	_, err = f.Issue(ctx, Ask{Role: "r"})
	refused(t, err, fault.Invalid, "no entity")
	_, err = f.Issue(ctx, Ask{Role: "r", Entity: "not-here"})
	refused(t, err, fault.Invalid, "not of this namespace")
	token := f.issue(Ask{Role: "r"}).Token.Reveal()
	active := func(want string) {
		t.Helper()
		if why, err := f.Introspect(ctx, token, ""); err != nil || why != want {
			t.Errorf("inactive because %q (%v), want %q", why, err, want)
		}
	}
	active("")
	_, _, err = f.ids.WriteEntity(ctx, f.entity, identity.EntityChange{Disabled: ptr(true)})
	must(t, err)
	_, err = f.Issue(ctx, Ask{Role: "r", Entity: f.entity})
	refused(t, err, fault.Denied, "disabled")
	active("entity is disabled")
	must(t, f.ids.DeleteEntity(ctx, f.entity))
	active("entity was not found")
	// What an entity was merged into is another one.
	a, _, err := f.ids.WriteEntity(ctx, "", identity.EntityChange{Name: ptr("a")})
	must(t, err)
	b, _, err := f.ids.WriteEntity(ctx, "", identity.EntityChange{Name: ptr("b")})
	must(t, err)
	token = f.issue(Ask{Role: "r", Entity: a.ID}).Token.Reveal()
	active("")
	must(t, f.ids.Merge(ctx, b.ID, []string{a.ID}, nil))
	active("entity was not found")
	if got := claims(t, f.issue(Ask{Role: "r", Entity: a.ID}).Token.Reveal()); got["sub"] != b.ID {
		t.Errorf("a token of what was merged says it is %v", got["sub"])
	}
}

func TestBoundToTheCaller(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.key("k", KeyChange{})
	f.role("r", RoleChange{TTL: ptr(time.Hour), Bound: ptr(true)})
	f.role("free", RoleChange{TTL: ptr(time.Hour)})
	ends := func(in time.Duration) func(context.Context) (time.Time, error) {
		return func(context.Context) (time.Time, error) {
			if in == 0 {
				return time.Time{}, nil
			}
			return time.Now().Add(in), nil
		}
	}
	for in, want := range map[time.Duration]time.Duration{0: time.Hour, 2 * time.Hour: time.Hour, 10 * time.Minute: 10 * time.Minute} {
		if got := f.issue(Ask{Role: "r", Ends: ends(in)}).TTL; got > want || got < want-2*time.Second {
			t.Errorf("a token that ends in %v gets %v", in, got)
		}
	}
	if got := f.issue(Ask{Role: "free", Ends: ends(time.Minute)}).TTL; got != time.Hour {
		t.Errorf("a role that is not bound gives %v", got)
	}
	_, err := f.Issue(t.Context(), Ask{Role: "r", Entity: f.entity, Ends: ends(-time.Second)})
	refused(t, err, fault.Invalid, "ends at once")
}

func TestBadKeysAndRoles(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	f.key("k", KeyChange{Rotation: ptr(time.Hour), Verification: ptr(2 * time.Hour)})
	f.role("r", RoleChange{TTL: ptr(90 * time.Minute)})
	for text, c := range map[string]KeyChange{
		"at least one minute":        {Rotation: ptr(time.Minute - 1)},
		"10x rotation_period":        {Verification: ptr(10*time.Hour + 1)},
		"at least a second":          {Verification: ptr(time.Duration(0))},
		"unknown signing algorithm":  {Algorithm: ptr("HS256")},
		"greater than 5399 seconds":  {Verification: ptr(90*time.Minute - time.Second)},
		"at most 500":                {Clients: ptr(slices.Repeat([]string{"x"}, MaxClients+1))},
		"1 to 256 printable bytes":   {Clients: &[]string{strings.Repeat("x", 257)}},
		"an id has 1 to 256 printab": {Clients: &[]string{"a\nb"}},
	} {
		_, err := f.WriteKey(ctx, "k", c)
		refused(t, err, fault.Invalid, text)
	}
	for _, name := range []string{"", "-a", "a/b", "a b", strings.Repeat("x", 129), "a."} {
		_, err := f.WriteKey(ctx, name, KeyChange{})
		refused(t, err, fault.Invalid, "name of a key")
		refused(t, f.WriteRole(ctx, name, RoleChange{Key: ptr("k")}), fault.Invalid, "name of a role")
	}
	for text, c := range map[string]RoleChange{
		"key parameter is required": {Key: ptr("")},
		`cannot find key "no"`:      {Key: ptr("no")},
		"cannot be longer than the": {TTL: ptr(2*time.Hour + time.Second)},
		"at least a second":         {TTL: ptr(time.Duration(0))},
		"error parsing template":    {Template: ptr("{")},
		"client_id":                 {ClientID: ptr(strings.Repeat("x", 257))},
		"allowed_audiences":         {Audiences: &[]string{""}},
	} {
		refused(t, f.WriteRole(ctx, "r", c), fault.Invalid, text)
	}
	if r, err := f.Role(ctx, "r"); err != nil || r.TTL != 90*time.Minute || r.Key != "k" || len(r.ClientID) != 26 {
		t.Errorf("a refused change left %+v %v", r, err)
	}
	refused(t, f.DeleteKey(ctx, "k"), fault.Invalid, "referenced by these roles: r")
	refused(t, f.DeleteKey(ctx, DefaultKey), fault.Invalid, "not allowed")
	f.role("r", RoleChange{Key: ptr(DefaultKey), Template: ptr(base64.StdEncoding.EncodeToString([]byte(`{"a":1}`)))})
	if r, _ := f.Role(ctx, "r"); r.Template != `{"a":1}` {
		t.Errorf("the template in base64 is %q", r.Template)
	}
	f.issue(Ask{Role: "r"})
	must(t, f.DeleteKey(ctx, "k"))
	must(t, f.DeleteKey(ctx, "k"))
	if _, err := f.Key(ctx, "k"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted key: %v", err)
	}
	if f.rotates("", "k") || !f.rotates("", DefaultKey) {
		t.Error("a deleted key rotates, or one that is there does not")
	}
	must(t, f.DeleteRole(ctx, "r"))
	must(t, f.DeleteRole(ctx, "r"))
	for issuer, ok := range map[string]bool{
		"https://a.test:1": true, "http://[::1]:8200": true, "": true, "a.test": false, "https://a.test/": false,
		"https://a.test?x": false, "ftp://a.test": false, "https://u@a.test": false, "https://a.test#": true, "https://": false, "https://:80": false,
	} {
		if err := f.WriteConfig(ctx, Config{issuer}); (err == nil) != ok {
			t.Errorf("issuer %q: %v", issuer, err)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range MaxKeys {
		f.key(fmt.Sprint("k", i), KeyChange{})
	}
	_, err := f.WriteKey(t.Context(), "more", KeyChange{})
	refused(t, err, fault.Invalid, "64 keys")
	f.key("k0", KeyChange{Rotation: ptr(time.Hour), Verification: ptr(time.Hour)})
	for range MaxOld {
		_, err := f.Rotate(t.Context(), "k0", nil)
		must(t, err)
	}
	_, err = f.Rotate(t.Context(), "k0", nil)
	refused(t, err, fault.Invalid, "50 pairs")
	_, err = f.Rotate(t.Context(), "k0", ptr(time.Duration(0)))
	must(t, err)
	f.role("r", RoleChange{Key: ptr("k1"), Template: ptr(`{"all": {{identity.entity.metadata}}, "few": {{identity.entity.name}}}`)})
	much := map[string]string{}
	for i := range 32 {
		much[fmt.Sprint("pair", i)] = strings.Repeat("x", 500)
	}
	_, _, err = f.ids.WriteEntity(t.Context(), f.entity, identity.EntityChange{Metadata: &much})
	must(t, err)
	_, err = f.Issue(t.Context(), Ask{Role: "r", Entity: f.entity})
	refused(t, err, fault.Invalid, "beyond the limit of 16384")
	f.issue(Ask{Role: "r", Claims: &[]string{"few"}})
	for i := range MaxRoles - 1 {
		f.role(fmt.Sprint("role", i), RoleChange{Key: ptr("k1")})
	}
	refused(t, f.WriteRole(t.Context(), "more", RoleChange{Key: ptr("k1")}), fault.Invalid, "2000 roles")
	f.role("role0", RoleChange{Key: ptr("k1"), TTL: ptr(time.Minute)}) // there already
	if all, err := f.Roles(t.Context(), "", 0); len(all) != MaxRoles || err != nil {
		t.Errorf("%d roles are listed (%v)", len(all), err)
	}
	if some, err := f.Roles(t.Context(), "role0", 2); len(some) != 2 || some[0] != "role1" || err != nil {
		t.Errorf("a page is %v (%v)", some, err)
	}
	err = f.DeleteKey(t.Context(), "k1")
	refused(t, err, fault.Invalid, "referenced by these roles")
	if len(err.Error()) > 500 {
		t.Errorf("a refusal of %d bytes", len(err.Error()))
	}
}

// TestClaimsAtTheirLimit signs what is just not too long.
func TestClaimsAtTheirLimit(t *testing.T) {
	t.Parallel()
	who := standard{Issuer: "https://coffer.test", Subject: "e", Audience: []string{"a"}}
	bare, err := payload(map[string]jsontext.Value{"x": jsontext.Value(`""`)}, who)
	must(t, err)
	for more, ok := range map[int]bool{0: true, 1: false} {
		filling := strings.Repeat("x", MaxClaims-len(bare)+more)
		out, err := payload(map[string]jsontext.Value{"x": quoted(nil, filling)}, who)
		if (err == nil) != ok {
			t.Errorf("%d bytes: %v", len(out), err)
		}
	}
}

// TestForgedTokens presents what is no token of the issuer, or one no longer.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.key("k", KeyChange{Algorithm: ptr("RS256")})
	f.role("r", RoleChange{ClientID: ptr("shop")})
	issued := f.issue(Ask{Role: "r"})
	good := issued.Token.Reveal()
	parts := strings.Split(good, ".")
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	sign := func(key any, alg jose.SignatureAlgorithm, kid, payload string) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
		must(t, err)
		signed, err := signer.Sign([]byte(payload))
		must(t, err)
		text, err := signed.CompactSerialize()
		must(t, err)
		return text
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	var public json.RawMessage
	k, err := f.Key(t.Context(), "k")
	must(t, err)
	public = k.Signing.Public
	stranger, err := newPair(jose.RS256)
	must(t, err)
	var foreign jose.JSONWebKey
	must(t, foreign.UnmarshalJSON(stranger.Private))
	var own jose.JSONWebKey
	must(t, own.UnmarshalJSON(k.Signing.Private))
	for what, token := range map[string]string{
		"nothing":                           "",
		"no token":                          "hvs.abc",
		"unsigned":                          encode(`{"alg":"none","kid":"`+issued.KeyID+`"}`) + "." + parts[1] + ".",
		"the public key as a shared secret": sign([]byte(public), jose.HS256, issued.KeyID, string(body)),
		"of a stranger":                     sign(foreign.Key, jose.RS256, issued.KeyID, string(body)),
		"an unknown kid":                    sign(own.Key, jose.RS256, "another", string(body)),
		"no kid":                            sign(own.Key, jose.RS256, "", string(body)),
		"another algorithm of the same key": sign(own.Key, jose.RS512, issued.KeyID, string(body)),
		"PSS of the same key":               sign(own.Key, jose.PS256, issued.KeyID, string(body)),
		"a changed payload":                 parts[0] + "." + encode(strings.Replace(string(body), "shop", "bank", 1)) + "." + parts[2],
		"a cut signature":                   strings.TrimSuffix(good, good[len(good)-8:]),
		"JSON form":                         `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"too long":                          good + strings.Repeat("A", 64<<10),
		"another issuer":                    sign(own.Key, jose.RS256, issued.KeyID, strings.Replace(string(body), "coffer.test", "other.test", 1)),
		"a claim twice":                     sign(own.Key, jose.RS256, issued.KeyID, strings.Replace(string(body), "{", `{"sub":"x",`, 1)),
		"expired":                           sign(own.Key, jose.RS256, issued.KeyID, fmt.Sprintf(`{"iss":"https://coffer.test:8200/v1/identity/oidc","aud":"shop","sub":%q,"exp":%d,"iat":1}`, f.entity, time.Now().Unix())),
		"without expiry":                    sign(own.Key, jose.RS256, issued.KeyID, fmt.Sprintf(`{"iss":"https://coffer.test:8200/v1/identity/oidc","aud":"shop","sub":%q,"iat":1}`, f.entity)),
	} {
		why, err := f.Introspect(t.Context(), token, "shop")
		if why == "" || err != nil {
			t.Errorf("%s: %q %v", what, why, err)
		}
	}
	if why, _ := f.Introspect(t.Context(), good, "bank"); !strings.HasPrefix(why, "error validating claims") {
		t.Errorf("another audience: %q", why)
	}
	if why, err := f.Introspect(t.Context(), good, "shop"); why != "" || err != nil {
		t.Errorf("the good one: %q %v", why, err)
	}
}
