package identity

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// GroupAliasChange gives an external group the name by which a login method knows
// it, or changes that.
type GroupAliasChange struct {
	ID    string // of the alias to change; "" makes one
	Group string // "" is its own, or a new external group
	Mount string
	Name  string
}

// WriteGroupAlias makes or changes the alias of an external group.
func (s *Store) WriteGroupAlias(ctx context.Context, c GroupAliasChange) (out *Group, err error) {
	switch {
	case c.Name == "":
		return nil, invalid("missing alias name")
	case c.Mount == "":
		return nil, invalid("missing mount_accessor")
	}
	if err := checkName("alias", c.Name); err != nil {
		return nil, err
	}
	if err := s.checkMount(c.Mount); err != nil {
		return nil, err
	}
	err = s.update(ctx, func(t storage.Txn) error {
		out, err = s.aliasGroup(t, c)
		return err
	})
	return out, err
}

func (s *Store) aliasGroup(t storage.Txn, c GroupAliasChange) (*Group, error) {
	now := time.Now().UTC()
	a := Alias{ID: newID(), Created: now}
	holder, err := link(t, s.aliasKey("group", c.Mount, c.Name))
	if err != nil {
		return nil, err
	}
	var was *Group // whose alias is changed
	switch {
	case c.ID != "":
		if was, err = s.groupOfAlias(t, c.ID); err == nil && was == nil {
			err = invalid("invalid group alias ID")
		}
	case holder != "":
		was, err = group(t, holder)
	}
	if err != nil {
		return nil, err
	}
	if holder != "" && (was == nil || was.ID != holder) {
		return nil, invalid("combination of mount and group alias name is already in use")
	}
	if was != nil {
		a = *was.Alias
		if err := s.dropGroupAlias(t, was.Alias); err != nil {
			return nil, err
		}
	}
	g, before, err := s.groupForAlias(t, c, was, now)
	if err != nil {
		return nil, err
	}
	if was != nil && was.ID != g.ID {
		left := was.copied()
		left.Alias = nil
		if err := putGroup(t, left, was); err != nil {
			return nil, err
		}
	}
	if g.Alias != nil && g.Alias.ID != a.ID {
		if err := s.dropGroupAlias(t, g.Alias); err != nil {
			return nil, err
		}
	}
	a.Name, a.Mount, a.Updated = c.Name, c.Mount, now
	g.Alias = &a
	if err := t.Put(s.aliasKey("group", a.Mount, a.Name), []byte(g.ID)); err != nil {
		return nil, err
	}
	if err := t.Put(groupAliasIDs+a.ID, []byte(g.ID)); err != nil {
		return nil, err
	}
	return g, putGroup(t, g, before)
}

// groupForAlias is the group that an alias is given to: the named one, the one that
// has it, or a new one.
func (s *Store) groupForAlias(t storage.Txn, c GroupAliasChange, was *Group, now time.Time) (g, before *Group, err error) {
	switch {
	case c.Group != "":
		if before, err = group(t, c.Group); err != nil {
			return nil, nil, err
		}
		switch {
		case before == nil:
			return nil, nil, invalid("invalid group ID given in 'canonical_id'")
		case before.Type != External:
			return nil, nil, invalid("alias can't be set on an internal group")
		}
	case was != nil:
		before = was
	default:
		before = &Group{ID: newID(), Type: External, Created: now}
		before.Name = "group_" + before.ID[:8]
	}
	return before.copied(), before, nil
}

func (s *Store) groupOfAlias(t storage.Reader, id string) (*Group, error) {
	if !plainID(id) {
		return nil, nil
	}
	owner, err := link(t, groupAliasIDs+id)
	if err != nil || owner == "" {
		return nil, err
	}
	return group(t, owner)
}

func (s *Store) dropGroupAlias(t storage.Txn, a *Alias) error {
	if err := t.Delete(s.aliasKey("group", a.Mount, a.Name)); err != nil {
		return err
	}
	return t.Delete(groupAliasIDs + a.ID)
}

// GroupOfAlias returns the group that has the alias of an id.
func (s *Store) GroupOfAlias(ctx context.Context, id string) (g *Group, err error) {
	err = s.view(ctx, func(r storage.Reader) error {
		g, err = s.groupOfAlias(r, id)
		return err
	})
	return g, missing(g == nil, err)
}

// GroupByAlias returns the group that a method knows by a name.
func (s *Store) GroupByAlias(ctx context.Context, mount, name string) (g *Group, err error) {
	err = s.view(ctx, func(r storage.Reader) error {
		owner, err := link(r, s.aliasKey("group", mount, name))
		if err != nil || owner == "" {
			return err
		}
		g, err = group(r, owner)
		return err
	})
	return g, missing(g == nil, err)
}

// DeleteGroupAlias removes the alias of a group. Its members stay until their next
// login.
func (s *Store) DeleteGroupAlias(ctx context.Context, id string) error {
	return s.update(ctx, func(t storage.Txn) error {
		before, err := s.groupOfAlias(t, id)
		if err != nil || before == nil {
			return err
		}
		if err := s.dropGroupAlias(t, before.Alias); err != nil {
			return err
		}
		g := before.copied()
		g.Alias = nil
		return putGroup(t, g, before)
	})
}
