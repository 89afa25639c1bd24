package token

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/ryanuber/go-glob"
)

// Ask is what a client asks of auth/token/create.
type Ask struct {
	ID              string
	Policies        []string
	NoDefaultPolicy bool
	NoParent        bool // by create with no_parent: needs sudo
	Orphan          bool // by create-orphan: the path's own policy decided
	Meta            map[string]string
	DisplayName     string
	Type            string
	Renewable       bool
	NumUses         int
	TTL             time.Duration
	ExplicitMax     time.Duration
	Period          time.Duration
	Path            string // of the request
	Role            string // "" for none
	Sudo            bool   // the caller holds root or sudo on the path
}

// Derive makes a token for the holder of another one, by Vault's rules for
// auth/token/create: policies are a subset of the parent's unless the caller
// has sudo or a role says which they may be.
func (s *Store) Derive(ctx context.Context, parent *Token, a Ask) (*Issued, error) {
	var role *Role
	if a.Role != "" {
		var err error
		if role, err = s.Role(ctx, a.Role); fault.Is(err, fault.NotFound) {
			return nil, invalid("unknown role %s", a.Role)
		} else if err != nil {
			return nil, err
		}
	}
	r, warnings, err := s.request(parent, role, a)
	if err != nil {
		return nil, err
	}
	out, err := s.Issue(ctx, parent, r)
	if err != nil {
		return nil, err
	}
	out.Warnings = append(warnings, out.Warnings...)
	return out, nil
}

var displayName = regexp.MustCompile(`[^a-zA-Z0-9-]`)

// request is what Derive makes.
func (s *Store) request(parent *Token, role *Role, a Ask) (Request, []string, error) {
	r := Request{
		ID: a.ID, Path: a.Path, DisplayName: "token", Meta: a.Meta, Orphan: a.Orphan || a.NoParent,
		NotRenewable: !a.Renewable, NumUses: a.NumUses,
		Terms: lifetime.Terms{TTL: a.TTL, ExplicitMax: a.ExplicitMax, Period: a.Period},
	}
	if a.DisplayName != "" {
		r.DisplayName = strings.TrimSuffix(displayName.ReplaceAllString("token-"+a.DisplayName, "-"), "-")
	}
	switch {
	case a.Type != "" && a.Type != string(Service) && a.Type != string(Batch):
		return r, nil, invalid("invalid 'token_type' value")
	case a.ID != "" && !a.Sudo:
		return r, nil, invalid("root or sudo privileges required to specify token id")
	case a.Period > 0 && !a.Sudo:
		return r, nil, invalid("root or sudo privileges required to create periodic token")
	case role == nil && a.NoParent && !a.Sudo:
		return r, nil, invalid("root or sudo privileges required to create orphan token")
	}
	var warnings []string
	var err error
	r.Type = Type(a.Type)
	if role == nil {
		if !r.Orphan {
			r.BoundCIDRs = parent.BoundCIDRs
		}
	} else if warnings, err = byRole(&r, role, a); err != nil {
		return r, nil, err
	}
	if !r.Orphan && parent.Namespace == s.namespace {
		r.EntityID = parent.EntityID
	}
	r.NoDefaultPolicy = true // what policies returns is final
	if r.Policies, err = policies(parent, role, a, parent.Namespace != s.namespace); err != nil {
		return r, nil, err
	}
	if slices.Contains(r.Policies, DefaultPolicy) {
		r.NoDefaultPolicy = false
	}
	return r, warnings, nil
}

// byRole applies a role to a request.
func byRole(r *Request, role *Role, a Ask) (warnings []string, err error) {
	r.Role, r.Orphan = role.Name, role.Orphan
	r.NotRenewable = r.NotRenewable || !role.Renewable
	if role.PathSuffix != "" {
		r.Path += "/" + role.PathSuffix
	}
	if n := int(role.TokenNumUses); n > 0 && (r.NumUses == 0 || n < r.NumUses) {
		r.NumUses = n
	}
	switch {
	case role.TokenType == string(Service) || role.TokenType == string(Batch):
		r.Type = Type(role.TokenType)
	case role.TokenType == defaultBatch && a.Type == "":
		r.Type = Batch
	}
	if r.BoundCIDRs, err = wire.ParseNetworks(role.cidrs()); err != nil || r.Type == Batch {
		return nil, err
	}
	lesser := func(what string, dst *time.Duration, limit time.Duration) {
		if limit == 0 {
			return
		}
		if *dst == 0 {
			*dst = limit
			return
		}
		*dst = min(*dst, limit)
		warnings = append(warnings, fmt.Sprintf("%s specified both during creation call and in role; using the lesser value of %d seconds", what, int64(*dst/time.Second)))
	}
	lesser("Explicit max TTL", &r.Terms.ExplicitMax, role.explicitMax())
	lesser("Period", &r.Terms.Period, role.period())
	return warnings, nil
}

// policies are those that the token gets, final. elsewhere is a parent of another
// namespace.
func policies(parent *Token, role *Role, a Ask, elsewhere bool) ([]string, error) {
	var out []string
	switch {
	case role != nil && role.limits():
		var err error
		if out, err = rolePolicies(parent, role, a, elsewhere); err != nil {
			return nil, err
		}
	case elsewhere && !a.Sudo:
		return nil, invalid("root or sudo privileges required to create tokens in another namespace without a role")
	case elsewhere && len(a.Policies) == 0:
		out = normal(nil, !a.NoDefaultPolicy) // those of the parent mean nothing here
	case len(a.Policies) == 0:
		out = normal(parent.Policies, false)
	case a.Sudo:
		out = normal(a.Policies, !a.NoDefaultPolicy)
	default:
		out = normal(a.Policies, false)
		for _, p := range out {
			if !parent.Root() && !slices.Contains(parent.Policies, p) {
				return nil, invalid("child policies must be subset of parent")
			}
		}
		if !a.NoDefaultPolicy && slices.Contains(parent.Policies, DefaultPolicy) {
			out = normal(out, true)
		}
	}
	if a.NoDefaultPolicy || role != nil && role.TokenNoDefaultPolicy {
		out = slices.DeleteFunc(out, func(p string) bool { return p == DefaultPolicy })
	}
	return out, nil
}

// rolePolicies are those of a role that says which its tokens may have.
func rolePolicies(parent *Token, role *Role, a Ask, elsewhere bool) ([]string, error) {
	add := !a.NoDefaultPolicy && !role.TokenNoDefaultPolicy &&
		!slices.Contains(role.DisallowedPolicies, DefaultPolicy) && !anyGlob(role.DisallowedPoliciesGlob, DefaultPolicy)
	var out []string
	if len(a.Policies) > 0 {
		out = normal(a.Policies, add)
	}
	if len(role.AllowedPolicies)+len(role.AllowedPoliciesGlob) > 0 {
		allowed := normal(role.AllowedPolicies, add)
		if len(out) == 0 {
			out = allowed
		}
		for _, p := range out {
			if !slices.Contains(allowed, p) && !anyGlob(role.AllowedPoliciesGlob, p) {
				return nil, invalid("token policies (%q) must be subset of the role's allowed policies (%q) or glob policies (%q)",
					out, allowed, []string(role.AllowedPoliciesGlob))
			}
		}
	} else if len(out) == 0 && elsewhere {
		out = normal(nil, add)
	} else if len(out) == 0 {
		out = normal(parent.Policies, add)
	}
	for _, p := range out {
		if slices.Contains(role.DisallowedPolicies, p) || anyGlob(role.DisallowedPoliciesGlob, p) {
			return nil, invalid("token policy %q is disallowed by this role", p)
		}
	}
	return out, nil
}

func anyGlob(globs []string, s string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return glob.Glob(g, s) })
}

// lower returns texts trimmed, in lower case, sorted, each once.
func lower(list wire.Strings) wire.Strings {
	out := make(wire.Strings, 0, len(list))
	for _, text := range list {
		if text = strings.ToLower(strings.TrimSpace(text)); text != "" {
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
