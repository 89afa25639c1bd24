package approle

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Fields are what a request changes in a role.
type Fields struct {
	BindSecretID  *wire.Bool    `json:"bind_secret_id" doc:"Whether a login needs a secret id; true unless written."`
	SecretIDCIDRs *wire.Strings `json:"secret_id_bound_cidrs" doc:"Networks from which logins are accepted."`
	OldCIDRs      *wire.Strings `json:"bound_cidr_list" doc:"An older name of secret_id_bound_cidrs."`
	SecretIDUses  *wire.Int     `json:"secret_id_num_uses" doc:"How many logins a secret id is good for; 0 is any number."`
	SecretIDTTL   *wire.Seconds `json:"secret_id_ttl" doc:"How long a secret id lives; 0 is without end."`
	Local         *wire.Bool    `json:"local_secret_ids" doc:"For clusters that replicate, of which there are none: false."`
	auth.TokenFields
	OldPolicies *wire.Strings `json:"policies" doc:"An older name of token_policies."`
	OldPeriod   *wire.Seconds `json:"period" doc:"An older name of token_period."`
}

// Write creates or changes a role.
type Write struct {
	Name
	RoleID *string `json:"role_id" doc:"The role's id; made up at creation unless given."`
	Fields
}

// Read is a role. The older names are answered where they were written.
type Read struct {
	BindSecretID  bool         `json:"bind_secret_id"`
	Local         bool         `json:"local_secret_ids"`
	SecretIDCIDRs wire.Strings `json:"secret_id_bound_cidrs"`
	SecretIDUses  wire.Int     `json:"secret_id_num_uses"`
	SecretIDTTL   wire.Seconds `json:"secret_id_ttl"`
	auth.TokenParams
	OldPolicies wire.Strings `json:"policies,omitempty"`
	OldPeriod   wire.Seconds `json:"period,omitzero"`
}

// RoleID is a role's id.
type RoleID struct {
	RoleID string `json:"role_id" doc:"The role's id."`
}

// WriteID changes a role's id.
type WriteID struct {
	Name
	RoleID string `json:"role_id" doc:"The role's id."`
}

const maxID = 4096 // bytes of an id

// apply changes what the request names.
func (f Fields) apply(o *role) error {
	if f.OldCIDRs != nil && f.SecretIDCIDRs == nil {
		f.SecretIDCIDRs = f.OldCIDRs
	}
	if f.Local != nil && bool(*f.Local) {
		return fault.New(fault.Invalid, "local_secret_ids: secret ids are the same on all nodes; leave it out")
	}
	auth.Renamed(&f.PolicyNames, f.OldPolicies, &o.OldPolicies)
	auth.Renamed(&f.Period, f.OldPeriod, &o.OldPeriod)
	if f.BindSecretID != nil {
		o.BindSecretID = bool(*f.BindSecretID)
	}
	if f.SecretIDCIDRs != nil {
		o.SecretIDCIDRs = *f.SecretIDCIDRs
	}
	if f.SecretIDUses != nil {
		o.SecretIDUses = *f.SecretIDUses
	}
	if f.SecretIDTTL != nil {
		o.SecretIDTTL = *f.SecretIDTTL
	}
	if err := f.TokenFields.Apply(&o.TokenParams); err != nil {
		return err
	}
	if o.OldPolicies != nil {
		o.OldPolicies = o.PolicyNames
	}
	return o.check()
}

// check refuses a role that cannot be.
func (o *role) check() error {
	if _, err := wire.ParseNetworks(o.SecretIDCIDRs); err != nil {
		return fault.New(fault.Invalid, "secret_id_bound_cidrs: %s", err)
	}
	switch {
	case o.SecretIDUses < 0:
		return fault.New(fault.Invalid, "secret_id_num_uses cannot be negative")
	case o.SecretIDTTL < 0:
		return fault.New(fault.Invalid, "secret_id_ttl cannot be negative")
	case !o.BindSecretID && len(o.SecretIDCIDRs) == 0 && len(o.BoundCIDRs) == 0:
		return fault.New(fault.Invalid, "at least one constraint should be enabled on the role: bind_secret_id, secret_id_bound_cidrs or token_bound_cidrs")
	case o.RoleID == "" || len(o.RoleID) > maxID:
		return fault.New(fault.Invalid, "role_id: it has 1 to %d bytes", maxID)
	}
	return nil
}

func (r *Roles) list(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return engine.Names(ctx, r.storage, rolePrefix, in)
}

// find returns a role, nil when there is none.
func (r *Roles) find(ctx context.Context, n Name) (o *role, err error) {
	name, err := n.role()
	if err != nil {
		return nil, err
	}
	err = r.storage.View(ctx, func(s storage.Reader) error {
		o, err = getRole(s, name)
		return err
	})
	return o, err
}

func (r *Roles) exists(ctx context.Context, in Write) (bool, error) {
	o, err := r.find(ctx, in.Name)
	return o != nil, err
}

func (r *Roles) read(ctx context.Context, _ route.Caller, in Name) (Read, error) {
	o, err := r.find(ctx, in)
	if err != nil {
		return Read{}, err
	}
	if o == nil {
		return Read{}, route.Missing()
	}
	return Read{o.BindSecretID, false, o.SecretIDCIDRs, o.SecretIDUses, o.SecretIDTTL, o.TokenParams, o.OldPolicies, o.OldPeriod}, nil
}

func (r *Roles) write(ctx context.Context, _ route.Caller, in Write) (route.Empty, error) {
	var out route.Empty
	if in.Type != nil {
		if plain, found := strings.CutPrefix(*in.Type, "default-"); found {
			out.Warn(*in.Type + " has no useful meaning; adjusting to " + plain)
			in.Type = &plain
		}
	}
	err := r.change(ctx, in.Name, func(o *role, exists bool) error {
		if !exists {
			*o = role{ID: uuid.NewString(), RoleID: uuid.NewString(), BindSecretID: true}
		}
		if in.RoleID != nil {
			o.RoleID = *in.RoleID
		}
		return in.apply(o)
	})
	return out, err
}

// change writes what fn makes of a role.
func (r *Roles) change(ctx context.Context, n Name, fn func(o *role, exists bool) error) error {
	name, err := n.role()
	if err != nil {
		return err
	}
	_, err = r.storage.Update(ctx, func(t storage.Txn) error {
		o, err := getRole(t, name)
		if err != nil {
			return err
		}
		exists, before := o != nil, ""
		if exists {
			before = o.RoleID
		} else {
			o = new(role)
		}
		if err := fn(o, exists); err != nil {
			return err
		}
		if o.RoleID != before {
			if err := r.moveID(t, name, before, o.RoleID); err != nil {
				return err
			}
		}
		return storage.Save(t, rolePrefix+name, o)
	})
	return err
}

// moveID makes a role's id known, in place of an earlier one.
func (r *Roles) moveID(t storage.Txn, name, before, now string) error {
	owner, err := storage.Load[string](t, r.roleIDKey(now))
	if err != nil {
		return err
	}
	if owner != nil {
		return fault.New(fault.Invalid, "role_id already in use")
	}
	if before != "" {
		if err := t.Delete(r.roleIDKey(before)); err != nil {
			return err
		}
	}
	return storage.Save(t, r.roleIDKey(now), name)
}

func (r *Roles) remove(ctx context.Context, _ route.Caller, in Name) (route.Empty, error) {
	name, err := in.role()
	if err != nil {
		return route.Empty{}, err
	}
	_, err = r.storage.Update(ctx, func(t storage.Txn) error {
		o, err := getRole(t, name)
		if err != nil || o == nil {
			return err
		}
		if err := t.Delete(rolePrefix + name); err != nil {
			return err
		}
		if err := t.Delete(r.roleIDKey(o.RoleID)); err != nil {
			return err
		}
		// Nobody can log in from here on; the rows of its secret ids are removed by
		// and by.
		return t.Put(deadPrefix+o.ID, nil)
	})
	r.wake()
	return route.Empty{}, err
}

func (r *Roles) readID(ctx context.Context, _ route.Caller, in Name) (RoleID, error) {
	o, err := r.find(ctx, in)
	if err != nil {
		return RoleID{}, err
	}
	if o == nil {
		return RoleID{}, route.Missing()
	}
	return RoleID{o.RoleID}, nil
}

func (r *Roles) writeID(ctx context.Context, _ route.Caller, in WriteID) (route.Empty, error) {
	return route.Empty{}, r.change(ctx, in.Name, func(o *role, exists bool) error {
		if !exists {
			return route.Missing()
		}
		if in.RoleID == "" {
			return fault.New(fault.Invalid, "missing role_id")
		}
		o.RoleID = in.RoleID
		return o.check()
	})
}

// within reports whether every network of one list lies in one of the other, which
// bounds nothing when it is empty.
func within(inner, outer []string) (bool, error) {
	small, err := wire.ParseNetworks(inner)
	if err != nil {
		return false, err
	}
	large, err := wire.ParseNetworks(outer)
	if err != nil || len(large) == 0 {
		return true, err
	}
	for _, s := range small {
		if !slices.ContainsFunc(large, func(l netip.Prefix) bool { return l.Bits() <= s.Bits() && l.Contains(s.Addr()) }) {
			return false, nil
		}
	}
	return true, nil
}
