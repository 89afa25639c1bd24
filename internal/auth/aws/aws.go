// Package aws is the auth method of AWS users and roles: a caller signs a request
// that asks AWS who it is (sts:GetCallerIdentity) and hands it over; this server
// sends it on and learns who signed it. No key of the caller's is seen.
//
// A role says which principals log in as it. Nothing here speaks for an EC2
// instance: the type ec2 is refused.
package aws

import (
	"context"
	"sync"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/route"
)

// Method answers the routes of one mount.
type Method struct {
	method   string // the mount's path as display names have it: "aws"
	settings rows.Book[settings]
	identity rows.Book[identity]
	roles    rows.Book[role]

	mu     sync.Mutex
	ca     string // what client trusts
	client *remote.Client
}

var _ auth.Renewer = (*Method)(nil)

// Kind declares aws.
var Kind = engine.Kind[struct{}, *Method]{
	Name: "aws", Doc: "Log in as an AWS user or role, with a signed sts:GetCallerIdentity.", Class: engine.Auth,
	Open: func(_ context.Context, env engine.Env, _ struct{}) (*Method, error) {
		return &Method{
			method: env.Mount.Method(), settings: rows.New[settings](env, "config/"),
			identity: rows.New[identity](env, "config/"), roles: rows.New[role](env, "role/"),
		}, nil
	},
	Routes: []route.Route[*Method]{
		route.New("POST", "login", "Log in with a signed request.", (*Method).login, route.Public(),
			route.Shows("login", `{"role":"deploy","iam_http_request_method":"POST","iam_request_url":"aHR0cHM6Ly9zdHMuYW1hem9uYXdzLmNvbS8=","iam_request_body":"QWN0aW9uPUdldENhbGxlcklkZW50aXR5JlZlcnNpb249MjAxMS0wNi0xNQ==","iam_request_headers":"eyJYLUFtei1EYXRlIjpbIjIwMjYwMTAxVDAwMDAwMFoiXX0="}`, "")),
		route.New("GET", "config/client", "Read how AWS is asked, without the secret key.", (*Method).readSettings,
			route.Shows("config/client", "", "")),
		route.New("POST", "config/client", "Say how AWS is asked; what is left out stays as it is.", (*Method).writeSettings,
			route.Shows("config/client", `{"sts_endpoint":"https://sts.eu-central-1.amazonaws.com","sts_region":"eu-central-1","iam_server_id_header_value":"coffer.example.com"}`, "")),
		route.New("DELETE", "config/client", "Go back to the standards.", (*Method).removeSettings,
			route.Shows("config/client", "", "")),
		route.New("GET", "config/identity", "Read how aliases are named.", (*Method).readIdentity,
			route.Shows("config/identity", "", `{"iam_alias":"role_id","iam_metadata":["account_id","auth_type"],"ec2_alias":"role_id","ec2_metadata":[]}`)),
		route.New("POST", "config/identity", "Say how aliases are named; what is left out stays as it is.", (*Method).writeIdentity,
			route.Shows("config/identity", `{"iam_alias":"canonical_arn","iam_metadata":"account_id,canonical_arn"}`, "")),
		route.New("LIST", "role", "List the roles.", (*Method).list,
			route.Shows("role", "", `{"keys":["deploy"]}`)),
		route.New("LIST", "roles", "List the roles.", (*Method).list,
			route.Shows("roles", "", `{"keys":["deploy"]}`)),
		route.New("GET", "role/{name}", "Read a role.", (*Method).readRole,
			route.Shows("role/deploy", "", "")),
		route.New("POST", "role/{name}", "Create a role, or change one; what is left out stays as it is.", (*Method).writeRole, route.ExistsBy((*Method).exists),
			route.Shows("role/deploy", `{"auth_type":"iam","bound_iam_principal_arn":"arn:aws:iam::123456789012:role/deploy","token_policies":"deploy","token_ttl":"10m"}`, "")),
		route.New("DELETE", "role/{name}", "Delete a role. Its tokens live on until they end, and cannot be renewed.", (*Method).removeRole,
			route.Shows("role/deploy", "", "")),
	},
}
