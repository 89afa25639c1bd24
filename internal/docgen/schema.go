package docgen

import (
	"encoding"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// scalars are the types whose JSON is not what their Go kind says.
var scalars = map[reflect.Type]schema{
	reflect.TypeFor[wire.Seconds]():   {Type: "string", Format: "duration"},
	reflect.TypeFor[wire.Duration]():  {Type: "string", Format: "duration"},
	reflect.TypeFor[wire.Lifetime]():  {Type: "string", Format: "duration"},
	reflect.TypeFor[wire.Time]():      {Type: "string", Format: "date-time"},
	reflect.TypeFor[time.Time]():      {Type: "string", Format: "date-time"},
	reflect.TypeFor[wire.Secret]():    {Type: "string", Format: "password"},
	reflect.TypeFor[wire.Object]():    {Type: "object"},
	reflect.TypeFor[jsontext.Value](): {}, // anything
	reflect.TypeFor[[]byte]():         {Type: "string", Format: "byte"},
}

// maxDepth bounds the description of types that contain themselves.
const maxDepth = 6

func schemaOf(t reflect.Type) *schema { return nested(t, 0) }

func nested(t reflect.Type, depth int) *schema {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if s, ok := scalars[t]; ok {
		return &s
	}
	if t.Kind() == reflect.Struct && t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return &schema{Type: "string"}
	}
	if t.Kind() == reflect.Struct && (t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[json.MarshalerTo]())) {
		return &schema{Type: "object"} // of members that only the type knows
	}
	switch t.Kind() {
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer"}
	case reflect.Float32, reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Slice, reflect.Array:
		return &schema{Type: "array", Items: nested(t.Elem(), depth+1)}
	case reflect.Map:
		return &schema{Type: "object", Extra: nested(t.Elem(), depth+1)}
	case reflect.Struct:
		return structSchema(t, depth)
	case reflect.Interface:
		return &schema{}
	}
	return &schema{Type: "string"}
}

// structSchema describes a struct by its json tags, the members of embedded
// structs among its own. An embedded map is what else may stand there.
func structSchema(t reflect.Type, depth int) *schema {
	out := &schema{Type: "object", Properties: map[string]*schema{}}
	if depth > maxDepth {
		return out
	}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		embeds := slices.Contains(strings.Split(options, ","), "embed")
		switch {
		case f.Anonymous || !f.IsExported() || name == "-" || name == "" && !embeds:
		case embeds:
			out.Extra = &schema{}
			if f.Type.Kind() == reflect.Map {
				out.Extra = nested(f.Type.Elem(), depth+1)
			}
		case out.Properties[name] == nil: // else one nearer to the top is meant
			sch := nested(f.Type, depth+1)
			sch.Description = f.Tag.Get("doc")
			out.Properties[name] = sch
		}
	}
	return out
}
