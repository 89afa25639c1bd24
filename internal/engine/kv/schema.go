package kv

import (
	"bytes"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Limits of a JSON Schema's cost. Its weight is the number of schemas that it
// holds when every reference is written out; data is checked against at most
// all of them, so weight times size bounds the work.
const (
	maxSchemaWeight = 20_000
	maxSchemaWork   = 200 << 20 // weight times bytes of data
)

// schemaURL is the name under which the one schema is known to its compiler.
const schemaURL = "coffer:schema"

// noLoader refuses every schema from elsewhere.
type noLoader struct{}

func (noLoader) Load(string) (any, error) {
	return nil, fault.New(fault.Invalid, "references to other documents are not followed")
}

// compileSchema compiles a schema that refers to nothing outside itself and not
// to itself in a circle, and weighs it.
func compileSchema(text []byte) (*jsonschema.Schema, int, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, 0, fault.Wrap(fault.Invalid, err, "validators: json_schema is not valid JSON")
	}
	w := weigher{root: doc, open: map[string]bool{}}
	w.add(doc, 0)
	if w.problem != "" {
		return nil, 0, fault.New(fault.Invalid, "validators: json_schema: %s", w.problem)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	c.AssertFormat()
	if err := c.AddResource(schemaURL, doc); err != nil {
		return nil, 0, fault.New(fault.Invalid, "validators: json_schema: %v", err)
	}
	schema, err := c.Compile(schemaURL)
	if err != nil {
		return nil, 0, fault.New(fault.Invalid, "validators: json_schema: %s", strings.ReplaceAll(err.Error(), schemaURL, ""))
	}
	return schema, w.weight, nil
}

// weigher counts the objects of a schema with its references written out.
type weigher struct {
	root    any
	weight  int
	open    map[string]bool // references being followed
	problem string
}

func (w *weigher) add(node any, depth int) {
	if w.problem != "" {
		return
	}
	if w.weight++; w.weight > maxSchemaWeight || depth > 256 {
		w.problem = "it is too large when its references are written out"
		return
	}
	switch n := node.(type) {
	case []any:
		for _, item := range n {
			w.add(item, depth+1)
		}
	case map[string]any:
		for name, item := range n {
			switch name {
			case "$ref":
				w.follow(item, depth)
			case "$dynamicRef", "$recursiveRef", "$id", "id", "$anchor", "$dynamicAnchor":
				// Members of "properties" may bear these names with a schema as
				// their value; as keywords they hold text.
				if _, keyword := item.(string); keyword {
					w.problem = name + " is not accepted; use $defs and $ref"
				}
				w.add(item, depth+1)
			default:
				w.add(item, depth+1)
			}
		}
	}
}

func (w *weigher) follow(ref any, depth int) {
	text, ok := ref.(string)
	if !ok {
		w.add(ref, depth+1) // a property called $ref
		return
	}
	if !strings.HasPrefix(text, "#/") {
		w.problem = "$ref must point into the schema itself, as #/$defs/name does"
		return
	}
	if w.open[text] {
		w.problem = "$ref goes round in a circle"
		return
	}
	target := w.root
	for part := range strings.SplitSeq(text[2:], "/") {
		part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
		object, _ := target.(map[string]any)
		if target, ok = object[part]; !ok {
			w.problem = "$ref points at nothing; use #/$defs/name"
			return
		}
	}
	w.open[text] = true
	w.add(target, depth+1)
	delete(w.open, text)
}

// checkSchema validates data and names the first place that breaks a rule, and
// the rule, and never the value.
func checkSchema(schema *jsonschema.Schema, weight int, data []byte) error {
	if weight*len(data) > maxSchemaWork {
		return fault.New(fault.Invalid, "the data is too large for the secret's rule json_schema; make the schema or the data smaller")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "data: it must be a JSON object")
	}
	err = schema.Validate(doc)
	if err == nil {
		return nil
	}
	place, rule := "", "it does not fit"
	ve, ok := err.(*jsonschema.ValidationError)
	for ok && len(ve.Causes) > 0 {
		ve = ve.Causes[0]
	}
	if ok {
		place = "/" + strings.Join(ve.InstanceLocation, "/")
		if path := ve.ErrorKind.KeywordPath(); len(path) > 0 {
			rule = strings.Join(path, "/") + " is not kept"
		}
	}
	return broken("json_schema", place, rule)
}
