package identities

import (
	"context"
	"net/http"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var groupRoutes = []route.Route[*Identities]{
	route.New("POST", "group", "Make a group, or change the one of an id or a name.", (*Identities).writeGroup,
		route.Shows("group", `{"name":"web","policies":["team"],"metadata":{"floor":"2"}}`, "")),
	route.New("LIST", "group/id", "List the ids of the groups.", (*Identities).listGroups,
		route.Shows("group/id", "", "")),
	route.New("GET", "group/id/{id}", "Read a group.", (*Identities).readGroup,
		route.Shows("group/id/unknown", "", "")),
	route.New("POST", "group/id/{id}", "Change a group.", (*Identities).changeGroup,
		route.Shows("group/id/unknown", `{"policies":["team"]}`, "")),
	route.New("DELETE", "group/id/{id}", "Delete a group; its members lose its policies at once.", (*Identities).deleteGroup,
		route.Shows("group/id/unknown", "", "")),
	route.New("LIST", "group/name", "List the names of the groups.", (*Identities).listGroupNames,
		route.Shows("group/name", "", "")),
	route.New("GET", "group/name/{name}", "Read a group by its name.", (*Identities).readGroupNamed,
		route.Shows("group/name/web", "", "")),
	route.New("POST", "group/name/{name}", "Make a group of a name, or change it.", (*Identities).writeGroupNamed,
		route.Shows("group/name/web", `{"policies":["team"]}`, "")),
	route.New("DELETE", "group/name/{name}", "Delete a group by its name; its members lose its policies at once.", (*Identities).deleteGroupNamed,
		route.Shows("group/name/web", "", "")),
}

// GroupFields are what a group is written with; what is left out stays as it is.
type GroupFields struct {
	Type     *string         `json:"type" doc:"internal, whose members are set here, or external, whose members are those that a login method says are in it; it cannot be changed."`
	Metadata *wire.StringMap `json:"metadata" doc:"Pairs of text; never secret. They take the place of those there are."`
	Policies *wire.Strings   `json:"policies" doc:"Policies that its members' tokens have besides their own."`
	Entities *wire.Strings   `json:"member_entity_ids" doc:"Ids of all the entities that are its members."`
	Groups   *wire.Strings   `json:"member_group_ids" doc:"Ids of all the groups that are its members."`
}

func (f GroupFields) change(name *string) identity.GroupChange {
	return identity.GroupChange{
		Name: name, Type: f.Type, Metadata: given(f.Metadata, object), Policies: given(f.Policies, list),
		Entities: given(f.Entities, list), Groups: given(f.Groups, list),
	}
}

// WriteGroup makes or changes a group.
type WriteGroup struct {
	ID   string  `json:"id" doc:"Of the group to change."`
	Name *string `json:"name" doc:"Its name; left out, one is made."`
	GroupFields
}

// ChangeGroup changes the group of an id.
type ChangeGroup struct {
	ByID
	Name *string `json:"name" doc:"Its new name."`
	GroupFields
}

// WriteGroupNamed makes or changes the group of a name.
type WriteGroupNamed struct {
	ByName
	GroupFields
}

// WrittenGroup answers a group that was made: nothing where one was changed.
type WrittenGroup struct {
	route.Notes
	ID   string `json:"id"`
	Name string `json:"name"`
}

func (s *Identities) writeTo(ctx context.Context, id string, c identity.GroupChange) (WrittenGroup, error) {
	g, created, err := s.store().WriteGroup(ctx, id, c)
	if err != nil {
		return WrittenGroup{}, err
	}
	out := WrittenGroup{ID: g.ID, Name: g.Name}
	if !created {
		out.Status = http.StatusNoContent
	}
	return out, nil
}

func (s *Identities) writeGroup(ctx context.Context, _ route.Caller, in WriteGroup) (WrittenGroup, error) {
	return s.writeTo(ctx, in.ID, in.change(in.Name))
}

func (s *Identities) changeGroup(ctx context.Context, _ route.Caller, in ChangeGroup) (WrittenGroup, error) {
	return s.writeTo(ctx, in.ID, in.change(in.Name))
}

func (s *Identities) writeGroupNamed(ctx context.Context, _ route.Caller, in WriteGroupNamed) (WrittenGroup, error) {
	return s.writeTo(ctx, "", in.change(&in.Name))
}

// Group is a group on the wire.
type Group struct {
	route.Notes
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Type      string          `json:"type"`
	Metadata  *wire.StringMap `json:"metadata"`
	Policies  []string        `json:"policies"`
	Entities  []string        `json:"member_entity_ids"`
	Groups    []string        `json:"member_group_ids"`
	Parents   []string        `json:"parent_group_ids"`
	Alias     GroupAlias      `json:"alias"`
	Namespace string          `json:"namespace_id"`
	Modified  uint64          `json:"modify_index"`
	Created   wire.Time       `json:"creation_time"`
	Updated   wire.Time       `json:"last_update_time"`
}

// GroupAlias is the alias of a group, {} when it has none.
type GroupAlias struct {
	ID         string          `json:"id,omitzero"`
	Canonical  string          `json:"canonical_id,omitzero"`
	Name       string          `json:"name,omitzero"`
	Mount      string          `json:"mount_accessor,omitzero"`
	MountPath  string          `json:"mount_path,omitzero"`
	MountType  string          `json:"mount_type,omitzero"`
	Metadata   *wire.StringMap `json:"metadata,omitzero"`
	MergedFrom []string        `json:"merged_from_canonical_ids,omitzero"`
	Created    wire.Time       `json:"creation_time,omitzero"`
	Updated    wire.Time       `json:"last_update_time,omitzero"`
}

func (s *Identities) groupAlias(g *identity.Group) GroupAlias {
	a := g.Alias
	if a == nil {
		return GroupAlias{}
	}
	path, kind, _ := s.store().Mount(a.Mount)
	return GroupAlias{
		ID: a.ID, Canonical: g.ID, Name: a.Name, Mount: a.Mount, MountPath: path, MountType: kind, Metadata: pairs(a.Metadata),
		Created: wire.Time{Time: a.Created}, Updated: wire.Time{Time: a.Updated},
	}
}

func (s *Identities) group(ctx context.Context, g *identity.Group, err error) (Group, error) {
	if err != nil {
		return Group{}, err
	}
	entities, groups, err := s.store().Members(ctx, g.ID)
	if err != nil {
		return Group{}, err
	}
	return Group{
		ID: g.ID, Name: g.Name, Type: g.Type, Metadata: pairs(g.Metadata), Policies: plain(g.Policies),
		Entities: plain(entities), Groups: plain(groups), Parents: plain(g.Parents), Alias: s.groupAlias(g),
		Namespace: s.namespace, Modified: g.Modified, Created: wire.Time{Time: g.Created}, Updated: wire.Time{Time: g.Updated},
	}, nil
}

func (s *Identities) readGroup(ctx context.Context, _ route.Caller, in ByID) (Group, error) {
	g, err := s.store().Group(ctx, in.ID)
	return s.group(ctx, g, err)
}

func (s *Identities) readGroupNamed(ctx context.Context, _ route.Caller, in ByName) (Group, error) {
	g, err := s.store().GroupNamed(ctx, in.Name)
	return s.group(ctx, g, err)
}

func (s *Identities) deleteGroup(ctx context.Context, _ route.Caller, in ByID) (route.Empty, error) {
	return route.Empty{}, s.store().DeleteGroup(ctx, in.ID)
}

func (s *Identities) deleteGroupNamed(ctx context.Context, _ route.Caller, in ByName) (route.Empty, error) {
	g, err := s.store().GroupNamed(ctx, in.Name)
	if fault.Is(err, fault.NotFound) {
		return route.Empty{}, nil
	}
	if err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, s.store().DeleteGroup(ctx, g.ID)
}

// GroupInfo is what a list says of a group.
type GroupInfo struct {
	Name     string      `json:"name"`
	Entities int         `json:"num_member_entities"`
	Parents  int         `json:"num_parent_groups"`
	Alias    *GroupAlias `json:"alias,omitempty"`
}

func (s *Identities) listGroups(ctx context.Context, _ route.Caller, in route.Page) (route.KeysInfo[GroupInfo], error) {
	out := route.KeysInfo[GroupInfo]{Info: map[string]GroupInfo{}}
	err := s.store().Groups(ctx, in.After, func(g *identity.Group) (bool, error) {
		entities, _, err := s.store().Members(ctx, g.ID)
		if err != nil {
			return false, err
		}
		info := GroupInfo{Name: g.Name, Entities: len(entities), Parents: len(g.Parents)}
		if g.Alias != nil {
			a := s.groupAlias(g)
			info.Alias = &a
		}
		out.Keys = append(out.Keys, g.ID)
		out.Info[g.ID] = info
		return limit(in) == 0 || len(out.Keys) < limit(in), nil
	})
	return found(out, err)
}

func (s *Identities) listGroupNames(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	names, err := s.store().GroupNames(ctx, in.After, limit(in))
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: names}.Found()
}
