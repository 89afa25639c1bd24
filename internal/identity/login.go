package identity

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Login is what a login method says of who logged in.
type Login struct {
	Mount    string            // the method's accessor
	Name     string            // by which the method knows the caller
	Metadata map[string]string // never secret
	Groups   []string          // that the method says the caller is in
}

// Enter returns the entity of a login, and makes one for a name that is new. What
// the method says is remembered: metadata, and membership of the external groups
// that it names. A login that says nothing new writes nothing.
func (s *Store) Enter(ctx context.Context, in Login) (*Entity, error) {
	if err := checkName("alias", in.Name); err != nil {
		return nil, err
	}
	if len(in.Groups) > MaxAsserted {
		return nil, invalid("the login names %d groups; at most %d are accepted", len(in.Groups), MaxAsserted)
	}
	groups, err := s.asserted(ctx, in)
	if err != nil {
		return nil, err
	}
	if e, err := s.byAlias(ctx, in); err != nil || e != nil && e.says(in, groups) {
		return e, err
	}
	for {
		var e *Entity
		done := false
		if err := s.update(ctx, func(t storage.Txn) error {
			var err error
			e, done, err = s.enter(t, in, groups)
			return err
		}); err != nil || done {
			return e, err
		}
	}
}

// asserted returns the external groups that a login's names mean, by id, in order.
func (s *Store) asserted(ctx context.Context, in Login) ([]string, error) {
	var ids []string
	for _, name := range in.Groups {
		id, err := s.aliases.Get(ctx, s.Prefix+s.aliasKey("group", in.Mount, name))
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// byAlias returns the entity of a login from memory, nil for a name that is new.
func (s *Store) byAlias(ctx context.Context, in Login) (*Entity, error) {
	id, err := s.aliases.Get(ctx, s.Prefix+s.aliasKey("entity", in.Mount, in.Name))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.entity(ctx, id)
}

// says reports whether the entity's row has all that a login says.
func (e *Entity) says(in Login, groups []string) bool {
	i := slices.IndexFunc(e.Aliases, func(a Alias) bool { return a.Mount == in.Mount && a.Name == in.Name })
	return i >= 0 && maps.Equal(e.Aliases[i].Metadata, in.Metadata) && slices.Equal(e.Aliases[i].Groups, groups)
}

// enter writes what a login says, as much as one transaction holds; done reports
// whether that was all.
func (s *Store) enter(t storage.Txn, in Login, groups []string) (e *Entity, done bool, err error) {
	key := s.aliasKey("entity", in.Mount, in.Name)
	owner, err := link(t, key)
	if err != nil {
		return nil, false, err
	}
	now := time.Now().UTC()
	var before *Entity
	if owner != "" {
		if before, err = entity(t, owner); err != nil {
			return nil, false, err
		}
	}
	at := -1
	if before != nil {
		at = slices.IndexFunc(before.Aliases, func(a Alias) bool { return a.Mount == in.Mount && a.Name == in.Name })
	}
	if at < 0 {
		before = newEntity(now)
	}
	e = before.copied()
	if at < 0 {
		at = 0
		if err := s.addAlias(t, e, Alias{ID: newID(), Name: in.Name, Mount: in.Mount, Created: now}); err != nil {
			return nil, false, err
		}
	}
	a := &e.Aliases[at]
	if len(in.Metadata) > 0 || len(a.Metadata) > 0 {
		a.Metadata = in.Metadata
	}
	a.Updated = now
	if done, err = assert(t, e, a, groups); err != nil {
		return nil, false, err
	}
	return e, done, putEntity(t, e, before)
}

// assert makes the external groups of an alias those that its method says, a piece
// at a time. A group that was deleted since is left out.
func assert(t storage.Txn, e *Entity, a *Alias, groups []string) (done bool, err error) {
	a.Groups = slices.Clone(a.Groups)
	changes := 0
	for _, id := range slices.Clone(a.Groups) {
		if slices.Contains(groups, id) {
			continue
		}
		if changes++; changes > pieceOf {
			return false, nil
		}
		a.Groups = without(a.Groups, id)
		if !slices.Contains(e.direct(), id) {
			if err := t.Delete(memberEntities + id + "/" + e.ID); err != nil {
				return false, err
			}
		}
	}
	for _, id := range groups {
		if slices.Contains(a.Groups, id) {
			continue
		}
		if changes++; changes > pieceOf {
			return false, nil
		}
		a.Groups = append(a.Groups, id)
		if err := t.Put(memberEntities+id+"/"+e.ID, nil); err != nil {
			return false, err
		}
	}
	slices.Sort(a.Groups)
	return true, nil
}
