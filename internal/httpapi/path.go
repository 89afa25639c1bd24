package httpapi

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/fault"
)

// prefix stands before every path of the API.
const prefix = "/v1/"

// checkPath says what is wrong with a decoded path below /v1/, nil when nothing
// is. One name must have one spelling, so a path that a proxy, a policy and the
// server could read differently is refused, never cleaned or redirected. The
// message names the problem and not the path, which may hold anything.
func checkPath(path string) *fault.Error {
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '/' || c == '.':
			if problem := checkSegmentAt(path, i); problem != "" {
				return fault.New(fault.Invalid, "%s", problem)
			}
		case c == 0:
			return fault.New(fault.Invalid, "the path holds a NUL byte")
		case c < 0x20 || c == 0x7f:
			return fault.New(fault.Invalid, "the path holds a control character (0x%02x)", c)
		case c >= utf8.RuneSelf:
			return checkUnicode(path)
		}
	}
	return nil
}

// checkSegmentAt looks at the slash or dot at i: an empty segment or a segment
// of one or two dots is a problem.
func checkSegmentAt(path string, i int) string {
	if path[i] == '/' {
		if i == 0 || path[i-1] == '/' {
			return `the path has an empty segment ("//"); write it with single slashes`
		}
		return ""
	}
	if i > 0 && path[i-1] != '/' {
		return ""
	}
	segment, _, _ := strings.Cut(path[i:], "/")
	if segment == "." || segment == ".." {
		return `the path has a segment "` + segment + `"; write the whole path without it`
	}
	return ""
}

// checkUnicode is checkPath for a path beyond ASCII.
func checkUnicode(path string) *fault.Error {
	if !utf8.ValidString(path) {
		return fault.New(fault.Invalid, "the path is not valid UTF-8")
	}
	for i, r := range path {
		switch {
		case r == 0:
			return fault.New(fault.Invalid, "the path holds a NUL byte")
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return fault.New(fault.Invalid, "the path holds a control character (U+%04X)", r)
		case unicode.Is(unicode.Bidi_Control, r):
			return fault.New(fault.Invalid, "the path holds a character that changes the writing direction (U+%04X)", r)
		case r == '/' || r == '.':
			if problem := checkSegmentAt(path, i); problem != "" {
				return fault.New(fault.Invalid, "%s", problem)
			}
		}
	}
	return nil
}
