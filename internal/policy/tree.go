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

	exact  *permission
	prefix *permission   // the rule that is this text and *
	plus   *plus         // rules that go on with a + segment
	odd    []*permission // + rules whose first + is not a segment of its own
	depth  int           // length of the text that leads here
}

// plus is what follows a + segment: nothing, or a slash and a tree of the rest,
// in which exact and prefix are the ends of + rules.
type plus struct {
	end  *permission
	next tree
	all  []*permission
}

func (n *node) patterned() bool {
	return n.prefix != nil || n.plus != nil || n.odd != nil
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
	first := p.pattern.first
	if p.pattern.wild && !plusSegment(p.pattern.text, first) {
		n := t.at(p.pattern.text[:first])
		n.odd = append(n.odd, p)
		return
	}
	t.addRest(p, p.pattern.text)
}

// addRest puts a permission where what is left of its text leads.
func (t *tree) addRest(p *permission, rest string) {
	first := 0
	for first < len(rest) && !plusSegment(rest, first) {
		first++
	}
	n := t.at(rest[:first])
	switch {
	case first < len(rest):
		if n.plus == nil {
			n.plus = &plus{}
		}
		n.plus.all = append(n.plus.all, p)
		if first+1 == len(rest) {
			n.plus.end = p
			return
		}
		n.plus.next.addRest(p, rest[first+2:])
	case p.pattern.prefix:
		n.prefix = p
	default:
		n.exact = p
	}
}

// plusSegment reports whether a segment that is just + begins at text[i].
func plusSegment(text string, i int) bool {
	return text[i] == '+' && (i == 0 || text[i-1] == '/') && (i+1 == len(text) || text[i+1] == '/')
}

// finish links each node to the patterns above it.
func (n *node) finish(depth int, up *node) {
	n.up, n.depth = up, depth
	if n.patterned() {
		up = n
	}
	for _, kid := range n.kids {
		kid.finish(depth+len(kid.label), up)
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

// search looks for the best pattern for path among those that do not match
// another path too.
type search struct {
	path    string
	exclude [2]string // "" excludes nothing
	best    *permission
}

func (s *search) consider(p *permission) {
	if s.best != nil && p.pattern.compare(&s.best.pattern) < 0 {
		return
	}
	for _, other := range s.exclude {
		if other != "" && p.pattern.matches(other) {
			return
		}
	}
	s.best = p
}

// from searches n and the nodes above, and stops at the first with a match: a
// deeper first wildcard is above all others.
func (s search) from(n *node) *permission {
	for ; n != nil && s.best == nil; n = n.up {
		if n.prefix != nil {
			s.consider(n.prefix)
		}
		for _, p := range n.odd {
			if p.pattern.matches(s.path) {
				s.consider(p)
			}
		}
		if n.plus != nil {
			s.after(n.plus, s.path[n.depth:])
		}
	}
	return s.best
}

// after considers the + rules whose next + is the first segment of rest.
func (s *search) after(p *plus, rest string) {
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		if p.end != nil {
			s.consider(p.end)
		}
		return
	}
	n := &p.next.root
	for rest = rest[slash+1:]; ; {
		if n.prefix != nil {
			s.consider(n.prefix)
		}
		if n.plus != nil {
			s.after(n.plus, rest)
		}
		if rest == "" {
			if n.exact != nil {
				s.consider(n.exact)
			}
			return
		}
		i := strings.IndexByte(n.first, rest[0])
		if i < 0 || !strings.HasPrefix(rest, n.kids[i].label) {
			return
		}
		n = n.kids[i]
		rest = rest[len(n.label):]
	}
}

// below reports whether some rule that grants anything can match a path that
// starts with prefix. Rules above prefix are not asked.
func (t *tree) below(prefix string) bool {
	n, done := &t.root, 0
	for {
		if slices.ContainsFunc(n.wild(), func(p *permission) bool { return p.grants() && p.pattern.reaches(prefix) }) {
			return true
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

// wild returns the + rules that begin at n.
func (n *node) wild() []*permission {
	if n.plus == nil {
		return slices.Clip(n.odd)
	}
	return slices.Concat(n.odd, n.plus.all)
}

func (n *node) grantsBelow() bool {
	for _, p := range append(n.wild(), n.exact, n.prefix) {
		if p != nil && p.grants() {
			return true
		}
	}
	return slices.ContainsFunc(n.kids, (*node).grantsBelow)
}

func (p *permission) grants() bool { return p.granted|p.maybe != 0 && p.granted&Deny == 0 }

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
