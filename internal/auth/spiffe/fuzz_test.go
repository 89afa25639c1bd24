package spiffe

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
	"github.com/cofferhq/coffer/internal/auth/spiffe/spiffetest"
)

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{{"/a/+/b", "/a/x/b"}, {"a/**", "/a/b/c"}, {"spiffe://example.org/a*", "/ab"}, {"/**", "/x"}, {"//", "/"}, {"*", "/a"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		p, err := parsePattern(text)
		if err != nil || !p.matches("example.org", path) {
			return
		}
		// What has no wildcard fits itself only.
		if !strings.ContainsAny(text, "*+") && strings.TrimPrefix(strings.TrimPrefix(text, "spiffe://example.org"), "/") != strings.TrimPrefix(path, "/") {
			t.Errorf("%q fits %q", text, path)
		}
		if p.open && strings.Count(path, "/") <= len(p.segments) || !p.open && strings.Count(path, "/") != len(p.segments) {
			t.Errorf("%q fits %q, of another depth", text, path)
		}
	})
}

func FuzzBundle(f *testing.F) {
	domain := spiffetest.New(f, "example.org")
	for _, seed := range []string{domain.Bundle(f, 1, 60), certtest.PEM(domain.CA.Cert), `{"keys":[]}`, `{"keys":[{"use":"jwt-svid","kty":"oct","k":"AAAA","kid":"a"}]}`, "", "-----BEGIN"} {
		f.Add([]byte(seed))
	}
	id := spiffeid.RequireTrustDomainFromString("example.org")
	f.Fuzz(func(t *testing.T, text []byte) {
		bundle, err := parseBundle(id, text)
		if err == nil && len(bundle.X509Authorities())+len(bundle.JWTAuthorities()) == 0 {
			t.Error("a bundle without authorities is accepted")
		}
	})
}
