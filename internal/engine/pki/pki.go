// Package pki is a certificate authority: keys that stay, issuers that sign with
// them, roles that say what certificates may be asked for, and what tells the world
// which certificates are revoked. What a role makes of a request is package role's,
// and keys are package key's.
package pki

import (
	"context"
	"crypto"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/config"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/pki/role"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Engine is the state of a mount.
type Engine struct {
	env   engine.Env
	roles rows.Book[role.Role]
	// last is the book as it was read last.
	last atomic.Pointer[book]
	// lastRoles are roles as they were read last, by name, with their rows.
	lastRoles sync.Map
	// signers are the keys, by id; they never change.
	signers sync.Map
	makers  makers
}

// Kind declares the engine.
var Kind = engine.Kind[struct{}, *Engine]{
	Name: "pki", Class: engine.Secret, Doc: "A certificate authority: certificates by role, revocation, and the lists and answers that tell of it.",
	Open: func(_ context.Context, env engine.Env, _ struct{}) (*Engine, error) {
		return &Engine{env: env, roles: rows.New[role.Role](env, roleRows)}, nil
	},
	Routes:  slices.Concat(rootRoutes, intermediateRoutes, keyRoutes, issuerRoutes, roleRoutes, issueRoutes, fetchRoutes, urlRoutes, revokeRoutes, crlConfigRoutes, listRoutes, ocspRoutes, tidyRoutes),
	Lending: &engine.Lending[*Engine]{Revoke: (*Engine).revokeLease},
	Due:     (*Engine).due,
}

// What rows are called below the mount.
const (
	bookRow  = "authorities"
	keyRows  = "key/"
	roleRows = "role/"
	certRows = "cert/"
	urlsRow  = "config/urls"
	siteRow  = "config/cluster"
)

// limits are what bounds the life of a certificate that is made now.
func (e *Engine) limits() role.Limits {
	l := role.Limits{DefaultTTL: e.env.Mount.DefaultTTL, MaxTTL: e.env.Mount.MaxTTL, Now: time.Now()}
	if l.DefaultTTL == 0 {
		l.DefaultTTL = config.DefaultLeaseTTL
	}
	if l.MaxTTL == 0 {
		l.MaxTTL = config.DefaultLeaseTTL
	}
	return l
}

// signer returns the private key of an id.
func (e *Engine) signer(ctx context.Context, id string) (crypto.Signer, error) {
	if id == "" {
		return nil, fault.New(fault.Invalid, "the issuer's key is not here: it was imported without one, or the key was deleted")
	}
	if s, ok := e.signers.Load(id); ok {
		return s.(crypto.Signer), nil
	}
	k, err := storage.LoadFrom[secretKey](ctx, e.env.Storage, keyRows+id)
	if err != nil {
		return nil, err
	}
	if k == nil {
		return nil, fault.New(fault.Invalid, "the key %s is gone", id)
	}
	s, err := k.signer()
	if err == nil {
		e.signers.Store(id, s)
	}
	return s, err
}

func (e *Engine) listRoles(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return e.roles.List(ctx, in)
}
