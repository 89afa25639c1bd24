package auth

import (
	"regexp"
	"strings"
	"testing"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		matches       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "anything", true}, {"a", "a", true}, {"a", "A", false},
		{"a*", "a", true}, {"a*", "ba", false}, {"*a", "ba", true}, {"*a", "ab", false}, {"*a*", "bab", true},
		{"a*a", "a", false}, {"a*a", "aa", true}, {"*.example.test", "web.example.test", true}, {"*.example.test", "example.test", false},
		{"a*b*c", "a-b-b-c", true}, {"a*b*c", "a-c-b", false}, {"**", "x", true}, {"a?", "ab", false}, {"*", "a\x00b", true},
	} {
		if Glob(c.pattern, c.text) != c.matches {
			t.Errorf("%q and %q: %v", c.pattern, c.text, !c.matches)
		}
	}
}

func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{{"a*b", "acb"}, {"*", ""}, {"**a**", "bab"}, {"a*a", "a"}, {"*aab", "aaab"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		parts := strings.Split(pattern, "*")
		for i, p := range parts {
			parts[i] = regexp.QuoteMeta(p)
		}
		same, err := regexp.Compile(`(?s)^` + strings.Join(parts, ".*") + `$`)
		if err != nil || len(pattern) > 64 {
			return // not UTF-8, which regexp does not take
		}
		if got := Glob(pattern, text); got != same.MatchString(text) {
			t.Errorf("%q and %q: %v", pattern, text, got)
		}
	})
}
