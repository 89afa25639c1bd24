// Package spiffe is the auth method of workloads that hold a SPIFFE identity: an
// X.509-SVID, with which they connect, or a JWT-SVID, which they send. A mount
// trusts one trust domain by its bundle, and a role says which of the domain's
// workloads it is for.
//
// SVIDs are verified by the SPIFFE project's own library. Issuing them is not this
// package's concern.
package spiffe

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Method answers the routes of one mount.
type Method struct {
	storage storage.Engine
	recent  func(ctx context.Context, key string) ([]byte, error)
	log     *slog.Logger
	name    string // the mount's path as display names have it: "spiffe"
	trust   atomic.Pointer[trust]
}

// Kind declares spiffe.
var Kind = engine.Kind[struct{}, *Method]{
	Name: "spiffe", Doc: "Log in with a SPIFFE identity: an X.509-SVID or a JWT-SVID.", Class: engine.Auth,
	Open: func(_ context.Context, env engine.Env, _ struct{}) (*Method, error) {
		return &Method{storage: env.Storage, recent: env.Recent, log: env.Log, name: env.Mount.Method()}, nil
	},
	Routes: []route.Route[*Method]{
		route.New("POST", "login", "Log in with the X.509-SVID that the connection was made with, or with a JWT-SVID.", (*Method).login, route.Public(),
			route.Shows("login", `{"role":"web","jwt":"eyJ…"}`, "")),
		route.New("GET", "config", "Read the trust domain and how its bundle is got.", (*Method).readConfig,
			route.Shows("config", "", "")),
		route.New("POST", "config", "Set the trust domain and its bundle, or, with an empty body, fetch the bundle now.", (*Method).writeConfig,
			route.Shows("config", `{"trust_domain":"example.org","profile":"https_web_bundle","endpoint_url":"https://spire.example.org:8443","audience":"coffer"}`, "")),
		route.New("LIST", "role", "List the roles.", (*Method).list,
			route.Shows("role", "", `{"keys":["web"]}`)),
		route.New("GET", "role/{name}", "Read a role.", (*Method).read,
			route.Shows("role/web", "", "")),
		route.New("POST", "role/{name}", "Create a role, or change one; what is left out stays as it is.", (*Method).write, route.ExistsBy((*Method).exists),
			route.Shows("role/web", `{"workload_id_patterns":["/env/+/svc/web","/env/prod/svc/db-*"],"token_policies":"web"}`, "")),
		route.New("DELETE", "role/{name}", "Delete a role. Its tokens live on until they end, and cannot be renewed.", (*Method).remove,
			route.Shows("role/web", "", "")),
	},
	Run: (*Method).run,
}

// Rows: the settings with the bundle, and roles by name.
const (
	configKey  = "config"
	rolePrefix = "role/"
)
