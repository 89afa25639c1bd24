package main

import (
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

// The pages in docs/reference are those that the tables and commands give now.
func TestTheReferenceIsCurrent(t *testing.T) {
	fresh := t.TempDir()
	if err := write(fresh); err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadDir(fresh)
	if err != nil || len(made) < 8 {
		t.Fatalf("%d files, %v", len(made), err)
	}
	for _, f := range made {
		want, err := os.ReadFile(filepath.Join(fresh, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		have, err := os.ReadFile(filepath.Join("../../../docs/reference", f.Name()))
		if err != nil || !bytes.Equal(have, want) {
			t.Errorf("docs/reference/%s is not what the tables say (%v); run go run -tags pkcs11 ./internal/docgen/generate docs/reference", f.Name(), err)
		}
	}
}

func each(t *testing.T, check func(t *testing.T, table table, s *route.Spec)) {
	seen := 0
	for _, table := range tables() {
		for i := range table.Routes {
			s := &table.Routes[i]
			seen++
			t.Run(s.Method+" "+strings.ReplaceAll(table.Path+s.Pattern, "/", "|"), func(t *testing.T) { check(t, table, s) })
		}
	}
	if seen < 120 {
		t.Errorf("only %d routes were looked at", seen)
	}
}

func TestEveryRouteIsDescribed(t *testing.T) {
	each(t, func(t *testing.T, _ table, s *route.Spec) {
		if !strings.HasSuffix(s.Summary, ".") || len(s.Summary) < 7 || len(s.Summary) > 140 || strings.ToUpper(s.Summary[:1]) != s.Summary[:1] {
			t.Errorf("summary %q", s.Summary)
		}
		for _, f := range s.Fields() {
			if !strings.HasSuffix(f.Doc, ".") {
				t.Errorf("the doc of %s is %q", f.Name, f.Doc)
			}
		}
		if s.Example == nil && len(s.Fields()) > 0 && !accepted(s) {
			t.Error("it takes parameters and shows no example")
		}
	})
}

// accepted reports whether everything a route takes is there only for Vault's
// clients.
func accepted(s *route.Spec) bool {
	return !slices.ContainsFunc(s.Fields(), func(f route.Field) bool { return !strings.HasPrefix(f.Doc, "Accepted for Vault's clients") })
}

func TestExamplesAreRequestsOfTheirRoutes(t *testing.T) {
	each(t, func(t *testing.T, table table, s *route.Spec) {
		if s.Example == nil {
			return
		}
		path, query, _ := strings.Cut(s.Example.Path, "?")
		found, vars, _ := route.NewTable(table.Routes).Find(s.Method, path)
		if found == nil || found.Pattern != s.Pattern {
			t.Fatalf("%s is answered by %v", path, found)
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		params := wire.ParseQuery(values)
		if s.Method == "POST" || s.Method == "PATCH" {
			if params, err = wire.ParseBody([]byte(s.Example.Request)); err != nil {
				t.Fatal(err)
			}
		} else if s.Example.Request != "" {
			t.Error("a body, where only the query is read")
		}
		_, warnings, err := s.Decode(&route.Input{Vars: vars, Params: params})
		if err != nil || len(warnings) > 0 {
			t.Errorf("%v %q", err, warnings)
		}
	})
}

// The answers that are shown hold no member that the response does not have.
func TestExamplesAnswerWhatTheirRoutesAnswer(t *testing.T) {
	each(t, func(t *testing.T, _ table, s *route.Spec) {
		if s.Example == nil || s.Example.Response == "" {
			return
		}
		var shown map[string]json.RawMessage
		if err := json.Unmarshal([]byte(s.Example.Response), &shown); err != nil {
			t.Fatal(err)
		}
		known, open := members(s.Response)
		for name := range shown {
			if !open && !slices.Contains(known, name) {
				t.Errorf("%q is not in %v", name, s.Response)
			}
		}
	})
}

// members returns the names that a response may have, and whether it may have
// others.
func members(t reflect.Type) (names []string, open bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.Implements(reflect.TypeFor[json.Marshaler]()) {
		return nil, true
	}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		names, open = append(names, name), open || strings.Contains(options, "embed")
	}
	return names, open || t.Name() == "Raw" || t.Name() == "Stream" || t.Name() == "Login" || t.Name() == "Issued"
}

// Every member of an answer has a name that was chosen, not Go's.
func TestAnswersAreNamed(t *testing.T) {
	var check func(t *testing.T, at string, typ reflect.Type, depth int)
	check = func(t *testing.T, at string, typ reflect.Type, depth int) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || depth > 6 || !strings.HasPrefix(typ.PkgPath(), "github.com/cofferhq/coffer/internal/") || typ == reflect.TypeFor[route.Raw]() || typ == reflect.TypeFor[route.Stream]() || strings.HasSuffix(typ.PkgPath(), "/wire") {
			return
		}
		for _, f := range reflect.VisibleFields(typ) {
			if !f.Anonymous && f.IsExported() && f.Tag.Get("json") == "" {
				t.Errorf("%s.%s has no json tag", at, f.Name)
			}
			if f.IsExported() && f.Tag.Get("json") != "-" {
				check(t, at+"."+f.Name, f.Type, depth+1)
			}
		}
	}
	each(t, func(t *testing.T, _ table, s *route.Spec) {
		if s.Response == reflect.TypeFor[auth.Login]() || s.Response == reflect.TypeFor[token.Issued]() || s.Response == reflect.TypeFor[*token.Issued]() {
			return // the gateway writes what is answered
		}
		check(t, s.Response.String(), s.Response, 0)
	})
}
