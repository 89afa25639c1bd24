package vault

import (
	"encoding/json"
	"testing"
	"time"
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
