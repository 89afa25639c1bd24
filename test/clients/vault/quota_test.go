package vault

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

// TestQuotas sets a quota as Vault's programs do; the client waits as it is told, and
// comes again.
func TestQuotas(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	_, err := client.Logical().Write("sys/quotas/rate-limit/app", map[string]any{"path": "secret", "rate": 2, "interval": "1s", "type": "rate-limit"})
	must(t, err)
	q, err := client.Logical().Read("sys/quotas/rate-limit/app")
	must(t, err)
	equal(t, "rate", q.Data["rate"], any(json.Number("2")))
	equal(t, "type", q.Data["type"], any("rate-limit"))
	list, err := client.Logical().List("sys/quotas/rate-limit")
	must(t, err)
	equal(t, "keys", list.Data["keys"], any([]any{"app"}))
	config, err := client.Logical().Read("sys/quotas/config")
	must(t, err)
	equal(t, "headers", config.Data["enable_rate_limit_response_headers"], any(false))

	plain := as(t, client, client.Token())
	plain.SetMaxRetries(0)
	for range 2 {
		_, err = plain.Logical().Read("secret/data/none")
		must(t, err)
	}
	_, err = plain.Logical().Read("secret/data/none")
	refused(t, err, 429, "rate limit quota exceeded")
	waits := as(t, client, client.Token())
	waits.SetMaxRetries(3)
	waits.SetMinRetryWait(50 * time.Millisecond)
	_, err = waits.Logical().Read("secret/data/none")
	must(t, err)
	_, err = client.Logical().Delete("sys/quotas/rate-limit/app")
	must(t, err)
}

// TestLeaseCounts bounds what a database lends, as Vault's programs do.
func TestLeaseCounts(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	pg := postgrestest.Start(t)
	must(t, client.Sys().Mount("database", &api.MountInput{Type: "database"}))
	_, err := client.Logical().Write("database/config/orders", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": postgrestest.User, "password": postgrestest.Password,
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@127.0.0.1:%d/postgres?sslmode=disable", pg.Port),
	})
	must(t, err)
	_, err = client.Logical().Write("database/roles/reader", map[string]any{
		"db_name": "orders", "creation_statements": `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';`,
	})
	must(t, err)
	_, err = client.Logical().Write("sys/quotas/lease-count/orders", map[string]any{"path": "database", "max_leases": 2})
	must(t, err)
	plain := as(t, client, client.Token())
	plain.SetMaxRetries(0)
	first, err := plain.Logical().Read("database/creds/reader")
	must(t, err)
	_, err = plain.Logical().Read("database/creds/reader")
	must(t, err)
	_, err = plain.Logical().Read("database/creds/reader")
	refused(t, err, 429, "lease count quota exceeded")
	q, err := client.Logical().Read("sys/quotas/lease-count/orders")
	must(t, err)
	equal(t, "type", q.Data["type"], any("lease-count"))
	equal(t, "path", q.Data["path"], any("database/"))
	equal(t, "max_leases", q.Data["max_leases"], any(json.Number("2")))
	equal(t, "counter", q.Data["counter"], any(json.Number("2")))
	list, err := client.Logical().List("sys/quotas/lease-count")
	must(t, err)
	equal(t, "keys", list.Data["keys"], any([]any{"orders"}))
	must(t, client.Sys().RevokeWithOptions(&api.RevokeOptions{LeaseID: first.LeaseID, Sync: true}))
	_, err = plain.Logical().Read("database/creds/reader")
	must(t, err)
	_, err = client.Logical().Delete("sys/quotas/lease-count/orders")
	must(t, err)
	_, err = plain.Logical().Read("database/creds/reader")
	must(t, err)
}
