package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/cofferhq/coffer/internal/identity"
)

// Limits of a template.
const (
	MaxNesting     = 16
	MaxExpressions = 200
)

// Reserved are the claims that no template can set, in any case.
var Reserved = []string{"iss", "sub", "aud", "exp", "iat", "nonce", "namespace", "auth_time", "at_hash", "c_hash"}

// reserved goes by how JSON decoders compare names that do not care for case: to them
// "ISS", and "ſub" with a long s, are reserved claims too.
func reserved(name string) bool {
	return slices.ContainsFunc(Reserved, func(r string) bool { return strings.EqualFold(r, name) })
}

// Template is the further claims of a role: a JSON object in which a value, or a part
// of a text, is an expression in double braces.
//
//	{"team": {{identity.entity.metadata.team}}, "as": "coffer:{{identity.entity.name}}"}
//
// It is parsed as JSON before anything is put in, and a value is put into the tree, so
// that no value can end its text or add a claim.
type Template struct{ claims []member }

// node is a JSON value of a template.
type node struct {
	kind    nodeKind
	literal jsontext.Value // a number, true, false or null
	parts   []part         // of a text
	value   *expression    // a value that is an expression
	members []member       // of an object
	items   []node         // of a list
}

type nodeKind uint8

const (
	isLiteral nodeKind = iota
	isText
	isValue
	isObject
	isList
)

type member struct {
	name  string
	value node
}

// part is a piece of a text: as it stands, or an expression.
type part struct {
	text  string
	value *expression
}

func badTemplate(format string, args ...any) error {
	return invalid("error parsing template: "+format, args...)
}

// ParseTemplate reads a template; "" claims nothing. Errors are faults that say where
// and what is wrong.
func ParseTemplate(text string) (*Template, error) {
	if strings.TrimSpace(text) == "" {
		return &Template{}, nil
	}
	if len(text) > MaxTemplate {
		return nil, badTemplate("it has %d bytes; at most %d are accepted", len(text), MaxTemplate)
	}
	body, values, err := lift(text)
	if err != nil {
		return nil, err
	}
	p := &parser{d: jsontext.NewDecoder(bytes.NewReader(body)), values: values, count: len(values)}
	root, err := p.node()
	if err != nil {
		return nil, err
	}
	if _, err := p.d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, badTemplate("it goes on after its JSON object")
	}
	if root.kind != isObject {
		return nil, badTemplate("it must be a JSON object")
	}
	for _, m := range root.members {
		if reserved(m.name) {
			return nil, invalid("top level key %q not allowed. Restricted keys: %s", clip(m.name), strings.Join(Reserved, ", "))
		}
	}
	return &Template{root.members}, nil
}

// mark begins the text that stands for an expression until the JSON is parsed. No text
// of a template holds it.
const mark = "\x00"

// lift takes the expressions that stand for whole values out of a template, which is
// JSON then: in their places are texts of a mark and a number.
func lift(text string) (body []byte, values []*expression, err error) {
	inText, depth := false, 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inText && c == '\\':
			if strings.HasPrefix(text[i:], `\u0000`) {
				return nil, nil, badTemplate("a text holds a NUL, which is not accepted")
			}
			body = append(body, c)
			if i++; i < len(text) {
				body = append(body, text[i])
			}
			continue
		case c == '"':
			inText = !inText
		case inText:
		case strings.HasPrefix(text[i:], "{{"):
			end := strings.Index(text[i:], "}}")
			if end < 0 {
				return nil, nil, badTemplate("unbalanced templating characters: {{ at byte %d is not closed", i)
			}
			value, err := parseExpression(text[i+2 : i+end])
			if err != nil {
				return nil, nil, err
			}
			body = fmt.Appendf(body, `"\u0000%d"`, len(values))
			values = append(values, value)
			i += end + 1
			continue
		case c == '{' || c == '[':
			if depth++; depth > MaxNesting {
				return nil, nil, badTemplate("it nests deeper than %d levels", MaxNesting)
			}
		case c == '}' || c == ']':
			depth--
		}
		body = append(body, c)
	}
	return body, values, nil
}

// parser reads the JSON of a template.
type parser struct {
	d      *jsontext.Decoder
	values []*expression
	count  int // of expressions
}

func (p *parser) syntax(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return badTemplate("a name stands twice in one object")
	}
	return badTemplate("with its expressions filled in, it is not valid JSON")
}

func (p *parser) node() (n node, err error) {
	switch p.d.PeekKind() {
	case '{':
		return p.object()
	case '[':
		return p.list()
	case '"':
		token, err := p.d.ReadToken()
		if err != nil {
			return n, p.syntax(err)
		}
		return p.text(token.String())
	}
	literal, err := p.d.ReadValue()
	if err != nil {
		return n, p.syntax(err)
	}
	return node{kind: isLiteral, literal: literal.Clone()}, nil
}

func (p *parser) object() (n node, err error) {
	n.kind = isObject
	if _, err := p.d.ReadToken(); err != nil {
		return n, p.syntax(err)
	}
	for p.d.PeekKind() == '"' {
		token, err := p.d.ReadToken()
		if err != nil {
			return n, p.syntax(err)
		}
		name := token.String()
		if strings.HasPrefix(name, mark) || strings.Contains(name, "{{") {
			return n, badTemplate("the name of a claim cannot be an expression")
		}
		value, err := p.node()
		if err != nil {
			return n, err
		}
		n.members = append(n.members, member{name, value})
	}
	if _, err := p.d.ReadToken(); err != nil {
		return n, p.syntax(err)
	}
	return n, nil
}

func (p *parser) list() (n node, err error) {
	n.kind = isList
	if _, err := p.d.ReadToken(); err != nil {
		return n, p.syntax(err)
	}
	for {
		switch p.d.PeekKind() {
		case ']':
			_, err := p.d.ReadToken()
			return n, err
		case jsontext.KindInvalid:
			_, err := p.d.ReadToken()
			return n, p.syntax(err)
		}
		item, err := p.node()
		if err != nil {
			return n, err
		}
		n.items = append(n.items, item)
	}
}

// text is a text, or the expression that it stands for.
func (p *parser) text(text string) (n node, err error) {
	if number, ok := strings.CutPrefix(text, mark); ok {
		i, err := strconv.Atoi(number)
		if err != nil || i < 0 || i >= len(p.values) {
			return n, badTemplate("a text holds a NUL, which is not accepted")
		}
		return node{kind: isValue, value: p.values[i]}, p.counted()
	}
	n.kind = isText
	for text != "" {
		before, rest, found := strings.Cut(text, "{{")
		if strings.Contains(before, "}}") {
			return n, badTemplate("unbalanced templating characters: }} in a text closes nothing")
		}
		if before != "" {
			n.parts = append(n.parts, part{text: before})
		}
		if !found {
			break
		}
		inner, after, found := strings.Cut(rest, "}}")
		if !found {
			return n, badTemplate("unbalanced templating characters: {{ in a text is not closed")
		}
		value, err := parseExpression(inner)
		if err != nil {
			return n, err
		}
		if !value.plain() {
			return n, badTemplate("%q is a list or an object, which cannot stand inside a text", clip(strings.TrimSpace(inner)))
		}
		p.count++
		if err := p.counted(); err != nil {
			return n, err
		}
		n.parts = append(n.parts, part{value: value})
		text = after
	}
	return n, nil
}

func (p *parser) counted() error {
	if p.count > MaxExpressions {
		return badTemplate("it has %d expressions; at most %d are accepted", p.count, MaxExpressions)
	}
	return nil
}

// Names lists the claims of the template, in its order.
func (t *Template) Names() []string {
	var all []string
	for _, m := range t.claims {
		all = append(all, m.name)
	}
	return all
}

// Render returns the claims of an entity at a time, those of only where it is not nil,
// as JSON by their names.
func (t *Template) Render(who *identity.Who, now time.Time, only []string) map[string]jsontext.Value {
	out := map[string]jsontext.Value{}
	for _, m := range t.claims {
		if only == nil || slices.Contains(only, m.name) {
			out[m.name] = m.value.render(nil, who, now)
		}
	}
	return out
}

// render appends the JSON of a value.
func (n *node) render(b []byte, who *identity.Who, now time.Time) []byte {
	switch n.kind {
	case isText:
		var text strings.Builder
		for _, p := range n.parts {
			text.WriteString(p.text)
			if p.value != nil {
				text.WriteString(p.value.text(who, now))
			}
		}
		return quoted(b, text.String())
	case isValue:
		return n.value.json(b, who, now)
	case isObject:
		b = append(b, '{')
		for i, m := range n.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(quoted(b, m.name), ':')
			b = m.value.render(b, who, now)
		}
		return append(b, '}')
	case isList:
		b = append(b, '[')
		for i := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = n.items[i].render(b, who, now)
		}
		return append(b, ']')
	}
	return append(b, n.literal...)
}

func quoted(b []byte, text string) []byte {
	// The error says only that invalid UTF-8 was replaced, which is wanted here.
	b, _ = jsontext.AppendQuote(b, text)
	return b
}
