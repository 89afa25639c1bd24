package identity

import (
	"context"
	"slices"

	"github.com/cofferhq/coffer/internal/storage"
)

// Merge makes one entity of several: to gets the aliases, groups and policies of
// the others, and their ids mean it from then on. Where both have an alias of the
// same mount, keep names the aliases that stay; the others end. Each entity is
// merged in one step, or not at all.
//
// A disabled entity is not merged: its aliases would log in again, as one that works.
func (s *Store) Merge(ctx context.Context, to string, from, keep []string) error {
	from = slices.Compact(slices.Sorted(slices.Values(from)))
	if slices.Contains(from, to) {
		return invalid("to_entity_id should not be present in from_entity_ids")
	}
	if err := s.view(ctx, func(r storage.Reader) error {
		target, err := toMerge(r, to, "to")
		for i := 0; err == nil && i < len(from); i++ {
			var e *Entity
			if e, err = toMerge(r, from[i], "from"); err == nil {
				_, err = target.take(e, keep)
			}
		}
		return err
	}); err != nil {
		return err
	}
	for _, id := range from {
		if err := s.mergeOne(ctx, to, id, keep); err != nil {
			return err
		}
	}
	return nil
}

// toMerge returns a copy of an entity that is merged: role says whether into another
// one, "from", or the other way, "to".
func toMerge(r storage.Reader, id, role string) (*Entity, error) {
	if !plainID(id) {
		return nil, invalid("entity id to merge %s is invalid", role)
	}
	e, err := storage.Load[Entity](r, entityRows+id)
	switch {
	case err != nil:
		return nil, err
	case e == nil || e.MergedInto != "":
		return nil, invalid("entity id to merge %s is invalid", role)
	case e.Disabled && role == "from":
		return nil, invalid("entity %s is disabled, and merged it would work again: enable it before, or delete it", id)
	}
	return e.copied(), nil
}

// take gives an entity what another one has, within the limits. It returns the aliases
// that end.
func (e *Entity) take(from *Entity, keep []string) (ended []Alias, err error) {
	if e.Aliases, ended, err = mergeAliases(e.Aliases, from.Aliases, keep); err != nil {
		return nil, err
	}
	for i := range e.Aliases {
		if a := &e.Aliases[i]; from.alias(a.ID) >= 0 {
			a.MergedFrom = append(slices.Clone(a.MergedFrom), from.ID)
		}
	}
	e.Groups = append(e.Groups, from.Groups...)
	slices.Sort(e.Groups)
	e.Groups = slices.Compact(e.Groups)
	e.MergedIDs = append(append(e.MergedIDs, from.ID), from.MergedIDs...)
	switch {
	case len(e.Aliases) > MaxAliases:
		return nil, invalid("the merged entity would have %d aliases; at most %d are accepted", len(e.Aliases), MaxAliases)
	case len(e.Groups) > MaxDirectGroups:
		return nil, invalid("the merged entity would be in %d groups; at most %d are accepted", len(e.Groups), MaxDirectGroups)
	case len(e.MergedIDs) > MaxMerged:
		return nil, invalid("the merged entity would stand for %d others; at most %d are accepted", len(e.MergedIDs), MaxMerged)
	}
	e.Policies, err = cleanPolicies(append(e.Policies, from.Policies...))
	return ended, err
}

// mergeAliases returns the aliases of both, and those that end because the other
// entity's alias of the same mount is kept.
func mergeAliases(to, from []Alias, keep []string) (all, ended []Alias, err error) {
	all = slices.Clone(to)
	for _, a := range from {
		i := slices.IndexFunc(all, func(b Alias) bool { return b.Mount == a.Mount })
		switch {
		case i < 0:
			all = append(all, a)
		case slices.Contains(keep, all[i].ID) && !slices.Contains(keep, a.ID):
			ended = append(ended, a)
		case slices.Contains(keep, a.ID) && !slices.Contains(keep, all[i].ID):
			ended = append(ended, all[i])
			all[i] = a
		default:
			return nil, nil, invalid("both entities have an alias of the mount %s: say in conflicting_alias_ids_to_keep which one stays, %s or %s", a.Mount, all[i].ID, a.ID)
		}
	}
	return all, ended, nil
}

// mergeOne merges one entity. First it is listed in the other's groups, which gives
// nothing until its row has them too; what the other one leaves is removed afterwards.
func (s *Store) mergeOne(ctx context.Context, to, id string, keep []string) error {
	from, err := storage.LoadFrom[Entity](ctx, s.storage, entityRows+id)
	if err != nil {
		return err
	}
	if from == nil {
		return errMeanwhile()
	}
	listed := from.direct()
	for piece := range slices.Chunk(listed, pieceOf) {
		if err := s.update(ctx, func(t storage.Txn) error {
			for _, group := range piece {
				if err := t.Put(memberEntities+group+"/"+to, nil); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if err := s.update(ctx, func(t storage.Txn) error { return s.merge(t, to, id, keep, listed) }); err != nil {
		return err
	}
	return s.finish(ctx, "entity", id)
}

func errMeanwhile() error {
	return invalid("an entity of the merge was changed meanwhile; look at them and try again")
}

func (s *Store) merge(t storage.Txn, to, id string, keep, listed []string) error {
	e, err := toMerge(t, to, "to")
	if err != nil {
		return err
	}
	from, err := toMerge(t, id, "from")
	if err != nil {
		return err
	}
	if !slices.Equal(from.direct(), listed) {
		return errMeanwhile()
	}
	before := e.copied()
	ended, err := e.take(from, keep)
	if err != nil {
		return err
	}
	// What finds the aliases that stay names the merged entity, and with it this one.
	for _, a := range ended {
		if err := s.dropAlias(t, a); err != nil {
			return err
		}
	}
	if err := t.Delete(nameKey(entityNames, from.Name)); err != nil {
		return err
	}
	if err := storage.Save(t, entityRows+id, Entity{ID: id, MergedInto: to, Created: from.Created}); err != nil {
		return err
	}
	left := remains{Merged: append(from.MergedIDs, id)}
	for _, group := range listed {
		left.Rows = append(left.Rows, memberEntities+group+"/"+id)
	}
	if err := storage.Save(t, endingRows+"entity/"+id, left); err != nil {
		return err
	}
	return putEntity(t, e, before)
}
