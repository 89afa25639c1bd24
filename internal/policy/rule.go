package policy

import (
	"strings"
	"time"
)

// Policy is a parsed policy.
type Policy struct {
	Name   string
	Rules  []Rule // in the order of the text
	Source string // the text as given
}

// Templated reports whether a rule's path holds a template to expand.
func (p *Policy) Templated() bool {
	for i := range p.Rules {
		if p.Rules[i].templated() {
			return true
		}
	}
	return false
}

// Rule is one path block.
type Rule struct {
	Path               string     // as written, without a leading slash
	Capabilities       Capability // Deny alone, if deny was among them
	Written            Capability // as written, deny beside others included
	AllowedParameters  Parameters
	DeniedParameters   Parameters
	RequiredParameters []string      // in lower case
	MinWrappingTTL     time.Duration // 0: none
	MaxWrappingTTL     time.Duration // 0: none
	Expiration         time.Time     // zero: never; from then on the rule is as if it were not there
	Condition          string        // a CEL expression without which the rule does not count; "": always
	Comment            string
	Line               int // where the block begins

	when *condition // Condition, compiled
}

func (r *Rule) templated() bool { return strings.Contains(r.Path, "{{") }

func (r *Rule) denies() bool { return r.Capabilities&Deny != 0 }

func (r *Rule) expired(now time.Time) bool {
	return !r.Expiration.IsZero() && !now.Before(r.Expiration)
}

// pattern is a rule's path taken apart.
type pattern struct {
	text   string // the path, without the final * of a prefix
	prefix bool   // ends in *
	wild   bool   // has + segments by Vault's reckoning: one that begins with +
	plus   int    // segments that are +
	first  int    // where the first + or * stands; for an exact path its length
}

// readPattern takes a rule's path apart. As in Vault a + counts for the
// position of the first wildcard wherever it stands, once a segment begins with
// one, and * means something only at the end.
func readPattern(path string) pattern {
	p := pattern{text: path}
	p.text, p.prefix = strings.CutSuffix(path, "*")
	p.wild = path == "+" || strings.HasPrefix(path, "+/") || strings.Contains(path, "/+")
	p.first = len(p.text)
	if !p.wild {
		return p
	}
	p.first = strings.IndexByte(p.text, '+')
	for segment := range strings.SplitSeq(p.text, "/") {
		if segment == "+" {
			p.plus++
		}
	}
	return p
}

func (p *pattern) exact() bool { return !p.prefix && !p.wild }

// String returns the path as it was written.
func (p *pattern) String() string {
	if p.prefix {
		return p.text + "*"
	}
	return p.text
}

// matches reports whether the pattern covers path.
func (p *pattern) matches(path string) bool {
	switch {
	case p.wild:
		return p.matchesSegments(path)
	case p.prefix:
		return strings.HasPrefix(path, p.text)
	}
	return p.text == path
}

// matchesSegments matches segment by segment.
func (p *pattern) matchesSegments(path string) bool {
	want, got := p.text, path
	for {
		w := strings.IndexByte(want, '/')
		g := strings.IndexByte(got, '/')
		if w < 0 {
			if p.prefix {
				// The last segment is a beginning, and anything may follow.
				if g >= 0 {
					got = got[:g]
				}
				return strings.HasPrefix(got, want)
			}
			return g < 0 && (want == "+" || want == got)
		}
		if g < 0 {
			return false
		}
		if segment := want[:w]; segment != "+" && segment != got[:g] {
			return false
		}
		want, got = want[w+1:], got[g+1:]
	}
}

// compare orders two patterns that match one path by Vault's priorities:
// negative when p is below q.
func (p *pattern) compare(q *pattern) int {
	return p.rank().compare(q.rank())
}
