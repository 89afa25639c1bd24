package docgen

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/route"
)

// Markdown returns the reference of one mount's routes.
func Markdown(m Mount) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n\nPaths are below `/v1/%s`, or where else it is mounted.\n", m.Kind, m.Doc, m.Path)
	for i := range m.Routes {
		section(&b, m, &m.Routes[i])
	}
	return b.String()
}

func section(b *strings.Builder, m Mount, s *route.Spec) {
	fmt.Fprintf(b, "\n## %s `%s`\n\n%s\n\n%s\n", s.Method, m.Path+s.Pattern, s.Summary, needs(s))
	variables, header := route.Variables(s.Pattern), false
	for _, f := range s.Fields() {
		where := f.In
		switch {
		case where == "path" && !slices.Contains(variables, f.Name):
			continue
		case f.Whole:
			where = "body, all of it"
		case where == "json" && s.Method != "POST" && s.Method != "PATCH":
			where = "query"
		case where == "json":
			where = "body"
		}
		if !header {
			b.WriteString("\n| parameter | in | type | |\n|---|---|---|---|\n")
			header = true
		}
		kind := strings.TrimPrefix(strings.TrimPrefix(route.TypeName(f.Type), "a "), "an ")
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.Name, where, kind, strings.ReplaceAll(f.Doc, "|", "\\|"))
	}
	example(b, m, s)
}

// needs says what a caller must hold.
func needs(s *route.Spec) string {
	switch {
	case s.Public && s.Sealed:
		return "Needs no token, and works while the server is sealed."
	case s.Public:
		return "Needs no token."
	case s.AnyToken:
		return "Needs a token; any valid one will do."
	case s.Need == 0:
		return "Needs `create` where it is new, `update` where it exists."
	case s.Sudo:
		return fmt.Sprintf("Needs `%s` and `sudo`.", s.Need)
	}
	return fmt.Sprintf("Needs `%s`.", s.Need)
}

func example(b *strings.Builder, m Mount, s *route.Spec) {
	e := s.Example
	if e == nil {
		return
	}
	fmt.Fprintf(b, "\n```\n%s /v1/%s%s\n", s.Method, m.Path, e.Path)
	if e.Request != "" {
		b.WriteString(e.Request + "\n")
	}
	b.WriteString("```\n")
	if e.Response != "" {
		fmt.Fprintf(b, "answers\n```json\n%s\n```\n", e.Response)
	}
}
