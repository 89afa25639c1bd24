// Package docgen makes the OpenAPI document and the Markdown reference of the
// route tables. It needs no running server.
package docgen

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Mount is a route table at the path it is documented under.
type Mount struct {
	Path   string // "secret/"
	Kind   string // "kv version 2"
	Doc    string
	Routes []route.Spec
}

type document struct {
	OpenAPI    string                          `json:"openapi"`
	Info       info                            `json:"info"`
	Paths      map[string]map[string]operation `json:"paths"`
	Components components                      `json:"components"`
}

type info struct {
	Title       string `json:"title"`
	Description string `json:"description"`
	Version     string `json:"version"`
}

type components struct {
	Security map[string]security `json:"securitySchemes"`
}

type security struct {
	Type string `json:"type"`
	In   string `json:"in"`
	Name string `json:"name"`
}

type operation struct {
	OperationID string                `json:"operationId"`
	Summary     string                `json:"summary"`
	Tags        []string              `json:"tags"`
	Parameters  []parameter           `json:"parameters,omitempty"`
	Body        *body                 `json:"requestBody,omitempty"`
	Responses   map[string]response   `json:"responses"`
	Security    []map[string][]string `json:"security"`
	Capability  string                `json:"x-coffer-capability,omitempty"`
	Sudo        bool                  `json:"x-vault-sudo,omitempty"`
	Public      bool                  `json:"x-vault-unauthenticated,omitempty"`
}

type parameter struct {
	Name        string  `json:"name"`
	In          string  `json:"in"`
	Required    bool    `json:"required"`
	Description string  `json:"description,omitempty"`
	Schema      *schema `json:"schema"`
}

type body struct {
	Content map[string]media `json:"content"`
}

type media struct {
	Schema  *schema        `json:"schema"`
	Example jsontext.Value `json:"example,omitempty"`
}

type response struct {
	Description string           `json:"description"`
	Content     map[string]media `json:"content,omitempty"`
}

type schema struct {
	Type        string             `json:"type,omitempty"`
	Format      string             `json:"format,omitempty"`
	Description string             `json:"description,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Extra       *schema            `json:"additionalProperties,omitempty"`
}

// OpenAPI returns the OpenAPI 3.0 document of the mounts.
func OpenAPI(version string, mounts []Mount) ([]byte, error) {
	doc := document{
		OpenAPI: "3.0.2",
		Info: info{
			Title: "Coffer", Version: version,
			Description: "HTTP API of Coffer, a secret manager. Paths are as Vault has them.",
		},
		Paths:      map[string]map[string]operation{},
		Components: components{map[string]security{"token": {"apiKey", "header", "X-Vault-Token"}}},
	}
	for _, m := range mounts {
		for i := range m.Routes {
			s := &m.Routes[i]
			path, method := "/"+m.Path+strings.ReplaceAll(s.Pattern, "...}", "}"), strings.ToLower(s.Method)
			if s.Method == "LIST" {
				path, method = strings.TrimSuffix(path, "/")+"/", "get"
			}
			if doc.Paths[path] == nil {
				doc.Paths[path] = map[string]operation{}
			}
			doc.Paths[path][method] = describe(m, s)
		}
	}
	return json.Marshal(doc, json.Deterministic(true), jsontext.WithIndent("  "))
}

func describe(m Mount, s *route.Spec) operation {
	op := operation{
		OperationID: operationID(m.Path, s), Summary: s.Summary, Tags: []string{strings.TrimSuffix(m.Path, "/")},
		Sudo: s.Sudo, Public: s.Public, Security: []map[string][]string{{"token": {}}},
		Responses: map[string]response{"200": {Description: "OK"}},
	}
	if s.Public {
		op.Security = []map[string][]string{}
	}
	if s.Need != 0 {
		op.Capability = s.Need.String()
	}
	if s.Response == reflect.TypeFor[route.Empty]() {
		op.Responses = map[string]response{"204": {Description: "Done"}}
	} else if sch := schemaOf(s.Response, 0); sch != nil && sch.Type == "object" {
		op.Responses["200"] = response{"OK", map[string]media{"application/json": {Schema: sch}}}
	}
	properties := map[string]*schema{}
	for _, f := range s.Fields() {
		sch := schemaOf(f.Type, 0)
		if f.In == "json" {
			sch.Description = f.Doc
			properties[f.Name] = sch
			continue
		}
		op.Parameters = append(op.Parameters, parameter{f.Name, f.In, f.In == "path", f.Doc, sch})
	}
	if s.Method == "LIST" {
		op.Parameters = append(op.Parameters, parameter{"list", "query", true, "Must be true; or send the method LIST.", &schema{Type: "boolean"}})
	}
	if len(properties) > 0 {
		content := media{Schema: &schema{Type: "object", Properties: properties}}
		if s.Example != nil && s.Example.Request != "" {
			content.Example = jsontext.Value(s.Example.Request)
		}
		op.Body = &body{map[string]media{"application/json": content}}
	}
	return op
}

func operationID(mount string, s *route.Spec) string {
	words := strings.FieldsFunc(strings.ToLower(s.Method)+"/"+mount+s.Pattern, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z')
	})
	return strings.Join(words, "-")
}

// schemaOf describes a type; depth bounds types that contain themselves.
func schemaOf(t reflect.Type, depth int) *schema {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[wire.Seconds](), reflect.TypeFor[wire.Duration]():
		return &schema{Type: "string", Format: "duration"}
	case reflect.TypeFor[wire.Object]():
		return &schema{Type: "object"}
	case reflect.TypeFor[wire.Time]():
		return &schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[wire.Secret]():
		return &schema{Type: "string", Format: "password"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer"}
	case reflect.Float32, reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return &schema{Type: "string"}
		}
		return &schema{Type: "array", Items: schemaOf(t.Elem(), depth+1)}
	case reflect.Map:
		return &schema{Type: "object", Extra: schemaOf(t.Elem(), depth+1)}
	case reflect.Struct:
		return structSchema(t, depth)
	}
	return &schema{Type: "string"}
}

func structSchema(t reflect.Type, depth int) *schema {
	out := &schema{Type: "object", Properties: map[string]*schema{}}
	if t.PkgPath() == "time" {
		return &schema{Type: "string", Format: "date-time"}
	}
	if depth > 4 {
		return out
	}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || name == "-" || name == "" && !slices.Contains(strings.Split(options, ","), "embed") {
			continue
		}
		if name == "" {
			out.Extra = schemaOf(f.Type, depth+1)
			if out.Extra.Extra != nil {
				out.Extra = out.Extra.Extra
			}
			continue
		}
		sch := schemaOf(f.Type, depth+1)
		sch.Description = f.Tag.Get("doc")
		out.Properties[name] = sch
	}
	return out
}

// Markdown returns the reference of one mount's routes.
func Markdown(m Mount) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n\nPaths are below `/v1/%s`.\n", m.Kind, m.Doc, m.Path)
	for i := range m.Routes {
		s := &m.Routes[i]
		fmt.Fprintf(&b, "\n## %s %s%s\n\n%s\n\n", s.Method, m.Path, s.Pattern, s.Summary)
		switch {
		case s.Public:
			b.WriteString("Needs no token.\n")
		case s.Need == 0:
			b.WriteString("Needs `create` where it is new, `update` where it exists.\n")
		case s.Sudo:
			fmt.Fprintf(&b, "Needs `%s` and `sudo`.\n", s.Need)
		default:
			fmt.Fprintf(&b, "Needs `%s`.\n", s.Need)
		}
		if fields := s.Fields(); len(fields) > 0 {
			b.WriteString("\n| parameter | in | type | |\n|---|---|---|---|\n")
			for _, f := range fields {
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.In, route.TypeName(f.Type), f.Doc)
			}
		}
		if s.Example != nil {
			fmt.Fprintf(&b, "\n```\n%s /v1/%s%s\n", s.Method, m.Path, s.Example.Path)
			if s.Example.Request != "" {
				b.WriteString(s.Example.Request + "\n")
			}
			b.WriteString("```\n")
			if s.Example.Response != "" {
				fmt.Fprintf(&b, "answers\n```json\n%s\n```\n", s.Example.Response)
			}
		}
	}
	return b.String()
}
