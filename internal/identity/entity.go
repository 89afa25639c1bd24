package identity

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// EntityChange says what to change of an entity; nil leaves a field as it is.
type EntityChange struct {
	Name     *string
	Metadata *map[string]string
	Policies *[]string
	Disabled *bool
}

func (c EntityChange) apply(e *Entity) (err error) {
	if c.Name != nil && *c.Name != "" {
		if err := checkName("entity", *c.Name); err != nil {
			return err
		}
		e.Name = *c.Name
	}
	if c.Policies != nil {
		if e.Policies, err = cleanPolicies(*c.Policies); err != nil {
			return err
		}
	}
	if c.Metadata != nil {
		if err := checkMetadata(*c.Metadata); err != nil {
			return err
		}
		e.Metadata = *c.Metadata
	}
	if c.Disabled != nil {
		e.Disabled = *c.Disabled
	}
	return nil
}

// WriteEntity changes the entity of an id, or of the name that the change gives, or
// makes one. created reports whether it did.
func (s *Store) WriteEntity(ctx context.Context, id string, c EntityChange) (out *Entity, created bool, err error) {
	err = s.update(ctx, func(t storage.Txn) error {
		before, err := entityToWrite(t, id, c.Name)
		if err != nil {
			return err
		}
		created = before == nil
		if created {
			before = newEntity(time.Now().UTC())
		}
		out = before.copied()
		if err := c.apply(out); err != nil {
			return err
		}
		return putEntity(t, out, before)
	})
	return out, created, err
}

// entityToWrite is the entity that a request means, nil for a new one.
func entityToWrite(t storage.Reader, id string, name *string) (*Entity, error) {
	if id != "" {
		e, err := entity(t, id)
		if err == nil && e == nil {
			err = invalid("entity not found from id")
		}
		return e, err
	}
	if name == nil || *name == "" {
		return nil, nil
	}
	if err := checkName("entity", *name); err != nil {
		return nil, err
	}
	id, err := link(t, nameKey(entityNames, *name))
	if err != nil || id == "" {
		return nil, err
	}
	return entity(t, id)
}

func newEntity(now time.Time) *Entity {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return &Entity{ID: newID(), Name: "entity_" + hex.EncodeToString(b[:]), Created: now}
}

// putEntity writes an entity and the index of its name.
func putEntity(t storage.Txn, e, before *Entity) error {
	key := nameKey(entityNames, e.Name)
	holder, err := link(t, key)
	if err != nil {
		return err
	}
	if holder != "" && holder != e.ID {
		return invalid("entity name is already in use")
	}
	if old := nameKey(entityNames, before.Name); old != key {
		if err := t.Delete(old); err != nil {
			return err
		}
	}
	if holder == "" || e.Name != before.Name {
		if err := t.Put(key, nameRow(e.ID, e.Name)); err != nil {
			return err
		}
	}
	e.Updated = time.Now().UTC()
	return storage.Save(t, entityRows+e.ID, e)
}

// entity returns the entity of an id, or the one it was merged into; nil when
// there is none.
func entity(r storage.Reader, id string) (*Entity, error) {
	for range MaxMerged + 1 {
		if !plainID(id) {
			return nil, nil
		}
		e, err := storage.Load[Entity](r, entityRows+id)
		if err != nil || e == nil || e.MergedInto == "" {
			return e, err
		}
		id = e.MergedInto
	}
	return nil, nil
}

// plainID reports whether a text can be an id: one segment of a key.
func plainID(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// Entity returns the entity of an id as the store has it, or a NotFound without
// words.
func (s *Store) Entity(ctx context.Context, id string) (e *Entity, err error) {
	err = s.view(ctx, func(r storage.Reader) error {
		e, err = entity(r, id)
		return err
	})
	return e, missing(e == nil, err)
}

// EntityNamed returns the entity of a name.
func (s *Store) EntityNamed(ctx context.Context, name string) (e *Entity, err error) {
	if checkName("entity", name) != nil || name == "" {
		return nil, missing(true, nil)
	}
	err = s.view(ctx, func(r storage.Reader) error {
		id, err := link(r, nameKey(entityNames, name))
		if err != nil || id == "" {
			return err
		}
		e, err = entity(r, id)
		return err
	})
	return e, missing(e == nil, err)
}

func missing(none bool, err error) error {
	if err == nil && none {
		return fault.New(fault.NotFound, "")
	}
	return err
}

// DeleteEntity removes an entity. Tokens that name it are refused from then on.
// What other rows say of it is removed before this returns, or by Sweep.
func (s *Store) DeleteEntity(ctx context.Context, id string) error {
	if !plainID(id) {
		return nil
	}
	found := false
	err := s.update(ctx, func(t storage.Txn) error {
		found = false
		e, err := storage.Load[Entity](t, entityRows+id)
		if err != nil || e == nil || e.MergedInto != "" {
			return err
		}
		found = true
		for _, a := range e.Aliases {
			if err := s.dropAlias(t, a); err != nil {
				return err
			}
		}
		if err := t.Delete(nameKey(entityNames, e.Name)); err != nil {
			return err
		}
		left := remains{}
		for _, group := range e.direct() {
			left.Rows = append(left.Rows, memberEntities+group+"/"+id)
		}
		for _, merged := range e.MergedIDs {
			left.Rows = append(left.Rows, entityRows+merged)
		}
		if err := storage.Save(t, endingRows+"entity/"+id, left); err != nil {
			return err
		}
		return t.Delete(entityRows + id)
	})
	if err != nil || !found {
		return err
	}
	return s.finish(ctx, "entity", id)
}

// Entities calls fn with every entity that sorts after the given id, until fn says
// that it has enough.
func (s *Store) Entities(ctx context.Context, after string, fn func(*Entity) (more bool, err error)) error {
	return each(ctx, s, entityRows, after, func(e *Entity) (bool, error) {
		if e.MergedInto != "" {
			return true, nil
		}
		return fn(e)
	})
}

// each calls fn with every row of a kind, a page at a time, each page from a
// snapshot of its own.
func each[T any](ctx context.Context, s *Store, prefix, after string, fn func(*T) (bool, error)) error {
	const page = 256
	for {
		var rows []storage.Entry
		if err := s.view(ctx, func(r storage.Reader) error {
			var err error
			rows, err = r.Scan(prefix, prefix+after, page)
			return err
		}); err != nil {
			return err
		}
		for _, row := range rows {
			after = strings.TrimPrefix(row.Key, prefix)
			v, err := storage.Decode[T](row.Key, row.Value, nil)
			if err != nil {
				return err
			}
			if more, err := fn(v); err != nil || !more {
				return err
			}
		}
		if len(rows) < page {
			return nil
		}
	}
}

// Names lists, in order, the names of entities that sort after the given one, at
// most limit.
func (s *Store) Names(ctx context.Context, after string, limit int) ([]string, error) {
	return s.names(ctx, entityNames, after, limit)
}

// names lists names as they were written: keys have them in lower case.
func (s *Store) names(ctx context.Context, prefix, after string, limit int) (names []string, err error) {
	err = s.view(ctx, func(r storage.Reader) error {
		names = nil
		last := ""
		if after != "" {
			last = nameKey(prefix, after)
		}
		for {
			rows, err := r.Scan(prefix, last, 256)
			if err != nil {
				return err
			}
			for _, row := range rows {
				if _, name, _ := strings.Cut(string(row.Value), "\n"); limit == 0 || len(names) < limit {
					names = append(names, name)
				}
				last = row.Key
			}
			if len(rows) < 256 || limit > 0 && len(names) >= limit {
				return nil
			}
		}
	})
	return names, err
}

// without returns list without one of its values.
func without(list []string, value string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(v string) bool { return v == value })
}
