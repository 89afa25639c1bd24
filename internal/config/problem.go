package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Problem is one mistake in a configuration.
type Problem struct {
	File    string // or the variable of the environment
	Line    int    // 0 when it is about no line
	Field   string // such as `listener "tcp": address`; "" when it is about the file
	Message string
}

// String writes "file:line: field: message".
func (p Problem) String() string {
	text := p.Message
	if p.Field != "" {
		text = p.Field + ": " + text
	}
	switch {
	case p.Line > 0:
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, text)
	case p.File != "":
		return p.File + ": " + text
	}
	return text
}

// Error is everything that is wrong with a configuration.
type Error struct{ Problems []Problem }

// Error writes one problem a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// suggest completes a message about an unknown word with the one that was
// likely meant, or with all there are.
func suggest(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := levenshtein.Distance(strings.ToLower(word), k, nil); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	known = slices.Clone(known)
	slices.Sort(known)
	return "accepted are " + strings.Join(known, ", ")
}
