// Package docgen makes the OpenAPI document and the Markdown reference of the
// route tables. It needs no running server.
package docgen

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
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
	Security  map[string]security `json:"securitySchemes"`
	Schemas   map[string]*schema  `json:"schemas"`
	Responses map[string]response `json:"responses"`
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
	Ref         string           `json:"$ref,omitempty"`
	Description string           `json:"description,omitempty"`
	Content     map[string]media `json:"content,omitempty"`
}

type schema struct {
	Ref         string             `json:"$ref,omitempty"`
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
			Description: "HTTP API of Coffer, a secret manager. Paths and shapes are Vault's where Vault has them. " +
				"Unless a response says otherwise, its schema is that of `data` in the envelope.",
		},
		Paths: map[string]map[string]operation{},
		Components: components{
			Security:  map[string]security{"token": {"apiKey", "header", "X-Vault-Token"}},
			Schemas:   map[string]*schema{"Errors": errorsSchema},
			Responses: map[string]response{"Error": {Description: "Refused.", Content: content(&schema{Ref: "#/components/schemas/Errors"})}},
		},
	}
	taken := map[string]bool{}
	for _, m := range mounts {
		for i := range m.Routes {
			s := &m.Routes[i]
			path, method := place(m.Path, s)
			if doc.Paths[path] == nil {
				doc.Paths[path] = map[string]operation{}
			}
			if _, twice := doc.Paths[path][method]; twice {
				return nil, fmt.Errorf("%s %s is described twice", method, path)
			}
			op := describe(m, s)
			for base, n := op.OperationID, 2; taken[op.OperationID]; n++ {
				op.OperationID = fmt.Sprintf("%s-%d", base, n)
			}
			taken[op.OperationID] = true
			doc.Paths[path][method] = op
		}
	}
	return json.Marshal(doc, json.Deterministic(true), jsontext.WithIndent("  "))
}

// place returns where a route stands in the document. OpenAPI knows no method
// LIST: a list is the GET of the folder's path.
func place(mount string, s *route.Spec) (path, method string) {
	path, method = "/"+mount+strings.ReplaceAll(s.Pattern, "...}", "}"), strings.ToLower(s.Method)
	if s.Method == "LIST" {
		return strings.TrimSuffix(path, "/") + "/", "get"
	}
	return path, method
}

var errorsSchema = &schema{Type: "object", Properties: map[string]*schema{
	"errors":     {Type: "array", Items: &schema{Type: "string"}, Description: "What is wrong; empty where there is nothing."},
	"request_id": {Type: "string", Description: "Names the request in the audit log, and in sys/policies/why."},
}}

func content(s *schema) map[string]media {
	return map[string]media{"application/json": {Schema: s}}
}

func describe(m Mount, s *route.Spec) operation {
	op := operation{
		OperationID: operationID(m.Path, s), Summary: s.Summary, Tags: []string{strings.TrimSuffix(m.Path, "/")},
		Sudo: s.Sudo, Public: s.Public, Security: []map[string][]string{{"token": {}}},
		Responses: answers(s),
	}
	if s.Public {
		op.Security = []map[string][]string{}
	}
	if s.Need != 0 && !s.AnyToken {
		op.Capability = s.Need.String()
	}
	op.Parameters, op.Body = inputs(s)
	return op
}

// inputs describes what a route takes. Only a POST or PATCH has a body; the
// others take in the query what is no part of the path.
func inputs(s *route.Spec) ([]parameter, *body) {
	var parameters []parameter
	var whole *schema
	properties := map[string]*schema{}
	variables := route.Variables(s.Pattern)
	for _, f := range s.Fields() {
		sch := schemaOf(f.Type)
		switch {
		case f.In == "path":
			if slices.Contains(variables, f.Name) {
				parameters = append(parameters, parameter{f.Name, "path", true, f.Doc, sch})
			}
		case s.Method != "POST" && s.Method != "PATCH":
			parameters = append(parameters, parameter{f.Name, "query", false, f.Doc, sch})
		case f.Whole:
			whole = sch
			whole.Description = f.Doc
		default:
			sch.Description = f.Doc
			properties[f.Name] = sch
		}
	}
	if s.Method == "LIST" {
		parameters = append(parameters, parameter{"list", "query", true, "Must be true; or send the method LIST.", &schema{Type: "boolean"}})
	}
	sch := whole
	if sch == nil {
		sch = &schema{Type: "object", Properties: properties}
	}
	if whole == nil && len(properties) == 0 {
		return parameters, nil
	}
	in := media{Schema: sch}
	if s.Example != nil && s.Example.Request != "" {
		in.Example = jsontext.Value(s.Example.Request)
	}
	if s.Method == "PATCH" {
		return parameters, &body{map[string]media{"application/merge-patch+json": in}}
	}
	return parameters, &body{map[string]media{"application/json": in}}
}

// answers describes what a route answers.
func answers(s *route.Spec) map[string]response {
	t := s.Response
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	refused := response{Ref: "#/components/responses/Error"}
	ok := func(r response) map[string]response { return map[string]response{"200": r, "default": refused} }
	switch t {
	case reflect.TypeFor[route.Empty]():
		return map[string]response{"204": {Description: "Done; 200 where there are warnings."}, "default": refused}
	case reflect.TypeFor[route.Raw](), reflect.TypeFor[route.Stream]():
		return ok(response{Description: "The content itself, without the envelope.", Content: map[string]media{"*/*": {Schema: &schema{Type: "string", Format: "binary"}}}})
	case reflect.TypeFor[auth.Login](), reflect.TypeFor[token.Issued]():
		return ok(response{Description: "A new token, in `auth` of the envelope."})
	case reflect.TypeFor[token.WrapInfo]():
		return ok(response{Description: "A wrapping token, in `wrap_info` of the envelope; the schema is of that.", Content: content(schemaOf(t))})
	}
	in := media{Schema: schemaOf(t)}
	if s.Example != nil && s.Example.Response != "" {
		in.Example = jsontext.Value(s.Example.Response)
	}
	description := "OK; the schema is of `data` in the envelope."
	if _, bare := reflect.Zero(t).Interface().(interface{ IsBare() }); bare {
		description = "OK, without the envelope."
	}
	return ok(response{Description: description, Content: map[string]media{"application/json": in}})
}

func operationID(mount string, s *route.Spec) string {
	words := strings.FieldsFunc(strings.ToLower(s.Method)+"/"+mount+s.Pattern, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z')
	})
	return strings.Join(words, "-")
}
