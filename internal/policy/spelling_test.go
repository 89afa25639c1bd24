package policy

import (
	"strings"
	"testing"
)

// The table of the package comment, and what it leaves unsaid. Rules are given
// as path=words; the request is a read of secret/data/app/db unless said.
func TestSpellings(t *testing.T) {
	read := Request{Path: "secret/data/app/db", Plain: "secret/app/db", Need: Read}
	write := Request{Path: "secret/data/app/db", Plain: "secret/app/db", Need: Update}
	list := Request{Path: "secret/metadata/app", Plain: "secret/app", Need: List}
	destroy := Request{Path: "secret/destroy/app/db", Plain: "secret/app/db", Need: Update, PlainNeed: Delete}
	odd := Request{Path: "secret/data/data/db", Plain: "secret/data/db", Need: Read}
	config := Request{Path: "secret/data/config", Plain: "secret/config", Need: Read}
	for _, c := range []struct {
		rules    string
		r        Request
		want     bool
		rule     string
		spelling string
	}{
		{"secret/data/app/*=read secret/app/*=list", read, true, "secret/data/app/*", "both"},
		{"secret/data/app/*=list secret/app/*=read", read, true, "secret/app/*", "both"},
		{"secret/data/app/*=read secret/app/*=deny", read, false, "secret/app/*", "both"},
		{"secret/data/app/*=deny secret/app/*=read", read, false, "secret/data/app/*", "both"},
		{"secret/data/app/*=deny secret/app/db=read", read, true, "secret/app/db", "plain"},
		{"secret/data/app/*=read secret/app/db=deny", read, false, "secret/app/db", "plain"},
		{"secret/data/app/db=read secret/app/*=deny", read, true, "secret/data/app/db", "wire"},
		{"secret/data/app/db=deny secret/app/*=read", read, false, "secret/data/app/db", "wire"},
		{"secret/data/app/db=read secret/app/db=deny", read, false, "secret/app/db", "both"},
		{"secret/data/app/db=read secret/app/db=update", write, true, "secret/app/db", "both"},
		{"secret/*=deny secret/app/*=read", read, true, "secret/app/*", "plain"},
		{"secret/*=deny secret/data/*=read", read, true, "secret/data/*", "wire"},
		{"secret/*=read", read, true, "secret/*", "wire"},
		{"*=read", read, true, "*", "wire"},
		{"secret/+/app/db=read secret/app/db=deny", read, false, "secret/app/db", "both"},
		{"secret/+/app/*=read secret/app/*=deny", read, false, "secret/app/*", "both"},
		{"secret/metadata/*=deny secret/app/+=read", read, true, "secret/app/+", "plain"},
		{"secret/app/+=read secret/data/app/*=deny", read, true, "secret/app/+", "plain"},
		{"secret/+/db=read", read, true, "secret/+/db", "plain"},
		{"secret/+/+/db=deny secret/+/db=read", read, false, "secret/+/+/db", "both"},
		{"secret/da*=read secret/app/*=deny", read, false, "secret/app/*", "plain"},
		{"secret/app/*=list", list, true, "secret/app/*", "plain"},
		{"secret/app=list", list, true, "secret/app", "plain"},
		{"secret/metadata/app=read secret/app/=list", list, true, "secret/app/", "both"},
		{"secret/metadata/app/*=deny secret/app/*=list", list, false, "secret/metadata/app/*", "both"},
		{"secret/*=deny secret/+/+=list", list, false, "secret/*", "wire"}, // the second matches secret/metadata/app
		{"secret/app/*=update", destroy, false, "secret/app/*", "plain"},
		{"secret/app/*=delete", destroy, true, "secret/app/*", "plain"},
		{"secret/destroy/app/*=delete", destroy, false, "secret/destroy/app/*", "wire"},
		{"secret/destroy/app/*=update", destroy, true, "secret/destroy/app/*", "wire"},
		{"secret/*=delete", destroy, false, "secret/*", "wire"},
		{"secret/*=update", destroy, true, "secret/*", "wire"},
		{"secret/data/db=read", odd, false, "", "wire"},
		{"secret/config=read", config, false, "", "wire"},
		{"secret/config/db=read", Request{Path: "secret/data/config/db", Plain: "secret/config/db", Need: Read}, true, "secret/config/db", "plain"},
		{"secret/data/db=deny secret/data/data/*=read", odd, true, "secret/data/data/*", "wire"},
	} {
		var text strings.Builder
		for rule := range strings.FieldsSeq(c.rules) {
			path, word, _ := strings.Cut(rule, "=")
			text.WriteString("path \"" + path + "\" { capabilities = [\"" + word + "\"] }\n")
		}
		acl := compileText(t, text.String())
		d := acl.Check(c.r)
		spelling := d.Spelling
		if d.Rule == "" {
			spelling = c.spelling
		}
		if d.Allowed != c.want || d.Rule != c.rule || spelling != c.spelling {
			t.Errorf("%s, %s %s: %v by %q (%s), want %v by %q (%s)", c.rules, c.r.Need, c.r.Path,
				d.Allowed, d.Rule, d.Spelling, c.want, c.rule, c.spelling)
		}
	}
}

// Merged across spellings, parameters and wrapping bounds count from both sides.
func TestSpellingsMergeBounds(t *testing.T) {
	acl := compileText(t, `
path "secret/data/app/*" {
  capabilities = ["read"]
  max_wrapping_ttl = "1m"
}
path "secret/app/*" {
  capabilities = ["update"]
  required_parameters = ["options"]
}`)
	one := compileText(t, `
path "secret/data/app/*" { capabilities = ["update"] }
path "secret/app/*" {
  capabilities = ["update"]
  denied_parameters = { "options" = [] }
}`)
	r := Request{Path: "secret/data/app/db", Plain: "secret/app/db", Need: Update, WrapTTL: 30e9, Params: params{"options", "{}"}}
	if d := acl.Check(r); !d.Allowed {
		t.Errorf("within both bounds: %s", d.Missing)
	}
	if one.Allows(r) {
		t.Error("allowed beyond the bound of one")
	}
	wrapped, bare := r, r
	wrapped.WrapTTL, bare.Params = 90e9, nil
	for _, r := range []Request{wrapped, bare} {
		if acl.Allows(r) {
			t.Errorf("%+v: allowed beyond the bounds", r)
		}
	}
}

func TestFindCut(t *testing.T) {
	for _, c := range []struct {
		path, plain string
		at, index   int
		ok          bool
	}{
		{"secret/data/app", "secret/app", 7, 1, true},
		{"team/a/metadata/x/", "team/a/x/", 7, 2, true},
		{"secret/metadata/", "secret/", 7, 1, true},
		{"data/data/x", "data/x", 5, 1, true},
		{"secret/data/app", "secret/other", 0, 0, false},
		{"secret/app", "secret/app", 0, 0, false},
		{"secret/x/y/app", "secret/app", 0, 0, false},
		{"data/app", "app", 0, 0, false},
		{"secret/data", "secret", 0, 0, false},
		{"", "", 0, 0, false},
	} {
		got, ok := findCut(c.path, c.plain)
		if ok != c.ok || got.at != c.at || got.index != c.index {
			t.Errorf("%s, %s: %+v %v", c.path, c.plain, got, ok)
		}
	}
}
