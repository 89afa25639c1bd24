package docs

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
	"github.com/cofferhq/coffer/internal/auth/issuer/providertest"
	"github.com/cofferhq/coffer/internal/auth/ldap/ldaptest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// trusts makes the session's machine believe certificates of authorities.
func (s *session) trusts(t *testing.T, authorities ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "authorities.pem")
	if err := os.WriteFile(file, []byte(strings.Join(authorities, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "SSL_CERT_FILE="+file, "CURL_CA_BUNDLE="+file)
}

// ciGuide puts a session into jobs of GitHub and GitLab: two issuers, and what a
// job finds in its environment. The claims are those that these systems document.
func (s *session) ciGuide(t *testing.T, text string) string {
	t.Helper()
	github, gitlab := issuertest.New(t), issuertest.New(t)
	github.Answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/job" {
			github.Serve(w, r)
			return
		}
		if r.Header.Get("Authorization") != "bearer job-secret" {
			http.Error(w, "denied", http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"count": 1, "value": github.Sign(map[string]any{
			"aud": r.URL.Query().Get("audience"), "sub": "repo:acme/app:ref:refs/heads/main", "repository": "acme/app", "repository_id": "74",
			"repository_owner": "acme", "repository_owner_id": "9919", "ref": "refs/heads/main", "ref_type": "branch", "event_name": "push",
			"run_id": "30433642", "run_attempt": "1", "actor": "octocat", "job_workflow_ref": "acme/app/.github/workflows/deploy.yml@refs/heads/main",
		})})
	})
	s.trusts(t, github.CA, gitlab.CA)
	s.env = append(s.env, "ACTIONS_ID_TOKEN_REQUEST_TOKEN=job-secret", "ACTIONS_ID_TOKEN_REQUEST_URL="+github.URL+"/job?api-version=2.0",
		"COFFER_ID_TOKEN="+gitlab.Sign(map[string]any{
			"aud": "https://coffer.example.com", "sub": "project_path:acme/app:ref_type:branch:ref:main", "project_id": "22", "project_path": "acme/app",
			"namespace_path": "acme", "ref": "main", "ref_type": "branch", "ref_protected": "true", "pipeline_id": "574", "user_login": "ada", "user_email": "ada@example.com",
		}))
	return strings.NewReplacer("https://token.actions.githubusercontent.com", github.URL, "https://gitlab.example.com", gitlab.URL).Replace(text)
}

// peopleGuide puts a session in front of a browser, in which Ada logs in wherever it
// is opened.
func (s *session) peopleGuide(t *testing.T, text string) string {
	t.Helper()
	port := fmt.Sprint(storagetest.FreePort(t))
	provider := providertest.New(t, "http://localhost:"+port+"/oidc/callback")
	s.trusts(t, provider.CA)
	if err := os.WriteFile(filepath.Join(s.dir, "client-secret"), []byte(providertest.ClientSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	opened := t.TempDir()
	opener := filepath.Join(t.TempDir(), "xdg-open")
	script := "#!/bin/sh\nprintf %s \"$1\" > '" + opened + "'/$$.part\nmv '" + opened + "'/$$.part '" + opened + "'/$$.address\n"
	if err := os.WriteFile(opener, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, variable := range s.env {
		if path, found := strings.CutPrefix(variable, "PATH="); found {
			s.env[i] = "PATH=" + filepath.Dir(opener) + ":" + path
		}
	}
	ended, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(ended); <-stopped })
	go func() {
		defer close(stopped)
		for {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
			addresses, _ := filepath.Glob(filepath.Join(opened, "*.address"))
			for _, file := range addresses {
				browse(t, provider, file)
			}
		}
	}()
	return strings.NewReplacer("https://accounts.example.com", provider.URL, "localhost:8250", "localhost:"+port,
		"coffer login -method=oidc", "coffer login -method=oidc port="+port).Replace(text)
}

// browse opens the address in a file, logs Ada in, and goes where it is sent.
func browse(t *testing.T, provider *providertest.Provider, file string) {
	address, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return
	}
	if err := os.Remove(file); err != nil {
		t.Error(err)
	}
	answer, err := provider.LogIn(t, string(address), providertest.Ada, providertest.Password)
	if err != nil {
		t.Error(err)
		return
	}
	page, err := http.Get(answer.URL.String())
	if err != nil {
		t.Error(err)
		return
	}
	_ = page.Body.Close()
}

// ldapGuide puts a session beside a directory, with the files that its administrator
// hands over.
func (s *session) ldapGuide(t *testing.T, text string) string {
	t.Helper()
	directory := ldaptest.New(t)
	for name, content := range map[string]string{"ldap-ca.pem": directory.CA, "bind-password": ldaptest.BindPassword, "ada-password": ldaptest.Password} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return strings.ReplaceAll(text, "ldaps://ldap.example.com", directory.TLSURL)
}
