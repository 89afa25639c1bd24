package vault

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

const strong = `length = 20
rule "charset" {
  charset   = "abcdefghijklmnopqrstuvwxyz"
  min-chars = 1
}
rule "charset" {
  charset   = "0123456789"
  min-chars = 3
}`

func TestPasswordPolicies(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	c := client.Logical()
	if list, err := c.List("sys/policies/password"); list != nil || err != nil {
		t.Errorf("before there is one: %v %v", list, err)
	}
	_, err := c.Write("sys/policies/password/db", map[string]any{"policy": strong})
	must(t, err)
	read, err := c.Read("sys/policies/password/db")
	must(t, err)
	equal(t, "policy", read.Data["policy"], any(strong))
	seen := map[any]bool{}
	for range 5 {
		made, err := c.Read("sys/policies/password/db/generate")
		must(t, err)
		text := made.Data["password"].(string)
		digits := 0
		for _, r := range text {
			if r >= '0' && r <= '9' {
				digits++
			}
		}
		if len(text) != 20 || digits < 3 || digits == 20 || seen[text] {
			t.Errorf("%q", text)
		}
		seen[text] = true
	}
	_, err = c.Write("sys/policies/password/bad", map[string]any{"policy": "length = 3"})
	refused(t, err, 400, "passwords must be between 4 and 100 characters")
	list, err := c.List("sys/policies/password")
	must(t, err)
	equal(t, "names", len(list.Data["keys"].([]any)), 1)
	_, err = c.Delete("sys/policies/password/db")
	must(t, err)
	if gone, err := c.Read("sys/policies/password/db"); gone != nil && len(gone.Data) > 0 || err != nil {
		t.Errorf("after its deletion: %v %v", gone, err)
	}
}

func TestTools(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	made, err := client.Logical().Write("sys/tools/random/16", map[string]any{"format": "hex"})
	must(t, err)
	if raw, err := hex.DecodeString(made.Data["random_bytes"].(string)); err != nil || len(raw) != 16 {
		t.Errorf("%v %v", made.Data, err)
	}
	user := user(t, client, "tools", `path "secret/none" { capabilities = ["read"] }`)
	sum, err := user.Logical().Write("sys/tools/hash/sha2-256", map[string]any{"input": "YWRtaW4="})
	must(t, err)
	equal(t, "sum", sum.Data["sum"], any("8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"))
	_, err = user.Logical().Write("sys/tools/random", nil)
	refused(t, err, 403, "permission denied")
}

// TestCORS configures a page's origin with the client, and asks as its browser does.
func TestCORS(t *testing.T) {
	t.Parallel()
	s, client := start(t)
	sys := client.Sys()
	if got, err := sys.CORSStatus(); err != nil || got.Enabled {
		t.Errorf("before: %+v %v", got, err)
	}
	refused(t, sys.ConfigureCORS(&api.CORSRequest{Enabled: true}), 400, "at least one origin")
	const page = "https://portal.example.com"
	preflight := func(origin string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, s.URL()+"/v1/secret/data/app", nil)
		must(t, err)
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", "PUT")
		req.Header.Set("Access-Control-Request-Headers", "x-vault-token,x-page")
		resp, err := s.HTTP().Do(req)
		must(t, err)
		must(t, resp.Body.Close())
		return resp
	}
	if resp := preflight(page); resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("allowed before anybody said so: %v", resp.Header)
	}
	must(t, sys.ConfigureCORS(&api.CORSRequest{AllowedOrigins: []string{page}, AllowedHeaders: []string{"X-Page"}, Enabled: true}))
	got, err := sys.CORSStatus()
	if err != nil || !got.Enabled || !slices.Equal(got.AllowedOrigins, []string{page}) || !slices.Contains(got.AllowedHeaders, "X-Page") {
		t.Errorf("%+v %v", got, err)
	}
	resp := preflight(page)
	if resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Origin") != page || !strings.Contains(resp.Header.Get("Access-Control-Allow-Headers"), "X-Page") {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if resp := preflight("https://evil.example.com"); resp.StatusCode != 403 || resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another page: %d %v", resp.StatusCode, resp.Header)
	}
	foreign := as(t, client, client.Token())
	foreign.SetHeaders(http.Header{"Origin": {"https://evil.example.com"}})
	_, err = foreign.Logical().Read("sys/mounts")
	refused(t, err, 403, "origin not allowed")
	must(t, sys.DisableCORS())
	if resp := preflight(page); resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("after it was disabled: %v", resp.Header)
	}
	must(t, sys.ConfigureCORS(&api.CORSRequest{AllowedOrigins: []string{"*"}}))
	if resp := preflight("https://any.example.com"); resp.StatusCode != 204 {
		t.Errorf("any: %d", resp.StatusCode)
	}
}

func TestUIHeaders(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	c := client.Logical()
	_, err := c.Write("sys/config/ui/headers/X-Frame-Options", map[string]any{"values": []string{"DENY", "SAMEORIGIN"}})
	must(t, err)
	one, err := c.Read("sys/config/ui/headers/X-Frame-Options")
	must(t, err)
	equal(t, "value", one.Data["value"], any("DENY"))
	all, err := c.ReadWithData("sys/config/ui/headers/X-Frame-Options", map[string][]string{"multivalue": {"true"}})
	must(t, err)
	equal(t, "values", len(all.Data["values"].([]any)), 2)
	list, err := c.List("sys/config/ui/headers")
	must(t, err)
	equal(t, "headers", list.Data["keys"].([]any)[0], any("X-Frame-Options"))
	_, err = c.Write("sys/config/ui/headers/X-Vault-Token", map[string]any{"values": "x"})
	refused(t, err, 400, "X-Vault headers cannot be set")
	_, err = c.Delete("sys/config/ui/headers/X-Frame-Options")
	must(t, err)
}

// TestMountsForEverybody is how a console finds the ways to log in.
func TestMountsForEverybody(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	must(t, client.Sys().EnableAuthWithOptions("people", &api.EnableAuthOptions{Type: "userpass", Config: api.AuthConfigInput{ListingVisibility: "unauth"}}))
	must(t, client.Sys().EnableAuthWithOptions("jobs", &api.EnableAuthOptions{Type: "approle"}))
	shown, err := as(t, client, "").Logical().Read("sys/internal/ui/mounts")
	must(t, err)
	auth := shown.Data["auth"].(map[string]any)
	people, _ := auth["people/"].(map[string]any)
	if len(auth) != 1 || people["type"] != "userpass" || people["accessor"] != nil || len(shown.Data["secret"].(map[string]any)) != 0 {
		t.Errorf("%v", shown.Data)
	}
	_, err = as(t, client, "").Sys().ListAuth()
	refused(t, err, 403, "permission denied")
}

func TestMonitor(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines, err := client.Sys().Monitor(ctx, "debug", "json")
	must(t, err)
	must(t, client.Sys().Mount("old", &api.MountInput{Type: "kv"}))
	must(t, client.Sys().Unmount("old"))
	late := time.After(15 * time.Second)
	for found := false; !found; {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatal("the log ends")
			}
			var entry struct{ Msg, Path string }
			must(t, json.Unmarshal([]byte(line), &entry))
			found = entry.Path == "old/" && entry.Msg == "a disabled mount is erased"
		case <-late:
			t.Fatal("the log does not say that the mount is erased")
		}
	}
	cancel()
	for range lines { // until the client has let go
	}
	_, err = user(t, client, "monitors", `path "sys/monitor" { capabilities = ["read"] }`).Sys().Monitor(t.Context(), "", "")
	refused(t, err, 403, "permission denied")
}

func TestAuditedHeaders(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	c := client.Logical()
	_, err := c.Write("sys/config/auditing/request-headers/X-Forwarded-For", map[string]any{"hmac": true})
	must(t, err)
	one, err := c.Read("sys/config/auditing/request-headers/X-Forwarded-For")
	must(t, err)
	equal(t, "header", one.Data["X-Forwarded-For"], any(map[string]any{"hmac": true}))
	all, err := c.Read("sys/config/auditing/request-headers")
	must(t, err)
	equal(t, "headers", all.Data["headers"], any(map[string]any{"x-forwarded-for": map[string]any{"hmac": true}}))
	_, err = c.Write("sys/config/auditing/request-headers/X-Vault-Token", map[string]any{"hmac": true})
	refused(t, err, 400, "is never recorded")
	_, err = c.Delete("sys/config/auditing/request-headers/X-Forwarded-For")
	must(t, err)
	_, err = c.Read("sys/config/auditing/request-headers/X-Forwarded-For")
	refused(t, err, 400, "Could not find header in config")
}
