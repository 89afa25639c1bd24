package jwt

import (
	"context"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Terms are what a role demands of a token.
type Terms struct {
	RoleType        string         `json:"role_type"`
	BoundAudiences  wire.Strings   `json:"bound_audiences"`
	BoundSubject    string         `json:"bound_subject"`
	BoundClaims     BoundClaims    `json:"bound_claims"`
	BoundClaimsType string         `json:"bound_claims_type"`
	ClaimMappings   wire.StringMap `json:"claim_mappings"`
	UserClaim       string         `json:"user_claim"`
	UserPointer     bool           `json:"user_claim_json_pointer"`
	GroupsClaim     string         `json:"groups_claim"`
	ExpiryLeeway    wire.Seconds   `json:"expiration_leeway"`
	StartLeeway     wire.Seconds   `json:"not_before_leeway"`
	Skew            wire.Seconds   `json:"clock_skew_leeway"`
	MaxAge          wire.Seconds   `json:"max_age"`
	RedirectURIs    wire.Strings   `json:"allowed_redirect_uris"`
	Scopes          wire.Strings   `json:"oidc_scopes"`
	Verbose         bool           `json:"verbose_oidc_logging"` // always false
}

// older are parameters under names that Vault had before token_…, answered where
// they were written.
type older struct {
	Policies wire.Strings `json:"policies,omitempty"`
	NumUses  wire.Int     `json:"num_uses,omitzero"`
	TTL      wire.Seconds `json:"ttl,omitzero"`
	MaxTTL   wire.Seconds `json:"max_ttl,omitzero"`
	Period   wire.Seconds `json:"period,omitzero"`
	CIDRs    wire.Strings `json:"bound_cidrs,omitempty"`
}

// role is a role's row, and what is answered of it.
type role struct {
	Terms
	auth.TokenParams
	older
}

// Name names a role.
type Name struct {
	RoleName string `path:"name" doc:"The role's name, in any case."`
}

func (n Name) role() (string, error) { return auth.NameOf("role", n.RoleName) }

// WriteRole creates or changes a role.
type WriteRole struct {
	Name
	RoleType        *string         `json:"role_type" doc:"jwt: the caller brings a token. oidc, the standard: people log in in a browser."`
	BoundAudiences  *wire.Strings   `json:"bound_audiences" doc:"Audiences of which a token's aud must hold one. A token with an aud is refused by a role of type jwt that has none."`
	BoundSubject    *string         `json:"bound_subject" doc:"What sub must be."`
	BoundClaims     *BoundClaims    `json:"bound_claims" doc:"Claims, by name or JSON pointer, and the value or values of which they must have one."`
	BoundClaimsType *string         `json:"bound_claims_type" doc:"string, or glob: a * in a value of bound_claims stands for any characters."`
	ClaimMappings   *wire.StringMap `json:"claim_mappings" doc:"Claims, by name or JSON pointer, and the names under which they are put into the token's metadata."`
	UserClaim       *string         `json:"user_claim" doc:"The claim that says who the caller is."`
	UserPointer     *wire.Bool      `json:"user_claim_json_pointer" doc:"Whether user_claim is a JSON pointer."`
	GroupsClaim     *string         `json:"groups_claim" doc:"The claim, by name or JSON pointer, that lists the caller's groups."`
	ExpiryLeeway    *wire.Seconds   `json:"expiration_leeway" doc:"How long a token without exp is good for after its iat or nbf; 0 is 150 seconds, negative none."`
	StartLeeway     *wire.Seconds   `json:"not_before_leeway" doc:"How long before its exp a token without iat and nbf begins; 0 is 150 seconds, negative any time."`
	Skew            *wire.Seconds   `json:"clock_skew_leeway" doc:"How far the issuer's clock and this server's may be apart; 0 is 60 seconds, negative not at all."`
	MaxAge          *wire.Seconds   `json:"max_age" doc:"How long ago people may have proven themselves to the provider; 0 is any time."`
	RedirectURIs    *wire.Strings   `json:"allowed_redirect_uris" doc:"Addresses to which the provider may send the browser back. Ports of localhost are not compared."`
	Scopes          *wire.Strings   `json:"oidc_scopes" doc:"What the provider is asked for besides openid."`
	Verbose         wire.Bool       `json:"verbose_oidc_logging" doc:"Not done: claims are not logged."`
	auth.TokenFields
	OldPolicies *wire.Strings `json:"policies" doc:"An older name of token_policies."`
	OldNumUses  *wire.Int     `json:"num_uses" doc:"An older name of token_num_uses."`
	OldTTL      *wire.Seconds `json:"ttl" doc:"An older name of token_ttl."`
	OldMaxTTL   *wire.Seconds `json:"max_ttl" doc:"An older name of token_max_ttl."`
	OldPeriod   *wire.Seconds `json:"period" doc:"An older name of token_period."`
	OldCIDRs    *wire.Strings `json:"bound_cidrs" doc:"An older name of token_bound_cidrs."`
}

// The types of roles.
const (
	typeJWT  = "jwt"
	typeOIDC = "oidc"
)

func assign[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

// apply changes what the request names.
func (in WriteRole) apply(o *role) error {
	assign(&o.RoleType, in.RoleType)
	assign(&o.BoundAudiences, in.BoundAudiences)
	assign(&o.BoundSubject, in.BoundSubject)
	assign(&o.BoundClaims, in.BoundClaims)
	assign(&o.BoundClaimsType, in.BoundClaimsType)
	assign(&o.ClaimMappings, in.ClaimMappings)
	assign(&o.UserClaim, in.UserClaim)
	assign(&o.UserPointer, (*bool)(in.UserPointer))
	assign(&o.GroupsClaim, in.GroupsClaim)
	assign(&o.ExpiryLeeway, in.ExpiryLeeway)
	assign(&o.StartLeeway, in.StartLeeway)
	assign(&o.Skew, in.Skew)
	assign(&o.MaxAge, in.MaxAge)
	assign(&o.RedirectURIs, in.RedirectURIs)
	assign(&o.Scopes, in.Scopes)
	auth.Renamed(&in.PolicyNames, in.OldPolicies, &o.older.Policies)
	auth.Renamed(&in.TokenFields.NumUses, in.OldNumUses, &o.older.NumUses)
	auth.Renamed(&in.TokenFields.TTL, in.OldTTL, &o.older.TTL)
	auth.Renamed(&in.TokenFields.MaxTTL, in.OldMaxTTL, &o.older.MaxTTL)
	auth.Renamed(&in.TokenFields.Period, in.OldPeriod, &o.older.Period)
	auth.Renamed(&in.BoundCIDRs, in.OldCIDRs, &o.CIDRs)
	if err := in.TokenFields.Apply(&o.TokenParams); err != nil {
		return err
	}
	if o.older.Policies != nil {
		o.older.Policies = o.PolicyNames
	}
	return o.check()
}

// check refuses a role that cannot be, or that would let everybody in whom the
// issuer knows.
func (o *role) check() error {
	if o.RoleType == "" {
		o.RoleType = typeOIDC
	}
	if o.BoundClaimsType == "" {
		o.BoundClaimsType = "string"
	}
	switch {
	case o.RoleType != typeJWT && o.RoleType != typeOIDC:
		return fault.New(fault.Invalid, "invalid 'role_type': %s", o.RoleType)
	case o.BoundClaimsType != "string" && o.BoundClaimsType != "glob":
		return fault.New(fault.Invalid, "invalid 'bound_claims_type': %s", o.BoundClaimsType)
	case o.UserClaim == "":
		return fault.New(fault.Invalid, "a user claim must be defined on the role")
	case o.RoleType == typeOIDC && len(o.RedirectURIs) == 0:
		return fault.New(fault.Invalid, "'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.")
	case o.RoleType == typeJWT && len(o.BoundAudiences) == 0 && len(o.BoundCIDRs) == 0 && o.BoundSubject == "" && len(o.BoundClaims) == 0:
		return fault.New(fault.Invalid, "must have at least one bound constraint when creating/updating a role")
	case o.MaxAge < 0:
		return fault.New(fault.Invalid, "'max_age' cannot be negative")
	}
	if o.BoundClaimsType == "glob" {
		if err := o.BoundClaims.texts(); err != nil {
			return err
		}
	}
	var used []string
	for _, name := range o.ClaimMappings {
		switch {
		case name == "role":
			return fault.New(fault.Invalid, "metadata key %q is reserved and may not be a mapping destination", name)
		case slices.Contains(used, name):
			return fault.New(fault.Invalid, "multiple keys are mapped to metadata key %q", name)
		}
		used = append(used, name)
	}
	for _, uri := range o.RedirectURIs {
		if _, err := parseRedirect(uri); err != nil {
			return fault.New(fault.Invalid, "allowed_redirect_uris: %s", err)
		}
	}
	return nil
}

// The standards of Vault.
const (
	usualLeeway = 150 * time.Second
	usualSkew   = 60 * time.Second
)

// leeway is a role's leeway: its standard where it is 0, none where it is negative.
func leeway(set wire.Seconds, usual time.Duration) time.Duration {
	switch {
	case set == 0:
		return usual
	case set < 0:
		return 0
	}
	return set.Duration()
}

func (m *Method) list(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return engine.Names(ctx, m.storage, rolePrefix, in)
}

// role returns a role, nil when there is none.
func (m *Method) role(ctx context.Context, n Name) (*role, error) {
	name, err := n.role()
	if err != nil {
		return nil, err
	}
	return lately[role](ctx, m, rolePrefix+name)
}

func (m *Method) exists(ctx context.Context, in WriteRole) (bool, error) {
	o, err := m.role(ctx, in.Name)
	return o != nil, err
}

// ReadRole is a role.
type ReadRole struct{ role }

func (m *Method) readRole(ctx context.Context, _ route.Caller, in Name) (ReadRole, error) {
	o, err := m.role(ctx, in)
	if err != nil {
		return ReadRole{}, err
	}
	if o == nil {
		return ReadRole{}, route.Missing()
	}
	return ReadRole{*o}, nil
}

func (m *Method) writeRole(ctx context.Context, _ route.Caller, in WriteRole) (out route.Empty, err error) {
	name, err := in.Name.role()
	if err != nil {
		return out, err
	}
	if in.Verbose {
		out.Warn("verbose_oidc_logging is not done: what a token claims is not logged")
	}
	_, err = m.storage.Update(ctx, func(t storage.Txn) error {
		o, err := storage.Load[role](t, rolePrefix+name)
		if err != nil {
			return err
		}
		if o == nil {
			o = new(role)
		}
		if err := in.apply(o); err != nil {
			return err
		}
		return storage.Save(t, rolePrefix+name, o)
	})
	return out, err
}

func (m *Method) removeRole(ctx context.Context, _ route.Caller, in Name) (route.Empty, error) {
	name, err := in.role()
	if err != nil {
		return route.Empty{}, err
	}
	_, err = m.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(rolePrefix + name) })
	return route.Empty{}, err
}
