package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

func TestParse(t *testing.T) {
	p := mustParse(t, "app", `name = "other"
# a comment
path "/secret/app/*" {
  capabilities = ["read", "list"]
  policy = "write"
  comment = "for the app"
  min_wrapping_ttl = "1m"
  max_wrapping_ttl = 3600
  allowed_parameters = { "Key" = ["a*", 1, 2.5, true, {"x" = 1}] }
  required_parameters = ["KEY"]
  expiration = "2099-01-02T03:04:05Z"
}
path "x" { policy = "deny", capabilities = ["read", "why"] }
`)
	if p.Name != "app" || len(p.Rules) != 2 || p.Source == "" {
		t.Fatalf("%+v", p)
	}
	r := p.Rules[0]
	if r.Path != "secret/app/*" || r.Line != 3 || r.Capabilities != Create|Read|Update|Delete|List ||
		r.Comment != "for the app" || r.MinWrappingTTL != time.Minute || r.MaxWrappingTTL != time.Hour ||
		r.RequiredParameters[0] != "key" || r.Expiration.Year() != 2099 {
		t.Errorf("%+v", r)
	}
	var values []string
	for _, v := range r.AllowedParameters["key"] {
		values = append(values, v.String())
	}
	if got := strings.Join(values, " "); got != `"a*" 1 2.5 true {"x":1}` {
		t.Errorf("values %s", got)
	}
	if r := p.Rules[1]; r.Capabilities != Deny || r.Written != Deny|Read|Why {
		t.Errorf("%+v", r)
	}
}

func TestParseJSON(t *testing.T) {
	for _, text := range []string{
		`{"path": {"a/*": {"capabilities": ["read"], "denied_parameters": {"p": [false, null]}}, "b": {"policy": "read"}}}`,
		` {"name": "x", "path": [{"a/*": {"capabilities": ["read"], "denied_parameters": {"p": [false, null]}}}, {"b": [{"policy": "read"}]}]}`,
		`{"path": [{"a/*": [{"capabilities": ["read"], "denied_parameters": [{"p": [false, null]}]}]}, {"b": [{"policy": "read"}]}]}`,
	} {
		p := mustParse(t, "json", text)
		if len(p.Rules) != 2 || p.Rules[0].Path != "a/*" || p.Rules[0].Capabilities != Read || p.Rules[1].Capabilities != Read|List {
			t.Errorf("%+v", p.Rules)
		}
		if got := p.Rules[0].DeniedParameters["p"]; len(got) != 2 || got[0].String() != "false" || got[1].String() != "null" {
			t.Errorf("%v", got)
		}
	}
	p := mustParse(t, "json", "{\n\"path\": {\n\"a\": {},\n\"a\": {}\n}}")
	if len(p.Rules) != 2 || p.Rules[0].Line != 3 || p.Rules[1].Line != 4 {
		t.Errorf("%+v", p.Rules)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`name {}`, "line 1: name must be a string"},
		{"\npaht \"x\" {}", `line 2: "paht" is not a key of a policy`},
		{"path \"x\" {\n  capabilites = []\n}", `line 2: "capabilites" is not a key of a path block`},
		{"path \"x\" {\n  capabilities = [\"raed\"]\n}", `line 2: "raed" is not a capability`},
		{`path "x" { capabilities = "read" }`, "must be a list of strings, not a string"},
		{`path "x" { capabilities = [1] }`, "must be a list of strings, and holds a number"},
		{`path "x" { policy = "admin" }`, `policy "admin" is not one of`},
		{`path "x" { policy = "read" policy = "read" }`, "policy is set twice"},
		{"path \"a\" {\nallowed_parameters = { x = [{ a = 1\na = 2 }] } }", "line 3: allowed_parameters: a value of \"x\" names \"a\" twice"},
		{`path "a/+*" {}`, "+* is not allowed"},
		{`path {}`, "a path block names its path"},
		{`path "a" "b" {}`, "one path, not 2"},
		{`path = "a"`, "a path block names its path"},
		{`path "a" { min_wrapping_ttl = "10s" max_wrapping_ttl = "5s" }`, "less than min_wrapping_ttl"},
		{`path "a" { min_wrapping_ttl = "-10s" }`, "not between 0 and"},
		{`path "a" { min_wrapping_ttl = 99999999999 }`, "not between 0 and"},
		{`path "a" { min_wrapping_ttl = 99999999999999999999999 }`, "is not seconds"},
		{`path "a" { min_wrapping_ttl = "soon" }`, "is not seconds or a duration"},
		{`path "a" { min_wrapping_ttl = true }`, "not a bool"},
		{`path "a" { expiration = "tomorrow" }`, "must be a time"},
		{`path "a" { allowed_parameters = ["x"] }`, "must be an object"},
		{`path "a" { allowed_parameters = { x = "y" } }`, "must be a list of values"},
		{`path "a" { allowed_parameters = { x = [] X = [] } }`, "twice"},
		{`path "a" { mfa_methods = ["m"] }`, "not enforced by Coffer"},
		{`path "a" { control_group = { ttl = "1h" } }`, "not enforced by Coffer"},
		{`path "a" { comment = <<EOT
x
EOT
}`, "heredoc"},
		{`path "{{identity.entity.nam}}" {}`, "is not a template"},
		{`path "a/{{identity.entity.id}/x" {}`, "must come in pairs"},
		{`path "a/}}" {}`, "must come in pairs"},
		{"path \"a\" {\n  capabilities = [\"read\"\n", "line "},
		{"path \"a", "line 1"},
		{`{"path": {"a": {"capabilities": ["read"]}}} x`, "line 1"},
		{`{"path": {"a": {"capabilities": ["read"],` + "\n" + `"capabilities": ["deny"]}}}`, "line 2: capabilities is set twice"},
		{`{"path": "a"}`, "must be an object of rules"},
		{`{"path": {"a": 1}}`, "must be a block, not a number"},
		{`{"path": `, "ends too early"},
		{`{"path": nil}`, "not JSON"},
		{"path \"\xff\" {}", "not valid UTF-8"},
		{`path "` + strings.Repeat("a", MaxPath+1) + `" {}`, "at most 2048 bytes"},
		{`path "` + strings.Repeat("+/", MaxSegments) + `" {}`, "segments"},
	} {
		p, err := Parse("bad", c.text)
		if err == nil {
			t.Errorf("%s: parsed to %+v", c.text, p.Rules)
			continue
		}
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "policy bad: ") {
			t.Errorf("%s:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

// What would cost much is refused, and soon.
func TestParseBombs(t *testing.T) {
	var rules, values strings.Builder
	for range MaxRules + 1 {
		rules.WriteString("path \"a\" {}\n")
	}
	values.WriteString(`path "a" { allowed_parameters = { "x" = [`)
	for range MaxValues + 1 {
		values.WriteString("1,")
	}
	values.WriteString("] } }")
	for name, text := range map[string]string{
		"huge":          strings.Repeat("#", MaxSource+1),
		"rules":         rules.String(),
		"values":        values.String(),
		"HCL lists":     "a = " + strings.Repeat("[", MaxSource-10),
		"HCL objects":   strings.Repeat("a {", MaxSource/3-1),
		"JSON lists":    `{"path":` + strings.Repeat("[", MaxSource-10),
		"JSON objects":  strings.Repeat(`{"a":`, MaxSource/5-1),
		"keys":          strings.Repeat("a ", MaxSource/2-1),
		"open string":   `path "` + strings.Repeat("a", MaxSource-10),
		"interpolation": `path "` + strings.Repeat("${", MaxSource/2-10),
		"open comment":  "/*" + strings.Repeat("*", MaxSource-10),
	} {
		start := time.Now()
		_, err := Parse(name, text)
		if err == nil || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if len(err.Error()) > 1024 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
}

// The most rules of the costliest kinds are compiled, linted and decided.
func TestManyRules(t *testing.T) {
	var text strings.Builder
	for i := range MaxRules {
		// Every mixture of + and letters: twelve segments hold the bits of i.
		for bit := range 13 {
			text.WriteString([]string{"+/", "a/"}[i>>bit&1])
		}
		text.WriteString("\n")
	}
	p := &Policy{Name: "many"}
	for path := range strings.Lines(text.String()) {
		p.Rules = append(p.Rules, Rule{Path: strings.TrimSpace(path) + "*", Capabilities: Deny, Written: Deny})
	}
	start := time.Now()
	acl := Compile(p)
	for range 100 {
		if acl.Allows(Request{Path: strings.Repeat("a/", 60), Need: Read}) {
			t.Fatal("allowed")
		}
	}
	Lint(p, nil)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestExpand(t *testing.T) {
	p := mustParse(t, "t", `
path "secret/{{identity.entity.name}}/*" { capabilities = ["read"] }
path "secret/{{ identity.entity.metadata.team }}/x" { capabilities = ["read"] }
path "secret/shared" { capabilities = ["read"] }
`)
	if !p.Templated() {
		t.Fatal("no template seen")
	}
	if acl := Compile(p); acl.Allows(Request{Path: "secret/{{identity.entity.name}}/x", Need: Read}) || !acl.Allows(Request{Path: "secret/shared", Need: Read}) {
		t.Error("a template matched as text")
	}
	for _, c := range []struct {
		name, team string
		rules      int
	}{
		{"ann", "blue", 3}, {"ann", "", 2}, {"a/b", "*", 1}, {"a+", "+", 1}, {"{{x}}", "a\n", 1}, {"..", ".", 1},
	} {
		out := p.Expand(func(name string) (string, bool) {
			return map[string]string{"identity.entity.name": c.name, "identity.entity.metadata.team": c.team}[name], true
		})
		if len(out.Rules) != c.rules || out.Templated() {
			t.Errorf("%+v: %+v", c, out.Rules)
		}
		if c.rules == 3 && out.Rules[0].Path != "secret/ann/*" {
			t.Errorf("%+v", out.Rules[0])
		}
	}
	if out := p.Expand(func(string) (string, bool) { return "", false }); len(out.Rules) != 1 {
		t.Errorf("unknown names left %+v", out.Rules)
	}
}
