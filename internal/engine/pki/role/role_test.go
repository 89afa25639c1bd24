package role_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"

	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/engine/pki/role"
	"github.com/cofferhq/coffer/internal/wire"
)

// authority signs what roles make.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t testing.TB) authority {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: "Root"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return authority{c, private}
}

var (
	domains = []string{"example.com", "Example.COM", "b.example.com", "com", "evil.com", "*.example.com", "ex*le.com", "", "{{identity.entity.name}}.example.com", "localhost"}
	names   = []string{
		"example.com", "a.example.com", "A.b.EXAMPLE.com", "*.example.com", "a*b.example.com", "*.*.example.com", "a.*.example.com", "*", "**.example.com", "notexample.com", "evil.com",
		"example.com.evil.com", "evil.com/.example.com", "a b.example.com", "a\x00.example.com", "x@example.com", "x@a.example.com", "@example.com", "x@y@example.com", "*@example.com", "x@*.example.com",
		"localhost", "a.localhost", "localdomain", "alice", "web.alice", "alice.example.com", "bob.example.com", "example.com.", ".example.com", "-a.example.com", "münchen.example.com", "a\n.example.com",
		"", ".", "a..example.com", "com", "1.2.3.4", strings.Repeat("a", 64) + ".example.com", "exXle.com", "team@corp.example",
	}
	ips      = []string{"10.1.2.3", "192.0.2.1", "::1", "::ffff:10.0.0.1", "2001:db8::1", "x", "fe80::1%eth0"}
	networks = []string{"10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"}
	uris     = []string{"spiffe://example.com/a", "spiffe://evil.com/a", "https://example.com", "nothing", "urn:x:y", "spiffe://example.com/a\x00"}
	patterns = []string{"spiffe://example.com/*", "*", "urn:x:y", "spiffe://{{identity.entity.name}}/*"}
	others   = []string{"1.3.6.1.4.1.311.20.2.3;UTF8:alice@example.com", "1.2.3;utf8:x", "1.2.3;UTF8:", "bad", "2.5.29.17;UTF8:y"}
)

func some(t *rapid.T, label string, from []string) wire.Strings {
	return rapid.SliceOfN(rapid.SampledFrom(from), 0, 3).Draw(t, label)
}

// draw makes a role that Check accepts.
func draw(t *rapid.T) role.Role {
	r := role.New()
	flip := func(label string) bool { return rapid.Bool().Draw(t, label) }
	r.KeyType, r.KeyBits = key.Ed25519, 0
	r.Domains, r.DomainsTemplate, r.BareDomains, r.Subdomains, r.GlobDomains = some(t, "domains", domains), flip("template"), flip("bare"), flip("sub"), flip("glob")
	r.AllowLocalhost, r.Wildcards, r.TokenDisplayName, r.EnforceHostnames = flip("localhost"), flip("wildcards"), flip("display"), flip("hostnames")
	r.AnyName = rapid.IntRange(0, 4).Draw(t, "any") == 0
	r.IPSANs, r.IPRanges, r.URISANs, r.URISANsTemplate = flip("ip"), some(t, "ranges", networks), some(t, "uris", patterns), flip("uri template")
	r.OtherSANs = some(t, "others", []string{"1.3.6.1.4.1.311.20.2.3;UTF8:*@example.com", "1.2.3;UTF8:x", "*"})
	if slices.Contains(r.OtherSANs, "*") {
		r.OtherSANs = wire.Strings{"*"}
	}
	r.SerialNumbers, r.UserIDs = some(t, "serials", []string{"7*", "8"}), some(t, "users", []string{"u*", "v"})
	r.RequireCN, r.UseCSRCommonName, r.UseCSRSANs, r.BasicConstraints = flip("cn"), flip("csr cn"), flip("csr sans"), flip("basic")
	r.CNValidations = rapid.SampledFrom([]wire.Strings{nil, {"email"}, {"hostname"}, {"email", "hostname"}, {"disabled"}}).Draw(t, "validations")
	r.ServerFlag, r.ClientFlag, r.CodeSigningFlag, r.EmailFlag = flip("server"), flip("client"), flip("code"), flip("mail")
	r.KeyUsage = some(t, "usage", []string{"DigitalSignature", "KeyAgreement", "ContentCommitment"})
	r.ExtKeyUsage, r.ExtKeyUsageOIDs = some(t, "ext", []string{"TimeStamping", "ServerAuth"}), some(t, "oids", []string{"1.3.6.1.4.1.311.20.2.2"})
	r.OU, r.Organization, r.Country = some(t, "ou", []string{"a", "b"}), some(t, "o", []string{"c"}), some(t, "c", []string{"DE"})
	r.PolicyIdentifiers = wire.Strings{"1.3.6.1.4.1.7.8"}
	r.MaxTTL = wire.Seconds(time.Duration(rapid.SampledFrom([]int{0, 60, 3600}).Draw(t, "max")) * time.Second)
	if err := r.Check(); err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	return r
}

var user = role.Asker{DisplayName: "alice", Resolve: func(name string) (string, bool) {
	return "alice", name == "identity.entity.name"
}}

func drawRequest(t *rapid.T, signer ed25519.PrivateKey) role.Request {
	one := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
	in := role.Request{
		CommonName: one("cn", names...), AltNames: some(t, "alt", names), IPs: some(t, "ips", ips), URIs: some(t, "want uris", uris), Others: some(t, "want others", others),
		SerialNumber: one("serial", "", "7", "77", "8", "9", "7\x00"), UserIDs: some(t, "ids", []string{"u1", "v", "w"}), ExcludeCN: rapid.Bool().Draw(t, "exclude"),
		TTL: time.Duration(rapid.SampledFrom([]int{0, 30, 7200, 1 << 30}).Draw(t, "ttl")) * time.Second, By: user,
	}
	if rapid.Bool().Draw(t, "nobody") {
		in.By = role.Asker{}
	}
	if !rapid.Bool().Draw(t, "by csr") {
		return in
	}
	c := &x509.CertificateRequest{Subject: pkix.Name{CommonName: one("csr cn", names...), SerialNumber: one("csr serial", "", "7", "9"), Organization: []string{"Evil"}}}
	for _, n := range some(t, "csr names", names) {
		if isASCII(n) {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	for _, n := range some(t, "csr mails", names) {
		if isASCII(n) {
			c.EmailAddresses = append(c.EmailAddresses, n)
		}
	}
	for _, n := range some(t, "csr ips", ips) {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		}
	}
	for _, n := range some(t, "csr uris", uris) {
		if u, err := url.Parse(n); err == nil {
			c.URIs = append(c.URIs, u)
		}
	}
	if rapid.Bool().Draw(t, "ca") {
		c.ExtraExtensions = append(c.ExtraExtensions,
			pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}},
			pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 1, 6}},
			pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: []byte{0x30, 0}})
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, c, signer)
	if err != nil {
		return in
	}
	if in.CSR, err = role.ParseCSR(der); err != nil {
		in.CSR = nil // crypto/x509 takes it for no request
	}
	return in
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// TestNeverMore makes random requests of random roles: whatever becomes a certificate
// says nothing that the role does not allow, by rules that are written down here a
// second time.
func TestNeverMore(t *testing.T) {
	ca := newAuthority(t)
	public, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issued, refused := 0, 0
	for range 10 { // of a hundred each
		rapid.Check(t, func(t *rapid.T) {
			r := draw(t)
			in := drawRequest(t, signer)
			now := time.Now()
			out, err := r.Certificate(in, public, role.Limits{DefaultTTL: time.Hour, MaxTTL: 2 * time.Hour, Now: now})
			if err != nil {
				refused++
				return
			}
			out.Template.SerialNumber = big.NewInt(2)
			der, err := x509.CreateCertificate(rand.Reader, out.Template, ca.cert, public, ca.key)
			if err != nil {
				refused++
				return
			}
			issued++
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatalf("what was made cannot be read: %v", err)
			}
			judge(t, r, in, c, now)
		})
	}
	if issued == 0 || refused == 0 {
		t.Errorf("%d were issued and %d refused", issued, refused)
	}
}

func judge(t *rapid.T, r role.Role, in role.Request, c *x509.Certificate, now time.Time) {
	law := law{r, in.By}
	for _, n := range c.DNSNames {
		if strings.Contains(n, "@") || !law.name(n) {
			t.Fatalf("DNS name %q", n)
		}
	}
	for _, n := range c.EmailAddresses {
		if !law.name(n) {
			t.Fatalf("email %q", n)
		}
	}
	if cn := c.Subject.CommonName; cn == "" && r.RequireCN || cn != "" && !slices.Equal(r.CNValidations, []string{"disabled"}) && !law.name(cn) {
		t.Fatalf("common name %q", cn)
	}
	for _, ip := range c.IPAddresses {
		a, _ := netip.AddrFromSlice(ip)
		if !r.IPSANs || len(r.IPRanges) > 0 && !slices.ContainsFunc(r.IPRanges, func(p string) bool { return netip.MustParsePrefix(p).Contains(a.Unmap()) }) {
			t.Fatalf("address %v", ip)
		}
	}
	for _, u := range c.URIs {
		if !slices.ContainsFunc(r.URISANs, func(p string) bool { return law.matches(p, u.String(), r.URISANsTemplate) }) {
			t.Fatalf("URI %v", u)
		}
	}
	if s := c.Subject.SerialNumber; s != "" && !slices.ContainsFunc(r.SerialNumbers, func(p string) bool { return law.matches(p, s, false) }) {
		t.Fatalf("serial number %q", s)
	}
	if c.IsCA || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 || c.BasicConstraintsValid != r.BasicConstraints {
		t.Fatalf("it may sign: %v %v", c.IsCA, c.KeyUsage)
	}
	if !slices.Equal(c.Subject.Organization, inDER(r.Organization)) || !slices.Equal(c.Subject.OrganizationalUnit, inDER(r.OU)) || !slices.Equal(c.Subject.Country, inDER(r.Country)) {
		t.Fatalf("subject %v", c.Subject)
	}
	most := now.Add(2 * time.Hour)
	if r.MaxTTL > 0 && r.MaxTTL.Duration() < 2*time.Hour {
		most = now.Add(r.MaxTTL.Duration())
	}
	if c.NotAfter.After(most) || c.NotBefore.Before(now.Add(-32*time.Second)) || c.NotAfter.Before(now.Add(-time.Second)) {
		t.Fatalf("from %v to %v", c.NotBefore, c.NotAfter)
	}
	for _, u := range c.ExtKeyUsage {
		allowed := map[x509.ExtKeyUsage]bool{
			x509.ExtKeyUsageServerAuth: r.ServerFlag || slices.Contains(r.ExtKeyUsage, "ServerAuth"), x509.ExtKeyUsageClientAuth: r.ClientFlag,
			x509.ExtKeyUsageCodeSigning: r.CodeSigningFlag, x509.ExtKeyUsageEmailProtection: r.EmailFlag, x509.ExtKeyUsageTimeStamping: slices.Contains(r.ExtKeyUsage, "TimeStamping"),
		}
		if !allowed[u] {
			t.Fatalf("usage %v", u)
		}
	}
	known := []string{"2.5.29.14", "2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.32", "2.5.29.35", "2.5.29.37"}
	for _, x := range c.Extensions {
		if !slices.Contains(known, x.Id.String()) {
			t.Fatalf("extension %v", x.Id)
		}
	}
	got, err := role.OthersOf(c.Extensions)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range got {
		if !slices.ContainsFunc(r.OtherSANs, func(p string) bool {
			id, value, _ := strings.Cut(p, ";UTF8:")
			return slices.Equal(r.OtherSANs, []string{"*"}) || id == o.OID.String() && law.matches(value, o.Value, false)
		}) {
			t.Fatalf("other name %v", o)
		}
	}
}

// inDER is a list as a subject has it: DER sorts what is of one kind.
func inDER(list wire.Strings) []string { return slices.Sorted(slices.Values(list)) }

// law is what a role allows, said a second time.
type law struct {
	r  role.Role
	by role.Asker
}

// matches is glob matching by way of a regular expression.
func (l law) matches(pattern, text string, template bool) bool {
	if strings.Contains(pattern, "{{") {
		if !template || l.by.Resolve == nil {
			return !template && pattern == text
		}
		pattern = strings.ReplaceAll(pattern, "{{identity.entity.name}}", "alice")
	}
	if pattern == "" {
		return false
	}
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, ".*") + `\z`).MatchString(text)
}

var host = regexp.MustCompile(`\A(\*|[a-z0-9_*]([a-z0-9_*-]{0,61}[a-z0-9_*])?)(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?\z`)

func (l law) name(n string) bool {
	r := l.r
	n = strings.ToLower(n)
	if strings.ContainsFunc(n, unicode.IsControl) {
		return false
	}
	at := n
	if local, after, mail := strings.Cut(n, "@"); mail {
		if local == "" || strings.ContainsAny(n, "*") || strings.Contains(after, "@") {
			return false
		}
		at = after
	}
	if stars := strings.Count(n, "*"); stars > 1 || stars == 1 && (!r.Wildcards || !strings.Contains(strings.SplitN(n, ".", 2)[0], "*")) {
		return false
	}
	if ascii := isASCII(at); r.EnforceHostnames && ascii && !host.MatchString(at) {
		return false
	}
	if r.AnyName {
		return true
	}
	below := func(domain string) bool { return domain != "" && r.Subdomains && strings.HasSuffix(at, "."+domain) }
	if r.AllowLocalhost && (at == "localhost" || at == "localdomain" || below("localhost") || below("localdomain")) {
		return true
	}
	if d := l.by.DisplayName; r.TokenDisplayName && d != "" && (n == d || below(d)) {
		return true
	}
	return slices.ContainsFunc(r.Domains, func(d string) bool {
		d = strings.ToLower(d)
		if strings.Contains(d, "{{") && r.DomainsTemplate {
			if l.by.Resolve == nil {
				return false
			}
			d = strings.ReplaceAll(d, "{{identity.entity.name}}", "alice")
		}
		return d != "" && (r.BareDomains && (n == d || at == d) || below(d) || r.GlobDomains && strings.Contains(d, "*") && l.matches(d, n, false))
	})
}

func FuzzCSR(f *testing.F) {
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"a.example.com"}}, signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----"))
	r := role.New()
	r.KeyType = key.Any
	if err := r.Check(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		csr, err := role.ParseCSR(text)
		if err != nil {
			return
		}
		_, _ = r.Certificate(role.Request{CSR: csr}, csr.PublicKey, role.Limits{MaxTTL: time.Hour, Now: time.Now()})
	})
}

func FuzzOthers(f *testing.F) {
	f.Add([]byte{0x30, 0x10, 0xa0, 0x0e, 6, 3, 0x2a, 3, 4, 0xa0, 7, 0x0c, 5, 'h', 'e', 'l', 'l', 'o'})
	f.Fuzz(func(t *testing.T, der []byte) {
		_, _ = role.OthersOf([]pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}})
	})
}
