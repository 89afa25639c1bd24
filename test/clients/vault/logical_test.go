package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
)

func TestLogical(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	l := client.Logical()
	if s, err := l.Read("secret/data/none"); s != nil || err != nil {
		t.Errorf("what is not there: %+v %v", s, err)
	}
	for n := range 2 {
		_, err := l.Write("secret/data/a", map[string]any{"data": map[string]any{"n": n, "big": json.Number("9007199254740993")}})
		must(t, err)
	}
	s, err := l.ReadWithData("secret/data/a", map[string][]string{"version": {"1"}})
	must(t, err)
	equal(t, "data", s.Data["data"], map[string]any{"n": json.Number("0"), "big": json.Number("9007199254740993")})
	if s.RequestID == "" || s.MountType != "kv" {
		t.Errorf("envelope: %+v", s)
	}
	_, err = l.JSONMergePatch(t.Context(), "secret/data/a", map[string]any{"data": map[string]any{"n": nil}})
	must(t, err)
	_, err = l.WriteBytes("secret/data/b", []byte(`{"data":{"x":"y"}}`))
	must(t, err)
	listed, err := l.List("secret/metadata/")
	must(t, err)
	equal(t, "keys", listed.Data["keys"], []any{"a", "b"})
	if s, err := l.Delete("secret/data/a"); s != nil || err != nil {
		t.Errorf("delete: %+v %v", s, err)
	}
	deleted, err := l.Read("secret/data/a")
	must(t, err)
	equal(t, "data of a deleted version", deleted.Data["data"], nil)
	s, err = l.Write("secret/data/c", map[string]any{"data": map[string]any{}, "strange": 1})
	if err != nil || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "strange") {
		t.Errorf("an unknown parameter: %+v %v", s, err)
	}
	if s, err := l.Write("sys/rotate", nil); s != nil || err != nil {
		t.Errorf("a write of nothing: %+v %v", s, err)
	}
	_, err = l.WriteBytes("secret/data/b", []byte(`{"data":`))
	refused(t, err, 400, "not valid JSON")
}

func TestErrors(t *testing.T) {
	t.Parallel()
	s, client := start(t)
	l := client.Logical()
	_, err := as(t, client, "").Logical().Read("secret/data/a")
	refused(t, err, 403, "permission denied")
	_, err = as(t, client, "hvs.made-up").Logical().Read("secret/data/a")
	refused(t, err, 403, "permission denied")
	_, err = l.Write("none/at/all", map[string]any{"a": "b"})
	refused(t, err, 404, "no handler for route")
	_, err = l.Delete("secret/config")
	refused(t, err, 405, "unsupported operation")
	// writes of paths that the engine has not
	_, err = l.Write("secret/elsewhere", map[string]any{"a": "b"})
	refused(t, err, 404, "unsupported path")
	refused(t, client.Sys().Mount("secret", &api.MountInput{Type: "kv"}), 400, "path is already in use at secret/")
	refused(t, client.Sys().Mount("x", &api.MountInput{Type: "transit"}), 400, "transit")
	_, err = client.Sys().MountConfig("none")
	refused(t, err, 400, "No secret engine mount at none/")

	other := as(t, client, s.Root)
	other.SetNamespace("team")
	_, err = other.Logical().Write("secret/data/a", map[string]any{"data": map[string]any{}})
	refused(t, err, 404, "team")
	other.SetNamespace("root")
	_, err = other.Logical().Read("secret/config")
	must(t, err)
	_, err = client.WithNamespace("").Logical().Read("secret/config")
	must(t, err)
}

func TestRawRequests(t *testing.T) {
	t.Parallel()
	s, client := start(t)
	r := client.NewRequest(http.MethodPost, "/v1/secret/data/raw")
	must(t, r.SetJSONBody(map[string]any{"data": map[string]any{"a": "b"}}))
	//lint:ignore SA1019 deployed programs call it
	answer, err := client.RawRequest(r)
	must(t, err)
	secret, err := api.ParseSecret(answer.Body)
	must(t, err)
	must(t, answer.Body.Close())
	equal(t, "version", secret.Data["version"], json.Number("1"))
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"} {
		equal(t, name, answer.Header.Get(name), want)
	}
	raw, err := client.Logical().ReadRaw("secret/data/raw")
	parsed, err := client.Logical().ParseRawResponseAndCloseBody(raw, err)
	must(t, err)
	equal(t, "data", parsed.Data["data"], map[string]any{"a": "b"})

	// the older header, and what is set on every request
	bearer := as(t, client, "")
	bearer.AddHeader("Authorization", "Bearer "+s.Root)
	_, err = bearer.Auth().Token().LookupSelf()
	must(t, err)
	var seen http.Header
	_, err = client.WithResponseCallbacks(func(r *api.Response) { seen = r.Header }).Logical().Read("secret/config")
	must(t, err)
	if seen.Get("Content-Type") != "application/json" {
		t.Errorf("headers: %v", seen)
	}
	client.SetCloneToken(true)
	twin, err := client.Clone()
	must(t, err)
	equal(t, "the clone's token", twin.Token(), s.Root)
	_, err = twin.Logical().Read("secret/config")
	must(t, err)

	help, err := client.Help("secret/data/x")
	must(t, err)
	if help.Help == "" {
		t.Errorf("help: %+v", help)
	}
	noContext, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Logical().ReadWithContext(noContext, "secret/config"); err == nil {
		t.Error("a request without time was answered")
	}
}

func TestWrapping(t *testing.T) {
	t.Parallel()
	s, client := start(t)
	_, err := client.KVv2("secret").Put(t.Context(), "w", map[string]any{"a": "b"})
	must(t, err)
	wrapping := as(t, client, s.Root)
	wrapping.SetWrappingLookupFunc(func(operation, path string) string {
		if operation == http.MethodGet && path == "secret/data/w" {
			return "5m"
		}
		return ""
	})
	wrap := func() *api.SecretWrapInfo {
		t.Helper()
		wrapped, err := wrapping.Logical().Read("secret/data/w")
		must(t, err)
		w := wrapped.WrapInfo
		if w == nil || wrapped.Data != nil || w.TTL != 300 || w.CreationPath != "secret/data/w" || w.Accessor == "" || w.CreationTime.IsZero() {
			t.Fatalf("wrapped: %+v %+v", wrapped, w)
		}
		return w
	}
	inside := func(got *api.Secret, err error) {
		t.Helper()
		must(t, err)
		equal(t, "what was wrapped", got.Data["data"], map[string]any{"a": "b"})
	}
	w := wrap()
	inside(client.Logical().Unwrap(w.Token)) // in the body
	_, err = client.Logical().Unwrap(w.Token)
	refused(t, err, 400, "wrapping token is not valid or does not exist")
	w = wrap()
	inside(as(t, client, "").Logical().Unwrap(w.Token)) // as the client's own token
	w = wrap()
	inside(as(t, client, w.Token).Logical().Unwrap("")) // as the header's
	_, err = as(t, client, "hvs.none").Logical().Unwrap("")
	refused(t, err, 400, "wrapping token is not valid or does not exist")

	w = wrap()
	facts, err := client.Logical().Write("sys/wrapping/lookup", map[string]any{"token": w.Token})
	must(t, err)
	equal(t, "creation_path", facts.Data["creation_path"], "secret/data/w")
	equal(t, "creation_ttl", facts.Data["creation_ttl"], json.Number("300"))
	again, err := client.Logical().Write("sys/wrapping/rewrap", map[string]any{"token": w.Token})
	must(t, err)
	equal(t, "the creation path stays", again.WrapInfo.CreationPath, "secret/data/w")
	inside(client.Logical().Unwrap(again.WrapInfo.Token))
	made, err := client.Logical().Write("sys/wrapping/wrap", map[string]any{"x": "y"})
	must(t, err)
	equal(t, "the default ttl", made.WrapInfo.TTL, 300)
	back, err := client.Logical().Unwrap(made.WrapInfo.Token)
	must(t, err)
	equal(t, "data", back.Data, map[string]any{"x": "y"})

	// a wrapped token
	wrapping.SetWrappingLookupFunc(func(string, string) string { return "60" })
	token, err := wrapping.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"default"}})
	must(t, err)
	opened, err := client.Logical().Unwrap(token.WrapInfo.Token)
	must(t, err)
	equal(t, "wrapped accessor", token.WrapInfo.WrappedAccessor, opened.Auth.Accessor)
	_, err = as(t, client, opened.Auth.ClientToken).Auth().Token().LookupSelf()
	must(t, err)
}
