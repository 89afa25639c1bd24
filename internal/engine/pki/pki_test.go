package pki_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/pki"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// open opens an engine whose certificates may last ten years.
func open(t testing.TB) *enginetest.Engine { return openOn(t, nil) }

func openOn(t testing.TB, s storage.Engine) *enginetest.Engine {
	return enginetest.Open(t, pki.Kind.Spec(), enginetest.Options{Storage: s, Mount: engine.Mount{Path: "pki/", MaxTTL: 87600 * time.Hour}})
}

// ready is open with a root and a role for example.com.
func ready(t testing.TB) *enginetest.Engine {
	e := open(t)
	e.Must(t, 200, "POST", "root/generate/internal", `{"common_name":"Example Root","key_type":"ec","ttl":"87600h","issuer_name":"root"}`)
	e.Must(t, 200, "POST", "roles/web", `{"allowed_domains":"example.com","allow_subdomains":true,"key_type":"ec","max_ttl":"720h"}`)
	return e
}

// fields are the data of an answer.
type fields map[string]any

func (f fields) text(name string) string {
	s, _ := f[name].(string)
	return s
}

func (f fields) list(name string) (out []string) {
	all, _ := f[name].([]any)
	for _, v := range all {
		out = append(out, v.(string))
	}
	return out
}

// do makes a request whose answer must be 200, and returns its data.
func do(t testing.TB, e *enginetest.Engine, method, path string, body any) fields {
	t.Helper()
	text := ""
	if s, ok := body.(string); ok {
		text = s
	} else if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	a := e.Must(t, 200, method, path, text)
	out := fields{}
	if err := json.Unmarshal([]byte(a.Data), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// refused makes a request that must be refused with a text.
func refused(t testing.TB, e *enginetest.Engine, method, path string, body any, want string) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	a := e.Do(method, path, string(b))
	if a.Err == nil || !fault.Is(a.Err, fault.Invalid) || !strings.Contains(a.Err.Error(), want) {
		t.Errorf("%s %s: %v %s; want a refusal with %q", method, path, a.Err, a.Data, want)
	}
}

func parse(t testing.TB, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %.80s", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func file(t testing.TB, name string, parts ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.Join(parts, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openssl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestKinds has roots of every kind of key sign for every kind of key, and openssl
// verify what comes of it.
func TestKinds(t *testing.T) {
	kinds := []string{`"key_type":"rsa"`, `"key_type":"rsa","signature_bits":512,"use_pss":true`, `"key_type":"ec"`, `"key_type":"ec","key_bits":521`, `"key_type":"ed25519"`}
	for n, kind := range kinds {
		e := open(t)
		root := do(t, e, "POST", "root/generate/internal", `{"common_name":"Root",`+kind+`}`)
		ca := file(t, "ca.pem", root.text("certificate"))
		of := kinds[(n+1)%len(kinds)]
		do(t, e, "POST", "roles/web", `{"allowed_domains":"example.com","allow_subdomains":true,`+of+`}`)
		leaf := do(t, e, "POST", "issue/web", `{"common_name":"a.example.com","alt_names":"b.example.com","ip_sans":"192.0.2.7"}`)
		cert := file(t, "leaf.pem", leaf.text("certificate"))
		openssl(t, "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "b.example.com", "-CAfile", ca, cert)
		key := file(t, "key.pem", leaf.text("private_key"))
		if a, b := openssl(t, "x509", "-in", cert, "-noout", "-pubkey"), openssl(t, "pkey", "-in", key, "-pubout"); a != b {
			t.Errorf("%s: the key is not the certificate's", kind)
		}
		c := parse(t, leaf.text("certificate"))
		if got := fmt.Sprint(c.DNSNames, c.IPAddresses); got != "[a.example.com b.example.com] [192.0.2.7]" {
			t.Errorf("names are %s", got)
		}
		if time.Until(c.NotAfter).Round(time.Hour) != 768*time.Hour || float64(c.NotAfter.Unix()) != leaf["expiration"] {
			t.Errorf("it ends at %v, and is said to at %v", c.NotAfter, leaf["expiration"])
		}
		read := do(t, e, "GET", "cert/"+leaf.text("serial_number"), "")
		if strings.TrimSpace(read.text("certificate")) != leaf.text("certificate") {
			t.Error("another certificate is kept")
		}
	}
}

// TestIntermediate has a root in one mount certify an intermediate of another, and a
// second root cross-sign it.
func TestIntermediate(t *testing.T) {
	root, other, e := open(t), open(t), open(t)
	top := do(t, root, "POST", "root/generate/internal", `{"common_name":"Root","key_type":"ec"}`)
	second := do(t, other, "POST", "issuers/generate/root/internal", `{"common_name":"Second Root","key_type":"rsa"}`)
	asked := do(t, e, "POST", "intermediate/generate/internal", `{"common_name":"Middle","key_type":"ec","key_bits":384,"key_name":"middle"}`)
	if asked.text("private_key") != "" {
		t.Error("an internal key is answered")
	}
	signed := do(t, root, "POST", "root/sign-intermediate", fields{"csr": asked.text("csr"), "common_name": "Middle", "ttl": "43800h"})
	refused(t, e, "POST", "intermediate/set-signed", fields{"certificate": second.text("certificate")}, "none of the keys")
	set := do(t, e, "POST", "intermediate/set-signed", fields{"certificate": signed.text("certificate") + top.text("certificate")}) // no newline between
	if len(set.list("imported_issuers")) != 2 || len(set.list("imported_keys")) != 0 {
		t.Errorf("set-signed: %v", set)
	}
	do(t, e, "POST", "roles/web", `{"allow_any_name":true,"key_type":"ed25519"}`)
	leaf := do(t, e, "POST", "issue/web", `{"common_name":"shop.example.com"}`)
	chain := leaf.list("ca_chain")
	if len(chain) != 2 || chain[0] != signed.text("certificate") || chain[1] != top.text("certificate") {
		t.Errorf("the chain has %d certificates", len(chain))
	}
	cert := file(t, "leaf.pem", leaf.text("certificate"))
	openssl(t, "verify", "-x509_strict", "-CAfile", file(t, "root.pem", top.text("certificate")), "-untrusted", file(t, "middle.pem", chain[0]), cert)

	again := do(t, e, "POST", "intermediate/cross-sign", `{"common_name":"Middle","key_ref":"middle"}`)
	crossed := do(t, other, "POST", "root/sign-intermediate", fields{"csr": again.text("csr"), "common_name": "Middle", "use_csr_values": true})
	do(t, e, "POST", "intermediate/set-signed", fields{"certificate": crossed.text("certificate")})
	openssl(t, "verify", "-x509_strict", "-CAfile", file(t, "second.pem", second.text("certificate")), "-untrusted", file(t, "crossed.pem", crossed.text("certificate")), cert)

	// What was signed by it alone can be used with a chain that is said outright.
	ids := do(t, e, "LIST", "issuers", "").list("keys")
	if len(ids) != 3 {
		t.Fatalf("issuers: %q", ids)
	}
	// A root that signs another root's certificate.
	self := do(t, root, "POST", "root/sign-self-issued", fields{"certificate": second.text("certificate")})
	openssl(t, "verify", "-CAfile", file(t, "root.pem", top.text("certificate")), "-untrusted", file(t, "u.pem", self.text("certificate"), crossed.text("certificate")), cert)
}

func TestImport(t *testing.T) {
	from, e := open(t), open(t)
	made := do(t, from, "POST", "root/generate/exported", `{"common_name":"Old Root","key_type":"rsa","private_key_format":"pkcs8"}`)
	bundle := made.text("certificate") + "\n" + made.text("private_key")
	refused(t, e, "POST", "issuers/import/cert", fields{"pem_bundle": bundle}, "not allowed by the path")
	refused(t, e, "POST", "issuers/import/bundle", fields{"pem_bundle": "nothing"}, "no certificate")
	for n := range 2 {
		got := do(t, e, "POST", "config/ca", fields{"pem_bundle": bundle})
		if len(got.list("imported_issuers")) != 1-n || len(got.list("existing_issuers")) != n || len(got.list("existing_keys")) != n {
			t.Errorf("import %d: %v", n, got)
		}
	}
	do(t, e, "POST", "roles/web", `{"allow_any_name":true}`)
	leaf := do(t, e, "POST", "issue/web", `{"common_name":"example.com","format":"pem_bundle"}`)
	if n := strings.Count(leaf.text("certificate"), "-----BEGIN "); n != 3 {
		t.Errorf("the bundle has %d parts", n)
	}
	info := do(t, e, "GET", "issuer/default", "")
	if info.text("usage") != "read-only,issuing-certificates,crl-signing,ocsp-signing" || info.text("leaf_not_after_behavior") != "err" {
		t.Errorf("%v", info)
	}
	// A key that goes takes the issuer's power with it.
	e.Must(t, 200, "DELETE", "key/default", "")
	refused(t, e, "POST", "issue/web", fields{"common_name": "example.com"}, "key is not here")
	do(t, e, "POST", "keys/import", fields{"pem_bundle": made.text("private_key"), "key_name": "back"})
	do(t, e, "POST", "issue/web", fields{"common_name": "example.com"})
	e.Must(t, 204, "DELETE", "root", "")
	refused(t, e, "POST", "issue/web", fields{"common_name": "example.com"}, "no default issuer")
}

// TestOutlive asks for certificates that would outlive their issuer.
func TestOutlive(t *testing.T) {
	e := open(t)
	root := do(t, e, "POST", "root/generate/internal", `{"common_name":"Root","key_type":"ec","ttl":"100h"}`)
	end := parse(t, root.text("certificate")).NotAfter
	do(t, e, "POST", "roles/web", `{"allow_any_name":true,"key_type":"ec","max_ttl":"1000h"}`)
	ask := fields{"common_name": "example.com", "ttl": "200h"}
	refused(t, e, "POST", "issue/web", ask, "beyond the expiration of the CA certificate")
	do(t, e, "PATCH", "issuer/default", `{"leaf_not_after_behavior":"truncate"}`)
	if c := parse(t, do(t, e, "POST", "issue/web", ask).text("certificate")); !c.NotAfter.Equal(end) {
		t.Errorf("truncated to %v, not %v", c.NotAfter, end)
	}
	do(t, e, "PATCH", "issuer/default", `{"leaf_not_after_behavior":"permit"}`)
	if c := parse(t, do(t, e, "POST", "issue/web", ask).text("certificate")); !c.NotAfter.After(end) {
		t.Errorf("not permitted: %v", c.NotAfter)
	}
	ask["ttl"] = "2000h"
	if a := e.Do("POST", "issue/web", `{"common_name":"example.com","ttl":"2000h"}`); len(a.Warnings) != 2 || !strings.Contains(a.Warnings[0], "maxTTL") {
		t.Errorf("warnings: %q", a.Warnings)
	}
	refused(t, e, "POST", "issue/web", fields{"common_name": "example.com", "ttl": "-1h"}, "negative")
	refused(t, e, "POST", "issue/web", fields{"common_name": "example.com", "not_after": "2001-01-01T00:00:00Z"}, "past")
}

func TestRoles(t *testing.T) {
	e := ready(t)
	if r := do(t, e, "GET", "roles/web", ""); r["max_ttl"] != float64(720*3600) || r["ttl"] != float64(0) || r["allow_localhost"] != true || r["key_bits"] != float64(256) || r["not_before_duration"] != float64(30) {
		t.Errorf("%v", r)
	}
	do(t, e, "PATCH", "roles/web", `{"ou":["a","b"]}`)
	if r := do(t, e, "GET", "roles/web", ""); r["allow_subdomains"] != true || len(r.list("ou")) != 2 {
		t.Errorf("patched: %v", r)
	}
	do(t, e, "POST", "roles/web", `{"key_type":"any"}`)
	if r := do(t, e, "GET", "roles/web", ""); r["allow_subdomains"] != false || len(r.list("ou")) != 0 {
		t.Errorf("written anew: %v", r)
	}
	refused(t, e, "POST", "issue/web", fields{"common_name": "localhost"}, "which key to make")
	for body, want := range map[string]string{
		`{"key_type":"dsa"}`: "key_type", `{"key_type":"ec","key_bits":224}`: "key_bits", `{"key_bits":1024}`: "key_bits", `{"ttl":"2h","max_ttl":"1h"}`: "max_ttl",
		`{"key_usage":["CertSign"]}`: "CertSign", `{"ext_key_usage":"nothing"}`: "ext_key_usage", `{"allowed_ip_sans_cidr":"10.0.0.0"}`: "network", `{"allowed_other_sans":"x"}`: "other_sans",
		`{"no_store":true,"generate_lease":true}`: "generate_lease", `{"cn_validations":"disabled,email"}`: "disabled", `{"policy_identifiers":"x"}`: "policy_identifiers",
		`{"signature_bits":1}`: "signature_bits", `{"not_after":"soon"}`: "not_after",
	} {
		if a := e.Do("POST", "roles/bad", body); a.Err == nil || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%s: %v", body, a.Err)
		}
	}
	if a := e.Do("PATCH", "roles/none", `{}`); a.Status != 404 {
		t.Errorf("patch of none: %d", a.Status)
	}
	e.Must(t, 204, "DELETE", "roles/web", "")
	e.Must(t, 404, "GET", "roles/web", "")
}
