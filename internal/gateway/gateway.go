package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/access"
	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/quota"
	"github.com/cofferhq/coffer/internal/realm"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

// Services are what the gateway needs once the server is unsealed.
type Services struct {
	Realms *realm.Table
	Tokens *token.Store // the root's
	Leases *lease.Book  // nil: nothing is lent
	Quotas *quota.Store // nil: there are none
}

// Options are what the gateway needs from the start.
type Options struct {
	Audit *audit.Log
	// Sys answers the routes that work while the server is sealed.
	Sys      any
	SysTable *route.Table
	Log      *slog.Logger
	// Metrics is told what passes; nil: nobody is.
	Metrics Metrics
	// RelaxedReads lets a plain read's outcome be written but not yet synced
	// when its answer leaves.
	RelaxedReads bool
	// StaleReads is how old the answer of a read may be that is given, marked as
	// stale, while the storage engine is away; 0 gives none.
	StaleReads time.Duration
}

// Metrics counts. Routes are named by the kind of their mount and their pattern,
// never by a path.
type Metrics interface {
	Begin()
	Finish(route, method string, status int, took time.Duration)
	Denied(reason string)
	Changed(kind string)
	LoggedIn(method string, ok bool)
	TokenCreated(kind string)
	TokenLookedUp()
	AuditWritten(took time.Duration, err error)
}

// Gateway takes every request through its life.
type Gateway struct {
	Options
	services atomic.Pointer[Services]
	denials  denials
	inFlight sync.Map // *Request: time.Time
}

// New returns a gateway that answers as a sealed server does until Open.
func New(options Options) *Gateway {
	if options.Metrics == nil {
		options.Metrics = uncounted{}
	}
	return &Gateway{Options: options}
}

// Open lets requests through to the engines.
func (g *Gateway) Open(s *Services) { g.services.Store(s) }

// Shut makes the gateway answer as a sealed server does.
func (g *Gateway) Shut() { g.services.Store(nil) }

// turn is one request on its way.
type turn struct {
	*Request
	begun    time.Time
	services *Services // nil while sealed

	realm   *realm.Realm   // where the request goes; nil while sealed
	home    *realm.Realm   // that the token belongs to; nil without one
	mount   *mount.Mounted // nil when nothing is mounted there, and for sys while sealed
	below   string         // the path below the mount
	inner   string         // the path from the namespace that was asked to the mount's
	spec    *route.Spec
	state   any
	vars    route.Vars
	missing error // why there is no route; told only to those allowed to know
	allow   []string

	token  *token.Token
	rights access.Rights
	caller route.Caller

	params   *wire.Params
	input    any
	need     policy.Capability
	wrapTTL  time.Duration
	decision *audit.Decision
	intended bool // the intent is recorded, so that what follows may be done
	output   any
	notes    route.Notes
	lent     *route.Lease // what the handler lent, whatever becomes of the answer
	warnings []string
	stale    barrier.Stale // what StaleReads came to
	passes   []quota.Pass  // of the quotas that let it through
	limited  bool          // a quota refused it
}

// step is one part of a request's life.
type step func(*Gateway, context.Context, *turn) error

// life is the way of every request, in order. The first error ends it; what was
// decided is recorded and answered in any case.
var life = []step{
	(*Gateway).identify,     // is it a request at all
	(*Gateway).find,         // the namespace, the mount, and the typed route in it
	(*Gateway).admit,        // quotas: 429, and when to come again
	(*Gateway).authenticate, // the token, and who holds it
	(*Gateway).admitKnown,   // quotas that count who holds it
	(*Gateway).decode,       // path, query and body into the route's request
	(*Gateway).authorize,    // policies: allow, or deny and know why
	(*Gateway).intend,       // an intent is durable before anything changes
	(*Gateway).handle,       // the engine's handler
	(*Gateway).grant,        // a token for a login, a wrapping if asked
}

// Serve takes a request through its life and returns the answer. The answer's
// outcome is in the audit log when Serve returns; where it cannot be, the answer
// says only that.
func (g *Gateway) Serve(ctx context.Context, r *Request) Answer {
	t := &turn{Request: r, begun: time.Now(), services: g.services.Load()}
	g.Metrics.Begin()
	g.inFlight.Store(r, t.begun)
	streams := false
	defer func() {
		if !streams {
			g.inFlight.Delete(r)
			t.leave()
		}
	}()
	if g.StaleReads > 0 && r.Method == "GET" {
		t.stale.Grace = g.StaleReads
		ctx = barrier.AllowStale(ctx, &t.stale)
	}
	var err error
	for _, s := range life {
		if err = s(g, ctx, t); err != nil {
			break
		}
	}
	if age := t.stale.Age(); age > 0 {
		t.warnings = append(t.warnings, fmt.Sprintf("stale: the storage engine cannot be reached; this is what the node knew %v ago", age.Round(time.Second/10)))
	}
	answer, problem := t.answer(named(err))
	answer.Stale, answer.Left = t.stale.Age(), t.left()
	if t.token != nil {
		if err := t.services.Tokens.Release(context.WithoutCancel(ctx), t.token); err != nil {
			g.Log.Warn("a token whose last use is over is not removed yet", "accessor", t.token.Accessor, "error", err)
		}
	}
	if out, ok := t.output.(route.Stream); ok && problem == nil {
		streams = true
		answer.Stream, answer.Live = g.stream(t, out), out.Live
		return answer
	}
	if err := g.record(ctx, t, answer.Status, problem); err != nil {
		problem = fault.From(err)
		answer = failed(t, problem)
	}
	if problem != nil && t.lent != nil {
		g.takeBack(context.WithoutCancel(ctx), t)
	}
	if problem != nil && problem.Kind.Status() >= 500 && problem.Cause != nil {
		g.Log.Error("a request failed", "request_id", r.ID, "operation", r.Method, "path", r.Path, "error", problem)
	}
	g.count(t, answer.Status)
	return answer
}

// identify refuses what the listener could not read.
func (g *Gateway) identify(_ context.Context, t *turn) error {
	if t.Problem != nil {
		return t.Problem
	}
	return nil
}

// find finds the mount and the route. What is not there is remembered and told
// only after the caller was found to be allowed to know.
func (g *Gateway) find(ctx context.Context, t *turn) error {
	var table *route.Table
	if t.services == nil {
		below, ok := strings.CutPrefix(t.Path, "sys/")
		if !ok {
			return errSealed()
		}
		t.Namespace, t.below, t.state, table = "", below, g.Sys, g.SysTable
	} else {
		if below, ok := strings.CutPrefix(t.Path, "sys/"); ok && t.Namespace != "" {
			if spec, _, _ := g.SysTable.Find(t.Method, below); spec != nil && spec.Sealed {
				t.Namespace = "" // what tells of the server is the same wherever it is asked
			}
		}
		if err := t.place(ctx); err != nil {
			return err
		}
		if t.mount == nil {
			t.missing = fault.New(fault.NotFound, "no handler for route %q. route entry not found.", t.Path)
			return nil
		}
		t.state, table = t.mount.State, t.mount.Routes
	}
	if t.Help && t.mount != nil {
		t.spec, t.state = &helpRoute, helpFor{t.mount, t.below}
		return nil
	}
	t.spec, t.vars, t.allow = table.Find(t.Method, t.below)
	switch {
	case t.spec == nil && t.services == nil:
		return errSealed()
	case t.spec == nil && t.allow != nil:
		t.missing = fault.New(fault.Method, "unsupported operation")
	case t.spec == nil:
		t.missing = fault.New(fault.NotFound, "no handler for route %q. unsupported path", t.Path)
	case t.services == nil && !t.spec.Sealed:
		return errSealed()
	case t.spec.RootOnly && t.Namespace != "":
		t.missing = fault.New(fault.NotFound, "no handler for route %q. unsupported path in a namespace: it is of the whole server", t.Path)
		t.spec = nil
	}
	return nil
}

// place finds the realm and the mount that a request goes to. A namespace may be
// named by the header, by the beginning of the path, or by both.
func (t *turn) place(ctx context.Context) error {
	header, path := strings.Trim(t.Namespace, "/"), t.Path
	if header == "root" {
		header = ""
	}
	find := func() {
		t.realm, t.mount, t.below = t.services.Realms.At(header), nil, ""
		if t.realm == nil {
			// Who may not know whether there is such a namespace asks for a path
			// in the root that is not there either.
			t.realm, t.Namespace, t.Path = t.services.Realms.Root(), "", header+"/"+path
			return
		}
		asked := t.realm.Namespace.Path
		t.realm, t.Path = t.services.Realms.Find(asked + path)
		t.Namespace = t.realm.Namespace.Path
		t.inner = strings.TrimPrefix(t.Namespace, asked)
		t.mount, t.below = t.realm.Mounts.Find(t.Path)
	}
	find()
	// Coffer's own mounts stay; any other may have changed elsewhere.
	if t.services.Realms.Fresh() || t.mount != nil && t.mount.Spec.Class == engine.System {
		return nil
	}
	if err := t.services.Realms.Current(ctx); err != nil {
		return err
	}
	if err := t.realm.Mounts.Current(ctx); err != nil {
		return err
	}
	find()
	return nil
}

func errSealed() error {
	// Clients look for Vault's words.
	return fault.New(fault.Sealed, "Vault is sealed: this Coffer server answers nothing until it is unsealed, see `coffer operator unseal`")
}

// authenticate finds who asks. Public routes need nobody.
func (g *Gateway) authenticate(ctx context.Context, t *turn) error {
	t.caller = route.Caller{RequestID: t.ID, Remote: t.Remote.Addr(), Namespace: t.Namespace, Path: t.below, Token: t.Token, Peer: t.Peer}
	if t.services == nil || t.spec != nil && t.spec.Public {
		return nil
	}
	if t.Token == "" {
		if t.spec != nil && t.spec.Nobody && t.realm.Locked == nil {
			return nil
		}
		t.decision = &audit.Decision{Missing: "no token was sent"}
		return route.NoToken()
	}
	g.Metrics.TokenLookedUp()
	tok, err := t.services.Tokens.Lookup(ctx, t.Token)
	if fault.Is(err, fault.Denied) {
		return t.deny("the token is not valid: it ended, was revoked, or never was", "log in again")
	}
	if err != nil {
		return err
	}
	t.token, t.home = tok, t.services.Realms.Of(tok.Namespace)
	if t.home == nil {
		return t.deny("the namespace that the token belongs to was deleted", "log in to another one")
	}
	if !within(tok.BoundCIDRs, t.Remote.Addr()) {
		return t.deny("the token is bound to networks that the client's address is not in", "use it from one of them")
	}
	if tok.Mount != "" && !t.home.Mounts.Live(tok.Mount) {
		return t.deny("the auth method that granted the token was disabled", "log in by another method")
	}
	if err := t.services.Tokens.Use(ctx, tok); err != nil {
		return err
	}
	if !t.home.Namespace.Contains(t.realm.Namespace) || t.mount != nil && t.mount.Spec.Name == "cubbyhole" && t.home.Namespace.ID != t.realm.Namespace.ID {
		return t.deny("the token belongs to another namespace", "log in to the namespace that the request goes to")
	}
	if t.rights, err = t.home.Access.Of(ctx, tok); err != nil {
		return err
	}
	if t.rights.Barred != "" {
		return t.deny(t.rights.Barred, "ask whoever looks after identities")
	}
	t.caller.TokenID, t.caller.Accessor = tok.ID, tok.Accessor
	t.caller.DisplayName, t.caller.EntityID = tok.DisplayName, tok.EntityID
	t.caller.Policies, t.caller.Root = t.rights.Policies, t.rights.ACL.IsRoot()
	may := asked{t.rights.ACL, t.realm.Mounts, t.reach(), t.facts}
	t.caller.Access, t.caller.Rights = may, may
	return nil
}

func within(bounds []netip.Prefix, addr netip.Addr) bool {
	if len(bounds) == 0 {
		return true
	}
	for _, b := range bounds {
		if b.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// decode makes the route's typed request. A mistake in it is told only to those
// who may call the route, so it is kept until they are known.
func (g *Gateway) decode(_ context.Context, t *turn) error {
	if t.spec == nil {
		return nil
	}
	if err := t.parse(); err != nil {
		t.missing = err
		t.params = &wire.Params{}
		return nil
	}
	t.caller.WrapTTL = t.wrapTTL
	input, warnings, err := t.spec.Decode(&route.Input{Vars: t.vars, Params: t.params})
	if err != nil {
		t.missing = err
		return nil
	}
	t.input, t.warnings = input, warnings
	return nil
}

// authorize asks the policies, and then says what decode and find kept back.
func (g *Gateway) authorize(ctx context.Context, t *turn) error {
	if t.services == nil || t.spec != nil && (t.spec.Public || t.spec.AnyToken) {
		t.decision = &audit.Decision{Allowed: true}
		return t.allowed()
	}
	ask, err := t.question(ctx)
	if err != nil {
		return err
	}
	d := t.rights.ACL.Check(ask)
	t.decision = &audit.Decision{Allowed: d.Allowed, Policy: d.Policy, Rule: d.Rule, Missing: d.Missing}
	if !d.Allowed {
		g.denials.remember(&Denial{
			RequestID: t.ID, Time: t.begun, Namespace: t.Namespace, Asked: ask, acl: t.rights.ACL, Decision: d,
			Principal: t.caller.DisplayName, Accessor: t.caller.Accessor, Policies: t.caller.Policies,
		})
		return errDenied()
	}
	return t.allowed()
}

// allowed says what stands in the way of a request that the policies allow.
func (t *turn) allowed() error {
	if t.missing == nil && t.realm != nil && t.realm.Locked != nil && !t.spec.Unlocks {
		return fault.New(fault.Unavailable, "API access to this namespace has been locked by an administrator - %q must be unlocked to gain access.", t.realm.Locked.Path)
	}
	return t.missing
}

// reach is the path from the token's namespace to that of the request: policies name
// paths from where they are.
func (t *turn) reach() string {
	return strings.TrimPrefix(t.realm.Namespace.Path, t.home.Namespace.Path)
}

// question is what the policies are asked about the request.
func (t *turn) question(ctx context.Context) (policy.Request, error) {
	ask := policy.Request{Path: t.reach() + t.Path, Need: byMethod(t.Method), WrapTTL: t.wrapTTL, Facts: t.facts}
	if t.Method == "LIST" && !strings.HasSuffix(ask.Path, "/") {
		ask.Path += "/"
	}
	if t.spec == nil {
		return ask, nil
	}
	ask.Sudo, ask.Params, ask.Need = t.spec.Sudo, t.params, t.spec.Need
	if ask.Need == 0 {
		ask.Need = policy.Update
		if t.input != nil {
			need, err := t.spec.Needed(ctx, t.state, t.input)
			if err != nil {
				return ask, err
			}
			ask.Need = need
		}
	}
	t.need = ask.Need
	if plain := t.spec.Plain; plain != nil {
		ask.Plain = t.reach() + t.mount.Entry.Path + route.Expand(plain.Pattern, t.vars)
		if ask.PlainNeed = plain.Need; ask.PlainNeed == 0 {
			ask.PlainNeed = ask.Need
		}
	}
	return ask, nil
}

// facts are what conditions in policies can ask about.
func (t *turn) facts() *policy.Facts {
	f := &policy.Facts{
		Time: t.begun.UTC(), Namespace: t.Namespace, Remote: t.Remote.Addr(), WrapTTL: t.wrapTTL,
		DisplayName: t.caller.DisplayName, Policies: t.caller.Policies,
	}
	if t.params != nil {
		f.Parameters = t.params.Names()
	}
	if t.token != nil {
		f.TokenType = t.token.Type.String()
	}
	if who := t.rights.Who; who != nil {
		f.EntityID, f.EntityName, f.Metadata = who.Entity.ID, who.Entity.Name, who.Entity.Metadata
		for _, g := range who.Groups {
			f.Groups = append(f.Groups, g.Name)
		}
	}
	return f
}

func byMethod(method string) policy.Capability {
	switch method {
	case "GET":
		return policy.Read
	case "LIST":
		return policy.List
	case "DELETE":
		return policy.Delete
	case "PATCH":
		return policy.Patch
	}
	return policy.Update
}

// deny ends the request of a caller who is not known, or not here.
func (t *turn) deny(missing, next string) error {
	t.decision = &audit.Decision{Missing: missing}
	return fault.Wrap(fault.Denied, nil, "permission denied: %s; %s", missing, next)
}

// helpFor is the path that somebody asks help for. Help is no secret: any valid
// token gets it.
type helpFor struct {
	mount *mount.Mounted
	below string
}

func (h helpFor) describe(context.Context, route.Caller, route.Nothing) (route.Help, error) {
	return route.Describe(h.mount.Spec.Doc, h.mount.Entry.Path, h.below, h.mount.Spec.Routes), nil
}

var helpRoute = route.New("GET", "", "Describe a path.", helpFor.describe, route.AnyToken()).Spec()

// errDenied is the refusal that policies give. It says nothing of why: that is
// for those who may ask sys/policies/why.
func errDenied() error { return fault.New(fault.Denied, "permission denied") }

// handle runs the engine's handler.
func (g *Gateway) handle(ctx context.Context, t *turn) error {
	output, err := t.spec.Invoke(ctx, t.state, t.caller, t.input)
	if issued, ok := output.(*token.Issued); ok && issued == nil {
		output = nil // beside a refusal
	}
	if noted, ok := output.(route.Noted); ok {
		t.notes = noted.Carried()
		t.lent = t.notes.Lease
	}
	switch out := output.(type) {
	case token.Issued:
		output = &out
	case token.WrapInfo:
		output = &out
	}
	t.output = output
	return err
}

// named gives the storage engine's troubles, wherever on a request's way they
// were met, the words that say what to do.
func named(err error) error {
	var known *fault.Error
	switch {
	case errors.As(err, &known) && known.Kind != fault.Internal:
		return err
	case errors.Is(err, storage.ErrFull):
		return fault.Wrap(fault.Unavailable, err, "the storage is full, and nothing was changed; make space on its disk (etcd: compact, defragment and disarm its alarm), and the server goes on by itself")
	case errors.Is(err, storage.ErrUnavailable):
		away := fault.Wrap(fault.Unavailable, err, "the storage engine cannot be reached; try again, the server reconnects by itself")
		away.RetryAfter = time.Second // so that clients with retries send it again
		return away
	case errors.Is(err, storage.ErrUncertain):
		return fault.Wrap(fault.Unavailable, err, "the storage engine went away while it committed: the change may or may not be there; read it before trying again")
	}
	return err
}

// asked answers an engine what its caller may do besides.
type asked struct {
	acl    *policy.ACL
	mounts *mount.Table
	reach  string // from the namespace of the policies to that of the paths
	facts  func() *policy.Facts
}

// Capabilities implements route.Rights.
func (a asked) Capabilities(path, plain string) []string {
	if plain != "" {
		plain = a.reach + plain
	}
	return a.acl.Capabilities(a.reach+path, plain)
}

// Any implements route.Rights.
func (a asked) Any(below string) bool { return a.acl.IsRoot() || a.acl.AnyBelow(a.reach+below) }

// Can implements route.Access.
func (a asked) Can(need policy.Capability, path string) bool {
	ask := policy.Request{Path: a.reach + path, Need: need, Facts: a.facts}
	if m, below := a.mounts.Find(path); m != nil {
		method := methodOf(need)
		if spec, vars, _ := m.Routes.Find(method, below); spec != nil && spec.Plain != nil {
			ask.Plain, ask.PlainNeed = a.reach+m.Entry.Path+route.Expand(spec.Plain.Pattern, vars), spec.Plain.Need
			if ask.PlainNeed == 0 {
				ask.PlainNeed = need
			}
		}
	}
	return a.acl.Check(ask).Allowed
}

func methodOf(need policy.Capability) string {
	switch need {
	case policy.Read:
		return "GET"
	case policy.List:
		return "LIST"
	case policy.Delete:
		return "DELETE"
	case policy.Patch:
		return "PATCH"
	}
	return "POST"
}
