package vault

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

func TestKV2Versions(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	ctx, kv := t.Context(), client.KVv2("secret")
	if _, err := kv.Get(ctx, "app/db"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("a secret that was never written: %v", err)
	}
	first, err := kv.Put(ctx, "app/db", map[string]any{"user": "app", "n": 1})
	must(t, err)
	if v := first.VersionMetadata; v.Version != 1 || v.Destroyed || !v.DeletionTime.IsZero() || time.Since(v.CreatedTime) > time.Minute || first.CustomMetadata != nil {
		t.Errorf("written: %+v", v)
	}
	_, err = kv.Put(ctx, "app/db", map[string]any{"user": "app", "n": 2})
	must(t, err)
	got, err := kv.Get(ctx, "app/db")
	must(t, err)
	equal(t, "data", got.Data, map[string]any{"user": "app", "n": json.Number("2")})
	equal(t, "version", got.VersionMetadata.Version, 2)
	equal(t, "lease", got.Raw.LeaseDuration, 0)
	old, err := kv.GetVersion(ctx, "app/db", 1)
	must(t, err)
	equal(t, "data of version 1", old.Data["n"], json.Number("1"))
	equal(t, "version", *old.VersionMetadata, *first.VersionMetadata)
	if _, err := kv.GetVersion(ctx, "app/db", 9); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("a version that is not there: %v", err)
	}

	must(t, kv.Delete(ctx, "app/db"))
	gone, err := kv.Get(ctx, "app/db")
	must(t, err)
	if gone.Data != nil || gone.VersionMetadata.Version != 2 || gone.VersionMetadata.DeletionTime.IsZero() || gone.VersionMetadata.Destroyed {
		t.Errorf("a deleted version: %+v %+v", gone.Data, gone.VersionMetadata)
	}
	must(t, kv.Undelete(ctx, "app/db", []int{2}))
	if back, err := kv.Get(ctx, "app/db"); err != nil || back.Data["n"] != json.Number("2") {
		t.Errorf("an undeleted version: %+v %v", back, err)
	}
	must(t, kv.DeleteVersions(ctx, "app/db", []int{1}))
	must(t, kv.DeleteVersions(ctx, "app/db", nil))
	if old, err := kv.GetVersion(ctx, "app/db", 1); err != nil || old.Data != nil {
		t.Errorf("a version that was deleted by number: %+v %v", old, err)
	}
	must(t, kv.Undelete(ctx, "app/db", []int{1}))

	rolled, err := kv.Rollback(ctx, "app/db", 1)
	must(t, err)
	equal(t, "the version that a roll back makes", rolled.VersionMetadata.Version, 3)
	if now, err := kv.Get(ctx, "app/db"); err != nil || now.Data["n"] != json.Number("1") {
		t.Errorf("rolled back: %+v %v", now, err)
	}
	must(t, kv.Destroy(ctx, "app/db", []int{2}))
	destroyed, err := kv.GetVersion(ctx, "app/db", 2)
	must(t, err)
	if destroyed.Data != nil || !destroyed.VersionMetadata.Destroyed || !destroyed.VersionMetadata.DeletionTime.IsZero() {
		t.Errorf("a destroyed version: %+v", destroyed.VersionMetadata)
	}
	if _, err := kv.Rollback(ctx, "app/db", 2); err == nil || !strings.Contains(err.Error(), "invalid rollback version 2") {
		t.Errorf("rolled back to a destroyed version: %v", err)
	}
	if _, err := kv.Rollback(ctx, "app/none", 1); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("rolled back what is not there: %v", err)
	}

	list, err := kv.GetVersionsAsList(ctx, "app/db")
	must(t, err)
	if len(list) != 3 || list[0].Version != 1 || !list[1].Destroyed || list[2].Version != 3 || list[2].Destroyed {
		t.Errorf("versions: %+v", list)
	}
	must(t, kv.DeleteMetadata(ctx, "app/db"))
	for _, err := range []error{last(kv.Get(ctx, "app/db")), last(kv.GetMetadata(ctx, "app/db")), last(kv.GetVersionsAsList(ctx, "app/db"))} {
		if !errors.Is(err, api.ErrSecretNotFound) {
			t.Errorf("after everything was deleted: %v", err)
		}
	}
	must(t, kv.Delete(ctx, "app/never"))
	must(t, kv.DeleteMetadata(ctx, "app/never"))
	must(t, kv.Undelete(ctx, "app/never", []int{1}))
	must(t, kv.Destroy(ctx, "app/never", []int{1}))
}

// last returns the error of a call.
func last[T any](_ T, err error) error { return err }

func TestKV2CheckAndSet(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	ctx, kv := t.Context(), client.KVv2("secret")
	const mismatch = "check-and-set parameter did not match the current version"
	_, err := kv.Put(ctx, "c", map[string]any{"a": "1"}, api.WithCheckAndSet(1))
	refused(t, err, 400, mismatch)
	_, err = kv.Put(ctx, "c", map[string]any{"a": "1"}, api.WithCheckAndSet(0))
	must(t, err)
	_, err = kv.Put(ctx, "c", map[string]any{"a": "2"}, api.WithCheckAndSet(0))
	refused(t, err, 400, mismatch)
	_, err = kv.Put(ctx, "c", map[string]any{"a": "2"}, api.WithOption("cas", 1))
	must(t, err)
	_, err = kv.Put(ctx, "c", map[string]any{"a": "3"}, api.WithOption("cas", "2"))
	must(t, err)
	_, err = kv.Put(ctx, "c", map[string]any{"a": "3"}, api.WithOption("cas", "x"))
	refused(t, err, 400, "not a whole number")
	must(t, kv.PutMetadata(ctx, "c", api.KVMetadataPutInput{CASRequired: true}))
	_, err = kv.Put(ctx, "c", map[string]any{"a": "4"})
	refused(t, err, 400, "check-and-set parameter required for this call")
	_, err = kv.Patch(ctx, "c", map[string]any{"b": "1"}, api.WithCheckAndSet(2))
	refused(t, err, 400, mismatch)
	done, err := kv.Patch(ctx, "c", map[string]any{"b": "1"}, api.WithCheckAndSet(3))
	must(t, err)
	equal(t, "version", done.VersionMetadata.Version, 4)
	_, err = kv.Put(ctx, "c", nil)
	refused(t, err, 400, "no data provided")
}

func TestKV2Patch(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	ctx, kv := t.Context(), client.KVv2("secret")
	for _, method := range [][]api.KVOption{nil, {api.WithMergeMethod(api.KVMergeMethodPatch)}, {api.WithMergeMethod(api.KVMergeMethodReadWrite)}} {
		if _, err := kv.Patch(ctx, "none", map[string]any{"a": "b"}, method...); !errors.Is(err, api.ErrSecretNotFound) {
			t.Errorf("what is not there was patched: %v", err)
		}
		must(t, kv.DeleteMetadata(ctx, "p"))
		_, err := kv.Put(ctx, "p", map[string]any{"a": "1", "b": map[string]any{"c": "2"}})
		must(t, err)
		patched, err := kv.Patch(ctx, "p", map[string]any{"d": "3"}, method...)
		must(t, err)
		equal(t, "version", patched.VersionMetadata.Version, 2)
		got, err := kv.Get(ctx, "p")
		must(t, err)
		equal(t, "patched data", got.Data, map[string]any{"a": "1", "b": map[string]any{"c": "2"}, "d": "3"})
	}
	// a null takes a key away, and what is below merges
	_, err := kv.Patch(ctx, "p", map[string]any{"a": nil, "b": map[string]any{"e": "4"}}, api.WithMergeMethod(api.KVMergeMethodPatch))
	must(t, err)
	got, err := kv.Get(ctx, "p")
	must(t, err)
	equal(t, "merged data", got.Data, map[string]any{"b": map[string]any{"c": "2", "e": "4"}, "d": "3"})
	must(t, kv.Delete(ctx, "p"))
	if _, err := kv.Patch(ctx, "p", map[string]any{"a": "b"}); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("a deleted version was patched: %v", err)
	}
	reader := user(t, client, "reader", `path "secret/data/*" { capabilities = ["read", "update", "create"] }`)
	_, err = reader.KVv2("secret").Patch(ctx, "p", map[string]any{"a": "b"})
	refused(t, err, 403, "permission denied")
}

func TestKV2Metadata(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	ctx, kv := t.Context(), client.KVv2("secret")
	must(t, kv.PutMetadata(ctx, "m", api.KVMetadataPutInput{
		MaxVersions: 2, DeleteVersionAfter: 3*time.Hour + 25*time.Minute + 19*time.Second, CustomMetadata: map[string]any{"owner": "payments"},
	}))
	if _, err := kv.Get(ctx, "m"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("metadata without a version: %v", err)
	}
	for range 3 {
		_, err := kv.Put(ctx, "m", map[string]any{"a": "b"})
		must(t, err)
	}
	m, err := kv.GetMetadata(ctx, "m")
	must(t, err)
	if m.MaxVersions != 2 || m.DeleteVersionAfter != 3*time.Hour+25*time.Minute+19*time.Second || m.CASRequired || m.CurrentVersion != 3 || m.OldestVersion != 2 ||
		len(m.Versions) != 2 || m.Versions["3"].Version != 3 || m.CreatedTime.IsZero() || m.UpdatedTime.Before(m.CreatedTime) {
		t.Errorf("metadata: %+v", m)
	}
	if left := time.Until(m.Versions["3"].DeletionTime); left < 3*time.Hour || left > 4*time.Hour {
		t.Errorf("version 3 is deleted in %v", left)
	}
	equal(t, "custom metadata", m.CustomMetadata, map[string]any{"owner": "payments"})
	got, err := kv.Get(ctx, "m")
	must(t, err)
	equal(t, "custom metadata of a read", got.CustomMetadata, map[string]any{"owner": "payments"})

	required, none := true, time.Duration(0)
	must(t, kv.PatchMetadata(ctx, "m", api.KVMetadataPatchInput{CASRequired: &required, DeleteVersionAfter: &none, CustomMetadata: map[string]any{"tier": "1"}}))
	m, err = kv.GetMetadata(ctx, "m")
	must(t, err)
	if !m.CASRequired || m.MaxVersions != 2 || m.DeleteVersionAfter != 0 {
		t.Errorf("patched metadata: %+v", m)
	}
	equal(t, "patched custom metadata", m.CustomMetadata, map[string]any{"owner": "payments", "tier": "1"})
	must(t, kv.PatchMetadata(ctx, "m", api.KVMetadataPatchInput{CustomMetadata: map[string]any{}}))
	must(t, kv.PutMetadata(ctx, "m", api.KVMetadataPutInput{}))
	m, err = kv.GetMetadata(ctx, "m")
	must(t, err)
	if m.CASRequired || m.MaxVersions != 0 || m.CustomMetadata != nil {
		t.Errorf("metadata set back: %+v", m)
	}
	refused(t, kv.PatchMetadata(ctx, "none", api.KVMetadataPatchInput{CASRequired: &required}), 404, "")
	refused(t, kv.PutMetadata(ctx, "m", api.KVMetadataPutInput{CustomMetadata: map[string]any{"k": strings.Repeat("x", 513)}}), 400, "value")
	_, err = client.Logical().Write("secret/metadata/m", map[string]any{"delete_version_after": "soon"})
	refused(t, err, 400, "delete_version_after")
}

func TestKV2Settings(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	logical := client.Logical()
	_, err := logical.Write("secret/config", map[string]any{"max_versions": 4, "cas_required": true, "delete_version_after": "30m"})
	must(t, err)
	got, err := logical.Read("secret/config")
	must(t, err)
	equal(t, "settings", got.Data, map[string]any{"max_versions": json.Number("4"), "cas_required": true, "delete_version_after": "30m0s", "destroy_deleted_after": "0s"})
	_, err = client.KVv2("secret").Put(t.Context(), "x", map[string]any{"a": "b"})
	refused(t, err, 400, "check-and-set parameter required for this call")
	_, err = client.KVv2("secret").Put(t.Context(), "team/x", map[string]any{"a": map[string]any{"b": "c"}}, api.WithCheckAndSet(0))
	must(t, err)
	listed, err := logical.List("secret/metadata")
	must(t, err)
	equal(t, "keys", listed.Data["keys"], []any{"team/"})
	keys, err := logical.ReadWithData("secret/subkeys/team/x", map[string][]string{"depth": {"1"}, "version": {"1"}})
	must(t, err)
	equal(t, "subkeys", keys.Data["subkeys"], map[string]any{"a": nil})
	// a read as version 1 would ask
	old, err := logical.Read("secret/team/x")
	if old != nil && (err != nil || len(old.Warnings) == 0) {
		t.Errorf("a path of version 1: %+v %v", old, err)
	}
}
