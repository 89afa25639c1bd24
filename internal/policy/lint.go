package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MountInfo is what Lint knows of a mount.
type MountInfo struct {
	Path      string   // with its slash: secret/
	Versioned bool     // its paths have wire spellings
	Sudo      []string // full paths, in the language of rules, that need sudo
}

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	Mistake Severity = "mistake" // the rule does not do what it says
	Warning Severity = "warning" // the rule may do more or less than meant
	Notice  Severity = "notice"  // the rule could be clearer
)

// Finding is one thing that Lint has to say.
type Finding struct {
	Line     int      `json:"line" doc:"The line of the rule."`
	Severity Severity `json:"severity" doc:"mistake, warning or notice."`
	Code     string   `json:"code" doc:"A short name of the kind of finding."`
	Rule     string   `json:"rule" doc:"The rule's path."`
	Text     string   `json:"text" doc:"What it is."`
	Advice   string   `json:"advice" doc:"What to do."`
}

// String returns the finding on one line.
func (f Finding) String() string {
	return fmt.Sprintf("line %d: %s: %s: %s; %s [%s]", f.Line, f.Severity, f.Rule, f.Text, f.Advice, f.Code)
}

// rootPaths need sudo in Vault; they stand in for mounts that say nothing.
var rootPaths = []string{
	"auth/token/accessors", "auth/token/accessors/", "auth/token/create", "auth/token/create-orphan",
	"auth/token/revoke-orphan", "sys/audit", "sys/audit/*", "sys/auth/*",
	"sys/config/auditing/*", "sys/config/cors", "sys/config/ui/headers", "sys/config/ui/headers/*",
	"sys/internal/inspect/*", "sys/leases/lookup/*", "sys/leases/revoke-force/*",
	"sys/leases/revoke-prefix/*", "sys/plugins/catalog/*", "sys/raw", "sys/raw/*", "sys/remount",
	"sys/revoke-force/*", "sys/revoke-prefix/*", "sys/rotate", "sys/rotate/*", "sys/seal", "sys/step-down",
}

// linter holds what the checks share.
type linter struct {
	policy   *Policy
	patterns []pattern // of the rules, in their order
	mounts   []MountInfo
	sudo     []pattern
	findings []Finding
}

// Lint says what in a policy is likely not meant. Without mounts, what depends
// on them is left out. Findings come by line.
func Lint(p *Policy, mounts []MountInfo) []Finding {
	l := &linter{policy: p, mounts: mounts}
	sudo := []string{}
	for _, m := range mounts {
		sudo = append(sudo, m.Sudo...)
	}
	if len(sudo) == 0 {
		sudo = rootPaths
	}
	for _, path := range sudo {
		l.sudo = append(l.sudo, readPattern(path))
	}
	for i := range p.Rules {
		l.patterns = append(l.patterns, readPattern(p.Rules[i].Path))
	}
	for i := range p.Rules {
		l.shape(i)
		l.grants(i)
		l.bounds(i)
		l.placed(i)
	}
	l.duplicates()
	l.overlaps()
	l.spellings()
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Code, b.Code))
	})
	return l.findings
}

func (l *linter) say(i int, severity Severity, code, advice, format string, args ...any) {
	r := &l.policy.Rules[i]
	l.findings = append(l.findings, Finding{r.Line, severity, code, r.Path, fmt.Sprintf(format, args...), advice})
}

// shape checks how the path is written.
func (l *linter) shape(i int) {
	path, p := l.policy.Rules[i].Path, l.patterns[i]
	switch {
	case path == "":
		l.say(i, Mistake, "no-match", "name a path", "an empty path matches nothing")
	case strings.HasPrefix(path, "v1/"):
		l.say(i, Mistake, "no-match", "write it without v1/", "paths are matched without the API's v1/")
	case strings.Contains(path, "//"), strings.HasPrefix(path, "/"):
		l.say(i, Mistake, "no-match", "write one slash", "no request has an empty segment in its path")
	case strings.Contains("/"+path+"/", "/../"), strings.Contains("/"+path+"/", "/./"):
		l.say(i, Mistake, "no-match", "write the path itself", "no request has . or .. in its path")
	case strings.TrimSpace(path) != path:
		l.say(i, Mistake, "no-match", "take the space out", "a path that begins or ends with a space matches nothing people write")
	}
	if strings.Contains(p.text, "*") {
		l.say(i, Mistake, "star-inside", "use + for one segment, or * at the end only", "a * that is not at the end stands for itself")
	}
	for segment := range strings.SplitSeq(p.text, "/") {
		if segment != "+" && strings.Contains(segment, "+") {
			l.say(i, Warning, "plus-inside", "use + alone as a segment, or end the path in *", "the + in %q stands for itself", segment)
			break
		}
	}
	if p.prefix && p.text != "" && !strings.HasSuffix(p.text, "/") {
		l.say(i, Warning, "star-open", "write "+p.text+"/* for what is below "+p.text,
			"it covers every name that begins so, as %sx and %s-old/key", p.text, p.text)
	}
}

// grants checks the capabilities.
func (l *linter) grants(i int) {
	r, p := &l.policy.Rules[i], &l.patterns[i]
	switch {
	case r.Written == 0:
		l.say(i, Warning, "no-capabilities", "grant something, or write deny",
			"it grants nothing, and hides what less specific rules grant")
	case r.Written != Deny && r.Written&Deny != 0:
		l.say(i, Mistake, "deny-with-others", "leave deny alone, or take it out",
			"deny takes away %s", r.Written&^Deny)
	case r.Capabilities&(Create|Update) == Create:
		l.say(i, Warning, "create-without-update", "add update, unless it may be written only once",
			"what exists cannot be written again")
	case r.Capabilities&(Create|Update) == Update && l.writesSecrets(p):
		l.say(i, Notice, "update-without-create", "add create, unless nothing new may be written",
			"what does not exist cannot be written")
	}
	if r.Capabilities&Sudo != 0 && !slices.ContainsFunc(l.sudo, func(s pattern) bool { return p.overlaps(&s) }) {
		l.say(i, Warning, "sudo-unneeded", "take sudo out", "no path that it matches needs sudo")
	}
	if r.Condition != "" && r.Capabilities&Deny != 0 && !slices.ContainsFunc(l.policy.Rules, func(o Rule) bool { return o.Path == r.Path && o.Capabilities&^Deny != 0 }) {
		l.say(i, Notice, "deny-under-condition", "grant in another block of the same path what is allowed otherwise",
			"where its condition is not met it grants nothing either, and hides what less specific rules grant")
	}
	if r.expired(time.Now()) {
		l.say(i, Notice, "expired", "take the rule out", "it expired %s", r.Expiration.Format(time.RFC3339))
	}
}

// bounds checks the parameters.
func (l *linter) bounds(i int) {
	r := &l.policy.Rules[i]
	if len(r.AllowedParameters["*"])+len(r.DeniedParameters["*"]) > 0 {
		l.say(i, Mistake, "star-values", `write "*" = []`, "the values listed for the parameter * are not looked at")
	}
	if _, all := r.DeniedParameters["*"]; all && len(r.DeniedParameters)+len(r.AllowedParameters) > 1 {
		l.say(i, Warning, "denied-all", "take the other parameters out", `denied_parameters has "*", so every parameter is denied`)
	}
	for _, name := range r.RequiredParameters {
		_, allowed := r.AllowedParameters.find(name)
		_, open := r.AllowedParameters["*"]
		if values, denied := r.DeniedParameters.find(name); denied && len(values) == 0 || len(r.AllowedParameters) > 0 && !allowed && !open {
			l.say(i, Mistake, "required-denied", "allow "+name+", or do not require it", "parameter %s is required and not allowed", name)
		}
	}
	if m := l.versioned(&l.patterns[i]); m != nil && l.writesSecrets(&l.patterns[i]) && len(r.AllowedParameters)+len(r.DeniedParameters)+len(r.RequiredParameters) > 0 {
		l.say(i, Warning, "parameters-versioned", "bound the parameters data and options, or use the mount's validators",
			"a write to the versioned mount %s has the parameters data and options; the keys of a secret are inside data", m.Path)
	}
}

// placed checks the path against the mounts.
func (l *linter) placed(i int) {
	if len(l.mounts) == 0 || l.policy.Rules[i].templated() {
		return
	}
	p := &l.patterns[i]
	if !slices.ContainsFunc(l.mounts, func(m MountInfo) bool { return p.meets(m.Path) }) {
		l.say(i, Warning, "no-mount", "correct the path, or mount something there", "nothing is mounted where it could match")
		return
	}
	m := l.versioned(p)
	if m == nil {
		return
	}
	rest := p.text[len(m.Path):]
	segment, below, deeper := strings.Cut(rest, "/")
	switch {
	case !deeper && p.prefix && segment != "" && wireBegins(segment):
		l.say(i, Warning, "star-wire", "write "+m.Path+segment+"/* or a whole segment",
			"on the wire it matches %s%s/ of every secret in %s", m.Path, wireFor(segment), m.Path)
	case deeper && segment == "data" && l.policy.Rules[i].Capabilities&List != 0:
		l.say(i, Notice, "list-on-data", "grant list on "+m.Path+"metadata/"+below+star(p)+", or write "+m.Path+below+star(p),
			"names are listed through %smetadata/", m.Path)
	}
}

func star(p *pattern) string {
	if p.prefix {
		return "*"
	}
	return ""
}

func wireBegins(text string) bool { return wireFor(text) != "" }

// wireFor returns the wire segment that begins with text.
func wireFor(text string) string {
	for _, s := range wireSegments {
		if strings.HasPrefix(s, text) {
			return s
		}
	}
	return ""
}

// versioned returns the versioned mount that the pattern lies in.
func (l *linter) versioned(p *pattern) *MountInfo {
	for i := range l.mounts {
		if m := &l.mounts[i]; m.Versioned && strings.HasPrefix(p.text, m.Path) {
			return m
		}
	}
	return nil
}

// writesSecrets reports whether the pattern lies in a versioned mount and covers
// secrets' values there.
func (l *linter) writesSecrets(p *pattern) bool {
	m := l.versioned(p)
	return m != nil && (strings.HasPrefix(p.text[len(m.Path):], "data/") || !wireSpelled(p.text[len(m.Path):]))
}

// duplicates finds paths that are written more than once.
func (l *linter) duplicates() {
	first := map[string]int{}
	for i := range l.policy.Rules {
		r := &l.policy.Rules[i]
		at, again := first[r.Path]
		if !again {
			first[r.Path] = i
			continue
		}
		text := "it merges with the rule for the same path on line %d"
		if l.policy.Rules[at].Capabilities&Deny != r.Capabilities&Deny {
			text += ", and deny wins"
		}
		l.say(i, Warning, "path-twice", "write one rule", text, l.policy.Rules[at].Line)
	}
}
