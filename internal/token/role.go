package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Role is a set of rules by which auth/token/create/{role} makes tokens. Its
// JSON is both its row and what reading it answers, in Vault's names. The names
// without token_ are deprecated in Vault, but answered where they were written.
type Role struct {
	Name                   string       `json:"name" doc:"The role's name."`
	AllowedPolicies        wire.Strings `json:"allowed_policies" doc:"Policies that tokens may have."`
	AllowedPoliciesGlob    wire.Strings `json:"allowed_policies_glob" doc:"Globs of policies that tokens may have."`
	DisallowedPolicies     wire.Strings `json:"disallowed_policies" doc:"Policies that tokens may not have."`
	DisallowedPoliciesGlob wire.Strings `json:"disallowed_policies_glob" doc:"Globs of policies that tokens may not have."`
	AllowedEntityAliases   wire.Strings `json:"allowed_entity_aliases" doc:"Entity aliases that tokens may be made for."`
	Orphan                 bool         `json:"orphan" doc:"Tokens have no parent."`
	Renewable              bool         `json:"renewable" doc:"Tokens may be renewed."`
	PathSuffix             string       `json:"path_suffix" doc:"Stands at the end of the tokens' creation path."`
	Period                 wire.Seconds `json:"period" doc:"As token_period, where it was written so."`
	ExplicitMaxTTL         wire.Seconds `json:"explicit_max_ttl" doc:"As token_explicit_max_ttl, where it was written so."`
	BoundCIDRs             wire.Strings `json:"bound_cidrs,omitempty" doc:"As token_bound_cidrs, where it was written so."`
	TokenPeriod            wire.Seconds `json:"token_period" doc:"Tokens are periodic: each renewal starts this long anew."`
	TokenExplicitMaxTTL    wire.Seconds `json:"token_explicit_max_ttl" doc:"Tokens end after this long, whatever happens."`
	TokenBoundCIDRs        wire.Strings `json:"token_bound_cidrs,omitempty" doc:"Networks from which tokens are accepted."`
	TokenNumUses           wire.Int     `json:"token_num_uses,omitzero" doc:"How often tokens may be used; 0 is any number."`
	TokenNoDefaultPolicy   bool         `json:"token_no_default_policy" doc:"Tokens do not get the policy default."`
	TokenType              string       `json:"token_type" doc:"default-service, default-batch, service or batch."`
}

func (r *Role) period() time.Duration {
	if r.TokenPeriod != 0 {
		return r.TokenPeriod.Duration()
	}
	return r.Period.Duration()
}

func (r *Role) explicitMax() time.Duration {
	if r.TokenExplicitMaxTTL != 0 {
		return r.TokenExplicitMaxTTL.Duration()
	}
	return r.ExplicitMaxTTL.Duration()
}

func (r *Role) cidrs() wire.Strings {
	if len(r.TokenBoundCIDRs) > 0 {
		return r.TokenBoundCIDRs
	}
	return r.BoundCIDRs
}

// limits reports whether the role says which policies its tokens may have, so
// that those of the parent do not matter.
func (r *Role) limits() bool {
	return len(r.AllowedPolicies)+len(r.AllowedPoliciesGlob)+len(r.DisallowedPolicies)+len(r.DisallowedPoliciesGlob) > 0
}

// Types that a role gives its tokens: the default ones let the request choose.
const (
	defaultService = "default-service"
	defaultBatch   = "default-batch"
)

var suffix = regexp.MustCompile(`^\w([\w.-]*\w)?$`)

// check normalizes a role and refuses what cannot be.
func (r *Role) check() error {
	r.AllowedPolicies = normal(r.AllowedPolicies, false)
	r.AllowedPoliciesGlob = normal(r.AllowedPoliciesGlob, false)
	r.DisallowedPolicies = lower(r.DisallowedPolicies)
	r.DisallowedPoliciesGlob = lower(r.DisallowedPoliciesGlob)
	r.AllowedEntityAliases = lower(r.AllowedEntityAliases)
	if r.TokenType == "" || r.TokenType == "default" {
		r.TokenType = defaultService
	}
	switch {
	case r.PathSuffix != "" && (!suffix.MatchString(r.PathSuffix) || strings.Contains(r.PathSuffix, "..")):
		return invalid("given role path suffix contains invalid characters; must match %s", suffix)
	case r.period() < 0 || r.explicitMax() < 0:
		return invalid("a duration of a role must not be negative")
	case r.TokenNumUses < 0:
		return invalid("'token_num_uses' cannot be negative")
	}
	for _, list := range []wire.Strings{r.BoundCIDRs, r.TokenBoundCIDRs} {
		if _, err := wire.ParseNetworks(list); err != nil {
			return invalid("%s", err)
		}
	}
	switch r.TokenType {
	case defaultService, defaultBatch, string(Service):
		return nil
	case string(Batch):
	default:
		return invalid("invalid 'token_type' value %q", r.TokenType)
	}
	wrong := ""
	switch {
	case !r.Orphan:
		wrong = "non-orphan tokens"
	case r.period() != 0:
		wrong = "periodic tokens"
	case r.Renewable:
		wrong = "renewable tokens"
	case r.explicitMax() != 0:
		wrong = "tokens with an explicit max TTL"
	default:
		return nil
	}
	return invalid("'token_type' cannot be 'batch' when role is set to generate %s", wrong)
}

// ChangeRole writes the role that change makes of the one there is; exists is
// false, and old a new role of that name, where there is none. It returns
// warnings.
func (s *Store) ChangeRole(ctx context.Context, name string, change func(old Role, exists bool) (Role, error)) ([]string, error) {
	if name == "" {
		return nil, invalid("role name cannot be empty")
	}
	var role Role
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		old, err := s.readRole(t, name)
		exists := err == nil
		if fault.Is(err, fault.NotFound) {
			old, err = &Role{Name: name, Renewable: true}, nil
		}
		if err != nil {
			return err
		}
		if role, err = change(*old, exists); err != nil {
			return err
		}
		role.Name = name
		if err := role.check(); err != nil {
			return err
		}
		row, err := json.Marshal(role)
		if err != nil {
			return err
		}
		return t.Put(s.roleKey(name), row)
	})
	if err != nil {
		return nil, err
	}
	if _, limit := s.defaults(); role.explicitMax() > limit {
		return []string{fmt.Sprintf("Given explicit max TTL of %d is greater than system/mount allowed value of %d seconds; tokens of this role live at most that long",
			int64(role.explicitMax()/time.Second), int64(limit/time.Second))}, nil
	}
	return nil, nil
}

// Role returns a role, or a fault.NotFound.
func (s *Store) Role(ctx context.Context, name string) (*Role, error) {
	var role *Role
	err := s.storage.View(ctx, func(r storage.Reader) error {
		var err error
		role, err = s.readRole(r, name)
		return err
	})
	return role, err
}

// Roles returns, in order, up to limit names of roles that sort after the given
// one.
func (s *Store) Roles(ctx context.Context, after string, limit int) ([]string, error) {
	var names []string
	err := s.storage.View(ctx, func(r storage.Reader) error {
		var err error
		names, err = r.List(s.roleKey(""), after, limit)
		return err
	})
	return names, err
}

// DeleteRole deletes a role. Its tokens live on, and cannot be renewed.
func (s *Store) DeleteRole(ctx context.Context, name string) error {
	_, err := s.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(s.roleKey(name)) })
	return err
}

func (s *Store) readRole(r storage.Reader, name string) (*Role, error) {
	key := s.roleKey(name)
	if storage.CheckKey(key) != nil {
		return nil, fault.New(fault.NotFound, "unknown role %s", name)
	}
	row, err := r.Get(key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "unknown role %s", name)
	}
	if err != nil {
		return nil, err
	}
	role := new(Role)
	if err := json.Unmarshal(row, role); err != nil {
		return nil, fmt.Errorf("the row of token role %q cannot be read: %w", name, err)
	}
	return role, nil
}
