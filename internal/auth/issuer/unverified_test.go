package issuer_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
)

func TestUnverified(t *testing.T) {
	who := issuertest.New(t)
	token := who.Sign(map[string]any{"aud": "coffer"})
	forged := token[:strings.LastIndex(token, ".")+1] + "AAAA"
	for _, text := range []string{token, forged} {
		if c, err := issuer.Unverified(text, issuer.Expect{}); err != nil || c.Text("sub") != "somebody" {
			t.Errorf("%v %v", c, err)
		}
	}
	for want, text := range map[issuer.Reason]string{
		issuer.Malformed: "x", issuer.TooLong: strings.Repeat("x", issuer.MaxToken+1),
		issuer.Expired: who.Sign(map[string]any{"aud": "coffer", "exp": 1}), issuer.Audience: who.Sign(map[string]any{"aud": "other"}),
		issuer.Shared: issuertest.SignShared(t, []byte("a secret that is long enough ..."), []byte("{}")),
	} {
		var got issuer.Reason
		if _, err := issuer.Unverified(text, issuer.Expect{Audiences: []string{"coffer"}}); !errors.As(err, &got) || got != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	// Neither does an issuer of the same settings begin anew, nor one of others stay.
	var k issuer.Kept
	a, err := k.Of("1", issuer.Source{JWKS: []issuer.Place{{URL: who.URL}}})
	b, err2 := k.Of("1", issuer.Source{JWKS: []issuer.Place{{URL: who.URL}}})
	c, err3 := k.Of("2", issuer.Source{JWKS: []issuer.Place{{URL: who.URL}}})
	if err := errors.Join(err, err2, err3); err != nil || a != b || a == c {
		t.Errorf("%v %p %p %p", err, a, b, c)
	}
	if _, err := k.Of("3", issuer.Source{}); err == nil {
		t.Error("an issuer without a source is kept")
	}
}
