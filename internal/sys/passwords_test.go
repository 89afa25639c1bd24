package sys_test

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/gateway"
)

const strong = `length = 24
rule "charset" {
  charset   = "abcdefghij"
  min-chars = 2
}
rule "charset" {
  charset   = "0123456789<&"
  min-chars = 2
}`

func TestPasswordPolicies(t *testing.T) {
	s := ready(t)
	s.refused(t, 404, `"errors":[]`, "LIST", "sys/policies/password", "")
	s.must(t, 204, s.root, "PUT", "sys/policies/password/strong", quote(map[string]string{"policy": strong}))
	s.must(t, 204, s.root, "POST", "sys/policies/password/team/Db", quote(map[string]string{"policy": base64.StdEncoding.EncodeToString([]byte(strong))}))
	for _, method := range []string{"LIST", "GET"} {
		if got := names(s.data(t, method, "sys/policies/password", "")["keys"]); !slices.Equal(got, []string{"strong", "team/Db"}) {
			t.Errorf("%s: %v", method, got)
		}
	}
	made := map[string]bool{}
	for _, name := range []string{"strong", "team/Db", "strong"} {
		if out := s.data(t, "GET", "sys/policies/password/"+name, ""); out["policy"] != strong || len(out) != 1 {
			t.Errorf("%v", out)
		}
		out := s.data(t, "GET", "sys/policies/password/"+name+"/generate", "")
		text, _ := out["password"].(string)
		if !regexp.MustCompile(`^[a-j0-9<&]{24}$`).MatchString(text) || len(out) != 1 {
			t.Errorf("%v", out)
		}
		made[text] = true
	}
	if len(made) != 3 {
		t.Error("a password came twice")
	}
	for body, says := range map[string]string{
		`{}`: "missing policy", `{"policy":"length = 3"}`: "invalid password policy: passwords must be between 4 and 100 characters",
		`{"policy":"length = 20"}`: "no charset", `{"policy":"rule \"charset\" {"}`: "invalid password policy", `{"policy":[]}`: "policy",
	} {
		s.refused(t, 400, says, "POST", "sys/policies/password/bad", body)
	}
	s.refused(t, 400, "no name for a password policy", "POST", "sys/policies/password/.x", quote(map[string]string{"policy": strong}))
	s.refused(t, 400, "no name for a password policy", "POST", "sys/policies/password/"+strings.Repeat("x", 129), quote(map[string]string{"policy": strong}))
	s.must(t, 204, s.root, "POST", "sys/policies/password/"+strings.Repeat("x", 128), quote(map[string]string{"policy": strong}))
	for _, path := range []string{"bad", "bad/generate"} {
		s.refused(t, 404, "policy does not exist", "GET", "sys/policies/password/"+path, "")
	}
	makes := s.user(t, `path "sys/policies/password/strong/generate" { capabilities = ["read"] }`)
	s.must(t, 200, makes, "GET", "sys/policies/password/strong/generate", "")
	s.must(t, 403, makes, "GET", "sys/policies/password/strong", "")
	s.must(t, 403, makes, "GET", "sys/policies/password/team/Db/generate", "")
	s.must(t, 403, makes, "POST", "sys/policies/password/strong", quote(map[string]string{"policy": strong}))
	s.must(t, 204, s.root, "DELETE", "sys/policies/password/strong", "")
	s.must(t, 204, s.root, "DELETE", "sys/policies/password/strong", "")
	s.must(t, 404, s.root, "GET", "sys/policies/password/strong", "")
}

func TestPasswordPoliciesOfNamespaces(t *testing.T) {
	s := ready(t)
	s.must(t, 200, s.root, "POST", "sys/namespaces/team", "")
	team := func(r *gateway.Request) { r.Namespace = "team" }
	s.must(t, 204, s.root, "POST", "sys/policies/password/strong", quote(map[string]string{"policy": strong}))
	s.must(t, 404, s.root, "GET", "sys/policies/password/strong", "", team)
	short := strings.Replace(strong, "24", "8", 1)
	s.must(t, 204, s.root, "POST", "sys/policies/password/strong", quote(map[string]string{"policy": short}), team)
	if out := s.data(t, "GET", "sys/policies/password/strong", ""); out["policy"] != strong {
		t.Errorf("the root's policy was replaced: %v", out)
	}
	out := s.must(t, 200, s.root, "GET", "team/sys/policies/password/strong/generate", "")
	if p := out["data"].(map[string]any)["password"].(string); len(p) != 8 {
		t.Errorf("%q is not of the namespace's policy", p)
	}
	s.must(t, 204, s.root, "DELETE", "sys/policies/password/strong", "", team)
	s.must(t, 200, s.root, "GET", "sys/policies/password/strong", "")
}
