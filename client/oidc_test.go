package client_test

import (
	"bytes"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
	"github.com/cofferhq/coffer/internal/auth/issuer/providertest"
)

func TestJWTLogin(t *testing.T) {
	_, c := start(t)
	ctx, who := t.Context(), issuertest.New(t)
	write := func(path string, body map[string]any) {
		t.Helper()
		must[*client.Response](t)(c.Do(ctx, client.Request{Method: "POST", Path: path, Body: body}))
	}
	write("sys/auth/ci", map[string]any{"type": "jwt"})
	write("auth/ci/config", map[string]any{"oidc_discovery_url": who.URL, "oidc_discovery_ca_pem": who.CA, "default_role": "deploy"})
	write("auth/ci/role/deploy", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "coffer"})
	token := client.Secret(who.Sign(map[string]any{"aud": "coffer"}))
	for _, role := range []string{"", "deploy"} {
		if auth := must[*client.Auth](t)(c.Login().JWT(ctx, "ci", role, token)); auth.Metadata["role"] != "deploy" || auth.Token == "" {
			t.Errorf("%+v", auth)
		}
	}
	if _, err := c.Login().JWT(ctx, "ci", "other", token); err == nil || strings.Contains(err.Error(), token.Reveal()) {
		t.Error(err)
	}
}

func TestBrowserLogin(t *testing.T) {
	const home = "https://app.example.com/oidc/callback"
	server, c := start(t)
	ctx, p := t.Context(), providertest.New(t, home)
	write := func(path string, body map[string]any) {
		t.Helper()
		must[*client.Response](t)(c.Do(ctx, client.Request{Method: "POST", Path: path, Body: body}))
	}
	write("sys/auth/oidc", map[string]any{"type": "oidc"})
	write("auth/oidc/config", map[string]any{
		"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_client_id": providertest.ClientID, "oidc_client_secret": providertest.ClientSecret,
	})
	write("auth/oidc/role/people", map[string]any{"user_claim": "sub", "allowed_redirect_uris": home})
	login := must[*client.BrowserLogin](t)(c.Login().OIDC(ctx, "", "people", home))
	if _, err := login.Finish(ctx, url.Values{"state": {"another"}, "code": {"x"}}); err == nil {
		t.Error("an answer of another login was taken")
	}
	answer, err := p.LogIn(t, login.URL, providertest.Ada, providertest.Password)
	if err != nil {
		t.Fatal(err)
	}
	auth := must[*client.Auth](t)(login.Finish(ctx, answer.Form))
	if auth.Metadata["role"] != "people" {
		t.Errorf("%+v", auth)
	}
	// Nothing by which a login could be finished or the provider be talked to is in
	// the audit log or in storage.
	for what, text := range map[string]string{
		"the code": answer.Form.Get("code"), "the state": answer.Form.Get("state"), "the client's secret": providertest.ClientSecret, "the token": auth.Token.Reveal(),
	} {
		if files := holding(t, server.Dir, text); len(files) > 0 {
			t.Errorf("%s is in %q", what, files)
		}
		if strings.Contains(server.Log.String(), text) {
			t.Errorf("%s was logged", what)
		}
	}
	if len(holding(t, server.Dir, "auth/oidc/oidc/callback")) == 0 {
		t.Error("the login is not in the audit log")
	}
	if _, err := login.Finish(ctx, answer.Form); err == nil || !strings.Contains(err.Error(), "Expired or missing OAuth state") {
		t.Error(err)
	}
	if _, err := c.Login().OIDC(ctx, "", "people", "https://evil.example/"); err == nil || !strings.Contains(err.Error(), "allowed_redirect_uris") {
		t.Error(err)
	}
}

// A login in a namespace is one of that namespace's mount, and of no other of the
// same name; one address to come back to serves both.
func TestBrowserLoginInANamespace(t *testing.T) {
	const home = "https://app.example.com/oidc/callback"
	_, root := start(t)
	ctx, p := t.Context(), providertest.New(t, home)
	must[*client.Response](t)(root.Do(ctx, client.Request{Method: "POST", Path: "sys/namespaces/team"}))
	team := root.WithNamespace("team")
	for _, c := range []*client.Client{root, team} {
		for _, w := range []struct {
			path string
			body map[string]any
		}{
			{"sys/auth/oidc", map[string]any{"type": "oidc"}},
			{"auth/oidc/config", map[string]any{
				"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA, "oidc_client_id": providertest.ClientID, "oidc_client_secret": providertest.ClientSecret,
			}},
			{"auth/oidc/role/people", map[string]any{"user_claim": "sub", "allowed_redirect_uris": home}},
		} {
			must[*client.Response](t)(c.Do(ctx, client.Request{Method: "POST", Path: w.path, Body: w.body}))
		}
	}
	begin := func(c *client.Client) (*client.BrowserLogin, url.Values) {
		t.Helper()
		login := must[*client.BrowserLogin](t)(c.Login().OIDC(ctx, "", "people", home+"?namespace=team"))
		answer, err := p.LogIn(t, login.URL, providertest.Ada, providertest.Password)
		if err != nil || !strings.HasSuffix(answer.Form.Get("state"), ",ns=team") {
			t.Fatal(answer.Form, err)
		}
		return login, answer.Form
	}
	login, answer := begin(team)
	auth := must[*client.Auth](t)(login.Finish(ctx, answer))
	if info := must[*client.TokenInfo](t)(team.WithToken(auth.Token).Token().LookupSelf(ctx)); info.DisplayName != "oidc-id-ada" {
		t.Errorf("%+v", info)
	}
	_, answer = begin(team)
	elsewhere := client.Request{Path: "auth/oidc/oidc/callback", Query: answer, Anonymous: true, Once: true}
	if _, err := root.Do(ctx, elsewhere); err == nil || !strings.Contains(err.Error(), "Expired or missing OAuth state") {
		t.Error(err)
	}
}

// holding lists the files below a directory that hold a text.
func holding(t *testing.T, dir, text string) (files []string) {
	t.Helper()
	read := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // what is compacted away meanwhile
		}
		content, err := os.ReadFile(path)
		if err == nil {
			read += len(content)
		}
		if bytes.Contains(content, []byte(text)) {
			files = append(files, path)
		}
		return nil
	})
	if err != nil || read == 0 || text == "" {
		t.Errorf("%d bytes were read for %q: %v", read, text, err)
	}
	return files
}
