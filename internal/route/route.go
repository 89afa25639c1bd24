// Package route is the typed entry of an API: method, pattern, capability,
// summary, example, request and response. The router, authorization,
// validation, OpenAPI, help, docs and completion all come from a list of these.
//
// An engine writes
//
//	route.New("GET", "data/{path...}", "Read a version of a secret.", (*Store).Read)
//
// and nothing else describes that endpoint. Types are erased once, by New.
package route

import (
	"context"
	"crypto/x509"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
)

// Caller is who asks. Handlers get it as an argument.
type Caller struct {
	TokenID     string // the token's storage id, never the token itself; "" when nobody is logged in
	Accessor    string
	DisplayName string
	EntityID    string
	Policies    []string // all that count: the token's, its entity's and its groups'
	Root        bool
	Remote      netip.Addr
	RequestID   string
	Namespace   string
	Path        string        // of the request, below the mount
	Token       string        // as it was sent, for routes that act on the caller's own; public routes see it unchecked
	WrapTTL     time.Duration // of the wrapping that was asked for; 0 for none
	Access      Access        // what else the caller may do; nil means nothing
	Rights      Rights        // the same, to be shown; nil for nobody
	// Peer are the certificates that the client presented over TLS, leaf first. It
	// holds the leaf's key; nothing else about them was verified, unless the
	// listener has authorities of its own for its clients.
	Peer []*x509.Certificate
}

// Access answers what a caller may do besides the request at hand.
type Access interface {
	// Can reports whether the caller holds the capability on a wire path of the
	// namespace that the request is in.
	Can(need policy.Capability, path string) bool
}

// Rights answers what somebody may do at all.
type Rights interface {
	// Capabilities lists what they may do on a wire path, in either of its spellings.
	Capabilities(path, plain string) []string
	// Any reports whether they may do anything below a path.
	Any(below string) bool
}

// Can reports whether the caller holds the capability on a wire path such as
// "secret/metadata/app/db".
func (c Caller) Can(need policy.Capability, path string) bool {
	return c.Access != nil && c.Access.Can(need, path)
}

// Spelling is the path under which people write a policy for a route whose
// wire path has a verb in it: "secret/app/db" for "secret/data/app/db".
type Spelling struct {
	Pattern string            // in terms of the route's own variables
	Need    policy.Capability // needed of a rule written that way; 0 is the route's own
}

// Example is one request and what it answers, shown in docs and help and run by
// a test.
type Example struct {
	Path     string // below the mount, variables filled in
	Request  string // JSON, "" for none
	Response string // JSON of the response's data, "" for none
}

// Route is a typed entry in the API of an engine whose state is an S.
type Route[S any] struct{ spec Spec }

// Spec returns the route with its types erased.
func (r Route[S]) Spec() Spec { return r.spec }

// Spec is a route with its types erased.
type Spec struct {
	Method   string // GET, LIST, POST (which PUT equals), PATCH or DELETE
	Pattern  string
	Summary  string
	Example  *Example
	Need     policy.Capability // 0 with POST: create or update, by whether the target exists
	Sudo     bool              // needs the sudo capability besides
	Public   bool              // needs no token
	AnyToken bool              // needs a token, and of its policies nothing
	Nobody   bool              // with AnyToken: nobody may call it too
	Sealed   bool              // works while the server is sealed
	RootOnly bool              // is not there in namespaces
	Unlocks  bool              // works in a locked namespace
	Changes  bool              // an intent is recorded before it runs
	Plain    *Spelling
	Request  reflect.Type
	Response reflect.Type

	fields []field
	decode func(*Input) (any, []string, error)
	invoke func(ctx context.Context, engine any, by Caller, req any) (any, error)
	exists func(ctx context.Context, engine any, req any) (bool, error)
}

// Option sets what a route does not say by its method.
type Option func(*Spec)

// Needs sets the capability needed, where the method does not say it.
func Needs(c policy.Capability) Option { return func(s *Spec) { s.Need = c } }

// Sudo makes the route need the sudo capability besides.
func Sudo() Option { return func(s *Spec) { s.Sudo = true } }

// Public makes the route need no token.
func Public() Option { return func(s *Spec) { s.Public = true } }

// AnyToken lets every valid token call the route, whatever its policies say: the
// handler shows no more than they allow.
func AnyToken() Option { return func(s *Spec) { s.AnyToken = true } }

// AnyTokenOrNone lets every valid token call the route, and callers who send none:
// they are told only what is for everybody. A token that is sent must be valid.
func AnyTokenOrNone() Option { return func(s *Spec) { s.AnyToken, s.Nobody = true, true } }

// NoToken refuses a caller who sent no token. A route that tells nobody whether there
// is something answers it, too.
func NoToken() error {
	return fault.New(fault.Denied, "permission denied: no token was sent; send it as X-Vault-Token or as Authorization: Bearer; `coffer login` gets one")
}

// WhileSealed lets the route work while the server is sealed.
func WhileSealed() Option { return func(s *Spec) { s.Sealed = true } }

// RootOnly keeps the route out of namespaces: it is of the server.
func RootOnly() Option { return func(s *Spec) { s.RootOnly = true } }

// WhileLocked lets the route work in a locked namespace.
func WhileLocked() Option { return func(s *Spec) { s.Unlocks = true } }

// With returns routes with an option that all of them have.
func With[S any](option Option, routes []Route[S]) []Route[S] {
	out := slices.Clone(routes)
	for i := range out {
		option(&out[i].spec)
	}
	return out
}

// Reads marks a POST that changes nothing, so that no intent is recorded.
func Reads() Option { return func(s *Spec) { s.Changes = false } }

// Changes marks a GET or LIST that changes something.
func Changes() Option { return func(s *Spec) { s.Changes = true } }

// Spelled names the route's plain spelling and the capability that a rule
// written that way must hold; 0 is the route's own.
func Spelled(pattern string, need policy.Capability) Option {
	return func(s *Spec) { s.Plain = &Spelling{pattern, need} }
}

// Shows attaches an example.
func Shows(path, request, response string) Option {
	return func(s *Spec) { s.Example = &Example{path, request, response} }
}

// ExistsBy tells create from update: fn reports whether what the request is
// about exists already.
func ExistsBy[S, Req any](fn func(S, context.Context, Req) (bool, error)) Option {
	return func(s *Spec) {
		s.exists = func(ctx context.Context, engine, req any) (bool, error) {
			return fn(engine.(S), ctx, req.(Req))
		}
	}
}

// New returns the route that runs h. Req is a struct whose fields are tagged
// path, query or json (and doc); Resp is what is answered: see Notes, Bare,
// Raw, Empty and Keys.
func New[S, Req, Resp any](method, pattern, summary string, h func(S, context.Context, Caller, Req) (Resp, error), options ...Option) Route[S] {
	spec := Spec{
		Method: method, Pattern: pattern, Summary: summary,
		Request: reflect.TypeFor[Req](), Response: reflect.TypeFor[Resp](),
	}
	switch method {
	case "GET":
		spec.Need = policy.Read
	case "LIST":
		spec.Need = policy.List
	case "DELETE":
		spec.Need, spec.Changes = policy.Delete, true
	case "PATCH":
		spec.Need, spec.Changes = policy.Patch, true
	case "POST":
		spec.Changes = true
	default:
		panic("route: " + method + " " + pattern + ": method is not one of GET, LIST, POST, PATCH, DELETE")
	}
	for _, option := range options {
		option(&spec)
	}
	if spec.Need == 0 && spec.exists == nil {
		spec.Need = policy.Update
	}
	spec.fields = plan(spec.Request, pattern)
	spec.decode = func(in *Input) (any, []string, error) {
		var req Req
		warnings, err := fill(reflect.ValueOf(&req).Elem(), spec.fields, in)
		return req, warnings, err
	}
	spec.invoke = func(ctx context.Context, engine any, by Caller, req any) (any, error) {
		return h(engine.(S), ctx, by, req.(Req))
	}
	return Route[S]{spec}
}

// Erase returns the specs of routes.
func Erase[S any](routes []Route[S]) []Spec {
	specs := make([]Spec, len(routes))
	for i, r := range routes {
		specs[i] = r.spec
	}
	return specs
}

// Decode makes the typed request of in, with warnings for parameters that the
// route does not know. Errors are faults that name the field.
func (s *Spec) Decode(in *Input) (req any, warnings []string, err error) { return s.decode(in) }

// Invoke runs the handler on the mounted engine.
func (s *Spec) Invoke(ctx context.Context, engine any, by Caller, req any) (any, error) {
	return s.invoke(ctx, engine, by, req)
}

// Needed returns the capability that the request needs: for a POST, create when
// what it is about does not exist yet and the route can tell, else update.
func (s *Spec) Needed(ctx context.Context, engine any, req any) (policy.Capability, error) {
	if s.Need != 0 {
		return s.Need, nil
	}
	found, err := s.exists(ctx, engine, req)
	if err != nil {
		return 0, err
	}
	if found {
		return policy.Update, nil
	}
	return policy.Create, nil
}
