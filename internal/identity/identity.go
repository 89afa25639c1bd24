// Package identity keeps who callers are, whichever way they log in: an entity is
// one person or program, its aliases are the names by which login methods know it,
// and groups hold entities and other groups. Policies of an entity and of its
// groups add to those of its tokens.
//
// Membership is kept with the member: an entity names its groups and a group its
// parents, so that one request reads a few rows that are all in memory. The rows
// below "member/" are the way back, for lists.
//
// The package proves nobody's identity (package auth) and decides no request
// (package policy).
package identity

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/google/uuid"
)

// Limits. Those of metadata are Vault's.
const (
	MaxNameBytes     = 512
	MaxAliases       = 32   // of one entity
	MaxDirectGroups  = 500  // that an entity or a group is a member of
	MaxAllGroups     = 2000 // that an entity is in, directly and by others; more bar it
	MaxMerged        = 500  // entities that became part of one
	MaxMetadata      = 64   // pairs
	MaxMetadataKey   = 128
	MaxMetadataValue = 512
	MaxPolicies      = 500  // of an entity or a group
	MaxAsserted      = 5000 // groups that one login may name
)

// Entity is one person or program. An Entity that the store returned is shared and
// must not be changed.
type Entity struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Policies   []string          `json:"policies,omitempty"`
	Disabled   bool              `json:"disabled,omitempty"`
	Aliases    []Alias           `json:"aliases,omitempty"`
	Groups     []string          `json:"groups,omitempty"` // internal groups it is a direct member of, by id
	MergedIDs  []string          `json:"merged_ids,omitempty"`
	MergedInto string            `json:"merged_into,omitempty"` // nothing else is left of it then
	Created    time.Time         `json:"created"`
	Updated    time.Time         `json:"updated"`
}

// Alias is the name by which one login method knows an entity, or a group.
type Alias struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Mount      string            `json:"mount"`              // the method's accessor
	Metadata   map[string]string `json:"metadata,omitempty"` // what the method said at the last login
	Custom     map[string]string `json:"custom,omitempty"`   // what people gave it
	Groups     []string          `json:"groups,omitempty"`   // external groups that the method said it is in, by id
	MergedFrom []string          `json:"merged_from,omitempty"`
	Created    time.Time         `json:"created"`
	Updated    time.Time         `json:"updated"`
}

// Types of groups: members of an internal one are set by hand, of an external one
// by what a login method says.
const (
	Internal = "internal"
	External = "external"
)

// Group gives its members its policies. A Group that the store returned is shared
// and must not be changed.
type Group struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Policies []string          `json:"policies,omitempty"`
	Parents  []string          `json:"parents,omitempty"` // groups it is a member of, by id
	Alias    *Alias            `json:"alias,omitempty"`   // of an external group
	Created  time.Time         `json:"created"`
	Updated  time.Time         `json:"updated"`
	Modified uint64            `json:"modified"` // counts its changes
}

// Mount says where a login method with an accessor is; false when there is none.
type Mount func(accessor string) (path, kind string, ok bool)

// Options are what a Store needs.
type Options struct {
	Barrier *barrier.Barrier
	Caches  *Caches
	Prefix  string // of the namespace; "" for the root
	Mount   Mount
	Log     *slog.Logger
}

// Store keeps entities and groups.
type Store struct {
	Options
	*Caches
	storage storage.Engine
	scope   string // of the barrier's keys

	mu    sync.RWMutex
	known map[string]*known // by entity id
}

// How many rows are kept in memory.
const (
	cachedEntities = 50_000
	cachedGroups   = 20_000
	cachedAliases  = 100_000
)

// Rows below the prefix.
const (
	rows = "core/identity/"

	entityRows     = "entity/"       // + id: Entity
	entityNames    = "entity-name/"  // + escaped name in lower case: id and name
	aliasRows      = "alias/"        // + "entity/" or "group/" + accessor + "/" + fingerprint of the name: id of the entity or group
	aliasIDs       = "alias-id/"     // + id: id of the entity
	groupRows      = "group/"        // + id: Group
	groupNames     = "group-name/"   // + escaped name in lower case: id and name
	groupAliasIDs  = "group-alias/"  // + id: id of the group
	memberEntities = "member/"       // + group + "/" + entity
	memberGroups   = "member-group/" // + group + "/" + group
	endingRows     = "ending/"       // + "entity/" or "group/" + id: what it leaves is being removed (remains)
)

// Caches hold rows of the stores that share them.
type Caches struct {
	entities *barrier.Cache[*Entity]
	groups   *barrier.Cache[*Group]
	aliases  *barrier.Cache[string]
}

// NewCaches returns caches for the stores of all prefixes that begin with prefix; ""
// is the root's alone.
func NewCaches(b *barrier.Barrier, prefix string) *Caches {
	below := func(kind string) string {
		if prefix == "" {
			return rows + kind
		}
		return prefix
	}
	return &Caches{
		entities: barrier.NewCache(b, below(entityRows), cachedEntities, decode[Entity]),
		groups:   barrier.NewCache(b, below(groupRows), cachedGroups, decode[Group]),
		aliases: barrier.NewCache(b, below(aliasRows), cachedAliases, func(_ string, row []byte) (string, error) {
			return string(row), nil
		}),
	}
}

// Stats returns what the cache of entities did.
func (c *Caches) Stats() barrier.CacheStats { return c.entities.Stats() }

// New returns the store of the entities and groups of a namespace.
func New(o Options) *Store {
	s := &Store{Options: o, Caches: o.Caches, known: map[string]*known{}, scope: barrier.CoreScope}
	if o.Prefix != "" {
		s.scope = strings.TrimSuffix(o.Prefix, "/")
	}
	s.Prefix += rows
	s.storage = storage.Sub(o.Barrier, s.Prefix)
	return s
}

// decode reads a row for a cache.
func decode[T any](key string, row []byte) (*T, error) { return storage.Decode[T](key, row, nil) }

// link returns the id that an index row holds, "" when there is none.
func link(r storage.Reader, key string) (string, error) {
	row, err := r.Get(key)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	id, _, _ := strings.Cut(string(row), "\n")
	return id, err
}

// nameRow is the index row of a name: the id, and the name in its own case.
func nameRow(id, name string) []byte { return []byte(id + "\n" + name) }

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// nameKey is a name as it stands in an index: names differ by more than case.
func nameKey(prefix, name string) string { return prefix + escape(strings.ToLower(name)) }

// escape keeps a name one segment of a key.
func escape(name string) string {
	return strings.NewReplacer("%", "%25", "/", "%2f").Replace(name)
}

// aliasKey is where an alias is found by what a method says; of is "entity" or
// "group". A name can be longer than a key and need not be shown by one.
func (s *Store) aliasKey(of, mount, name string) string {
	return aliasRows + of + "/" + mount + "/" + s.Barrier.Fingerprint(s.scope, []byte(of+" alias "+name))
}

// checkName checks the name of an entity, a group or an alias.
func checkName(what, name string) error {
	switch {
	case len(name) > MaxNameBytes:
		return invalid("the name of the %s has %d bytes; at most %d are accepted", what, len(name), MaxNameBytes)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		return invalid("the name of the %s holds a character that cannot be printed", what)
	}
	return nil
}

// checkMetadata refuses metadata beyond the limits.
func checkMetadata(m map[string]string) error {
	if len(m) > MaxMetadata {
		return invalid("metadata has %d pairs; at most %d are accepted", len(m), MaxMetadata)
	}
	for k, v := range m {
		if k == "" || len(k) > MaxMetadataKey || len(v) > MaxMetadataValue {
			return invalid("metadata: a key has 1 to %d bytes and a value at most %d", MaxMetadataKey, MaxMetadataValue)
		}
	}
	return nil
}

// cleanPolicies returns names of policies in their normal form.
func cleanPolicies(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	switch {
	case slices.Contains(out, "root"):
		return nil, invalid("policies cannot contain root")
	case slices.Contains(out, "response-wrapping"):
		return nil, invalid("policies cannot contain response-wrapping")
	case len(out) > MaxPolicies:
		return nil, invalid("there are %d policies; at most %d are accepted", len(out), MaxPolicies)
	}
	return out, nil
}

func newID() string { return uuid.NewString() }

// copied returns the entity as one that may be changed.
func (e *Entity) copied() *Entity {
	out := *e
	out.Metadata, out.Policies, out.Groups = maps.Clone(e.Metadata), slices.Clone(e.Policies), slices.Clone(e.Groups)
	out.Aliases, out.MergedIDs = slices.Clone(e.Aliases), slices.Clone(e.MergedIDs)
	return &out
}

// direct returns the groups that the entity is a direct member of, internal and
// external, each once.
func (e *Entity) direct() []string {
	ids := slices.Clone(e.Groups)
	for i := range e.Aliases {
		ids = append(ids, e.Aliases[i].Groups...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// alias returns the index of the alias with an id, -1 when there is none.
func (e *Entity) alias(id string) int {
	return slices.IndexFunc(e.Aliases, func(a Alias) bool { return a.ID == id })
}

// at returns the index of the alias of a mount, -1 when there is none.
func (e *Entity) at(mount string) int {
	return slices.IndexFunc(e.Aliases, func(a Alias) bool { return a.Mount == mount })
}

// view runs fn on a snapshot.
func (s *Store) view(ctx context.Context, fn func(storage.Reader) error) error {
	return s.storage.View(ctx, fn)
}

// update runs fn in a transaction.
func (s *Store) update(ctx context.Context, fn func(storage.Txn) error) error {
	_, err := s.storage.Update(ctx, fn)
	return err
}
