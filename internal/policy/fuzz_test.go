package policy

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/fault"
)

// FuzzParse: whatever the text, Parse answers with a policy or fault.Invalid,
// and a policy can be compiled, linted, explained and formatted, which keeps its
// meaning and is stable.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/format/*.in", "testdata/lint/*.hcl", "testdata/explain/*.hcl"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			f.Add(readFile(f, file))
		}
	}
	for _, text := range []string{base, layer, bounded,
		`{"path": [{"a": [{"capabilities": ["read"], "denied_parameters": {"p": [1.50, {"x": [null]}]}}]}]}`,
		`path "{{identity.entity.id}}" { min_wrapping_ttl = 0x1F max_wrapping_ttl = "7d" expiration = 4102444800 }`,
		`path "\u00e9" { comment = "${a "b" c}" }`, `path "a" = {}`, `a = 1e999`, `path "a" { comment = <<-X
  y
  X
}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("fuzz", text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v is not fault.Invalid", err)
			}
			return
		}
		acl := Compile(p)
		Lint(p, []MountInfo{{Path: "secret/", Versioned: true}})
		for _, rule := range p.Rules[:min(len(p.Rules), 20)] {
			r := Request{Path: strings.ReplaceAll(strings.TrimSuffix(rule.Path, "*"), "+", "x"), Need: Read}
			if d := acl.Check(r); d != acl.Explain(r).Decision || d.Allowed != acl.Allows(r) {
				t.Fatalf("%s: %+v", r.Path, d)
			}
			acl.AnyBelow(r.Path)
		}
		out, err := Format(text)
		if err != nil {
			return // Format says so itself when the library would change the meaning
		}
		again, err := Parse("fuzz", out)
		if err != nil || !sameRules(p.Rules, again.Rules) {
			t.Fatalf("formatting changes the meaning: %v\n%s", err, out)
		}
	})
}

// FuzzMatch: patterns match as the regular expression that says the same, alone
// and through the tree.
func FuzzMatch(f *testing.F) {
	for _, c := range [][2]string{
		{"secret/*", "secret/a"}, {"secret/+/b", "secret/a/b"}, {"+", ""}, {"+/+x/*", "a/+x/"}, {"a//+", "a//"},
		{"a/+/b*", "a/x/bc/d"}, {"c++/+", "c++/x"}, {"*", ""}, {"", ""}, {"a*b*", "a*bc"},
	} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, path, request string) {
		if checkPath(path, 1) != nil || strings.HasPrefix(path, "/") || strings.HasPrefix(request, "/") ||
			strings.Contains(path, "{{") || !utf8.ValidString(path) || !utf8.ValidString(request) {
			return
		}
		want := refMatch(path, request)
		p := readPattern(path)
		acl := Compile(&Policy{Name: "p", Rules: []Rule{{Path: path, Capabilities: Read}}})
		if p.matches(request) != want || acl.Allows(Request{Path: request, Need: Read}) != want {
			t.Fatalf("%q on %q: pattern %v, tree %v, want %v", path, request, p.matches(request), !want, want)
		}
	})
}
