package vault

import (
	"context"
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
	"github.com/cofferhq/coffer/internal/auth/spiffe/spiffetest"
)

// with returns Vault's client with a client certificate.
func with(t testing.TB, s *apptest.Server, pair tls.Certificate) *api.Client {
	t.Helper()
	certFile, keyFile := certtest.Files(t, pair)
	config := api.DefaultConfig()
	must(t, config.Error)
	config.Address, config.MaxRetries, config.Timeout = s.URL(), 0, 20*time.Second
	must(t, config.ConfigureTLS(&api.TLSConfig{CACert: s.CAFile, ClientCert: certFile, ClientKey: keyFile}))
	t.Cleanup(config.HttpClient.Transport.(*http.Transport).CloseIdleConnections)
	client, err := api.NewClient(config)
	must(t, err)
	return client
}

// TestCert logs in with the certificate that the client's settings name.
func TestCert(t *testing.T) {
	t.Parallel()
	s, client := start(t)
	must(t, client.Sys().EnableAuthWithOptions("cert", &api.EnableAuthOptions{Type: "cert"}))
	ca := certtest.Root(t, "ca")
	_, err := client.Logical().Write("auth/cert/certs/web", map[string]any{
		"certificate": certtest.PEM(ca.Cert), "allowed_common_names": []string{"web-*"}, "token_policies": "default", "token_ttl": 1200,
	})
	must(t, err)
	role, err := client.Logical().Read("auth/cert/certs/web")
	must(t, err)
	equal(t, "allowed_common_names", role.Data["allowed_common_names"], []any{"web-*"})
	equal(t, "display_name", role.Data["display_name"], "web")

	pair := ca.Client(t, "web-1")
	mine := with(t, s, pair)
	login := func(c *api.Client, data map[string]any) (*api.Secret, error) {
		return c.Logical().WriteWithContext(context.Background(), "auth/cert/login", data)
	}
	in, err := login(mine, map[string]any{"name": "web"})
	must(t, err)
	equal(t, "policies", in.Auth.Policies, []string{"default"})
	equal(t, "ttl", in.Auth.LeaseDuration, 1200)
	equal(t, "serial number", in.Auth.Metadata["serial_number"], pair.Leaf.SerialNumber.String())
	equal(t, "role", in.Auth.Metadata["cert_name"], "web")
	mine.SetToken(in.Auth.ClientToken)
	self, err := mine.Auth().Token().LookupSelf()
	must(t, err)
	equal(t, "display name", self.Data["display_name"], "cert-web")
	_, err = mine.Auth().Token().RenewSelf(60)
	must(t, err)

	// The token alone is not enough to renew it.
	_, err = as(t, client, in.Auth.ClientToken).Auth().Token().RenewSelf(60)
	refused(t, err, 400, "client certificate must be supplied")
	other := with(t, s, ca.Client(t, "web-2"))
	other.SetToken(in.Auth.ClientToken)
	_, err = other.Auth().Token().RenewSelf(60)
	refused(t, err, 403, "client identity during renewal not matching")

	_, err = login(with(t, s, ca.Client(t, "db-1")), nil)
	refused(t, err, 400, "no chain matching all constraints could be found")
	_, err = login(with(t, s, certtest.Root(t, "ca").Client(t, "web-1")), nil)
	refused(t, err, 400, "invalid certificate or no client certificate supplied")
	_, err = login(client, nil)
	refused(t, err, 400, "client certificate must be supplied")
}

// TestSPIFFE logs a workload in by its X.509-SVID and by a JWT-SVID.
func TestSPIFFE(t *testing.T) {
	t.Parallel()
	s, client := start(t)
	domain := spiffetest.New(t, "example.org")
	must(t, client.Sys().EnableAuthWithOptions("spiffe", &api.EnableAuthOptions{Type: "spiffe"}))
	_, err := client.Logical().Write("auth/spiffe/config", map[string]any{
		"trust_domain": "spiffe://example.org", "profile": "static", "bundle": domain.Bundle(t, 1, 0), "audience": []string{"vault"},
	})
	must(t, err)
	_, err = client.Logical().Write("auth/spiffe/role/web", map[string]any{"workload_id_patterns": []string{"/env/+/svc/web"}, "token_policies": "default"})
	must(t, err)
	in, err := with(t, s, domain.SVID(t, "/env/prod/svc/web")).Logical().Write("auth/spiffe/login", map[string]any{"role": "web", "type": "cert"})
	must(t, err)
	equal(t, "workload", in.Auth.Metadata["workload_id"], "env/prod/svc/web")
	stranger := as(t, client, "")
	in, err = stranger.Logical().Write("auth/spiffe/login", map[string]any{"role": "web", "jwt": domain.JWT(t, "/env/test/svc/web", "vault")})
	must(t, err)
	equal(t, "policies", in.Auth.Policies, []string{"default"})
	_, err = as(t, client, in.Auth.ClientToken).Auth().Token().RenewSelf(60)
	must(t, err)
	stranger.AddHeader("Authorization", "Bearer "+domain.JWT(t, "/env/test/svc/web", "vault"))
	_, err = stranger.Logical().Write("auth/spiffe/login", map[string]any{"role": "web"})
	must(t, err)
	_, err = with(t, s, domain.SVID(t, "/env/prod/svc/db")).Logical().Write("auth/spiffe/login", map[string]any{"role": "web"})
	refused(t, err, 403, "permission denied")
}
