package ldap

import (
	"context"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/attempts"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Rows: what the directory's groups and users are given here, by name.
const (
	groupPrefix = "group/"
	userPrefix  = "user/"
	maxGroups   = 1000 // of one user
)

// group is a group's row.
type group struct {
	Policies wire.Strings `json:"policies"`
}

// user is a user's row.
type user struct {
	Policies wire.Strings `json:"policies"`
	Groups   wire.Strings `json:"groups"`
}

// GroupName names a group.
type GroupName struct {
	Name string `path:"name" doc:"The group's name in the directory; its case does not count unless case_sensitive_names is set."`
}

// UserName names a user.
type UserName struct {
	Name string `path:"name" doc:"The name that the user logs in with; its case does not count unless case_sensitive_names is set."`
}

// WriteGroup are a group's policies.
type WriteGroup struct {
	GroupName
	Policies wire.Strings `json:"policies" doc:"The policies of whoever is in the group."`
}

// WriteUser are a user's policies and groups.
type WriteUser struct {
	UserName
	Policies wire.Strings `json:"policies" doc:"The user's policies, besides those of the groups."`
	Groups   wire.Strings `json:"groups" doc:"Groups that the user is in besides those of the directory."`
}

// ReadGroup is a group.
type ReadGroup struct {
	Policies wire.Strings `json:"policies"`
}

// ReadUser is a user; the groups are separated by commas, as Vault has it.
type ReadUser struct {
	Policies wire.Strings `json:"policies"`
	Groups   string       `json:"groups"`
}

// key is a name in the spelling of rows.
func (m *Method) key(ctx context.Context, what, name string) (string, error) {
	c, err := m.config.Find(ctx, configKey)
	if err != nil {
		return "", err
	}
	key, ok := nameOf(name, c != nil && bool(c.CaseSensitive))
	if !ok {
		return "", fault.New(fault.Invalid, "a %s name has 1 to %d bytes, and no '/', control or invisible characters", what, maxName)
	}
	return key, nil
}

func (m *Method) listGroups(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return m.groups.List(ctx, in)
}

func (m *Method) readGroup(ctx context.Context, _ route.Caller, in GroupName) (out ReadGroup, err error) {
	key, err := m.key(ctx, "group", in.Name)
	if err != nil {
		return out, err
	}
	g, err := m.groups.Find(ctx, key)
	if err == nil && g == nil {
		err = route.Missing()
	}
	if err != nil {
		return out, err
	}
	return ReadGroup{g.Policies}, nil
}

func (m *Method) writeGroup(ctx context.Context, _ route.Caller, in WriteGroup) (out route.Empty, err error) {
	key, err := m.key(ctx, "group", in.Name)
	if err != nil {
		return out, err
	}
	return out, m.groups.Change(ctx, key, func(g *group) error {
		g.Policies = auth.Policies(in.Policies)
		return nil
	})
}

func (m *Method) removeGroup(ctx context.Context, _ route.Caller, in GroupName) (out route.Empty, err error) {
	key, err := m.key(ctx, "group", in.Name)
	if err != nil {
		return out, err
	}
	return out, m.groups.Remove(ctx, key)
}

func (m *Method) listUsers(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return m.users.List(ctx, in)
}

func (m *Method) readUser(ctx context.Context, _ route.Caller, in UserName) (out ReadUser, err error) {
	key, err := m.key(ctx, "user", in.Name)
	if err != nil {
		return out, err
	}
	u, err := m.users.Find(ctx, key)
	if err == nil && u == nil {
		err = route.Missing()
	}
	if err != nil {
		return out, err
	}
	return ReadUser{u.Policies, strings.Join(u.Groups, ",")}, nil
}

func (m *Method) writeUser(ctx context.Context, _ route.Caller, in WriteUser) (out route.Empty, err error) {
	key, err := m.key(ctx, "user", in.Name)
	if err != nil {
		return out, err
	}
	var groups wire.Strings
	for _, name := range in.Groups {
		clean, ok := nameOf(name, true)
		if !ok {
			return out, fault.New(fault.Invalid, "groups: %q is no name of a group", name)
		}
		groups = append(groups, clean)
	}
	if len(groups) > maxGroups {
		return out, fault.New(fault.Invalid, "groups: a user is in at most %d", maxGroups)
	}
	slices.Sort(groups)
	return out, m.users.Change(ctx, key, func(u *user) error {
		u.Policies, u.Groups = auth.Policies(in.Policies), slices.Compact(groups)
		return nil
	})
}

func (m *Method) removeUser(ctx context.Context, _ route.Caller, in UserName) (out route.Empty, err error) {
	key, err := m.key(ctx, "user", in.Name)
	if err != nil {
		return out, err
	}
	return out, m.users.Remove(ctx, key)
}

func (m *Method) unlock(ctx context.Context, _ route.Caller, in UserName) (out route.Empty, err error) {
	name, ok := nameOf(in.Name, false)
	if !ok {
		return out, fault.New(fault.Invalid, "that is no name of a user")
	}
	return out, m.guard.Unlock(ctx, name)
}

func (m *Method) locked(ctx context.Context, _ route.Caller, _ route.Nothing) (route.KeysInfo[attempts.Locked], error) {
	return m.guard.Locked(ctx)
}
