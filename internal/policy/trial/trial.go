// Package trial runs tests of policies: files that say which requests an identity
// must be allowed and which it must be denied, optionally by which rule. It needs no
// server: the policies, and the mounts they are written for, are told to it.
//
//	test "the pipeline reads what it deploys" {
//	  policies = ["ci"]
//	  entity { name = "ci" metadata = { team = "web" } }
//	  groups = ["deployers"]
//
//	  allow "read" "secret/web/db" {}
//	  deny "delete" "secret/web/db" "secret/web/tls" {}
//	  deny "read" "secret/pay/db" { policy = "walls"  rule = "secret/pay/*" }
//	}
//
// Requests are decided and explained by package policy; nothing here decides.
package trial

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/policy/question"
)

// Limits of a file.
const (
	MaxTests    = 2000  // tests
	MaxRequests = 20000 // requests in all tests together
)

// File is a file of tests, parsed.
type File struct {
	Name   string
	Mounts []question.Declared // besides those that the policies are written for
	Tests  []Test
}

// Named returns the file with those tests only whose name has a text in it.
func (f *File) Named(text string) *File {
	out := *f
	out.Tests = nil
	for _, t := range f.Tests {
		if strings.Contains(t.Name, text) {
			out.Tests = append(out.Tests, t)
		}
	}
	return &out
}

// Test is an identity, and what it may and may not do.
type Test struct {
	Name     string
	Line     int
	Who      Identity
	Requests []Request
}

// Identity is who asks.
type Identity struct {
	Policies  []string // "default" is added unless NoDefault
	NoDefault bool
	Entity    *Entity
	Groups    []Group
	Namespace string
	Remote    netip.Addr // zero: none
	Time      time.Time  // when it is asked; zero: now
}

// Entity is what policies' templates can say of who asks.
type Entity struct {
	ID, Name string
	Metadata map[string]string
	Policies []string
	Aliases  []Alias
}

// Alias is the name by which one login method knows the entity.
type Alias struct {
	Accessor string // the method's
	ID, Name string
	Metadata map[string]string
	Custom   map[string]string
}

// Group is a group that the entity is in.
type Group struct {
	ID, Name string
	Metadata map[string]string
	Policies []string
}

// Request is one request and what must come of it.
type Request struct {
	Line       int
	Allow      bool
	Capability string
	Path       string
	Policy     string // that must decide; "" for any
	Rule       string // that must decide, as written; "" for any
	Parameters Parameters
	WrapTTL    time.Duration
}

// Parameters are what a request sends, in their order. It implements
// policy.ParamSource.
type Parameters []Parameter

// Parameter is one of them, its value as JSON.
type Parameter struct {
	Name  string
	Value []byte
}

// Names implements policy.ParamSource.
func (p Parameters) Names() []string {
	names := make([]string, len(p))
	for i := range p {
		names[i] = p[i].Name
	}
	return names
}

// Value implements policy.ParamSource.
func (p Parameters) Value(name string) ([]byte, bool) {
	for i := range p {
		if strings.EqualFold(p[i].Name, name) {
			return p[i].Value, true
		}
	}
	return nil, false
}

// names returns the policies that the identity holds, in the order in which they
// were named, each once.
func (w *Identity) names() []string {
	var out []string
	add := func(names ...string) {
		for _, name := range names {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	add(w.Policies...)
	if !w.NoDefault {
		add("default")
	}
	if w.Entity != nil {
		add(w.Entity.Policies...)
	}
	for _, g := range w.Groups {
		add(g.Policies...)
	}
	return out
}

// resolve fills in a template's name, as identity does on a server.
func (w *Identity) resolve(name string) (string, bool) {
	if rest, ok := strings.CutPrefix(name, "identity.entity."); ok {
		return w.Entity.resolve(rest)
	}
	for _, g := range w.Groups {
		for _, prefix := range []string{"identity.groups.names." + g.Name + ".", "identity.groups.ids." + g.ID + "."} {
			rest, ok := strings.CutPrefix(name, prefix)
			if !ok {
				continue
			}
			if v, ok := value(rest, g.ID, g.Name, pairs{"metadata.", g.Metadata}); ok {
				return v, true
			}
		}
	}
	return "", false
}

func (e *Entity) resolve(what string) (string, bool) {
	if e == nil {
		return "", false
	}
	if rest, ok := strings.CutPrefix(what, "aliases."); ok {
		accessor, what, _ := strings.Cut(rest, ".")
		for _, a := range e.Aliases {
			if a.Accessor == accessor {
				return value(what, a.ID, a.Name, pairs{"metadata.", a.Metadata}, pairs{"custom_metadata.", a.Custom})
			}
		}
		return "", false
	}
	return value(what, e.ID, e.Name, pairs{"metadata.", e.Metadata})
}

// pairs are metadata, and what stands before their names.
type pairs struct {
	prefix string
	values map[string]string
}

func value(what, id, name string, metadata ...pairs) (string, bool) {
	switch what {
	case "id":
		return id, id != ""
	case "name":
		return name, name != ""
	}
	for _, m := range metadata {
		if key, ok := strings.CutPrefix(what, m.prefix); ok {
			if v, ok := m.values[key]; ok {
				return v, true
			}
		}
	}
	return "", false
}
