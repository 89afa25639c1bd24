package policy

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/fault"
)

// Parse reads a policy in HCL or JSON. An error is fault.Invalid and names the
// line and what is wrong with it.
//
// Keys that bound a rule in other servers and that Coffer does not enforce
// (mfa_methods, control_group, …) are refused: passing over them would grant
// more than their author meant.
func Parse(name, text string) (*Policy, error) {
	if len(text) > MaxSource {
		return nil, fault.New(fault.Invalid, "policy %s: the text has %d bytes, more than the %d allowed", name, len(text), MaxSource)
	}
	if !utf8.ValidString(text) {
		return nil, fault.New(fault.Invalid, "policy %s: the text is not valid UTF-8", name)
	}
	read := readHCL
	if isJSON(text) {
		read = readJSON
	}
	p := &Policy{Name: name, Source: text}
	root, err := read(text)
	if err == nil {
		err = p.readRoot(&root)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "policy %s: %s", name, fault.From(err).Message)
	}
	return p, nil
}

func (p *Policy) readRoot(root *syntax) error {
	values := 0
	for i := range root.fields {
		f := &root.fields[i]
		var err error
		switch f.name {
		case "name":
			_, err = f.word()
		case "path":
			err = p.readPaths(f, &values)
		default:
			err = at(f.line, "%q is not a key of a policy; use path blocks", f.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readPaths reads one path block of HCL, or the object of all paths of JSON,
// which may be a list of such objects, as may each rule.
func (p *Policy) readPaths(f *field, values *int) error {
	switch {
	case len(f.labels) == 1:
		return p.readRule(f.labels[0], f.line, &f.value, values)
	case len(f.labels) > 1:
		return at(f.line, "a path block has one path, not %d", len(f.labels))
	case !isJSON(p.Source):
		return at(f.line, `a path block names its path: path "secret/app/*" { … }`)
	}
	for _, object := range f.value.each() {
		if object.kind != objectSyntax {
			return at(object.line, "path must be an object of rules by path, not %s", object.kind)
		}
		for i := range object.fields {
			rule := &object.fields[i]
			for _, body := range rule.value.each() {
				if err := p.readRule(rule.name, rule.line, &body, values); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// each returns the items of a list, or the value itself.
func (s *syntax) each() []syntax {
	if s.kind == listSyntax {
		return s.list
	}
	return []syntax{*s}
}

func (p *Policy) readRule(path string, line int, body *syntax, values *int) error {
	if len(p.Rules) >= MaxRules {
		return at(line, "a policy has at most %d path blocks; split it", MaxRules)
	}
	if body.kind != objectSyntax {
		return at(line, "the rule for %q must be a block, not %s", path, body.kind)
	}
	r := Rule{Path: strings.TrimPrefix(path, "/"), Line: line}
	if err := checkPath(r.Path, line); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range body.fields {
		f := &body.fields[i]
		if seen[f.name] {
			return at(f.line, "%s is set twice for path %q", f.name, path)
		}
		seen[f.name] = true
		if len(f.labels) > 0 {
			return at(f.line, "%s takes no label", f.name)
		}
		if err := r.set(f, values); err != nil {
			return err
		}
	}
	if r.Capabilities = r.Written; r.Written&Deny != 0 {
		// Vault drops everything else beside deny.
		r = Rule{
			Path: r.Path, Capabilities: Deny, Written: r.Written, Expiration: r.Expiration, Comment: r.Comment, Line: line,
			Condition: r.Condition, when: r.when,
		}
	}
	if r.MaxWrappingTTL > 0 && r.MaxWrappingTTL < r.MinWrappingTTL {
		return at(line, "max_wrapping_ttl is less than min_wrapping_ttl for path %q", path)
	}
	p.Rules = append(p.Rules, r)
	return nil
}

func checkPath(path string, line int) error {
	switch {
	case len(path) > MaxPath:
		return at(line, "a path has at most %d bytes, this one %d", MaxPath, len(path))
	case strings.Count(path, "/") >= MaxSegments:
		return at(line, "a path has at most %d segments", MaxSegments)
	case strings.Contains(path, "+*"):
		return at(line, "path %q: +* is not allowed; write + or * alone", path)
	}
	return checkTemplate(path, line)
}

// set reads one key of a rule.
func (r *Rule) set(f *field, values *int) (err error) {
	switch f.name {
	case "capabilities":
		var list []string
		if list, err = f.words(); err == nil {
			err = r.grant(list, f.line)
		}
	case "policy":
		var word string
		if word, err = f.word(); err == nil && word != "" {
			c, ok := shorthand(word)
			if !ok {
				return at(f.line, "policy %q is not one of read, write, sudo, deny", word)
			}
			r.Written |= c
		}
	case "allowed_parameters":
		r.AllowedParameters, err = f.parameters(values)
	case "denied_parameters":
		r.DeniedParameters, err = f.parameters(values)
	case "required_parameters":
		if r.RequiredParameters, err = f.words(); err == nil {
			for i, name := range r.RequiredParameters {
				r.RequiredParameters[i] = strings.ToLower(name)
			}
		}
	case "min_wrapping_ttl":
		r.MinWrappingTTL, err = f.duration()
	case "max_wrapping_ttl":
		r.MaxWrappingTTL, err = f.duration()
	case "expiration":
		r.Expiration, err = f.time()
	case "condition":
		if r.Condition, err = f.word(); err == nil {
			r.Condition = strings.TrimSpace(r.Condition)
			if r.when, err = compileCondition(r.Condition); err != nil {
				return at(f.line, "condition: %v", err)
			}
		}
	case "comment":
		r.Comment, err = f.word()
	case "mfa_methods", "control_group", "pagination_limit", "list_scan_response_keys_filter_path", "subscribe_event_types":
		err = at(f.line, "%s is not enforced by Coffer and would be passed over; take it out", f.name)
	default:
		err = at(f.line, "%q is not a key of a path block; there are capabilities, policy, allowed_parameters, denied_parameters, required_parameters, min_wrapping_ttl, max_wrapping_ttl, expiration, condition and comment", f.name)
	}
	return err
}

func (r *Rule) grant(list []string, line int) error {
	for _, word := range list {
		c, ok := CapabilityOf(word)
		if !ok {
			return at(line, "%q is not a capability; there are create, read, update, delete, list, patch, sudo, deny, subscribe, recover, scan and why", word)
		}
		r.Written |= c
	}
	return nil
}

func (f *field) word() (string, error) {
	if f.value.kind != stringSyntax {
		return "", at(f.line, "%s must be a string, not %s", f.name, f.value.kind)
	}
	return f.value.text, nil
}

func (f *field) words() ([]string, error) {
	if f.value.kind != listSyntax {
		return nil, at(f.line, "%s must be a list of strings, not %s", f.name, f.value.kind)
	}
	list := make([]string, len(f.value.list))
	for i, item := range f.value.list {
		if item.kind != stringSyntax {
			return nil, at(item.line, "%s must be a list of strings, and holds %s", f.name, item.kind)
		}
		list[i] = item.text
	}
	return list, nil
}

func (f *field) parameters(values *int) (Parameters, error) {
	if f.value.kind == listSyntax && len(f.value.list) == 1 {
		f.value = f.value.list[0] // as JSON that was made of HCL has it
	}
	if f.value.kind != objectSyntax {
		return nil, at(f.line, "%s must be an object of lists by parameter, not %s", f.name, f.value.kind)
	}
	if len(f.value.fields) == 0 {
		return nil, nil
	}
	out := make(Parameters, len(f.value.fields))
	for i := range f.value.fields {
		p := &f.value.fields[i]
		name := strings.ToLower(p.name)
		if _, ok := out[name]; ok {
			return nil, at(p.line, "%s names %q twice", f.name, p.name)
		}
		if p.value.kind != listSyntax {
			return nil, at(p.line, "%s: %q must be a list of values, [] for any", f.name, p.name)
		}
		if *values += 1 + len(p.value.list); *values > MaxValues {
			return nil, at(p.line, "a policy names at most %d parameter values", MaxValues)
		}
		if again := p.value.repeated(); again != nil {
			return nil, at(again.line, "%s: a value of %q names %q twice", f.name, p.name, again.name)
		}
		list := make([]Value, len(p.value.list))
		for j := range p.value.list {
			list[j] = valueOf(p.value.list[j].tree())
		}
		out[name] = list
	}
	return out, nil
}

// duration reads seconds, or text such as 30s, 1h30m or 7d.
func (f *field) duration() (time.Duration, error) {
	text := f.value.text
	if f.value.kind != numberSyntax && f.value.kind != stringSyntax {
		return 0, at(f.line, "%s must be seconds or a duration such as 1h, not %s", f.name, f.value.kind)
	}
	if text == "" && f.value.kind == stringSyntax {
		return 0, nil
	}
	const longest = 100 * 365 * 24 * time.Hour
	unit := time.Second
	digits, days := strings.CutSuffix(text, "d")
	if days {
		unit = 24 * time.Hour
	}
	d := time.Duration(0)
	n, err := strconv.ParseInt(digits, 10, 64)
	if err == nil && n >= 0 && n <= int64(longest/unit) {
		d = time.Duration(n) * unit
	} else if err == nil {
		return 0, at(f.line, "%s: %s is not between 0 and 100 years", f.name, text)
	} else if d, err = time.ParseDuration(text); err != nil {
		return 0, at(f.line, "%s: %q is not seconds or a duration such as 1h", f.name, text)
	}
	if d < 0 || d > longest {
		return 0, at(f.line, "%s: %s is not between 0 and 100 years", f.name, text)
	}
	return d, nil
}

// time reads RFC 3339, or seconds since 1970. The empty string means never.
func (f *field) time() (time.Time, error) {
	if f.value.kind == stringSyntax && f.value.text == "" {
		return time.Time{}, nil
	}
	if n, err := strconv.ParseInt(f.value.text, 10, 64); err == nil && n > 0 && n < 1<<38 && f.value.kind != listSyntax {
		return time.Unix(n, 0).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, f.value.text)
	if err != nil || f.value.kind != stringSyntax {
		return time.Time{}, at(f.line, "%s must be a time such as 2030-01-31T12:00:00Z", f.name)
	}
	return t.UTC(), nil
}
