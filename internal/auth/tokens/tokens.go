// Package tokens is auth/token: the routes by which tokens make, show, renew and
// revoke tokens, in the shapes of Vault's API. What a token is and how long it
// holds is package token's; that a login becomes a token is the gateway's.
//
// Tokens are taken from the body only. Vault's older spellings that put one into
// the path (renew/TOKEN) are not there: a path stands in logs.
package tokens

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
)

// Granter is the auth mount that granted a token, as it is now.
type Granter struct {
	State              any // the mount's opened state; an auth.Renewer is asked
	DefaultTTL, MaxTTL time.Duration
}

// Options are what the routes need.
type Options struct {
	Store *token.Store // the root's
	// Granter returns the auth mount that granted a token; false when it was
	// disabled.
	Granter func(tok *token.Token) (Granter, bool)
	// HasPolicy reports whether a policy of that name exists in a namespace.
	HasPolicy func(ctx context.Context, namespace, name string) (bool, error)
	// IdentityPolicies returns the policies that a token's entity adds to its own.
	IdentityPolicies func(ctx context.Context, tok *token.Token) ([]string, error)
}

// Tokens answers the routes.
type Tokens struct {
	Options
	mount     string // "auth/token/"
	namespace string // by its id
}

// none has no options.
type none struct{}

// Kind declares auth/token.
func Kind(o Options) engine.Kind[none, *Tokens] {
	return engine.Kind[none, *Tokens]{
		Name: "token", Doc: "Tokens: create, look up, renew, revoke, and roles by which they are made.", Class: engine.System,
		Open: func(_ context.Context, env engine.Env, _ none) (*Tokens, error) {
			t := &Tokens{Options: o, mount: env.Mount.Path, namespace: env.Mount.Namespace}
			if o.Store != nil {
				t.Store = o.Store.In(t.namespace)
			}
			return t, nil
		},
		Routes: append(append(append([]route.Route[*Tokens]{}, createRoutes...), lifeRoutes...), roleRoutes...),
	}
}

// sudo reports whether the caller may create any token: it holds the root policy
// or sudo on the path.
func (t *Tokens) sudo(by route.Caller, below string) bool {
	return by.Root || by.Can(policy.Sudo, t.mount+below)
}

// terms asks the auth method that granted a token whether it may be renewed, and
// for how long. nil is for a token that no method granted.
func (t *Tokens) terms(ctx context.Context, by route.Caller, tok *token.Token) (*lifetime.Terms, error) {
	if tok.Mount == "" {
		return nil, nil
	}
	g, ok := t.Granter(tok)
	if !ok {
		return nil, fault.New(fault.Denied, "the auth method that granted the token was disabled")
	}
	terms := tok.Terms
	terms.MountDefault, terms.MountMax = g.DefaultTTL, g.MaxTTL
	method, ok := g.State.(auth.Renewer)
	if !ok || len(tok.Login) == 0 {
		return &terms, nil
	}
	var login auth.Login
	if err := json.Unmarshal(tok.Login, &login); err != nil {
		return nil, fmt.Errorf("the login that a token was granted for cannot be read: %w", err)
	}
	login, err := method.Renew(ctx, by, login)
	if err != nil {
		return nil, err
	}
	terms.TTL, terms.MaxTTL, terms.Period = login.TTL.Duration(), login.MaxTTL.Duration(), login.Period.Duration()
	return &terms, nil
}
