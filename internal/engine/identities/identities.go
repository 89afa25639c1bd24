// Package identities is the mount identity/: the routes by which entities, their
// aliases and groups are written and read, in the shapes of Vault's API. What they
// are is package identity's.
package identities

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/broker"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/factor"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/namespace"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Identities answers the routes.
type Identities struct {
	Stores
	id        string // of the namespace
	namespace string // the same as the wire has it: "root"
}

// Stores return what a namespace has, by its id.
type Stores struct {
	Identities func(namespace string) *identity.Store
	Factors    func(namespace string) *factor.Store
	Brokers    func(namespace string) *broker.Store
	// Ends returns when the token of a caller ends, the zero time for never.
	Ends func(ctx context.Context, by route.Caller) (time.Time, error)
}

// none has no options.
type none struct{}

// Kind declares identity/ around the stores of the namespaces.
func Kind(stores Stores) engine.Kind[none, *Identities] {
	return engine.Kind[none, *Identities]{
		Name: "identity", Doc: "Entities, their aliases, and groups: who callers are, whichever way they log in; second factors, and identity tokens.", Class: engine.System,
		Open: func(_ context.Context, env engine.Env, _ none) (*Identities, error) {
			return &Identities{stores, env.Mount.Namespace, namespace.Name(env.Mount.Namespace)}, nil
		},
		Routes: slices.Concat(entityRoutes, aliasRoutes, groupRoutes, groupAliasRoutes, lookupRoutes, mfaRoutes, oidcRoutes),
	}
}

func (s *Identities) store() *identity.Store { return s.Identities(s.id) }

// ByID names what is asked about by its id.
type ByID struct {
	ID string `path:"id" doc:"The id."`
}

// ByName names what is asked about by its name.
type ByName struct {
	Name string `path:"name" doc:"The name, in any case."`
}

// Metadata is answered as an object, or null when there is none.
type Metadata map[string]string

// Alias is an alias on the wire.
type Alias struct {
	ID          string          `json:"id"`
	CanonicalID string          `json:"canonical_id"`
	Name        string          `json:"name"`
	Mount       string          `json:"mount_accessor"`
	MountPath   string          `json:"mount_path"`
	MountType   string          `json:"mount_type"`
	Metadata    *wire.StringMap `json:"metadata"`
	Custom      *wire.StringMap `json:"custom_metadata"`
	MergedFrom  []string        `json:"merged_from_canonical_ids"`
	Local       bool            `json:"local"`
	Namespace   string          `json:"namespace_id"`
	Created     wire.Time       `json:"creation_time"`
	Updated     wire.Time       `json:"last_update_time"`
}

func (s *Identities) alias(a *identity.Alias, owner string) Alias {
	path, kind, _ := s.store().Mount(a.Mount)
	return Alias{
		ID: a.ID, CanonicalID: owner, Name: a.Name, Mount: a.Mount, MountPath: path, MountType: kind,
		Metadata: pairs(a.Metadata), Custom: pairs(a.Custom), MergedFrom: a.MergedFrom, Namespace: s.namespace,
		Created: wire.Time{Time: a.Created}, Updated: wire.Time{Time: a.Updated},
	}
}

// pairs is null on the wire when there are none, as Vault has it.
func pairs(m map[string]string) *wire.StringMap {
	if m == nil {
		return nil
	}
	out := wire.StringMap(m)
	return &out
}

// plain returns a list that is [] on the wire when it is empty.
func plain(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// given returns what a request says of a field, nil when it says nothing.
func given[T any, W ~[]string | ~map[string]string](field *W, as func(W) T) *T {
	if field == nil {
		return nil
	}
	out := as(*field)
	return &out
}

func list(s wire.Strings) []string              { return s }
func object(m wire.StringMap) map[string]string { return m }

func marshal(v any) ([]byte, error) { return json.Marshal(v) }

// limit is how many names a page holds; 0 is all of them.
func limit(p route.Page) int { return max(0, int(p.Limit)) }
