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
