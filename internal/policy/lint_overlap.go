package policy

import "strings"

// overlaps finds rules that never decide, and denials that more specific rules
// undo.
func (l *linter) overlaps() {
	segments, ranks := make([][]string, len(l.patterns)), make([]rank, len(l.patterns))
	for i := range l.patterns {
		segments[i], ranks[i] = l.patterns[i].segments(), l.patterns[i].rank()
	}
	for i := range l.patterns {
		r, p := &l.policy.Rules[i], &l.patterns[i]
		if !p.wild && (p.exact() || r.Capabilities != Deny) {
			continue
		}
		shadowed, undone := false, false
		for j := range l.patterns {
			s, q := &l.policy.Rules[j], &l.patterns[j]
			if r.Path == s.Path {
				continue
			}
			order := ranks[i].compare(ranks[j])
			if !shadowed && p.wild && order < 0 && q.contains(p, segments[j], segments[i]) {
				shadowed = true
				l.say(i, Mistake, "shadowed", "take it out, or make it more specific",
					"it never decides: %s on line %d covers all of it and comes first", s.Path, s.Line)
			}
			if !undone && r.Capabilities == Deny && s.Capabilities != 0 && s.Capabilities&Deny == 0 && order < 0 && p.contains(q, segments[i], segments[j]) {
				undone = true
				l.say(i, Notice, "deny-undone", "deny there too, if it is not meant",
					"it does not bind %s on line %d, which is more specific", s.Path, s.Line)
			}
		}
	}
}

// contains reports whether every path that q matches is matched by p, given
// their segments.
func (p *pattern) contains(q *pattern, want, got []string) bool {
	for i, w := range want {
		last := i == len(want)-1
		if i >= len(got) {
			return false
		}
		open := q.prefix && i == len(got)-1 // q's segment is the beginning of one
		switch {
		case last && p.prefix:
			return w == "" || (got[i] != "+" || !q.wild) && strings.HasPrefix(got[i], w)
		case open:
			return false
		case w == "+" && p.wild:
		case got[i] == "+" && q.wild, w != got[i]:
			return false
		}
	}
	return len(got) == len(want)
}

// overlaps reports whether some path is matched by both.
func (p *pattern) overlaps(q *pattern) bool {
	a, b := p.segments(), q.segments()
	for i := 0; ; i++ {
		switch {
		case i >= len(a) || i >= len(b):
			return i >= len(a) && i >= len(b)
		case p.prefix && i == len(a)-1:
			return q.prefix && i == len(b)-1 && strings.HasPrefix(a[i], b[i]) || b[i] == "+" || strings.HasPrefix(b[i], a[i])
		case q.prefix && i == len(b)-1:
			return a[i] == "+" || strings.HasPrefix(a[i], b[i])
		case a[i] != "+" && b[i] != "+" && a[i] != b[i]:
			return false
		}
	}
}

// meets reports whether the pattern matches something at a mount or below it.
func (p *pattern) meets(mount string) bool {
	below := pattern{text: mount, prefix: true}
	at := pattern{text: strings.TrimSuffix(mount, "/")}
	return p.overlaps(&below) || p.overlaps(&at)
}

func (p *pattern) segments() []string { return strings.Split(p.text, "/") }

// spellings finds rules that name the same secrets in two spellings and do not
// agree. They merge, so neither does what it says.
func (l *linter) spellings() {
	type place struct{ mount, rest string }
	plain := map[place]int{}
	for i := range l.patterns {
		if m := l.versioned(&l.patterns[i]); m != nil {
			if rest := l.policy.Rules[i].Path[len(m.Path):]; rest != "*" && !wireSpelled(rest) {
				plain[place{m.Path, rest}] = i
			}
		}
	}
	for i := range l.patterns {
		m := l.versioned(&l.patterns[i])
		if m == nil {
			continue
		}
		segment, rest, wire := strings.Cut(l.policy.Rules[i].Path[len(m.Path):], "/")
		j, twice := plain[place{m.Path, rest}]
		if !wire || !WireSegment(segment) || !twice {
			continue
		}
		a, b := &l.policy.Rules[i], &l.policy.Rules[j]
		asked := wireCapabilities(segment)
		switch {
		case a.Capabilities&Deny != b.Capabilities&Deny:
			l.say(i, Mistake, "spellings-disagree", "write one rule for both, in the plain spelling",
				"it names what %s on line %d names, one denies, and deny wins", b.Path, b.Line)
		case a.Capabilities&asked != b.Capabilities&asked:
			l.say(i, Warning, "spellings-disagree", "write one rule for both, in the plain spelling",
				"it names what %s on line %d names with other capabilities; they add up", b.Path, b.Line)
		}
	}
}

// wireSpelled reports whether a path below a versioned mount begins with a wire
// segment.
func wireSpelled(rest string) bool {
	segment, _, more := strings.Cut(rest, "/")
	return more && WireSegment(segment)
}

// wireCapabilities are those that mean something on a wire segment and its plain
// spelling alike.
func wireCapabilities(segment string) Capability {
	switch segment {
	case "data":
		return Create | Read | Update | Delete | Patch
	case "metadata":
		return List
	}
	return 0
}
