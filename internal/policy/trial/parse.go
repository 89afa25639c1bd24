package trial

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/question"
	"github.com/cofferhq/coffer/internal/wire"
)

// Parse reads a file of tests, in HCL or JSON. An error is fault.Invalid and begins
// with the file and the line: "app_test.hcl:3: …". What is not known is refused, so
// that a slip of the pen tests nothing by accident.
func Parse(name, text string) (*File, error) {
	root, err := policy.ReadDocument(text)
	if err != nil {
		return nil, policy.Placed(name, err)
	}
	p := parser{file: &File{Name: name}}
	for _, f := range root.Fields {
		switch f.Name {
		case "test":
			err = f.Each(1, "a test has a name: test \"the app reads its secrets\" { … }", p.test)
		case "mount", "auth":
			err = question.ReadDeclared(f, func(d question.Declared) error {
				p.file.Mounts = append(p.file.Mounts, d)
				return nil
			})
		default:
			err = policy.At(f.Line, "%q is not a key of a file of tests; there are test, mount and auth", f.Name)
		}
		if err != nil {
			return nil, policy.Placed(name, err)
		}
	}
	if len(p.file.Tests) == 0 {
		return nil, policy.Placed(name, policy.At(1, "there is no test in it: test \"the app reads its secrets\" { … }"))
	}
	return p.file, nil
}

type parser struct {
	file     *File
	requests int
}

func (p *parser) test(f policy.Field) error {
	if len(p.file.Tests) == MaxTests {
		return policy.At(f.Line, "a file has at most %d tests; split it", MaxTests)
	}
	if f.Value.Kind != policy.ObjectNode || len(f.Labels) != 1 {
		return policy.At(f.Line, "a test has one name and a block")
	}
	t := Test{Name: f.Labels[0], Line: f.Line}
	err := f.Block(1, []string{"allow", "deny", "group"}, func(key policy.Field) error {
		if key.Name == "allow" || key.Name == "deny" {
			return p.request(&t, key)
		}
		return t.Who.set(key)
	})
	if err != nil {
		return err
	}
	if len(t.Requests) == 0 {
		return policy.At(f.Line, "the test %q asks for nothing: allow \"read\" \"secret/app/db\" {}", t.Name)
	}
	p.file.Tests = append(p.file.Tests, t)
	return nil
}

// set reads one key of who asks.
func (w *Identity) set(f policy.Field) (err error) {
	switch f.Name {
	case "policies":
		w.Policies, err = f.StringList()
	case "no_default_policy":
		w.NoDefault, err = f.Bool()
	case "entity":
		w.Entity, err = entity(f)
	case "groups":
		var list []string
		list, err = f.StringList()
		for _, name := range list {
			w.Groups = append(w.Groups, Group{Name: name})
		}
	case "group":
		err = f.Each(1, "a group has a name: group \"deployers\" { … }", w.group)
	case "namespace":
		w.Namespace, err = f.Word()
	case "remote_address":
		var text string
		if text, err = f.Word(); err == nil {
			if w.Remote, err = netip.ParseAddr(text); err != nil {
				err = policy.At(f.Line, "remote_address: %q is not an IP address", text)
			}
		}
	case "time":
		var text string
		if text, err = f.Word(); err == nil {
			if w.Time, err = time.Parse(time.RFC3339, text); err != nil {
				err = policy.At(f.Line, "time: %q is not a time such as 2030-01-31T12:00:00Z", text)
			}
		}
	default:
		err = policy.At(f.Line, "%q is not a key of a test; there are policies, no_default_policy, entity, groups, group, namespace, remote_address, time, allow and deny", f.Name)
	}
	return err
}

func entity(f policy.Field) (*Entity, error) {
	e := &Entity{}
	err := f.Block(0, []string{"alias"}, func(key policy.Field) (err error) {
		switch key.Name {
		case "id":
			e.ID, err = key.Word()
		case "name":
			e.Name, err = key.Word()
		case "metadata":
			e.Metadata, err = key.StringMap()
		case "policies":
			e.Policies, err = key.StringList()
		case "alias":
			err = key.Each(1, "an alias names its method's accessor: alias \"auth_oidc_1f2e\" { … }", e.alias)
		default:
			err = policy.At(key.Line, "%q is not a key of an entity; there are id, name, metadata, policies and alias", key.Name)
		}
		return err
	})
	return e, err
}

func (e *Entity) alias(f policy.Field) error {
	a := Alias{}
	err := f.Block(1, nil, func(key policy.Field) (err error) {
		switch key.Name {
		case "id":
			a.ID, err = key.Word()
		case "name":
			a.Name, err = key.Word()
		case "metadata":
			a.Metadata, err = key.StringMap()
		case "custom_metadata":
			a.Custom, err = key.StringMap()
		default:
			err = policy.At(key.Line, "%q is not a key of an alias; there are id, name, metadata and custom_metadata", key.Name)
		}
		return err
	})
	if err != nil {
		return err
	}
	a.Accessor = f.Labels[0]
	e.Aliases = append(e.Aliases, a)
	return nil
}

func (w *Identity) group(f policy.Field) error {
	g := Group{}
	err := f.Block(1, nil, func(key policy.Field) (err error) {
		switch key.Name {
		case "id":
			g.ID, err = key.Word()
		case "metadata":
			g.Metadata, err = key.StringMap()
		case "policies":
			g.Policies, err = key.StringList()
		default:
			err = policy.At(key.Line, "%q is not a key of a group; there are id, metadata and policies", key.Name)
		}
		return err
	})
	if err != nil {
		return err
	}
	g.Name = f.Labels[0]
	w.Groups = append(w.Groups, g)
	return nil
}

// request reads allow "read" "secret/app/db" "secret/app/tls" { … }, and the shorter
// allow = { read = ["secret/app/db", "secret/app/tls"] }.
func (p *parser) request(t *Test, f policy.Field) error {
	if len(f.Labels) < 2 && f.Value.Kind == policy.ObjectNode && len(f.Value.Fields) == 0 {
		return policy.At(f.Line, "%s names a capability and a path: %s \"read\" \"secret/app/db\" {}", f.Name, f.Name)
	}
	if len(f.Labels) < 2 && f.Value.Kind == policy.ObjectNode {
		for _, member := range f.Value.Fields {
			if err := p.request(t, f.Inner(member)); err != nil {
				return err
			}
		}
		return nil
	}
	if len(f.Labels) == 1 && f.Value.Kind == policy.ListNode {
		for _, item := range f.Value.List {
			if item.Kind != policy.StringNode {
				return policy.At(item.Line, "a path must be a string, not %s", item.Kind)
			}
			one := policy.Field{Line: item.Line, Name: f.Name, Labels: []string{f.Labels[0], item.Text}, Value: policy.Node{Kind: policy.ObjectNode}}
			if err := p.request(t, one); err != nil {
				return err
			}
		}
		return nil
	}
	if len(f.Labels) < 2 {
		return policy.At(f.Line, "%s names a capability and a path: %s \"read\" \"secret/app/db\" {}", f.Name, f.Name)
	}
	return p.blocks(t, f)
}

func (p *parser) blocks(t *Test, f policy.Field) error {
	r := Request{Line: f.Line, Allow: f.Name == "allow", Capability: f.Labels[0]}
	err := f.Block(len(f.Labels), nil, func(key policy.Field) (err error) {
		switch key.Name {
		case "policy":
			r.Policy, err = key.Word()
		case "rule":
			r.Rule, err = key.Word()
		case "parameters":
			r.Parameters, err = parameters(key)
		case "wrap_ttl":
			var text string
			if text, err = key.Scalar(); err == nil {
				if r.WrapTTL, err = wire.ParseDuration(text); err != nil {
					err = policy.At(key.Line, "wrap_ttl: %q is not a duration such as 5m", text)
				}
			}
		default:
			err = policy.At(key.Line, "%q is not a key of %s; there are policy, rule, parameters and wrap_ttl", key.Name, f.Name)
		}
		return err
	})
	if err != nil {
		return err
	}
	r.Rule = strings.TrimPrefix(r.Rule, "/")
	for _, path := range f.Labels[1:] {
		if p.requests++; p.requests > MaxRequests {
			return policy.At(f.Line, "a file asks for at most %d requests; split it", MaxRequests)
		}
		if r.Path = strings.TrimLeft(path, "/"); r.Path == "" || len(r.Path) > policy.MaxPath {
			return policy.At(f.Line, "a path has between 1 and %d bytes, this one %d", policy.MaxPath, len(r.Path))
		}
		t.Requests = append(t.Requests, r)
	}
	return nil
}

func parameters(f policy.Field) (Parameters, error) {
	if f.Value.Kind != policy.ObjectNode || len(f.Labels) > 0 {
		return nil, policy.At(f.Line, "parameters must be an object of values by name, not %s", f.Value.Kind)
	}
	out := Parameters{}
	for _, key := range f.Value.Fields {
		if slices.Contains(out.Names(), key.Name) {
			return nil, policy.At(key.Line, "%s is set twice", key.Name)
		}
		text, err := key.Value.JSON()
		if err != nil {
			return nil, err
		}
		out = append(out, Parameter{key.Name, text})
	}
	return out, nil
}
