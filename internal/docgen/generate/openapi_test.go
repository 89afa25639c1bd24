package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type operation struct {
	OperationID string                `json:"operationId"`
	Summary     string                `json:"summary"`
	Security    []map[string][]string `json:"security"`
	Parameters  []struct {
		Name     string         `json:"name"`
		In       string         `json:"in"`
		Required bool           `json:"required"`
		Schema   map[string]any `json:"schema"`
	} `json:"parameters"`
	Body      map[string]any            `json:"requestBody"`
	Responses map[string]map[string]any `json:"responses"`
}

var variable = regexp.MustCompile(`\{([^}]*)\}`)

// What the OpenAPI specification asks of a document, over all tables.
func TestTheOpenAPIDocumentHoldsTogether(t *testing.T) {
	files, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI    string                          `json:"openapi"`
		Info       map[string]string               `json:"info"`
		Paths      map[string]map[string]operation `json:"paths"`
		Components map[string]map[string]any       `json:"components"`
	}
	if err := json.Unmarshal(files["openapi.json"], &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.0.") || doc.Info["title"] == "" || doc.Info["version"] == "" || len(doc.Paths) < 90 {
		t.Fatalf("%s %v, %d paths", doc.OpenAPI, doc.Info, len(doc.Paths))
	}
	ids, shapes := map[string]string{}, map[string]string{}
	for path, methods := range doc.Paths {
		shape := variable.ReplaceAllString(path, "{}")
		if other := shapes[shape]; other != "" {
			t.Errorf("%s and %s are the same path with other names", path, other)
		}
		shapes[shape] = path
		for method, op := range methods {
			name := method + " " + path
			if !slices.Contains([]string{"get", "post", "patch", "delete"}, method) {
				t.Errorf("%s: no method of OpenAPI", name)
			}
			if other := ids[op.OperationID]; other != "" || op.OperationID == "" {
				t.Errorf("%s: operationId %q is that of %q", name, op.OperationID, other)
			}
			ids[op.OperationID] = name
			checkOperation(t, name, method, path, op, doc.Components["securitySchemes"])
		}
	}
	var whole any
	if err := json.Unmarshal(files["openapi.json"], &whole); err != nil {
		t.Fatal(err)
	}
	if n := resolve(t, whole, whole); n < 50 {
		t.Errorf("%d references", n)
	}
}

func checkOperation(t *testing.T, name, method, path string, op operation, schemes map[string]any) {
	t.Helper()
	var declared []string
	for _, p := range op.Parameters {
		if p.Schema == nil || p.Name == "" || !slices.Contains([]string{"path", "query"}, p.In) {
			t.Errorf("%s: parameter %+v", name, p)
		}
		if p.In == "path" {
			declared = append(declared, p.Name)
			if !p.Required {
				t.Errorf("%s: the path parameter %s is not required", name, p.Name)
			}
		}
	}
	var used []string
	for _, m := range variable.FindAllStringSubmatch(path, -1) {
		used = append(used, m[1])
	}
	slices.Sort(declared)
	slices.Sort(used)
	if !slices.Equal(declared, used) {
		t.Errorf("%s: declares %v, uses %v", name, declared, used)
	}
	if op.Body != nil && (method == "get" || method == "delete") {
		t.Errorf("%s has a body", name)
	}
	if len(op.Responses) < 2 || op.Summary == "" || op.Security == nil {
		t.Errorf("%s: %+v", name, op)
	}
	for _, r := range op.Responses {
		if r["description"] == nil && r["$ref"] == nil {
			t.Errorf("%s: a response without a description", name)
		}
	}
	for _, needs := range op.Security {
		for scheme := range needs {
			if schemes[scheme] == nil {
				t.Errorf("%s: security scheme %s is not declared", name, scheme)
			}
		}
	}
}

// resolve follows every reference in v and counts them.
func resolve(t *testing.T, doc, v any) (n int) {
	t.Helper()
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			n += resolve(t, doc, item)
		}
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			n++
			target := doc
			for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				m, _ := target.(map[string]any)
				target = m[name]
			}
			if target == nil {
				t.Errorf("%s leads nowhere", ref)
			}
		}
		for name, item := range v {
			if name != "example" {
				n += resolve(t, doc, item)
			}
		}
	}
	return n
}
