package cert

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/storage"
)

// many is a server whose roles name hundreds of authorities, and a client of the
// last of them.
func many(t testing.TB) (*server, *certtest.Authority) {
	t.Helper()
	s := newServer(t)
	var last *certtest.Authority
	for n := range 20 {
		var all strings.Builder
		for i := range 20 {
			last = certtest.Root(t, fmt.Sprintf("ca %d-%d", n, i))
			all.WriteString(certtest.PEM(last.Cert))
		}
		s.role(fmt.Sprintf("role-%02d", n), all.String(), "")
	}
	return s, last
}

// What a login costs does not grow with the authorities: they are parsed once.
func TestManyAuthorities(t *testing.T) {
	s, last := many(t)
	by := caller(t, last.Client(t, "x"))
	s.accepted(last.Client(t, "x"), "", "role-19")
	begun := time.Now()
	const logins = 200
	for range logins {
		if a := s.As(by, "POST", "login", "{}"); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	// One parse of 400 authorities takes longer than this.
	if each := time.Since(begun) / logins; each > 5*time.Millisecond {
		t.Errorf("a login takes %v", each)
	}
	before := s.State.(*Method).roles.value.byName["role-00"]
	s.Must(t, 204, "POST", "certs/role-01", `{"allowed_common_names":"y"}`)
	s.accepted(last.Client(t, "x"), "", "role-19")
	if after := s.State.(*Method).roles.value.byName["role-00"]; after != before {
		t.Error("a role that did not change was parsed again")
	}
}

func BenchmarkLogin(b *testing.B) {
	s, last := many(b)
	by := caller(b, last.Client(b, "x"))
	for _, name := range []string{"", "role-19"} {
		b.Run("name="+name, func(b *testing.B) {
			for b.Loop() {
				if a := s.As(by, "POST", "login", fmt.Sprintf(`{"name":%q}`, name)); a.Err != nil {
					b.Fatal(a.Err)
				}
			}
		})
	}
}

// Two nodes over one storage engine see each other's changes.
func TestTwoNodes(t *testing.T) {
	one := newServer(t)
	two := &server{enginetest.Open(t, Kind.Spec(), enginetest.Options{Storage: one.Storage, Mount: engine.Mount{Path: "auth/tls/"}}), t}
	ca := certtest.Root(t, "ca")
	pair := ca.Client(t, "x")
	two.refused(pair, "", unknown)
	one.role("r", certtest.PEM(ca.Cert), "")
	two.accepted(pair, "", "r")
	one.upload(204, "ca", crlPEM(ca.CRL(t, 1, pair.Leaf.SerialNumber)))
	two.refused(pair, "", unfit)
	two.Must(t, 204, "DELETE", "crls/ca", "")
	one.accepted(pair, "", "r")
	one.Must(t, 204, "DELETE", "certs/r", "")
	two.refused(pair, "", unknown)
}

// count makes the method believe that it has n roles or lists.
func (s *server) count(key string, n int) {
	s.t.Helper()
	if _, err := s.Storage.Update(s.t.Context(), func(t storage.Txn) error { return storage.Save(t, key, state{"x", n}) }); err != nil {
		s.t.Fatal(err)
	}
}

// The limit of roles is told before it is broken.
func TestTooManyRoles(t *testing.T) {
	s := newServer(t)
	ca := certtest.PEM(certtest.Root(t, "ca").Cert)
	s.role("one", ca, "")
	s.count(roleState, maxRoles-1)
	s.role("two", ca, "")
	if a := s.Do("POST", "certs/three", body(ca, "")); a.Status != 400 || !strings.Contains(a.Err.Error(), "more it cannot have") {
		t.Errorf("%d %v", a.Status, a.Err)
	}
	s.role("two", ca, `"allowed_common_names":"x"`)
	s.Must(t, 204, "DELETE", "certs/one", "")
	s.role("three", ca, "")
}
