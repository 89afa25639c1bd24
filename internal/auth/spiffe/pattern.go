package spiffe

import (
	"errors"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/auth"
)

// pattern is a workload_id_patterns entry: the segments of a SPIFFE ID's path. In
// a segment, * stands for any text; the segment + is any one segment; ** at the
// end is one segment or more.
type pattern struct {
	domain   string // "" for the method's own
	segments []string
	open     bool // ends in **
}

// maxID is the length of the longest SPIFFE ID, in bytes (SPIFFE-ID, section 2.3).
const maxID = 2048

// parsePattern reads a pattern: a path, with or without a slash before it, or a
// whole SPIFFE ID.
func parsePattern(text string) (p pattern, err error) {
	if len(text) > maxID {
		return p, errors.New("it is longer than any SPIFFE ID")
	}
	path := text
	if rest, whole := strings.CutPrefix(text, "spiffe://"); whole {
		if p.domain, path, whole = strings.Cut(rest, "/"); !whole || p.domain == "" {
			return p, errors.New("it is a trust domain without a path")
		}
	}
	p.segments = strings.Split(strings.TrimPrefix(path, "/"), "/")
	if last := len(p.segments) - 1; p.segments[last] == "**" {
		p.segments, p.open = p.segments[:last], true
	}
	for _, s := range p.segments {
		switch {
		case s == "" || s == "." || s == "..":
			return p, errors.New("it has a segment that is empty or made of dots alone")
		case s == "+":
		case strings.Contains(s, "**"):
			return p, errors.New("** stands alone, at the end")
		case strings.ContainsFunc(s, func(r rune) bool { return !isPathChar(r) && r != '*' }):
			return p, errors.New("it has a character that no SPIFFE ID has: letters, digits, '.', '-' and '_' are allowed, and * for any of them")
		}
	}
	return p, nil
}

func isPathChar(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_'
}

// matches reports whether a SPIFFE ID of a trust domain and a path such as
// "/env/prod" fits.
func (p pattern) matches(domain, path string) bool {
	if p.domain != "" && p.domain != domain || !strings.HasPrefix(path, "/") {
		return false
	}
	segments := strings.Split(path[1:], "/")
	if p.open && len(segments) > len(p.segments) {
		segments = segments[:len(p.segments)]
	} else if p.open {
		return false
	}
	return slices.EqualFunc(p.segments, segments, func(pattern, segment string) bool {
		return pattern == "+" || auth.Glob(pattern, segment)
	})
}
