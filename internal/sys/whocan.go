package sys

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/access"
	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/question"
	"github.com/cofferhq/coffer/internal/route"
)

// Bounds of who-can: what is beyond them is said, not listed.
const (
	MaxHolders       = 1000  // holders in an answer
	MaxRolesAsked    = 10000 // of one auth method
	MaxEntitiesAsked = 10000
	MaxTokensAsked   = 1000
)

var whoCanRoutes = []route.Route[*System]{
	route.New("POST", "policies/can", "Say whether somebody may do something, and by which rule.", (*System).can, route.Reads(),
		route.Shows("policies/can", `{"policies":["app"],"capability":"read","path":"secret/app/db"}`, "")),
	route.New("POST", "policies/who-can", "List the policies that grant something, and who holds them.", (*System).whoCan, route.Reads(),
		route.Shows("policies/who-can", `{"capability":"read","path":"secret/app/db"}`, "")),
}

// CanRequest asks what somebody may do. One of the first three names who.
type CanRequest struct {
	Policies   []string `json:"policies" doc:"Policies, as a token has them; default is not added."`
	Accessor   string   `json:"accessor" doc:"A token's accessor."`
	Entity     string   `json:"entity" doc:"An entity's name; its policies and those of its groups count."`
	Capability string   `json:"capability" doc:"What is to be done: create, read, update, delete, list, patch and the others."`
	Path       string   `json:"path" doc:"On which path, in either spelling."`
}

// CanAnswer is what they may do. Rules of policies that the caller may not read are
// counted and not shown.
type CanAnswer struct {
	Allowed    bool     `json:"allowed"`
	Path       string   `json:"path"`
	Plain      string   `json:"plain_path,omitempty"`
	Sudo       bool     `json:"sudo"` // the path needs sudo besides
	Policies   []string `json:"policies"`
	Policy     string   `json:"policy,omitempty"`
	Rule       string   `json:"rule,omitempty"`
	Missing    string   `json:"missing,omitempty"`
	Considered []string `json:"considered"`
	Hidden     int      `json:"hidden"` // policies that the caller may not read
}

// questions returns what turns an operation into what policies are asked.
func (s *System) questions() *question.Mounts {
	var list []question.Mount
	for _, m := range s.Open().Mounts.List() {
		list = append(list, question.Mount{Path: m.Entry.Path, Type: m.Entry.Type, Routes: m.Spec.Routes})
	}
	return question.New(list)
}

// mayRead reports whether a caller may read a policy, and so learn of it.
func mayRead(by route.Caller, name string) bool {
	return by.Can(policy.Read, "sys/policies/acl/"+name)
}

func (s *System) can(ctx context.Context, by route.Caller, in CanRequest) (CanAnswer, error) {
	ask, err := s.questions().Ask(in.Capability, in.Path)
	if err != nil {
		return CanAnswer{}, err
	}
	acl, names, err := s.identified(ctx, by, &in)
	if err != nil {
		return CanAnswer{}, err
	}
	ask.Facts = func() *policy.Facts {
		return &policy.Facts{Time: time.Now().UTC(), Namespace: by.Namespace, Policies: names}
	}
	e := acl.Explain(ask)
	out := CanAnswer{Allowed: e.Decision.Allowed, Path: ask.Path, Plain: ask.Plain, Sudo: ask.Sudo, Policies: []string{}, Considered: []string{}}
	for _, name := range names {
		if mayRead(by, name) {
			out.Policies = append(out.Policies, name)
		} else {
			out.Hidden++
		}
	}
	if out.Hidden == 0 {
		out.Policy, out.Rule, out.Missing = e.Decision.Policy, e.Decision.Rule, e.Decision.Missing
		out.Considered = e.Lines()
		return out, nil
	}
	// A part of the rules would mislead about what decides; the one that does is
	// named where it may be read.
	if d := e.Decision; d.Policy != "" && mayRead(by, d.Policy) {
		out.Policy, out.Rule = d.Policy, d.Rule
	}
	return out, nil
}

// identified returns the rules that somebody is under, for a caller who may know them.
func (s *System) identified(ctx context.Context, by route.Caller, in *CanRequest) (*policy.ACL, []string, error) {
	open := s.Open()
	switch {
	case in.Accessor != "" && in.Entity == "" && len(in.Policies) == 0:
		if !by.Can(policy.Update, "auth/token/lookup-accessor") {
			return nil, nil, fault.New(fault.Denied, "permission denied: to ask about a token needs update on auth/token/lookup-accessor")
		}
		tok, err := open.Tokens.ByAccessor(ctx, in.Accessor)
		if err != nil {
			return nil, nil, err
		}
		if tok.Namespace != s.namespace {
			return nil, nil, fault.New(fault.Invalid, "the token belongs to another namespace; ask there")
		}
		rights, err := open.Access.Of(ctx, tok)
		return rights.ACL, rights.Policies, err
	case in.Entity != "" && in.Accessor == "" && len(in.Policies) == 0:
		if !by.Can(policy.Read, "identity/entity/name/"+in.Entity) {
			return nil, nil, fault.New(fault.Denied, "permission denied: to ask about an entity needs read on identity/entity/name/%s", in.Entity)
		}
		e, err := open.Identities.EntityNamed(ctx, in.Entity)
		if err != nil {
			return nil, nil, err
		}
		if e == nil {
			return nil, nil, fault.New(fault.NotFound, "there is no entity named %q", in.Entity)
		}
		return s.entityRights(ctx, e)
	case len(in.Policies) > 0 && in.Accessor == "" && in.Entity == "":
		for _, name := range in.Policies {
			if !mayRead(by, name) {
				return nil, nil, fault.New(fault.Denied, "permission denied: to ask about the policy %s needs read on sys/policies/acl/%s", name, name)
			}
		}
		names := auth.Policies(in.Policies)
		acl, err := open.Policies.ACL(ctx, names, nil)
		return acl, names, err
	}
	return nil, nil, fault.New(fault.Invalid, "name one of policies, accessor and entity")
}

// entityRights returns the rules that an entity is under by itself and its groups; none
// where it is barred.
func (s *System) entityRights(ctx context.Context, e *identity.Entity) (*policy.ACL, []string, error) {
	who, err := s.Open().Identities.Look(ctx, e.ID)
	if err != nil {
		return nil, nil, err
	}
	if who == nil || e.Disabled || who.Cut {
		return policy.Compile(), nil, nil
	}
	names := access.Union(who.Policies, []string{"default"})
	acl, err := s.Open().Policies.ACL(ctx, names, who)
	return acl, names, err
}

// WhoCanRequest asks who may do something.
type WhoCanRequest struct {
	Capability string `json:"capability" doc:"What is to be done; read unless given."`
	Path       string `json:"path" doc:"On which path, in either spelling."`
}

// Grant is a rule that grants what was asked.
type Grant struct {
	Policy       string   `json:"policy"`
	Line         int      `json:"line"`
	Rule         string   `json:"rule"`
	Capabilities []string `json:"capabilities"`
	Template     bool     `json:"template"`            // for those whose identity the template fits
	Condition    string   `json:"condition,omitempty"` // while it is met
}

// Holding is somebody who may do it.
type Holding struct {
	Kind     string   `json:"kind"`         // role, entity, group or token
	Name     string   `json:"name"`         // "auth/approle/role/ci", an entity's or a group's name, a token's display name
	ID       string   `json:"id,omitempty"` // of an entity or a group; a token's accessor
	Policies []string `json:"policies"`     // those of its policies that grant it, as far as the caller may read them
}

// WhoCan is who may do something, as far as the caller may know.
type WhoCan struct {
	Path       string    `json:"path"`
	Capability string    `json:"capability"`
	Grants     []Grant   `json:"grants"`
	Holders    []Holding `json:"holders"`
	Hidden     int       `json:"hidden"`   // policies, roles, entities and groups that the caller may not read
	Unlisted   []string  `json:"unlisted"` // what could not be asked or was not asked to its end
}

// inquiry is one who-can on its way.
type inquiry struct {
	*System
	by     route.Caller
	ask    policy.Request
	grants map[string]bool // policies that the caller may read and that grant it
	out    WhoCan
}

func (s *System) whoCan(ctx context.Context, by route.Caller, in WhoCanRequest) (WhoCan, error) {
	in.Capability = cmp.Or(in.Capability, "read")
	ask, err := s.questions().Ask(in.Capability, in.Path)
	if err != nil {
		return WhoCan{}, err
	}
	q := &inquiry{System: s, by: by, ask: ask, grants: map[string]bool{}}
	q.out = WhoCan{Path: cmp.Or(ask.Plain, ask.Path), Capability: in.Capability, Grants: []Grant{}, Holders: []Holding{}, Unlisted: []string{}}
	for _, step := range []func(context.Context) error{q.policies, q.roles, q.groups, q.entities, q.tokens} {
		if err := step(ctx); err != nil {
			return WhoCan{}, err
		}
	}
	kinds := []string{"role", "group", "entity", "token"}
	slices.SortStableFunc(q.out.Holders, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)), cmp.Compare(a.Name, b.Name))
	})
	return q.out, nil
}

// policies finds the rules that grant it.
func (q *inquiry) policies(ctx context.Context) error {
	names, err := q.Open().Policies.List(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		switch {
		case !mayRead(q.by, name):
			q.out.Hidden++
			continue
		case name == "root":
			q.grants[name] = true
			continue
		}
		p, err := q.Open().Policies.Get(ctx, name)
		if fault.Is(err, fault.NotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		q.rules(p)
	}
	return nil
}

// rules finds the rules of one policy that grant it, by themselves or where a template
// fits.
func (q *inquiry) rules(p *policy.Policy) {
	e := policy.Compile(p).Explain(q.ask)
	for _, r := range e.Rules {
		template := strings.Contains(r.Path, "{{")
		if !r.Capabilities.Has(q.ask.Need) && (q.ask.Plain == "" || !r.Capabilities.Has(q.ask.PlainNeed)) || !template && !(r.Decides && (e.Decision.Allowed || r.Condition != "")) {
			continue
		}
		q.grants[p.Name] = true
		q.out.Grants = append(q.out.Grants, Grant{p.Name, r.Line, r.Path, r.Capabilities.Words(), template, r.Condition})
	}
}

// granting returns those of policies that grant it and that the caller may read.
func (q *inquiry) granting(policies []string) []string {
	return slices.DeleteFunc(slices.Clone(policies), func(name string) bool { return !q.grants[name] })
}

// add adds a holder, if the caller may read it at a path.
func (q *inquiry) add(h Holding, path string, need policy.Capability) {
	switch {
	case !q.by.Can(need, path):
		q.out.Hidden++
	case len(q.out.Holders) == MaxHolders:
		q.cut("holders beyond the first 1000")
	default:
		q.out.Holders = append(q.out.Holders, h)
	}
}

// cut says once what was left off.
func (q *inquiry) cut(what string) {
	if !slices.Contains(q.out.Unlisted, what) {
		q.out.Unlisted = append(q.out.Unlisted, what)
	}
}

// holds reports whether policies together allow it; a template that fits nobody counts
// for nothing.
func (q *inquiry) holds(ctx context.Context, policies []string) (bool, error) {
	if len(q.granting(policies)) == 0 {
		return false, nil
	}
	acl, err := q.Open().Policies.ACL(ctx, policies, nil)
	return err == nil && acl.Allows(q.ask), err
}

// roles finds the roles and users of auth methods.
func (q *inquiry) roles(ctx context.Context) error {
	for _, m := range q.Open().Mounts.List() {
		if m.Entry.Class != engine.Auth || m.Entry.Type == "token" {
			continue
		}
		lister, ok := m.State.(auth.Lister)
		if !ok {
			q.cut(m.Entry.Path + ", of the type " + m.Entry.Type)
			continue
		}
		n := 0
		var failed error
		err := lister.Holders(ctx, func(h auth.Holder) bool {
			if n++; n > MaxRolesAsked {
				q.cut(m.Entry.Path + " beyond the first 10000")
				return false
			}
			ok, err := q.holds(ctx, h.Policies)
			if ok {
				path := m.Entry.Path + h.Path
				q.add(Holding{Kind: "role", Name: path, Policies: q.granting(h.Policies)}, path, policy.Read)
			}
			failed = err
			return err == nil
		})
		if err = cmp.Or(err, failed); err != nil {
			return err
		}
	}
	return nil
}

// groups finds the groups whose policies grant it to their members.
func (q *inquiry) groups(ctx context.Context) error {
	n := 0
	return q.Open().Identities.Groups(ctx, "", func(g *identity.Group) (bool, error) {
		if n++; n > MaxEntitiesAsked {
			q.cut("groups beyond the first 10000")
			return false, nil
		}
		ok, err := q.holds(ctx, g.Policies)
		if ok {
			q.add(Holding{Kind: "group", Name: g.Name, ID: g.ID, Policies: q.granting(g.Policies)}, "identity/group/id/"+g.ID, policy.Read)
		}
		return true, err
	})
}

// entities finds the entities that may do it by themselves or by their groups.
func (q *inquiry) entities(ctx context.Context) error {
	n := 0
	return q.Open().Identities.Entities(ctx, "", func(e *identity.Entity) (bool, error) {
		if n++; n > MaxEntitiesAsked {
			q.cut("entities beyond the first 10000")
			return false, nil
		}
		acl, names, err := q.entityRights(ctx, e)
		if err == nil && len(q.granting(names)) > 0 && acl.Allows(q.ask) {
			q.add(Holding{Kind: "entity", Name: e.Name, ID: e.ID, Policies: q.granting(names)}, "identity/entity/id/"+e.ID, policy.Read)
		}
		return true, err
	})
}

// tokens finds the tokens that there are now, for those who may look tokens up.
func (q *inquiry) tokens(ctx context.Context) error {
	if !q.by.Can(policy.Update, "auth/token/lookup-accessor") {
		q.cut("tokens: to see them needs update on auth/token/lookup-accessor")
		return nil
	}
	list, err := q.Open().Tokens.Accessors(ctx, "", MaxTokensAsked+1)
	if err != nil {
		return err
	}
	if len(list) > MaxTokensAsked {
		q.cut("tokens beyond the first 1000")
		list = list[:MaxTokensAsked]
	}
	for _, accessor := range list {
		tok, err := q.Open().Tokens.ByAccessor(ctx, accessor)
		if err != nil || tok.Namespace != q.namespace {
			continue // ended meanwhile, or is of another namespace
		}
		rights, err := q.Open().Access.Of(ctx, tok)
		if err != nil {
			return err
		}
		if len(q.granting(rights.Policies)) > 0 && rights.ACL.Allows(q.ask) {
			q.add(Holding{Kind: "token", Name: tok.DisplayName, ID: accessor, Policies: q.granting(rights.Policies)}, "auth/token/lookup-accessor", policy.Update)
		}
	}
	return nil
}
