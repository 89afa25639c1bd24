package policy

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// params is a ParamSource for tests: name, JSON text, name, JSON text, …
type params []string

func (p params) Names() []string {
	var names []string
	for i := 0; i < len(p); i += 2 {
		names = append(names, p[i])
	}
	return names
}

func (p params) Value(name string) ([]byte, bool) {
	for i := 0; i < len(p); i += 2 {
		if strings.EqualFold(p[i], name) {
			return []byte(p[i+1]), true
		}
	}
	return nil, false
}

func mustParse(t testing.TB, name, text string) *Policy {
	t.Helper()
	p, err := Parse(name, text)
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, text)
	}
	return p
}

func compileText(t testing.TB, texts ...string) *ACL {
	t.Helper()
	var policies []*Policy
	for i, text := range texts {
		policies = append(policies, mustParse(t, "p"+string(rune('1'+i)), text))
	}
	return Compile(policies...)
}

const base = `
path "dev/*" { policy = "sudo" }
path "stage/*" { policy = "write" }
path "stage/aws/*" {
	policy = "read"
	capabilities = ["update", "sudo"]
}
path "stage/aws/policy/*" { policy = "sudo" }
path "prod/*" { policy = "read" }
path "prod/aws/*" { policy = "deny" }
path "sys/*" { policy = "deny" }
path "foo/bar" { capabilities = ["read", "create", "sudo"] }
path "baz/quux" { capabilities = ["read", "create", "patch"] }
path "test/+/segment" { capabilities = ["read"] }
path "+/segment/at/front" { capabilities = ["read"] }
path "test/segment/at/end/+" { capabilities = ["read"] }
path "test/segment/at/end/v2/+/" { capabilities = ["read"] }
path "test/+/wildcard/+/*" { capabilities = ["read"] }
path "1/2/*" { capabilities = ["create"] }
path "1/2/+" { capabilities = ["read"] }
path "1/2/+/+" { capabilities = ["update"] }
path "scan/it" { capabilities = ["scan"] }
`

const layer = `
path "dev/hide/*" { policy = "deny" }
path "stage/aws/policy/*" {
	policy = "deny"
	# this has no effect
	capabilities = ["read", "update", "sudo"]
}
path "prod/*" { policy = "write" }
path "sys/seal" { policy = "sudo" }
path "foo/bar" { capabilities = ["deny"] }
path "baz/quux" { capabilities = ["deny"] }
`

func TestCheck(t *testing.T) {
	single, layered := compileText(t, base), compileText(t, base, layer)
	for _, c := range []struct {
		need        Capability
		path        string
		one, two    bool // allowed by base alone, by base and layer
		sudo, sudo2 bool // the same with sudo needed too
	}{
		{Read, "root", false, false, false, false},
		{Read, "dev/foo", true, true, true, true},
		{Read, "/dev/foo", true, true, true, true},
		{Update, "dev/hide/foo", true, false, true, false},
		{Delete, "stage/foo", true, true, false, false},
		{List, "stage/aws/foo", true, true, true, true},
		{Update, "stage/aws/policy/foo", true, false, true, false},
		{Delete, "prod/foo", false, true, false, false},
		{Read, "prod/foo", true, true, false, false},
		{Read, "prod/aws/foo", false, false, false, false},
		{Update, "sys/seal", false, true, false, true},
		{Read, "sys/status", false, false, false, false},
		{Read, "foo/bar", true, false, true, false},
		{List, "foo/bar", false, false, false, false},
		{Create, "foo/bar", true, false, true, false},
		{Patch, "baz/quux", true, false, false, false},
		{Update, "baz/quux", false, false, false, false},
		{Scan, "scan/it", true, true, false, false},
		{Deny, "prod/aws/foo", false, false, false, false},
		{0, "dev/foo", false, false, false, false},

		{Read, "test/foo/bar/segment", false, false, false, false},
		{Read, "test/foo/segment", true, true, false, false},
		{Read, "test/segment/at/frond", false, false, false, false},
		{Read, "test/segment/at/front", true, true, false, false},
		{Read, "test/segment/at/end/foo", true, true, false, false},
		{Read, "test/segment/at/end/foo/", false, false, false, false},
		{Read, "test/segment/at/end/v2/foo/", true, true, false, false},
		{Read, "test/segment/wildcard/at/foo/", true, true, false, false},
		{Read, "test/segment/wildcard/at/end", true, true, false, false},
		{Read, "test/segment/wildcard/at", false, false, false, false},
		{Read, "1/2/3/4", false, false, false, false},
		{Read, "1/2/3", true, true, false, false},
		{Update, "1/2/3", false, false, false, false},
		{Update, "1/2/3/4", true, true, false, false},
		{Create, "1/2/3/4/5", true, true, false, false},
	} {
		got := [4]bool{}
		for i := range got {
			acl := []*ACL{single, layered}[i%2]
			r := Request{Path: c.path, Need: c.need, Sudo: i > 1}
			d := acl.Check(r)
			if got[i] = d.Allowed; acl.Allows(r) != d.Allowed {
				t.Errorf("%s %s: Allows and Check disagree", c.need, c.path)
			}
			if d.Allowed != (d.Missing == "") {
				t.Errorf("%s %s: allowed %v, missing %q", c.need, c.path, d.Allowed, d.Missing)
			}
		}
		if want := [4]bool{c.one, c.two, c.sudo, c.sudo2}; got != want {
			t.Errorf("%s %s: got %v, want %v", c.need, c.path, got, want)
		}
	}
}

// Each case has a rule that grants read and a higher one that grants update.
func TestPriority(t *testing.T) {
	for _, c := range []struct{ path, lower, higher string }{
		{"foo/bar/bar/baz", "+/*", "*"}, // fewer + segments
		{"foo/bar/bar/baz", "+/*", "foo/+/*"},
		{"foo/bar/bar/baz", "foo/+/+/*", "foo/+/bar/baz"},
		{"foo/bar/bar/baz", "foo/+/+/baz", "foo/+/bar/baz"},
		{"foo/(ar/(ar/baz", "foo/+/(ar/baz", "foo/(ar/+/baz"},
		{"foo/bar/bar/baz", "foo/bar/+/baz*", "foo/bar/+/baz"},
		{"foo/bar/bar/baz", "foo/bar/+/b*", "foo/bar/+/ba*"},
		{"foo/bar", "foo/*", "foo/bar"},
		{"foo/bar", "foo/+", "foo/bar"},
		{"foo/bar", "foo/*", "foo/+"},
		{"foo/bar", "foo/+", "foo/b*"},
		{"foo/bar", "fo*", "foo/*"},
		{"secret/a/b/foo/c", "secret/+/+/foo/*", "secret/*"}, // the documentation's own example
		{"a/b/b/c/d", "a/+/b/+/d", "a/+/b/c/+"},              // neither but the order of text
		{"c++/x/y", "c++/+/y", "c++/x*"},                     // Vault takes the first + of any kind
	} {
		for _, order := range [][]string{{c.lower, c.higher}, {c.higher, c.lower}} {
			var text strings.Builder
			for _, path := range order {
				word := "read"
				if path == c.higher {
					word = "update"
				}
				text.WriteString("path \"" + path + "\" { capabilities = [\"" + word + "\"] }\n")
			}
			acl := compileText(t, text.String())
			if !acl.Allows(Request{Path: c.path, Need: Update}) || acl.Allows(Request{Path: c.path, Need: Read}) {
				t.Errorf("%s: %s is not above %s", c.path, c.higher, c.lower)
			}
		}
	}
}

func TestList(t *testing.T) {
	for _, c := range []struct {
		rules string // path=word; path=word
		path  string
		want  bool
	}{
		{"foo=list", "foo/", true},
		{"foo=list", "foo", true},
		{"foo/=list", "foo", true},
		{"foo/*=list", "foo", true},
		{"foo/*=list", "foo/bar", true},
		{"foo/+=list", "foo/bar", false}, // foo/bar/ has three segments …
		{"foo/+=list; x=read", "foo/", true},
		{"foo/+/=list", "foo/bar", true},
		{"foo=list; foo/=read", "foo", false}, // the slash first
		{"foo=list; foo/*=read", "foo", true}, // exact first
		{"fo*=list; foo/*=read", "foo", false},
		{"foo/b=read", "foo/", false},
	} {
		var text strings.Builder
		for rule := range strings.SplitSeq(c.rules, "; ") {
			path, word, _ := strings.Cut(rule, "=")
			text.WriteString("path \"" + path + "\" { capabilities = [\"" + word + "\"] }\n")
		}
		want := c.want
		if c.rules == "foo/+=list" {
			// … but Vault asks again without the slash.
			want = true
		}
		if got := compileText(t, text.String()).Allows(Request{Path: c.path, Need: List}); got != want {
			t.Errorf("%s: list %s is %v", c.rules, c.path, got)
		}
	}
}

const bounded = `
path "dev/*" {
	policy = "write"
	allowed_parameters = { "zip" = [] }
}
path "foo/bar" {
	policy = "write"
	denied_parameters = { "zap" = [] }
	min_wrapping_ttl = 300
	max_wrapping_ttl = "400"
}
path "foo/baz" {
	policy = "write"
	allowed_parameters = { "hello" = [] }
	denied_parameters = { "zap" = [] }
	min_wrapping_ttl = "5m"
}
path "working/phone" {
	policy = "write"
	max_wrapping_ttl = 400
}
path "broken/phone" {
	policy = "write"
	allowed_parameters = { "steve" = [] }
	denied_parameters = { "steve" = [] }
}
path "hello/world" {
	policy = "write"
	allowed_parameters = { "*" = [] }
	denied_parameters = { "*" = [] }
}
path "tree/fort" {
	policy = "write"
	allowed_parameters = { "*" = [] }
	denied_parameters = { "foo" = [] }
}
path "fruit/apple" {
	policy = "write"
	allowed_parameters = { "pear" = [] }
	denied_parameters = { "*" = [] }
}
path "cold/weather" {
	policy = "write"
	allowed_parameters = {}
	denied_parameters = {}
}
path "var/aws" {
	policy = "write"
	allowed_parameters = { "*" = [] }
	denied_parameters = { "soft" = [] "warm" = [] "kitty" = [] }
}
path "var/req" {
	policy = "write"
	required_parameters = ["Foo"]
}
path "v/glob" {
	policy = "write"
	denied_parameters = { "deny" = ["bad*"] }
}
path "v/both" {
	policy = "write"
	allowed_parameters = { "ALLOW" = ["good"] }
	denied_parameters = { "dEny" = ["bad"] }
}
path "v/multi" {
	policy = "write"
	allowed_parameters = {
		"allow_multi" = ["good", "good1", "good2", "*good3", "*mid*"]
		"allow" = ["good"]
	}
	denied_parameters = { "deny_multi" = ["bad", "bad1", "bad2"] }
}
path "v/types" {
	policy = "write"
	allowed_parameters = {
		"map" = [{"good" = "one"}]
		"int" = [1, 2, 0x10]
		"bool" = [false]
		"star" = ["*"]
	}
}
path "v/star" {
	policy = "write"
	allowed_parameters = { "*" = [] "foo" = [] "bar" = [false] }
}
path "v/kelvin" {
	policy = "write"
	denied_parameters = { "task" = [] }
}
`

func TestBounds(t *testing.T) {
	acl := compileText(t, bounded)
	for _, c := range []struct {
		path   string
		wrap   int // seconds
		params params
		want   bool
	}{
		{"dev/ops", 0, params{"zip", `""`}, true},
		{"dev/ops", 0, nil, true},
		{"dev/ops", 0, params{"zap", `""`}, false},
		{"foo/bar", 0, params{"zip", `""`}, false},
		{"foo/bar", 50, params{"zip", `""`}, false},
		{"foo/bar", 450, params{"zip", `""`}, false},
		{"foo/bar", 350, params{"zip", `""`}, true},
		{"foo/bar", 350, params{"zap", `""`}, false},
		{"foo/baz", 0, params{"hello", `""`}, false},
		{"foo/baz", 50, params{"hello", `""`}, false},
		{"foo/baz", 450, params{"hello", `""`}, true},
		{"broken/phone", 0, params{"steve", `""`}, false},
		{"working/phone", 0, nil, false},
		{"working/phone", 450, nil, false},
		{"working/phone", 350, nil, true},
		{"hello/world", 0, params{"one", `""`}, false},
		{"hello/world", 0, nil, true},
		{"tree/fort", 0, params{"one", `""`}, true},
		{"tree/fort", 0, params{"foo", `""`}, false},
		{"fruit/apple", 0, params{"pear", `""`}, false},
		{"cold/weather", 0, params{"four", `""`}, true},
		{"var/aws", 0, params{"cold", `1`, "warm", `1`}, false},
		{"var/req", 0, params{"cold", `1`}, false},
		{"var/req", 0, params{"cold", `1`, "foo", `1`}, true},
		{"var/req", 0, params{"FOO", `1`}, true},
		{"var/req", 0, nil, false},
		{"v/glob", 0, params{"deny", `"bad glob"`}, false},
		{"v/glob", 0, params{"deny", `"good"`}, true},
		{"v/glob", 0, params{"deny", `null`}, true},
		{"v/glob", 0, params{"deny", `"b\u0061d"`}, false},
		{"v/both", 0, params{"aLLow", `"good"`}, true},
		{"v/both", 0, params{"aLLow", `"bad"`}, false},
		{"v/both", 0, params{"deNy", `"bad"`, "allow", `"good"`}, false},
		{"v/both", 0, params{"deny", `"good"`}, false},
		{"v/both", 0, params{"neither", `"bad"`}, false},
		{"v/both", 0, params{"allow", `null`}, false},
		{"v/both", 0, params{"allow", `"good"`, "ALLOW", `"bad"`}, false},
		{"v/multi", 0, params{"allow_multi", `"good2"`}, true},
		{"v/multi", 0, params{"allow_multi", `"glob good2"`}, false},
		{"v/multi", 0, params{"allow_multi", `"glob good3"`}, true},
		{"v/multi", 0, params{"allow_multi", `"amidst"`}, true},
		{"v/multi", 0, params{"allow_multi", `"good1"`, "allow", `"good"`}, true},
		{"v/multi", 0, params{"deny_multi", `"good"`, "allow_multi", `"good2"`}, false},
		{"v/types", 0, params{"map", `{"good": "one"}`}, true},
		{"v/types", 0, params{"map", `{"bad": "one"}`}, false},
		{"v/types", 0, params{"int", `1`}, true},
		{"v/types", 0, params{"int", `1.0`}, true},
		{"v/types", 0, params{"int", `16`}, true},
		{"v/types", 0, params{"int", `3`}, false},
		{"v/types", 0, params{"int", `"1"`}, false},
		{"v/types", 0, params{"bool", `false`}, true},
		{"v/types", 0, params{"bool", `true`}, false},
		{"v/types", 0, params{"star", `"*"`}, true},
		{"v/types", 0, params{"star", `"any"`}, false},
		{"v/types", 0, params{"int", `{`}, false},
		{"v/star", 0, params{"anything", `true`}, true},
		{"v/star", 0, params{"foo", `true`}, true},
		{"v/star", 0, params{"bar", `false`}, true},
		{"v/star", 0, params{"bar", `true`}, false},
		{"v/kelvin", 0, params{"tas\u212a", `1`}, false}, // folds to task
	} {
		for _, need := range []Capability{Create, Update} {
			r := Request{Path: c.path, Need: need, WrapTTL: time.Duration(c.wrap) * time.Second}
			if c.params != nil {
				r.Params = c.params
			}
			if d := acl.Check(r); d.Allowed != c.want {
				t.Errorf("%s %s wrap %d %q: allowed %v, missing %q", need, c.path, c.wrap, c.params, d.Allowed, d.Missing)
			}
		}
	}
	if !acl.Allows(Request{Path: "dev/x", Need: Delete, Params: params{"zap", "1"}}) {
		t.Error("parameters bind a delete")
	}
}

func TestMerge(t *testing.T) {
	acl := compileText(t, `
path "p/deny" { capabilities = ["read"] }
path "p/deny" { capabilities = ["deny"] }
path "p/union" {
	capabilities = ["create"]
	required_parameters = ["a"]
	max_wrapping_ttl = 300
	min_wrapping_ttl = 100
}
path "p/any" {
	policy = "write"
	allowed_parameters = { "x" = [1], "y" = [1] }
}
path "p/ttl" {
	policy = "write"
	min_wrapping_ttl = 100
}
`, `
path "p/union" {
	capabilities = ["read"]
	required_parameters = ["b"]
	max_wrapping_ttl = 200
	min_wrapping_ttl = 50
}
path "p/any" {
	policy = "write"
	allowed_parameters = { "x" = [], "y" = [2] }
}
path "p/ttl" {
	policy = "write"
	max_wrapping_ttl = 50
}
`)
	for _, c := range []struct {
		r    Request
		want bool
	}{
		{Request{Path: "p/deny", Need: Read}, false},
		{Request{Path: "p/union", Need: Create, WrapTTL: 60 * time.Second, Params: params{"a", "1", "b", "1"}}, true},
		{Request{Path: "p/union", Need: Read, WrapTTL: 60 * time.Second, Params: params{"a", "1", "b", "1"}}, true},
		{Request{Path: "p/union", Need: Create, WrapTTL: 60 * time.Second, Params: params{"a", "1"}}, false},
		{Request{Path: "p/union", Need: Create, WrapTTL: 250 * time.Second, Params: params{"a", "1", "b", "1"}}, false},
		{Request{Path: "p/any", Need: Create, Params: params{"x", "7", "y", "1"}}, true},
		{Request{Path: "p/any", Need: Create, Params: params{"x", "7", "y", "2"}}, true},
		{Request{Path: "p/any", Need: Create, Params: params{"y", "3"}}, false},
		{Request{Path: "p/ttl", Need: Create, WrapTTL: 50 * time.Second}, false},
		{Request{Path: "p/ttl", Need: Create, WrapTTL: 100 * time.Second}, false},
	} {
		if d := acl.Check(c.r); d.Allowed != c.want {
			t.Errorf("%+v: allowed %v, missing %q", c.r, d.Allowed, d.Missing)
		}
	}
}

func TestRoot(t *testing.T) {
	root := Root()
	d := root.Check(Request{Path: "sys/raw/x", Need: Update, Sudo: true})
	if !root.IsRoot() || !d.Allowed || d.Policy != "root" || !root.Allows(Request{Path: "x", Need: Delete}) || !root.AnyBelow("x/") {
		t.Errorf("root: %+v", d)
	}
	if got := root.Capabilities("x", ""); !slices.Equal(got, []string{"root"}) {
		t.Errorf("root capabilities: %v", got)
	}
	none := Compile(nil)
	if none.IsRoot() || none.Allows(Request{Path: "x", Need: Read}) || none.AnyBelow("") {
		t.Error("no policy allows something")
	}
}

func TestCapabilities(t *testing.T) {
	acl := compileText(t, base, `path "secret/app/*" { capabilities = ["read", "list", "why"] }`)
	for _, c := range []struct{ path, plain, want string }{
		{"dev", "", "deny"},
		{"dev/", "", "create delete list read sudo update"},
		{"stage/aws/test", "", "list read sudo update"},
		{"prod/aws/x", "", "deny"},
		{"nothing", "", "deny"},
		{"foo/bar/", "", "create read sudo"},
		{"secret/data/app/db", "secret/app/db", "list read why"},
		{"secret/data/app/db", "", "deny"},
	} {
		if got := strings.Join(acl.Capabilities(c.path, c.plain), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
	}
}

func TestAnyBelow(t *testing.T) {
	for _, c := range []struct {
		rule, word, mount string
		want              bool
	}{
		{"+", "read", "foo/", true},
		{"+/*", "read", "foo/", true},
		{"foo/+/+/*", "read", "foo/", true},
		{"foo/+/+/*", "read", "foo/bar/", true},
		{"foo/+/+/*", "read", "foo/bar/bar/baz/", true},
		{"foo/+/bar/baz", "read", "foo/bar/bar/baz/", true},
		{"foo/+/bar/baz", "read", "foo/bar/other/", false},
		{"foo/bar/+/b*", "read", "foo/bar/bar/baz/", true},
		{"foo/+", "read", "foo/", true},
		{"foo/+", "deny", "foo/", false},
		{"foo/a/b/c", "read", "foo/", true},
		{"foo/a/b/c", "read", "foo/b/", false},
		{"foo/a/b/c", "deny", "foo/", false},
		{"foo/a/*", "read", "foo/", true},
		{"*", "read", "foo/", true},
		{"fo*", "read", "foo/", true},
		{"foo", "read", "foo/", true},
		{"food/x", "read", "foo/", false},
		{"f/x", "read", "foo/", false},
	} {
		acl := compileText(t, `path "`+c.rule+`" { capabilities = ["`+c.word+`"] }`)
		if got := acl.AnyBelow(c.mount); got != c.want {
			t.Errorf("%s %s below %s: %v", c.rule, c.word, c.mount, got)
		}
	}
}

func TestExpiration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		acl := compileText(t, `
path "secret/*" { capabilities = ["list"] }
path "secret/x" {
	capabilities = ["read"]
	expiration = "`+end+`"
}`)
		r := Request{Path: "secret/x", Need: Read}
		if !acl.Allows(r) {
			t.Error("not allowed before the end")
		}
		time.Sleep(time.Hour)
		if d := acl.Check(r); d.Allowed || d.Rule != "secret/*" {
			t.Errorf("after the end: %+v", d)
		}
		if e := acl.Explain(r); !strings.Contains(strings.Join(e.Lines(), "\n"), "it expired") {
			t.Errorf("explanation says nothing of it: %q", e.Lines())
		}
	})
}
