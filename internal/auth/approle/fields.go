package approle

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

// field is a part of a role that has a path of its own.
type field struct {
	path, name string
	get        func(*role) any
	pick       func(from, to *Fields) bool // false when it was not given
	clear      func(*role)
	example    string
}

// given passes a parameter on.
func given[T any](from *T, to **T) bool {
	*to = from
	return from != nil
}

var fields = []field{
	{"policies", "token_policies", func(o *role) any { return o.PolicyNames }, func(f, t *Fields) bool {
		return given(f.PolicyNames, &t.PolicyNames) || given(f.OldPolicies, &t.OldPolicies)
	}, func(o *role) { o.PolicyNames, o.OldPolicies = nil, nil }, `["deploy"]`},
	{"bind-secret-id", "bind_secret_id", func(o *role) any { return o.BindSecretID }, func(f, t *Fields) bool { return given(f.BindSecretID, &t.BindSecretID) },
		func(o *role) { o.BindSecretID = true }, `true`},
	{"secret-id-bound-cidrs", "secret_id_bound_cidrs", func(o *role) any { return o.SecretIDCIDRs }, func(f, t *Fields) bool { return given(f.SecretIDCIDRs, &t.SecretIDCIDRs) },
		func(o *role) { o.SecretIDCIDRs = nil }, `["10.0.0.0/8"]`},
	{"bound-cidr-list", "bound_cidr_list", func(o *role) any { return o.SecretIDCIDRs }, func(f, t *Fields) bool { return given(f.OldCIDRs, &t.OldCIDRs) },
		func(o *role) { o.SecretIDCIDRs = nil }, `["10.0.0.0/8"]`},
	{"token-bound-cidrs", "token_bound_cidrs", func(o *role) any { return o.BoundCIDRs }, func(f, t *Fields) bool { return given(f.BoundCIDRs, &t.BoundCIDRs) },
		func(o *role) { o.BoundCIDRs = nil }, `["10.0.0.0/8"]`},
	{"secret-id-num-uses", "secret_id_num_uses", func(o *role) any { return o.SecretIDUses }, func(f, t *Fields) bool { return given(f.SecretIDUses, &t.SecretIDUses) },
		func(o *role) { o.SecretIDUses = 0 }, `10`},
	{"secret-id-ttl", "secret_id_ttl", func(o *role) any { return o.SecretIDTTL }, func(f, t *Fields) bool { return given(f.SecretIDTTL, &t.SecretIDTTL) },
		func(o *role) { o.SecretIDTTL = 0 }, `3600`},
	{"period", "token_period", func(o *role) any { return o.Period }, func(f, t *Fields) bool {
		return given(f.Period, &t.Period) || given(f.OldPeriod, &t.OldPeriod)
	}, func(o *role) { o.Period, o.OldPeriod = 0, 0 }, `3600`},
	{"token-num-uses", "token_num_uses", func(o *role) any { return o.NumUses }, func(f, t *Fields) bool { return given(f.NumUses, &t.NumUses) },
		func(o *role) { o.NumUses = 0 }, `10`},
	{"token-ttl", "token_ttl", func(o *role) any { return o.TTL }, func(f, t *Fields) bool { return given(f.TTL, &t.TTL) },
		func(o *role) { o.TTL = 0 }, `600`},
	{"token-max-ttl", "token_max_ttl", func(o *role) any { return o.MaxTTL }, func(f, t *Fields) bool { return given(f.MaxTTL, &t.MaxTTL) },
		func(o *role) { o.MaxTTL = 0 }, `3600`},
}

// WriteField changes one part of a role; what else is given is not looked at.
type WriteField struct {
	Name
	Fields
}

// Field is one part of a role.
type Field struct {
	route.Notes
	name  string
	value any
}

// MarshalJSON writes the part under its name.
func (f Field) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]any{f.name: f.value}) }

// fieldRoutes read, write and reset each field.
func fieldRoutes() (all []route.Route[*Roles]) {
	for _, f := range fields {
		pattern, example := "role/{role_name}/"+f.path, "role/deploy/"+f.path
		all = append(all,
			route.New("GET", pattern, fmt.Sprintf("Read a role's %s.", f.name), func(r *Roles, ctx context.Context, _ route.Caller, in Name) (Field, error) {
				o, err := r.find(ctx, in)
				if err == nil && o == nil {
					err = route.Missing()
				}
				if err != nil {
					return Field{}, err
				}
				return Field{name: f.name, value: f.get(o)}, nil
			}, route.Shows(example, "", "")),
			route.New("POST", pattern, fmt.Sprintf("Change a role's %s.", f.name), func(r *Roles, ctx context.Context, _ route.Caller, in WriteField) (route.Empty, error) {
				return route.Empty{}, r.change(ctx, in.Name, func(o *role, exists bool) error {
					var only Fields
					switch {
					case !exists:
						return route.Missing()
					case !f.pick(&in.Fields, &only):
						return fault.New(fault.Invalid, "missing %s", f.name)
					}
					return only.apply(o)
				})
			}, route.Shows(example, fmt.Sprintf(`{%q:%s}`, f.name, f.example), "")),
			route.New("DELETE", pattern, fmt.Sprintf("Reset a role's %s.", f.name), func(r *Roles, ctx context.Context, _ route.Caller, in Name) (route.Empty, error) {
				return route.Empty{}, r.change(ctx, in, func(o *role, exists bool) error {
					if !exists {
						return route.Missing()
					}
					f.clear(o)
					return o.check()
				})
			}, route.Shows(example, "", "")),
		)
	}
	return all
}
