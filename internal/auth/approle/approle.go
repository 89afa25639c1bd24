// Package approle is the auth method of programs: a role says what its tokens may
// do, and whoever knows the role's id and one of its secret ids logs in as it. The
// gateway makes the token.
//
// Secret ids are handed out once and kept as fingerprints only. Each has an
// accessor, by which it is looked at and destroyed without being known.
package approle

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Roles answers the routes of one mount.
type Roles struct {
	storage     storage.Engine
	fingerprint func([]byte) string
	log         *slog.Logger
	method      string // the mount's path as display names have it: "approle"
	tidyNow     chan struct{}
}

// Kind declares approle.
var Kind = engine.Kind[struct{}, *Roles]{
	Name: "approle", Doc: "Log in with a role's id and a secret id.", Class: engine.Auth,
	Open: func(_ context.Context, env engine.Env, _ struct{}) (*Roles, error) {
		return &Roles{
			storage: env.Storage, fingerprint: env.Fingerprint, log: env.Log, method: env.Mount.Method(),
			tidyNow: make(chan struct{}, 1),
		}, nil
	},
	Routes: append([]route.Route[*Roles]{
		route.New("POST", "login", "Log in.", (*Roles).login, route.Public(),
			route.Shows("login", `{"role_id":"deploy","secret_id":"a secret of at least twenty characters"}`, "")),
		route.New("LIST", "role", "List the roles.", (*Roles).list,
			route.Shows("role", "", `{"keys":["deploy"]}`)),
		route.New("GET", "role/{role_name}", "Read a role.", (*Roles).read,
			route.Shows("role/deploy", "", "")),
		route.New("POST", "role/{role_name}", "Create a role, or change one; what is left out stays as it is.", (*Roles).write, route.ExistsBy((*Roles).exists),
			route.Shows("role/deploy", `{"token_policies":"deploy","token_ttl":"20m","secret_id_ttl":"24h"}`, "")),
		route.New("DELETE", "role/{role_name}", "Delete a role and its secret ids. Its tokens live on until they end, and cannot be renewed.", (*Roles).remove,
			route.Shows("role/deploy", "", "")),
		route.New("GET", "role/{role_name}/role-id", "Read a role's id.", (*Roles).readID,
			route.Shows("role/deploy/role-id", "", `{"role_id":"deploy"}`)),
		route.New("POST", "role/{role_name}/role-id", "Give a role an id of your choice.", (*Roles).writeID,
			route.Shows("role/deploy/role-id", `{"role_id":"6a4b3d0e-0000-4000-8000-5ec2e7000000"}`, "")),
		route.New("POST", "role/{role_name}/secret-id", "Make a secret id.", (*Roles).makeSecret,
			route.Shows("role/deploy/secret-id", `{"metadata":{"host":"ci-1"},"num_uses":5}`, "")),
		route.New("POST", "role/{role_name}/custom-secret-id", "Register a secret id of your choice.", (*Roles).registerSecret,
			route.Shows("role/deploy/custom-secret-id", `{"secret_id":"another secret of twenty characters"}`, "")),
		route.New("LIST", "role/{role_name}/secret-id", "List the accessors of a role's secret ids.", (*Roles).accessors,
			route.Shows("role/deploy/secret-id", "", "")),
		route.New("POST", "role/{role_name}/secret-id/lookup", "Read about a secret id.", (*Roles).lookup, route.Reads(),
			route.Shows("role/deploy/secret-id/lookup", `{"secret_id":"a secret of at least twenty characters"}`, "")),
		route.New("POST", "role/{role_name}/secret-id/destroy", "Destroy a secret id.", (*Roles).destroy,
			route.Shows("role/deploy/secret-id/destroy", `{"secret_id":"a secret of at least twenty characters"}`, "")),
		route.New("DELETE", "role/{role_name}/secret-id/destroy", "Destroy a secret id.", (*Roles).destroy,
			route.Shows("role/deploy/secret-id/destroy?secret_id=unknown", "", "")),
		route.New("POST", "role/{role_name}/secret-id-accessor/lookup", "Read about a secret id, by its accessor.", (*Roles).lookupAccessor, route.Reads(),
			route.Shows("role/deploy/secret-id-accessor/lookup", `{"secret_id_accessor":"the-accessor"}`, "")),
		route.New("POST", "role/{role_name}/secret-id-accessor/destroy", "Destroy a secret id, by its accessor.", (*Roles).destroyAccessor,
			route.Shows("role/deploy/secret-id-accessor/destroy", `{"secret_id_accessor":"the-accessor"}`, "")),
		route.New("DELETE", "role/{role_name}/secret-id-accessor/destroy", "Destroy a secret id, by its accessor.", (*Roles).destroyAccessor,
			route.Shows("role/deploy/secret-id-accessor/destroy?secret_id_accessor=the-accessor", "", "")),
		route.New("POST", "tidy/secret-id", "Remove secret ids that have ended now; it is done every hour anyway.", (*Roles).tidy,
			route.Shows("tidy/secret-id", "", "")),
	}, fieldRoutes()...),
	Run: (*Roles).run,
}

// role is a role's row. The fields without token_ are older names in Vault,
// answered where they were written.
type role struct {
	ID            string       `json:"id"` // tells the role from a later one of its name
	RoleID        string       `json:"role_id"`
	BindSecretID  bool         `json:"bind_secret_id"`
	SecretIDCIDRs wire.Strings `json:"secret_id_bound_cidrs"`
	SecretIDUses  wire.Int     `json:"secret_id_num_uses"`
	SecretIDTTL   wire.Seconds `json:"secret_id_ttl"`
	auth.TokenParams
	OldPolicies wire.Strings `json:"policies,omitempty"`
	OldPeriod   wire.Seconds `json:"period,omitempty"`

	name string
}

// secret is the row of a secret id.
type secret struct {
	Accessor   string         `json:"accessor"`
	Uses       wire.Int       `json:"uses"` // left; 0 is any number
	TTL        wire.Seconds   `json:"ttl"`
	Created    time.Time      `json:"created"`
	Updated    time.Time      `json:"updated"`
	Expires    time.Time      `json:"expires,omitzero"` // never when zero
	Metadata   wire.StringMap `json:"metadata"`
	CIDRs      wire.Strings   `json:"cidrs"`
	TokenCIDRs wire.Strings   `json:"token_cidrs"`
}

func (s *secret) ended(now time.Time) bool { return !s.Expires.IsZero() && !now.Before(s.Expires) }

// Rows: roles by name, the names of their ids, and by role the secret ids by
// fingerprint, the fingerprints of accessors, and what is left of roles that were
// deleted.
const (
	rolePrefix     = "role/"
	roleIDPrefix   = "role-id/"
	secretPrefix   = "secret/"
	accessorPrefix = "accessor/"
	deadPrefix     = "dead/"
)

func (r *Roles) roleIDKey(roleID string) string {
	return roleIDPrefix + r.fingerprint([]byte("role id "+roleID))
}

// secretName is what a secret id is kept as.
func (r *Roles) secretName(secretID string) string {
	return r.fingerprint([]byte("secret id " + secretID))
}

func (o *role) secretKey(name string) string       { return secretPrefix + o.ID + "/" + name }
func (o *role) accessorKey(accessor string) string { return accessorPrefix + o.ID + "/" + accessor }

// getRole returns a role, nil when there is none.
func getRole(r storage.Reader, name string) (*role, error) {
	o, err := storage.Load[role](r, rolePrefix+name)
	if o != nil {
		o.name = name
	}
	return o, err
}

// needRole returns a role, or a fault that says that there is none.
func needRole(r storage.Reader, name string) (*role, error) {
	o, err := getRole(r, name)
	if err == nil && o == nil {
		err = fault.New(fault.Invalid, "role %q does not exist", name)
	}
	return o, err
}

// Name names a role.
type Name struct {
	RoleName string `path:"role_name" doc:"The role's name, in any case."`
}

func (n Name) role() (string, error) { return auth.NameOf("role", n.RoleName) }

func trimmed(s wire.Secret) string { return strings.TrimSpace(s.Reveal()) }
