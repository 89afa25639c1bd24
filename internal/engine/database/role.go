package database

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/database/plugin"
	"github.com/cofferhq/coffer/internal/engine/database/username"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var roleRoutes = []route.Route[*Engine]{
	route.New("LIST", "roles", "List the roles.", (*Engine).listRoles,
		route.Shows("roles", "", "")),
	route.New("GET", "roles/{name}", "Read a role.", (*Engine).readRole,
		route.Shows("roles/orders-read", "", "")),
	route.New("POST", "roles/{name}", "Create or change a role.", (*Engine).writeRole, route.ExistsBy((*Engine).roleExists),
		route.Shows("roles/orders-read", `{"db_name":"orders","creation_statements":["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'","GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\""],"default_ttl":"1h","max_ttl":"24h"}`, "")),
	route.New("DELETE", "roles/{name}", "Remove a role. What it lent stays until its leases end.", (*Engine).removeRole,
		route.Shows("roles/orders-read", "", "")),
	route.New("GET", "creds/{name}", "Lend an account of the database.", (*Engine).creds, route.Changes(),
		route.Shows("creds/orders-read", "", "")),
}

// role is the row of a role.
type role struct {
	DB         string       `json:"db_name"`
	Creation   Statements   `json:"creation_statements"`
	Revocation Statements   `json:"revocation_statements"`
	Rollback   Statements   `json:"rollback_statements"`
	Renewal    Statements   `json:"renew_statements"`
	DefaultTTL wire.Seconds `json:"default_ttl"`
	MaxTTL     wire.Seconds `json:"max_ttl"`
	Type       string       `json:"credential_type"`
	Config     *passwordBy  `json:"credential_config,omitempty"`
}

// passwordBy is how a role's passwords are made.
type passwordBy struct {
	Policy string `json:"password_policy,omitempty"`
}

const typePassword = "password"

// WriteRole creates or changes a role.
type WriteRole struct {
	Named
	DB         *string         `json:"db_name" doc:"The connection."`
	Creation   *Statements     `json:"creation_statements" doc:"Statements that make an account, with {{name}}, {{password}} and {{expiration}}."`
	Revocation *Statements     `json:"revocation_statements" doc:"Statements that drop it; the plugin's own unless given."`
	Rollback   *Statements     `json:"rollback_statements" doc:"Statements that are run when making it failed half-way."`
	Renewal    *Statements     `json:"renew_statements" doc:"Statements that make it last until {{expiration}}; the plugin's own unless given."`
	DefaultTTL *wire.Seconds   `json:"default_ttl" doc:"How long it is lent; the mount's unless given."`
	MaxTTL     *wire.Seconds   `json:"max_ttl" doc:"How long at most, renewals included; the mount's unless given."`
	Type       *string         `json:"credential_type" doc:"password, which is the only one."`
	Config     *wire.StringMap `json:"credential_config" doc:"password_policy: the policy by which its passwords are made; the connection's unless given."`
}

func (in WriteRole) apply(r *role) error {
	rows.Set(&r.DB, in.DB)
	rows.Set(&r.Creation, in.Creation)
	rows.Set(&r.Revocation, in.Revocation)
	rows.Set(&r.Rollback, in.Rollback)
	rows.Set(&r.Renewal, in.Renewal)
	rows.Set(&r.DefaultTTL, in.DefaultTTL)
	rows.Set(&r.MaxTTL, in.MaxTTL)
	rows.Set(&r.Type, in.Type)
	r.Type = cmp.Or(r.Type, typePassword)
	var err error
	if in.Config != nil {
		r.Config, err = passwordsBy(*in.Config)
	}
	switch {
	case err != nil:
		return err
	case r.DB == "":
		return fault.New(fault.Invalid, "database name is required")
	case r.Type != typePassword:
		return fault.New(fault.Invalid, "credential_type must be password")
	case r.DefaultTTL < 0 || r.MaxTTL < 0:
		return fault.New(fault.Invalid, "a TTL cannot be negative")
	case r.MaxTTL > 0 && r.DefaultTTL > r.MaxTTL:
		return fault.New(fault.Invalid, "default_ttl cannot be greater than max_ttl")
	}
	return nil
}

// passwordsBy reads credential_config.
func passwordsBy(in wire.StringMap) (*passwordBy, error) {
	for name := range in {
		if name != "password_policy" {
			return nil, fault.New(fault.Invalid, "credential_config validation failed: it has no %q, only password_policy", name)
		}
	}
	return &passwordBy{in["password_policy"]}, nil
}

func (r *role) policy(c *config) string {
	if r.Config != nil && r.Config.Policy != "" {
		return r.Config.Policy
	}
	return c.Policy
}

func (e *Engine) roleExists(ctx context.Context, in WriteRole) (bool, error) {
	r, err := e.roles.Find(ctx, in.Name)
	return r != nil, err
}

func (e *Engine) readRole(ctx context.Context, _ route.Caller, in Named) (role, error) {
	r, err := e.roles.Find(ctx, in.Name)
	if err != nil {
		return role{}, err
	}
	if r == nil {
		return role{}, route.Missing()
	}
	return *r, nil
}

func (e *Engine) writeRole(ctx context.Context, _ route.Caller, in WriteRole) (out route.Empty, err error) {
	if err := checkName(in.Name); err != nil {
		return out, err
	}
	other, err := e.statics.Find(ctx, in.Name)
	if err != nil {
		return out, err
	}
	if other != nil {
		return out, fault.New(fault.Invalid, "Role and Static Role names must be unique")
	}
	return out, e.roles.Change(ctx, in.Name, func(r *role) error {
		if err := in.apply(r); err != nil {
			return err
		}
		return e.checkStatements(ctx, r)
	})
}

// checkStatements refuses statements that could never make an account, where the
// connection is known by now.
func (e *Engine) checkStatements(ctx context.Context, r *role) error {
	c, err := e.configs.Lately(ctx, r.DB)
	if err != nil || c == nil {
		return err
	}
	p, err := pluginOf(c.Plugin)
	if err != nil {
		return err
	}
	if p.NeedsCreation && len(r.Creation) == 0 {
		return fault.New(fault.Invalid, "creation_statements are needed: %s makes no account without", p.Name)
	}
	if p.Check == nil {
		return nil
	}
	return p.Check(r.Creation, r.Revocation, r.Rollback, r.Renewal)
}

func (e *Engine) removeRole(ctx context.Context, _ route.Caller, in Named) (route.Empty, error) {
	return route.Empty{}, e.roles.Remove(ctx, in.Name)
}

// Creds is an account that is lent.
type Creds struct {
	route.Notes
	Username string      `json:"username"`
	Password wire.Secret `json:"password"`
}

// loan is what is kept of an account that is lent.
type loan struct {
	Username   string     `json:"username"`
	DB         string     `json:"db_name"`
	Role       string     `json:"role"`
	Revocation Statements `json:"revocation_statements,omitempty"` // should the role be gone
}

func (e *Engine) creds(ctx context.Context, by route.Caller, in Named) (out Creds, err error) {
	r, err := e.roles.Lately(ctx, in.Name)
	if err != nil {
		return out, err
	}
	if r == nil {
		return out, fault.New(fault.Invalid, "unknown role: %s", in.Name)
	}
	c, err := e.config(ctx, r.DB)
	if err != nil {
		return out, err
	}
	if !c.allows(in.Name) {
		return out, fault.New(fault.Invalid, "%q is not an allowed role of the connection %q; name it in its allowed_roles", in.Name, r.DB)
	}
	p, err := pluginOf(c.Plugin)
	if err != nil {
		return out, err
	}
	names, err := c.template(p)
	if err != nil {
		return out, err
	}
	if out.Username, err = names.Make(username.For{DisplayName: by.DisplayName, RoleName: in.Name}); err != nil {
		return out, err
	}
	if out.Password, err = e.env.Password(ctx, r.policy(c)); err != nil {
		return out, err
	}
	connecting, stop := context.WithTimeout(ctx, callTimeout)
	defer stop()
	srv, c, err := e.server(connecting, r.DB)
	if err != nil {
		return out, err
	}
	out.Notes, err = e.env.Leases.Lend(ctx, by, engine.Loan{
		Data: loan{out.Username, r.DB, in.Name, r.Revocation}, TTL: r.DefaultTTL.Duration(), MaxTTL: r.MaxTTL.Duration(), Renewable: true,
	}, func(ctx context.Context, l engine.Leased) error {
		a := plugin.Account{Name: out.Username, Password: out.Password.Reveal(), Expires: l.Expires.Add(grace)}
		err := srv.Create(ctx, a, r.Creation)
		if err == nil {
			return nil
		}
		if len(r.Rollback) > 0 {
			err = errors.Join(err, srv.Drop(ctx, a.Name, r.Rollback))
		}
		return fault.New(kindOf(err), "the database did not make the account: %s", scrub(err, c, a.Password))
	})
	return out, err
}

// grace is how long an account lasts beyond its lease, by the database's own clock,
// so that none ends before it is said to.
const grace = 5 * time.Second

// extend makes an account last as long as its lease.
func (e *Engine) extend(ctx context.Context, l engine.Leased) error {
	var lent loan
	if err := l.Into(&lent); err != nil {
		return err
	}
	r, err := e.roles.Lately(ctx, lent.Role)
	if err != nil {
		return err
	}
	if r == nil {
		return fault.New(fault.Invalid, "the role %q is gone, and what it lent is not renewed", lent.Role)
	}
	srv, c, err := e.server(ctx, lent.DB)
	if err != nil {
		return err
	}
	if err := srv.Extend(ctx, plugin.Account{Name: lent.Username, Expires: l.Expires.Add(grace)}, r.Renewal); err != nil {
		return fault.New(kindOf(err), "the database did not renew the account: %s", scrub(err, c))
	}
	return nil
}

// revoke drops an account: by the statements of its role as they are now, so that
// they can be mended.
func (e *Engine) revoke(ctx context.Context, l engine.Leased) error {
	var lent loan
	if err := l.Into(&lent); err != nil {
		return err
	}
	statements := lent.Revocation
	r, err := e.roles.Lately(ctx, lent.Role)
	if err != nil {
		return err
	}
	if r != nil && r.DB == lent.DB {
		statements = r.Revocation
	}
	srv, c, err := e.server(ctx, lent.DB)
	if err != nil {
		return err
	}
	if err := srv.Drop(ctx, lent.Username, statements); err != nil {
		return fault.New(kindOf(err), "%s", scrub(err, c))
	}
	return nil
}
