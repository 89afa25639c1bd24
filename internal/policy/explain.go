package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Explanation is a decision with every rule that had a say.
type Explanation struct {
	Request  Request
	Decision Decision
	Rules    []Considered // that match, the one that decides first, then by priority
	Others   int          // rules that do not match
}

// Considered is a rule that matches a request.
type Considered struct {
	Policy       string
	Path         string // as written
	Line         int
	Capabilities Capability
	Spelling     string // how it matches: wire or plain; "" without a Plain
	Condition    string // without which it does not count; "": always
	Decides      bool
	Why          string // why it decides, or what puts it below
}

// contender is a matching permission on its way into an explanation.
type contender struct {
	*permission
	spelling string
	decides  bool
	rank     rank
	why      string
}

// Explain decides a request and says of every rule that matches why it won or
// lost. Rules that expired or whose template has no value are named last.
func (a *ACL) Explain(r Request) Explanation {
	e := Explanation{Decision: a.Check(r)}
	r.normalize()
	e.Request = r
	if a.root {
		return e
	}
	ix := a.current()
	v := ix.decide(&r)
	contenders := ix.contenders(&r, v)
	for _, c := range contenders {
		for _, s := range c.sources {
			e.Rules = append(e.Rules, Considered{
				Policy: s.policy, Path: s.rule.Path, Line: s.rule.Line, Capabilities: s.rule.Capabilities,
				Condition: s.rule.Condition, Spelling: c.spelling, Decides: c.decides, Why: c.why,
			})
		}
	}
	e.idle(a.policies, time.Now())
	total := 0
	for _, p := range a.policies {
		if p != nil {
			total += len(p.Rules)
		}
	}
	e.Others = total - len(e.Rules)
	return e
}

// contenders returns the permissions that match, best first.
func (ix *index) contenders(r *Request, v verdict) []contender {
	c, cuts := findCut(r.Path, r.Plain)
	plain := r.Plain
	if cuts && !c.spelled(plain) {
		plain = ""
	}
	var list []contender
	for _, p := range slices.Concat(ix.bars, ix.all) {
		one := contender{permission: p, decides: p == v.wire || p == v.plain}
		switch {
		case p.pattern.covers(r.Path, r.lists()):
			one.spelling, one.rank = wireSpelling, p.pattern.rankWithout(c)
		case plain != "" && p.pattern.covers(plain, r.lists()):
			one.spelling, one.rank = plainSpelling, p.pattern.rank()
		default:
			continue
		}
		one.why = v.reason(one, c)
		if r.Plain == "" {
			one.spelling = ""
		}
		list = append(list, one)
	}
	slices.SortStableFunc(list, func(a, b contender) int {
		if a.decides != b.decides {
			return -truth(a.decides)
		}
		if a.spelling == b.spelling {
			return cmp.Or(b.pattern.compare(&a.pattern), cmp.Compare(len(b.pattern.text), len(a.pattern.text)))
		}
		return b.rank.compare(a.rank)
	})
	return list
}

// covers is matches, with the fallback of a list to the path without its slash.
func (p *pattern) covers(path string, list bool) bool {
	return p.matches(path) || list && p.matches(strings.TrimSuffix(path, "/"))
}

// reason says why a contender decides, or why the winner is above it.
func (v verdict) reason(c contender, k cut) string {
	switch {
	case c.decides && v.barred():
		return "decides: it denies all of " + c.pattern.String() + ", for want of a plain value for its template"
	case v.barred():
		return "below " + v.wire.pattern.String() + ": no rule is above one that denies and whose template has no value"
	}
	if c.decides {
		switch {
		case v.wire != nil && v.plain != nil:
			return "decides, merged with the rule in the other spelling"
		case len(c.sources) > 1:
			return "decides, merged with the other rules for this path"
		}
		return "decides"
	}
	winner := v.wire
	if winner == nil || c.spelling == plainSpelling && v.plain != nil {
		winner = v.plain
	}
	ours, theirs := c.pattern.rank(), winner.pattern.rank()
	if c.spelling == wireSpelling && winner == v.plain {
		ours = c.rank
	}
	if c.spelling == plainSpelling && winner == v.wire {
		theirs = winner.pattern.rankWithout(k)
	}
	why := ours.below(theirs)
	if theirs.exact && !winner.pattern.exact() {
		why = "that one is exact but for the wire segment"
	}
	return "below " + winner.pattern.String() + ": " + why
}

// below names the priority that puts r below s.
func (r rank) below(s rank) string {
	switch {
	case !r.exact && s.exact:
		return "that one is exact"
	case r.exact && s.exact:
		return "that one has the slash of the list"
	case r.first != s.first:
		return fmt.Sprintf("its first wildcard stands earlier, at %d instead of %d", r.first, s.first)
	case r.prefix != s.prefix:
		return "it ends in *"
	case r.plus != s.plus:
		return fmt.Sprintf("it has %d + segments, not %d", r.plus, s.plus)
	case r.length() != s.length():
		return "it is shorter"
	}
	return "it sorts before"
}

// idle names the rules that match nothing at all.
func (e *Explanation) idle(policies []*Policy, now time.Time) {
	for _, p := range policies {
		if p == nil {
			continue
		}
		for i := range p.Rules {
			r := &p.Rules[i]
			why := ""
			switch {
			case r.templated() && !r.denies() && r.begins(&e.Request):
				why = "out of force: its template has no value for this caller"
			case r.expired(now) && readPatternMatches(r.Path, &e.Request):
				why = "out of force: it expired " + r.Expiration.Format(time.RFC3339)
			default:
				continue
			}
			e.Rules = append(e.Rules, Considered{Policy: p.Name, Path: r.Path, Line: r.Line, Capabilities: r.Capabilities, Condition: r.Condition, Why: why})
		}
	}
}

// begins reports whether the text before a rule's template leads to the request.
func (r *Rule) begins(q *Request) bool {
	before, _, _ := strings.Cut(r.Path, "{{")
	return before != "" && (strings.HasPrefix(q.Path, before) || strings.HasPrefix(q.Plain, before))
}

func readPatternMatches(path string, r *Request) bool {
	p := readPattern(path)
	list := r.lists()
	return p.covers(r.Path, list) || r.Plain != "" && p.covers(r.Plain, list)
}

// Lines returns the explanation as text for people.
func (e Explanation) Lines() []string {
	d := e.Decision
	outcome := "denied"
	if d.Allowed {
		outcome = "allowed"
	}
	need := e.Request.Need.String()
	if e.Request.Sudo {
		need += " and sudo"
	}
	lines := []string{fmt.Sprintf("%s: %s on %s", outcome, need, e.Request.Path)}
	if e.Request.Plain != "" {
		lines = append(lines, "plain spelling: "+e.Request.Plain)
	}
	if d.Missing != "" {
		lines = append(lines, "because "+d.Missing)
	}
	if d.Policy == "root" && d.Rule == "" {
		lines = append(lines, "the root policy allows everything")
	}
	for _, r := range e.Rules {
		mark := " "
		if r.Decides {
			mark = "*"
		}
		spelling := ""
		if r.Spelling != "" {
			spelling = " (" + r.Spelling + ")"
		}
		if r.Condition != "" {
			r.Why += ", if " + r.Condition
		}
		lines = append(lines, fmt.Sprintf("%s %s:%d  %s%s  [%s]  %s", mark, r.Policy, r.Line, r.Path, spelling, r.Capabilities, r.Why))
	}
	if e.Others > 0 {
		lines = append(lines, fmt.Sprintf("%d other rules do not match", e.Others))
	}
	if d.Fix != "" {
		lines = append(lines, "this rule would allow it:")
		for line := range strings.SplitSeq(strings.TrimSuffix(d.Fix, "\n"), "\n") {
			lines = append(lines, "    "+line)
		}
	}
	return lines
}
