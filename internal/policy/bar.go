package policy

import "strings"

// newBar is what is left of a rule that denies and whose template cannot be filled in,
// because the caller has no such name or a value that could mean another place: it
// denies all that begins as its path does before the template, whatever other rules
// grant there, and its condition is not asked. A denial that went away with a name in
// somebody's metadata would be a grant.
func newBar(s source) *permission {
	before, _, _ := strings.Cut(s.rule.Path, "{{")
	p := &permission{pattern: readPattern(before + "*")}
	p.count(s)
	p.bar = true
	return p
}

// bar returns a bar that a path in either spelling is under, nil when there is none.
func (ix *index) bar(path, plain string) *permission {
	for _, p := range ix.bars {
		if p.pattern.matches(path) || plain != "" && p.pattern.matches(plain) {
			return p
		}
	}
	return nil
}

// barred reports whether a bar decides.
func (v verdict) barred() bool { return v.wire != nil && v.wire.bar }
