// Package jwt is the auth method of callers who bring a JSON web token of an
// issuer that is trusted: jobs of a CI system, workloads, and people, who are sent
// to their identity provider in a browser (OpenID Connect) and come back with one.
// It is mounted as jwt or as oidc; both do the same.
//
// A role says which tokens log in as it, and what they may do. Tokens are verified
// by package issuer. Nothing here knows a provider by its name.
package jwt

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Method answers the routes of one mount.
type Method struct {
	storage     storage.Engine
	recent      func(ctx context.Context, key string) ([]byte, error)
	fingerprint func([]byte) string
	log         *slog.Logger
	method      string // the mount's path as display names have it: "jwt"
	mount       string // the mount's path below auth/: "jwt"
	begun       *begun

	mu     sync.Mutex
	config string // the id of the configuration that issuer is of
	issuer *issuer.Issuer
}

var _ auth.Renewer = (*Method)(nil)

// The two names under which the method is mounted.
var (
	Kind = kind("jwt", "Log in with a JSON web token, such as CI systems give their jobs.")
	OIDC = kind("oidc", "Log in with an identity provider in a browser (OpenID Connect).")
)

func kind(name, doc string) engine.Kind[struct{}, *Method] {
	return engine.Kind[struct{}, *Method]{
		Name: name, Doc: doc, Class: engine.Auth,
		Open: func(_ context.Context, env engine.Env, _ struct{}) (*Method, error) {
			return &Method{
				storage: env.Storage, recent: env.Recent, fingerprint: env.Fingerprint, log: env.Log,
				method: env.Mount.Method(), mount: below(env.Mount.Path), begun: newBegun(time.Now),
			}, nil
		},
		Routes: routes, Run: (*Method).run,
	}
}

var routes = []route.Route[*Method]{
	route.New("GET", "config", "Read the configuration, without the client's secret.", (*Method).readConfig,
		route.Shows("config", "", "")),
	route.New("POST", "config", "Say whose tokens are trusted. What is left out is set to its standard.", (*Method).writeConfig,
		route.Shows("config", `{"jwt_validation_pubkeys":"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----","bound_issuer":"https://ci.example.com","default_role":"deploy"}`, "")),
	route.New("LIST", "role", "List the roles.", (*Method).list,
		route.Shows("role", "", `{"keys":["deploy"]}`)),
	route.New("GET", "role/{name}", "Read a role.", (*Method).readRole,
		route.Shows("role/deploy", "", "")),
	route.New("POST", "role/{name}", "Create a role, or change one; what is left out stays as it is.", (*Method).writeRole, route.ExistsBy((*Method).exists),
		route.Shows("role/deploy", `{"role_type":"jwt","user_claim":"sub","bound_audiences":"https://coffer.example.com","bound_claims":{"repository":"acme/app","ref":"refs/heads/main"},"token_policies":"deploy","token_ttl":"10m"}`, "")),
	route.New("DELETE", "role/{name}", "Delete a role. Its tokens live on until they end, and cannot be renewed.", (*Method).removeRole,
		route.Shows("role/deploy", "", "")),
	route.New("POST", "login", "Log in with a token.", (*Method).login, route.Public(),
		route.Shows("login", `{"role":"deploy","jwt":"header.claims.signature"}`, "")),
	route.New("POST", "oidc/auth_url", "Begin a login in a browser: the address to open.", (*Method).authURL, route.Public(),
		route.Shows("oidc/auth_url", `{"role":"people","redirect_uri":"http://localhost:8250/oidc/callback","client_nonce":"made-up-by-the-client"}`, "")),
	route.New("GET", "oidc/callback", "Finish a login in a browser with what the provider sent back.", (*Method).callback, route.Public(), route.Changes(),
		route.Shows("oidc/callback?state=unknown&code=one", "", "")),
	route.New("POST", "oidc/callback", "Keep what the provider posted (form_post), for the login to be finished with.", (*Method).posted, route.Public(),
		route.Shows("oidc/callback", `{"state":"unknown","code":"one"}`, "")),
}

// Rows: the configuration, roles by name, and logins that were begun, by the
// fingerprint of their state.
const (
	configKey   = "config"
	rolePrefix  = "role/"
	statePrefix = "state/"
)

// lately returns a row as it was at most a second ago, nil when there is none.
func lately[T any](ctx context.Context, m *Method, key string) (*T, error) {
	row, err := m.recent(ctx, key)
	return storage.Decode[T](key, row, err)
}
