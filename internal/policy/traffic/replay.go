package traffic

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/audit"
)

// Effect is what a candidate does to a recorded request.
type Effect string

// The effects.
const (
	NewlyDenied  Effect = "newly denied"
	NewlyAllowed Effect = "newly allowed"
	Undecided    Effect = "undecided"
)

// Group is recorded requests that a candidate treats in one way for one reason.
type Group struct {
	Effect    Effect   `json:"effect"`
	Operation string   `json:"operation"`
	Rule      string   `json:"rule"`     // newly denied: the rule that allowed it; newly allowed: the one that would
	Policy    string   `json:"policy"`   // of that rule
	Reason    string   `json:"reason"`   // why it would be denied, was denied, or cannot be told
	Policies  []string `json:"policies"` // of those who asked
	Requests  int      `json:"requests"`
	Paths     int      `json:"paths"`   // different ones, of at most MaxPaths
	Path      string   `json:"path"`    // of the newest request, as people write it
	Example   string   `json:"example"` // its request id
	Who       string   `json:"who"`     // its principal

	seen map[string]bool
}

// MaxPaths is how many different paths of one group or rule are told apart.
const MaxPaths = 1000

// Report is what a replay found.
type Report struct {
	Requests  int     `json:"requests"`  // that were judged
	Same      int     `json:"same"`      // that would be decided as they were
	Undecided int     `json:"undecided"` // that cannot be told
	Denied    int     `json:"newly_denied"`
	Allowed   int     `json:"newly_allowed"`
	Groups    []Group `json:"groups"`
}

// Replay collects what a candidate does to recorded requests.
type Replay struct {
	judge  *Judge
	report Report
	groups map[string]*Group
}

// NewReplay returns a replay by a judge.
func NewReplay(j *Judge) *Replay { return &Replay{judge: j, groups: map[string]*Group{}} }

// Add judges one entry.
func (r *Replay) Add(e *audit.Entry) {
	a, ok := r.judge.Judge(e)
	if !ok {
		return
	}
	r.report.Requests++
	g := Group{Operation: e.Request.Operation, Policies: slices.Concat(e.Principal.Policies, e.Principal.Identity)}
	switch was := e.Decision; {
	case a.Undecided != "":
		r.report.Undecided++
		g.Effect, g.Reason = Undecided, a.Undecided
	case was.Allowed == a.Decision.Allowed:
		r.report.Same++
		return
	case was.Allowed:
		r.report.Denied++
		g.Effect, g.Policy, g.Rule, g.Reason = NewlyDenied, was.Policy, was.Rule, a.Decision.Missing
	default:
		r.report.Allowed++
		g.Effect, g.Policy, g.Rule, g.Reason = NewlyAllowed, a.Decision.Policy, a.Decision.Rule, was.Missing
	}
	r.count(&g, a, e)
}

func (r *Replay) count(g *Group, a *Answer, e *audit.Entry) {
	reason := g.Reason
	if g.Effect != Undecided && strings.HasPrefix(reason, "no rule covers ") {
		reason = "no rule covers it"
	}
	key := strings.Join([]string{string(g.Effect), g.Operation, g.Policy, g.Rule, reason, strings.Join(g.Policies, ",")}, "\x00")
	have := r.groups[key]
	if have == nil {
		have = g
		have.Reason, have.seen = reason, map[string]bool{}
		r.groups[key] = have
	}
	path := cmp.Or(a.Ask.Plain, a.Ask.Path)
	have.Requests++
	if len(have.seen) < MaxPaths {
		have.seen[path] = true
	}
	have.Path, have.Example, have.Who = path, e.Request.ID, e.Principal.DisplayName
}

// effects is the order in which they are told.
var effects = []Effect{NewlyDenied, NewlyAllowed, Undecided}

// Report returns what was found, what is newly denied first, the most frequent first.
func (r *Replay) Report() Report {
	out := r.report
	out.Groups = []Group{}
	for _, g := range r.groups {
		g.Paths = len(g.seen)
		out.Groups = append(out.Groups, *g)
	}
	slices.SortFunc(out.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(slices.Index(effects, a.Effect), slices.Index(effects, b.Effect)),
			cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Operation, b.Operation))
	})
	return out
}
