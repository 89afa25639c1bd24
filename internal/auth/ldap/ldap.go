// Package ldap is the auth method of people whom an LDAP directory knows, such as
// Active Directory or OpenLDAP: whoever can bind as an entry of it logs in, with the
// policies of the groups that the directory says the entry is in.
//
// The directory is asked anew at each login, and nothing that it answers is kept.
// A password goes to the directory and nowhere else. Changing the directory's
// entries or passwords is not its concern.
package ldap

import (
	"context"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/attempts"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Method answers the routes of one mount.
type Method struct {
	method  string // the mount's path as display names have it: "ldap"
	storage storage.Engine
	config  rows.Book[config]
	groups  rows.Book[group]
	users   rows.Book[user]
	guard   *attempts.Guard
}

var (
	_ auth.Renewer = (*Method)(nil)
	_ auth.Lister  = (*Method)(nil)
)

// Kind declares ldap. All mounts share one bound of the logins under way.
func Kind() engine.Kind[attempts.Options, *Method] {
	gate := attempts.NewGate()
	return engine.Kind[attempts.Options, *Method]{
		Name: "ldap", Doc: "Log in with the name and password of an LDAP directory.", Class: engine.Auth,
		Open: func(_ context.Context, env engine.Env, o attempts.Options) (*Method, error) {
			guard, err := attempts.New(attempts.Mount{Storage: env.Storage, Fingerprint: env.Fingerprint, ID: env.Mount.Namespace + "/" + env.Mount.Path}, o, gate)
			if err != nil {
				return nil, err
			}
			return &Method{
				method: env.Mount.Method(), storage: env.Storage, guard: guard,
				config: rows.New[config](env, ""), groups: rows.New[group](env, groupPrefix), users: rows.New[user](env, userPrefix),
			}, nil
		},
		Routes: routes,
	}
}

var routes = []route.Route[*Method]{
	route.New("POST", "login/{username}", "Log in.", (*Method).login, route.Public(),
		route.Shows("login/ada", `{"password":"correct horse battery staple"}`, "")),
	route.New("GET", "config", "Read how the directory is asked, without the secrets in it.", (*Method).readConfig,
		route.Shows("config", "", "")),
	route.New("POST", "config", "Say how the directory is asked; what is left out stays as it is.", (*Method).writeConfig,
		route.Shows("config", `{"url":"ldaps://ldap.example.com","binddn":"cn=coffer,dc=example,dc=com","bindpass":"its password","userdn":"ou=people,dc=example,dc=com","userattr":"uid","groupdn":"ou=groups,dc=example,dc=com"}`, "")),
	route.New("LIST", "groups", "List the groups that have policies.", (*Method).listGroups,
		route.Shows("groups", "", `{"keys":["operators"]}`)),
	route.New("GET", "groups/{name}", "Read a group's policies.", (*Method).readGroup,
		route.Shows("groups/operators", "", "")),
	route.New("POST", "groups/{name}", "Give a group of the directory policies, in place of those it had.", (*Method).writeGroup,
		route.Shows("groups/operators", `{"policies":"operate,read-all"}`, "")),
	route.New("DELETE", "groups/{name}", "Take a group's policies away. Tokens that have them live on until they end, and cannot be renewed.", (*Method).removeGroup,
		route.Shows("groups/operators", "", "")),
	route.New("LIST", "users", "List the users that have policies or groups here.", (*Method).listUsers,
		route.Shows("users", "", `{"keys":["ada"]}`)),
	route.New("GET", "users/{name}", "Read a user's policies and groups.", (*Method).readUser,
		route.Shows("users/ada", "", "")),
	route.New("POST", "users/{name}", "Give a user of the directory policies and further groups, in place of those given before.", (*Method).writeUser,
		route.Shows("users/ada", `{"policies":"personal","groups":"operators"}`, "")),
	route.New("DELETE", "users/{name}", "Take a user's policies and further groups away. The user still logs in as far as the directory allows.", (*Method).removeUser,
		route.Shows("users/ada", "", "")),
	route.New("POST", "users/{name}/unlock", "Let a user log in again who was locked after failures.", (*Method).unlock,
		route.Shows("users/ada/unlock", "", "")),
	route.New("LIST", "locked-users", "List the users that are locked now.", (*Method).locked,
		route.Shows("locked-users", "", "")),
}
