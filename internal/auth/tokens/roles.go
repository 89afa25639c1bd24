package tokens

import (
	"context"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

var roleRoutes = []route.Route[*Tokens]{
	route.New("LIST", "roles", "List the roles.", (*Tokens).roles,
		route.Shows("roles", "", `{"keys":["ci"]}`)),
	route.New("GET", "roles/{role}", "Read a role.", (*Tokens).readRole,
		route.Shows("roles/ci", "", "")),
	route.New("POST", "roles/{role}", "Write a role; what is left out stays as it is.", (*Tokens).writeRole, route.ExistsBy((*Tokens).roleExists),
		route.Shows("roles/ci", `{"allowed_policies":"deploy","orphan":true,"token_period":"1h"}`, "")),
	route.New("DELETE", "roles/{role}", "Delete a role. Its tokens live on, and cannot be renewed.", (*Tokens).deleteRole,
		route.Shows("roles/ci", "", "")),
}

// OfRole names a role.
type OfRole struct {
	Role string `path:"role" doc:"The role's name."`
}

// WriteRole is what changes in a role.
type WriteRole struct {
	Role                   string        `path:"role" doc:"The role's name."`
	AllowedPolicies        *wire.Strings `json:"allowed_policies" doc:"Policies that tokens may have, whatever those of their creator; where the request names none, they have them all."`
	AllowedPoliciesGlob    *wire.Strings `json:"allowed_policies_glob" doc:"Globs of policies that tokens may have."`
	DisallowedPolicies     *wire.Strings `json:"disallowed_policies" doc:"Policies that tokens may not have."`
	DisallowedPoliciesGlob *wire.Strings `json:"disallowed_policies_glob" doc:"Globs of policies that tokens may not have."`
	AllowedEntityAliases   *wire.Strings `json:"allowed_entity_aliases" doc:"Entity aliases that tokens may be made for."`
	Orphan                 *wire.Bool    `json:"orphan" doc:"Tokens have no parent."`
	Renewable              *wire.Bool    `json:"renewable" doc:"Tokens may be renewed; true unless it is written."`
	PathSuffix             *string       `json:"path_suffix" doc:"Stands at the end of the tokens' creation path."`
	Period                 *wire.Seconds `json:"period" doc:"An older name of token_period."`
	ExplicitMaxTTL         *wire.Seconds `json:"explicit_max_ttl" doc:"An older name of token_explicit_max_ttl."`
	BoundCIDRs             *wire.Strings `json:"bound_cidrs" doc:"An older name of token_bound_cidrs."`
	TokenPeriod            *wire.Seconds `json:"token_period" doc:"Tokens are periodic: each renewal starts this long anew."`
	TokenExplicitMaxTTL    *wire.Seconds `json:"token_explicit_max_ttl" doc:"Tokens end after this long, whatever happens."`
	TokenBoundCIDRs        *wire.Strings `json:"token_bound_cidrs" doc:"Networks from which tokens are accepted."`
	TokenNumUses           *wire.Int     `json:"token_num_uses" doc:"How often tokens may be used; 0 is any number."`
	TokenNoDefaultPolicy   *wire.Bool    `json:"token_no_default_policy" doc:"Tokens do not get the policy default."`
	TokenType              *string       `json:"token_type" doc:"default-service, default-batch, service or batch."`
}

func (t *Tokens) roles(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	names, err := t.Store.Roles(ctx, in.After, limit(in))
	if err != nil {
		return route.Keys{}, err
	}
	return route.Keys{Keys: names}.Found()
}

func (t *Tokens) readRole(ctx context.Context, _ route.Caller, in OfRole) (*token.Role, error) {
	role, err := t.Store.Role(ctx, in.Role)
	if fault.Is(err, fault.NotFound) {
		return nil, route.Missing()
	}
	return role, err
}

func (t *Tokens) roleExists(ctx context.Context, in WriteRole) (bool, error) {
	_, err := t.Store.Role(ctx, in.Role)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

func (t *Tokens) writeRole(ctx context.Context, _ route.Caller, in WriteRole) (route.Empty, error) {
	var out route.Empty
	warnings, err := t.Store.ChangeRole(ctx, in.Role, func(r token.Role, _ bool) (token.Role, error) {
		in.apply(&r)
		return r, nil
	})
	out.Warnings = append(in.deprecated(), warnings...)
	return out, err
}

// apply sets what the request names. A name with token_ wins over its older form
// and clears it.
func (in WriteRole) apply(r *token.Role) {
	assign(&r.AllowedPolicies, in.AllowedPolicies)
	assign(&r.AllowedPoliciesGlob, in.AllowedPoliciesGlob)
	assign(&r.DisallowedPolicies, in.DisallowedPolicies)
	assign(&r.DisallowedPoliciesGlob, in.DisallowedPoliciesGlob)
	assign(&r.AllowedEntityAliases, in.AllowedEntityAliases)
	assign(&r.Orphan, (*bool)(in.Orphan))
	assign(&r.Renewable, (*bool)(in.Renewable))
	assign(&r.PathSuffix, in.PathSuffix)
	assign(&r.TokenNumUses, in.TokenNumUses)
	assign(&r.TokenNoDefaultPolicy, (*bool)(in.TokenNoDefaultPolicy))
	assign(&r.TokenType, in.TokenType)
	renamed(&r.TokenPeriod, &r.Period, in.TokenPeriod, in.Period)
	renamed(&r.TokenExplicitMaxTTL, &r.ExplicitMaxTTL, in.TokenExplicitMaxTTL, in.ExplicitMaxTTL)
	renamed(&r.TokenBoundCIDRs, &r.BoundCIDRs, in.TokenBoundCIDRs, in.BoundCIDRs)
}

func assign[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

func renamed[T any](dst, dstOld, src, srcOld *T) {
	switch {
	case src != nil:
		var none T
		*dst, *dstOld = *src, none
	case srcOld != nil:
		*dst, *dstOld = *srcOld, *srcOld
	}
}

// deprecated warns where a field came by both of its names.
func (in WriteRole) deprecated() (warnings []string) {
	both := func(name string, twice bool) {
		if twice {
			warnings = append(warnings, "Both 'token_"+name+"' and deprecated '"+name+"' value supplied, ignoring the deprecated value")
		}
	}
	both("period", in.TokenPeriod != nil && in.Period != nil)
	both("explicit_max_ttl", in.TokenExplicitMaxTTL != nil && in.ExplicitMaxTTL != nil)
	both("bound_cidrs", in.TokenBoundCIDRs != nil && in.BoundCIDRs != nil)
	return warnings
}

func (t *Tokens) deleteRole(ctx context.Context, _ route.Caller, in OfRole) (route.Empty, error) {
	return route.Empty{}, t.Store.DeleteRole(ctx, in.Role)
}
