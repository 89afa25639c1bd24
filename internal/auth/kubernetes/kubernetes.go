// Package kubernetes is the auth method of pods: a service account's token is
// verified by asking the cluster that made it (TokenReview), or by the cluster's
// public keys alone. A role says which service accounts log in as it.
//
// It speaks to the API server in plain HTTP: of the Kubernetes API it needs three
// requests. Making service accounts and their tokens is not its concern.
package kubernetes

import (
	"context"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/route"
)

// Method answers the routes of one mount.
type Method struct {
	method string // the mount's path as display names have it: "kubernetes"
	config rows.Book[config]
	roles  rows.Book[role]
	keys   issuer.Kept
	own    own

	mu     sync.Mutex
	server string // what client is for
	client *remote.Client
}

var _ auth.Renewer = (*Method)(nil)

// Kind declares kubernetes.
var Kind = engine.Kind[struct{}, *Method]{
	Name: "kubernetes", Doc: "Log in with the token of a Kubernetes service account.", Class: engine.Auth,
	Open: func(_ context.Context, env engine.Env, _ struct{}) (*Method, error) {
		return &Method{
			method: env.Mount.Method(), config: rows.New[config](env, ""), roles: rows.New[role](env, "role/"),
			own: own{folder: "/var/run/secrets/kubernetes.io/serviceaccount", now: time.Now},
		}, nil
	},
	Routes: []route.Route[*Method]{
		route.New("POST", "login", "Log in with the token of a service account.", (*Method).login, route.Public(),
			route.Shows("login", `{"role":"web","jwt":"header.claims.signature"}`, "")),
		route.New("GET", "config", "Read how the cluster is asked, without this server's own token.", (*Method).readConfig,
			route.Shows("config", "", "")),
		route.New("POST", "config", "Say how the cluster is asked. What is left out is set to its standard.", (*Method).writeConfig,
			route.Shows("config", `{"kubernetes_host":"https://10.96.0.1:443"}`, "")),
		route.New("LIST", "role", "List the roles.", (*Method).list,
			route.Shows("role", "", `{"keys":["web"]}`)),
		route.New("GET", "role/{name}", "Read a role.", (*Method).readRole,
			route.Shows("role/web", "", "")),
		route.New("POST", "role/{name}", "Create a role, or change one; what is left out stays as it is.", (*Method).writeRole, route.ExistsBy((*Method).exists),
			route.Shows("role/web", `{"bound_service_account_names":"web","bound_service_account_namespaces":"shop,shop-*","audience":"coffer","token_policies":"web","token_ttl":"1h"}`, "")),
		route.New("DELETE", "role/{name}", "Delete a role. Its tokens live on until they end, and cannot be renewed.", (*Method).removeRole,
			route.Shows("role/web", "", "")),
	},
}
