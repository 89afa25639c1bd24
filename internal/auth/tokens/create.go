package tokens

import (
	"context"
	"fmt"

	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

var createRoutes = []route.Route[*Tokens]{
	route.New("POST", "create", "Create a token below the calling one.", (*Tokens).create,
		route.Shows("create", `{"policies":["web"],"ttl":"1h"}`, "")),
	route.New("POST", "create-orphan", "Create a token that has no parent.", (*Tokens).createOrphan,
		route.Shows("create-orphan", `{"policies":["web"],"ttl":"1h"}`, "")),
	route.New("POST", "create/{role}", "Create a token by a role.", (*Tokens).createByRole,
		route.Shows("create/ci", `{"ttl":"15m"}`, "")),
}

// Create asks for a token.
type Create struct {
	ID              wire.Secret    `json:"id" doc:"The token itself, chosen by a caller with root or sudo."`
	Policies        wire.Strings   `json:"policies" doc:"Its policies: some of the caller's, unless the caller has sudo or a role says otherwise; left out, the caller's."`
	NoDefaultPolicy wire.Bool      `json:"no_default_policy" doc:"Leave the policy default out."`
	NoParent        wire.Bool      `json:"no_parent" doc:"Create an orphan; needs root or sudo."`
	Meta            wire.StringMap `json:"meta" doc:"Shown in lookups and the audit log; never secret."`
	DisplayName     string         `json:"display_name" doc:"For lookups and the audit log; token- is put before it."`
	Type            string         `json:"type" doc:"service or batch."`
	Renewable       *wire.Bool     `json:"renewable" doc:"Whether it may be renewed; left out, it may."`
	NumUses         wire.Int       `json:"num_uses" doc:"How many requests it may make; 0 is any number."`
	TTL             wire.Seconds   `json:"ttl" doc:"How long it lives; left out, the server's default."`
	Lease           wire.Seconds   `json:"lease" doc:"An older name of ttl."`
	ExplicitMaxTTL  wire.Seconds   `json:"explicit_max_ttl" doc:"After this long it ends, whatever happens."`
	Period          wire.Seconds   `json:"period" doc:"Each renewal starts this long anew; needs root or sudo."`
}

// CreateByRole asks for a token by a role.
type CreateByRole struct {
	Role string `path:"role" doc:"The role's name."`
	Create
}

func (t *Tokens) create(ctx context.Context, by route.Caller, in Create) (*token.Issued, error) {
	return t.derive(ctx, by, in, "create", "")
}

func (t *Tokens) createOrphan(ctx context.Context, by route.Caller, in Create) (*token.Issued, error) {
	return t.derive(ctx, by, in, "create-orphan", "")
}

func (t *Tokens) createByRole(ctx context.Context, by route.Caller, in CreateByRole) (*token.Issued, error) {
	return t.derive(ctx, by, in.Create, "create/"+in.Role, in.Role)
}

func (t *Tokens) derive(ctx context.Context, by route.Caller, in Create, below, role string) (*token.Issued, error) {
	parent, err := t.Store.Self(ctx, by.Token)
	if err != nil {
		return nil, err
	}
	ttl := in.TTL
	if ttl == 0 {
		ttl = in.Lease
	}
	out, err := t.Store.Derive(ctx, parent, token.Ask{
		ID: in.ID.Reveal(), Policies: in.Policies, NoDefaultPolicy: bool(in.NoDefaultPolicy),
		NoParent: bool(in.NoParent), Orphan: below == "create-orphan", Meta: in.Meta, DisplayName: in.DisplayName,
		Type: in.Type, Renewable: in.Renewable == nil || bool(*in.Renewable), NumUses: int(in.NumUses),
		TTL: ttl.Duration(), ExplicitMax: in.ExplicitMaxTTL.Duration(), Period: in.Period.Duration(),
		Path: t.mount + below, Role: role, Sudo: t.sudo(by, below),
	})
	if err != nil {
		return nil, err
	}
	for _, name := range out.Token.Policies {
		found, err := t.HasPolicy(ctx, t.namespace, name)
		if err != nil {
			return nil, err
		}
		if !found {
			out.Warn(fmt.Sprintf("Policy %q does not exist", name))
		}
	}
	return out, nil
}
