package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "someone"}, DNSNames: []string{"someone.test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func writePair(t *testing.T, dir string, pair tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func environ(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestFromEnvironment(t *testing.T) {
	c, err := FromEnvironment(environ(
		"VAULT_ADDR", "https://coffer:8200/", "COFFER_ADDR", "https://coffer:8200", "COFFER_CACERT", "ca", "VAULT_CACERT", "other", "VAULT_TOKEN", " hvs.t\n", "COFFER_CLIENT_TIMEOUT", "5", "VAULT_MAX_RETRIES", "0",
		"VAULT_NAMESPACE", "a", "VAULT_SKIP_VERIFY", "1", "VAULT_CAPATH", "dir", "VAULT_CACERT_BYTES", "pem", "COFFER_CLIENT_CERT", "c", "COFFER_CLIENT_KEY", "k",
		"VAULT_TLS_SERVER_NAME", "n", "COFFER_WRAP_TTL", "90s",
	))
	if err != nil || c.Address != "https://coffer:8200" || c.Token.Reveal() != "hvs.t" || c.Timeout != 5*time.Second || c.MaxRetries != -1 || c.Namespace != "a" || !c.SkipVerify ||
		c.CACert != "ca" || c.CAPath != "dir" || string(c.CACertPEM) != "pem" || c.ClientCert != "c" || c.ClientKey != "k" || c.ServerName != "n" || c.WrapTTL != 90*time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = FromEnvironment(environ("VAULT_ADDR", "https://vault:8200", "COFFER_ADDR", "https://coffer:8200", "VAULT_TOKEN", "hvs.t", "VAULT_SKIP_VERIFY", "1"))
	if err != nil || c.Token != "" || c.SkipVerify || c.Address != "https://coffer:8200" {
		t.Errorf("another server's token and settings are used: %+v, %v", c, err)
	}
	c, err = FromEnvironment(environ("VAULT_TOKEN", "hvs.t", "COFFER_ADDR", "https://coffer:8200"))
	if err != nil || c.Token != "hvs.t" {
		t.Errorf("one address: %+v, %v", c, err)
	}
	_, err = FromEnvironment(environ("VAULT_SKIP_VERIFY", "perhaps", "COFFER_CLIENT_TIMEOUT", "-1s", "COFFER_MAX_RETRIES", "many", "COFFER_WRAP_TTL", "x"))
	for _, name := range []string{"VAULT_SKIP_VERIFY", "COFFER_CLIENT_TIMEOUT", "COFFER_MAX_RETRIES", "COFFER_WRAP_TTL"} {
		if err == nil || !strings.Contains(err.Error(), name+": ") {
			t.Errorf("%s is not complained of: %v", name, err)
		}
	}
	if c, err = FromEnvironment(environ()); err == nil {
		c, err = c.filled()
	}
	if err != nil || c.Address != DefaultAddress || c.MaxRetries != DefaultRetries || c.Timeout != DefaultTimeout {
		t.Errorf("nothing set: %+v, %v", c, err)
	}
}

func TestProxies(t *testing.T) {
	request, err := http.NewRequest("GET", "https://coffer.test:8200/v1/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"none": {nil, ""}, "for everyone": {[]string{"HTTPS_PROXY", "http://proxy:1"}, "http://proxy:1"}, "in lower case": {[]string{"https_proxy", "http://proxy:1"}, "http://proxy:1"},
		"not for this": {[]string{"HTTPS_PROXY", "http://proxy:1", "NO_PROXY", "coffer.test"}, ""}, "for http": {[]string{"HTTP_PROXY", "http://proxy:1"}, ""},
		"for the client": {[]string{"COFFER_PROXY_ADDR", "http://mine:1", "HTTPS_PROXY", "http://proxy:1"}, "http://mine:1"}, "Vault's": {[]string{"VAULT_HTTP_PROXY", "http://mine:1"}, "http://mine:1"},
	} {
		config, err := FromEnvironment(environ(c.env...))
		if err != nil {
			t.Fatal(err)
		}
		got, err := config.Proxy(request)
		if err != nil || (got == nil) != (c.want == "") || got != nil && got.String() != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestConfigurationsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, selfSigned(t))
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "none"), []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"no scheme": {Address: "coffer:8200"}, "another scheme": {Address: "ftp://coffer"}, "a user": {Address: "https://u:hunter2@coffer"}, "a query": {Address: "https://coffer?x=1"},
		"no host": {Address: "https://"}, "no socket": {Address: "unix://"}, "no URL": {Address: "https://hunter2:%zz"}, "a broken token": {Token: "hunter2\n"},
		"no file": {CACert: filepath.Join(dir, "absent")}, "a file without certificates": {CACert: filepath.Join(dir, "none")}, "a directory without any": {CAPath: empty},
		"no directory": {CAPath: filepath.Join(dir, "absent")}, "no PEM": {CACertPEM: []byte("x")}, "no key": {ClientCert: filepath.Join(dir, "cert.pem")},
		"no certificate": {ClientKey: filepath.Join(dir, "key.pem")}, "the key for both": {ClientCert: filepath.Join(dir, "key.pem"), ClientKey: filepath.Join(dir, "key.pem")},
		"a negative wait": {RetryMin: -1}, "a negative size": {MaxResponse: -1}, "a socket over another transport": {Address: "unix:///s", Transport: http.DefaultTransport},
	} {
		if _, err := New(c); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := t.TempDir()
	writePair(t, good, selfSigned(t))
	if err := os.Remove(filepath.Join(good, "key.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{CAPath: good, CACert: filepath.Join(good, "cert.pem")}); err != nil {
		t.Errorf("a directory with a certificate: %v", err)
	}
}
