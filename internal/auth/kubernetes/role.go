package kubernetes

import (
	"context"
	"slices"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// role is a role's row, and what is answered of it.
type role struct {
	Accounts   wire.Strings `json:"bound_service_account_names"`
	Namespaces wire.Strings `json:"bound_service_account_namespaces"`
	Selector   string       `json:"bound_service_account_namespace_selector"`
	Audience   string       `json:"audience,omitempty"`
	AliasName  string       `json:"alias_name_source"`
	auth.TokenParams
	auth.Older
}

// What an alias is named by.
const (
	byUID  = "serviceaccount_uid"
	byName = "serviceaccount_name"
)

// Named names a role.
type Named struct {
	Name string `path:"name" doc:"The role's name, in any case."`
}

// WriteRole creates or changes a role.
type WriteRole struct {
	Named
	Accounts   *wire.Strings `json:"bound_service_account_names" doc:"Names of service accounts, in which * stands for any characters."`
	Namespaces *wire.Strings `json:"bound_service_account_namespaces" doc:"Their namespaces, in which * stands for any characters."`
	Selector   *string       `json:"bound_service_account_namespace_selector" doc:"Labels that the namespace must have instead, as JSON or YAML: {\"matchLabels\":{\"team\":\"shop\"}}. Needs a token_reviewer_jwt that may read namespaces."`
	Audience   *string       `json:"audience" doc:"The audience that a token must be for. Without one a token for anything else the pod talks to is as good, so offline_validation demands it."`
	AliasName  *string       `json:"alias_name_source" doc:"serviceaccount_uid, or serviceaccount_name: namespace/name, which a new service account of that name inherits."`
	auth.TokenFields
	auth.OlderFields
}

const maxBound = 1000 // entries of a list

// apply changes what the request names, and checks what comes of it.
func (in WriteRole) apply(o *role) error {
	rows.Set(&o.Accounts, in.Accounts)
	rows.Set(&o.Namespaces, in.Namespaces)
	rows.Set(&o.Selector, in.Selector)
	rows.Set(&o.Audience, in.Audience)
	rows.Set(&o.AliasName, in.AliasName)
	if o.AliasName == "" {
		o.AliasName = byUID
	}
	mixed := func(list wire.Strings) bool { return len(list) > 1 && slices.Contains(list, "*") }
	switch {
	case len(o.Accounts) == 0:
		return fault.New(fault.Invalid, "%q can not be empty", "bound_service_account_names")
	case len(o.Namespaces) == 0 && o.Selector == "":
		return fault.New(fault.Invalid, "%q can not be empty if %q is not set", "bound_service_account_namespaces", "bound_service_account_namespace_selector")
	case mixed(o.Accounts) || mixed(o.Namespaces):
		return fault.New(fault.Invalid, "can not mix %q with values", "*")
	case len(o.Accounts) > maxBound || len(o.Namespaces) > maxBound:
		return fault.New(fault.Invalid, "bound_service_account_names and bound_service_account_namespaces have at most %d entries", maxBound)
	case o.AliasName != byUID && o.AliasName != byName:
		return fault.New(fault.Invalid, "invalid alias_name_source %q, must be one of: %s, %s", o.AliasName, byUID, byName)
	}
	if o.Selector != "" {
		if _, err := parseSelector(o.Selector); err != nil {
			return fault.New(fault.Invalid, "invalid %q configured: %s", "bound_service_account_namespace_selector", err)
		}
	}
	return in.OlderFields.Apply(in.TokenFields, &o.TokenParams, &o.Older)
}

func (m *Method) list(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return m.roles.List(ctx, in)
}

// find returns a role as it is now, nil when there is none.
func (m *Method) find(ctx context.Context, in Named) (*role, error) {
	name, err := auth.NameOf("role", in.Name)
	if err != nil {
		return nil, err
	}
	return m.roles.Find(ctx, name)
}

func (m *Method) exists(ctx context.Context, in WriteRole) (bool, error) {
	o, err := m.find(ctx, in.Named)
	return o != nil, err
}

func (m *Method) readRole(ctx context.Context, _ route.Caller, in Named) (role, error) {
	o, err := m.find(ctx, in)
	if err != nil {
		return role{}, err
	}
	if o == nil {
		return role{}, route.Missing()
	}
	return *o, nil
}

func (m *Method) writeRole(ctx context.Context, _ route.Caller, in WriteRole) (out route.Empty, err error) {
	name, err := auth.NameOf("role", in.Name)
	if err != nil {
		return out, err
	}
	return out, m.roles.Change(ctx, name, in.apply)
}

func (m *Method) removeRole(ctx context.Context, _ route.Caller, in Named) (out route.Empty, err error) {
	name, err := auth.NameOf("role", in.Name)
	if err != nil {
		return out, err
	}
	return out, m.roles.Remove(ctx, name)
}
