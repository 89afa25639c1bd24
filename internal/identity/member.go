package identity

import (
	"context"
	"fmt"
	"slices"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// memberKind is what differs between the entities and the groups that are members of
// a group.
type memberKind struct {
	rows string // + group + "/" + member
	// find returns the id that a member's id means now, "" for none, and the groups that
	// its own row says it is in.
	find        func(r storage.Reader, id string) (is string, in []string, err error)
	add, remove func(t storage.Txn, group, member string) error
	unknown     string // refuses an id
}

var entityMembers = memberKind{
	rows: memberEntities, add: addEntity, remove: removeEntity, unknown: "invalid entity ID %q",
	find: func(r storage.Reader, id string) (string, []string, error) {
		e, err := entity(r, id)
		if err != nil || e == nil {
			return "", nil, err
		}
		return e.ID, e.Groups, nil
	},
}

var groupMembers = memberKind{
	rows: memberGroups, add: addGroup, remove: removeGroup, unknown: "invalid group ID %q",
	find: func(r storage.Reader, id string) (string, []string, error) {
		g, err := group(r, id)
		if err != nil || g == nil {
			return "", nil, err
		}
		return g.ID, g.Parents, nil
	},
}

// missing returns the members wanted, by the ids that they have now, and those of them
// that are none yet. What counts is the member's own row.
func (k memberKind) missing(r storage.Reader, group string, wanted *[]string) (want map[string]bool, missing []string, err error) {
	want = map[string]bool{}
	if wanted == nil {
		return want, nil, nil
	}
	for _, id := range *wanted {
		is, in, err := k.find(r, id)
		switch {
		case err != nil:
			return nil, nil, err
		case is == "":
			return nil, nil, invalid(k.unknown, id)
		case !want[is] && !slices.Contains(in, group):
			missing = append(missing, is)
		}
		want[is] = true
	}
	return want, missing, nil
}

// setMembers makes the members of a group those wanted: whoever is listed besides is
// removed, whoever is missing added. nil leaves them as they are.
func (s *Store) setMembers(ctx context.Context, group string, k memberKind, wanted *[]string) error {
	if wanted == nil {
		return nil
	}
	var gone, missing []string
	if err := s.view(ctx, func(r storage.Reader) error {
		have, err := listed(r, k.rows+group+"/")
		if err != nil {
			return err
		}
		var want map[string]bool
		want, missing, err = k.missing(r, group, wanted)
		gone = slices.DeleteFunc(have, func(id string) bool { return want[id] })
		return err
	}); err != nil {
		return err
	}
	for _, work := range []struct {
		ids []string
		do  func(t storage.Txn, group, member string) error
	}{{gone, k.remove}, {missing, k.add}} {
		for piece := range slices.Chunk(work.ids, pieceOf) {
			if err := s.update(ctx, func(t storage.Txn) error {
				for _, id := range piece {
					if err := work.do(t, group, id); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

func addEntity(t storage.Txn, groupID, id string) error {
	g, err := group(t, groupID)
	if err != nil || g == nil {
		return err // deleted meanwhile
	}
	e, err := entity(t, id)
	if err != nil {
		return err
	}
	if e == nil {
		return invalid("invalid entity ID %q", id)
	}
	if !slices.Contains(e.Groups, groupID) {
		if len(e.Groups) >= MaxDirectGroups {
			return invalid("entity %s is in %d groups, which is the limit", e.ID, MaxDirectGroups)
		}
		e.Groups = append(slices.Clone(e.Groups), groupID)
		if err := storage.Save(t, entityRows+e.ID, e); err != nil {
			return err
		}
	}
	return t.Put(memberEntities+groupID+"/"+e.ID, nil)
}

func removeEntity(t storage.Txn, groupID, id string) error {
	e, err := storage.Load[Entity](t, entityRows+id)
	if err != nil {
		return err
	}
	if e != nil && e.MergedInto == "" {
		e.Groups = without(e.Groups, groupID)
		for i := range e.Aliases {
			e.Aliases[i].Groups = without(e.Aliases[i].Groups, groupID)
		}
		if err := storage.Save(t, entityRows+id, e); err != nil {
			return err
		}
	}
	return t.Delete(memberEntities + groupID + "/" + id)
}

func addGroup(t storage.Txn, groupID, id string) error {
	parent, err := group(t, groupID)
	if err != nil || parent == nil {
		return err
	}
	member, err := group(t, id)
	if err != nil {
		return err
	}
	if member == nil {
		return invalid("invalid group ID %q", id)
	}
	if err := checkCycle(t, parent, id); err != nil {
		return err
	}
	if !slices.Contains(member.Parents, groupID) {
		if len(member.Parents) >= MaxDirectGroups {
			return invalid("group %s is in %d groups, which is the limit", id, MaxDirectGroups)
		}
		member.Parents = append(member.Parents, groupID)
		member.Modified++
		if err := storage.Save(t, groupRows+id, member); err != nil {
			return err
		}
	}
	return t.Put(memberGroups+groupID+"/"+id, nil)
}

func removeGroup(t storage.Txn, groupID, id string) error {
	member, err := group(t, id)
	if err != nil {
		return err
	}
	if member != nil {
		member.Parents = without(member.Parents, groupID)
		member.Modified++
		if err := storage.Save(t, groupRows+id, member); err != nil {
			return err
		}
	}
	return t.Delete(memberGroups + groupID + "/" + id)
}

// checkCycle refuses a member that the group is itself a member of, at whatever
// distance.
func checkCycle(r storage.Reader, parent *Group, member string) error {
	seen := map[string]bool{}
	next := []*Group{parent}
	for len(next) > 0 {
		g := next[0]
		next = next[1:]
		if g.ID == member {
			return fault.New(fault.Invalid, "cycle detected in the groups: %s is a member of %s already, or is the same", parent.ID, member)
		}
		if seen[g.ID] {
			continue
		}
		if seen[g.ID] = true; len(seen) > MaxAllGroups {
			return invalid("group %s would be a member of more than %d groups", parent.ID, MaxAllGroups)
		}
		for _, id := range g.Parents {
			up, err := group(r, id)
			if err != nil {
				return fmt.Errorf("look for a cycle of groups: %w", err)
			}
			if up != nil {
				next = append(next, up)
			}
		}
	}
	return nil
}
