package route

import (
	"fmt"
	"strings"
)

// Help is the answer to ?help=1, in Vault's shape.
type Help struct {
	Bare
	Help    string   `json:"help"`
	SeeAlso []string `json:"see_also"`
}

// Describe returns the help for a path below a mount: its routes, what they
// need and what they take, or the list of all routes when the path has none.
func Describe(doc, mount, below string, specs []Spec) Help {
	table := NewTable(specs)
	var b strings.Builder
	for _, method := range []string{"GET", "LIST", "POST", "PATCH", "DELETE"} {
		if s, _, _ := table.Find(method, below); s != nil {
			describe(&b, mount, s)
		}
	}
	if b.Len() > 0 && below != "" {
		return Help{Help: b.String(), SeeAlso: []string{}}
	}
	b.Reset()
	fmt.Fprintf(&b, "%s\n\nPaths below %s:\n\n", doc, mount)
	for i := range specs {
		fmt.Fprintf(&b, "    %-6s %-40s %s\n", specs[i].Method, specs[i].Pattern, specs[i].Summary)
	}
	return Help{Help: b.String(), SeeAlso: []string{}}
}

func describe(b *strings.Builder, mount string, s *Spec) {
	fmt.Fprintf(b, "%s %s%s\n    %s\n", s.Method, mount, s.Pattern, s.Summary)
	switch {
	case s.Public:
		b.WriteString("    Needs no token.\n")
	case s.Nobody:
		b.WriteString("    Any valid token may call it, and so may callers without one.\n")
	case s.AnyToken:
		b.WriteString("    Any valid token may call it.\n")
	case s.Need == 0:
		b.WriteString("    Needs the capability create or update.\n")
	default:
		fmt.Fprintf(b, "    Needs the capability %s", s.Need)
		if s.Sudo {
			b.WriteString(" and sudo")
		}
		b.WriteString(".\n")
	}
	for _, f := range s.Fields() {
		fmt.Fprintf(b, "\n    %s (%s, %s)\n        %s\n", f.Name, TypeName(f.Type), f.In, f.Doc)
	}
	if s.Example != nil {
		fmt.Fprintf(b, "\n    Example: %s %s%s\n", s.Method, mount, s.Example.Path)
		if s.Example.Request != "" {
			fmt.Fprintf(b, "        %s\n", s.Example.Request)
		}
	}
	b.WriteString("\n")
}
