package policy

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// reference decides as the documentation and the package comment say, one step
// after the other and without regard to cost. It shares no code with the ACL but
// the parsed rules.
type reference struct{ rules []Rule }

func refWild(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/")[1:], func(s string) bool { return strings.HasPrefix(s, "+") }) ||
		path == "+" || strings.HasPrefix(path, "+/")
}

func refExact(path string) bool { return !refWild(path) && !strings.HasSuffix(path, "*") }

func refMatch(path, request string) bool {
	text, prefix := strings.CutSuffix(path, "*")
	var parts []string
	for _, segment := range strings.Split(text, "/") {
		if segment == "+" && refWild(path) {
			parts = append(parts, "[^/]*")
			continue
		}
		parts = append(parts, regexp.QuoteMeta(segment))
	}
	re := "(?s)^" + strings.Join(parts, "/")
	if prefix {
		re += ".*"
	}
	return regexp.MustCompile(re + "$").MatchString(request)
}

// refAbove reports whether p comes before q for a request that both match.
func refAbove(p, q string) bool {
	if refExact(p) || refExact(q) {
		return refExact(p) && !refExact(q)
	}
	first := func(s string) int {
		if refWild(s) {
			return strings.Index(s, "+")
		}
		return len(s) - 1
	}
	if first(p) != first(q) {
		return first(p) > first(q)
	}
	if ps, qs := strings.HasSuffix(p, "*"), strings.HasSuffix(q, "*"); ps != qs {
		return qs
	}
	count := func(s string) (n int) {
		for _, segment := range strings.Split(strings.TrimSuffix(s, "*"), "/") {
			if segment == "+" {
				n++
			}
		}
		return n
	}
	if refWild(p) || refWild(q) {
		if count(p) != count(q) {
			return count(p) < count(q)
		}
	}
	if len(p) != len(q) {
		return len(p) > len(q)
	}
	return p > q
}

// winner is the path Vault chooses for a request among some; "" and false when
// none matches.
func (ref reference) winner(request string, list bool, among func(path string) bool) (string, bool) {
	short := request
	if list {
		short = strings.TrimSuffix(request, "/")
	}
	for _, stage := range []struct {
		path  string
		exact bool
	}{{request, true}, {short, true}, {request, false}, {short, false}} {
		best, found := "", false
		for _, r := range ref.rules {
			if refExact(r.Path) == stage.exact && refMatch(r.Path, stage.path) && among(r.Path) && (!found || refAbove(r.Path, best)) {
				best, found = r.Path, true
			}
		}
		if found {
			return best, true
		}
	}
	return "", false
}

// without takes the segment that path has more than plain out of a rule's path.
func without(rule, path, plain string) string {
	segments := strings.Split(path, "/")
	for i := 1; i < len(segments)-1; i++ {
		if strings.Join(slices.Delete(slices.Clone(segments), i, i+1), "/") != plain {
			continue
		}
		text, prefix := strings.CutSuffix(rule, "*")
		parts := strings.Split(text, "/")
		switch {
		case len(parts) <= i:
			return rule
		case len(parts) == i+1:
			text = strings.Join(parts[:i], "/") + "/"
		default:
			text = strings.Join(slices.Delete(parts, i, i+1), "/")
		}
		if prefix {
			text += "*"
		}
		return text
	}
	return rule
}

func (ref reference) allows(r Request) bool {
	list := r.Need == List
	if list && !strings.HasSuffix(r.Path, "/") {
		r.Path += "/"
	}
	if list && r.Plain != "" && !strings.HasSuffix(r.Plain, "/") {
		r.Plain += "/"
	}
	if r.PlainNeed == 0 {
		r.PlainNeed = r.Need
	}
	matchesWire := func(path string) bool {
		return refMatch(path, r.Path) || list && refMatch(path, strings.TrimSuffix(r.Path, "/"))
	}
	wire, isWire := ref.winner(r.Path, list, func(string) bool { return true })
	plain, isPlain := "", false
	if r.Plain != "" && !startsWithWire(r.Path, r.Plain) {
		plain, isPlain = ref.winner(r.Plain, list, func(path string) bool { return !matchesWire(path) })
	}
	if isWire && isPlain {
		reduced := without(wire, r.Path, r.Plain)
		switch {
		case refAbove(reduced, plain):
			isPlain = false
		case refAbove(plain, reduced):
			isWire = false
		}
	}
	var deciding []Rule
	need := false
	for _, rule := range ref.rules {
		if isWire && rule.Path == wire {
			deciding = append(deciding, rule)
			need = need || rule.Capabilities&r.Need != 0
		}
		if isPlain && rule.Path == plain {
			deciding = append(deciding, rule)
			need = need || rule.Capabilities&r.PlainNeed != 0
		}
	}
	return need && refBounds(deciding, r)
}

func startsWithWire(path, plain string) bool {
	segments := strings.Split(path, "/")
	for i := 1; i < len(segments)-1; i++ {
		if strings.Join(slices.Delete(slices.Clone(segments), i, i+1), "/") == plain {
			rest := segments[i+1:]
			return len(rest) > 1 && WireSegment(rest[0]) || len(rest) == 1 && rest[0] == "config"
		}
	}
	return false
}

// refTotal is what rules that decide together hold.
type refTotal struct {
	deny, sudo      bool
	min, max        time.Duration
	required        []string
	allowed, denied map[string][]string // the values' JSON, and "" for any
}

func refAdd(to map[string][]string, from Parameters) {
	for name, values := range from {
		if len(values) == 0 {
			to[name] = append(to[name], "")
		}
		for _, v := range values {
			to[name] = append(to[name], v.String())
		}
	}
}

func refSum(rules []Rule) refTotal {
	total := refTotal{allowed: map[string][]string{}, denied: map[string][]string{}}
	for _, rule := range rules {
		total.deny = total.deny || rule.Capabilities&Deny != 0
		total.sudo = total.sudo || rule.Capabilities&Sudo != 0
		if rule.MinWrappingTTL > 0 && (total.min == 0 || rule.MinWrappingTTL < total.min) {
			total.min = rule.MinWrappingTTL
		}
		if rule.MaxWrappingTTL > 0 && (total.max == 0 || rule.MaxWrappingTTL < total.max) {
			total.max = rule.MaxWrappingTTL
		}
		total.required = append(total.required, rule.RequiredParameters...)
		refAdd(total.allowed, rule.AllowedParameters)
		refAdd(total.denied, rule.DeniedParameters)
	}
	return total
}

func refBounds(rules []Rule, r Request) bool {
	total := refSum(rules)
	switch {
	case total.deny, r.Sudo && !total.sudo,
		total.max > 0 && (r.WrapTTL == 0 || r.WrapTTL > total.max),
		total.min > 0 && r.WrapTTL < total.min:
		return false
	case r.Need != Read && r.Need != Update && r.Need != Create && r.Need != Patch:
		return true
	}
	data := map[string]string{}
	if r.Params != nil {
		for _, name := range r.Params.Names() {
			text, _ := r.Params.Value(name)
			data[strings.ToLower(name)] = string(text)
		}
	}
	for _, name := range total.required {
		if _, ok := data[name]; !ok {
			return false
		}
	}
	for name, value := range data {
		denied, allowed := total.denied[name], total.allowed[name]
		if total.denied["*"] != nil || refValue(denied, value) {
			return false
		}
		if len(total.allowed) > 0 && !refValue(allowed, value) && (allowed != nil || total.allowed["*"] == nil) {
			return false
		}
	}
	return true
}

// refValue looks for a JSON value among JSON values, of which strings may be
// globs.
func refValue(among []string, value string) bool {
	for _, want := range among {
		if want == "" {
			return true
		}
		var a, b string
		if json.Unmarshal([]byte(want), &a) == nil && json.Unmarshal([]byte(value), &b) == nil && len(a) > 1 {
			re := regexp.QuoteMeta(strings.Trim(a, "*"))
			if strings.HasPrefix(a, "*") {
				re = ".*" + re
			}
			if strings.HasSuffix(a, "*") {
				re += ".*"
			}
			if regexp.MustCompile("^" + re + "$").MatchString(b) {
				return true
			}
		}
		if want == value {
			return true
		}
	}
	return false
}

var (
	ruleSegments = []string{"secret", "secret", "a", "b", "ab", "+", "+", "data", "metadata", "c++", "+x", ""}
	pathSegments = []string{"a", "b", "ab", "aab", "data", "x", "config", "c++", "+x", ""}
	grantWords   = []Capability{Create, Read, Update, Delete, List, Patch, Sudo}
)

func drawRule(t *rapid.T) Rule {
	segments := rapid.SliceOfN(rapid.SampledFrom(ruleSegments), 1, 5).Draw(t, "segments")
	if rapid.IntRange(0, 3).Draw(t, "rooted") > 0 {
		segments[0] = "secret"
	}
	path := strings.Join(segments, "/")
	if rapid.Bool().Draw(t, "star") && !strings.HasSuffix(path, "+") {
		path += "*"
	}
	r := Rule{Path: strings.TrimPrefix(path, "/")}
	for _, c := range grantWords {
		if rapid.IntRange(0, 2).Draw(t, "grant") > 0 {
			r.Capabilities |= c
		}
	}
	if rapid.IntRange(0, 9).Draw(t, "deny") == 0 {
		return Rule{Path: r.Path, Capabilities: Deny}
	}
	if rapid.IntRange(0, 3).Draw(t, "bounded") > 0 {
		return r
	}
	values := []Value{{kind: stringValue, text: "u*"}, {kind: stringValue, text: "v"}, {kind: boolValue, text: "true"}}
	for _, to := range []*Parameters{&r.AllowedParameters, &r.DeniedParameters} {
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"p", "q", "*"}), 0, 2, rapid.ID).Draw(t, "names") {
			if *to == nil {
				*to = Parameters{}
			}
			(*to)[name] = rapid.SliceOfN(rapid.SampledFrom(values), 0, 2).Draw(t, "values")
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "required") == 0 {
		r.RequiredParameters = []string{"p"}
	}
	r.MinWrappingTTL = time.Duration(rapid.SampledFrom([]int{0, 0, 0, 5, 20}).Draw(t, "min")) * time.Second
	r.MaxWrappingTTL = time.Duration(rapid.SampledFrom([]int{0, 0, 0, 10, 30}).Draw(t, "max")) * time.Second
	return r
}

func drawRequest(t *rapid.T) Request {
	rest := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pathSegments), 0, 3).Draw(t, "rest"), "/")
	mount := rapid.SampledFrom([]string{"secret/", "secret/a/", "a/"}).Draw(t, "mount")
	r := Request{Path: mount + rest, Need: rapid.SampledFrom(grantWords[:6]).Draw(t, "need")}
	if rapid.Bool().Draw(t, "versioned") {
		r.Plain = mount + rest
		r.Path = mount + rapid.SampledFrom([]string{"data/", "metadata/", "destroy/"}).Draw(t, "wire") + rest
		if rapid.Bool().Draw(t, "other need") {
			r.PlainNeed = rapid.SampledFrom(grantWords[:6]).Draw(t, "plain need")
		}
	}
	r.Sudo = rapid.IntRange(0, 4).Draw(t, "sudo") == 0
	r.WrapTTL = time.Duration(rapid.SampledFrom([]int{0, 0, 7, 25}).Draw(t, "wrap")) * time.Second
	if rapid.Bool().Draw(t, "params") {
		var p params
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"p", "Q", "r"}), 0, 2, rapid.ID).Draw(t, "names") {
			p = append(p, name, rapid.SampledFrom([]string{`"u1"`, `"v"`, `true`, `7`}).Draw(t, "value"))
		}
		r.Params = p
	}
	return r
}

// often runs a property on a thousand draws, and on a hundred times as many when
// COFFER_SOAK is set.
func often(t *testing.T, property func(t *rapid.T)) {
	rounds := 10
	if os.Getenv("COFFER_SOAK") != "" {
		rounds *= 100
	}
	for range rounds {
		rapid.Check(t, property)
	}
}

// drawACL draws policies, and returns all their rules too.
func drawACL(t *rapid.T) ([]*Policy, []Rule) {
	var policies []*Policy
	var all []Rule
	for range rapid.IntRange(1, 3).Draw(t, "policies") {
		p := &Policy{Name: "p", Rules: rapid.SliceOfN(rapid.Custom(drawRule), 0, 6).Draw(t, "rules")}
		for i := range p.Rules {
			if rest, ok := strings.CutPrefix(p.Rules[i].Path, "secret/"); ok && rapid.IntRange(0, 2).Draw(t, "twin") == 0 {
				twin := drawRule(t)
				twin.Path = "secret/" + rapid.SampledFrom([]string{"data/", "metadata/", "+/"}).Draw(t, "wire") + rest
				p.Rules = append(p.Rules, twin)
			}
		}
		for i := range p.Rules {
			p.Rules[i].Line = i + 1
		}
		policies = append(policies, p)
		all = append(all, p.Rules...)
	}
	return policies, all
}

func TestAgainstReference(t *testing.T) {
	often(t, func(t *rapid.T) {
		policies, rules := drawACL(t)
		acl, ref := Compile(policies...), reference{rules}
		for range 8 {
			r := drawRequest(t)
			d := acl.Check(r)
			if want := ref.allows(r); d.Allowed != want || acl.Allows(r) != want {
				for _, rule := range rules {
					t.Logf("%s [%s] allowed %v denied %v", rule.Path, rule.Capabilities, rule.AllowedParameters, rule.DeniedParameters)
				}
				t.Fatalf("%+v: allowed %v (%s), the reference says %v\n%s", r, d.Allowed, d.Missing, want, strings.Join(acl.Explain(r).Lines(), "\n"))
			}
			checkExplanation(t, acl, r, d)
			checkFix(t, policies, r, d)
		}
	})
}

// checkExplanation: what decides is marked, and comes first.
func checkExplanation(t *rapid.T, acl *ACL, r Request, d Decision) {
	e := acl.Explain(r)
	if e.Decision != d {
		t.Fatalf("%+v: explained %+v, decided %+v", r, e.Decision, d)
	}
	marked, past := d.Rule == "" && len(e.Rules) == 0, false
	for _, c := range e.Rules {
		marked = marked || c.Decides && c.Path == d.Rule && c.Line == d.Line
		if past = past || !c.Decides; past && c.Decides {
			t.Fatalf("%+v: a rule that decides comes after one that does not", r)
		}
	}
	if !marked {
		t.Fatalf("%+v: the rule that decided, %q, is not marked in\n%s", r, d.Rule, strings.Join(e.Lines(), "\n"))
	}
}

// checkFix: the rule that is offered does allow the request.
func checkFix(t *rapid.T, policies []*Policy, r Request, d Decision) {
	if d.Fix == "" {
		return
	}
	fix, err := Parse("fix", d.Fix)
	if err != nil {
		t.Fatalf("%+v: the fix does not parse: %v\n%s", r, err, d.Fix)
	}
	if d.Allowed || !Compile(append(slices.Clone(policies), fix)...).Allows(r) {
		t.Fatalf("%+v: allowed %v, %q, and the fix does not help:\n%s", r, d.Allowed, d.Missing, d.Fix)
	}
}

// A set of policies in which no rule matches the plain spelling alone decides
// the same whether the plain spelling is known or not.
func TestWirePoliciesDecideAsInVault(t *testing.T) {
	often(t, func(t *rapid.T) {
		policies, rules := drawACL(t)
		r := drawRequest(t)
		if r.Plain == "" {
			return
		}
		list := r.Need == List
		r.normalize()
		for _, rule := range rules {
			p := readPattern(rule.Path)
			if p.covers(r.Plain, list) && !p.covers(r.Path, list) {
				return
			}
		}
		acl, bare := Compile(policies...), r
		bare.Plain = ""
		if acl.Allows(r) != acl.Allows(bare) {
			t.Fatalf("%+v: the plain spelling changes the decision", r)
		}
	})
}

// A policy written in plain spelling alone decides a versioned mount as the same
// policy decides an unversioned one, but for rules that happen to match the wire.
func TestPlainPoliciesMeanWhatTheySay(t *testing.T) {
	often(t, func(t *rapid.T) {
		policies, rules := drawACL(t)
		r := drawRequest(t)
		r.normalize()
		if r.Plain == "" || startsWithWire(r.Path, r.Plain) {
			return
		}
		for _, rule := range rules {
			p := readPattern(rule.Path)
			if p.covers(r.Path, r.Need == List) {
				return
			}
		}
		r.PlainNeed = r.Need
		acl, plain := Compile(policies...), r
		plain.Path, plain.Plain = r.Plain, ""
		if acl.Allows(r) != acl.Allows(plain) {
			t.Fatalf("%+v: versioned and unversioned differ", r)
		}
	})
}
