// Package database lends accounts of databases: each reader of creds/ROLE gets one
// of its own, which ends with its lease. It changes the passwords of accounts that
// stay (static roles, and its own administrator's) so that a crash at any point
// leaves one that is known. What a kind of database has to do is package plugin's.
package database

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/database/mysql"
	"github.com/cofferhq/coffer/internal/engine/database/plugin"
	"github.com/cofferhq/coffer/internal/engine/database/postgresql"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

// plugins are the kinds of databases, by their names. One is added here.
var plugins = byName(&postgresql.Plugin, &mysql.Plugin)

func byName(all ...*plugin.Plugin) map[string]*plugin.Plugin {
	out := map[string]*plugin.Plugin{}
	for _, p := range all {
		out[p.Name] = p
	}
	return out
}

// pluginOf returns a plugin by name, also by those that Vault has for other
// generations of it.
func pluginOf(name string) (*plugin.Plugin, error) {
	if name == "" {
		return nil, fault.New(fault.Invalid, "empty plugin name")
	}
	if p := plugins[name]; p != nil {
		return p, nil
	}
	if strings.HasPrefix(name, "mysql-") {
		return &mysql.Plugin, nil // mysql-aurora-, mysql-rds-, mysql-legacy-database-plugin
	}
	return nil, fault.New(fault.Invalid, "there is no database plugin %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(plugins)), ", "))
}

// Engine is the state of a mount.
type Engine struct {
	env     engine.Env
	configs rows.Book[config]
	roles   rows.Book[role]
	statics rows.Book[static]
	servers servers
}

// Kind declares the engine.
var Kind = engine.Kind[struct{}, *Engine]{
	Name: "database", Class: engine.Secret, Doc: "Accounts of databases, lent for a while, and passwords that are changed by the clock.",
	Open: func(_ context.Context, env engine.Env, _ struct{}) (*Engine, error) {
		e := &Engine{env: env, configs: rows.New[config](env, configRows), roles: rows.New[role](env, roleRows), statics: rows.New[static](env, staticRows)}
		return e, nil
	},
	Routes: slices.Concat(configRoutes, roleRoutes, staticRoutes),
	Lending: &engine.Lending[*Engine]{
		Extend: (*Engine).extend,
		Revoke: (*Engine).revoke,
	},
	Due: (*Engine).due,
	Run: func(e *Engine, ctx context.Context) error {
		<-ctx.Done()
		e.servers.closeAll()
		return nil
	},
}

// What rows are called below the mount.
const (
	configRows = "config/"
	roleRows   = "role/"
	staticRows = "static/"
)

// Named names a connection, a role or a static role.
type Named struct {
	Name string `path:"name" doc:"The name."`
}

const maxName = 256

// checkName refuses what cannot name something.
func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return fault.New(fault.Invalid, "a name has at most %d bytes", maxName)
	case strings.Contains(name, "/"):
		return fault.New(fault.Invalid, "a name holds no slash")
	}
	return engine.CheckPath(name)
}

// Statements are statements of a database: one text, or a list of them.
type Statements []string

func (e *Engine) listConfigs(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return e.configs.List(ctx, in)
}

func (e *Engine) listRoles(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return e.roles.List(ctx, in)
}

func (e *Engine) listStatics(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return e.statics.List(ctx, in)
}
