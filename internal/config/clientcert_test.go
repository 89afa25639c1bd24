package config

import (
	"crypto/tls"
	"fmt"
	"testing"
)

// A TLS listener asks for client certificates unless it is told not to, and
// verifies them where it knows by whom they are issued.
func TestClientCertificates(t *testing.T) {
	pem := put(t, "any.pem", "")
	files := fmt.Sprintf("tls_cert_file = %q\n tls_key_file = %q\n", pem, pem)
	ca := files + fmt.Sprintf("tls_client_ca_file = %q\n", pem)
	for more, want := range map[string]tls.ClientAuthType{
		"": tls.RequestClientCert, files: tls.RequestClientCert,
		"tls_disable_client_certs = false":        tls.RequestClientCert,
		"tls_disable_client_certs = true":         tls.NoClientCert,
		"tls_disable = true":                      tls.NoClientCert,
		files + "tls_disable_client_certs = true": tls.NoClientCert,
		ca: tls.VerifyClientCertIfGiven,
		ca + "tls_require_and_verify_client_cert = false": tls.VerifyClientCertIfGiven,
		ca + "tls_require_and_verify_client_cert = true":  tls.RequireAndVerifyClientCert,
	} {
		c := load(t, put(t, "c.hcl", storage+"listener \"tcp\" {\n"+more+"\n}"))
		if got := c.Listeners[0].TLS.Auth; got != want {
			t.Errorf("%q: %v, want %v", more, got, want)
		}
	}
	if c := load(t, put(t, "c.hcl", storage)); c.Listeners[0].TLS.Auth != tls.RequestClientCert {
		t.Errorf("without a listener: %v", c.Listeners[0].TLS.Auth)
	}
}
