package jwt

import (
	"context"
	"errors"
	"strings"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Login asks to log in with a token.
type Login struct {
	Role string      `json:"role" doc:"The role to log in as; the configured default without."`
	JWT  wire.Secret `json:"jwt" doc:"The token."`
}

func (m *Method) login(ctx context.Context, _ route.Caller, in Login) (auth.Login, error) {
	c, i, err := m.trust(ctx)
	if err != nil {
		return auth.Login{}, err
	}
	name, o, err := m.chosen(ctx, c, in.Role)
	if err != nil {
		return auth.Login{}, err
	}
	token := strings.TrimSpace(in.JWT.Reveal()) // a file's line break
	switch {
	case o.RoleType == typeOIDC:
		return auth.Login{}, fault.New(fault.Invalid, "role with oidc role_type is not allowed")
	case token == "":
		return auth.Login{}, fault.New(fault.Invalid, "missing token")
	}
	claims, err := i.Verify(ctx, token, o.expect(c))
	if err != nil {
		return auth.Login{}, told("error validating token: ", err)
	}
	if audience, ok := claims.Texts("aud"); len(o.BoundAudiences) == 0 && (!ok || len(audience) > 0) {
		return auth.Login{}, fault.New(fault.Invalid, "audience claim found in JWT but no audiences bound to the role")
	}
	return m.identify(name, o, claims)
}

// told puts what was being done before what is wrong with a token. An issuer that
// cannot be asked is not the token's fault, and stays what it is.
func told(doing string, err error) error {
	var reason issuer.Reason
	if !errors.As(err, &reason) {
		return err
	}
	return fault.Wrap(fault.Invalid, reason, "%s%s", doing, fault.From(err).Message)
}

// chosen returns the role that a login names, or the default, by its name.
func (m *Method) chosen(ctx context.Context, c *config, asked string) (string, *role, error) {
	if asked == "" {
		asked = c.DefaultRole
	}
	if asked == "" {
		return "", nil, fault.New(fault.Invalid, "missing role")
	}
	name, err := auth.NameOf("role", asked)
	if err != nil {
		return "", nil, err
	}
	o, err := lately[role](ctx, m, rolePrefix+name)
	if err == nil && o == nil {
		err = fault.New(fault.Invalid, "role %q could not be found", name)
	}
	return name, o, err
}

// expect is what a role and the configuration demand of a token.
func (o *role) expect(c *config) issuer.Expect {
	return issuer.Expect{
		Issuer: c.BoundIssuer, Subject: o.BoundSubject, Audiences: o.BoundAudiences, Algorithms: c.Algorithms,
		Skew: leeway(o.Skew, usualSkew), ExpiryAfter: leeway(o.ExpiryLeeway, usualLeeway), StartBefore: leeway(o.StartLeeway, usualLeeway),
	}
}

// identify makes the login of what a verified token claims, if the role accepts it.
func (m *Method) identify(name string, o *role, claims issuer.Claims) (auth.Login, error) {
	if err := o.BoundClaims.met(claims, o.BoundClaimsType == "glob"); err != nil {
		return auth.Login{}, fault.New(fault.Invalid, "error validating claims: %s", err)
	}
	user, err := o.user(claims)
	if err != nil {
		return auth.Login{}, err
	}
	metadata := map[string]string{}
	for from, to := range o.ClaimMappings {
		value := claims.Find(from)
		if value == nil {
			continue
		}
		text, ok := text(value)
		if !ok {
			return auth.Login{}, fault.New(fault.Invalid, "error converting claim '%s' to string", from)
		}
		metadata[to] = text
	}
	metadata["role"] = name
	groups, err := o.groups(claims)
	if err != nil {
		return auth.Login{}, err
	}
	return auth.Login{
		Alias: user, Groups: groups, DisplayName: m.method + "-" + user, Policies: o.PolicyNames,
		Metadata: metadata, AliasMetadata: metadata, TokenParams: o.TokenParams,
	}, nil
}

const maxUser = 1024 // bytes of who somebody is

// user is who the claims say the caller is.
func (o *role) user(claims issuer.Claims) (string, error) {
	found := claims[o.UserClaim]
	if o.UserPointer {
		found = claims.Find(o.UserClaim)
	}
	user, ok := found.(string)
	switch {
	case found == nil:
		return "", fault.New(fault.Invalid, "claim %q not found in token", o.UserClaim)
	case !ok:
		return "", fault.New(fault.Invalid, "claim %q could not be converted to string", o.UserClaim)
	case user == "" || len(user) > maxUser:
		return "", fault.New(fault.Invalid, "claim %q is empty or has more than %d bytes", o.UserClaim, maxUser)
	}
	return user, nil
}

// groups are those that the claims say the caller is in.
func (o *role) groups(claims issuer.Claims) ([]string, error) {
	if o.GroupsClaim == "" {
		return nil, nil
	}
	if claims.Find(o.GroupsClaim) == nil {
		return nil, fault.New(fault.Invalid, "%q claim not found in token", o.GroupsClaim)
	}
	list, ok := claims.Texts(o.GroupsClaim)
	if !ok {
		return nil, fault.New(fault.Invalid, "%q claim could not be converted to string list", o.GroupsClaim)
	}
	var groups []string
	for _, group := range list {
		if group != "" {
			groups = append(groups, group)
		}
	}
	return groups, nil
}

// Renew implements auth.Renewer: a token whose role was deleted is not renewed.
func (m *Method) Renew(ctx context.Context, _ route.Caller, granted auth.Login) (auth.Login, error) {
	o, err := m.role(ctx, Name{granted.Metadata["role"]})
	switch {
	case err != nil:
		return granted, err
	case o == nil:
		return granted, fault.New(fault.Denied, "the role was deleted, not renewing")
	}
	granted.TTL, granted.MaxTTL, granted.Period = o.TokenParams.TTL, o.TokenParams.MaxTTL, o.TokenParams.Period
	return granted, nil
}
