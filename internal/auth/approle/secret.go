package approle

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// SecretFields say what a secret id is good for.
type SecretFields struct {
	Metadata   wire.StringMap `json:"metadata" doc:"Kept with the secret id and its tokens, and logged; an object, or one as a string."`
	CIDRs      wire.Strings   `json:"cidr_list" doc:"Networks from which it is accepted, within the role's."`
	TokenCIDRs wire.Strings   `json:"token_bound_cidrs" doc:"Networks from which its tokens are accepted, within the role's."`
	Uses       *wire.Int      `json:"num_uses" doc:"How many logins it is good for, no more than the role's; the role's unless given."`
	TTL        *wire.Seconds  `json:"ttl" doc:"How long it lives, no longer than the role's; the role's unless given."`
}

// MakeSecret asks for a secret id.
type MakeSecret struct {
	Name
	SecretFields
}

// RegisterSecret registers a secret id.
type RegisterSecret struct {
	Name
	SecretFields
	SecretID wire.Secret `json:"secret_id" doc:"The secret id: at least 20 characters that nobody guesses."`
}

// NewSecret is a secret id as it is handed out, once.
type NewSecret struct {
	route.Notes
	SecretID wire.Secret  `json:"secret_id"`
	Accessor string       `json:"secret_id_accessor"`
	TTL      wire.Seconds `json:"secret_id_ttl"`
	Uses     wire.Int     `json:"secret_id_num_uses"`
}

// SecretInfo is about a secret id.
type SecretInfo struct {
	route.Notes
	Accessor   string         `json:"secret_id_accessor"`
	Uses       wire.Int       `json:"secret_id_num_uses"`
	TTL        wire.Seconds   `json:"secret_id_ttl"`
	Created    time.Time      `json:"creation_time"`
	Expires    time.Time      `json:"expiration_time"`
	Updated    time.Time      `json:"last_updated_time"`
	Metadata   wire.StringMap `json:"metadata"`
	CIDRs      wire.Strings   `json:"cidr_list"`
	TokenCIDRs wire.Strings   `json:"token_bound_cidrs"`
}

// minSecret is the length of the shortest secret id that can be registered.
const minSecret = 20

func (r *Roles) makeSecret(ctx context.Context, _ route.Caller, in MakeSecret) (NewSecret, error) {
	return r.add(ctx, in.Name, in.SecretFields, uuid.NewString())
}

func (r *Roles) registerSecret(ctx context.Context, _ route.Caller, in RegisterSecret) (NewSecret, error) {
	id := trimmed(in.SecretID)
	switch {
	case id == "":
		return NewSecret{}, fault.New(fault.Invalid, "missing secret_id")
	case len(id) < minSecret || len(id) > maxID:
		return NewSecret{}, fault.New(fault.Invalid, "secret_id: it has %d to %d bytes", minSecret, maxID)
	}
	return r.add(ctx, in.Name, in.SecretFields, id)
}

// add registers a secret id.
func (r *Roles) add(ctx context.Context, n Name, f SecretFields, secretID string) (out NewSecret, err error) {
	name, err := n.role()
	if err != nil {
		return out, err
	}
	_, err = r.storage.Update(ctx, func(t storage.Txn) error {
		o, err := needRole(t, name)
		if err != nil {
			return err
		}
		if !o.BindSecretID {
			return fault.New(fault.Invalid, "bind_secret_id is not set on the role")
		}
		s, err := f.secret(o)
		if err != nil {
			return err
		}
		key := o.secretKey(r.secretName(secretID))
		before, err := storage.Load[secret](t, key)
		if err != nil {
			return err
		}
		if before != nil && !before.ended(time.Now()) {
			return fault.New(fault.Invalid, "the secret id is registered already; destroy it first, or choose another")
		}
		if before != nil {
			if err := t.Delete(o.accessorKey(before.Accessor)); err != nil {
				return err
			}
		}
		out = NewSecret{SecretID: wire.Secret(secretID), Accessor: s.Accessor, TTL: s.TTL, Uses: s.Uses}
		if err := storage.Save(t, key, s); err != nil {
			return err
		}
		return storage.Save(t, o.accessorKey(s.Accessor), r.secretName(secretID))
	})
	if err != nil {
		return NewSecret{}, err
	}
	out.Subject = route.Subject{Path: "role/" + name, Label: "secret id " + out.Accessor}
	return out, nil
}

// secret returns the row of a secret id of a role.
func (f SecretFields) secret(o *role) (*secret, error) {
	now := time.Now().UTC()
	s := &secret{
		Accessor: uuid.NewString(), Uses: o.SecretIDUses, TTL: o.SecretIDTTL, Created: now, Updated: now,
		Metadata: f.Metadata, CIDRs: f.CIDRs, TokenCIDRs: f.TokenCIDRs,
	}
	for _, bound := range []struct {
		name         string
		inner, outer wire.Strings
	}{{"cidr_list", f.CIDRs, o.SecretIDCIDRs}, {"token_bound_cidrs", f.TokenCIDRs, o.BoundCIDRs}} {
		inside, err := within(bound.inner, bound.outer)
		if err != nil {
			return nil, fault.New(fault.Invalid, "%s: %s", bound.name, err)
		}
		if !inside {
			return nil, fault.New(fault.Invalid, "%s: it is not within the role's networks", bound.name)
		}
	}
	if f.Uses != nil {
		if s.Uses = *f.Uses; s.Uses < 0 {
			return nil, fault.New(fault.Invalid, "num_uses cannot be negative")
		}
		if most := o.SecretIDUses; most > 0 && (s.Uses == 0 || s.Uses > most) {
			return nil, fault.New(fault.Invalid, "num_uses cannot be higher than the role's secret_id_num_uses")
		}
	}
	if f.TTL != nil {
		if s.TTL = *f.TTL; s.TTL < 0 {
			return nil, fault.New(fault.Invalid, "ttl cannot be negative")
		}
		if most := o.SecretIDTTL; most > 0 && (s.TTL == 0 || s.TTL > most) {
			return nil, fault.New(fault.Invalid, "ttl cannot be longer than the role's secret_id_ttl")
		}
	}
	if s.TTL > 0 {
		s.Expires = now.Add(s.TTL.Duration())
	}
	return s, nil
}

// AccessorsOf asks for the accessors of a role's secret ids.
type AccessorsOf struct {
	Name
	route.Page
}

func (r *Roles) accessors(ctx context.Context, _ route.Caller, in AccessorsOf) (route.Keys, error) {
	o, err := r.find(ctx, in.Name)
	if err != nil {
		return route.Keys{}, err
	}
	if o == nil {
		return route.Keys{}, fault.New(fault.Invalid, "role %q does not exist", in.RoleName)
	}
	return engine.Names(ctx, r.storage, o.accessorKey(""), in.Page)
}

// SecretOf names a secret id of a role.
type SecretOf struct {
	Name
	SecretID wire.Secret `json:"secret_id" query:"secret_id" doc:"The secret id."`
}

// AccessorOf names a secret id of a role by its accessor.
type AccessorOf struct {
	Name
	Accessor string `json:"secret_id_accessor" query:"secret_id_accessor" doc:"The secret id's accessor."`
}

const maxAccessor = 64 // bytes

// errNoAccessor says that there is no such accessor.
func errNoAccessor(accessor string) error {
	return fault.New(fault.NotFound, "failed to find accessor entry for secret_id_accessor: %q", accessor)
}

// at is where a secret id of a role is.
type at func(r storage.Reader, o *role) (key string, err error)

func (r *Roles) bySecret(in SecretOf) (at, error) {
	id := trimmed(in.SecretID)
	if id == "" {
		return nil, fault.New(fault.Invalid, "missing secret_id")
	}
	return func(_ storage.Reader, o *role) (string, error) { return o.secretKey(r.secretName(id)), nil }, nil
}

func byAccessor(in AccessorOf) (at, error) {
	accessor := strings.TrimSpace(in.Accessor)
	if accessor == "" {
		return nil, fault.New(fault.Invalid, "missing secret_id_accessor")
	}
	return func(r storage.Reader, o *role) (string, error) {
		if len(accessor) > maxAccessor {
			return "", errNoAccessor(accessor[:maxAccessor] + "…")
		}
		name, err := storage.Load[string](r, o.accessorKey(accessor))
		if err == nil && name == nil {
			err = errNoAccessor(accessor)
		}
		if err != nil {
			return "", err
		}
		return o.secretKey(*name), nil
	}, nil
}

// getSecret returns the secret id at a place, nil when there is none that has not
// ended.
func getSecret(r storage.Reader, name string, find at) (o *role, s *secret, key string, err error) {
	if o, err = needRole(r, name); err != nil {
		return nil, nil, "", err
	}
	if key, err = find(r, o); err != nil {
		return nil, nil, "", err
	}
	s, err = storage.Load[secret](r, key)
	if s != nil && s.ended(time.Now()) {
		s = nil
	}
	return o, s, key, err
}

func (r *Roles) lookup(ctx context.Context, _ route.Caller, in SecretOf) (SecretInfo, error) {
	find, err := r.bySecret(in)
	if err != nil {
		return SecretInfo{}, err
	}
	return r.about(ctx, in.Name, find)
}

func (r *Roles) lookupAccessor(ctx context.Context, _ route.Caller, in AccessorOf) (SecretInfo, error) {
	find, err := byAccessor(in)
	if err != nil {
		return SecretInfo{}, err
	}
	return r.about(ctx, in.Name, find)
}

// about reads about a secret id; one that is not there is answered with 204, as
// Vault does.
func (r *Roles) about(ctx context.Context, n Name, find at) (out SecretInfo, err error) {
	name, err := n.role()
	if err != nil {
		return out, err
	}
	err = r.storage.View(ctx, func(t storage.Reader) error {
		_, s, _, err := getSecret(t, name, find)
		if err != nil {
			return err
		}
		if s == nil {
			out.Status = 204
			return nil
		}
		out = SecretInfo{
			Accessor: s.Accessor, Uses: s.Uses, TTL: s.TTL, Created: s.Created, Expires: s.Expires, Updated: s.Updated,
			Metadata: s.Metadata, CIDRs: s.CIDRs, TokenCIDRs: s.TokenCIDRs,
		}
		return nil
	})
	return out, err
}

func (r *Roles) destroy(ctx context.Context, _ route.Caller, in SecretOf) (route.Empty, error) {
	find, err := r.bySecret(in)
	if err != nil {
		return route.Empty{}, err
	}
	return r.end(ctx, in.Name, find)
}

func (r *Roles) destroyAccessor(ctx context.Context, _ route.Caller, in AccessorOf) (route.Empty, error) {
	find, err := byAccessor(in)
	if err != nil {
		return route.Empty{}, err
	}
	return r.end(ctx, in.Name, find)
}

// end destroys a secret id; one that is not there is no error.
func (r *Roles) end(ctx context.Context, n Name, find at) (out route.Empty, err error) {
	name, err := n.role()
	if err != nil {
		return out, err
	}
	_, err = r.storage.Update(ctx, func(t storage.Txn) error {
		o, s, key, err := getSecret(t, name, find)
		if err != nil || s == nil {
			return err
		}
		out.Subject = route.Subject{Path: "role/" + name, Label: "secret id " + s.Accessor}
		return errors.Join(t.Delete(key), t.Delete(o.accessorKey(s.Accessor)))
	})
	return out, err
}
