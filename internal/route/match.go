package route

import (
	"fmt"
	"slices"
	"strings"
)

// Vars are the variables of a matched path, in the order of the pattern.
type Vars []Var

// Var is one variable and its value.
type Var struct{ Name, Value string }

// Get returns the value of a variable, "" when there is none.
func (v Vars) Get(name string) string {
	for i := range v {
		if v[i].Name == name {
			return v[i].Value
		}
	}
	return ""
}

// Variables returns the names of a pattern's variables: {name} takes one
// segment, {name...} takes the rest, which may be empty; one literal segment may
// follow it.
func Variables(pattern string) []string {
	var names []string
	for seg := range strings.SplitSeq(pattern, "/") {
		if strings.HasPrefix(seg, "{") {
			names = append(names, strings.TrimSuffix(strings.Trim(seg, "{}"), "..."))
		}
	}
	return names
}

// Expand fills a pattern's variables in.
func Expand(pattern string, vars Vars) string {
	for _, v := range vars {
		pattern = strings.Replace(strings.Replace(pattern, "{"+v.Name+"...}", v.Value, 1), "{"+v.Name+"}", v.Value, 1)
	}
	return pattern
}

// Table finds the route of a method and path. A literal segment beats a
// variable, a variable beats the rest of the path.
type Table struct{ root *node }

type node struct {
	literal map[string]*node
	one     *node // {name}
	here    []leaf
	rest    []leaf            // {name...}
	until   map[string][]leaf // {name...}/literal
}

type leaf struct {
	spec  *Spec
	names []string
}

// NewTable builds a table. Two routes for one method and shape are a bug.
func NewTable(specs []Spec) *Table {
	t := &Table{root: &node{}}
	for i := range specs {
		t.add(&specs[i])
	}
	return t
}

func (t *Table) add(s *Spec) {
	n := t.root
	l := leaf{s, Variables(s.Pattern)}
	if s.Pattern == "" {
		n.here = appendLeaf(n.here, l)
		return
	}
	segments := strings.Split(s.Pattern, "/")
	for i, seg := range segments {
		switch {
		case strings.HasSuffix(seg, "...}"):
			switch tail := segments[i+1:]; {
			case len(tail) == 0:
				n.rest = appendLeaf(n.rest, l)
			case len(tail) == 1 && !strings.HasPrefix(tail[0], "{"):
				if n.until == nil {
					n.until = map[string][]leaf{}
				}
				n.until[tail[0]] = appendLeaf(n.until[tail[0]], l)
			default:
				panic("route: " + s.Pattern + ": only one literal segment may follow {...}")
			}
			return
		case strings.HasPrefix(seg, "{"):
			if n.one == nil {
				n.one = &node{}
			}
			n = n.one
		default:
			if n.literal == nil {
				n.literal = map[string]*node{}
			}
			if n.literal[seg] == nil {
				n.literal[seg] = &node{}
			}
			n = n.literal[seg]
		}
	}
	n.here = appendLeaf(n.here, l)
}

func appendLeaf(leaves []leaf, l leaf) []leaf {
	if slices.ContainsFunc(leaves, func(o leaf) bool { return o.spec.Method == l.spec.Method }) {
		panic(fmt.Sprintf("route: %s %s is declared twice", l.spec.Method, l.spec.Pattern))
	}
	return append(leaves, l)
}

// Find returns the route for a method and a path below the mount. When the path
// has routes but none for the method, it returns nil and the methods there are.
func (t *Table) Find(method, path string) (spec *Spec, vars Vars, allowed []string) {
	var values [8]string
	return find(t.root, method, path, values[:0])
}

func find(n *node, method, path string, values []string) (*Spec, Vars, []string) {
	var allowed []string
	if path == "" || (path == "/" && method == "LIST") {
		if spec, vars, methods := pick(n.here, method, values); spec != nil {
			return spec, vars, nil
		} else {
			allowed = methods
		}
	}
	if path != "" {
		seg, tail, more := strings.Cut(path, "/")
		if more && tail == "" && method != "LIST" {
			tail = "/" // a trailing slash is a path of its own; only {...} takes it
		}
		if child := n.literal[seg]; child != nil {
			spec, vars, methods := find(child, method, tail, values)
			if spec != nil {
				return spec, vars, nil
			}
			allowed = append(allowed, methods...)
		}
		if n.one != nil && seg != "" {
			spec, vars, methods := find(n.one, method, tail, append(values, seg))
			if spec != nil {
				return spec, vars, nil
			}
			allowed = append(allowed, methods...)
		}
	}
	if path == "/" {
		path = ""
	}
	if i := strings.LastIndexByte(path, '/'); i > 0 && n.until[path[i+1:]] != nil {
		spec, vars, methods := pick(n.until[path[i+1:]], method, append(values, path[:i]))
		return spec, vars, append(allowed, methods...)
	}
	spec, vars, methods := pick(n.rest, method, append(values, path))
	if spec != nil {
		return spec, vars, nil
	}
	return nil, nil, append(allowed, methods...)
}

func pick(leaves []leaf, method string, values []string) (*Spec, Vars, []string) {
	var allowed []string
	for i := range leaves {
		if leaves[i].spec.Method == method {
			vars := make(Vars, len(leaves[i].names))
			for j, name := range leaves[i].names {
				vars[j] = Var{name, values[j]}
			}
			return leaves[i].spec, vars, nil
		}
		allowed = append(allowed, leaves[i].spec.Method)
	}
	return nil, nil, allowed
}
