package identities

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var entityRoutes = []route.Route[*Identities]{
	route.New("POST", "entity", "Make an entity, or change the one of an id or a name.", (*Identities).writeEntity,
		route.Shows("entity", `{"name":"bob","policies":["team"],"metadata":{"team":"web"}}`, "")),
	route.New("LIST", "entity/id", "List the ids of the entities.", (*Identities).listEntities,
		route.Shows("entity/id", "", "")),
	route.New("GET", "entity/id/{id}", "Read an entity.", (*Identities).readEntity,
		route.Shows("entity/id/unknown", "", "")),
	route.New("POST", "entity/id/{id}", "Change an entity.", (*Identities).changeEntity,
		route.Shows("entity/id/unknown", `{"disabled":true}`, "")),
	route.New("DELETE", "entity/id/{id}", "Delete an entity. Its tokens are refused from then on.", (*Identities).deleteEntity,
		route.Shows("entity/id/unknown", "", "")),
	route.New("LIST", "entity/name", "List the names of the entities.", (*Identities).listEntityNames,
		route.Shows("entity/name", "", "")),
	route.New("GET", "entity/name/{name}", "Read an entity by its name.", (*Identities).readEntityNamed,
		route.Shows("entity/name/bob", "", "")),
	route.New("POST", "entity/name/{name}", "Make an entity of a name, or change it.", (*Identities).writeEntityNamed,
		route.Shows("entity/name/bob", `{"policies":["team"]}`, "")),
	route.New("DELETE", "entity/name/{name}", "Delete an entity by its name. Its tokens are refused from then on.", (*Identities).deleteEntityNamed,
		route.Shows("entity/name/bob", "", "")),
	route.New("POST", "entity/batch-delete", "Delete entities by their ids.", (*Identities).deleteEntities,
		route.Shows("entity/batch-delete", `{"entity_ids":["unknown"]}`, "")),
	route.New("POST", "entity/merge", "Make one entity of several.", (*Identities).merge,
		route.Shows("entity/merge", `{"to_entity_id":"unknown","from_entity_ids":["unknown-too"]}`, "")),
}

// EntityFields are what an entity is written with; what is left out stays as it is.
type EntityFields struct {
	Metadata *wire.StringMap `json:"metadata" doc:"Pairs of text; never secret. They take the place of those there are."`
	Policies *wire.Strings   `json:"policies" doc:"Policies that its tokens have besides their own."`
	Disabled *wire.Bool      `json:"disabled" doc:"Its tokens are refused on every node within a second, and it cannot log in."`
}

func (f EntityFields) change(name *string) identity.EntityChange {
	return identity.EntityChange{
		Name: name, Metadata: given(f.Metadata, object), Policies: given(f.Policies, list), Disabled: (*bool)(f.Disabled),
	}
}

// WriteEntity makes or changes an entity.
type WriteEntity struct {
	ID   string  `json:"id" doc:"Of the entity to change."`
	Name *string `json:"name" doc:"Its name; left out, one is made."`
	EntityFields
}

// ChangeEntity changes the entity of an id.
type ChangeEntity struct {
	ByID
	Name *string `json:"name" doc:"Its new name."`
	EntityFields
}

// WriteEntityNamed makes or changes the entity of a name.
type WriteEntityNamed struct {
	ByName
	EntityFields
}

// Written answers what was made: nothing where something was changed.
type Written struct {
	route.Notes
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Aliases *[]string `json:"aliases"`
}

func (s *Identities) write(ctx context.Context, id string, c identity.EntityChange) (Written, error) {
	e, created, err := s.store().WriteEntity(ctx, id, c)
	if err != nil {
		return Written{}, err
	}
	out := Written{ID: e.ID, Name: e.Name}
	if !created {
		out.Status = http.StatusNoContent
	}
	return out, nil
}

func (s *Identities) writeEntity(ctx context.Context, _ route.Caller, in WriteEntity) (Written, error) {
	return s.write(ctx, in.ID, in.change(in.Name))
}

func (s *Identities) changeEntity(ctx context.Context, _ route.Caller, in ChangeEntity) (Written, error) {
	return s.write(ctx, in.ID, in.change(in.Name))
}

func (s *Identities) writeEntityNamed(ctx context.Context, _ route.Caller, in WriteEntityNamed) (Written, error) {
	return s.write(ctx, "", in.change(&in.Name))
}

// Entity is an entity on the wire.
type Entity struct {
	route.Notes
	ID              string          `json:"id"`
	Name            string          `json:"name"`
	Metadata        *wire.StringMap `json:"metadata"`
	Policies        []string        `json:"policies"`
	Disabled        bool            `json:"disabled"`
	Aliases         []Alias         `json:"aliases"`
	DirectGroups    []string        `json:"direct_group_ids"`
	InheritedGroups []string        `json:"inherited_group_ids"`
	Groups          []string        `json:"group_ids"`
	MergedIDs       []string        `json:"merged_entity_ids"`
	MFASecrets      struct{}        `json:"mfa_secrets"`
	Namespace       string          `json:"namespace_id"`
	Created         wire.Time       `json:"creation_time"`
	Updated         wire.Time       `json:"last_update_time"`
}

func (s *Identities) entity(ctx context.Context, e *identity.Entity, err error) (Entity, error) {
	if err != nil {
		return Entity{}, err
	}
	who, err := s.store().Look(ctx, e.ID)
	if err != nil {
		return Entity{}, err
	}
	if who == nil {
		return Entity{}, route.Missing()
	}
	out := Entity{
		ID: e.ID, Name: e.Name, Metadata: pairs(e.Metadata), Policies: plain(e.Policies), Disabled: e.Disabled,
		Aliases: []Alias{}, DirectGroups: who.DirectGroups(), InheritedGroups: who.InheritedGroups(), MergedIDs: e.MergedIDs,
		Namespace: s.namespace, Created: wire.Time{Time: e.Created}, Updated: wire.Time{Time: e.Updated},
	}
	if who.Cut {
		out.Warn(fmt.Sprintf("the entity is in more groups than these, and its tokens are refused until it is in %d or fewer", identity.MaxAllGroups))
	}
	out.Groups = slices.Concat(out.DirectGroups, out.InheritedGroups)
	for i := range e.Aliases {
		out.Aliases = append(out.Aliases, s.alias(&e.Aliases[i], e.ID))
	}
	return out, nil
}

func (s *Identities) readEntity(ctx context.Context, _ route.Caller, in ByID) (Entity, error) {
	e, err := s.store().Entity(ctx, in.ID)
	return s.entity(ctx, e, err)
}

func (s *Identities) readEntityNamed(ctx context.Context, _ route.Caller, in ByName) (Entity, error) {
	e, err := s.store().EntityNamed(ctx, in.Name)
	return s.entity(ctx, e, err)
}

func (s *Identities) deleteEntity(ctx context.Context, _ route.Caller, in ByID) (route.Empty, error) {
	return route.Empty{}, s.store().DeleteEntity(ctx, in.ID)
}

func (s *Identities) deleteEntityNamed(ctx context.Context, _ route.Caller, in ByName) (route.Empty, error) {
	e, err := s.store().EntityNamed(ctx, in.Name)
	if fault.Is(err, fault.NotFound) {
		return route.Empty{}, nil
	}
	if err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, s.store().DeleteEntity(ctx, e.ID)
}

// DeleteEntities names entities to delete.
type DeleteEntities struct {
	IDs wire.Strings `json:"entity_ids" doc:"Ids of the entities to delete."`
}

func (s *Identities) deleteEntities(ctx context.Context, _ route.Caller, in DeleteEntities) (route.Empty, error) {
	if len(in.IDs) == 0 {
		return route.Empty{}, fault.New(fault.Invalid, "missing entity ids to delete")
	}
	for _, id := range in.IDs {
		if err := s.store().DeleteEntity(ctx, id); err != nil {
			return route.Empty{}, err
		}
	}
	return route.Empty{}, nil
}

// Merge says which entities become one.
type Merge struct {
	To    string       `json:"to_entity_id" doc:"The entity that stays."`
	From  wire.Strings `json:"from_entity_ids" doc:"The entities that become part of it."`
	Keep  wire.Strings `json:"conflicting_alias_ids_to_keep" doc:"Where two have an alias of one mount, the ids of those that stay."`
	Force wire.Bool    `json:"force" doc:"Accepted for Vault's clients: second factors are kept by entity and mount."`
}

func (s *Identities) merge(ctx context.Context, _ route.Caller, in Merge) (route.Empty, error) {
	switch {
	case in.To == "":
		return route.Empty{}, fault.New(fault.Invalid, "missing entity id to merge to")
	case len(in.From) == 0:
		return route.Empty{}, fault.New(fault.Invalid, "missing entity ids to merge from")
	}
	return route.Empty{}, s.store().Merge(ctx, in.To, in.From, in.Keep)
}

// EntityInfo is what a list says of an entity.
type EntityInfo struct {
	Name    string      `json:"name"`
	Aliases []AliasInfo `json:"aliases"`
}

// AliasInfo is what a list says of an alias.
type AliasInfo struct {
	ID        string          `json:"id,omitempty"`
	Canonical string          `json:"canonical_id,omitempty"`
	Name      string          `json:"name"`
	Mount     string          `json:"mount_accessor"`
	MountPath string          `json:"mount_path"`
	MountType string          `json:"mount_type"`
	Metadata  *wire.StringMap `json:"metadata"`
	Custom    *wire.StringMap `json:"custom_metadata"`
	Local     bool            `json:"local"`
}

func (s *Identities) info(a *identity.Alias, owner string) AliasInfo {
	path, kind, _ := s.store().Mount(a.Mount)
	return AliasInfo{
		ID: a.ID, Canonical: owner, Name: a.Name, Mount: a.Mount, MountPath: path, MountType: kind,
		Metadata: pairs(a.Metadata), Custom: pairs(a.Custom),
	}
}

func (s *Identities) listEntities(ctx context.Context, _ route.Caller, in route.Page) (route.KeysInfo[EntityInfo], error) {
	out := route.KeysInfo[EntityInfo]{Info: map[string]EntityInfo{}}
	err := s.store().Entities(ctx, in.After, func(e *identity.Entity) (bool, error) {
		info := EntityInfo{Name: e.Name, Aliases: []AliasInfo{}}
		for i := range e.Aliases {
			info.Aliases = append(info.Aliases, s.info(&e.Aliases[i], e.ID))
		}
		out.Keys = append(out.Keys, e.ID)
		out.Info[e.ID] = info
		return limit(in) == 0 || len(out.Keys) < limit(in), nil
	})
	return found(out, err)
}

// found is a list, or Missing when it is empty, as Vault answers.
func found[T any](out route.KeysInfo[T], err error) (route.KeysInfo[T], error) {
	if err == nil && len(out.Keys) == 0 {
		err = route.Missing()
	}
	return out, err
}

func (s *Identities) listEntityNames(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	names, err := s.store().Names(ctx, in.After, limit(in))
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: names}.Found()
}
