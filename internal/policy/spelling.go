package policy

import (
	"cmp"
	"strings"
)

// wireSegments are the first segments below a versioned mount that are part of
// the wire and not of a secret's path.
var wireSegments = [...]string{
	"data", "metadata", "delete", "undelete", "destroy", "subkeys",
	"promote", "rollback", "labels", "search",
}

// WireSegment reports whether a path below a versioned mount that starts with
// this segment is a wire spelling.
func WireSegment(segment string) bool {
	for _, s := range wireSegments {
		if s == segment {
			return true
		}
	}
	return false
}

// cut says which segment Path has more than Plain.
type cut struct {
	at    int // offset of the segment in Path, and of what follows it in Plain
	index int // its number among Path's segments; 0 when there is no cut
}

// findCut returns the first segment, not the very first, without which path is
// plain.
func findCut(path, plain string) (cut, bool) {
	size := len(path) - len(plain)
	if size < 2 {
		return cut{}, false
	}
	for at, index := 0, 1; ; index++ {
		slash := strings.IndexByte(path[at:], '/')
		if slash < 0 {
			return cut{}, false
		}
		at += slash + 1
		if at > len(plain) || path[:at] != plain[:at] {
			return cut{}, false
		}
		rest := path[at:]
		if strings.IndexByte(rest, '/') == size-1 && rest[size:] == plain[at:] {
			return cut{at, index}, true
		}
	}
}

// spelled reports whether a plain path is the plain spelling of a secret: it is
// not itself a path of the wire, which are those below a wire segment and the
// mount's config.
func (c cut) spelled(plain string) bool {
	segment, _, more := strings.Cut(plain[c.at:], "/")
	if !more {
		return segment != "config"
	}
	return !WireSegment(segment)
}

// rank is what the priorities compare.
type rank struct {
	exact      bool
	prefix     bool
	first      int
	plus       int
	head, tail string // the text, in two parts
}

func (p *pattern) rank() rank {
	return rank{exact: p.exact(), prefix: p.prefix, first: p.first, plus: p.plus, head: p.text}
}

// compare orders ranks by the priorities of the package comment, 0 for a tie.
// Two exact ranks that match one request are a tie whatever their text.
func (r rank) compare(s rank) int {
	switch {
	case r.exact != s.exact:
		return truth(r.exact)
	case r.exact:
		return 0
	case r.first != s.first:
		return cmp.Compare(r.first, s.first)
	case r.prefix != s.prefix:
		return truth(s.prefix)
	case r.plus != s.plus:
		return cmp.Compare(s.plus, r.plus)
	}
	if c := cmp.Compare(r.length(), s.length()); c != 0 {
		return c
	}
	return compareJoined(r.head, r.tail, s.head, s.tail)
}

func (r rank) length() int { return len(r.head) + len(r.tail) }

func truth(b bool) int {
	if b {
		return 1
	}
	return -1
}

// compareJoined compares a+b with c+d, of the same length, without joining.
func compareJoined(a, b, c, d string) int {
	if len(a) > len(c) {
		return -compareJoined(c, d, a, b)
	}
	n := len(a)
	if r := strings.Compare(a, c[:n]); r != 0 {
		return r
	}
	c = c[n:]
	if r := strings.Compare(b[:len(c)], c); r != 0 {
		return r
	}
	return strings.Compare(b[len(c):], d)
}

// rankWithout is the rank the pattern would have if the segment of the cut were
// not in it.
func (p *pattern) rankWithout(c cut) rank {
	if p.exact() || c.index == 0 {
		return p.rank()
	}
	start := 0
	for range c.index {
		slash := strings.IndexByte(p.text[start:], '/')
		if slash < 0 {
			return p.rank() // ends before the segment
		}
		start += slash + 1
	}
	r := p.rank()
	r.head = p.text[:start]
	end := strings.IndexByte(p.text[start:], '/')
	segment := p.text[start:]
	if end >= 0 {
		segment, r.tail = p.text[start:start+end], p.text[start+end+1:]
	}
	if segment == "+" {
		r.plus--
	}
	// What Vault's reckoning makes of the text that is left.
	r.first = r.length()
	switch {
	case !strings.Contains(r.head, "/+") && r.head[0] != '+' && !strings.Contains(r.tail, "/+") && !strings.HasPrefix(r.tail, "+"):
		r.exact = !p.prefix
	case strings.IndexByte(r.head, '+') >= 0:
		r.first = strings.IndexByte(r.head, '+')
	default:
		r.first = len(r.head) + strings.IndexByte(r.tail, '+')
	}
	return r
}
