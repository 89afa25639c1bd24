package policy

import (
	"regexp"
	"slices"

	"github.com/cofferhq/coffer/internal/fault"
)

// At returns a fault.Invalid that begins with a line: "line 3: …".
func At(line int, format string, args ...any) error { return at(line, format, args...) }

var lineRE = regexp.MustCompile(`^line (\d+): `)

// Placed returns an error about a line as one about a line of a file:
// "app_test.hcl:3: …".
func Placed(file string, err error) error {
	return fault.New(fault.Invalid, "%s", file+":"+lineRE.ReplaceAllString(fault.From(err).Message, "$1: "))
}

// Each calls do with a block that has at least so many labels. Where it has fewer, as
// in JSON, the names of its members are the labels. missing is said where there are
// none.
func (f Field) Each(labels int, missing string, do func(Field) error) error {
	if len(f.Labels) >= labels {
		return do(f)
	}
	if f.Value.Kind != ObjectNode || len(f.Value.Fields) == 0 {
		return At(f.Line, "%s", missing)
	}
	for _, inner := range f.Value.Fields {
		if err := f.Inner(inner).Each(labels, missing, do); err != nil {
			return err
		}
	}
	return nil
}

// Inner returns a member of a block as a block of its own, with the member's name as
// one more label.
func (f Field) Inner(member Field) Field {
	return Field{Line: member.Line, Name: f.Name, Labels: slices.Concat(f.Labels, []string{member.Name}, member.Labels), Value: member.Value}
}

// Block calls set for the keys of a block that has exactly so many labels. Keys other
// than repeats may stand once.
func (f Field) Block(labels int, repeats []string, set func(Field) error) error {
	if len(f.Labels) != labels {
		return At(f.Line, "%s takes %d names before its brace, not %d", f.Name, labels, len(f.Labels))
	}
	if f.Value.Kind != ObjectNode {
		return At(f.Line, "%s must be a block, not %s", f.Name, f.Value.Kind)
	}
	seen := map[string]bool{}
	for _, key := range f.Value.Fields {
		if seen[key.Name] && !slices.Contains(repeats, key.Name) {
			return At(key.Line, "%s is set twice", key.Name)
		}
		seen[key.Name] = true
		if err := set(key); err != nil {
			return err
		}
	}
	return nil
}

// Word reads a string.
func (f Field) Word() (string, error) {
	if f.Value.Kind != StringNode || len(f.Labels) > 0 {
		return "", At(f.Line, "%s must be a string, not %s", f.Name, f.Value.Kind)
	}
	return f.Value.Text, nil
}

// Scalar reads a string or a number, as text.
func (f Field) Scalar() (string, error) {
	if f.Value.Kind == NumberNode && len(f.Labels) == 0 {
		return f.Value.Text, nil
	}
	return f.Word()
}

// Bool reads true or false.
func (f Field) Bool() (bool, error) {
	if f.Value.Kind != BoolNode || len(f.Labels) > 0 {
		return false, At(f.Line, "%s must be true or false, not %s", f.Name, f.Value.Kind)
	}
	return f.Value.Text == "true", nil
}

// StringList reads a list of strings.
func (f Field) StringList() ([]string, error) {
	if f.Value.Kind != ListNode || len(f.Labels) > 0 {
		return nil, At(f.Line, "%s must be a list of strings, not %s", f.Name, f.Value.Kind)
	}
	var out []string
	for _, item := range f.Value.List {
		if item.Kind != StringNode {
			return nil, At(item.Line, "%s must be a list of strings, and holds %s", f.Name, item.Kind)
		}
		out = append(out, item.Text)
	}
	return out, nil
}

// StringMap reads an object of strings or numbers.
func (f Field) StringMap() (map[string]string, error) {
	if f.Value.Kind != ObjectNode || len(f.Labels) > 0 {
		return nil, At(f.Line, "%s must be an object of strings, not %s", f.Name, f.Value.Kind)
	}
	out := map[string]string{}
	for _, key := range f.Value.Fields {
		if _, twice := out[key.Name]; twice {
			return nil, At(key.Line, "%s is set twice", key.Name)
		}
		text, err := key.Scalar()
		if err != nil {
			return nil, err
		}
		out[key.Name] = text
	}
	return out, nil
}
