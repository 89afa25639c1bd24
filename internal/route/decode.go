package route

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Input is what a request says, before it is typed.
type Input struct {
	Vars   Vars         // from the path
	Params *wire.Params // from the body, or from the query of GET, LIST and DELETE
}

// Field is one parameter of a route, for OpenAPI, help and docs.
type Field struct {
	Name string
	In   string // path, query or json
	Doc  string
	Type reflect.Type
	// Whole is set where the field takes the whole body.
	Whole bool
}

type field struct {
	Field
	index []int
	// resets makes null the zero value of a pointer field and not nil, so that a
	// merge patch can tell null from a parameter that was not sent.
	resets bool
}

// Fields returns the route's parameters in the order of the request's fields.
func (s *Spec) Fields() []Field {
	out := make([]Field, 0, len(s.fields))
	for _, f := range s.fields {
		out = append(out, f.Field)
	}
	return out
}

// plan reads the tags of a request type once. A wrong table is a bug that the
// first test meets, so it panics.
func plan(t reflect.Type, pattern string) []field {
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("route: %s: request %v is not a struct", pattern, t))
	}
	var fields []field
	for _, sf := range reflect.VisibleFields(t) {
		if sf.Anonymous || !sf.IsExported() {
			continue
		}
		for _, in := range []string{"path", "query", "json"} {
			name, ok := sf.Tag.Lookup(in)
			if !ok || name == "-" {
				continue
			}
			how := sf.Tag.Get("body")
			f := field{index: sf.Index, resets: how == "resets"}
			f.Field = Field{Name: name, In: in, Doc: sf.Tag.Get("doc"), Type: sf.Type, Whole: how == "whole"}
			fields = append(fields, f)
		}
	}
	for _, v := range Variables(pattern) {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.In == "path" && f.Name == v }) {
			panic(fmt.Sprintf("route: %s: request %v has no field for {%s}", pattern, t, v))
		}
	}
	return fields
}

// fill sets the fields of dst from in and returns a warning for the parameters
// that no field takes.
func fill(dst reflect.Value, fields []field, in *Input) (warnings []string, err error) {
	whole := false
	for i := range fields {
		f := &fields[i]
		switch {
		case f.In == "path":
			if err := set(dst.FieldByIndex(f.index), f, nil, in.Vars.Get(f.Name)); err != nil {
				return nil, err
			}
		case f.Whole:
			whole = true
			dst.FieldByIndex(f.index).SetBytes(slices.Clone(in.Params.Body))
		default:
			value, ok := in.Params.Get(f.Name)
			if !ok {
				continue
			}
			if err := set(dst.FieldByIndex(f.index), f, value, ""); err != nil {
				return nil, err
			}
		}
	}
	if whole {
		return nil, nil
	}
	var unknown []string
	for i := range in.Params.List {
		name := in.Params.List[i].Name
		if !slices.ContainsFunc(fields, func(f field) bool { return f.In != "path" && f.Name == name }) && name != "list" && name != "help" {
			unknown = append(unknown, name)
		}
	}
	if unknown != nil {
		slices.Sort(unknown)
		warnings = append(warnings, "Endpoint ignored these unrecognized parameters: ["+strings.Join(unknown, " ")+"]")
	}
	return warnings, nil
}

// set decodes one parameter: JSON text from the body or query, or plain text
// from the path.
func set(dst reflect.Value, f *field, value []byte, text string) error {
	if value == nil {
		if dst.Kind() == reflect.String {
			dst.SetString(text)
			return nil
		}
		value = fmt.Appendf(nil, "%q", text)
	}
	if f.resets && string(value) == "null" {
		dst.Set(reflect.New(dst.Type().Elem()))
		return nil
	}
	if err := json.Unmarshal(value, dst.Addr().Interface(), json.MatchCaseInsensitiveNames(false)); err != nil {
		return explain(err, f)
	}
	return nil
}

// explain names the field that could not be read, as options.cas or keys[2], and
// says what is wrong with its value without repeating that: only messages of
// package wire, which are written for that, are passed on.
func explain(err error, f *field) error {
	var se *json.SemanticError
	if !errors.As(err, &se) {
		return fault.New(fault.Invalid, "%s: it must be %s", f.Name, TypeName(f.Type))
	}
	inner, t := within(f.Type, se.JSONPointer)
	what := "it must be " + TypeName(t)
	if se.Err != nil && !errors.As(se.Err, new(*json.SemanticError)) {
		if pkg := reflect.TypeOf(se.Err).String(); pkg == "*errors.errorString" || pkg == "*fmt.wrapError" {
			what = se.Err.Error()
		}
	}
	return fault.New(fault.Invalid, "%s%s: %s", f.Name, inner, what)
}

// within follows a JSON pointer into a type as far as its fields and lists go,
// and returns what is behind a parameter's name and the type there. Names that
// are the sender's own, of an open object, are not followed: they could be
// secrets.
func within(t reflect.Type, pointer jsontext.Pointer) (path string, at reflect.Type) {
	for token := range pointer.Tokens() {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Struct:
			i := slices.IndexFunc(reflect.VisibleFields(t), func(sf reflect.StructField) bool {
				name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
				return name == token && sf.IsExported()
			})
			if i < 0 {
				return path, t
			}
			path, t = path+"."+token, reflect.VisibleFields(t)[i].Type
		case reflect.Slice:
			if t.Elem().Kind() == reflect.Uint8 { // JSON as it came
				return path, t
			}
			path, t = path+"["+token+"]", t.Elem()
		default:
			return path, t
		}
	}
	return path, t
}

// TypeName names a type for people and OpenAPI: string, integer, boolean,
// duration, list, object.
func TypeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[wire.Seconds](), reflect.TypeFor[wire.Duration](), reflect.TypeFor[wire.Lifetime]():
		return "a duration"
	case reflect.TypeFor[wire.Object]():
		return "an object"
	case reflect.TypeFor[wire.Time]():
		return "a time"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return TypeName(t.Elem())
	case reflect.Bool:
		return "a boolean"
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint, reflect.Uint64, reflect.Uint32:
		return "an integer"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a string"
}
