package identities

import (
	"context"
	"net/http"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/route"
)

var lookupRoutes = []route.Route[*Identities]{
	route.New("POST", "lookup/entity", "Find an entity by its name, its id or an alias.", (*Identities).lookupEntity, route.Reads(),
		route.Shows("lookup/entity", `{"name":"bob"}`, "")),
	route.New("POST", "lookup/group", "Find a group by its name, its id or its alias.", (*Identities).lookupGroup, route.Reads(),
		route.Shows("lookup/group", `{"name":"web"}`, "")),
}

// Lookup says by what to find: one of the ways.
type Lookup struct {
	ID        string `json:"id" doc:"Its id."`
	Name      string `json:"name" doc:"Its name."`
	AliasID   string `json:"alias_id" doc:"The id of an alias of it."`
	AliasName string `json:"alias_name" doc:"The name of an alias of it, with alias_mount_accessor."`
	Mount     string `json:"alias_mount_accessor" doc:"The accessor of the alias's method, with alias_name."`
}

// check refuses none of the ways, and several of them.
func (l Lookup) check() error {
	ways := 0
	for _, text := range []string{l.ID, l.Name, l.AliasID, l.AliasName + l.Mount} {
		if text != "" {
			ways++
		}
	}
	switch {
	case ways == 0:
		return fault.New(fault.Invalid, "query parameter not supplied")
	case ways > 1:
		return fault.New(fault.Invalid, "query parameter conflict; please supply distinct set of query parameters")
	case (l.AliasName == "") != (l.Mount == ""):
		return fault.New(fault.Invalid, "both 'alias_name' and 'alias_mount_accessor' needs to be set")
	}
	return nil
}

func (s *Identities) lookupEntity(ctx context.Context, _ route.Caller, in Lookup) (Entity, error) {
	if err := in.check(); err != nil {
		return Entity{}, err
	}
	var e *identity.Entity
	var err error
	switch {
	case in.ID != "":
		e, err = s.store().Entity(ctx, in.ID)
	case in.Name != "":
		e, err = s.store().EntityNamed(ctx, in.Name)
	case in.AliasID != "":
		e, _, err = s.store().AliasOf(ctx, in.AliasID)
	default:
		e, err = s.store().EntityByAlias(ctx, in.Mount, in.AliasName)
	}
	out, err := s.entity(ctx, e, err)
	if fault.Is(err, fault.NotFound) {
		out.Status, err = http.StatusNoContent, nil // what is not there is no mistake here
	}
	return out, err
}

func (s *Identities) lookupGroup(ctx context.Context, _ route.Caller, in Lookup) (Group, error) {
	if err := in.check(); err != nil {
		return Group{}, err
	}
	var g *identity.Group
	var err error
	switch {
	case in.ID != "":
		g, err = s.store().Group(ctx, in.ID)
	case in.Name != "":
		g, err = s.store().GroupNamed(ctx, in.Name)
	case in.AliasID != "":
		g, err = s.store().GroupOfAlias(ctx, in.AliasID)
	default:
		g, err = s.store().GroupByAlias(ctx, in.Mount, in.AliasName)
	}
	out, err := s.group(ctx, g, err)
	if fault.Is(err, fault.NotFound) {
		out.Status, err = http.StatusNoContent, nil
	}
	return out, err
}
