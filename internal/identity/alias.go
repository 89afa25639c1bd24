package identity

import (
	"context"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// AliasChange asks for an alias, or says what to change of one. Empty fields stay
// as they are.
type AliasChange struct {
	ID     string // of the alias to change; "" finds it by mount and name, or makes it
	Entity string // the entity it is to belong to; "" is its own, or a new one
	Mount  string
	Name   string
	Custom *map[string]string
}

// WriteAlias makes an alias or changes one. It returns the entity that it belongs
// to then, the alias's id, and whether anything was written.
func (s *Store) WriteAlias(ctx context.Context, c AliasChange) (e *Entity, id string, err error) {
	if c.Custom != nil {
		if err := checkMetadata(*c.Custom); err != nil {
			return nil, "", err
		}
	}
	err = s.update(ctx, func(t storage.Txn) error {
		owner, at, err := s.aliasToWrite(t, c)
		if err != nil {
			return err
		}
		if owner == nil {
			e, id, err = s.createAlias(t, c)
			return err
		}
		id = owner.Aliases[at].ID
		e, err = s.changeAlias(t, owner, at, c)
		return err
	})
	return e, id, err
}

// aliasToWrite finds the alias that a request means, and its entity; nil for a new
// one.
func (s *Store) aliasToWrite(t storage.Reader, c AliasChange) (*Entity, int, error) {
	var owner string
	var err error
	if c.ID != "" {
		if owner, err = s.ownerOf(t, c.ID); err == nil && owner == "" {
			err = invalid("invalid alias ID provided")
		}
	} else {
		if c.Mount == "" || c.Name == "" {
			return nil, 0, invalid("'id' or 'mount_accessor' and 'name' must be provided")
		}
		if err := s.checkMount(c.Mount); err != nil {
			return nil, 0, err
		}
		owner, err = link(t, s.aliasKey("entity", c.Mount, c.Name))
	}
	if err != nil || owner == "" {
		return nil, 0, err
	}
	e, err := entity(t, owner)
	if err != nil || e == nil {
		return nil, 0, err
	}
	e = e.copied()
	for i, a := range e.Aliases {
		if a.ID == c.ID || c.ID == "" && a.Mount == c.Mount && a.Name == c.Name {
			return e, i, nil
		}
	}
	return nil, 0, nil
}

func (s *Store) ownerOf(t storage.Reader, aliasID string) (string, error) {
	if !plainID(aliasID) {
		return "", nil
	}
	return link(t, aliasIDs+aliasID)
}

func (s *Store) checkMount(accessor string) error {
	if _, _, ok := s.Mount(accessor); !ok {
		return invalid("invalid mount accessor %q", accessor)
	}
	return nil
}

func (s *Store) createAlias(t storage.Txn, c AliasChange) (*Entity, string, error) {
	if err := checkName("alias", c.Name); err != nil {
		return nil, "", err
	}
	now := time.Now().UTC()
	e := newEntity(now)
	before := e
	if c.Entity != "" {
		found, err := entity(t, c.Entity)
		if err != nil {
			return nil, "", err
		}
		if found == nil {
			return nil, "", invalid("invalid canonical ID")
		}
		e, before = found.copied(), found
	}
	if e.at(c.Mount) >= 0 {
		return nil, "", invalid("Alias already exists for requested entity and mount accessor")
	}
	a := Alias{ID: newID(), Name: c.Name, Mount: c.Mount, Created: now, Updated: now}
	if c.Custom != nil {
		a.Custom = *c.Custom
	}
	if err := s.addAlias(t, e, a); err != nil {
		return nil, "", err
	}
	return e, a.ID, putEntity(t, e, before)
}

// addAlias gives an entity an alias, and makes it found.
func (s *Store) addAlias(t storage.Txn, e *Entity, a Alias) error {
	if len(e.Aliases) >= MaxAliases {
		return invalid("entity %s has %d aliases, which is the limit", e.ID, MaxAliases)
	}
	e.Aliases = append(e.Aliases, a)
	if err := t.Put(s.aliasKey("entity", a.Mount, a.Name), []byte(e.ID)); err != nil {
		return err
	}
	return t.Put(aliasIDs+a.ID, []byte(e.ID))
}

// dropAlias removes what an alias is found by.
func (s *Store) dropAlias(t storage.Txn, a Alias) error {
	if err := t.Delete(s.aliasKey("entity", a.Mount, a.Name)); err != nil {
		return err
	}
	return t.Delete(aliasIDs + a.ID)
}

// changeAlias renames an alias, gives it to another mount or to another entity.
func (s *Store) changeAlias(t storage.Txn, owner *Entity, at int, c AliasChange) (*Entity, error) {
	before := owner.copied()
	a := owner.Aliases[at]
	old := a
	if c.Name != "" {
		if err := checkName("alias", c.Name); err != nil {
			return nil, err
		}
		a.Name = c.Name
	}
	if c.Mount != "" && c.Mount != a.Mount {
		if err := s.checkMount(c.Mount); err != nil {
			return nil, err
		}
		if owner.at(c.Mount) >= 0 {
			return nil, invalid("Alias cannot be updated as the entity already has an alias for the given 'mount_accessor' ")
		}
		a.Mount = c.Mount
	}
	if c.Custom != nil {
		a.Custom = *c.Custom
	}
	if a.Name != old.Name || a.Mount != old.Mount {
		holder, err := link(t, s.aliasKey("entity", a.Mount, a.Name))
		if err != nil {
			return nil, err
		}
		if holder != "" {
			return nil, invalid("alias with combination of mount accessor and name already exists")
		}
	}
	a.Updated = time.Now().UTC()
	if c.Entity == "" || c.Entity == owner.ID {
		if err := s.dropAlias(t, old); err != nil {
			return nil, err
		}
		owner.Aliases = slices.Delete(owner.Aliases, at, at+1)
		if err := s.addAlias(t, owner, a); err != nil {
			return nil, err
		}
		return owner, putEntity(t, owner, before)
	}
	return s.moveAlias(t, owner, at, a, c.Entity)
}

// moveAlias gives an alias to another entity. The groups that the method said it is
// in go with it.
func (s *Store) moveAlias(t storage.Txn, owner *Entity, at int, a Alias, to string) (*Entity, error) {
	found, err := entity(t, to)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, invalid("given 'canonical_id' is not associated with an entity")
	}
	other := found.copied()
	if other.at(a.Mount) >= 0 {
		return nil, invalid("Alias cannot be updated as the given entity already has an alias for this mount ")
	}
	if len(a.Groups) > pieceOf {
		return nil, invalid("the alias is in %d groups by its method; at most %d can be moved with it", len(a.Groups), pieceOf)
	}
	before := owner.copied()
	if err := s.dropAlias(t, owner.Aliases[at]); err != nil {
		return nil, err
	}
	owner.Aliases = slices.Delete(owner.Aliases, at, at+1)
	if err := s.addAlias(t, other, a); err != nil {
		return nil, err
	}
	stays := owner.direct()
	for _, g := range a.Groups {
		if !slices.Contains(stays, g) {
			if err := t.Delete(memberEntities + g + "/" + owner.ID); err != nil {
				return nil, err
			}
		}
		if err := t.Put(memberEntities+g+"/"+other.ID, nil); err != nil {
			return nil, err
		}
	}
	if err := putEntity(t, owner, before); err != nil {
		return nil, err
	}
	return other, putEntity(t, other, found)
}

// AliasOf returns the entity that has the alias of an id.
func (s *Store) AliasOf(ctx context.Context, id string) (e *Entity, a *Alias, err error) {
	err = s.view(ctx, func(r storage.Reader) error {
		owner, err := s.ownerOf(r, id)
		if err != nil || owner == "" {
			return err
		}
		e, err = entity(r, owner)
		return err
	})
	if err == nil && e != nil {
		if i := e.alias(id); i >= 0 {
			return e, &e.Aliases[i], nil
		}
	}
	return nil, nil, missing(true, err)
}

// EntityByAlias returns the entity that a method knows by a name.
func (s *Store) EntityByAlias(ctx context.Context, mount, name string) (e *Entity, err error) {
	err = s.view(ctx, func(r storage.Reader) error {
		owner, err := link(r, s.aliasKey("entity", mount, name))
		if err != nil || owner == "" {
			return err
		}
		e, err = entity(r, owner)
		return err
	})
	return e, missing(e == nil, err)
}

// DeleteAlias removes an alias. The entity stays, without the groups that only this
// alias brought.
func (s *Store) DeleteAlias(ctx context.Context, id string) error {
	return s.update(ctx, func(t storage.Txn) error {
		owner, err := s.ownerOf(t, id)
		if err != nil || owner == "" {
			return err
		}
		e, err := entity(t, owner)
		if err != nil || e == nil {
			return err
		}
		before, at := e.copied(), e.alias(id)
		if at < 0 {
			return nil
		}
		a := e.Aliases[at]
		if err := s.dropAlias(t, a); err != nil {
			return err
		}
		e.Aliases = slices.Delete(e.Aliases, at, at+1)
		stays := e.direct()
		for i, g := range a.Groups {
			if slices.Contains(stays, g) || i >= 2*pieceOf {
				continue // what is beyond one transaction stays, and shows nowhere: see Members
			}
			if err := t.Delete(memberEntities + g + "/" + e.ID); err != nil {
				return err
			}
		}
		return putEntity(t, e, before)
	})
}
