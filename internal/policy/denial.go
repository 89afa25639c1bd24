package policy

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// explainDenial fills in why, and what would help.
func (v verdict) explainDenial(r *Request, d *Decision) {
	where := fmt.Sprintf("rule %s of policy %s", d.Rule, d.Policy)
	if policies := v.policies(); d.Granted&Deny == 0 && len(policies) > 1 {
		where = fmt.Sprintf("rule %s of policies %s", d.Rule, strings.Join(policies, ", "))
	}
	switch {
	case v.barred():
		d.Missing = fmt.Sprintf("%s denies all of %s: the caller has no plain value for its template", where, v.wire.pattern.String())
	case d.Granted&Deny != 0:
		d.Missing = where + " denies"
	case !v.holdsNeed(r):
		_, need := v.deciding(r)
		d.Missing = fmt.Sprintf("%s grants %s but %s is needed", where, d.Granted, need)
	case r.Sudo && d.Granted&Sudo == 0:
		d.Missing = fmt.Sprintf("%s grants %s but sudo is needed too", where, d.Granted)
	default:
		d.Missing = v.bounds(r).text + " by " + where
	}
	d.Fix = r.fix(v)
}

// policies names the policies whose rules decide together.
func (v verdict) policies() []string {
	var names []string
	for _, s := range v.merged().sources {
		if !slices.Contains(names, s.policy) {
			names = append(names, s.policy)
		}
	}
	return names
}

// fix writes the smallest rule that would allow the request, or "" when no rule
// that is added would: an exact rule decides unless an exact one is there
// already, and to that one it can add capabilities and allowed parameters but
// take nothing away.
func (r *Request) fix(v verdict) string {
	if v.barred() {
		return ""
	}
	path, need := r.Path, r.Need
	c, cuts := findCut(r.Path, r.Plain)
	if r.Plain != "" && cuts && c.spelled(r.Plain) {
		path, need = r.Plain, r.PlainNeed
	}
	if !writable(path) || need == 0 || need&(Deny|Sudo) != 0 {
		return ""
	}
	if r.Sudo {
		need |= Sudo
	}
	var allow []string
	if v.exact(c) {
		if v.granted()&Deny != 0 {
			return ""
		}
		var ok bool
		if allow, ok = v.merged().opened(r); !ok {
			return ""
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "path %s {\n  capabilities = [%s]\n", quote(path), quoteAll(need.Words()))
	if len(allow) > 0 {
		text.WriteString("  allowed_parameters = {\n")
		for _, name := range allow {
			fmt.Fprintf(&text, "    %s = []\n", quote(name))
		}
		text.WriteString("  }\n")
	}
	text.WriteString("}\n")
	return text.String()
}

// exact reports whether a winner is exact, so that a new exact rule would merge
// with it.
func (v verdict) exact(c cut) bool {
	return v.wire != nil && v.wire.pattern.rankWithout(c).exact || v.plain != nil && v.plain.pattern.exact()
}

// opened returns the parameters that must be allowed besides for the request to
// keep to the bounds; it is false when that is not enough.
func (p *permission) opened(r *Request) ([]string, bool) {
	var names []string
	for {
		broken := p.bounds(r)
		if broken == (denial{}) {
			return names, true
		}
		name := strings.ToLower(broken.parameter)
		if name == "" || slices.Contains(names, name) || !writable(name) {
			return nil, false
		}
		names = append(names, name)
		p.allowed = p.allowed.merge(Parameters{name: nil})
	}
}

// writable reports whether text can stand in a rule and mean just itself.
func writable(text string) bool {
	p := readPattern(text)
	return text != "" && len(text) <= MaxPath && utf8.ValidString(text) && p.exact() &&
		!strings.Contains(text, "+*") && !strings.Contains(text, "{{") && !strings.Contains(text, "${") &&
		!strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) })
}

// quote writes printable text as an HCL string.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, ", ")
}
