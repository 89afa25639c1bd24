package identity

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Who is an entity with the groups it is in, directly or by another group, as they
// are now. It is shared and must not be changed.
type Who struct {
	Entity   *Entity
	Groups   []*Group // by id
	Direct   int      // how many of its groups it is in directly
	Policies []string // of the entity and its groups, sorted, each once
	// Cut says that it is in more than MaxAllGroups groups, of which these are some.
	Cut bool
}

// known is a Who and the rows it was made of.
type known struct {
	who  *Who
	rows []*Group // in the order they were met
}

// MaxKnown is how many entities are kept with their groups worked out.
const maxKnown = 20_000

// Who returns what there is to know of the entity of an id, from memory where that
// is current; nil when there is none. One that is in more than MaxAllGroups groups is
// refused: a policy that denies could be among those that were not looked at.
func (s *Store) Who(ctx context.Context, id string) (*Who, error) {
	w, err := s.Look(ctx, id)
	if err == nil && w != nil && w.Cut {
		return nil, fault.New(fault.Denied, "permission denied: entity %s is in more than %d groups, by itself and by other groups; take it out of some", w.Entity.ID, MaxAllGroups)
	}
	return w, err
}

// Look is Who for those who show an entity and decide nothing: of one that is in too
// many groups it returns some.
func (s *Store) Look(ctx context.Context, id string) (*Who, error) {
	e, err := s.entity(ctx, id)
	if err != nil || e == nil {
		return nil, err
	}
	s.mu.RLock()
	have := s.known[e.ID]
	s.mu.RUnlock()
	if have != nil && have.who.Entity == e {
		same, err := s.unchanged(ctx, have)
		if err != nil || same {
			return have.who, err
		}
	}
	if have, err = s.workOut(ctx, e); err != nil {
		return nil, err
	}
	if have.who.Cut {
		return have.who, nil // another group may come or go unseen
	}
	s.mu.Lock()
	if len(s.known) >= maxKnown {
		clear(s.known)
	}
	s.known[e.ID] = have
	s.mu.Unlock()
	return have.who, nil
}

// unchanged reports whether the groups are the rows that they were.
func (s *Store) unchanged(ctx context.Context, k *known) (bool, error) {
	for _, was := range k.rows {
		g, err := s.group(ctx, was.ID)
		if err != nil || g != was {
			return false, err
		}
	}
	return true, nil
}

// workOut reads the groups of an entity, and theirs.
func (s *Store) workOut(ctx context.Context, e *Entity) (*known, error) {
	k := &known{who: &Who{Entity: e, Policies: slices.Clone(e.Policies)}}
	seen := map[string]bool{}
	next := e.direct()
	direct := len(next)
	for i := 0; i < len(next); i++ {
		if seen[next[i]] {
			continue
		}
		seen[next[i]] = true
		g, err := s.group(ctx, next[i])
		if err != nil {
			return nil, err
		}
		if g == nil {
			continue // deleted
		}
		if k.who.Cut = len(k.rows) == MaxAllGroups; k.who.Cut {
			break
		}
		if i < direct {
			k.who.Direct++
		}
		k.rows = append(k.rows, g)
		k.who.Policies = append(k.who.Policies, g.Policies...)
		next = append(next, g.Parents...)
	}
	k.who.Groups = slices.SortedFunc(slices.Values(k.rows), func(a, b *Group) int { return strings.Compare(a.ID, b.ID) })
	slices.Sort(k.who.Policies)
	k.who.Policies = slices.Compact(k.who.Policies)
	return k, nil
}

// Key tells the entity from others.
func (w *Who) Key() string { return w.Entity.ID }

// DirectGroups and InheritedGroups return the ids of the groups that the entity is in
// by itself, and only by other groups.
func (w *Who) DirectGroups() []string { return w.ids(true) }

// InheritedGroups returns the ids of the groups that the entity is in only by other
// groups.
func (w *Who) InheritedGroups() []string { return w.ids(false) }

func (w *Who) ids(direct bool) []string {
	ids := []string{}
	own := w.Entity.direct()
	for _, g := range w.Groups {
		if slices.Contains(own, g.ID) == direct {
			ids = append(ids, g.ID)
		}
	}
	return ids
}

// entity returns an entity from memory where that is current, or the one it was
// merged into; nil when there is none.
func (s *Store) entity(ctx context.Context, id string) (*Entity, error) {
	for range MaxMerged + 1 {
		e, err := from(ctx, s.entities, s.Prefix+entityRows, id)
		if err != nil || e == nil || e.MergedInto == "" {
			return e, err
		}
		id = e.MergedInto
	}
	return nil, nil
}

func (s *Store) group(ctx context.Context, id string) (*Group, error) {
	return from(ctx, s.groups, s.Prefix+groupRows, id)
}

// cache is a barrier.Cache.
type cache[T any] interface {
	Get(ctx context.Context, key string) (T, error)
}

func from[T any](ctx context.Context, c cache[*T], prefix, id string) (*T, error) {
	if !plainID(id) {
		return nil, nil
	}
	v, err := c.Get(ctx, prefix+id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// Resolve returns the value of a template's name in a policy, such as
// "identity.entity.metadata.team".
func (w *Who) Resolve(name string) (string, bool) {
	if rest, ok := strings.CutPrefix(name, "identity.entity."); ok {
		return w.Entity.resolve(rest)
	}
	if rest, ok := strings.CutPrefix(name, "identity.groups.ids."); ok {
		id, what, _ := strings.Cut(rest, ".")
		return w.ofGroup(what, func(g *Group) bool { return g.ID == id })
	}
	if rest, ok := strings.CutPrefix(name, "identity.groups.names."); ok {
		// A name may have dots itself; what is asked of it does not begin with one.
		for i := range len(rest) {
			if rest[i] != '.' {
				continue
			}
			if v, ok := w.ofGroup(rest[i+1:], func(g *Group) bool { return g.Name == rest[:i] }); ok {
				return v, true
			}
		}
	}
	return "", false
}

func (w *Who) ofGroup(what string, is func(*Group) bool) (string, bool) {
	i := slices.IndexFunc(w.Groups, is)
	if i < 0 {
		return "", false
	}
	g := w.Groups[i]
	switch what {
	case "id":
		return g.ID, true
	case "name":
		return g.Name, true
	}
	return pair(g.Metadata, what, "metadata.")
}

func (e *Entity) resolve(what string) (string, bool) {
	switch what {
	case "id":
		return e.ID, true
	case "name":
		return e.Name, true
	}
	if rest, ok := strings.CutPrefix(what, "aliases."); ok {
		mount, what, _ := strings.Cut(rest, ".")
		i := e.at(mount)
		if i < 0 {
			return "", false
		}
		return e.Aliases[i].resolve(what)
	}
	return pair(e.Metadata, what, "metadata.")
}

func (a *Alias) resolve(what string) (string, bool) {
	switch what {
	case "id":
		return a.ID, true
	case "name":
		return a.Name, true
	}
	if v, ok := pair(a.Metadata, what, "metadata."); ok {
		return v, true
	}
	return pair(a.Custom, what, "custom_metadata.")
}

func pair(m map[string]string, what, prefix string) (string, bool) {
	key, ok := strings.CutPrefix(what, prefix)
	if !ok {
		return "", false
	}
	v, ok := m[key]
	return v, ok
}
