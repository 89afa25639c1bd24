// Package traffic holds policies against requests that the audit log recorded: what a
// candidate set of policies would newly deny or allow, and which rules no request used.
//
// The log has no values of parameters, and of who asked only names. Where a decision
// hangs on those, it is counted as undecided, never guessed. The package reads entries
// that it is handed; it finds no log and changes nothing.
package traffic

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/question"
	"github.com/cofferhq/coffer/internal/route"
)

// Judge decides recorded requests by a set of policies.
type Judge struct {
	policies map[string]*policy.Policy
	routes   Routes
	mounts   map[string]*question.Mounts // by path, kind and version
	// Namespace is the one that the policies are of, "" for the root, with its slash.
	Namespace string

	acls    map[string]*compiled
	answers map[string]*Answer
}

// compiled are the rules that a principal is under.
type compiled struct {
	acl       *policy.ACL
	missing   []string // policies that are not in the set
	templated bool     // some rule has a template whose value the log does not have
}

// maxAnswers bounds the answers that are kept, requests repeat.
const maxAnswers = 100_000

// Routes returns the routes of a kind and version of engine, nil for a kind that is
// not known.
type Routes func(kind, version string) []route.Spec

// NewJudge returns a judge by policies.
func NewJudge(policies []*policy.Policy, routes Routes) *Judge {
	j := &Judge{policies: map[string]*policy.Policy{}, routes: routes, mounts: map[string]*question.Mounts{}, acls: map[string]*compiled{}, answers: map[string]*Answer{}}
	for _, p := range policies {
		j.policies[p.Name] = p
	}
	return j
}

// Answer is what the set says of a recorded request.
type Answer struct {
	Ask       policy.Request
	Decision  policy.Decision
	Undecided string // why nobody can tell from the log; "" when it is decided
	Deciding  []Rule // the rules that decide, where it is decided
}

// Rule names a rule.
type Rule struct {
	Policy string
	Line   int
}

// Judge decides an entry. ok is false for entries about which no policy was asked: of
// the root token, of logins, of requests whose token was refused, and of other
// namespaces.
func (j *Judge) Judge(e *audit.Entry) (answer *Answer, ok bool) {
	names := slices.Concat(e.Principal.Policies, e.Principal.Identity)
	d := e.Decision
	switch {
	case e.Type != audit.Outcome || d == nil || len(names) == 0 || slices.Contains(names, "root"),
		d.Allowed && d.Policy == "",
		!d.Allowed && d.Policy == "" && !strings.HasPrefix(d.Missing, "no rule covers "),
		e.Principal.Namespace != j.Namespace, !strings.HasPrefix(e.Request.Namespace, j.Namespace):
		return nil, false
	}
	key := fmt.Sprintf("%q %q %q %q %q %d %q", names, e.Principal.EntityID, e.Request.Namespace, e.Request.Operation, e.Request.Path, e.Request.WrapTTL, e.Request.Fields)
	if answer = j.answers[key]; answer != nil {
		return answer, answer.Ask.Path != ""
	}
	answer = &Answer{}
	below := strings.TrimPrefix(e.Request.Namespace, j.Namespace)
	ask, asked, err := j.mountOf(&e.Request).Sent(e.Request.Operation, e.Request.Path)
	switch {
	case err != nil:
		answer.Ask.Path, answer.Undecided = below+e.Request.Path, err.Error()
	case asked:
		if ask.Path = below + ask.Path; ask.Plain != "" {
			ask.Plain = below + ask.Plain
		}
		ask.WrapTTL = time.Duration(e.Request.WrapTTL) * time.Second
		j.decide(answer, ask, names, e)
	}
	if len(j.answers) >= maxAnswers {
		clear(j.answers)
	}
	j.answers[key] = answer
	return answer, answer.Ask.Path != ""
}

// mountOf returns the mount that a request went to. The log does not say which version
// a kv mount has: a path that the wire of version 2 has is taken for one.
func (j *Judge) mountOf(r *audit.Request) *question.Mounts {
	version := ""
	if r.MountType == "kv" {
		version = "1"
		segment, _, _ := strings.Cut(strings.TrimPrefix(r.Path, r.MountPoint), "/")
		if policy.WireSegment(segment) || segment == "config" {
			version = "2"
		}
	}
	key := r.MountPoint + "\x00" + r.MountType + "\x00" + version
	if j.mounts[key] == nil {
		j.mounts[key] = question.New([]question.Mount{{Path: r.MountPoint, Type: r.MountType, Routes: j.routes(r.MountType, version)}})
	}
	return j.mounts[key]
}

// fields are the parameters of a recorded request: names without values.
type fields struct {
	names []string
	asked string // a parameter whose value was asked for
}

// Names implements policy.ParamSource.
func (f *fields) Names() []string { return f.names }

// Value implements policy.ParamSource. Nobody knows it.
func (f *fields) Value(name string) ([]byte, bool) {
	f.asked = name
	return nil, false
}

func (j *Judge) decide(a *Answer, ask policy.Request, names []string, e *audit.Entry) {
	params := &fields{names: e.Request.Fields}
	ask.Params = params
	c := j.compile(names, e.Principal.EntityID)
	explained := c.acl.Explain(ask)
	a.Ask, a.Decision = ask, explained.Decision
	a.Ask.Params = nil
	switch {
	case len(c.missing) > 0:
		a.Undecided = "no policy named " + strings.Join(c.missing, ", ") + " is in the set"
	case params.asked != "":
		a.Undecided = "it hangs on the value of the parameter " + params.asked
	case slices.ContainsFunc(explained.Rules, func(r policy.Considered) bool { return r.Decides && r.Condition != "" }):
		a.Undecided = "it hangs on a condition: the log does not say all that it asks about"
	case c.templated && slices.ContainsFunc(explained.Rules, func(r policy.Considered) bool { return strings.Contains(r.Path, "{{") }):
		a.Undecided = "it hangs on a template: the log does not say what the caller's entity has there"
	}
	if a.Undecided != "" {
		return
	}
	needs := ask.Need | ask.PlainNeed | policy.Deny
	for _, r := range explained.Rules {
		if r.Decides && r.Capabilities&needs != 0 {
			a.Deciding = append(a.Deciding, Rule{r.Policy, r.Line})
		}
	}
}

// compile returns the rules of policies for an entity, of which only the id is known.
func (j *Judge) compile(names []string, entity string) *compiled {
	key := strings.Join(names, "\x00") + "\x00\x00" + entity
	if c := j.acls[key]; c != nil {
		return c
	}
	c := &compiled{}
	var parts []*policy.Policy
	for _, name := range names {
		p := j.policies[name]
		if p == nil {
			c.missing = append(c.missing, name)
			continue
		}
		known := p.Expand(func(name string) (string, bool) { return entity, name == "identity.entity.id" && entity != "" })
		if entity != "" && (len(known.Rules) < len(p.Rules) || known.Templated()) {
			// Rules whose value is not known stay as they are, to be seen where they
			// could match.
			c.templated = true
			known = withTemplates(p, known)
		}
		parts = append(parts, known)
	}
	c.acl = policy.Compile(parts...)
	if len(j.acls) >= maxAnswers {
		clear(j.acls)
	}
	j.acls[key] = c
	return c
}

// withTemplates returns a policy's rules, expanded where they could be.
func withTemplates(p, known *policy.Policy) *policy.Policy {
	out := &policy.Policy{Name: p.Name, Source: p.Source}
	rest := known.Rules
	for _, r := range p.Rules {
		if len(rest) > 0 && rest[0].Line == r.Line {
			r, rest = rest[0], rest[1:]
		}
		out.Rules = append(out.Rules, r)
	}
	return out
}
