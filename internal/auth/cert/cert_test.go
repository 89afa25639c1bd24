package cert

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	unknown = "invalid certificate or no client certificate supplied"
	unfit   = "no chain matching all constraints could be found for this login certificate"
)

type server struct {
	*enginetest.Engine
	t testing.TB
}

func newServer(t testing.TB) *server {
	t.Helper()
	return &server{enginetest.Open(t, Kind.Spec(), enginetest.Options{Mount: engine.Mount{Path: "auth/tls/"}}), t}
}

// role writes a role; fields are JSON members.
func (s *server) role(name, certificate, fields string) {
	s.t.Helper()
	s.Must(s.t, 204, "POST", "certs/"+name, body(certificate, fields))
}

func body(certificate, fields string) string {
	text, _ := json.Marshal(certificate)
	if fields != "" {
		fields = "," + fields
	}
	return fmt.Sprintf(`{"certificate":%s%s}`, text, fields)
}

func caller(t testing.TB, pair tls.Certificate) route.Caller {
	return route.Caller{Remote: netip.MustParseAddr("192.0.2.7"), Peer: certtest.Peer(t, pair)}
}

func (s *server) login(pair tls.Certificate, name string) (auth.Login, error) {
	s.t.Helper()
	a := s.As(caller(s.t, pair), "POST", "login", fmt.Sprintf(`{"name":%q}`, name))
	if a.Err != nil {
		return auth.Login{}, a.Err
	}
	return a.Output.(auth.Login), nil
}

// accepted wants a login by a role.
func (s *server) accepted(pair tls.Certificate, name, role string) auth.Login {
	s.t.Helper()
	out, err := s.login(pair, name)
	if err != nil || out.Metadata["cert_name"] != role {
		s.t.Errorf("login as %q: role %q, want %q: %v", name, out.Metadata["cert_name"], role, err)
	}
	return out
}

func (s *server) refused(pair tls.Certificate, name, want string) {
	s.t.Helper()
	if _, err := s.login(pair, name); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.From(err).Message, want) {
		s.t.Errorf("login as %q: %v, want %q", name, err, want)
	}
}

func TestLogin(t *testing.T) {
	s := newServer(t)
	ca, other := certtest.Root(t, "ca"), certtest.Root(t, "other")
	s.role("web", certtest.PEM(ca.Cert), `"token_policies":"web,db","token_ttl":"20m","display_name":"frontend"`)
	s.role("ops", certtest.PEM(other.Cert), "")
	pair := ca.Client(t, "web-1")
	got := s.accepted(pair, "", "web")
	if got.Alias != "web-1" || got.DisplayName != "tls-frontend" || !slices.Equal(got.Policies, []string{"db", "web"}) || got.TTL.Duration() != 20*time.Minute {
		t.Errorf("%+v", got)
	}
	m := got.Metadata
	if m["common_name"] != "web-1" || m["serial_number"] != pair.Leaf.SerialNumber.String() || len(m) != 5 || m["authority_key_id"] != colons(ca.Cert.SubjectKeyId) {
		t.Errorf("%v", m)
	}
	s.accepted(pair, "WEB", "web")
	s.refused(pair, "ops", unknown)
	s.refused(pair, "none", unknown)
	s.refused(certtest.Root(t, "ca").Client(t, "web-1"), "", unknown) // of another authority with that name
	s.refused(tls.Certificate{}, "", "client certificate must be supplied")
	between := ca.Intermediate(t, "between").Intermediate(t, "below")
	s.accepted(between.Client(t, "deep"), "", "web")
	cut := between.Client(t, "deep")
	cut.Certificate = cut.Certificate[:2]
	s.refused(cut, "", unknown)
	// A role may trust an authority in the middle, whatever is above it.
	s.role("mid", certtest.PEM(between.Cert), "")
	s.accepted(between.Client(t, "deep"), "mid", "mid")
	s.refused(pair, "mid", unknown)
	s.Must(t, 204, "DELETE", "certs/web", "")
	s.refused(pair, "", unknown)
}

// Roles are tried in the order of their names.
func TestOrder(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	for _, name := range []string{"c", "a", "b"} {
		s.role(name, certtest.PEM(ca.Cert), "")
	}
	s.accepted(ca.Client(t, "x"), "", "a")
	s.accepted(ca.Client(t, "x"), "c", "c")
	s.Must(t, 204, "POST", "certs/a", `{"allowed_common_names":"y"}`)
	s.accepted(ca.Client(t, "x"), "", "b")
	s.accepted(ca.Client(t, "y"), "", "a")
}

func TestLeaf(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	mine, twin := ca.Client(t, "mine"), ca.Client(t, "mine")
	s.role("one", certtest.PEM(mine.Leaf, ca.Cert), "") // which does not make the authority trusted
	s.accepted(mine, "", "one")
	s.accepted(mine, "one", "one")
	s.refused(twin, "", unknown)
	s.refused(twin, "one", unknown)
	alone := certtest.Alone(t, "alone")
	s.role("two", certtest.PEM(alone.Leaf), `"allowed_common_names":"alone"`)
	s.accepted(alone, "", "two")
	s.Must(t, 204, "POST", "certs/two", `{"allowed_common_names":"another"}`)
	s.refused(alone, "", unfit)
	old := certtest.Alone(t, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	s.role("old", certtest.PEM(old.Leaf), "")
	s.refused(old, "", "it expired at")
	a := s.Do("POST", "certs/server", body(certtest.PEM(certtest.Alone(t, "server", serverOnly).Leaf), ""))
	if a.Status != 400 || !strings.Contains(a.Err.Error(), "nonCA certificates should have TLS client authentication") {
		t.Errorf("%+v", a)
	}
}

func serverOnly(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }

func uri(t testing.TB, text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func extension(oid asn1.ObjectIdentifier, value any) func(*x509.Certificate) {
	der, err := asn1.Marshal(value)
	if err != nil {
		panic(err)
	}
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid, Value: der})
	}
}

func TestConstraints(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	pair := ca.Client(t, "web-1.example.com", func(c *x509.Certificate) {
		c.DNSNames, c.EmailAddresses = []string{"a.example.com", "b.example.org"}, []string{"ops@example.com"}
		c.URIs = []*url.URL{uri(t, "https://example.com/web")}
		c.Subject.OrganizationalUnit = []string{"Engineering", "Web"}
	}, extension(asn1.ObjectIdentifier{1, 2, 3, 4}, "blue team"), extension(asn1.ObjectIdentifier{1, 2, 3, 5}, 7))
	s.role("r", certtest.PEM(ca.Cert), "")
	empty := `"allowed_names":[],"allowed_common_names":[],"allowed_dns_sans":[],"allowed_email_sans":[],"allowed_uri_sans":[],"allowed_organizational_units":[],"required_extensions":[]`
	for constraint, ok := range map[string]bool{
		`"allowed_names":"web-*"`: true, `"allowed_names":"*.example.org"`: true, `"allowed_names":"ops@*"`: true, `"allowed_names":"https://*"`: false,
		`"allowed_common_names":"web-1.example.com"`: true, `"allowed_common_names":"a.example.com"`: false, `"allowed_common_names":["x","*-1.*"]`: true,
		`"allowed_dns_sans":"a.*"`: true, `"allowed_dns_sans":"web-*"`: false, `"allowed_email_sans":"*@example.com"`: true, `"allowed_email_sans":"*@example.org"`: false,
		`"allowed_uri_sans":"https://example.com/*"`: true, `"allowed_uri_sans":"http://*"`: false,
		`"allowed_organizational_units":"Web"`: true, `"allowed_organizational_units":"Sales,Eng*"`: true, `"allowed_organizational_units":"web"`: false,
		`"required_extensions":"1.2.3.4:blue*"`: true, `"required_extensions":"1.2.3.4:red*"`: false, `"required_extensions":"1.2.3.9:*"`: false,
		`"required_extensions":["1.2.3.4:*","1.2.3.5:*"]`: false, `"required_extensions":["1.2.3.4:*","hex:1.2.3.5:020107"]`: true,
		`"required_extensions":"hex:1.2.3.5:0201*"`: true, `"required_extensions":"hex:1.2.3.5:02:01:08"`: false,
		`"allowed_common_names":"web-*","allowed_dns_sans":"nowhere"`: false,
	} {
		s.Must(t, 204, "POST", "certs/r", "{"+empty+"}")
		s.Must(t, 204, "POST", "certs/r", "{"+constraint+"}")
		if ok {
			s.accepted(pair, "", "r")
		} else {
			s.refused(pair, "", unfit)
		}
	}
}

func TestMetadataOfExtensions(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	s.role("r", certtest.PEM(ca.Cert), `"allowed_metadata_extensions":"1.2.3.4,1.2.3.5,1.2.3.6"`)
	team := extension(asn1.ObjectIdentifier{1, 2, 3, 4}, "blue")
	got := s.accepted(ca.Client(t, "x", team, extension(asn1.ObjectIdentifier{1, 2, 3, 5}, 7), extension(asn1.ObjectIdentifier{1, 2, 3, 7}, "not asked for")), "", "r")
	if got.Metadata["1-2-3-4"] != "blue" || len(got.Metadata) != 6 || got.AliasMetadata == nil || len(got.AliasMetadata) > 0 {
		t.Errorf("%v", got.Metadata)
	}
	s.Must(t, 204, "POST", "config", `{"enable_identity_alias_metadata":true}`)
	if got := s.accepted(ca.Client(t, "x", team), "", "r"); got.AliasMetadata != nil || got.Metadata["1-2-3-4"] != "blue" {
		t.Errorf("%+v", got)
	}
	s.refused(ca.Client(t, "x", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, "two\nlines")), "", "the certificate's extension 1.2.3.4 has a character")
	s.refused(ca.Client(t, "x", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, strings.Repeat("x", maxText+1))), "", "is too long")
	s.accepted(ca.Client(t, "x", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, strings.Repeat("x", maxText))), "", "r")
}

func TestUnusableCertificates(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	s.role("r", certtest.PEM(ca.Cert), "")
	for why, pair := range map[string]tls.Certificate{
		"it expired at":                      ca.Client(t, "x", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }),
		"it is not valid before":             ca.Client(t, "x", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }),
		"its key usage does not allow":       ca.Client(t, "x", serverOnly),
		"a critical extension that is not":   ca.Client(t, "x", func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 9}, Critical: true}} }),
		"a certificate of its chain has exp": ca.Intermediate(t, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }).Client(t, "x"),
	} {
		s.refused(pair, "", why)
	}
	client := ca.Client(t, "no authority")
	s.refused((&certtest.Authority{Cert: client.Leaf, Key: client.PrivateKey.(crypto.Signer), Up: []*x509.Certificate{client.Leaf}}).Client(t, "x"), "", unknown)
	limited := ca.Intermediate(t, "limited", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	s.refused(limited.Client(t, "x"), "", "its chain does not allow clients")
	named := ca.Intermediate(t, "named", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.com"}, true
	})
	s.accepted(named.Client(t, "x", func(c *x509.Certificate) { c.DNSNames = []string{"a.example.com"} }), "", "r")
	s.refused(named.Client(t, "x", func(c *x509.Certificate) { c.DNSNames = []string{"evil\x1b.example.org"} }), "", "failed to verify client's certificate")
}

// What a hostile certificate says reaches neither metadata nor a message.
func TestHostileNames(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	s.role("r", certtest.PEM(ca.Cert), "")
	s.Must(t, 204, "POST", "config", `{"enable_metadata_on_failures":true}`)
	for _, name := range []string{
		"a\nb", "a\x00b", "a\x1b[2Jb", "a\u202eb", "*", "*.example.com", strings.Repeat("x", maxText+1), "a\u200bb", "a\x7f",
	} {
		_, err := s.login(ca.Client(t, name), "")
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if text := err.Error(); readable(text) != nil {
			t.Errorf("%q: the message is %q", name, text)
		}
	}
	s.accepted(ca.Client(t, strings.Repeat("x", maxText)), "", "r")
	s.accepted(ca.Client(t, "Ünïcode & <b> 'quotes\""), "", "r")
	if got := s.accepted(ca.Client(t, ""), "", "r"); got.Alias != "" {
		t.Errorf("%+v", got)
	}
	many := func(n int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for i := range n {
				c.DNSNames = append(c.DNSNames, fmt.Sprintf("host-%d.example.com", i))
			}
		}
	}
	s.accepted(ca.Client(t, "x", many(maxNames)), "", "r")
	s.refused(ca.Client(t, "x", many(maxNames+1)), "", "the certificate has 1001 names")
	long := ca.Client(t, "x")
	for range maxPresented - 1 {
		long.Certificate = append(long.Certificate, ca.Cert.Raw)
	}
	s.accepted(long, "", "r")
	long.Certificate = append(long.Certificate, ca.Cert.Raw)
	s.refused(long, "", "presents 17 certificates")
}

func TestFailuresNameTheCertificate(t *testing.T) {
	s := newServer(t)
	pair := certtest.Root(t, "ca").Client(t, "stranger")
	if _, err := s.login(pair, ""); strings.Contains(err.Error(), "stranger") {
		t.Error(err)
	}
	s.Must(t, 204, "POST", "config", `{"enable_metadata_on_failures":true}`)
	s.refused(pair, "", `"stranger" and the serial number "`+pair.Leaf.SerialNumber.String())
}

func TestRenew(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	s.role("r", certtest.PEM(ca.Cert), `"token_policies":"p","token_ttl":"1h"`)
	pair, twin := ca.Client(t, "x"), ca.Client(t, "x")
	granted := s.accepted(pair, "", "r")
	m := s.State.(*Method)
	var _ auth.Renewer = m
	renew := func(pair tls.Certificate, want string) {
		t.Helper()
		out, err := m.Renew(t.Context(), caller(t, pair), granted)
		if want == "" && (err != nil || out.TTL.Duration() != 2*time.Hour) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v %v, want %q", out.TTL, err, want)
		}
	}
	s.Must(t, 204, "POST", "certs/r", `{"token_ttl":"2h"}`)
	renew(pair, "")
	renew(twin, "client identity during renewal")
	renew(tls.Certificate{}, "client certificate must be supplied")
	renew(certtest.Root(t, "ca").Client(t, "x"), unknown)
	s.Must(t, 204, "POST", "config", `{"disable_binding":true}`)
	renew(tls.Certificate{}, "")
	s.Must(t, 204, "POST", "config", `{"disable_binding":false}`)
	s.Must(t, 204, "POST", "certs/r", `{"allowed_common_names":"y"}`)
	renew(pair, unfit)
	s.Must(t, 204, "POST", "certs/r", `{"allowed_common_names":[],"token_policies":"q"}`)
	renew(pair, "policies have changed")
	s.Must(t, 204, "DELETE", "certs/r", "")
	renew(pair, "the role was deleted")
}

func TestBadRoles(t *testing.T) {
	s := newServer(t)
	ca := certtest.PEM(certtest.Root(t, "ca").Cert)
	for fields, want := range map[string]string{
		`"required_extensions":"1.2.3.4"`: "neither oid:pattern", `"required_extensions":"x:y"`: "neither", `"required_extensions":"hex:1.2:xyz"`: "hexadecimal",
		`"required_extensions":"hex:1.2:"`: "hexadecimal", `"allowed_metadata_extensions":"x"`: "no OID", `"display_name":"a\nb"`: "display_name",
		`"ocsp_servers_override":"ftp://x"`: "neither http", `"ocsp_servers_override":"nonsense"`: "not a URL", `"ocsp_max_retries":11`: "from 0 to 10",
		`"ocsp_ca_certificates":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"`: "cannot be parsed", `"ocsp_this_update_max_age":-1`: "negative",
		`"token_ttl":"2h","token_max_ttl":"1h"`: "token_ttl", `"token_bound_cidrs":"x"`: "token_bound_cidrs",
		`"ocsp_servers_override":"http://a,http://b,http://c,http://d,http://e,http://f"`: "more than 5",
	} {
		a := s.Do("POST", "certs/new", body(ca, fields))
		if a.Status != 400 || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%s: %d %v, want %q", fields, a.Status, a.Err, want)
		}
	}
	for _, certificate := range []string{"", "nonsense", strings.Repeat("x", maxPEM+1), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" + ca, strings.Replace(ca, "MII", "AAA", 1)} {
		s.Must(t, 400, "POST", "certs/new", body(certificate, ""))
	}
	list := func(n int) string {
		text, _ := json.Marshal(slices.Repeat([]string{"x"}, n))
		return `"allowed_names":` + string(text)
	}
	s.Must(t, 400, "POST", "certs/new", body(ca, list(maxPatterns+1)))
	s.Must(t, 404, "LIST", "certs", "")
	s.Must(t, 204, "POST", "certs/new", body(ca, list(maxPatterns)))
	s.Must(t, 400, "POST", "certs/-x", body(ca, ""))
	s.Must(t, 404, "GET", "certs/none", "")
	for _, bad := range []string{`{"ocsp_cache_size":1}`, `{"ocsp_cache_size":100001}`, `{"role_cache_size":-2}`} {
		s.Must(t, 400, "POST", "config", bad)
	}
}

func TestRolesHaveVaultsShape(t *testing.T) {
	s := newServer(t)
	ca := certtest.PEM(certtest.Root(t, "ca").Cert)
	s.role("old", ca, `"policies":"a","lease":3600,"max_ttl":"2h","period":"1h","bound_cidrs":"10.0.0.0/8"`)
	text, _ := json.Marshal(ca)
	want := `{"certificate":` + string(text) + `,"display_name":"old","allowed_names":[],"allowed_common_names":[],"allowed_dns_sans":[],"allowed_email_sans":[],"allowed_uri_sans":[],` +
		`"allowed_organizational_units":[],"required_extensions":[],"allowed_metadata_extensions":[],"ocsp_enabled":false,"ocsp_ca_certificates":"","ocsp_servers_override":[],` +
		`"ocsp_fail_open":false,"ocsp_query_all_servers":false,"ocsp_this_update_max_age":0,"ocsp_max_retries":4,` +
		`"token_ttl":3600,"token_max_ttl":7200,"token_explicit_max_ttl":0,"token_period":3600,"token_num_uses":0,"token_bound_cidrs":["10.0.0.0/8"],"token_type":"default",` +
		`"token_no_default_policy":false,"token_policies":["a"],"policies":["a"],"ttl":3600,"max_ttl":7200,"period":3600,"bound_cidrs":["10.0.0.0/8"]}`
	if diff := enginetest.Differs(want, s.Must(t, 200, "GET", "certs/OLD", "").Data); diff != "" {
		t.Error(diff)
	}
	if data := s.Must(t, 200, "LIST", "certs", "").Data; data != `{"keys":["old"]}` {
		t.Error(data)
	}
}
