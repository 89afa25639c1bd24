package identity

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// GroupChange says what to change of a group; nil leaves a field as it is. Members
// are all that it is to have.
type GroupChange struct {
	Name     *string
	Type     *string
	Metadata *map[string]string
	Policies *[]string
	Entities *[]string // ids of the entities that are to be its members
	Groups   *[]string // ids of the groups that are to be its members
}

func (g *Group) copied() *Group {
	out := *g
	out.Metadata, out.Policies, out.Parents = maps.Clone(g.Metadata), slices.Clone(g.Policies), slices.Clone(g.Parents)
	return &out
}

func (c GroupChange) apply(g *Group) (err error) {
	switch {
	case c.Type != nil && g.Type != "" && *c.Type != g.Type:
		return invalid("group type cannot be changed")
	case c.Type != nil:
		g.Type = *c.Type
	}
	if g.Type == "" {
		g.Type = Internal
	}
	switch {
	case g.Type != Internal && g.Type != External:
		return invalid("invalid group type %q", g.Type)
	case g.Type == External && c.Entities != nil:
		return invalid("member entities can't be set manually for external groups")
	case g.Type == External && c.Groups != nil:
		return invalid("member groups can't be set for external groups")
	}
	if c.Name != nil && *c.Name != "" {
		if err := checkName("group", *c.Name); err != nil {
			return err
		}
		g.Name = *c.Name
	}
	if c.Policies != nil {
		if g.Policies, err = cleanPolicies(*c.Policies); err != nil {
			return err
		}
	}
	if c.Metadata != nil {
		if err := checkMetadata(*c.Metadata); err != nil {
			return err
		}
		g.Metadata = *c.Metadata
	}
	return nil
}

// WriteGroup changes the group of an id, or of the name that the change gives, or
// makes one. Members are changed in pieces, each of which stands by itself: where
// the store goes away between two of them, the same request again ends the work.
func (s *Store) WriteGroup(ctx context.Context, id string, c GroupChange) (out *Group, created bool, err error) {
	if err := s.view(ctx, func(r storage.Reader) error {
		// Members that do not exist are refused before anything is changed.
		if _, _, err := entityMembers.missing(r, "", c.Entities); err != nil {
			return err
		}
		_, _, err := groupMembers.missing(r, "", c.Groups)
		return err
	}); err != nil {
		return nil, false, err
	}
	err = s.update(ctx, func(t storage.Txn) error {
		before, err := groupToWrite(t, id, c.Name)
		if err != nil {
			return err
		}
		if created = before == nil; created {
			before = &Group{ID: newID(), Created: time.Now().UTC()}
			before.Name = "group_" + before.ID[:8]
		}
		out = before.copied()
		if err := c.apply(out); err != nil {
			return err
		}
		return putGroup(t, out, before)
	})
	if err != nil {
		return nil, false, err
	}
	if err := s.setMembers(ctx, out.ID, entityMembers, c.Entities); err != nil {
		return nil, false, err
	}
	if err := s.setMembers(ctx, out.ID, groupMembers, c.Groups); err != nil {
		return nil, false, err
	}
	return out, created, nil
}

// groupToWrite is the group that a request means, nil for a new one.
func groupToWrite(t storage.Reader, id string, name *string) (*Group, error) {
	if id != "" {
		g, err := group(t, id)
		if err == nil && g == nil {
			err = invalid("invalid group ID")
		}
		return g, err
	}
	if name == nil || *name == "" {
		return nil, nil
	}
	if err := checkName("group", *name); err != nil {
		return nil, err
	}
	id, err := link(t, nameKey(groupNames, *name))
	if err != nil || id == "" {
		return nil, err
	}
	return group(t, id)
}

func putGroup(t storage.Txn, g, before *Group) error {
	key := nameKey(groupNames, g.Name)
	holder, err := link(t, key)
	if err != nil {
		return err
	}
	if holder != "" && holder != g.ID {
		return invalid("group name is already in use")
	}
	if old := nameKey(groupNames, before.Name); old != key {
		if err := t.Delete(old); err != nil {
			return err
		}
	}
	if holder == "" || g.Name != before.Name {
		if err := t.Put(key, nameRow(g.ID, g.Name)); err != nil {
			return err
		}
	}
	g.Updated = time.Now().UTC()
	g.Modified++
	return storage.Save(t, groupRows+g.ID, g)
}

// group returns the group of an id, nil when there is none.
func group(r storage.Reader, id string) (*Group, error) {
	if !plainID(id) {
		return nil, nil
	}
	return storage.Load[Group](r, groupRows+id)
}

// Group returns the group of an id as the store has it.
func (s *Store) Group(ctx context.Context, id string) (g *Group, err error) {
	err = s.view(ctx, func(r storage.Reader) error {
		g, err = group(r, id)
		return err
	})
	return g, missing(g == nil, err)
}

// GroupNamed returns the group of a name.
func (s *Store) GroupNamed(ctx context.Context, name string) (g *Group, err error) {
	if checkName("group", name) != nil || name == "" {
		return nil, missing(true, nil)
	}
	err = s.view(ctx, func(r storage.Reader) error {
		id, err := link(r, nameKey(groupNames, name))
		if err != nil || id == "" {
			return err
		}
		g, err = group(r, id)
		return err
	})
	return g, missing(g == nil, err)
}

// DeleteGroup removes a group: it grants nothing from then on. What its members say
// of it is removed before this returns, or by Sweep.
func (s *Store) DeleteGroup(ctx context.Context, id string) error {
	if !plainID(id) {
		return nil
	}
	found := false
	err := s.update(ctx, func(t storage.Txn) error {
		g, err := group(t, id)
		if found = g != nil; err != nil || !found {
			return err
		}
		if g.Alias != nil {
			if err := s.dropGroupAlias(t, g.Alias); err != nil {
				return err
			}
		}
		for _, key := range []string{nameKey(groupNames, g.Name), groupRows + id} {
			if err := t.Delete(key); err != nil {
				return err
			}
		}
		left := remains{}
		for _, parent := range g.Parents {
			left.Rows = append(left.Rows, memberGroups+parent+"/"+id)
		}
		return storage.Save(t, endingRows+"group/"+id, left)
	})
	if err != nil || !found {
		return err
	}
	if err := s.endMembers(ctx, id); err != nil {
		return err
	}
	return s.finish(ctx, "group", id)
}

// endMembers takes a deleted group out of the rows of its members.
func (s *Store) endMembers(ctx context.Context, id string) error {
	var none []string
	if err := s.setMembers(ctx, id, entityMembers, &none); err != nil {
		return err
	}
	return s.setMembers(ctx, id, groupMembers, &none)
}

// Groups calls fn with every group that sorts after the given id, until fn says
// that it has enough.
func (s *Store) Groups(ctx context.Context, after string, fn func(*Group) (more bool, err error)) error {
	return each(ctx, s, groupRows, after, fn)
}

// GroupNames lists, in order, the names of groups that sort after the given one, at
// most limit.
func (s *Store) GroupNames(ctx context.Context, after string, limit int) ([]string, error) {
	return s.names(ctx, groupNames, after, limit)
}

// Members returns the ids of the entities and groups that are direct members of a
// group. Rows say who may be one; the member's own row says whether it is.
func (s *Store) Members(ctx context.Context, id string) (entities, groups []string, err error) {
	var rows, groupRows []string
	if err := s.view(ctx, func(r storage.Reader) error {
		if rows, err = listed(r, memberEntities+id+"/"); err != nil {
			return err
		}
		groupRows, err = listed(r, memberGroups+id+"/")
		return err
	}); err != nil {
		return nil, nil, err
	}
	for _, member := range rows {
		e, err := s.entity(ctx, member)
		if err != nil {
			return nil, nil, err
		}
		if e != nil && e.ID == member && slices.Contains(e.direct(), id) {
			entities = append(entities, member)
		}
	}
	for _, member := range groupRows {
		g, err := s.group(ctx, member)
		if err != nil {
			return nil, nil, err
		}
		if g != nil && slices.Contains(g.Parents, id) {
			groups = append(groups, member)
		}
	}
	return entities, groups, nil
}

// listed returns all names directly below a prefix.
func listed(r storage.Reader, prefix string) (names []string, err error) {
	const page = 1000
	for last := ""; ; last = names[len(names)-1] {
		more, err := r.List(prefix, last, page)
		if names = append(names, more...); err != nil || len(more) < page {
			return names, err
		}
	}
}
