package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Each limit accepts what is just below it.
func TestPoliciesAtTheirLimits(t *testing.T) {
	var rules, values strings.Builder
	for i := range MaxRules {
		fmt.Fprintf(&rules, "path \"s/%d\" { policy = \"read\" }\n", i)
	}
	values.WriteString(`path "a" { allowed_parameters = { "x" = [`)
	for i := range MaxValues - 1 {
		fmt.Fprintf(&values, "%d,", i%10)
	}
	values.WriteString("] } }")
	for name, text := range map[string]string{
		"bytes":    `path "a" {}` + "\n#" + strings.Repeat("a", MaxSource-len(`path "a" {}`)-2),
		"rules":    rules.String(),
		"values":   values.String(),
		"path":     `path "` + strings.Repeat("a", MaxPath) + `" {}`,
		"segments": `path "` + strings.Repeat("+/", MaxSegments-1) + `" {}`,
	} {
		if _, err := Parse("p", text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A policy of every mixture of + and a in twelve segments is decided in time that is
// linear in its size, whatever path is asked for; so are thousands of rules of nothing
// but +, and of a + behind many letters.
func TestPlusBombs(t *testing.T) {
	const segments = 12
	var mixed, rows, long strings.Builder
	for i := range 1 << segments {
		parts := make([]string, segments)
		for j := range parts {
			if parts[j] = "a"; i&(1<<j) != 0 {
				parts[j] = "+"
			}
		}
		fmt.Fprintf(&mixed, "path %q { policy = \"read\" }\n", strings.Join(parts, "/"))
	}
	for i := range 2000 {
		fmt.Fprintf(&rows, "path %q { policy = \"read\" }\n", strings.Repeat("+/", i%(MaxSegments-1)+1)+fmt.Sprint(i))
		fmt.Fprintf(&long, "path %q { policy = \"read\" }\n", strings.Repeat("a", i%100)+"/+/"+fmt.Sprint(i))
	}
	for name, text := range map[string]string{"mixed": mixed.String(), "rows": rows.String(), "long": long.String()} {
		begun := time.Now()
		acl := compileText(t, text)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s: compiling took %v", name, took)
		}
		for _, path := range []string{
			strings.Repeat("a/", segments-1) + "a", strings.Repeat("a/", segments) + "b", strings.Repeat("a/", 2000), strings.Repeat("/", 4000), strings.Repeat("+/", 500),
		} {
			for _, plain := range []string{"", strings.TrimPrefix(path, "a/")} {
				begun := time.Now()
				for range 10 {
					acl.Check(Request{Path: path, Plain: plain, Need: List})
				}
				// Microseconds; the bound is for slow machines under the race detector.
				if took := time.Since(begun) / 10; took > 100*time.Millisecond {
					t.Errorf("%s: a decision about %.20q takes %v", name, path, took)
				}
			}
		}
	}
}
