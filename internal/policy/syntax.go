package policy

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
)

// Limits of a policy. What is beyond them is refused before it costs much.
const (
	MaxSource   = 512 << 10 // bytes of text
	MaxDepth    = 16        // nested braces and brackets
	MaxRules    = 5000      // path blocks
	MaxPath     = 2048      // bytes of one path
	MaxSegments = 128       // segments of one path
	MaxValues   = 20000     // values in all parameter lists together
)

// syntax is what both languages are read into: a value, and where it stands.
type syntax struct {
	line   int
	kind   syntaxKind
	text   string   // string: itself; number and bool: as JSON
	list   []syntax // of a list
	fields []field  // of an object, in order
}

type syntaxKind uint8

const (
	nullSyntax syntaxKind = iota
	boolSyntax
	numberSyntax
	stringSyntax
	listSyntax
	objectSyntax
)

func (k syntaxKind) String() string {
	return [...]string{"null", "a bool", "a number", "a string", "a list", "an object"}[k]
}

// field is a named value of an object. In HCL a block has labels, too.
type field struct {
	line   int
	name   string
	labels []string
	value  syntax
}

// at returns a fault that names a line of the policy's text.
func at(line int, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return fault.New(fault.Invalid, "line %d: %s", line, text)
}

// maxMessage bounds a message that may quote the policy, in bytes.
const maxMessage = 400

// repeated returns a field that an object somewhere in s names twice.
func (s *syntax) repeated() *field {
	for i := range s.list {
		if f := s.list[i].repeated(); f != nil {
			return f
		}
	}
	seen := map[string]bool{}
	for i := range s.fields {
		f := &s.fields[i]
		if seen[f.name] {
			return f
		}
		seen[f.name] = true
		if f := f.value.repeated(); f != nil {
			return f
		}
	}
	return nil
}

// tree returns the value as encoding/json would decode it, numbers as
// json.Number.
func (s *syntax) tree() any {
	switch s.kind {
	case boolSyntax:
		return s.text == "true"
	case numberSyntax:
		return json.Number(s.text)
	case stringSyntax:
		return s.text
	case listSyntax:
		list := make([]any, len(s.list))
		for i := range s.list {
			list[i] = s.list[i].tree()
		}
		return list
	case objectSyntax:
		object := make(map[string]any, len(s.fields))
		for _, f := range s.fields {
			object[f.name] = f.value.tree()
		}
		return object
	}
	return nil
}

// isJSON tells the languages apart as Vault does: JSON begins with a brace.
func isJSON(text string) bool {
	return strings.HasPrefix(strings.TrimSpace(text), "{")
}
