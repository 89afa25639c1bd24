package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// permission is what all rules of one path grant together.
type permission struct {
	pattern pattern
	granted Capability // by rules without a condition
	maybe   Capability // by rules with one besides, deny left out
	sources []source   // the rules merged into it, in the order given
	// conditional is set where a rule has a condition: under says what is granted.
	conditional bool
	bar         bool // see newBar
	bounded     bool // has anything below
	allowed     Parameters
	denied      Parameters
	required    []string
	minWrap     time.Duration
	maxWrap     time.Duration
}

// source is a rule and the policy it stands in.
type source struct {
	policy string
	rule   *Rule
}

// merge adds a rule as Vault does: deny wins and drops everything else.
func (p *permission) merge(s source) {
	if s.rule.when == nil {
		p.count(s)
		return
	}
	p.sources = append(p.sources, s)
	p.conditional = true
	p.maybe |= s.rule.Capabilities &^ Deny
}

// count is merge of a rule whose condition, if it has one, is met.
func (p *permission) count(s source) {
	p.sources = append(p.sources, s)
	r := s.rule
	p.join(&permission{
		granted: r.Capabilities, allowed: r.AllowedParameters, denied: r.DeniedParameters,
		required: r.RequiredParameters, minWrap: r.MinWrappingTTL, maxWrap: r.MaxWrappingTTL,
	})
}

// join adds what another permission grants and bounds, its sources excepted.
func (p *permission) join(other *permission) {
	if (p.granted|other.granted)&Deny != 0 {
		*p = permission{pattern: p.pattern, granted: Deny, sources: p.sources}
		return // and no condition changes that
	}
	p.granted |= other.granted
	p.allowed = p.allowed.merge(other.allowed)
	p.denied = p.denied.merge(other.denied)
	for _, name := range other.required {
		if !slices.Contains(p.required, name) {
			p.required = append(slices.Clip(p.required), name)
		}
	}
	p.minWrap = shorter(p.minWrap, other.minWrap)
	p.maxWrap = shorter(p.maxWrap, other.maxWrap)
	p.bounded = len(p.allowed)+len(p.denied)+len(p.required) > 0 || p.minWrap+p.maxWrap > 0
}

// shorter is the lesser of two durations of which 0 says nothing.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// source returns the first rule that decides about want: one that denies, one
// that grants it, or else the first of all.
func (p *permission) source(want Capability) source {
	for _, s := range p.sources {
		if p.granted&Deny != 0 && s.rule.Capabilities&Deny != 0 || p.granted&Deny == 0 && s.rule.Capabilities.Has(want) {
			return s
		}
	}
	return p.sources[0]
}

// denial says which bound a request breaks, and the parameter when adding it to
// allowed_parameters would help. Its zero value says that none is broken.
type denial struct {
	text      string
	parameter string
}

// bounds checks wrapping and parameters, in Vault's order.
func (p *permission) bounds(r *Request) denial {
	if !p.bounded {
		return denial{}
	}
	switch {
	case p.maxWrap > 0 && r.WrapTTL == 0, p.minWrap > 0 && r.WrapTTL == 0:
		return denial{text: "the answer must be asked wrapped"}
	case p.maxWrap > 0 && r.WrapTTL > p.maxWrap:
		return denial{text: fmt.Sprintf("a wrapping TTL of at most %s is required", p.maxWrap)}
	case p.minWrap > 0 && r.WrapTTL < p.minWrap:
		return denial{text: fmt.Sprintf("a wrapping TTL of at least %s is required", p.minWrap)}
	}
	if r.Need&(Read|Update|Create|Patch|Recover) == 0 {
		return denial{}
	}
	return p.parameters(r.Params)
}

func (p *permission) parameters(params ParamSource) denial {
	var names []string
	if params != nil {
		names = params.Names()
	}
	for _, want := range p.required {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, want) }) {
			return denial{text: fmt.Sprintf("parameter %s is required", want)}
		}
	}
	if len(names) == 0 || len(p.denied)+len(p.allowed) == 0 {
		return denial{}
	}
	if _, all := p.denied["*"]; all {
		return denial{text: "no parameter is allowed"}
	}
	_, open := p.allowed["*"]
	for i, name := range names {
		// Two names that differ in case only would be checked as one and might
		// be used as the other.
		if slices.ContainsFunc(names[:i], func(n string) bool { return strings.EqualFold(n, name) }) {
			return denial{text: fmt.Sprintf("parameter %s is given twice", name)}
		}
		got := func() (Value, bool) {
			text, ok := params.Value(name)
			if !ok {
				return Value{}, false
			}
			return readValue(text)
		}
		if values, ok := p.denied.find(name); ok && holds(values, got) {
			return denial{text: fmt.Sprintf("parameter %s is denied", name)}
		}
		if len(p.allowed) == 0 {
			continue
		}
		values, ok := p.allowed.find(name)
		switch {
		case !ok && !open:
			return denial{fmt.Sprintf("parameter %s is not among the allowed ones", name), name}
		case ok && !holds(values, got):
			return denial{fmt.Sprintf("this value of parameter %s is not among the allowed ones", name), name}
		}
	}
	return denial{}
}

// find returns the list for a request's parameter, whatever its case.
func (p Parameters) find(name string) ([]Value, bool) {
	if values, ok := p[strings.ToLower(name)]; ok {
		return values, true
	}
	for key, values := range p {
		if strings.EqualFold(key, name) {
			return values, true
		}
	}
	return nil, false
}
