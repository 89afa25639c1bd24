// Package cert is the auth method of programs and machines that hold a TLS client
// certificate: a role trusts authorities, or one certificate, and says what a
// certificate must have in it. That the client holds its key was proven in the TLS
// handshake; everything else is verified here, with the standard library.
//
// Issuing certificates is not its concern, nor is whose certificates a listener
// demands. SPIFFE's certificates have a method of their own.
package cert

import (
	"context"
	"log/slog"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Method answers the routes of one mount.
type Method struct {
	storage storage.Engine
	recent  func(ctx context.Context, key string) ([]byte, error)
	log     *slog.Logger
	name    string // the mount's path as display names have it: "cert"
	roles   kept[*trust]
	revoked kept[*revocations]
	answers answers // of OCSP responders
}

// Kind declares cert.
var Kind = engine.Kind[struct{}, *Method]{
	Name: "cert", Doc: "Log in with a TLS client certificate.", Class: engine.Auth,
	Open: func(_ context.Context, env engine.Env, _ struct{}) (*Method, error) {
		m := &Method{storage: env.Storage, recent: env.Recent, log: env.Log, name: env.Mount.Method()}
		m.roles = kept[*trust]{key: roleState, load: loadTrust}
		m.revoked = kept[*revocations]{key: crlState, load: loadRevocations}
		return m, nil
	},
	Routes: []route.Route[*Method]{
		route.New("POST", "login", "Log in with the certificate that the connection was made with.", (*Method).login, route.Public(),
			route.Shows("login", `{"name":"web"}`, "")),
		route.New("LIST", "certs", "List the roles.", (*Method).list,
			route.Shows("certs", "", `{"keys":["web"]}`)),
		route.New("GET", "certs/{name}", "Read a role.", (*Method).read,
			route.Shows("certs/web", "", "")),
		route.New("POST", "certs/{name}", "Create a role, or change one; what is left out stays as it is.", (*Method).write, route.ExistsBy((*Method).exists),
			route.Shows("certs/web", `{"allowed_common_names":"*.web.example.com","token_policies":"web","token_ttl":"20m"}`, "")),
		route.New("DELETE", "certs/{name}", "Delete a role. Its tokens live on until they end, and cannot be renewed.", (*Method).remove,
			route.Shows("certs/web", "", "")),
		route.New("LIST", "crls", "List the revocation lists.", (*Method).listCRLs,
			route.Shows("crls", "", `{"keys":["ca"]}`)),
		route.New("GET", "crls/{name}", "Read which serial numbers a revocation list holds.", (*Method).readCRL,
			route.Shows("crls/ca", "", "")),
		route.New("POST", "crls/{name}", "Upload a revocation list, or name the URL where it is.", (*Method).writeCRL,
			route.Shows("crls/ca", `{"url":"https://pki.example.com/ca.crl"}`, "")),
		route.New("DELETE", "crls/{name}", "Delete a revocation list: what it revoked is accepted again.", (*Method).removeCRL,
			route.Shows("crls/ca", "", "")),
		route.New("GET", "config", "Read the method's settings.", (*Method).readConfig,
			route.Shows("config", "", `{"disable_binding":false,"enable_identity_alias_metadata":false,"enable_metadata_on_failures":false,"ocsp_cache_size":100,"role_cache_size":200}`)),
		route.New("POST", "config", "Change the method's settings; what is left out stays as it is.", (*Method).writeConfig,
			route.Shows("config", `{"enable_identity_alias_metadata":true}`, "")),
	},
	Run: (*Method).run,
}

// Rows: the settings, roles by name, revocation lists by name with their serial
// numbers in parts, and for roles and lists what tells that they changed.
const (
	configKey  = "config"
	rolePrefix = "role/"
	roleState  = "roles"
	crlPrefix  = "crl/"
	partPrefix = "crl-part/"
	crlState   = "crls"
)

// state is the row that every change of roles, or of revocation lists, writes.
type state struct {
	ID    string `json:"id"` // another with each change
	Count int    `json:"count"`
}

// changed writes that roles or lists changed, of which there are more by now.
func changed(t storage.Txn, key string, more int) error {
	s, err := storage.Load[state](t, key)
	if err != nil {
		return err
	}
	if s == nil {
		s = new(state)
	}
	return storage.Save(t, key, state{uuid.NewString(), s.Count + more})
}

// count returns how many roles or lists there are.
func count(r storage.Reader, key string) (int, error) {
	s, err := storage.Load[state](r, key)
	if err != nil || s == nil {
		return 0, err
	}
	return s.Count, nil
}
