package broker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/cofferhq/coffer/internal/identity"
)

// hostile is somebody whose every value tries to end its place.
func hostile() *identity.Who {
	const bad = `x"},"sub":"root","y":{"z":"`
	pairs := map[string]string{"team": bad, "a.b": "dotted", `k"}`: bad, "nul": "a\x00b", "line": "a\nb", "braces": "{{identity.entity.id}}"}
	return &identity.Who{
		Entity: &identity.Entity{
			ID: "e-1", Name: bad, Metadata: pairs,
			Aliases: []identity.Alias{{ID: "a-1", Name: bad, Mount: "auth_x", Metadata: pairs, Custom: map[string]string{"desk": "7"}}},
		},
		Groups: []*identity.Group{{ID: "g-1", Name: bad}, {ID: "g-2", Name: "ops"}},
	}
}

func render(t *testing.T, template string, who *identity.Who) map[string]any {
	t.Helper()
	parsed, err := ParseTemplate(template)
	if err != nil {
		t.Fatalf("%s: %v", template, err)
	}
	text, err := json.Marshal(parsed.Render(who, time.Unix(1000, 0), nil))
	if err != nil {
		t.Fatalf("%s renders no JSON: %v", template, err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestExpressions(t *testing.T) {
	t.Parallel()
	who := hostile()
	for expression, want := range map[string]any{
		"identity.entity.id":                                  who.Entity.ID,
		"  identity.entity.name\t":                            who.Entity.Name,
		"identity.entity.metadata.team":                       who.Entity.Metadata["team"],
		"identity.entity.metadata.a.b":                        "dotted",
		"identity.entity.metadata.none":                       "",
		"identity.entity.metadata":                            who.Entity.Metadata,
		"identity.entity.groups.names":                        []string{who.Entity.Name, "ops"},
		"identity.entity.groups.ids":                          []string{"g-1", "g-2"},
		"identity.entity.aliases.auth_x.id":                   "a-1",
		"identity.entity.aliases.auth_x.name":                 who.Entity.Name,
		"identity.entity.aliases.auth_x.metadata.team":        who.Entity.Metadata["team"],
		"identity.entity.aliases.auth_x.metadata":             who.Entity.Metadata,
		"identity.entity.aliases.auth_x.custom_metadata":      map[string]string{"desk": "7"},
		"identity.entity.aliases.auth_x.custom_metadata.desk": "7",
		"identity.entity.aliases.other.name":                  "",
		"identity.entity.aliases.other.metadata":              map[string]string{},
		"time.now":                                            1000,
		"time.now.plus.1h":                                    4600,
		"time.now.minus.10s":                                  990,
	} {
		got := render(t, `{"v": {{`+expression+`}}, "in": [1, {"deep": {{`+expression+`}}}]}`, who)
		text, _ := json.Marshal(want)
		var value any
		_ = json.Unmarshal(text, &value)
		if fmt.Sprint(got["v"]) != fmt.Sprint(value) || fmt.Sprint(got["in"]) != fmt.Sprint([]any{1, map[string]any{"deep": value}}) || len(got) != 2 {
			t.Errorf("%s is %v, want %v", expression, got, value)
		}
	}
	got := render(t, `{"as": "coffer:{{identity.entity.name}} at {{time.now}}", "plain": "}", "esc": "\"{{identity.entity.id}}\\", "n": 12345678901234567890, "t": [true, null, []], "nul": {{identity.entity.metadata.nul}}, "braces": "{{identity.entity.metadata.braces}}"}`, who)
	for name, want := range map[string]any{
		"as": "coffer:" + who.Entity.Name + " at 1000", "plain": "}", "esc": `"e-1\`, "t": []any{true, nil, []any{}}, "nul": "a\x00b", "braces": "{{identity.entity.id}}",
	} {
		if fmt.Sprint(got[name]) != fmt.Sprint(want) {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	parsed, err := ParseTemplate(`{"n": 12345678901234567890}`)
	must(t, err)
	if n := string(parsed.Render(who, time.Now(), nil)["n"]); n != "12345678901234567890" {
		t.Errorf("a number became %s", n)
	}
	if got := render(t, " ", who); len(got) != 0 {
		t.Errorf("no template claims %v", got)
	}
}

func TestHostileTemplates(t *testing.T) {
	t.Parallel()
	for template, text := range map[string]string{
		`[]`:                                  "must be a JSON object",
		`"x"`:                                 "must be a JSON object",
		`{{identity.entity.metadata}}`:        "must be a JSON object",
		`{`:                                   "not valid JSON",
		`{"a":1}}`:                            "goes on after",
		`{"a":1}{"b":2}`:                      "goes on after",
		`{"a":1,"a":2}`:                       "stands twice",
		`{"a":{"b":1,"b":2}}`:                 "stands twice",
		`{"a":}`:                              "not valid JSON",
		`{"a":[1,}`:                           "not valid JSON",
		`{"a":[`:                              "not valid JSON",
		`{"a": {{time.now}}{{time.now}}}`:     "not valid JSON",
		`{"a": "x"{{time.now}}}`:              "not valid JSON",
		`{"a": {{time.now}`:                   "is not closed",
		`{"a": "{{time.now"}`:                 "is not closed",
		`{"a": "x}}"}`:                        "closes nothing",
		`{"a": "\u00000"}`:                    "holds a NUL",
		`{"a": {{time.now}}, "b": "\u00000"}`: "holds a NUL",
		`{"\u00000": {{time.now}}}`:           "holds a NUL",
		"{\"a\": \"\x000\", \"b\": {{time.now}}}":                           "not valid JSON",
		`{{{identity.entity.name}}: 1}`:                                     "names no value",
		`{ {{identity.entity.name}}: 1}`:                                    "cannot be an expression",
		`{"{{identity.entity.name}}": 1}`:                                   "cannot be an expression",
		`{"a": "{{identity.entity.metadata}}"}`:                             "cannot stand inside a text",
		`{"a": "{{identity.entity.groups.names}}"}`:                         "cannot stand inside a text",
		`{"a": {{identity.entity}}}`:                                        "names no value",
		`{"a": {{identity.entity.metadata.}}}`:                              "names no value",
		`{"a": {{identity.entity.aliases.x}}}`:                              "names no value",
		`{"a": {{identity.entity.aliases..name}}}`:                          "names no value",
		`{"a": {{identity.groups.names.ops.id}}}`:                           "names no value",
		`{"a": {{time.now.plus}}}`:                                          "names no value",
		`{"a": {{time.now.plus.-1h}}}`:                                      "names no value",
		`{"a": {{time.now.times.2}}}`:                                       "names no value",
		`{"a": {{time.now.plus.9999999h}}}`:                                 "names no value",
		`{"a": {{}}}`:                                                       "names no value",
		`{"sub": "x"}`:                                                      `top level key "sub" not allowed`,
		`{"SUB": "x"}`:                                                      `top level key "SUB" not allowed`,
		`{"\u0073ub": "x"}`:                                                 `top level key "sub" not allowed`,
		`{"ſub": "x"}`:                                                      "not allowed",
		`{"namespace": "x"}`:                                                "not allowed",
		`{"nonce": "x", "a": 1}`:                                            "not allowed",
		`{"a": ` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`:  "deeper than 16",
		`{"a": [` + strings.Repeat("{{time.now}},", 200) + `{{time.now}}]}`: "at most 200",
		`{"a": "` + strings.Repeat("{{time.now}}", 201) + `"}`:              "at most 200",
		`{"a": "` + strings.Repeat("x", MaxTemplate) + `"}`:                 "at most 16384",
		"{\"a\": \"\xff\"}":                                                 "not valid JSON",
	} {
		_, err := ParseTemplate(template)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%.80s: %v, want %q", template, err, text)
		}
	}
	for _, template := range []string{
		`{"nbf": {{time.now}}, "jti": "1", "inner": {"sub": "x"}}`,
		`{"a": ` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`,
		`{"a": [` + strings.Repeat("{{time.now}},", 199) + `{{time.now}}]}`,
		`{"a":{"b":{{identity.entity.id}}}}`,
		`{"a": "\\u0000"}`,
	} {
		if _, err := ParseTemplate(template); err != nil {
			t.Errorf("%.80s: %v", template, err)
		}
	}
}

// FuzzTemplate parses what it is given, and holds what is rendered of it for somebody
// hostile to what it is rendered to for somebody plain: the same tree.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		`{"a": {{identity.entity.name}}, "b": "x{{identity.entity.metadata.team}}y"}`,
		`{"a": [{{identity.entity.groups.names}}, {{time.now.plus.1h}}], "nbf": {{time.now}}}`,
		`{"a": "\u00000", "b": {{time.now}}}`, `{"\"}}": "\\{{identity.entity.id}}"}`, `{"a":{{identity.entity.aliases.auth_x.metadata}}}`,
	} {
		f.Add(seed)
	}
	bad := hostile()
	plain := hostile()
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseTemplate(text)
		if err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Fatalf("the refusal is not text: %q", err)
			}
			return
		}
		e := *plain.Entity
		e.Name, e.Metadata, e.Aliases = "ada", map[string]string{}, nil
		a := parsed.Render(bad, time.Unix(1, 0), nil)
		b := parsed.Render(&identity.Who{Entity: &e}, time.Unix(1, 0), nil)
		for name, value := range a {
			if reserved(name) {
				t.Fatalf("%q sets %q", text, name)
			}
			if !value.IsValid() || value.Kind() != b[name].Kind() {
				t.Fatalf("%q renders %q as %s, and as %s", text, name, value, b[name])
			}
		}
		if len(a) != len(b) || len(a) != len(parsed.Names()) {
			t.Fatalf("%q claims %d and %d of %d", text, len(a), len(b), len(parsed.Names()))
		}
		out, err := payload(a, standard{Issuer: "i", Subject: "s", Audience: []string{"a"}})
		if err == nil && !jsontext.Value(out).IsValid() {
			t.Fatalf("%q signs %s", text, out)
		}
	})
}
