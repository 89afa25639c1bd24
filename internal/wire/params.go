package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deeply a request body may nest objects and lists.
const MaxDepth = 128

// Param is one top-level parameter of a request: its name and its JSON text.
type Param struct {
	Name  string
	Value jsontext.Value
}

// Params are the top-level parameters of a request, in the order they came.
type Params struct {
	List []Param
	Body Object // the whole body, nil when the parameters came from a query or form
}

// ParseBody reads a JSON object strictly: valid UTF-8, no duplicate names at
// any level, at most MaxDepth levels, nothing after the object. An empty body is
// no parameters, and so is null, which Vault's clients send for it.
func ParseBody(body []byte) (*Params, error) {
	body = bytes.TrimSpace(body)
	if len(body) == 0 || string(body) == "null" {
		return &Params{}, nil
	}
	if body[0] != '{' {
		return nil, errors.New("the request body must be a JSON object")
	}
	if tooDeep(body) {
		return nil, fmt.Errorf("the request body nests deeper than %d levels", MaxDepth)
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	if _, err := dec.ReadToken(); err != nil {
		return nil, syntax(err)
	}
	p := &Params{Body: body}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, syntax(err)
		}
		key := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return nil, syntax(err)
		}
		p.List = append(p.List, Param{Name: key, Value: value.Clone()})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, syntax(err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the request body goes on after its JSON object")
	}
	return p, nil
}

// ParseQuery makes parameters of a query or form. A name given several times
// becomes a list.
func ParseQuery(values url.Values) *Params {
	p := &Params{}
	for name, list := range values {
		var text []byte
		if len(list) == 1 {
			text = quote(nil, list[0])
		} else {
			text = append(text, '[')
			for i, v := range list {
				if i > 0 {
					text = append(text, ',')
				}
				text = quote(text, v)
			}
			text = append(text, ']')
		}
		p.List = append(p.List, Param{Name: name, Value: text})
	}
	return p
}

func quote(dst []byte, s string) []byte {
	// AppendQuote replaces invalid UTF-8 and reports it; a query's bytes were
	// checked at the edge already.
	out, _ := jsontext.AppendQuote(dst, s)
	return out
}

// Get returns the JSON text of the named parameter.
func (p *Params) Get(name string) (jsontext.Value, bool) {
	if p == nil {
		return nil, false
	}
	for i := range p.List {
		if p.List[i].Name == name {
			return p.List[i].Value, true
		}
	}
	return nil, false
}

// Names returns the parameters' names, in order.
func (p *Params) Names() []string {
	if p == nil {
		return nil
	}
	names := make([]string, len(p.List))
	for i := range p.List {
		names[i] = p.List[i].Name
	}
	return names
}

// Value returns the JSON text of the parameter whose name is name in any case.
func (p *Params) Value(name string) ([]byte, bool) {
	if p == nil {
		return nil, false
	}
	for i := range p.List {
		if strings.EqualFold(p.List[i].Name, name) {
			return p.List[i].Value, true
		}
	}
	return nil, false
}

// tooDeep scans body for nesting beyond MaxDepth without parsing it.
func tooDeep(body []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// syntax makes a client's message of a decoder's error. It names the place and
// not the text around it, which may be a secret.
func syntax(err error) error {
	var se *jsontext.SyntacticError
	if errors.As(err, &se) {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return fmt.Errorf("the request body names a member twice at byte %d", se.ByteOffset)
		}
		return fmt.Errorf("the request body is not valid JSON at byte %d", se.ByteOffset)
	}
	return errors.New("the request body is not valid JSON")
}
