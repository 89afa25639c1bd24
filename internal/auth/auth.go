// Package auth is the contract of the methods by which a caller proves who it
// is. A method is an engine.Kind of class engine.Auth; a route of it that logs
// in answers a Login, of which the gateway makes a token. Only the gateway
// mints tokens.
package auth

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Login is a proven identity and the token it asks for.
type Login struct {
	route.Notes
	Alias       string            // the name by which the method knows the caller: the username
	Groups      []string          // groups that the method's source says the caller is in, by the names it knows them by
	DisplayName string            // for logs: "userpass-bob"
	Policies    []string          // without "default", which the gateway adds unless NoDefault
	Metadata    map[string]string // shown in lookups and logs; never secret
	// AliasMetadata is what identity keeps of the alias, for templates of policies;
	// nil keeps Metadata.
	AliasMetadata map[string]string
	// Binding is what the method needs at a renewal to know the caller again; it is
	// kept with the token and shown nowhere.
	Binding string
	TokenParams
}

// TokenParams are the token_* parameters that every method's roles or users
// take, in Vault's names. Embed it in a request and in a stored record.
type TokenParams struct {
	TTL         wire.Seconds `json:"token_ttl" doc:"How long a token lives before it must be renewed."`
	MaxTTL      wire.Seconds `json:"token_max_ttl" doc:"How long a token lives at most, renewals included."`
	ExplicitMax wire.Seconds `json:"token_explicit_max_ttl" doc:"A hard end that later configuration cannot extend."`
	Period      wire.Seconds `json:"token_period" doc:"Makes the token periodic: each renewal starts this long anew, without a maximum."`
	NumUses     wire.Int     `json:"token_num_uses" doc:"How many requests the token may make; 0 is any number."`
	BoundCIDRs  wire.Strings `json:"token_bound_cidrs" doc:"Networks from which login and token are accepted."`
	Type        string       `json:"token_type" doc:"default, service or batch."`
	NoDefault   wire.Bool    `json:"token_no_default_policy" doc:"Leave the policy default out."`
	PolicyNames wire.Strings `json:"token_policies" doc:"Policies of the token."`
}

// Renewer is a method that decides whether a token it once granted may still be
// renewed: a user that was deleted may not.
type Renewer interface {
	// Renew gets who asks and the login as it was granted, and returns it as it
	// would be granted now, or a fault.Denied.
	Renew(ctx context.Context, by route.Caller, login Login) (Login, error)
}

// DefaultLifetime is the server's default_lease_ttl and max_lease_ttl unless
// configured: 32 days, as Vault has it.
const DefaultLifetime = 768 * time.Hour
