package identities

import (
	"context"

	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var aliasRoutes = []route.Route[*Identities]{
	route.New("POST", "entity-alias", "Give an entity the name by which a login method knows it.", (*Identities).writeAlias,
		route.Shows("entity-alias", `{"name":"bob","mount_accessor":"userpass_12ab34cd","canonical_id":"unknown"}`, "")),
	route.New("LIST", "entity-alias/id", "List the ids of the aliases of entities.", (*Identities).listAliases,
		route.Shows("entity-alias/id", "", "")),
	route.New("GET", "entity-alias/id/{id}", "Read an alias.", (*Identities).readAlias,
		route.Shows("entity-alias/id/unknown", "", "")),
	route.New("POST", "entity-alias/id/{id}", "Change an alias, or give it to another entity.", (*Identities).changeAlias,
		route.Shows("entity-alias/id/unknown", `{"name":"robert"}`, "")),
	route.New("DELETE", "entity-alias/id/{id}", "Delete an alias.", (*Identities).deleteAlias,
		route.Shows("entity-alias/id/unknown", "", "")),
}

// AliasFields are what an alias is written with; what is left out stays as it is.
type AliasFields struct {
	Name      string          `json:"name" doc:"The name by which the method knows it: a username, a role's id."`
	Mount     string          `json:"mount_accessor" doc:"The method's accessor; sys/auth shows it."`
	Canonical string          `json:"canonical_id" doc:"The entity it belongs to; left out, a new one."`
	EntityID  string          `json:"entity_id" doc:"An older name of canonical_id."`
	Custom    *wire.StringMap `json:"custom_metadata" doc:"Pairs of text; never secret."`
}

func (f AliasFields) change(id string) identity.AliasChange {
	if f.Canonical == "" {
		f.Canonical = f.EntityID
	}
	return identity.AliasChange{ID: id, Entity: f.Canonical, Mount: f.Mount, Name: f.Name, Custom: given(f.Custom, object)}
}

// WriteAlias makes or changes an alias.
type WriteAlias struct {
	ID string `json:"id" doc:"Of the alias to change."`
	AliasFields
}

// ChangeAlias changes the alias of an id.
type ChangeAlias struct {
	ByID
	AliasFields
}

// WrittenAlias answers an alias that was made or changed.
type WrittenAlias struct {
	ID        string `json:"id"`
	Canonical string `json:"canonical_id"`
}

func (s *Identities) alter(ctx context.Context, c identity.AliasChange) (WrittenAlias, error) {
	e, id, err := s.store().WriteAlias(ctx, c)
	if err != nil {
		return WrittenAlias{}, err
	}
	return WrittenAlias{ID: id, Canonical: e.ID}, nil
}

func (s *Identities) writeAlias(ctx context.Context, _ route.Caller, in WriteAlias) (WrittenAlias, error) {
	return s.alter(ctx, in.change(in.ID))
}

func (s *Identities) changeAlias(ctx context.Context, _ route.Caller, in ChangeAlias) (WrittenAlias, error) {
	return s.alter(ctx, in.change(in.ID))
}

func (s *Identities) readAlias(ctx context.Context, _ route.Caller, in ByID) (Alias, error) {
	e, a, err := s.store().AliasOf(ctx, in.ID)
	if err != nil {
		return Alias{}, err
	}
	return s.alias(a, e.ID), nil
}

func (s *Identities) deleteAlias(ctx context.Context, _ route.Caller, in ByID) (route.Empty, error) {
	return route.Empty{}, s.store().DeleteAlias(ctx, in.ID)
}

func (s *Identities) listAliases(ctx context.Context, _ route.Caller, _ route.Nothing) (route.KeysInfo[AliasInfo], error) {
	out := route.KeysInfo[AliasInfo]{Info: map[string]AliasInfo{}}
	err := s.store().Entities(ctx, "", func(e *identity.Entity) (bool, error) {
		for i := range e.Aliases {
			info := s.info(&e.Aliases[i], e.ID)
			out.Keys = append(out.Keys, info.ID)
			id := info.ID
			info.ID = ""
			out.Info[id] = info
		}
		return true, nil
	})
	return found(out, err)
}
