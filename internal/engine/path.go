package engine

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/fault"
)

// MaxPath is the longest path that names something an engine keeps, in bytes.
// Storage takes longer keys, so every such path fits with what goes before it.
const MaxPath = 1024

// CheckPath refuses, as fault.Invalid, what cannot name something that an engine
// keeps under paths of the user's choice.
func CheckPath(path string) error {
	switch {
	case path == "":
		return fault.New(fault.Invalid, "missing path")
	case len(path) > MaxPath:
		return fault.New(fault.Invalid, "the path is %d bytes long; at most %d are accepted", len(path), MaxPath)
	case !utf8.ValidString(path):
		return fault.New(fault.Invalid, "the path is not valid UTF-8")
	case path[len(path)-1] == '/':
		return fault.New(fault.Invalid, "the path ends in a slash, which names a folder; leave it out to name a secret")
	case strings.ContainsFunc(path, unicode.IsControl):
		return fault.New(fault.Invalid, "the path holds a control character")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fault.New(fault.Invalid, "the path has the segment %q, which cannot be addressed", segment)
		}
	}
	return nil
}

// Folder returns the path of a folder without its slash, "" for the root.
func Folder(path string) (string, error) {
	if path = strings.TrimSuffix(path, "/"); path == "" {
		return "", nil
	}
	return path, CheckPath(path)
}
