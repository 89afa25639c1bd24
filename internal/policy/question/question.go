// Package question turns "read secret/app/db" into what policies are asked on a
// server with certain mounts: the route that answers it, both spellings of its
// path, the capability, and whether sudo is needed besides.
//
// It decides nothing (package policy) and reaches no server: the mounts are told to
// it, with the route tables of their kinds.
package question

import (
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
)

// Mount is something mounted.
type Mount struct {
	Path string // with its slash: "secret/", "auth/approle/"
	Type string // the kind, for messages
	// Routes are those of the kind; nil where the kind is not known, and then every
	// path below the mount is taken as it is.
	Routes []route.Spec
}

// Mounts finds mounts by path.
type Mounts struct {
	list   []Mount
	tables []*route.Table
}

// New returns a finder of mounts. Of two at one path the later counts.
func New(list []Mount) *Mounts {
	m := &Mounts{list: list}
	for _, one := range list {
		m.tables = append(m.tables, route.NewTable(one.Routes))
	}
	return m
}

// find returns the mount whose path is the longest that path begins with, or -1.
func (m *Mounts) find(path string) int {
	best := -1
	for i, one := range m.list {
		if (strings.HasPrefix(path, one.Path) || path+"/" == one.Path) && (best < 0 || len(one.Path) >= len(m.list[best].Path)) {
			best = i
		}
	}
	return best
}

// At returns the mount that a path belongs to; false when there is none.
func (m *Mounts) At(path string) (Mount, bool) {
	i := m.find(strings.TrimLeft(path, "/"))
	if i < 0 {
		return Mount{}, false
	}
	return m.list[i], true
}

// Ask returns what policies are asked when a capability is used on a path, written in
// either spelling: secret/app/db of a versioned mount is secret/data/app/db for
// reads and writes, secret/metadata/app/db for lists. Errors are fault.Invalid: no such
// capability, nothing mounted there, no route, a route that needs another
// capability, or one for which no policy is asked.
func (m *Mounts) Ask(capability, path string) (policy.Request, error) {
	need, ok := policy.CapabilityOf(capability)
	switch {
	case capability == "write":
		return policy.Request{}, fault.New(fault.Invalid, "write is create where there is nothing yet, and update where there is; name one")
	case !ok:
		return policy.Request{}, fault.New(fault.Invalid, "%q is not a capability; there are create, read, update, delete, list, patch, subscribe, recover, scan and why", capability)
	case need == policy.Deny, need == policy.Sudo:
		return policy.Request{}, fault.New(fault.Invalid, "nobody asks for %s alone: name the other capability, and paths that need sudo ask for it besides", capability)
	}
	path = strings.TrimLeft(path, "/")
	i := m.find(path)
	if i < 0 {
		return policy.Request{}, fault.New(fault.Invalid, "nothing is mounted at %s", path)
	}
	below := strings.TrimPrefix(path, m.list[i].Path)
	if path+"/" == m.list[i].Path {
		below = ""
	}
	if m.list[i].Routes == nil {
		return policy.Request{Path: path, Need: need}, nil
	}
	return m.ask(i, need, path, below)
}

// methods are those by which a capability is used, the usual one first.
func methods(need policy.Capability) []string {
	switch need {
	case policy.Read:
		return []string{"GET", "POST"}
	case policy.List, policy.Scan:
		return []string{"LIST", "GET"}
	case policy.Delete:
		return []string{"DELETE", "POST"}
	case policy.Patch:
		return []string{"PATCH"}
	case policy.Create, policy.Update:
		return []string{"POST"}
	}
	return []string{"GET", "LIST", "POST", "DELETE", "PATCH"}
}

func (m *Mounts) ask(i int, need policy.Capability, path, below string) (policy.Request, error) {
	var other *route.Spec
	for _, method := range methods(need) {
		spec, vars, _ := m.tables[i].Find(method, below)
		switch {
		case spec == nil:
		case spec.Need == need || spec.Need == 0 && need&(policy.Create|policy.Update) != 0, ours(need):
			return m.request(i, spec, vars, need, path)
		case other == nil:
			other = spec
		}
	}
	segment, _, _ := strings.Cut(below, "/")
	if other == nil && !policy.WireSegment(segment) {
		if wire, ok := m.list[i].wire(need, below); ok {
			return m.ask(i, need, m.list[i].Path+wire, wire)
		}
	}
	if other != nil {
		return policy.Request{}, fault.New(fault.Invalid, "%s %s needs %s, not %s", other.Method, path, needs(other), need)
	}
	return policy.Request{}, fault.New(fault.Invalid, "%s, of the type %s, has nothing at %s that can be asked for %s", m.list[i].Path, m.list[i].Type, below, need)
}

// ours reports whether no method needs the capability by itself.
func ours(need policy.Capability) bool {
	return need&(policy.Why|policy.Subscribe|policy.Recover|policy.Scan) != 0
}

func needs(s *route.Spec) string {
	if s.Need == 0 {
		return "create or update"
	}
	return s.Need.String()
}

func (m *Mounts) request(i int, spec *route.Spec, vars route.Vars, need policy.Capability, path string) (policy.Request, error) {
	if spec.Public || spec.AnyToken {
		return policy.Request{}, fault.New(fault.Invalid, "no policy is asked about %s %s: whoever comes may use it", spec.Method, path)
	}
	ask := policy.Request{Path: path, Need: need, Sudo: spec.Sudo}
	if plain := spec.Plain; plain != nil {
		ask.Plain = m.list[i].Path + route.Expand(plain.Pattern, vars)
		if ask.PlainNeed = plain.Need; ask.PlainNeed == 0 || ours(need) {
			ask.PlainNeed = need
		}
	}
	return ask, nil
}

// wire returns a plain path as the wire has it: by the first route, in the order of
// the kind, that is spelled plainly and used by the capability's method.
func (m *Mount) wire(need policy.Capability, below string) (string, bool) {
	method := methods(need)[0]
	for _, spec := range m.Routes {
		if spec.Method != method || spec.Plain == nil {
			continue
		}
		if prefix, ok := strings.CutSuffix(spec.Pattern, spec.Plain.Pattern); ok && prefix != "" {
			return prefix + below, true
		}
	}
	return "", false
}
