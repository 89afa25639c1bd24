package trial

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/question"
)

// Bench holds policies while files of tests run against them, and which of their
// rules the tests touched.
type Bench struct {
	policies map[string]*policy.Policy
	touched  map[place]int
}

// place names a rule: templates change its path, but not the line it begins on.
type place struct {
	policy string
	line   int
}

// NewBench returns a bench with policies on it, by their names.
func NewBench(policies []*policy.Policy) *Bench {
	b := &Bench{policies: map[string]*policy.Policy{}, touched: map[place]int{}}
	for _, p := range policies {
		b.policies[p.Name] = p
	}
	return b
}

// Result is what came of a request.
type Result struct {
	File       string   `json:"file"`
	Line       int      `json:"line"`
	Test       string   `json:"test"`
	Capability string   `json:"capability"`
	Path       string   `json:"path"`
	Expected   string   `json:"expected"` // allow or deny
	Passed     bool     `json:"passed"`
	Allowed    bool     `json:"allowed"`
	Policy     string   `json:"policy,omitempty"` // that decided
	Rule       string   `json:"rule,omitempty"`   // that decided
	Problem    string   `json:"problem,omitempty"`
	Explained  []string `json:"explained,omitempty"` // of a failure: why it was decided so
}

// Run runs the tests of a file. An error says that a test cannot be run: it names a
// policy that is not there, or a path that nothing is mounted at; it begins with the
// file and the line.
func (b *Bench) Run(f *File, mounts *question.Mounts) ([]Result, error) {
	var out []Result
	for i := range f.Tests {
		t := &f.Tests[i]
		acl, err := b.compile(t)
		if err != nil {
			return nil, policy.Placed(f.Name, err)
		}
		for j := range t.Requests {
			r := &t.Requests[j]
			ask, err := mounts.Ask(r.Capability, r.Path)
			if err != nil {
				return nil, policy.Placed(f.Name, policy.At(r.Line, "%s", fault.From(err).Message))
			}
			ask.WrapTTL, ask.Facts = r.WrapTTL, func() *policy.Facts { return t.facts(r) }
			if r.Parameters != nil {
				ask.Params = r.Parameters
			}
			result := b.judge(r, acl.Explain(ask))
			result.File, result.Test = f.Name, t.Name
			out = append(out, result)
		}
	}
	return out, nil
}

// compile makes the rules that the test's identity is under at the test's time.
func (b *Bench) compile(t *Test) (*policy.ACL, error) {
	var parts []*policy.Policy
	for _, name := range t.Who.names() {
		if name == "root" {
			return policy.Root(), nil
		}
		p := b.policies[name]
		if p == nil {
			return nil, policy.At(t.Line, "the test %q has the policy %q, and there is none of that name among %s", t.Name, name, strings.Join(slices.Sorted(maps.Keys(b.policies)), ", "))
		}
		parts = append(parts, timed(p, t.Who.Time).Expand(t.Who.resolve))
	}
	return policy.Compile(parts...), nil
}

// timed returns a policy as it is in force at a time: without the rules that are
// expired then, and with the others for good.
func timed(p *policy.Policy, at time.Time) *policy.Policy {
	if at.IsZero() || !slices.ContainsFunc(p.Rules, func(r policy.Rule) bool { return !r.Expiration.IsZero() }) {
		return p
	}
	out := &policy.Policy{Name: p.Name, Source: p.Source}
	for _, r := range p.Rules {
		if !r.Expiration.IsZero() && !at.Before(r.Expiration) {
			continue
		}
		r.Expiration = time.Time{}
		out.Rules = append(out.Rules, r)
	}
	return out
}

// judge holds a decision against what was expected.
func (b *Bench) judge(r *Request, e policy.Explanation) Result {
	d := e.Decision
	out := Result{
		Line: r.Line, Capability: r.Capability, Path: r.Path, Expected: "deny",
		Allowed: d.Allowed, Policy: d.Policy, Rule: d.Rule,
	}
	if r.Allow {
		out.Expected = "allow"
	}
	byPolicy, byRule := r.Policy == "", r.Rule == ""
	for _, c := range e.Rules {
		if !c.Decides {
			continue
		}
		b.touched[place{policy: c.Policy, line: c.Line}]++
		byPolicy = byPolicy || c.Policy == r.Policy
		byRule = byRule || (r.Policy == "" || c.Policy == r.Policy) && (c.Path == r.Rule || b.written(c) == r.Rule)
	}
	switch {
	case d.Allowed != r.Allow && r.Allow:
		out.Problem = "must be allowed, and is denied"
	case d.Allowed != r.Allow:
		out.Problem = "must be denied, and is allowed"
	case !byPolicy:
		out.Problem = fmt.Sprintf("is decided by %s, not by the policy %s", decider(d), r.Policy)
	case !byRule:
		out.Problem = fmt.Sprintf("is decided by %s, not by the rule %s", decider(d), r.Rule)
	}
	if out.Passed = out.Problem == ""; !out.Passed {
		out.Explained = e.Lines()
	}
	return out
}

// written returns a rule's path as its policy has it, templates included.
func (b *Bench) written(c policy.Considered) string {
	if p := b.policies[c.Policy]; p != nil {
		for i := range p.Rules {
			if p.Rules[i].Line == c.Line {
				return p.Rules[i].Path
			}
		}
	}
	return c.Path
}

func decider(d policy.Decision) string {
	if d.Rule == "" {
		return "no rule"
	}
	return fmt.Sprintf("%s of the policy %s", d.Rule, d.Policy)
}

// Covered is a rule, and how many requests of tests it decided.
type Covered struct {
	Policy string `json:"policy"`
	Line   int    `json:"line"`
	Rule   string `json:"rule"`
	Times  int    `json:"times"`
}

// Coverage lists every rule of the named policies, by name and line.
func (b *Bench) Coverage(names []string) []Covered {
	var out []Covered
	for _, name := range names {
		p := b.policies[name]
		if p == nil {
			continue
		}
		for i := range p.Rules {
			r := &p.Rules[i]
			out = append(out, Covered{name, r.Line, r.Path, b.touched[place{policy: name, line: r.Line}]})
		}
	}
	slices.SortStableFunc(out, func(x, y Covered) int {
		return cmp.Or(strings.Compare(x.Policy, y.Policy), cmp.Compare(x.Line, y.Line))
	})
	return out
}

// facts are what conditions can ask about a request of a test.
func (t *Test) facts(r *Request) *policy.Facts {
	f := &policy.Facts{
		Time: t.Who.Time, Namespace: t.Who.Namespace, Remote: t.Who.Remote, WrapTTL: r.WrapTTL,
		Parameters: r.Parameters.Names(), Policies: t.Who.Policies, TokenType: "service",
	}
	if f.Time.IsZero() {
		f.Time = time.Now().UTC()
	}
	if e := t.Who.Entity; e != nil {
		f.EntityID, f.EntityName, f.Metadata, f.DisplayName = e.ID, e.Name, e.Metadata, e.Name
	}
	for _, g := range t.Who.Groups {
		f.Groups = append(f.Groups, g.Name)
	}
	return f
}
