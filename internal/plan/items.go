package plan

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/policy/directory"
	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/policy/question"
)

// itemsOf returns what a directory says, mounts first, then policies, then what is
// written to paths.
func itemsOf(d *directory.Directory) []item {
	var out []item
	for _, m := range d.Mounts {
		out = append(out, &mountItem{m})
	}
	for _, p := range d.Policies {
		out = append(out, &policyItem{name: p.Name, text: p.Source, from: p.File})
	}
	for _, b := range d.Bodies {
		out = append(out, &pathItem{path: b.Path, from: b.File, body: b.JSON})
	}
	return out
}

// itemNamed returns an item that the directory has no more, nil for an id that this
// program does not know.
func itemNamed(id string) item {
	kind, name, _ := strings.Cut(id, ":")
	switch kind {
	case "policy":
		return &policyItem{name: name}
	case "mount":
		return &mountItem{question.Declared{Path: name}}
	case "path":
		return &pathItem{path: name}
	}
	return nil
}

// policyItem is a policy.
type policyItem struct{ name, text, from string }

func (p *policyItem) id() string       { return "policy:" + p.name }
func (p *policyItem) file() string     { return p.from }
func (p *policyItem) fields() []string { return nil }

func (p *policyItem) read(ctx context.Context, s *server, _ []string) (state, error) {
	var out struct {
		Policy string `json:"policy"`
	}
	err := s.get(ctx, "sys/policies/acl/"+p.name, &out)
	if client.IsNotFound(err) {
		return state{fingerprint: policystore.None, remembered: policystore.None}, nil
	}
	name := policystore.Fingerprint(out.Policy)
	return state{there: true, text: out.Policy, fingerprint: name, remembered: name}, err
}

func (p *policyItem) compare(live state) (string, string) {
	return unified(live.text, p.text, live.there), ""
}

func (p *policyItem) write(ctx context.Context, s *server, live state) error {
	body := struct {
		Policy string `json:"policy"`
		Seen   string `json:"seen"`
	}{p.text, live.fingerprint}
	return s.send(ctx, "POST", "sys/policies/acl/"+p.name, body)
}

func (p *policyItem) remove(ctx context.Context, s *server, live state) error {
	_, err := s.client.Do(ctx, client.Request{
		Method: "DELETE", Path: "sys/policies/acl/" + p.name, Query: url.Values{"seen": {live.fingerprint}}, WrapTTL: -1,
	})
	return err
}

// unified returns the lines that differ with three around them, without the names of
// files; "" where none does.
func unified(before, after string, there bool) string {
	if there && before == after {
		return ""
	}
	var out strings.Builder
	for line := range strings.SplitSeq(string(diff.Diff("server", []byte(before), "directory", []byte(after))), "\n") {
		if strings.HasPrefix(line, "diff ") || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "+++ ") || strings.HasPrefix(line, "@@") || line == "" {
			continue
		}
		out.WriteString(line + "\n")
	}
	if out.Len() == 0 {
		return "(empty)\n"
	}
	return out.String()
}

// mountItem is a secrets engine or a login method.
type mountItem struct{ question.Declared }

func (m *mountItem) id() string   { return "mount:" + m.Path }
func (m *mountItem) file() string { return "" }

// api is where the mount's API is.
func (m *mountItem) api() string {
	if name, ok := strings.CutPrefix(m.Path, "auth/"); ok {
		return "sys/auth/" + strings.TrimSuffix(name, "/")
	}
	return "sys/mounts/" + strings.TrimSuffix(m.Path, "/")
}

// want is what the directory says of the mount, by field.
func (m *mountItem) want() map[string]json.RawMessage {
	out := map[string]json.RawMessage{"type": text(m.Type), "description": text(m.Description)}
	for name, value := range m.Options {
		out["options."+name] = text(value)
	}
	for name, value := range m.Config {
		out["config."+name] = text(value)
	}
	return out
}

func text(value string) json.RawMessage {
	quoted, _ := json.Marshal(value) // strings are marshaled always
	return quoted
}

func (m *mountItem) fields() []string { return slices.Sorted(maps.Keys(m.want())) }

func (m *mountItem) read(_ context.Context, s *server, remembered []string) (state, error) {
	live, ok := s.mounts[m.Path]
	if !ok {
		return state{fingerprint: policystore.None, remembered: policystore.None}, nil
	}
	return stateOf(live, m.fields(), remembered), nil
}

func (m *mountItem) compare(live state) (string, string) {
	diff, _ := fieldsDiff(m.want(), live, true)
	return diff, ""
}

func (m *mountItem) write(ctx context.Context, s *server, live state) error {
	type config map[string]string
	if !live.there {
		body := struct {
			Type        string            `json:"type"`
			Description string            `json:"description"`
			Options     map[string]string `json:"options,omitempty"`
			Config      config            `json:"config,omitempty"`
		}{m.Type, m.Description, m.Options, m.Config}
		return s.send(ctx, "POST", m.api(), body)
	}
	if !same(text(m.Type), live.values["type"]) {
		return fmt.Errorf("it is of the type %s, and the directory says %s: a mount's type stays; move what is in it, disable it and apply again", live.values["type"], m.Type)
	}
	body := map[string]json.RawMessage{"description": text(m.Description)}
	for name, value := range m.Config {
		body[name] = text(value)
	}
	if len(m.Options) > 0 {
		options, err := json.Marshal(m.Options)
		if err != nil {
			return err
		}
		body["options"] = options
	}
	return s.send(ctx, "POST", m.api()+"/tune", body)
}

func (m *mountItem) remove(ctx context.Context, s *server, _ state) error {
	return s.send(ctx, "DELETE", m.api(), nil)
}

// pathItem is what is written to a path of some engine or method, such as a role.
type pathItem struct {
	path, from string
	body       json.RawMessage
}

func (p *pathItem) id() string   { return "path:" + p.path }
func (p *pathItem) file() string { return p.from }

func (p *pathItem) want() map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	if p.body != nil {
		_ = json.Unmarshal(p.body, &out) // package directory made it an object
	}
	return out
}

func (p *pathItem) fields() []string { return slices.Sorted(maps.Keys(p.want())) }

func (p *pathItem) read(ctx context.Context, s *server, remembered []string) (state, error) {
	var live map[string]json.RawMessage
	err := s.get(ctx, p.path, &live)
	switch {
	case client.IsNotFound(err):
		return state{fingerprint: policystore.None, remembered: policystore.None}, nil
	case err != nil:
		return state{}, err
	}
	return stateOf(live, p.fields(), remembered), nil
}

func (p *pathItem) compare(live state) (diff, note string) {
	diff, hidden := fieldsDiff(p.want(), live, false)
	if len(hidden) > 0 && live.there {
		note = "the server does not show " + strings.Join(hidden, ", ") + ": whether it differs is not known"
	}
	return diff, note
}

func (p *pathItem) write(ctx context.Context, s *server, live state) error {
	if err := p.unchanged(ctx, s, live); err != nil {
		return err
	}
	return s.send(ctx, "POST", p.path, p.body)
}

func (p *pathItem) remove(ctx context.Context, s *server, live state) error {
	if err := p.unchanged(ctx, s, live); err != nil {
		return err
	}
	return s.send(ctx, "DELETE", p.path, nil)
}

// unchanged refuses to go on where somebody changed the path since it was planned.
// Engines have no check-and-set for roles, so that a change within the moment between
// this and the write is not seen.
func (p *pathItem) unchanged(ctx context.Context, s *server, live state) error {
	now, err := p.read(ctx, s, nil)
	if err == nil && now.fingerprint != live.fingerprint {
		err = fmt.Errorf("it was changed by another since it was planned; plan anew")
	}
	return err
}
