package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// csr makes a signing request.
func csr(t testing.TB, c x509.CertificateRequest, s crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &c, s)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// TestHostileKeys has keys certified that are not fit for it.
func TestHostileKeys(t *testing.T) {
	e := ready(t)
	do(t, e, "POST", "roles/any", `{"allow_any_name":true,"key_type":"any"}`)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}}
	dir := t.TempDir()
	openssl(t, "genpkey", "-genparam", "-algorithm", "DSA", "-pkeyopt", "dsa_paramgen_bits:1024", "-out", filepath.Join(dir, "params"))
	openssl(t, "genpkey", "-paramfile", filepath.Join(dir, "params"), "-out", filepath.Join(dir, "dsa"))
	openssl(t, "req", "-new", "-key", filepath.Join(dir, "dsa"), "-subj", "/CN=a.example.com", "-out", filepath.Join(dir, "csr"))
	dsa, err := os.ReadFile(filepath.Join(dir, "csr"))
	if err != nil {
		t.Fatal(err)
	}
	openssl(t, "ecparam", "-name", "secp256k1", "-genkey", "-noout", "-out", filepath.Join(dir, "k1"))
	openssl(t, "req", "-new", "-key", filepath.Join(dir, "k1"), "-subj", "/CN=a.example.com", "-out", filepath.Join(dir, "csr"))
	k1, err := os.ReadFile(filepath.Join(dir, "csr"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"RSA 1024": csr(t, c, short), "P-224": csr(t, c, p224), "DSA": string(dsa), "secp256k1": string(k1)} {
		for _, path := range []string{"sign/any", "sign-verbatim", "root/sign-intermediate"} {
			if a := e.Do("POST", path, text2json(text)); a.Err == nil || a.Status != 400 {
				t.Errorf("%s at %s: %d %v", name, path, a.Status, a.Err)
			}
		}
	}
	// A role for longer keys than the request's.
	do(t, e, "POST", "roles/long", `{"allow_any_name":true,"key_type":"ec","key_bits":384}`)
	refused(t, e, "POST", "sign/long", fields{"csr": csr(t, c, newKey(t))}, "minimum of a 384-bit key")
	do(t, e, "POST", "roles/rsa", `{"allow_any_name":true,"key_type":"rsa"}`)
	refused(t, e, "POST", "sign/rsa", fields{"csr": csr(t, c, newKey(t))}, "keys of type rsa")
}

func text2json(csr string) string {
	return `{"common_name":"a.example.com","csr":"` + strings.ReplaceAll(csr, "\n", `\n`) + `"}`
}

// TestHostileRequests has requests signed that ask for more than anybody should get.
func TestHostileRequests(t *testing.T) {
	e := ready(t)
	k := newKey(t)
	good := csr(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}}, k)
	block, _ := pem.Decode([]byte(good))
	forged := append([]byte{}, block.Bytes...)
	forged[len(forged)-3] ^= 1
	huge := x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}}
	for range 3000 {
		huge.DNSNames = append(huge.DNSNames, "a-name-that-is-quite-long.example.com")
	}
	many := x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}}
	for n := range 600 {
		many.DNSNames = append(many.DNSNames, string(rune('a'+n%26))+string(rune('a'+n/26))+".example.com")
	}
	nul := x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com\x00.evil.com"}}
	for text, want := range map[string]string{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged})):      "signature invalid",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")})): "could not be parsed",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})):         "no CERTIFICATE REQUEST",
		csr(t, huge, k): "longer than",
		csr(t, many, k): "more than",
		csr(t, nul, k):  "characters that no name has",
		"":              "empty",
		"nothing":       "not PEM",
		csr(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "evil.com"}}, k):                                                          "not allowed by this role",
		csr(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}, DNSNames: []string{"evil.com"}}, k):                     "not allowed by this role",
		csr(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}, EmailAddresses: []string{"x@evil.com"}}, k):             "not allowed by this role",
		csr(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}, URIs: []*url.URL{{Scheme: "spiffe", Host: "evil"}}}, k): "not allowed by this role",
	} {
		refused(t, e, "POST", "sign/web", fields{"csr": text}, want)
	}
	// The authority to sign others is left out where names are what counts, and
	// refused where the request is.
	ca := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}
	signs := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 1, 6}}
	odd := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte("odd")}
	broken := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 99}}
	with := func(x ...pkix.Extension) fields {
		return fields{"csr": csr(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com", Organization: []string{"Shop"}}, ExtraExtensions: x}, k)}
	}
	c := parse(t, do(t, e, "POST", "sign/web", with(ca, signs, odd)).text("certificate"))
	if c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 || len(c.UnhandledCriticalExtensions) > 0 || len(c.Subject.Organization) > 0 {
		t.Errorf("signed: %+v", c.Subject)
	}
	refused(t, e, "POST", "sign-verbatim", with(ca), "CA:TRUE")
	refused(t, e, "POST", "sign-verbatim", with(broken), "CA:TRUE")
	refused(t, e, "POST", "sign-verbatim/web", with(signs), "sign others")
	refused(t, e, "POST", "issuer/default/sign-verbatim", fields{"csr": csr(t, nul, k)}, "no name has")
	out := e.Must(t, 200, "POST", "sign-verbatim", text2json(with(odd).text("csr")))
	if len(out.Warnings) < 1 || !strings.Contains(strings.Join(out.Warnings, " "), "1.2.3") {
		t.Errorf("warnings: %q", out.Warnings)
	}
	v := parse(t, do(t, e, "POST", "issuer/default/sign-verbatim/web", with(odd)).text("certificate"))
	if v.Subject.String() != "CN=a.example.com,O=Shop" || v.IsCA || len(v.UnhandledCriticalExtensions) > 0 {
		t.Errorf("verbatim: %v", v.Subject)
	}
	if err := v.CheckSignatureFrom(parse(t, string(raw(t, e, "ca/pem")))); err != nil {
		t.Error(err)
	}
}

func TestBundlesRefused(t *testing.T) {
	e := ready(t)
	leaf := do(t, e, "POST", "issue/web", `{"common_name":"a.example.com"}`)
	for text, want := range map[string]string{
		leaf.text("certificate"):                "non-CA certificate",
		leaf.text("certificate") + "\nand more": "non-CA certificate",
		"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----":       "decrypted first",
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----":                           "cannot be read",
		strings.Repeat("-----BEGIN EC PARAMETERS-----\nAAAA\n-----END EC PARAMETERS-----\n", 60): "at most 50",
		string(raw(t, e, "ca/pem")) + "garbage":                                                  "no PEM",
	} {
		refused(t, e, "POST", "issuers/import/bundle", fields{"pem_bundle": text}, want)
	}
}

func FuzzImport(f *testing.F) {
	from := ready(f)
	f.Add(string(raw(f, from, "ca/pem")))
	f.Add("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")
	f.Fuzz(func(t *testing.T, text string) {
		if a := open(t).Do("POST", "issuers/import/bundle", `{"pem_bundle":`+quote(text)+`}`); a.Status >= 500 {
			t.Errorf("%d: %v", a.Status, a.Err)
		}
	})
}

func FuzzOCSP(f *testing.F) {
	e := ready(f)
	f.Add("MEMwQTA/MD0wOzAJBgUrDgMCGgUABBQ")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if a := e.Do("GET", "ocsp/"+strings.ReplaceAll(text, "?", ""), ""); a.Status >= 500 {
			t.Errorf("%d: %v", a.Status, a.Err)
		}
	})
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ToValidUTF8(s, "?") {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r < 0x20:
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}
