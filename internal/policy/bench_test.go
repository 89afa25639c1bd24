package policy

import (
	"fmt"
	"strings"
	"testing"
)

// manyPolicies makes 50 policies of 50 rules of every sort.
func manyPolicies(t testing.TB) []*Policy {
	var policies []*Policy
	for p := range 50 {
		var text strings.Builder
		for r := range 50 {
			path := fmt.Sprintf([]string{
				"secret/data/team%d/app%d/*", "secret/team%d/app%d/db", "secret/metadata/team%d/app%d/*",
				"secret/+/team%d/app%d", "secret/data/team%d/+/app%d*", "auth/userpass/users/team%d-%d",
			}[r%6], p, r)
			fmt.Fprintf(&text, "path %q { capabilities = [\"create\", \"read\", \"update\", \"list\"] }\n", path)
		}
		policies = append(policies, mustParse(t, fmt.Sprintf("team%d", p), text.String()))
	}
	return policies
}

func BenchmarkCheck(b *testing.B) {
	acl := Compile(manyPolicies(b)...)
	for _, c := range []struct {
		name string
		r    Request
	}{
		{"prefix", Request{Path: "secret/data/team25/app24/db/main", Plain: "secret/team25/app24/db/main", Need: Read}},
		{"plain exact", Request{Path: "secret/data/team25/app25/db", Plain: "secret/team25/app25/db", Need: Read}},
		{"plus", Request{Path: "secret/data/team25/app27", Plain: "secret/team25/app27", Need: Read}},
		{"plus and star", Request{Path: "secret/data/team25/any/app28/x", Plain: "secret/team25/any/app28/x", Need: Read}},
		{"not versioned", Request{Path: "auth/userpass/users/team25-29", Need: Update}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := acl.Check(c.r); !d.Allowed {
					b.Fatal(d.Missing)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	policies := manyPolicies(b)
	b.ReportAllocs()
	for b.Loop() {
		Compile(policies...)
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	acl := Compile(manyPolicies(t)...)
	for _, r := range []Request{
		{Path: "secret/data/team25/app24/db/main", Plain: "secret/team25/app24/db/main", Need: Read},
		{Path: "secret/data/team25/app25/db", Plain: "secret/team25/app25/db", Need: Read},
		{Path: "secret/data/team25/app27", Plain: "secret/team25/app27", Need: Read},
		{Path: "secret/metadata/team25/app26/", Plain: "secret/team25/app26/", Need: List},
		{Path: "secret/data/team25/any/app28/x", Plain: "secret/team25/any/app28/x", Need: Read},
	} {
		if n := testing.AllocsPerRun(100, func() {
			if !acl.Check(r).Allowed {
				t.Fatal(r.Path)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", r.Path, n)
		}
	}
}
