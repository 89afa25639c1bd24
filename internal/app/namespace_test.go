package app_test

import (
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// in is the header of a namespace.
func in(path string) []string { return []string{"X-Vault-Namespace", path} }

// team makes a namespace with a kv store, a policy for all of it and a token that
// holds it, and returns the token.
func team(t *testing.T, s *apptest.Server, path string) string {
	t.Helper()
	must := func(status int, method, p, body string) *apptest.Answer {
		t.Helper()
		a := s.Do(t, method, p, s.Root, body, in(path)...)
		if a.Status != status {
			t.Fatalf("%s %s in %s is answered %d %s", method, p, path, a.Status, a.Body)
		}
		return a
	}
	s.Must(t, 200, "POST", "sys/namespaces/"+path, `{"custom_metadata":{"owner":"`+path+`"}}`)
	must(204, "POST", "sys/mounts/secret", `{"type":"kv","options":{"version":"2"}}`)
	must(204, "POST", "sys/policies/acl/all", `{"policy":"path \"*\" { capabilities = [\"create\",\"read\",\"update\",\"delete\",\"list\",\"sudo\"] }"}`)
	return must(200, "POST", "auth/token/create", `{"policies":["all"]}`).Auth.Token
}

func TestNamespacesAreApart(t *testing.T) {
	s := apptest.Start(t, "")
	web, dev := team(t, s, "web"), team(t, s, "web/dev")
	ops := team(t, s, "ops")
	try := func(status int, method, path, token, body string, headers ...string) *apptest.Answer {
		t.Helper()
		a := s.Do(t, method, path, token, body, headers...)
		if a.Status != status {
			t.Errorf("%s %s %v is answered %d %s, want %d", method, path, headers, a.Status, a.Body, status)
		}
		return a
	}
	// The same path in each is another secret, by header or by path.
	for path, token := range map[string]string{"web": web, "web/dev": dev, "ops": ops} {
		try(200, "POST", "secret/data/db", token, `{"data":{"of":"`+path+`"}}`, in(path)...)
	}
	try(200, "POST", "secret/data/db", s.Root, `{"data":{"of":"root"}}`)
	for path, token := range map[string]string{"web": web, "web/dev": dev, "ops": ops} {
		for _, a := range []*apptest.Answer{
			try(200, "GET", "secret/data/db", token, "", in(path)...),
			try(200, "GET", path+"/secret/data/db", token, ""),
			try(200, "GET", path+"/secret/data/db", s.Root, ""),
		} {
			if !strings.Contains(string(a.Body), `"of":"`+path+`"`) {
				t.Errorf("in %s: %s", path, a.Body)
			}
		}
	}
	// A token reaches below its namespace and nowhere else; what is not there is
	// refused alike.
	try(200, "GET", "secret/data/db", web, "", in("web/dev")...)
	try(200, "GET", "dev/secret/data/db", web, "", in("web")...)
	there := try(403, "GET", "secret/data/db", dev, "", in("web")...)
	nowhere := try(403, "GET", "secret/data/db", dev, "", in("no-such-namespace")...)
	if strings.Join(there.Errors, "") != strings.Join(nowhere.Errors, "") {
		t.Errorf("a namespace that exists is told from one that does not: %q, %q", there.Errors, nowhere.Errors)
	}
	try(403, "GET", "secret/data/db", ops, "", in("web")...)
	try(403, "GET", "secret/data/db", ops, "")
	try(404, "GET", "secret/data/db", s.Root, "", in("no-such-namespace")...)
	// What is of the server is not there in namespaces, or the same everywhere.
	try(200, "GET", "sys/health", "", "", in("web")...)
	try(200, "GET", "sys/seal-status", "", "", in("no-such-namespace")...)
	try(404, "GET", "sys/audit", web, "", in("web")...)
	try(404, "POST", "sys/seal", web, "", in("web")...)
	// Names are counted in their own namespace.
	if a := try(200, "LIST", "sys/namespaces", s.Root, ""); !strings.Contains(string(a.Data), `"keys":["ops/","web/"]`) {
		t.Errorf("namespaces: %s", a.Data)
	}
	if a := try(200, "LIST", "sys/namespaces", web, "", in("web")...); !strings.Contains(string(a.Data), `"keys":["dev/"]`) {
		t.Errorf("namespaces below web: %s", a.Data)
	}
	if a := try(200, "LIST", "sys/policies/acl", ops, "", in("ops")...); !strings.Contains(string(a.Data), `"all"`) {
		t.Errorf("policies: %s", a.Data)
	}
	if a := try(200, "LIST", "sys/policies/acl", s.Root, ""); strings.Contains(string(a.Data), `"all"`) {
		t.Errorf("the root shows a policy of a namespace: %s", a.Data)
	}
	// A token of another namespace is not known.
	for _, path := range []string{"auth/token/lookup", "auth/token/revoke"} {
		body := `{"token":"` + dev + `"}`
		a := s.Do(t, "POST", path, ops, body, in("ops")...)
		if path == "auth/token/lookup" && a.Status != 403 || strings.Contains(string(a.Body), "display_name") {
			t.Errorf("%s of another's token: %d %s", path, a.Status, a.Body)
		}
	}
	try(200, "GET", "secret/data/db", dev, "", in("web/dev")...)
	try(400, "POST", "auth/token/create", s.Root, `{"policies":["root"]}`, in("ops")...)
	// A namespace and a mount do not share a path.
	try(400, "POST", "sys/mounts/ops", s.Root, `{"type":"kv"}`)
	try(400, "POST", "sys/mounts/ops/kv", s.Root, `{"type":"kv"}`)
	try(400, "POST", "sys/namespaces/secret", s.Root, "")
	for _, name := range []string{"sys", "root", "a/b", "a b", "a*", "..", strings.Repeat("n", 300)} {
		if a := s.Do(t, "POST", "sys/namespaces/"+strings.ReplaceAll(name, " ", "%20"), s.Root, ""); a.Status < 400 {
			t.Errorf("a namespace %q was made", name)
		}
	}
	// Locked, it answers nobody; the key opens it.
	a := try(200, "POST", "sys/namespaces/api-lock/lock/web", s.Root, "")
	var lock struct {
		Key string `json:"unlock_key"`
	}
	a.Into(t, &lock)
	try(503, "GET", "secret/data/db", web, "", in("web")...)
	try(503, "GET", "secret/data/db", dev, "", in("web/dev")...)
	try(200, "GET", "secret/data/db", ops, "", in("ops")...)
	try(400, "POST", "sys/namespaces/api-lock/unlock", web, `{"unlock_key":"no"}`, in("web")...)
	try(204, "POST", "sys/namespaces/api-lock/unlock", web, `{"unlock_key":"`+lock.Key+`"}`, in("web")...)
	try(200, "GET", "secret/data/db", web, "", in("web")...)
	// Deleted, nothing of it is left, and its tokens end.
	try(400, "DELETE", "sys/namespaces/web", s.Root, "")
	try(200, "DELETE", "sys/namespaces/web/dev", s.Root, "")
	try(200, "DELETE", "sys/namespaces/web/dev", s.Root, "")
	try(403, "GET", "secret/data/db", dev, "", in("web/dev")...)
	try(404, "GET", "web/dev/secret/data/db", s.Root, "")
	s.Must(t, 200, "POST", "sys/namespaces/web/dev", "")
	try(404, "GET", "web/dev/secret/data/db", s.Root, "")
	s.Stop(t)
	s.Run(t)
	try(200, "GET", "secret/data/db", web, "", in("web")...)
	try(403, "GET", "secret/data/db", dev, "", in("web/dev")...)
}
