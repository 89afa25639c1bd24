package policy

import (
	"slices"
	"strings"
	"testing"
)

// caller resolves the names of templates; a name it has not is unknown.
type caller map[string]string

func (c caller) resolve(name string) (string, bool) {
	v, ok := c[strings.TrimPrefix(name, "identity.entity.")]
	return v, ok
}

const denying = `
path "secret/*" { capabilities = ["read", "list"] }
path "secret/app/db" { capabilities = ["read"] }
path "secret/{{identity.entity.name}}/{{identity.entity.metadata.team}}/x" { capabilities = ["deny"] }
`

// A rule that denies does not go away because of what is known of the caller.
func TestADenyWithoutAValueDeniesMore(t *testing.T) {
	p := mustParse(t, "t", denying)
	for _, c := range []struct {
		who     caller
		allowed []string
		denied  []string
	}{
		{caller{"name": "ann", "metadata.team": "blue"}, []string{"secret/app/db", "secret/ann/red/x"}, []string{"secret/ann/blue/x"}},
		{caller{"name": "ann"}, []string{"secret/app/db", "secret/bob/x", "secret/ann"}, []string{"secret/ann/blue/x", "secret/ann/red"}},
		{caller{"name": "ann", "metadata.team": ""}, []string{"secret/app/db"}, []string{"secret/ann/red"}},
		{caller{"name": "ann", "metadata.team": "a/b"}, []string{"secret/app/db"}, []string{"secret/ann/a/b/x"}},
		{caller{"name": "ann", "metadata.team": "{{x}}"}, []string{"secret/app/db"}, []string{"secret/ann/red"}},
		{caller{"name": "ann", "metadata.team": strings.Repeat("a", MaxPath)}, nil, []string{"secret/ann/red", "secret/app/db"}},
		{caller{"name": "*", "metadata.team": "blue"}, nil, []string{"secret/app/db", "secret/ann/blue/x"}},
		{caller{}, nil, []string{"secret/app/db", "secret/z"}},
	} {
		acl := Compile(p.Expand(c.who.resolve))
		for _, path := range c.allowed {
			if !acl.Allows(Request{Path: path, Need: Read}) {
				t.Errorf("%v may not read %s", c.who, path)
			}
		}
		for _, path := range c.denied {
			d := acl.Check(Request{Path: path, Need: Read})
			if d.Allowed || d.Granted != Deny || acl.Allows(Request{Path: path, Need: Read}) {
				t.Errorf("%v: %s is %+v", c.who, path, d)
			}
		}
	}
	// Nobody, whose templates nobody fills in, is denied the same.
	if Compile(p).Allows(Request{Path: "secret/app/db", Need: Read}) {
		t.Error("nobody may read it")
	}
}

func TestADenyWithoutAValueIsExplained(t *testing.T) {
	acl := Compile(mustParse(t, "t", denying).Expand(caller{"name": "ann"}.resolve))
	ask := Request{Path: "secret/ann/red", Need: Read}
	d := acl.Check(ask)
	if d.Policy != "t" || d.Line != 4 || d.Fix != "" || !strings.Contains(d.Missing, "no plain value") || !strings.Contains(d.Missing, "secret/ann/*") {
		t.Errorf("%+v", d)
	}
	e := acl.Explain(ask)
	if len(e.Rules) != 2 || !e.Rules[0].Decides || e.Rules[0].Line != 4 || e.Rules[1].Decides || !strings.Contains(e.Rules[1].Why, "below secret/ann/*") {
		t.Errorf("%+v", e.Rules)
	}
	if got := acl.Capabilities("secret/ann/red", ""); !slices.Equal(got, []string{"deny"}) {
		t.Errorf("capabilities %v", got)
	}
	if !acl.AnyBelow("secret/") || acl.AnyBelow("secret/ann/") {
		t.Error("what is below a prefix is told wrong")
	}
	if acl.Allows(Request{Path: "secret/ann", Need: List}) {
		t.Error("a list of what is denied is allowed")
	}
}

func TestADenyWithoutAValueInOtherPlaces(t *testing.T) {
	for _, c := range []struct{ rule, path, plain string }{
		{"kv/+/{{identity.entity.name}}/x", "kv/any/bob", ""},
		{"kv/{{identity.entity.name}}/x", "kv/data/bob/x", "kv/bob/x"},
		{"kv/data/{{identity.entity.name}}", "kv/data/bob/x", "kv/bob/x"},
		{"kv/team-{{identity.entity.name}}", "kv/team-bob", ""},
		{"{{identity.entity.name}}/*", "kv/any", ""},
		{"kv/bob*{{identity.entity.name}}", "kv/bob*x", ""},
	} {
		p := mustParse(t, "t", `path "kv/*" { capabilities = ["read"] }
path "kv/+/bob" { capabilities = ["read"] }
path "`+c.rule+`" { capabilities = ["deny"] }`)
		if Compile(p.Expand(caller{}.resolve)).Allows(Request{Path: c.path, Plain: c.plain, Need: Read}) {
			t.Errorf("%s does not deny %s", c.rule, c.path)
		}
	}
	// Conditions and expirations: one that may not count denies until it expired.
	p := mustParse(t, "t", `path "kv/*" { capabilities = ["read"] }
path "kv/{{identity.entity.name}}" { 
  capabilities = ["deny"] 
  expiration   = "2020-01-01T00:00:00Z"
}`)
	if !Compile(p.Expand(caller{}.resolve)).Allows(Request{Path: "kv/a", Need: Read}) {
		t.Error("a rule that expired denies")
	}
}
