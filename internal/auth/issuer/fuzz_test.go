package issuer_test

import (
	"errors"
	"testing"

	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
	"github.com/cofferhq/coffer/internal/fault"
)

// Whatever is sent as a token is refused for a reason, and never panics.
func FuzzVerify(f *testing.F) {
	key := issuertest.NewKey(f, "ES256")
	i := open(f, issuer.Source{Keys: []string{issuertest.PublicPEM(f, issuertest.NewKey(f, "ES256")), issuertest.PublicPEM(f, issuertest.NewKey(f, "RS256"))}})
	f.Add(key.Sign([]byte(`{"sub":"a","exp":99999999999}`)))
	f.Add(`{"payload":"e30","signatures":[]}`)
	f.Add(b64(`{"alg":"none"}`) + "..")
	f.Add(b64(`{"alg":"ES256","crit":[]}`) + ".e30.AA")
	f.Add(b64(`{"alg":"RS256","x5c":["AA"],"jwk":{"kty":"oct","k":"AA"}}`) + ".e30.AA")
	f.Fuzz(func(t *testing.T, token string) {
		_, err := i.Verify(t.Context(), token, issuer.Expect{})
		var reason issuer.Reason
		if !fault.Is(err, fault.Invalid) || !errors.As(err, &reason) {
			t.Errorf("%q: %v", token, err)
		}
	})
}

// Whatever is signed as claims is read or refused, and what is found in it is found
// without a panic.
func FuzzClaims(f *testing.F) {
	key := issuertest.NewKey(f, "EdDSA")
	i := open(f, issuer.Source{Keys: []string{issuertest.PublicPEM(f, key)}})
	f.Add(`{"exp":99999999999,"aud":["a"],"a":{"b":[1]}}`, "/a/b/0")
	f.Add(`{"exp":1e400}`, "/")
	f.Add(`{"iat":0,"nbf":1.5,"iss":7,"aud":{}}`, "//~")
	f.Fuzz(func(t *testing.T, text, name string) {
		claims, err := i.Verify(t.Context(), key.Sign([]byte(text)), issuer.Expect{Audiences: []string{"a"}, Issuer: "b"})
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
		claims.Find(name)
		claims.Texts(name)
		_, _ = claims.Time(name)
	})
}

// Whatever an issuer publishes as its keys is used or refused.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"RSA","n":"AA","e":"AQAB"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},null,[]]}`))
	f.Add([]byte(`{"keys":{}}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		i, err := issuer.New(issuer.Source{Document: append([]byte{}, document...)})
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", document, err)
			}
			return
		}
		defer i.Close()
		if _, err := i.Verify(t.Context(), b64(`{"alg":"ES256"}`)+".e30.AAAA", issuer.Expect{}); err == nil {
			t.Errorf("%q verifies nonsense", document)
		}
	})
}
