package identities

import (
	"context"

	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/route"
)

var groupAliasRoutes = []route.Route[*Identities]{
	route.New("POST", "group-alias", "Give an external group the name by which a login method knows it.", (*Identities).writeGroupAlias,
		route.Shows("group-alias", `{"name":"web-team","mount_accessor":"oidc_12ab34cd","canonical_id":"unknown"}`, "")),
	route.New("LIST", "group-alias/id", "List the ids of the aliases of groups.", (*Identities).listGroupAliases,
		route.Shows("group-alias/id", "", "")),
	route.New("GET", "group-alias/id/{id}", "Read the alias of a group.", (*Identities).readGroupAlias,
		route.Shows("group-alias/id/unknown", "", "")),
	route.New("POST", "group-alias/id/{id}", "Change the alias of a group, or give it to another one.", (*Identities).changeGroupAlias,
		route.Shows("group-alias/id/unknown", `{"name":"web-team","mount_accessor":"oidc_12ab34cd"}`, "")),
	route.New("DELETE", "group-alias/id/{id}", "Delete the alias of a group.", (*Identities).deleteGroupAlias,
		route.Shows("group-alias/id/unknown", "", "")),
}

// GroupAliasFields are what the alias of a group is written with.
type GroupAliasFields struct {
	Name      string `json:"name" doc:"The name by which the method knows the group."`
	Mount     string `json:"mount_accessor" doc:"The method's accessor; sys/auth shows it."`
	Canonical string `json:"canonical_id" doc:"The external group it belongs to; left out, a new one."`
}

// WriteGroupAlias makes or changes the alias of a group.
type WriteGroupAlias struct {
	ID string `json:"id" doc:"Of the alias to change."`
	GroupAliasFields
}

// ChangeGroupAlias changes the alias of an id.
type ChangeGroupAlias struct {
	ByID
	GroupAliasFields
}

func (s *Identities) alterGroup(ctx context.Context, id string, f GroupAliasFields) (WrittenAlias, error) {
	g, err := s.store().WriteGroupAlias(ctx, identity.GroupAliasChange{ID: id, Group: f.Canonical, Mount: f.Mount, Name: f.Name})
	if err != nil {
		return WrittenAlias{}, err
	}
	return WrittenAlias{ID: g.Alias.ID, Canonical: g.ID}, nil
}

func (s *Identities) writeGroupAlias(ctx context.Context, _ route.Caller, in WriteGroupAlias) (WrittenAlias, error) {
	return s.alterGroup(ctx, in.ID, in.GroupAliasFields)
}

func (s *Identities) changeGroupAlias(ctx context.Context, _ route.Caller, in ChangeGroupAlias) (WrittenAlias, error) {
	return s.alterGroup(ctx, in.ID, in.GroupAliasFields)
}

func (s *Identities) readGroupAlias(ctx context.Context, _ route.Caller, in ByID) (Alias, error) {
	g, err := s.store().GroupOfAlias(ctx, in.ID)
	if err != nil {
		return Alias{}, err
	}
	return s.alias(g.Alias, g.ID), nil
}

func (s *Identities) deleteGroupAlias(ctx context.Context, _ route.Caller, in ByID) (route.Empty, error) {
	return route.Empty{}, s.store().DeleteGroupAlias(ctx, in.ID)
}

func (s *Identities) listGroupAliases(ctx context.Context, _ route.Caller, _ route.Nothing) (route.KeysInfo[AliasInfo], error) {
	out := route.KeysInfo[AliasInfo]{Info: map[string]AliasInfo{}}
	err := s.store().Groups(ctx, "", func(g *identity.Group) (bool, error) {
		if g.Alias != nil {
			info := s.info(g.Alias, g.ID)
			out.Keys = append(out.Keys, info.ID)
			info.ID = ""
			out.Info[g.Alias.ID] = info
		}
		return true, nil
	})
	return found(out, err)
}
