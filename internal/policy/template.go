package policy

import (
	"strings"
	"unicode"
)

// A template stands in a path as {{identity.entity.id}} and is replaced by
// something known of the caller.

// templates are the shapes of a template's name; + is any one word.
var templates = [...]string{
	"identity.entity.id",
	"identity.entity.name",
	"identity.entity.metadata.+",
	"identity.entity.aliases.+.id",
	"identity.entity.aliases.+.name",
	"identity.entity.aliases.+.metadata.+",
	"identity.entity.aliases.+.custom_metadata.+",
	"identity.groups.ids.+.name",
	"identity.groups.ids.+.metadata.+",
	"identity.groups.names.+.id",
	"identity.groups.names.+.metadata.+",
}

func checkTemplate(path string, line int) error {
	var bad string
	_, ok := expand(path, func(name string) (string, bool) {
		if !knownTemplate(name) {
			bad = name
		}
		return "x", true
	})
	switch {
	case bad != "":
		return at(line, "{{%s}} is not a template; there are %s, … with + for a name or id", bad, strings.Join(templates[:4], ", "))
	case !ok:
		return at(line, "path %q: {{ and }} must come in pairs", path)
	}
	return nil
}

func knownTemplate(name string) bool {
	for _, shape := range templates {
		p := pattern{text: strings.ReplaceAll(shape, ".", "/"), wild: true}
		if !strings.Contains(name, "/") && p.matches(strings.ReplaceAll(name, ".", "/")) {
			return true
		}
	}
	return false
}

// expand replaces every template in path. It is false when resolve is, and the path
// then as it was from that template on; or when braces do not pair.
func expand(path string, resolve func(name string) (string, bool)) (string, bool) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(path, "{{")
		if !found {
			out.WriteString(path)
			return out.String(), !strings.Contains(path, "}}")
		}
		name, after, closed := strings.Cut(rest, "}}")
		if !closed || strings.Contains(before, "}}") {
			return "", false
		}
		out.WriteString(before)
		value, ok := resolve(strings.TrimSpace(name))
		if !ok {
			out.WriteString(path[len(before):])
			return out.String(), false
		}
		out.WriteString(value)
		path = after
	}
}

// Expand returns the policy with the templates in its paths replaced by what
// resolve returns for their names. A rule is left out when a name is unknown,
// as in Vault, or when its value is empty or would reach beyond its place in the
// path: with a slash, a wildcard, a brace or a control character. Of a rule that
// denies, the template stays then, for Compile, which has it deny more.
func (p *Policy) Expand(resolve func(name string) (value string, ok bool)) *Policy {
	if !p.Templated() {
		return p
	}
	out := &Policy{Name: p.Name, Source: p.Source, Rules: make([]Rule, 0, len(p.Rules))}
	for _, r := range p.Rules {
		path, ok := expand(r.Path, func(name string) (string, bool) {
			value, ok := resolve(name)
			return value, ok && plainValue(value)
		})
		switch {
		case ok && len(path) <= MaxPath, !ok && r.denies():
			r.Path = path
		case !r.denies():
			continue
		}
		out.Rules = append(out.Rules, r)
	}
	return out
}

func plainValue(value string) bool {
	return value != "" && value != "." && value != ".." && !strings.ContainsAny(value, "/+*{}") &&
		!strings.ContainsFunc(value, unicode.IsControl)
}
