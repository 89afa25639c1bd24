package spiffe

import (
	"context"
	"errors"
	"unicode"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

const maxPatterns = 200

// role is a role's row, and how it is answered.
type role struct {
	Patterns    wire.Strings `json:"workload_id_patterns"`
	DisplayName string       `json:"display_name"`
	Audience    wire.Strings `json:"audience"`
	auth.TokenParams
}

// Named names a role.
type Named struct {
	Name string `path:"name" doc:"The role's name, in any case."`
}

func (n Named) role() (string, error) { return auth.NameOf("role", n.Name) }

// Write creates or changes a role.
type Write struct {
	Named
	Patterns    *wire.Strings `json:"workload_id_patterns" doc:"Which workloads: paths of SPIFFE IDs, or whole ones. * is any text within a segment, + one segment, ** at the end one or more."`
	DisplayName *string       `json:"display_name" doc:"What logs call the tokens; the role's name unless written."`
	Audience    *wire.Strings `json:"audience" doc:"Audiences of JWT-SVIDs for this role, in place of the config's."`
	auth.TokenFields
}

func (w Write) apply(o *role) error {
	set(&o.Patterns, w.Patterns)
	set(&o.DisplayName, w.DisplayName)
	set(&o.Audience, w.Audience)
	if o.DisplayName == "" {
		o.DisplayName = w.Name
	}
	switch {
	case len(o.Patterns) == 0:
		return fault.New(fault.Invalid, "workload_id_patterns: a role needs at least one")
	case len(o.Patterns) > maxPatterns || len(o.Audience) > maxPatterns:
		return fault.New(fault.Invalid, "workload_id_patterns and audience have at most %d entries", maxPatterns)
	case len(o.DisplayName) > 256 || !utf8.ValidString(o.DisplayName) || !printable(o.DisplayName):
		return fault.New(fault.Invalid, "display_name: it has at most 256 bytes, none of which is a control character")
	}
	for i, text := range o.Patterns {
		if _, err := parsePattern(text); err != nil {
			return fault.New(fault.Invalid, "workload_id_patterns: entry %d: %v", i+1, err)
		}
	}
	return w.TokenFields.Apply(&o.TokenParams)
}

func printable(text string) bool {
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func (m *Method) list(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return engine.Names(ctx, m.storage, rolePrefix, in)
}

// find returns a role as it is now, nil when there is none.
func (m *Method) find(ctx context.Context, n Named) (*role, error) {
	name, err := n.role()
	if err != nil {
		return nil, err
	}
	return storage.LoadFrom[role](ctx, m.storage, rolePrefix+name)
}

// lately returns a role as of a second ago at most, nil when there is none.
func (m *Method) lately(ctx context.Context, name string) (*role, error) {
	row, err := m.recent(ctx, rolePrefix+name)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return storage.Decode[role](rolePrefix+name, row, nil)
}

func (m *Method) exists(ctx context.Context, in Write) (bool, error) {
	o, err := m.find(ctx, in.Named)
	return o != nil, err
}

func (m *Method) read(ctx context.Context, _ route.Caller, in Named) (role, error) {
	o, err := m.find(ctx, in)
	if err != nil {
		return role{}, err
	}
	if o == nil {
		return role{}, route.Missing()
	}
	return *o, nil
}

func (m *Method) write(ctx context.Context, _ route.Caller, in Write) (route.Empty, error) {
	name, err := in.role()
	if err != nil {
		return route.Empty{}, err
	}
	in.Name = name
	_, err = m.storage.Update(ctx, func(t storage.Txn) error {
		o, err := storage.Load[role](t, rolePrefix+name)
		if err != nil {
			return err
		}
		if o == nil {
			o = new(role)
		}
		if err := in.apply(o); err != nil {
			return err
		}
		return storage.Save(t, rolePrefix+name, o)
	})
	return route.Empty{}, err
}

func (m *Method) remove(ctx context.Context, _ route.Caller, in Named) (route.Empty, error) {
	name, err := in.role()
	if err != nil {
		return route.Empty{}, err
	}
	_, err = m.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(rolePrefix + name) })
	return route.Empty{}, err
}
