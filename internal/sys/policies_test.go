package sys_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const readApp = `path "secret/app/*" { capabilities = ["read"] }`

func TestPolicies(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/secret", `{"type":"kv","options":{"version":"2"}}`)
	if got := names(s.data(t, "LIST", "sys/policies/acl", "")["keys"]); !slices.Equal(got, []string{"default", "root"}) {
		t.Errorf("%v", got)
	}
	s.must(t, 204, s.root, "PUT", "sys/policies/acl/App", quote(map[string]string{"policy": readApp}))
	if out := s.data(t, "GET", "sys/policies/acl/app", ""); out["name"] != "app" || out["policy"] != readApp {
		t.Errorf("%v", out)
	}
	in64 := base64.StdEncoding.EncodeToString([]byte(readApp))
	s.must(t, 204, s.root, "POST", "sys/policies/acl/team/app", quote(map[string]string{"policy": in64}))
	s.must(t, 204, s.root, "PUT", "sys/policy/older", quote(map[string]string{"rules": readApp}))
	if out := s.must(t, 200, s.root, "GET", "sys/policy/older", ""); out["rules"] != readApp || out["name"] != "older" || out["data"].(map[string]any)["rules"] != readApp {
		t.Errorf("%v", out)
	}
	out := s.must(t, 200, s.root, "GET", "sys/policy", "")
	want := []string{"app", "default", "older", "root", "team/app"}
	if !slices.Equal(names(out["policies"]), want) || !slices.Equal(names(out["data"].(map[string]any)["keys"]), want) {
		t.Errorf("%v", out)
	}
	if got := names(s.data(t, "LIST", "sys/policies/acl", "")["keys"]); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if out := s.data(t, "GET", "sys/policies/acl/team/app", ""); out["policy"] != readApp {
		t.Errorf("%v", out)
	}
	for body, says := range map[string]string{
		`{}`: "'policy' parameter not supplied", `{"policy":"path \"x\" {"}`: "line", `{"policy":"path \"x\" { capabilities = [\"fly\"] }"}`: "fly", `{"policy":5}`: "policy",
	} {
		s.refused(t, 400, says, "POST", "sys/policies/acl/bad", body)
	}
	for _, name := range []string{"root", "response-wrapping"} {
		s.refused(t, 400, "cannot update", "POST", "sys/policies/acl/"+name, quote(map[string]string{"policy": readApp}))
		s.refused(t, 400, "cannot delete", "DELETE", "sys/policies/acl/"+name, "")
	}
	s.refused(t, 400, "cannot delete", "DELETE", "sys/policy/default", "")
	s.refused(t, 404, `"errors":[]`, "GET", "sys/policies/acl/none", "")
	s.must(t, 204, s.root, "DELETE", "sys/policy/older", "")
	s.must(t, 204, s.root, "DELETE", "sys/policies/acl/none", "")
	lists := s.user(t, `path "sys/policies/acl" { capabilities = ["list"] }`)
	s.must(t, 200, lists, "LIST", "sys/policies/acl", "")
	s.must(t, 403, lists, "GET", "sys/policies/acl/app", "")
}

func TestLint(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/secret", `{"type":"kv","options":{"version":"2"}}`)
	lint := func(rules string) []any {
		return s.data(t, "POST", "sys/policies/lint", quote(map[string]string{"policy": rules}))["findings"].([]any)
	}
	if got := lint(readApp); len(got) != 0 {
		t.Errorf("%v", got)
	}
	for _, rules := range []string{
		`path "sys/seal/shares" { capabilities = ["update", "sudo"] }`, `path "sys/pprof/*" { capabilities = ["read", "sudo"] }`,
		`path "auth/token/create" { capabilities = ["create", "update", "sudo"] }`, `path "sys/auth/people/tune" { capabilities = ["update", "sudo"] }`,
	} {
		for _, f := range lint(rules) {
			if f.(map[string]any)["code"] == "sudo-unneeded" {
				t.Errorf("%s: %v", rules, f)
			}
		}
	}
	got := lint(`path "secret/data/x" { capabilities = ["read", "sudo"] }`)
	if len(got) != 1 || got[0].(map[string]any)["code"] != "sudo-unneeded" || got[0].(map[string]any)["line"] != 1.0 {
		t.Errorf("%v", got)
	}
	out := s.must(t, 200, s.root, "POST", "sys/policies/acl/wide", quote(map[string]string{"policy": `path "v1/secret/x" { capabilities = ["read"] }`}))
	if w := names(out["warnings"]); len(w) == 0 || !strings.Contains(w[0], "v1/") {
		t.Errorf("a policy that matches nothing is stored without a word: %v", out)
	}
	s.refused(t, 400, "", "POST", "sys/policies/lint", `{"policy":"path {"}`)
}

func TestWhy(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/secret", `{"type":"kv","options":{"version":"2"}}`)
	reader := s.user(t, readApp)
	status, out, _ := s.ask(t, reader, "GET", "secret/data/other", "")
	if status != 403 || !slices.Equal(names(out["errors"]), []string{"permission denied"}) {
		t.Fatalf("%d %v", status, out)
	}
	body := quote(map[string]any{"request_id": out["request_id"]})
	s.must(t, 403, reader, "POST", "sys/policies/why", body)
	why := s.data(t, "POST", "sys/policies/why", body)
	if why["path"] != "secret/data/other" || why["missing"] == "" || why["fix"] == "" {
		t.Errorf("%v", why)
	}
	s.refused(t, 400, "request_id is needed", "POST", "sys/policies/why", `{}`)
	s.must(t, 404, s.root, "POST", "sys/policies/why", `{"request_id":"none"}`)
}

func TestCapabilities(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/secret", `{"type":"kv","options":{"version":"2"}}`)
	reader := s.user(t, readApp+`
path "sys/mounts" { capabilities = ["read", "list", "sudo"] }
path "data" { capabilities = ["read"] }`)
	self := func(body string) map[string]any {
		return s.must(t, 200, reader, "POST", "sys/capabilities-self", body)
	}
	out := self(`{"path":"secret/data/app/x"}`)
	if !slices.Equal(names(out["capabilities"]), []string{"read"}) || !slices.Equal(names(out["secret/data/app/x"]), []string{"read"}) || out["data"].(map[string]any)["capabilities"] == nil {
		t.Errorf("%v", out)
	}
	out = self(`{"paths":["secret/data/app/x","/sys/mounts","secret/data/other","capabilities","data","lease_id"]}`)
	data := out["data"].(map[string]any)
	for path, want := range map[string]string{
		"secret/data/app/x": "[read]", "/sys/mounts": "[list read sudo]", "secret/data/other": "[deny]", "capabilities": "[deny]", "data": "[read]", "lease_id": "[deny]",
	} {
		got := names(data[path])
		slices.Sort(got)
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", path, got, want)
		}
	}
	if out["lease_id"] != "" {
		t.Errorf("a path named as a member of the envelope takes its place: %v", out)
	}
	if out := self(`{"paths":"capabilities"}`); fmt.Sprint(out["capabilities"]) != "[deny]" {
		t.Errorf("%v", out)
	}
	if out := s.data(t, "POST", "sys/capabilities-self", `{"paths":["anything"]}`); fmt.Sprint(out["capabilities"]) != "[root]" {
		t.Errorf("%v", out)
	}
	s.must(t, 400, reader, "POST", "sys/capabilities-self", `{}`)
	s.must(t, 403, reader, "POST", "sys/capabilities", quote(map[string]any{"token": s.root, "paths": "x"}))

	other := s.data(t, "POST", "sys/capabilities", quote(map[string]any{"token": reader, "paths": "secret/data/app/x"}))
	if fmt.Sprint(other["capabilities"]) != "[read]" {
		t.Errorf("%v", other)
	}
	accessor := s.must(t, 200, reader, "GET", "auth/token/lookup-self", "")["data"].(map[string]any)["accessor"]
	other = s.data(t, "POST", "sys/capabilities-accessor", quote(map[string]any{"accessor": accessor, "paths": []string{"secret/data/app/x"}}))
	if fmt.Sprint(other["capabilities"]) != "[read]" {
		t.Errorf("%v", other)
	}
	s.refused(t, 400, "invalid token", "POST", "sys/capabilities", `{"token":"hvs.none","paths":"x"}`)
	s.refused(t, 400, "invalid accessor", "POST", "sys/capabilities-accessor", `{"accessor":"none","paths":"x"}`)
	s.refused(t, 400, "invalid accessor", "POST", "sys/capabilities-accessor", `{"paths":"x"}`)
}

func TestResultant(t *testing.T) {
	s := ready(t)
	reader := s.user(t, readApp+`
path "sys/mounts" { capabilities = ["read"] }`)
	out := s.must(t, 200, reader, "GET", "sys/internal/ui/resultant-acl", "")["data"].(map[string]any)
	exact, glob := out["exact_paths"].(map[string]any), out["glob_paths"].(map[string]any)
	if out["root"] != false || fmt.Sprint(exact["sys/mounts"].(map[string]any)["capabilities"]) != "[read]" || fmt.Sprint(glob["secret/app/"].(map[string]any)["capabilities"]) != "[read]" {
		t.Errorf("%v", out)
	}
	if out := s.data(t, "GET", "sys/internal/ui/resultant-acl", ""); out["root"] != true {
		t.Errorf("%v", out)
	}
}
