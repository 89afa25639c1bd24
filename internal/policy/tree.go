package policy

import (
	"slices"
	"strings"
)

// tree is a radix tree over the literal beginnings of rules: up to the first
// wildcard, or the whole path of an exact rule. One walk down a path finds its
// exact rule and, deepest first, every other rule that may match: the position
// of the first wildcard is the depth, and the depth is the first priority.
type tree struct {
	root node
}

type node struct {
	label string  // what leads here from the parent
	first string  // the first bytes of the children's labels, in their order
	kids  []*node // the children
	up    *node   // the nearest node above that holds patterns

	exact   *permission
	closed  []*permission // + rules that do not end in *, best first
	prefix  *permission   // the rule that is this text and *
	opened  []*permission // + rules that end in *, best first
	depth   int           // length of the text that leads here
	segment int           // where that text's last segment begins
}

func (n *node) patterned() bool {
	return n.prefix != nil || len(n.closed)+len(n.opened) > 0
}

// at returns the node for text, made if need be.
func (t *tree) at(text string) *node {
	n := &t.root
	for done := 0; ; {
		rest := text[done:]
		if rest == "" {
			return n
		}
		i := strings.IndexByte(n.first, rest[0])
		if i < 0 {
			leaf := &node{label: rest}
			n.first += rest[:1]
			n.kids = append(n.kids, leaf)
			return leaf
		}
		kid := n.kids[i]
		same := shared(kid.label, rest)
		if same < len(kid.label) {
			fork := &node{label: kid.label[:same], first: kid.label[same : same+1], kids: []*node{kid}}
			kid.label = kid.label[same:]
			n.kids[i] = fork
			kid = fork
		}
		done += same
		n = kid
	}
}

// shared is the length of the common beginning of two strings.
func shared(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// add puts a permission in its place.
func (t *tree) add(p *permission) {
	n := t.at(p.pattern.text[:p.pattern.first])
	switch {
	case p.pattern.exact():
		n.exact = p
	case !p.pattern.wild:
		n.prefix = p
	case p.pattern.prefix:
		n.opened = append(n.opened, p)
	default:
		n.closed = append(n.closed, p)
	}
}

// finish sorts what was added and links each node to the patterns above it.
func (n *node) finish(text string, up *node) {
	n.up, n.depth, n.segment = up, len(text), strings.LastIndexByte(text, '/')+1
	best := func(a, b *permission) int { return b.pattern.compare(&a.pattern) }
	slices.SortFunc(n.closed, best)
	slices.SortFunc(n.opened, best)
	if n.patterned() {
		up = n
	}
	for _, kid := range n.kids {
		kid.finish(text+kid.label, up)
	}
}

// walk returns the exact rule for path, if there is one, and the deepest node
// with patterns above or at it.
func (t *tree) walk(path string) (exact *permission, deepest *node) {
	n := &t.root
	for rest := path; rest != ""; {
		i := strings.IndexByte(n.first, rest[0])
		if i < 0 || !strings.HasPrefix(rest, n.kids[i].label) {
			return nil, n.nearest()
		}
		n = n.kids[i]
		rest = rest[len(n.label):]
	}
	return n.exact, n.nearest()
}

func (n *node) nearest() *node {
	if n.patterned() {
		return n
	}
	return n.up
}

// match returns the best pattern for path from n upwards. When other paths are
// given, rules that match one of them too are passed over; common is how long
// path and all of them are equal.
func (n *node) match(path string, common int, others ...string) *permission {
	for ; n != nil; n = n.up {
		for _, p := range n.closed {
			if p.pattern.matchesFrom(path, n.segment) && !p.pattern.matchesAny(others) {
				return p
			}
		}
		if n.prefix != nil && n.depth > common {
			return n.prefix
		}
		for _, p := range n.opened {
			if p.pattern.matchesFrom(path, n.segment) && !p.pattern.matchesAny(others) {
				return p
			}
		}
	}
	return nil
}

func (p *pattern) matchesAny(paths []string) bool {
	return slices.ContainsFunc(paths, p.matches)
}

// below reports whether some rule that grants anything can match a path that
// starts with prefix. Rules above prefix are not asked.
func (t *tree) below(prefix string) bool {
	n, done := &t.root, 0
	for {
		for _, p := range slices.Concat(n.closed, n.opened) {
			if p.grants() && p.pattern.reaches(prefix) {
				return true
			}
		}
		if done >= len(prefix) {
			return n.grantsBelow()
		}
		rest := prefix[done:]
		i := strings.IndexByte(n.first, rest[0])
		if i < 0 {
			return false
		}
		n = n.kids[i]
		if same := shared(n.label, rest); same < min(len(n.label), len(rest)) {
			return false
		}
		done += len(n.label)
	}
}

func (n *node) grantsBelow() bool {
	for _, p := range append([]*permission{n.exact, n.prefix}, append(n.closed, n.opened...)...) {
		if p != nil && p.grants() {
			return true
		}
	}
	return slices.ContainsFunc(n.kids, (*node).grantsBelow)
}

func (p *permission) grants() bool { return p.granted != 0 && p.granted&Deny == 0 }

// reaches reports whether the pattern can match a path that starts with prefix,
// which is a mount's path and ends in a slash.
func (p *pattern) reaches(prefix string) bool {
	want := strings.Split(p.text, "/")
	got := strings.Split(strings.TrimSuffix(prefix, "/"), "/")
	for i, segment := range got {
		last := i == len(want)-1
		switch {
		case i >= len(want):
			return p.prefix
		case last && p.prefix:
			return strings.HasPrefix(segment, want[i])
		case want[i] != "+" && want[i] != segment:
			return false
		}
	}
	return true
}
