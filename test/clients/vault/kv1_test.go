package vault

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/hashicorp/vault/api"
)

func TestKV1(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	ctx := t.Context()
	must(t, client.Sys().Mount("plain", &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}))
	kv := client.KVv1("plain")
	if _, err := kv.Get(ctx, "app/db"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("a secret that was never written: %v", err)
	}
	written := map[string]any{"user": "app", "port": 5432, "tags": []string{"a", "b"}, "deep": map[string]any{"null": nil, "float": 1.5}}
	must(t, kv.Put(ctx, "app/db", written))
	got, err := kv.Get(ctx, "app/db")
	must(t, err)
	equal(t, "data", got.Data, map[string]any{
		"user": "app", "port": json.Number("5432"), "tags": []any{"a", "b"},
		"deep": map[string]any{"null": nil, "float": json.Number("1.5")},
	})
	if got.VersionMetadata != nil || got.Raw.Renewable || got.Raw.LeaseID != "" || got.Raw.LeaseDuration != 2764800 {
		t.Errorf("raw: %+v", got.Raw)
	}
	must(t, kv.Put(ctx, "app/db", map[string]any{"user": "other", "ttl": "90s"}))
	got, err = kv.Get(ctx, "app/db")
	must(t, err)
	equal(t, "replaced data", got.Data, map[string]any{"user": "other", "ttl": "90s"})
	equal(t, "a lease that the secret states", got.Raw.LeaseDuration, 90)

	must(t, kv.Put(ctx, "app/cache", map[string]any{"a": "b"}))
	must(t, kv.Put(ctx, "app", map[string]any{"a": "b"}))
	for path, want := range map[string][]any{"plain": {"app", "app/"}, "plain/app": {"cache", "db"}, "plain/app/": {"cache", "db"}} {
		listed, err := client.Logical().List(path)
		must(t, err)
		equal(t, path, listed.Data["keys"], want)
	}
	if listed, err := client.Logical().List("plain/none"); listed != nil || err != nil {
		t.Errorf("a folder that is not there: %v %v", listed, err)
	}
	must(t, kv.Delete(ctx, "app/db"))
	must(t, kv.Delete(ctx, "app/db"))
	if _, err := kv.Get(ctx, "app/db"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("a deleted secret: %v", err)
	}
	_, err = client.Logical().Write("plain/app/db", nil)
	refused(t, err, 400, "missing data fields")
	_, err = user(t, client, "none", `path "other" { capabilities = ["read"] }`).KVv1("plain").Get(ctx, "app")
	refused(t, err, 403, "permission denied")
}
