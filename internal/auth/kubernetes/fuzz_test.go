package kubernetes

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/auth/issuer"
)

func FuzzSelector(f *testing.F) {
	for _, seed := range []string{`{"matchLabels":{"a":"b"}}`, "matchLabels:\n  a: b", `{"matchExpressions":[]}`, "", "&a [*a]", "a: &x {b: *x}", "matchLabels: {a: 1}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSelector(text)
		if err == nil && (len(s) == 0 || s.fits(nil) || !s.fits(s)) {
			t.Errorf("%q selects %v", text, s)
		}
	})
}

func FuzzAccount(f *testing.F) {
	for _, seed := range []string{
		`{"kubernetes.io":{"namespace":"a","serviceaccount":{"name":"b","uid":"c"}}}`, `{"kubernetes.io":{"namespace":"../x"}}`, `{"kubernetes.io":"x"}`,
		`{"kubernetes.io/serviceaccount/namespace":"a","kubernetes.io/serviceaccount/service-account.name":"b","kubernetes.io/serviceaccount/service-account.uid":"c"}`,
	} {
		f.Add(seed, "system:serviceaccount:a:b")
	}
	f.Fuzz(func(t *testing.T, text, user string) {
		_, _, _ = parseUser(user)
		var claims issuer.Claims
		if json.Unmarshal([]byte(text), &claims) != nil {
			return
		}
		a, err := accountOf(claims)
		if err == nil && (a.Namespace == "" || a.Name == "" || a.UID == "" || strings.ContainsAny(a.Namespace+a.Name, "/%?#\\ ")) {
			t.Errorf("%q is taken for %+v", text, a)
		}
	})
}
