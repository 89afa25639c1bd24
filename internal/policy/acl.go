package policy

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// ACL is a compiled set of policies. It does not change, but for rules that
// expire, and may be used by any number of goroutines.
type ACL struct {
	root     bool
	policies []*Policy
	index    atomic.Pointer[index]
}

// index is the rules in force during a span of time.
type index struct {
	bars    []*permission // above all others: see bar
	tree    tree
	all     []*permission
	expires time.Time // when the first of them expires; zero: never
}

// Root returns the ACL that allows everything.
func Root() *ACL { return &ACL{root: true} }

// Compile makes an ACL of policies, nil ones passed over. A rule whose path
// still holds a template grants nothing, see Policy.Expand, and one that denies
// denies all that its path begins with. The policies must not change afterwards.
func Compile(policies ...*Policy) *ACL {
	a := &ACL{policies: policies}
	a.index.Store(newIndex(policies, time.Now()))
	return a
}

// IsRoot reports whether the ACL allows everything.
func (a *ACL) IsRoot() bool { return a.root }

func newIndex(policies []*Policy, now time.Time) *index {
	ix := &index{}
	byPath := map[string]*permission{}
	for _, p := range policies {
		if p == nil {
			continue
		}
		for i := range p.Rules {
			r := &p.Rules[i]
			if r.expired(now) || r.templated() && !r.denies() {
				continue
			}
			if !r.Expiration.IsZero() && (ix.expires.IsZero() || r.Expiration.Before(ix.expires)) {
				ix.expires = r.Expiration
			}
			if r.templated() {
				ix.bars = append(ix.bars, newBar(source{p.Name, r}))
				continue
			}
			perm := byPath[r.Path]
			if perm == nil {
				perm = &permission{pattern: readPattern(r.Path)}
				byPath[r.Path] = perm
				ix.all = append(ix.all, perm)
			}
			perm.merge(source{p.Name, r})
		}
	}
	for _, perm := range ix.all {
		ix.tree.add(perm)
	}
	ix.tree.root.finish(0, nil)
	return ix
}

// current returns the index, made anew once a rule has expired.
func (a *ACL) current() *index {
	ix := a.index.Load()
	if ix.expires.IsZero() {
		return ix
	}
	if now := time.Now(); !now.Before(ix.expires) {
		ix = newIndex(a.policies, now)
		a.index.Store(ix)
	}
	return ix
}

// Request is what is asked of an ACL.
type Request struct {
	Path      string        // the wire path without /v1/, e.g. secret/data/app/db
	Plain     string        // for a versioned mount the path without its wire segment, e.g. secret/app/db; "" otherwise
	Need      Capability    // needed of a rule that matches Path; not Sudo
	PlainNeed Capability    // needed of a rule that matches Plain only; 0 means Need
	Sudo      bool          // sudo is needed besides
	WrapTTL   time.Duration // how long the answer is to be wrapped; 0: not
	Params    ParamSource   // nil when there are none
	// Facts returns what conditions can ask about; it is called when one is met. nil:
	// nothing is known, and rules with conditions grant nothing.
	Facts func() *Facts

	variables  map[string]any // of Facts, once they were asked for
	patience   time.Time      // until when conditions are evaluated
	conditions int            // that were
}

// ParamSource is the top-level parameters of a request.
type ParamSource interface {
	// Names returns the names as the client wrote them.
	Names() []string
	// Value returns the JSON text of a parameter of that name, in any case.
	Value(name string) (jsonText []byte, ok bool)
}

// Decision is the answer.
type Decision struct {
	Allowed  bool
	Policy   string     // that decided; "" when no rule matches
	Rule     string     // that decided, its path as written
	Line     int        // of that rule
	Spelling string     // how it matched: wire, plain or both; "" without a Plain
	Granted  Capability // what the rules that decide hold together
	Missing  string     // why it was denied
	Fix      string     // the smallest rule that would allow it, as HCL; "" when none added would
}

// The spellings of Decision and Considered.
const (
	wireSpelling  = "wire"
	plainSpelling = "plain"
	bothSpellings = "both"
)

// verdict is what the rules say of a request: the winner of each spelling that
// has a part in the decision.
type verdict struct {
	wire, plain *permission
}

// Check decides a request. It does not allocate when it allows one by rules
// without parameters or wrapping bounds.
func (a *ACL) Check(r Request) Decision {
	if a.root {
		return Decision{Allowed: true, Policy: "root", Granted: everything}
	}
	r.normalize()
	v, unmet := a.current().decide(&r).under(&r)
	p, need := v.deciding(&r)
	if p == nil {
		return Decision{Missing: "no rule covers " + r.Path, Fix: r.fix(v)}
	}
	s := p.source(need)
	d := Decision{
		Policy: s.policy, Rule: s.rule.Path, Line: s.rule.Line,
		Spelling: v.spelling(&r), Granted: v.granted(),
	}
	if d.Allowed = v.grants(&r); !d.Allowed {
		v.explainDenial(&r, &d)
		if unmet != "" {
			d.Missing += "; " + unmet
		}
	}
	return d
}

// Allows is Check for those who need no words.
func (a *ACL) Allows(r Request) bool {
	if a.root {
		return true
	}
	r.normalize()
	v, _ := a.current().decide(&r).under(&r)
	return v.grants(&r)
}

// normalize gives the path the shape that rules are written for: no leading
// slash, and a trailing one for a list, as Vault gives it.
func (r *Request) normalize() {
	r.Path, r.Plain = strings.TrimLeft(r.Path, "/"), strings.TrimLeft(r.Plain, "/")
	if r.lists() {
		r.Path, r.Plain = folder(r.Path), folder(r.Plain)
	}
	if r.PlainNeed == 0 {
		r.PlainNeed = r.Need
	}
}

func (r *Request) lists() bool { return r.Need&(List|Scan) != 0 }

func folder(path string) string {
	if path == "" || path[len(path)-1] == '/' {
		return path
	}
	return path + "/"
}

// decide finds the winners of both spellings and compares them.
func (ix *index) decide(r *Request) verdict {
	return ix.decideFor(r.Path, r.Plain, r.lists())
}

func (ix *index) decideFor(path, plain string, list bool) verdict {
	if bar := ix.bar(path, plain); bar != nil {
		return verdict{wire: bar}
	}
	v := verdict{wire: ix.best(path, list)}
	if plain == "" {
		return v
	}
	c, found := findCut(path, plain)
	if found && !c.spelled(plain) {
		return v
	}
	if v.plain = ix.bestPlain(path, plain, list); v.plain == nil || v.wire == nil {
		return v
	}
	switch order := v.wire.pattern.rankWithout(c).compare(v.plain.pattern.rank()); {
	case order > 0:
		v.plain = nil
	case order < 0:
		v.wire = nil
	}
	return v
}

// best is the rule Vault chooses for path.
func (ix *index) best(path string, list bool) *permission {
	exact, deepest := ix.tree.walk(path)
	if exact != nil {
		return exact
	}
	short, trim := strings.CutSuffix(path, "/")
	if !list || !trim {
		return search{path: path}.from(deepest)
	}
	exact, shallower := ix.tree.walk(short)
	if exact != nil {
		return exact
	}
	if p := (search{path: path}).from(deepest); p != nil {
		return p
	}
	return search{path: short}.from(shallower)
}

// bestPlain is the rule Vault chooses for plain among those that do not match
// path. An exact rule for plain never does.
func (ix *index) bestPlain(path, plain string, list bool) *permission {
	exact, deepest := ix.tree.walk(plain)
	if exact != nil {
		return exact
	}
	short, trim := strings.CutSuffix(plain, "/")
	if !list || !trim {
		return search{path: plain, exclude: [2]string{path}}.from(deepest)
	}
	exact, shallower := ix.tree.walk(short)
	if exact != nil {
		return exact
	}
	exclude := [2]string{path, strings.TrimSuffix(path, "/")}
	if p := (search{path: plain, exclude: exclude}).from(deepest); p != nil {
		return p
	}
	return search{path: short, exclude: exclude}.from(shallower)
}

// grants reports whether the winners allow the request.
func (v verdict) grants(r *Request) bool {
	granted := v.granted()
	if granted&Deny != 0 || !v.holdsNeed(r) || r.Sudo && granted&Sudo == 0 {
		return false
	}
	return v.bounds(r) == denial{}
}

func (v verdict) granted() Capability {
	var c Capability
	if v.wire != nil {
		c |= v.wire.granted
	}
	if v.plain != nil {
		c |= v.plain.granted
	}
	if c&Deny != 0 {
		return Deny
	}
	return c
}

// maybe is what rules with conditions could grant besides.
func (v verdict) maybe() (c Capability) {
	for _, winner := range []*permission{v.wire, v.plain} {
		if winner != nil {
			c |= winner.maybe
		}
	}
	return c
}

func (v verdict) holdsNeed(r *Request) bool {
	return v.wire != nil && v.wire.granted.Has(r.Need) || v.plain != nil && v.plain.granted.Has(r.PlainNeed)
}

// bounds checks the parameters and wrapping TTLs of the winners, merged when
// there are two.
func (v verdict) bounds(r *Request) denial {
	switch {
	case v.wire == nil:
		return v.plain.bounds(r)
	case v.plain == nil:
		return v.wire.bounds(r)
	case !v.wire.bounded && !v.plain.bounded:
		return denial{}
	}
	return v.merged().bounds(r)
}

func (v verdict) merged() *permission {
	p := &permission{}
	for _, winner := range []*permission{v.wire, v.plain} {
		if winner != nil {
			p.join(winner)
			p.sources = slices.Concat(p.sources, winner.sources)
		}
	}
	return p
}

// deciding returns the winner to name: of two, the one that denies, else the
// one that grants.
func (v verdict) deciding(r *Request) (*permission, Capability) {
	switch {
	case v.plain == nil:
		return v.wire, r.Need
	case v.wire == nil:
		return v.plain, r.PlainNeed
	case v.plain.granted&Deny != 0, v.wire.granted&Deny == 0 && !v.wire.granted.Has(r.Need) && v.plain.granted.Has(r.PlainNeed):
		return v.plain, r.PlainNeed
	}
	return v.wire, r.Need
}

func (v verdict) spelling(r *Request) string {
	switch {
	case r.Plain == "":
		return ""
	case v.plain == nil:
		return wireSpelling
	case v.wire == nil:
		return plainSpelling
	}
	return bothSpellings
}

// Capabilities answers sys/capabilities: what the rules for a path hold, sorted,
// or deny, or root. What a condition decides is among them. plain is the path's plain spelling, or "".
func (a *ACL) Capabilities(path, plain string) []string {
	if a.root {
		return []string{"root"}
	}
	v := a.current().decideFor(strings.TrimLeft(path, "/"), strings.TrimLeft(plain, "/"), true)
	granted := v.granted()
	if granted&Deny == 0 {
		granted |= v.maybe() // where its condition is met
	}
	if granted == 0 {
		granted = Deny
	}
	return granted.Words()
}

// AnyBelow reports whether some rule grants something at prefix or below it;
// prefix is a mount's path and ends in a slash. A rule above prefix counts when
// it decides for prefix itself.
func (a *ACL) AnyBelow(prefix string) bool {
	if a.root {
		return true
	}
	ix := a.current()
	if ix.bar(prefix, "") != nil {
		return false
	}
	v := ix.decideFor(strings.TrimSuffix(prefix, "/"), "", true)
	if c := v.granted(); c&Deny == 0 && c|v.maybe() != 0 {
		return true
	}
	if p := ix.best(prefix, true); p != nil && p.grants() {
		return true
	}
	return ix.tree.below(prefix)
}
