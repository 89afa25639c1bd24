// Package password makes passwords by policies, which people write in Vault's
// language: a length, and rules that say of which characters how many are needed.
//
//	length = 20
//	rule "charset" {
//	  charset   = "abcdefghijklmnopqrstuvwxyz"
//	  min-chars = 1
//	}
//
// It judges no passwords that people choose, and keeps none that it makes.
package password

import (
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"
)

// Limits of a policy.
const (
	MaxSource  = 16 << 10 // bytes of its text
	MinLength  = 4        // characters of a password
	MaxLength  = 100
	MaxRules   = 32
	MaxCharset = 256 // different characters, of all rules together
	maxDepth   = 8   // of the text's nesting
)

// Policy says what passwords look like.
type Policy struct {
	Length int // characters
	Rules  []Rule

	charset []rune   // of all rules, each character once
	members []uint32 // by the charset's order: the rules that a character counts for, as bits
}

// Rule needs characters of a set.
type Rule struct {
	Charset []rune // each character once
	Min     int    // how many at least
}

// check says what of the whole cannot be met.
func (p *Policy) check() error {
	if p.Length < MinLength || p.Length > MaxLength {
		return fmt.Errorf("passwords must be between %d and %d characters", MinLength, MaxLength)
	}
	if len(p.charset) == 0 {
		return fmt.Errorf("no charset specified: a policy needs a rule")
	}
	if len(p.charset) > MaxCharset {
		return fmt.Errorf("the rules have %d different characters, more than the %d allowed", len(p.charset), MaxCharset)
	}
	if i := slices.IndexFunc(p.charset, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }); i >= 0 {
		return fmt.Errorf("non-printable character in charset: %U", p.charset[i])
	}
	needed := 0
	for _, r := range p.Rules {
		if needed += min(r.Min, MaxLength+1); needed > p.Length {
			return fmt.Errorf("the rules need at least %d characters, and length is %d", needed, p.Length)
		}
	}
	return nil
}

// distinct returns each character once, in order.
func distinct(chars []rune) []rune {
	out := slices.Clone(chars)
	slices.Sort(out)
	return slices.Compact(out)
}

// index prepares what Generate draws from.
func (p *Policy) index() {
	for _, rule := range p.Rules {
		p.charset = append(p.charset, rule.Charset...)
	}
	p.charset = distinct(p.charset)
	p.members = make([]uint32, len(p.charset))
	for i, rule := range p.Rules {
		for _, c := range rule.Charset {
			at, _ := slices.BinarySearch(p.charset, c)
			p.members[at] |= 1 << i
		}
	}
}

// Met reports whether a password is as the policy wants it: as long, of the rules'
// characters, and with as many of each rule's.
func (p *Policy) Met(password string) bool {
	var have [MaxRules]int
	chars := []rune(password)
	for _, c := range chars {
		at, ok := slices.BinarySearch(p.charset, c)
		if !ok {
			return false
		}
		for i := range p.Rules {
			have[i] += int(p.members[at] >> i & 1)
		}
	}
	for i, rule := range p.Rules {
		if have[i] < rule.Min {
			return false
		}
	}
	return len(chars) == p.Length
}
