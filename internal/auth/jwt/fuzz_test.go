package jwt

import (
	"bytes"
	"encoding/json"
	"net/url"
	"testing"

	"github.com/cofferhq/coffer/internal/auth/issuer"
)

// Whatever a role binds and a token claims is compared without a panic, and what is
// written is read back as the same.
func FuzzBoundClaims(f *testing.F) {
	f.Add([]byte(`{"a":["x",1,true],"/b/c":"*"}`), []byte(`{"a":"x","b":{"c":[1e2]}}`))
	f.Add([]byte(`"{\"n\":1e999}"`), []byte(`{"n":1}`))
	f.Fuzz(func(t *testing.T, bound, claims []byte) {
		var b, again BoundClaims
		if b.UnmarshalJSON(bound) != nil {
			return
		}
		text, err := b.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalJSON(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if second, _ := again.MarshalJSON(); !bytes.Equal(text, second) {
			t.Errorf("%s, then %s", text, second)
		}
		var c issuer.Claims
		d := json.NewDecoder(bytes.NewReader(claims))
		d.UseNumber()
		if d.Decode(&c) == nil {
			_ = b.met(c, false)
			_ = b.met(c, true)
		}
	})
}

// An address that is allowed without being listed differs from one that is in the
// port of this machine only.
func FuzzRedirect(f *testing.F) {
	f.Add("http://localhost:8250/oidc/callback")
	f.Add("http://localhost@evil.example:8250/oidc/callback")
	f.Add("http://[::1%25x]:1/oidc/callback")
	f.Fuzz(func(t *testing.T, uri string) {
		if !redirectAllowed(uri, []string{"http://localhost/oidc/callback"}) {
			return
		}
		u, err := url.Parse(uri)
		if err != nil || u.Hostname() != "localhost" || u.Scheme != "http" || u.Path != "/oidc/callback" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			t.Errorf("%q is allowed", uri)
		}
	})
}
