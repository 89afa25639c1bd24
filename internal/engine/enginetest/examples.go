package enginetest

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// Examples runs every route's example on an engine that fresh returns, and
// fails for routes without an example, fields without a doc, and answers of
// another shape. Times match any time, other values themselves.
func Examples(t *testing.T, fresh func(t testing.TB) *Engine) {
	t.Helper()
	for _, spec := range fresh(t).Spec.Routes {
		t.Run(spec.Method+" "+strings.ReplaceAll(spec.Pattern, "/", "|"), func(t *testing.T) {
			if spec.Summary == "" || spec.Example == nil {
				t.Fatal("the route has no summary or no example")
			}
			for _, f := range spec.Fields() {
				if f.Doc == "" {
					t.Errorf("the field %s has no doc", f.Name)
				}
			}
			e := fresh(t)
			a := e.Do(spec.Method, spec.Example.Path, spec.Example.Request)
			if a.Err != nil {
				t.Fatalf("%s %s %s: %v", spec.Method, spec.Example.Path, spec.Example.Request, a.Err)
			}
			if a.Spec.Pattern != spec.Pattern {
				t.Fatalf("the example is answered by %s", a.Spec.Pattern)
			}
			if len(a.Warnings) > 0 {
				t.Errorf("the example warns: %q", a.Warnings)
			}
			if spec.Example.Response == "" {
				if a.Status != 204 {
					t.Errorf("status %d with %s, want 204", a.Status, a.Data)
				}
				return
			}
			if diff := Differs(spec.Example.Response, a.Data); diff != "" {
				t.Errorf("%s\n got %s\nwant %s", diff, a.Data, spec.Example.Response)
			}
		})
	}
}

// Differs says where two JSON texts differ, "" where they do not. Any time in
// RFC 3339 equals any other.
func Differs(want, got string) string {
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		return "what is wanted is not JSON: " + err.Error()
	}
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		return "what was got is not JSON: " + err.Error()
	}
	return differs("", w, g)
}

func differs(at string, want, got any) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return at + ": not an object"
		}
		if a, b := slices.Sorted(maps.Keys(w)), slices.Sorted(maps.Keys(g)); !slices.Equal(a, b) {
			return at + ": members are " + strings.Join(b, ", ") + ", not " + strings.Join(a, ", ")
		}
		for name := range w {
			if d := differs(at+"/"+name, w[name], g[name]); d != "" {
				return d
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return at + ": not a list of the same length"
		}
		for i := range w {
			if d := differs(at+"/", w[i], g[i]); d != "" {
				return d
			}
		}
		return ""
	case string:
		if g, ok := got.(string); ok && isTime(w) && isTime(g) {
			return ""
		}
	}
	if want != got {
		return at + ": another value"
	}
	return ""
}

func isTime(s string) bool {
	_, err := time.Parse(time.RFC3339Nano, s)
	return err == nil
}
