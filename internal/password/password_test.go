package password_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/password"
)

// usual is the example of Vault's documentation, in our words.
const usual = `
length = 20
rule "charset" {
  charset   = "abcdefghijklmnopqrstuvwxyz"
  min-chars = 1
}
rule "charset" {
  charset   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
  min-chars = 1
}
rule "charset" {
  charset   = "0123456789"
  min-chars = 1
}
rule "charset" {
  charset   = "!@#$%^&*"
  min-chars = 1
}
`

func rule(charset string, least int) string {
	return fmt.Sprintf("rule \"charset\" {\n charset = %q\n min-chars = %d\n}\n", charset, least)
}

func TestParse(t *testing.T) {
	wide := ""
	for c := rune(0x4e00); utf8.RuneCountInString(wide) < password.MaxCharset; c++ {
		wide += string(c)
	}
	for name, text := range map[string]string{
		"usual": usual, "comments": "# why\nlength = 8 // eight\n/* all */\n" + rule("ab", 0),
		"JSON":       `{"length":20,"rule":[{"charset":[{"charset":"abcd","min-chars":1}]},{"charset":[{"charset":"01","min-chars":2}]}]}`,
		"JSON, bare": `{"length":20,"rule":{"charset":{"charset":"abcd","min-chars":1}}}`,
		"carriage":   strings.ReplaceAll(usual, "\n", "\r\n"), "no least": "length = 4\nrule \"charset\" { charset = \"ab\" }",
		"shortest": "length = 4\n" + rule("ab", 4), "longest": "length = 100\n" + rule("ab", 100),
		"widest": "length = 20\n" + rule(wide, 1), "text for a number": "length = \"20\"\n" + rule("ab", 1),
		"a space": "length = 8\n" + rule("a b", 1), "most rules": "length = 40\n" + strings.Repeat(rule("ab", 1), password.MaxRules),
		"a set twice": "length = 4\n" + rule("aab", 2) + rule("ab", 2), "longest text": usual + strings.Repeat("#", password.MaxSource-len(usual)),
	} {
		p, err := password.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if made := p.Generate().Reveal(); !p.Met(made) || utf8.RuneCountInString(made) != p.Length {
			t.Errorf("%s: %q", name, made)
		}
	}
	for says, text := range map[string]string{
		"between 4 and 100": "length = 3\n" + rule("ab", 1), "4 and 100": "length = 101\n" + rule("ab", 1), "passwords must be": rule("ab", 1),
		"length must be a whole number":        "length = -5\n" + rule("ab", 1),
		"line 1: length must be a":             "length = 4.5\n" + rule("ab", 1),
		"must be a whole number that":          "length = 99999999999999999999\n" + rule("ab", 1),
		"at least 6 characters, and length is": "length = 5\n" + rule("ab", 3) + rule("01", 3),
		"at least 101 characters":              "length = 50\n" + rule("ab", math.MaxInt64),
		"no charset specified":                 "length = 20", "the charset is empty": "length = 20\n" + rule("", 1),
		"different characters, more than": "length = 20\n" + rule(wide+"a", 1), "non-printable": "length = 20\nrule \"charset\" { charset = \"a\\tb\" }",
		"there is no rule":                   "length = 20\nrule \"words\" { charset = \"ab\" }",
		`"min_chars" is not a key`:           "length = 20\nrule \"charset\" {\n charset = \"ab\"\n min_chars = 3\n}",
		`line 2: "Length" is not a key`:      "length = 20\nLength = 5\n" + rule("ab", 1),
		"charset must be a string":           "length = 20\nrule \"charset\" { charset = 5 }",
		"a rule is written":                  "length = 20\nrule { charset = \"ab\" }",
		"a rule is written rule \"charset\"": `{"length":20,"rule":"charset"}`,
		"more than the 32 rules":             "length = 40\n" + strings.Repeat(rule("ab", 1), password.MaxRules+1),
		"bytes, more than":                   usual + strings.Repeat("#", password.MaxSource-len(usual)+1),
		"nests deeper":                       "length = 20\nx = " + strings.Repeat("[", 9) + strings.Repeat("]", 9),
		"not valid UTF-8":                    "length = 20\n" + strings.Replace(rule("ab", 1), "a", "\xff", 1),
		"already set":                        "length = 20\nlength = 5\n" + rule("ab", 1),
		"length is set twice":                `{"length":20,"length":5,"rule":{"charset":{"charset":"abcd"}}}`,
		"expected":                           "nonsense", "non-printable character in charset: U+FFFD": "length = 20\n" + rule("a\uFFFD", 1),
	} {
		if _, err := password.Parse(text); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says) || !strings.HasPrefix(fault.From(err).Message, "invalid password policy") {
			t.Errorf("%.60q: %v, want %q", text, err, says)
		}
	}
}

// TestEveryPasswordMeetsItsPolicy draws policies, also hard and overlapping ones.
func TestEveryPasswordMeetsItsPolicy(t *testing.T) {
	sets := rapid.StringOfN(rapid.RuneFrom([]rune("abcdefghijABCDEFGHIJ0123456789-_é日")), 1, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		length := rapid.IntRange(password.MinLength, password.MaxLength).Draw(t, "length")
		text, left := fmt.Sprintf("length = %d\n", length), length
		for range rapid.IntRange(1, 6).Draw(t, "rules") {
			least := rapid.IntRange(0, left).Draw(t, "least")
			left -= least
			text += rule(sets.Draw(t, "set"), least)
		}
		p, err := password.Parse(text)
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		for range 3 {
			made := []rune(p.Generate().Reveal())
			if len(made) != length {
				t.Fatalf("%d characters, want %d", len(made), length)
			}
			for _, r := range p.Rules { // counted here, not by the code under test
				n := 0
				for _, c := range made {
					if strings.ContainsRune(string(r.Charset), c) {
						n++
					}
				}
				if n < r.Min {
					t.Fatalf("%q has %d of %q, want %d", string(made), n, string(r.Charset), r.Min)
				}
			}
		}
	})
}

// chi returns Pearson's statistic of counts that should be even, and the bound that
// even ones pass but once in a million times (Wilson and Hilferty's approximation).
func chi(counts map[rune]int, kinds, draws int) (statistic, bound float64) {
	want := float64(draws) / float64(kinds)
	for _, n := range counts {
		statistic += (float64(n) - want) * (float64(n) - want) / want
	}
	statistic += float64(kinds-len(counts)) * want
	free := float64(kinds - 1)
	const z = 4.7534
	return statistic, free * math.Pow(1-2/(9*free)+z*math.Sqrt(2/(9*free)), 3)
}

func TestCharactersAreEven(t *testing.T) {
	for name, c := range map[string]struct {
		text      string
		kinds     int
		passwords int
	}{
		// 63 and 100 are no divisors of a power of two: a careless remainder shows.
		"63 characters":  {"length = 100\n" + rule("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-", 0), 63, 800},
		"3 characters":   {"length = 100\n" + rule("abc", 0), 3, 800},
		"100 characters": {"length = 100\n" + rule(hundred(), 0), 100, 800},
		// Twice named is not twice as likely.
		"overlapping": {"length = 100\n" + rule("aaab", 0) + rule("bcd", 0), 4, 800},
		// Hard rules that every character is alike in.
		"hard and even": {"length = 40\n" + rule("abcd", 20) + rule("0123", 20), 8, 200},
	} {
		p, err := password.Parse(c.text)
		if err != nil {
			t.Fatal(name, err)
		}
		counts, draws := map[rune]int{}, 0
		for range c.passwords {
			for _, r := range p.Generate().Reveal() {
				counts[r]++
				draws++
			}
		}
		if got, bound := chi(counts, c.kinds, draws); got > bound || len(counts) > c.kinds {
			t.Errorf("%s: chi-squared %.1f, bound %.1f: %v", name, got, bound, counts)
		}
	}
}

// TestPlacesAreEven looks at where the one character stands that a hard rule needs.
func TestPlacesAreEven(t *testing.T) {
	p, err := password.Parse("length = 20\n" + rule("a", 19) + rule("0123456789", 1))
	if err != nil {
		t.Fatal(err)
	}
	places := map[rune]int{}
	const draws = 1000
	for range draws {
		places[rune(strings.IndexFunc(p.Generate().Reveal(), unicode.IsDigit))]++
	}
	if got, bound := chi(places, 20, draws); got > bound {
		t.Errorf("chi-squared %.1f, bound %.1f: %v", got, bound, places)
	}
}

// TestRejectionIsExact counts all strings of a small policy: rules make none of
// those that meet them likelier.
func TestRejectionIsExact(t *testing.T) {
	p, err := password.Parse("length = 4\n" + rule("a", 1) + rule("b", 1))
	if err != nil {
		t.Fatal(err)
	}
	counts, ids := map[rune]int{}, map[string]rune{}
	const draws = 14_000
	for range draws {
		made := p.Generate().Reveal()
		if _, ok := ids[made]; !ok {
			ids[made] = rune(len(ids))
		}
		counts[ids[made]]++
	}
	// 16 strings of a and b, without aaaa and bbbb.
	if got, bound := chi(counts, 14, draws); got > bound || len(ids) != 14 {
		t.Errorf("%d strings, chi-squared %.1f, bound %.1f", len(ids), got, bound)
	}
}

// TestHardRulesTakeBoundedTime has a policy that no random string will ever meet.
func TestHardRulesTakeBoundedTime(t *testing.T) {
	p, err := password.Parse("length = 100\n" + rule("a", 1) + rule(hundred(), 1) + rule("b", 98))
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if made := p.Generate().Reveal(); !p.Met(made) {
		t.Errorf("%q", made)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// hundred is a hundred characters.
func hundred() string {
	var b strings.Builder
	for c := rune(0x4e00); c < 0x4e00+100; c++ {
		b.WriteRune(c)
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	f.Add(usual)
	f.Add(`{"length":20,"rule":[{"charset":[{"charset":"abcd","min-chars":1}]}]}`)
	f.Add("length = 4\nrule \"charset\" { charset = <<A\nx\nA\n}")
	f.Add("rule \"charset\" \"x\" {}")
	f.Add("[[[[")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := password.Parse(text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v", err)
			}
			return
		}
		if made := p.Generate().Reveal(); !p.Met(made) {
			t.Fatalf("%q does not meet %q", made, text)
		}
	})
}
