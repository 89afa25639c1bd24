package traffic

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/policy"
)

// FewPaths is how many paths of a broad rule may be used for it to be called too broad.
const FewPaths = 5

// Use is what recorded requests used of a rule.
type Use struct {
	Policy   string    `json:"policy"`
	Line     int       `json:"line"`
	Rule     string    `json:"rule"`
	Requests int       `json:"requests"`
	Last     time.Time `json:"last,omitzero"`
	Paths    []string  `json:"paths,omitempty"`    // used, where they are few
	Granted  []string  `json:"granted"`            // capabilities
	Idle     []string  `json:"idle,omitempty"`     // those that no request used
	Advice   string    `json:"advice,omitempty"`   // what to do
	Narrower string    `json:"narrower,omitempty"` // rules that would do, as HCL

	used  policy.Capability
	paths map[string]policy.Capability
	rule  *policy.Rule
}

// Uses collects which rules of a set recorded requests use.
type Uses struct {
	judge *Judge
	rules map[Rule]*Use
	order []Rule
	// Requests is how many were judged, Undecided how many of those could not be.
	Requests, Undecided int
}

// NewUses returns a collection by a judge.
func NewUses(j *Judge) *Uses {
	u := &Uses{judge: j, rules: map[Rule]*Use{}}
	for _, name := range slices.Sorted(maps.Keys(j.policies)) {
		for i := range j.policies[name].Rules {
			r := &j.policies[name].Rules[i]
			at := Rule{name, r.Line}
			u.order = append(u.order, at)
			u.rules[at] = &Use{Policy: name, Line: r.Line, Rule: r.Path, Granted: r.Capabilities.Words(), paths: map[string]policy.Capability{}, rule: r}
		}
	}
	return u
}

// Add counts what an entry uses: the rules that would decide it now, and the one that
// the log says decided it.
func (u *Uses) Add(e *audit.Entry) {
	a, ok := u.judge.Judge(e)
	if !ok {
		return
	}
	u.Requests++
	if a.Undecided != "" {
		u.Undecided++
	}
	counted := map[Rule]bool{}
	for _, at := range a.Deciding {
		if a.Decision.Allowed == e.Decision.Allowed {
			u.count(at, a, e)
			counted[at] = true
		}
	}
	if recorded, ok := u.recorded(e.Decision); ok && !counted[recorded] {
		u.count(recorded, a, e)
	}
}

var templateRE = regexp.MustCompile(`\\\{\\\{.*?\\\}\\\}`)

// recorded returns the rule that the log says decided, found by its path as it is
// written, or as a template of it.
func (u *Uses) recorded(d *audit.Decision) (Rule, bool) {
	p := u.judge.policies[d.Policy]
	if p == nil || d.Rule == "" {
		return Rule{}, false
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Path == d.Rule {
			return Rule{p.Name, r.Line}, true
		}
		if strings.Contains(r.Path, "{{") {
			shape := "^" + templateRE.ReplaceAllString(regexp.QuoteMeta(r.Path), `[^/]+`) + "$"
			if ok, err := regexp.MatchString(shape, d.Rule); err == nil && ok {
				return Rule{p.Name, r.Line}, true
			}
		}
	}
	return Rule{}, false
}

func (u *Uses) count(at Rule, a *Answer, e *audit.Entry) {
	use := u.rules[at]
	if use == nil {
		return
	}
	use.Requests++
	if e.Time.After(use.Last) {
		use.Last = e.Time
	}
	need := a.Ask.Need
	if a.Ask.Plain != "" && !use.rule.Capabilities.Has(need) {
		need = a.Ask.PlainNeed
	}
	if a.Ask.Sudo {
		need |= policy.Sudo
	}
	need &= use.rule.Capabilities
	use.used |= need
	path := cmp.Or(a.Ask.Plain, a.Ask.Path)
	if _, known := use.paths[path]; known || len(use.paths) < MaxPaths {
		use.paths[path] |= need
	}
}

// Report returns the rules in the order of their policies. all adds those about which
// there is nothing to say.
func (u *Uses) Report(all bool) []Use {
	out := []Use{}
	for _, at := range u.order {
		use := u.rules[at]
		use.judge()
		if all || use.Advice != "" {
			out = append(out, *use)
		}
	}
	return out
}

// judge says what could be narrower.
func (use *Use) judge() {
	if use.rule.Capabilities&policy.Deny != 0 {
		return // a wall that nobody ran into is one that stands
	}
	if use.Requests == 0 {
		use.Advice = "no request used it; take it out"
		return
	}
	use.Idle = (use.rule.Capabilities &^ use.used).Words()
	if len(use.paths) <= FewPaths {
		use.Paths = slices.Sorted(maps.Keys(use.paths))
	}
	broad := strings.HasSuffix(use.Rule, "*") || slices.Contains(strings.Split(use.Rule, "/"), "+")
	switch {
	case broad && len(use.paths) <= FewPaths:
		use.Advice = "it covers much more than the paths that were used; name those"
		use.Narrower = use.narrower()
	case len(use.Idle) > 0:
		use.Advice = "no request used " + strings.Join(use.Idle, ", ")
	}
}

// narrower writes a rule for each path that was used, with what was used of it. Rules
// that bound parameters or templates are not rewritten.
func (use *Use) narrower() string {
	r := use.rule
	if len(r.AllowedParameters)+len(r.DeniedParameters)+len(r.RequiredParameters) > 0 || r.MinWrappingTTL+r.MaxWrappingTTL > 0 || strings.Contains(r.Path, "{{") {
		return ""
	}
	var out strings.Builder
	for _, path := range use.Paths {
		text, err := policy.RuleText(path, use.paths[path])
		if err != nil {
			return ""
		}
		out.WriteString(text)
	}
	return out.String()
}
