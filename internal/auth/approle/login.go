package approle

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Login asks to log in.
type Login struct {
	RoleID   wire.Secret `json:"role_id" doc:"The role's id."`
	SecretID wire.Secret `json:"secret_id" doc:"A secret id of the role, unless the role needs none."`
}

// errLogin does not tell which of the two was wrong.
func errLogin() error { return fault.New(fault.Invalid, "invalid role or secret ID") }

func (r *Roles) login(ctx context.Context, by route.Caller, in Login) (auth.Login, error) {
	roleID, secretID := trimmed(in.RoleID), trimmed(in.SecretID)
	if roleID == "" {
		return auth.Login{}, fault.New(fault.Invalid, "missing role_id")
	}
	p := proof{r: r, from: by.Remote.Unmap(), roleID: roleID, secretID: secretID}
	if err := r.storage.View(ctx, p.look); err != nil {
		return auth.Login{}, err
	}
	if p.secret != nil && p.secret.Uses > 0 {
		if _, err := r.storage.Update(ctx, p.use); err != nil {
			return auth.Login{}, err
		}
	}
	out := auth.Login{
		Alias: p.role.RoleID, DisplayName: r.method, Policies: p.role.PolicyNames,
		Metadata: map[string]string{}, TokenParams: p.role.TokenParams,
	}
	if p.secret != nil {
		maps.Copy(out.Metadata, p.secret.Metadata)
		if len(p.secret.TokenCIDRs) > 0 {
			out.BoundCIDRs = p.secret.TokenCIDRs
		}
	}
	out.Metadata["role_name"] = p.role.name
	return out, nil
}

// proof is a login on its way.
type proof struct {
	r                *Roles
	from             netip.Addr
	roleID, secretID string

	role   *role
	secret *secret // nil where the role needs none
}

// look finds the role and the secret id, and refuses a login that they do not
// allow. Somebody who knows neither learns nothing about which roles there are.
func (p *proof) look(t storage.Reader) error {
	p.role, p.secret = nil, nil
	name, err := storage.Load[string](t, p.r.roleIDKey(p.roleID))
	if err != nil {
		return err
	}
	if name != nil {
		if p.role, err = getRole(t, *name); err != nil {
			return err
		}
	}
	if p.role != nil && p.role.RoleID != p.roleID {
		p.role = nil
	}
	switch {
	case p.secretID == "" && (p.role == nil || p.role.BindSecretID):
		return fault.New(fault.Invalid, "missing secret_id")
	case p.role == nil:
		return errLogin()
	}
	if p.role.BindSecretID {
		if p.secret, err = storage.Load[secret](t, p.role.secretKey(p.r.secretName(p.secretID))); err != nil {
			return err
		}
		if p.secret == nil || p.secret.ended(time.Now()) {
			return errLogin()
		}
		if err := p.within(p.secret.CIDRs, "secret ID"); err != nil {
			return err
		}
	}
	return p.within(p.role.SecretIDCIDRs, "role")
}

// within refuses a login from elsewhere.
func (p *proof) within(networks wire.Strings, whose string) error {
	accepted, err := wire.Accepts(networks, p.from)
	if err != nil {
		return err
	}
	if !accepted {
		return fault.New(fault.Invalid, "source address %q unauthorized through CIDR restrictions on the %s", p.from, whose)
	}
	return nil
}

// use looks once more and takes one of the secret id's uses.
func (p *proof) use(t storage.Txn) error {
	if err := p.look(t); err != nil || p.secret == nil || p.secret.Uses == 0 {
		return err
	}
	key := p.role.secretKey(p.r.secretName(p.secretID))
	if p.secret.Uses == 1 {
		if err := t.Delete(p.role.accessorKey(p.secret.Accessor)); err != nil {
			return err
		}
		return t.Delete(key)
	}
	left := *p.secret
	left.Uses, left.Updated = left.Uses-1, time.Now().UTC()
	return storage.Save(t, key, left)
}

// Renew implements auth.Renewer: a token whose role was deleted is not renewed.
func (r *Roles) Renew(ctx context.Context, _ route.Caller, granted auth.Login) (auth.Login, error) {
	o, err := r.find(ctx, Name{granted.Metadata["role_name"]})
	switch {
	case err != nil:
		return granted, err
	case o == nil:
		return granted, fault.New(fault.Denied, "the role was deleted, not renewing")
	}
	granted.TTL, granted.MaxTTL, granted.Period = o.TTL, o.MaxTTL, o.Period
	return granted, nil
}
