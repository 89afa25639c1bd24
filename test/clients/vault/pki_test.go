package vault

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/crypto/ocsp"
)

func certificate(t testing.TB, text any) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text.(string)))
	if block == nil {
		t.Fatalf("no PEM: %v", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return c
}

// TestPKI goes through the life of an authority and its certificates.
func TestPKI(t *testing.T) {
	t.Parallel()
	s, client := start(t)
	l := client.Logical()
	must(t, client.Sys().Mount("pki", &api.MountInput{Type: "pki", Config: api.MountConfigInput{MaxLeaseTTL: "87600h"}}))
	_, err := l.Write("pki/root/generate/internal", map[string]any{"key_type": "ec"})
	refused(t, err, 400, "common_name")
	root, err := l.Write("pki/root/generate/internal", map[string]any{"common_name": "Root", "key_type": "ec", "ttl": "87600h", "issuer_name": "root"})
	must(t, err)
	equal(t, "private_key", root.Data["private_key"], nil)
	ca := certificate(t, root.Data["certificate"])
	issuers, err := l.List("pki/issuers")
	must(t, err)
	equal(t, "issuers", issuers.Data["keys"], []any{root.Data["issuer_id"]})
	info := issuers.Data["key_info"].(map[string]any)[root.Data["issuer_id"].(string)].(map[string]any)
	equal(t, "issuer_name", info["issuer_name"], "root")
	_, err = l.Write("pki/config/urls", map[string]any{"issuing_certificates": s.URL() + "/v1/pki/ca", "crl_distribution_points": []string{s.URL() + "/v1/pki/crl"}})
	must(t, err)
	urls, err := l.Read("pki/config/urls")
	must(t, err)
	equal(t, "crl_distribution_points", urls.Data["crl_distribution_points"], []any{s.URL() + "/v1/pki/crl"})

	_, err = l.Write("pki/roles/web", map[string]any{"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec", "max_ttl": "72h", "generate_lease": true})
	must(t, err)
	role, err := l.Read("pki/roles/web")
	must(t, err)
	equal(t, "max_ttl", role.Data["max_ttl"], json.Number("259200"))
	equal(t, "allowed_domains", role.Data["allowed_domains"], []any{"example.com"})
	roles, err := l.List("pki/roles")
	must(t, err)
	equal(t, "roles", roles.Data["keys"], []any{"web"})

	web := user(t, client, "web", `path "pki/issue/web" { capabilities = ["update"] }`)
	_, err = web.Logical().Write("pki/issue/web", map[string]any{"common_name": "evil.com"})
	refused(t, err, 400, "common name evil.com not allowed by this role")
	_, err = web.Logical().Write("pki/issue/other", map[string]any{"common_name": "a.example.com"})
	refused(t, err, 403, "permission denied")
	_, err = l.Write("pki/issue/other", map[string]any{"common_name": "a.example.com"})
	refused(t, err, 400, "unknown role: other")
	made, err := web.Logical().Write("pki/issue/web", map[string]any{"common_name": "a.example.com", "ttl": "1h"})
	must(t, err)
	if made.LeaseID == "" || made.Renewable || !strings.HasPrefix(made.LeaseID, "pki/issue/web/") {
		t.Errorf("lease %q", made.LeaseID)
	}
	leaf := certificate(t, made.Data["certificate"])
	must(t, leaf.CheckSignatureFrom(ca))
	equal(t, "private_key_type", made.Data["private_key_type"], "ec")
	equal(t, "ca_chain", made.Data["ca_chain"], []any{root.Data["certificate"]})
	equal(t, "AIA", leaf.CRLDistributionPoints, []string{s.URL() + "/v1/pki/crl"})

	// What is public needs no token, and is no JSON.
	get := func(path string) []byte {
		t.Helper()
		answer, err := s.HTTP().Get(s.URL() + "/v1/pki/" + path)
		must(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		must(t, err)
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, answer.StatusCode, body)
		}
		return body
	}
	equal(t, "ca", get("ca"), ca.Raw)
	equal(t, "ca/pem", certificate(t, string(get("ca/pem"))).Raw, ca.Raw)
	ask := func() *ocsp.Response {
		t.Helper()
		request, err := ocsp.CreateRequest(leaf, ca, nil)
		must(t, err)
		answer, err := s.HTTP().Post(s.URL()+"/v1/pki/ocsp", "application/ocsp-request", bytes.NewReader(request))
		must(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		must(t, err)
		equal(t, "content type", answer.Header.Get("Content-Type"), "application/ocsp-response")
		out, err := ocsp.ParseResponseForCert(body, leaf, ca)
		must(t, err)
		return out
	}
	equal(t, "status", ask().Status, ocsp.Good)
	must(t, client.Sys().Revoke(made.LeaseID))
	for end := time.Now().Add(10 * time.Second); ask().Status != ocsp.Revoked; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the end of the lease revokes nothing")
		}
	}
	list, err := x509.ParseRevocationList(get("crl"))
	must(t, err)
	must(t, list.CheckSignatureFrom(ca))
	equal(t, "entries", len(list.RevokedCertificateEntries), 1)
	read, err := l.Read("pki/cert/" + made.Data["serial_number"].(string))
	must(t, err)
	if read.Data["revocation_time"] == json.Number("0") {
		t.Error("it is not revoked when it is read")
	}
	revoked, err := l.Write("pki/revoke", map[string]any{"serial_number": made.Data["serial_number"]})
	must(t, err)
	equal(t, "state", revoked.Data["state"], "revoked")
	rotated, err := l.Read("pki/crl/rotate")
	must(t, err)
	equal(t, "success", rotated.Data["success"], true)

	started, err := l.Write("pki/tidy", map[string]any{"tidy_cert_store": true})
	must(t, err)
	equal(t, "warnings", len(started.Warnings), 1)
	config, err := l.Write("pki/config/crl", map[string]any{"expiry": "48h"})
	must(t, err)
	equal(t, "expiry", config.Data["expiry"], "48h")
}
