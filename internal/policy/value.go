package policy

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Value is one value in a list of allowed or denied ones. A string may begin or
// end with * and then matches what ends, begins, or contains the rest.
type Value struct {
	kind valueKind
	text string // string: itself; number: as written; bool: true or false; composite: canonical JSON
}

type valueKind uint8

const (
	nullValue valueKind = iota
	boolValue
	numberValue
	stringValue
	compositeValue // a list or an object
)

// String returns the value as JSON text.
func (v Value) String() string {
	switch v.kind {
	case nullValue:
		return "null"
	case stringValue:
		text, _ := json.Marshal(v.text) // a string always marshals
		return string(text)
	}
	return v.text
}

// readValue reads JSON text. Text that is not JSON matches nothing.
func readValue(text []byte) (Value, bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return Value{}, false
	}
	return valueOf(tree), true
}

// valueOf returns the value of decoded JSON.
func valueOf(tree any) Value {
	switch t := tree.(type) {
	case nil:
		return Value{}
	case bool:
		return Value{kind: boolValue, text: strconv.FormatBool(t)}
	case json.Number:
		return Value{kind: numberValue, text: t.String()}
	case string:
		return Value{kind: stringValue, text: t}
	}
	// Marshal sorts the names, and canonical has made equal numbers look equal.
	text, _ := json.Marshal(canonical(tree))
	return Value{kind: compositeValue, text: string(text)}
}

// canonical rewrites numbers so that equal ones have equal text.
func canonical(tree any) any {
	switch t := tree.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(t.String(), 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(t.String(), 64); err == nil {
			if math.Abs(f) < 1<<53 && f == math.Trunc(f) {
				return int64(f)
			}
			return f
		}
		return t
	case []any:
		for i := range t {
			t[i] = canonical(t[i])
		}
	case map[string]any:
		for k := range t {
			t[k] = canonical(t[k])
		}
	}
	return tree
}

// matches reports whether a request's value got is what v means.
func (v Value) matches(got Value) bool {
	if v.kind != got.kind {
		return false
	}
	switch v.kind {
	case stringValue:
		return globMatch(v.text, got.text)
	case numberValue:
		return sameNumber(v.text, got.text)
	}
	return v.text == got.text
}

// globMatch matches text against a pattern with * at either end. A lone * is
// itself, as in Vault.
func globMatch(pattern, text string) bool {
	if len(pattern) < 2 {
		return pattern == text
	}
	before, head := strings.CutPrefix(pattern, "*")
	inner, tail := strings.CutSuffix(before, "*")
	switch {
	case head && tail:
		return strings.Contains(text, inner)
	case head:
		return strings.HasSuffix(text, inner)
	case tail:
		return strings.HasPrefix(text, inner)
	}
	return pattern == text
}

// sameNumber compares numbers by value: 1 is 1.0. Whole numbers are compared
// exactly, others as float64.
func sameNumber(a, b string) bool {
	if a == b {
		return true
	}
	m, errM := strconv.ParseInt(a, 10, 64)
	n, errN := strconv.ParseInt(b, 10, 64)
	if errM == nil && errN == nil {
		return m == n
	}
	f, errF := strconv.ParseFloat(a, 64)
	g, errG := strconv.ParseFloat(b, 64)
	return errF == nil && errG == nil && f == g
}

// Parameters maps a parameter's name, in lower case, to the values meant; an
// empty list means any value, the name * every parameter.
type Parameters map[string][]Value

// clone returns a copy that shares nothing that merge writes.
func (p Parameters) clone() Parameters {
	if len(p) == 0 {
		return nil
	}
	out := make(Parameters, len(p))
	for name, values := range p {
		out[name] = slices.Clip(values)
	}
	return out
}

// merge joins the lists of two rules: an empty list wins over a list of values,
// because it means all of them.
func (p Parameters) merge(other Parameters) Parameters {
	if len(p) == 0 {
		return other.clone()
	}
	for name, values := range other {
		have, ok := p[name]
		switch {
		case ok && len(have) == 0, len(values) == 0:
			p[name] = nil
		default:
			p[name] = append(slices.Clip(have), values...)
		}
	}
	return p
}

// holds reports whether the list for name means the value.
func holds(values []Value, got func() (Value, bool)) bool {
	if len(values) == 0 {
		return true
	}
	value, ok := got()
	return ok && slices.ContainsFunc(values, func(v Value) bool { return v.matches(value) })
}
