package trial

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/question"
)

func policies(t *testing.T, texts ...string) []*policy.Policy {
	t.Helper()
	var out []*policy.Policy
	for i := 0; i < len(texts); i += 2 {
		p, err := policy.Parse(texts[i], texts[i+1])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, "f_test.hcl:1: there is no test in it"},
		{`{}`, "f_test.hcl:1: there is no test in it"},
		{`test { }`, "a test has a name"},
		{`test "a" { }`, `f_test.hcl:1: the test "a" asks for nothing`},
		{"test \"a\" {\n  allow \"read\" {}\n}", "f_test.hcl:2: allow names a capability and a path"},
		{"test \"a\" {\n  allow {}\n}", "f_test.hcl:2: allow names a capability and a path"},
		{"test \"a\" {\n  allow = \"read\"\n}", "f_test.hcl:2: allow names a capability and a path"},
		{"test \"a\" {\n  allow \"read\" \"x\" { rules = \"y\" }\n}", `f_test.hcl:2: "rules" is not a key of allow`},
		{"test \"a\" {\n  allow \"read\" \"x\" { rule = 5 }\n}", "f_test.hcl:2: rule must be a string, not a number"},
		{"test \"a\" {\n  allow \"read\" \"\" {}\n}", "f_test.hcl:2: a path has between 1 and 2048 bytes"},
		{"test \"a\" {\n  allow \"read\" \"x\" { wrap_ttl = \"soon\" }\n}", "f_test.hcl:2: wrap_ttl"},
		{"test \"a\" {\n  allow \"read\" \"x\" { parameters = { a = 1 a = 2 } }\n}", "f_test.hcl:2: a is set twice"},
		{"test \"a\" {\n  policies = \"app\"\n  allow \"read\" \"x\" {}\n}", "f_test.hcl:2: policies must be a list of strings"},
		{"test \"a\" {\n  policy = \"app\"\n}", `f_test.hcl:2: "policy" is not a key of a test`},
		{"test \"a\" {\n  policies = []\n  policies = []\n}", "f_test.hcl:3: policies is set twice"},
		{"test \"a\" {\n  time = \"noon\"\n}", "f_test.hcl:2: time"},
		{"test \"a\" {\n  remote_address = \"10.0.0.0/8\"\n}", "f_test.hcl:2: remote_address"},
		{"test \"a\" {\n  entity = \"ada\"\n}", "f_test.hcl:2: entity must be a block"},
		{"test \"a\" {\n  entity { metadata = [] }\n}", "f_test.hcl:2: metadata must be an object"},
		{"tests \"a\" {}", `f_test.hcl:1: "tests" is not a key`},
		{"mount \"secret/\" {}", "f_test.hcl:1: the mount secret has no type"},
		{"mount \"sys\" { type = \"kv\" }", "nothing can be mounted at sys/"},
		{"test \"a\" {", "f_test.hcl:"},
		{`{"test": {"a": `, "f_test.hcl:1: the JSON ends too early"},
		{strings.Repeat("a", policy.MaxSource+1), "more than the"},
		{"test \"a\" " + strings.Repeat("{ a ", 30), "nests deeper"},
	} {
		f, err := Parse("f_test.hcl", c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: %v %v, want %q", c.text, f, err, c.want)
		}
	}
}

func TestBounds(t *testing.T) {
	text := func(tests, requests int) string {
		var b strings.Builder
		for i := range tests {
			fmt.Fprintf(&b, "test \"t%d\" {\n  allow = { read = [%s] }\n}\n", i, strings.TrimSuffix(strings.Repeat(`"x",`, requests), ","))
		}
		return b.String()
	}
	if f, err := Parse("f", text(MaxTests, 1)); err != nil || len(f.Tests) != MaxTests {
		t.Errorf("%d tests: %v", MaxTests, err)
	}
	if _, err := Parse("f", text(MaxTests+1, 1)); err == nil || !strings.Contains(err.Error(), "at most 2000 tests") {
		t.Errorf("%d tests: %v", MaxTests+1, err)
	}
	if _, err := Parse("f", text(2, MaxRequests/2)); err != nil {
		t.Errorf("%d requests: %v", MaxRequests, err)
	}
	if _, err := Parse("f", text(2, MaxRequests/2+1)); err == nil || !strings.Contains(err.Error(), "at most 20000 requests") {
		t.Errorf("more requests: %v", err)
	}
}

const everything = `
mount "team/" { type = "kv" version = 2 }
test "who" {
  policies          = ["app"]
  no_default_policy = true
  entity {
    id = "e1" name = "ada"
    metadata = { team = "web" floor = 3 }
    policies = ["own"]
    alias "auth_oidc_1" { id = "a1" name = "ada@example.com" metadata = { m = "1" } custom_metadata = { c = "2" } }
  }
  groups = ["deployers"]
  group "owners" { id = "g1" metadata = { tier = "one" } policies = ["owned"] }
  namespace      = "team-a"
  remote_address = "10.0.0.7"
  time           = "2030-01-31T12:00:00Z"
  allow "read" "x/a" "/x/b" { policy = "app" rule = "/x/*" wrap_ttl = "5m" parameters = { "a" = [1, {b = true}] } }
  deny = { read = ["y/a", "y/b"] }
}`

// What HCL says, JSON says, too.
const everythingJSON = `{
"mount": {"team/": {"type": "kv", "options": {"version": "2"}}},
"test": {"who": {
  "policies": ["app"], "no_default_policy": true,
  "entity": {"id": "e1", "name": "ada", "metadata": {"team": "web", "floor": 3}, "policies": ["own"],
    "alias": {"auth_oidc_1": {"id": "a1", "name": "ada@example.com", "metadata": {"m": "1"}, "custom_metadata": {"c": "2"}}}},
  "groups": ["deployers"],
  "group": {"owners": {"id": "g1", "metadata": {"tier": "one"}, "policies": ["owned"]}},
  "namespace": "team-a", "remote_address": "10.0.0.7", "time": "2030-01-31T12:00:00Z",
  "allow": {"read": {"x/a": {"policy": "app", "rule": "/x/*", "wrap_ttl": "5m", "parameters": {"a": [1, {"b": true}]}},
                     "x/b": {"policy": "app", "rule": "/x/*", "wrap_ttl": 300, "parameters": {"a": [1, {"b": true}]}}}},
  "deny": {"read": ["y/a", "y/b"]}
}}}`

func TestLanguages(t *testing.T) {
	var shown []string
	for _, text := range []string{everything, everythingJSON} {
		f, err := Parse("f", text)
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.Mounts {
			f.Mounts[i].Line = 0
		}
		for i := range f.Tests {
			f.Tests[i].Line = 0
			for j := range f.Tests[i].Requests {
				f.Tests[i].Requests[j].Line = 0
			}
		}
		shown = append(shown, fmt.Sprintf("%+v %+v", f, *f.Tests[0].Who.Entity))
	}
	if i := strings.Index(shown[0], "Entity:0x"); i < 0 || cutEntity(shown[0]) != cutEntity(shown[1]) {
		t.Errorf("HCL and JSON say different things:\n%s\n%s", shown[0], shown[1])
	}
}

// cutEntity takes a pointer out of what was printed.
func cutEntity(text string) string {
	before, rest, _ := strings.Cut(text, "Entity:0x")
	_, after, _ := strings.Cut(rest, " ")
	return before + after
}

func TestTemplates(t *testing.T) {
	f, err := Parse("f", everything)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"identity.entity.id": "e1", "identity.entity.name": "ada", "identity.entity.metadata.team": "web",
		"identity.entity.metadata.floor": "3", "identity.entity.metadata.none": "",
		"identity.entity.aliases.auth_oidc_1.name": "ada@example.com", "identity.entity.aliases.auth_oidc_1.metadata.m": "1",
		"identity.entity.aliases.auth_oidc_1.custom_metadata.c": "2", "identity.entity.aliases.other.name": "",
		"identity.groups.names.owners.id": "g1", "identity.groups.names.owners.metadata.tier": "one",
		"identity.groups.ids.g1.name": "owners", "identity.groups.names.deployers.id": "", "identity.groups.names.nosuch.id": "",
	} {
		if got, ok := f.Tests[0].Who.resolve(name); got != want || ok != (want != "") {
			t.Errorf("%s is %q, %v, want %q", name, got, ok, want)
		}
	}
	if got := strings.Join(f.Tests[0].Who.names(), " "); got != "app own owned" {
		t.Errorf("the policies are %s", got)
	}
}

// run runs one test against policies; everything below x/ is taken as it is.
func run(t *testing.T, b *Bench, body string) ([]Result, error) {
	t.Helper()
	f, err := Parse("f_test.hcl", "test \"t\" {\n"+body+"\n}")
	if err != nil {
		t.Fatal(err)
	}
	return b.Run(f, question.New([]question.Mount{{Path: "x/", Type: "unknown"}}))
}

func TestRun(t *testing.T) {
	b := NewBench(policies(t, "default", "", "app", `
path "x/*" { capabilities = ["read"] }
path "x/b/*" { capabilities = ["read"] expiration = "2030-01-01T00:00:00Z" }
path "x/own/{{identity.entity.name}}" { capabilities = ["read", "update"] }
`, "walls", `path "x/keys/*" { capabilities = ["deny"] }
path "x/*" { capabilities = ["list"] }`))
	for _, c := range []struct{ body, want string }{
		{`policies = ["app"]  allow "read" "x/a" { policy = "app" rule = "x/*" }`, ""},
		{`policies = ["app"]  allow "update" "x/a" {}`, "must be allowed, and is denied"},
		{`policies = ["app"]  deny "read" "x/a" {}`, "must be denied, and is allowed"},
		{`policies = ["app", "walls"]  deny "read" "x/keys/a" { policy = "app" }`, "is decided by x/keys/* of the policy walls, not by the policy app"},
		{`policies = ["app"]  allow "read" "x/a" { rule = "x/a" }`, "is decided by x/* of the policy app, not by the rule x/a"},
		{`policies = ["app"]  deny "read" "x/" { rule = "y" }`, "must be denied, and is allowed"},
		// Rules of one path in two policies decide together.
		{`policies = ["app", "walls"]  allow "read" "x/a" { policy = "walls" rule = "x/*" }`, ""},
		// Rules expire at the test's time.
		{`policies = ["app"]  time = "2029-12-31T23:59:59Z"  allow "read" "x/b/c" { rule = "x/b/*" }`, ""},
		{`policies = ["app"]  time = "2030-01-01T00:00:00Z"  allow "read" "x/b/c" { rule = "x/*" }`, ""},
		{`policies = ["app"]  entity { name = "ada" }  allow "update" "x/own/ada" { rule = "x/own/{{identity.entity.name}}" }`, ""},
		{`policies = ["app"]  entity { name = "a/b" }  deny "update" "x/own/a/b" {}`, ""},
		{`policies = ["root"]  allow "delete" "x/a" {}`, ""},
		{`policies = []  deny "read" "x/a" {}`, ""},
	} {
		results, err := run(t, b, c.body)
		if err != nil || len(results) != 1 || results[0].Problem != c.want || results[0].Passed != (c.want == "") || (len(results[0].Explained) > 0) != (c.want != "") || results[0].Line != 2 {
			t.Errorf("%s: %+v %v, want %q", c.body, results, err, c.want)
		}
	}
	untouched := 0
	for _, c := range b.Coverage([]string{"app", "walls", "nosuch"}) {
		if c.Times == 0 {
			untouched++
			t.Logf("%+v", c)
		}
	}
	if len(b.Coverage([]string{"app", "walls"})) != 5 || untouched != 0 {
		t.Errorf("%d rules are untouched", untouched)
	}
	for _, c := range []struct{ body, want string }{
		{`policies = ["nosuch"]  deny "read" "x/a" {}`, `f_test.hcl:1: the test "t" has the policy "nosuch", and there is none of that name among app, default, walls`},
		{`policies = ["app"]  deny "read" "y/a" {}`, "f_test.hcl:2: nothing is mounted at y/a"},
		{`policies = ["app"]  deny "reed" "x/a" {}`, `f_test.hcl:2: "reed" is not a capability`},
		{`policies = ["app"]  deny "write" "x/a" {}`, "f_test.hcl:2: write is create where"},
		{`policies = ["app"]  deny "sudo" "x/a" {}`, "nobody asks for sudo alone"},
	} {
		if results, err := run(t, b, c.body); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v %v, want %q", c.body, results, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(everything)
	f.Add(everythingJSON)
	f.Add("test \"a\" {\n  allow \"read\" {}\n}")
	f.Add(`{"test": {"a": {"deny": {"read": []}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse("f", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("the error does not begin with a place: %v", err)
			}
			return
		}
		b := NewBench(nil)
		_, _ = b.Run(file, question.New([]question.Mount{{Path: "x/"}}))
		for i := range file.Tests {
			for _, r := range file.Tests[i].Requests {
				if r.Path == "" || r.Line == 0 && !strings.HasPrefix(strings.TrimSpace(text), "{") {
					t.Errorf("a request without a place: %+v", r)
				}
			}
		}
	})
}
