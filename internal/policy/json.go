package policy

import (
	"encoding/json"
	"errors"
	"io"
	"sort"
	"strings"
)

// jsonReader reads a policy in JSON strictly: one object, nothing after it, no
// depth beyond MaxDepth. Names may repeat where paths are named, since rules for
// one path merge; the rules' reader refuses them elsewhere.
type jsonReader struct {
	dec   *json.Decoder
	lines []int // where each line begins
}

func readJSON(text string) (syntax, error) {
	r := &jsonReader{dec: json.NewDecoder(strings.NewReader(text))}
	r.dec.UseNumber()
	for i := range len(text) {
		if text[i] == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	s, err := r.value(0)
	if err != nil {
		return syntax{}, err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return syntax{}, at(r.line(), "the policy goes on after its JSON object")
	}
	return s, nil
}

// line is the line of the token read last.
func (r *jsonReader) line() int {
	offset := int(r.dec.InputOffset())
	return 1 + sort.SearchInts(r.lines, offset)
}

func (r *jsonReader) token() (json.Token, error) {
	token, err := r.dec.Token()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, at(r.line(), "the JSON ends too early")
	case err != nil:
		return nil, at(r.line(), "this is not JSON: %v", err)
	}
	return token, nil
}

func (r *jsonReader) value(depth int) (syntax, error) {
	token, err := r.token()
	if err != nil {
		return syntax{}, err
	}
	s := syntax{line: r.line()}
	switch t := token.(type) {
	case nil:
		s.kind = nullSyntax
	case bool:
		s.kind, s.text = boolSyntax, "false"
		if t {
			s.text = "true"
		}
	case json.Number:
		s.kind, s.text = numberSyntax, t.String()
	case string:
		s.kind, s.text = stringSyntax, t
	case json.Delim:
		if depth >= MaxDepth {
			return syntax{}, at(s.line, "the policy nests deeper than %d levels", MaxDepth)
		}
		if t == '[' {
			return r.array(s, depth)
		}
		return r.object(s, depth)
	}
	return s, nil
}

func (r *jsonReader) array(s syntax, depth int) (syntax, error) {
	s.kind = listSyntax
	for r.dec.More() {
		item, err := r.value(depth + 1)
		if err != nil {
			return syntax{}, err
		}
		s.list = append(s.list, item)
	}
	_, err := r.token() // the closing bracket
	return s, err
}

func (r *jsonReader) object(s syntax, depth int) (syntax, error) {
	s.kind = objectSyntax
	for r.dec.More() {
		name, err := r.token()
		if err != nil {
			return syntax{}, err
		}
		f := field{line: r.line()}
		f.name, _ = name.(string) // a decoder gives nothing else here
		if f.value, err = r.value(depth + 1); err != nil {
			return syntax{}, err
		}
		s.fields = append(s.fields, f)
	}
	_, err := r.token() // the closing brace
	return s, err
}
