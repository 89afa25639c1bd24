// Package openbao runs OpenBao's own Go client, unmodified, against whole
// servers: what both clients do alike is tested with Vault's, here is where
// this one goes its own ways (listing by pages, helpers that list, other paths
// for the same thing).
package openbao

import (
	"encoding/base64"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/api/v2"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

func connect(t testing.TB, s *apptest.Server) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	must(t, config.Error)
	config.Address, config.MaxRetries, config.Timeout = s.URL(), 0, 20*time.Second
	must(t, config.ConfigureTLS(&api.TLSConfig{CACert: s.CAFile}))
	t.Cleanup(config.HttpClient.Transport.(*http.Transport).CloseIdleConnections)
	client, err := api.NewClient(config)
	must(t, err)
	client.SetToken(s.Root)
	return client
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %#v, want %#v", what, got, want)
	}
}

func refused(t testing.TB, err error, status int, text string) {
	t.Helper()
	var answer *api.ResponseError
	if !errors.As(err, &answer) || answer.StatusCode != status || !strings.Contains(strings.Join(answer.Errors, "\n"), text) {
		t.Errorf("got %v, want status %d and %q", err, status, text)
	}
}

func TestKV(t *testing.T) {
	t.Parallel()
	client := connect(t, apptest.Start(t, ""))
	ctx, kv := t.Context(), client.KVv2("secret")
	if _, err := kv.Get(ctx, "app/db"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Errorf("a secret that was never written: %v", err)
	}
	_, err := kv.Put(ctx, "app/db", map[string]any{"a": "1"}, api.WithCheckAndSet(0))
	must(t, err)
	_, err = kv.Put(ctx, "app/db", map[string]any{"a": "2"}, api.WithCheckAndSet(0))
	refused(t, err, 400, "check-and-set parameter did not match the current version")
	for _, method := range []string{api.KVMergeMethodPatch, api.KVMergeMethodReadWrite} {
		_, err = kv.Patch(ctx, "app/db", map[string]any{method: "x"}, api.WithMergeMethod(method))
		must(t, err)
	}
	got, err := kv.Get(ctx, "app/db")
	must(t, err)
	equal(t, "data", got.Data, map[string]any{"a": "1", api.KVMergeMethodPatch: "x", api.KVMergeMethodReadWrite: "x"})
	_, err = kv.Rollback(ctx, "app/db", 1)
	must(t, err)
	must(t, kv.Delete(ctx, "app/db"))
	must(t, kv.Undelete(ctx, "app/db", []int{4}))
	must(t, kv.Destroy(ctx, "app/db", []int{2}))
	list, err := kv.GetVersionsAsList(ctx, "app/db")
	if err != nil || len(list) != 4 || !list[1].Destroyed {
		t.Errorf("versions: %+v %v", list, err)
	}
	must(t, kv.PutMetadata(ctx, "app/db", api.KVMetadataPutInput{MaxVersions: 9, CustomMetadata: map[string]any{"owner": "payments"}}))
	must(t, kv.PatchMetadata(ctx, "app/db", api.KVMetadataPatchInput{CustomMetadata: map[string]any{}}))
	if m, err := kv.GetMetadata(ctx, "app/db"); err != nil || m.MaxVersions != 9 || m.CustomMetadata != nil {
		t.Errorf("metadata: %+v %v", m, err)
	}
	keys, err := kv.List(ctx, "app")
	must(t, err)
	equal(t, "keys", keys.Keys, []string{"db"})

	must(t, client.Sys().Mount("plain", &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}))
	plain := client.KVv1("plain")
	must(t, plain.Put(ctx, "a", map[string]any{"b": "c"}))
	must(t, plain.Put(ctx, "d/e", map[string]any{"b": "c"}))
	if s, err := plain.Get(ctx, "a"); err != nil || s.Data["b"] != "c" {
		t.Errorf("kv of version 1: %+v %v", s, err)
	}
	keys, err = plain.List(ctx, "")
	must(t, err)
	equal(t, "keys", keys.Keys, []string{"a", "d/"})
	must(t, plain.Delete(ctx, "a"))
}

func TestListsByPages(t *testing.T) {
	t.Parallel()
	client := connect(t, apptest.Start(t, ""))
	want := []any{"a", "b", "c/", "d", "e"}
	for _, name := range []string{"a", "b", "c/x", "c/y", "d", "e"} {
		_, err := client.KVv2("secret").Put(t.Context(), name, map[string]any{})
		must(t, err)
	}
	var got []any
	for after := ""; ; {
		page, err := client.Logical().ListPage("secret/metadata", after, 2)
		must(t, err)
		if page == nil {
			break
		}
		keys := page.Data["keys"].([]any)
		if len(keys) > 2 {
			t.Fatalf("a page of %d", len(keys))
		}
		got = append(got, keys...)
		after = keys[len(keys)-1].(string)
	}
	equal(t, "all pages", got, want)
}

func TestTokensAndWrapping(t *testing.T) {
	t.Parallel()
	client := connect(t, apptest.Start(t, ""))
	tokens := client.Auth().Token()
	made, err := tokens.Create(&api.TokenCreateRequest{Policies: []string{"default"}, TTL: "1h"})
	must(t, err)
	self, err := tokens.Lookup(made.Auth.ClientToken)
	must(t, err)
	if ttl, err := self.TokenTTL(); err != nil || ttl < 3500*time.Second {
		t.Errorf("ttl: %v %v", ttl, err)
	}
	if s, err := tokens.RenewTokenAsSelf(made.Auth.ClientToken, 60); err != nil || s.Auth.LeaseDuration != 60 {
		t.Errorf("renewed: %+v %v", s, err)
	}
	must(t, tokens.RevokeAccessor(made.Auth.Accessor))
	_, err = tokens.Lookup(made.Auth.ClientToken)
	refused(t, err, 403, "bad token")
	client.SetWrappingLookupFunc(func(string, string) string { return "60" })
	wrapped, err := tokens.Create(&api.TokenCreateRequest{Policies: []string{"default"}})
	must(t, err)
	client.SetWrappingLookupFunc(nil)
	opened, err := client.Logical().Unwrap(wrapped.WrapInfo.Token)
	must(t, err)
	equal(t, "accessor", opened.Auth.Accessor, wrapped.WrapInfo.WrappedAccessor)
	_, err = client.Logical().Unwrap(wrapped.WrapInfo.Token)
	refused(t, err, 400, "wrapping token is not valid or does not exist")
}

func TestLifetimeWatcher(t *testing.T) {
	t.Parallel()
	client := connect(t, apptest.Start(t, ""))
	made, err := client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"default"}, Period: "4s"})
	must(t, err)
	w, err := client.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: made})
	must(t, err)
	go w.Start()
	t.Cleanup(w.Stop)
	end := time.After(20 * time.Second)
	for renewals := 0; renewals < 3; {
		select {
		case <-w.RenewCh():
			renewals++
		case err := <-w.DoneCh():
			t.Fatalf("it ended after %d renewals: %v", renewals, err)
		case <-end:
			t.Fatalf("%d renewals in 20 seconds", renewals)
		}
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	s := apptest.Uninitialized(t, `seal "shamir" {}`)
	client := connect(t, s)
	c := client.Sys()
	made, err := c.Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	must(t, err)
	if status, err := c.Unseal(made.KeysB64[0]); err != nil || status.Sealed {
		t.Fatalf("unseal: %+v %v", status, err)
	}
	client.SetToken(made.RootToken)
	must(t, c.RotateKeyring())
	if k, err := c.KeyStatus(); err != nil || k.Term != 2 {
		t.Errorf("key status: %+v %v", k, err)
	}
	root, err := c.GenerateRootInit("", "")
	must(t, err)
	otp := root.OTP
	root, err = c.GenerateRootUpdate(made.KeysB64[0], root.Nonce)
	must(t, err)
	text, err := base64.RawStdEncoding.DecodeString(root.EncodedToken)
	must(t, err)
	for i := range text {
		text[i] ^= otp[i]
	}
	client.SetToken(string(text))
	must(t, c.Mount("team", &api.MountInput{Type: "kv-v2"}))
	if m, err := c.MountInfo("team"); err != nil || m.Options["version"] != "2" {
		t.Errorf("mount: %+v %v", m, err)
	}
	must(t, c.TuneMount("team", api.MountConfigInput{MaxLeaseTTL: "1h"}))
	must(t, c.Remount("team", "crew"))
	must(t, c.Unmount("crew"))
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	client := connect(t, apptest.Start(t, ""))
	sys := client.Sys()
	made, err := sys.CreateNamespace("team", &api.CreateNamespaceInput{CustomMetadata: map[string]string{"owner": "web"}})
	must(t, err)
	if made.ID == "" || made.UUID == "" || made.Path != "team/" {
		t.Errorf("made: %+v", made)
	}
	inner := client.WithNamespace("team")
	_, err = inner.Sys().CreateNamespace("dev", nil)
	must(t, err)
	must(t, inner.Sys().Mount("kv", &api.MountInput{Type: "kv-v2"}))
	_, err = inner.KVv2("kv").Put(t.Context(), "app", map[string]any{"k": "inside"})
	must(t, err)
	_, err = client.KVv2("kv").Get(t.Context(), "app")
	if !errors.Is(err, api.ErrSecretNotFound) {
		refused(t, err, 404, "no handler for route")
	}
	patched, err := sys.PatchNamespace("team", &api.PatchNamespaceInput{CustomMetadata: map[string]any{"owner": nil, "floor": "2"}})
	must(t, err)
	equal(t, "metadata", patched.CustomMetadata, map[string]string{"floor": "2"})
	read, err := sys.ReadNamespace("team")
	must(t, err)
	equal(t, "id", read.ID, made.ID)
	list, err := sys.ListNamespaces()
	must(t, err)
	if len(list) != 1 || list["team/"] == nil || list["team/"].ID != made.ID {
		t.Errorf("list: %+v", list)
	}
	_, err = sys.DeleteNamespace("team")
	refused(t, err, 400, "team/dev")
	deleted, err := inner.Sys().DeleteNamespace("dev")
	must(t, err)
	equal(t, "status", deleted.Status, "in-progress")
	_, err = sys.DeleteNamespace("team")
	must(t, err)
	_, err = inner.KVv2("kv").Get(t.Context(), "app")
	if err == nil {
		t.Error("a secret of a deleted namespace is read")
	}
}

// What OpenBao has and Coffer has not is refused with words.
func TestRefusals(t *testing.T) {
	t.Parallel()
	client := connect(t, apptest.Start(t, ""))
	_, err := client.Sys().RotateRootInit(&api.RotateInitRequest{})
	refused(t, err, 404, "unsupported path")
	_, err = client.KVv2("secret").Put(t.Context(), "a/b", map[string]any{})
	must(t, err)
	if keys, err := client.KVv2("secret").Scan(t.Context(), ""); err == nil && keys != nil {
		t.Errorf("a scan is answered: %+v", keys.Keys)
	}
	if keys, err := client.KVv2("secret").ListWithDetails(t.Context(), ""); err == nil && keys != nil {
		t.Errorf("a list with details is answered: %+v", keys.Keys)
	}
}
