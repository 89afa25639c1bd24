package docgen

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json/jsontext"
)

type box struct{}

// request has a field of every kind; not every pattern has its variables.
type request struct {
	Path    string         `path:"path" doc:"The path | with a bar."`
	Version wire.Int       `query:"version" doc:"The version."`
	TTL     wire.Lifetime  `json:"ttl" doc:"How long."`
	Tags    wire.Strings   `json:"tags" doc:"The tags."`
	Meta    wire.StringMap `json:"meta" doc:"Anything."`
	Secret  wire.Secret    `json:"secret" doc:"Hidden."`
}

type common struct {
	Owner string `json:"owner" doc:"Whose it is."`
}

type answer struct {
	common
	route.Notes
	When   wire.Time      `json:"when"`
	From   netip.Addr     `json:"from"`
	Raw    jsontext.Value `json:"raw"`
	At     *time.Time     `json:"at"`
	Nested []struct {
		N int `json:"n"`
	} `json:"nested"`
	Hidden string              `json:"-"`
	Others map[string][]string `json:",embed"`
}

type bare struct {
	route.Bare
	OK bool `json:"ok"`
}

type whole struct {
	Body wire.Object `json:"body" body:"whole" doc:"Any object."`
}

func (*box) do(context.Context, route.Caller, request) (answer, error)     { return answer{}, nil }
func (*box) bare(context.Context, route.Caller, request) (bare, error)     { return bare{}, nil }
func (*box) put(context.Context, route.Caller, whole) (route.Empty, error) { return route.Empty{}, nil }
func (*box) raw(context.Context, route.Caller, route.Nothing) (route.Raw, error) {
	return route.Raw{}, nil
}

func mounts() []Mount {
	return []Mount{
		{Path: "a-b/", Kind: "box", Doc: "Keeps.", Routes: route.Erase([]route.Route[*box]{
			route.New("GET", "data/{path...}", "Read.", (*box).do, route.Shows("data/x", "", `{"owner":"me"}`)),
			route.New("LIST", "data/{path...}", "List.", (*box).do),
			route.New("POST", "data/{path...}", "Write.", (*box).do, route.Shows("data/x", `{"ttl":"1h"}`, "")),
			route.New("PATCH", "data/{path...}", "Patch.", (*box).do),
			route.New("POST", "free", "Free of variables.", (*box).bare, route.Public()),
			route.New("POST", "whole", "Takes all.", (*box).put, route.Sudo()),
			route.New("GET", "raw", "Answers as it is.", (*box).raw),
		})},
		{Path: "a/b/", Kind: "box", Doc: "Keeps.", Routes: route.Erase([]route.Route[*box]{
			route.New("GET", "data/{path...}", "Read.", (*box).do),
		})},
	}
}

// at walks a decoded document.
func at(t *testing.T, v any, path ...string) any {
	t.Helper()
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok || m[name] == nil {
			t.Fatalf("nothing at %s of %s", name, strings.Join(path, " > "))
		}
		v = m[name]
	}
	return v
}

func parameters(op any) map[string]string {
	out := map[string]string{}
	list, _ := op.(map[string]any)["parameters"].([]any)
	for _, p := range list {
		m := p.(map[string]any)
		out[m["name"].(string)] = m["in"].(string)
	}
	return out
}

func TestOpenAPIDescribesRequests(t *testing.T) {
	text, err := OpenAPI("1.2.3", mounts())
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	get := at(t, doc, "paths", "/a-b/data/{path}", "get")
	if got := parameters(get); got["path"] != "path" || got["version"] != "query" || got["ttl"] != "query" || len(got) != 6 {
		t.Errorf("a GET takes %v", got)
	}
	if get.(map[string]any)["requestBody"] != nil {
		t.Error("a GET has a body")
	}
	if got := parameters(at(t, doc, "paths", "/a-b/data/{path}/", "get")); got["list"] != "query" {
		t.Errorf("a LIST takes %v", got)
	}
	post := at(t, doc, "paths", "/a-b/data/{path}", "post")
	if got := parameters(post); len(got) != 1 {
		t.Errorf("a POST takes %v besides its body", got)
	}
	body := at(t, post, "requestBody", "content", "application/json")
	properties := at(t, body, "schema", "properties").(map[string]any)
	for name, want := range map[string]string{"version": "integer", "ttl": "string", "tags": "array", "meta": "object", "secret": "string"} {
		if got := at(t, properties, name, "type"); got != want {
			t.Errorf("%s is %v", name, got)
		}
	}
	if at(t, body, "example", "ttl") != "1h" || at(t, properties, "secret", "format") != "password" {
		t.Error("the example or a format is missing")
	}
	at(t, doc, "paths", "/a-b/data/{path}", "patch", "requestBody", "content", "application/merge-patch+json")
	free := at(t, doc, "paths", "/a-b/free", "post")
	if got := parameters(free); len(got) != 0 {
		t.Errorf("a pattern without variables takes %v", got)
	}
	if s := at(t, free, "security").([]any); len(s) != 0 {
		t.Error("a public route asks for a token")
	}
	all := at(t, doc, "paths", "/a-b/whole", "post")
	if s := at(t, all, "requestBody", "content", "application/json", "schema").(map[string]any); s["type"] != "object" || s["properties"] != nil {
		t.Errorf("a whole body is %v", s)
	}
	if at(t, all, "x-vault-sudo") != true {
		t.Error("sudo is not said")
	}
}

func TestOpenAPIDescribesAnswers(t *testing.T) {
	text, err := OpenAPI("1.2.3", mounts())
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	ok := at(t, doc, "paths", "/a-b/data/{path}", "get", "responses", "200", "content", "application/json")
	properties := at(t, ok, "schema", "properties").(map[string]any)
	if at(t, properties, "owner", "description") != "Whose it is." {
		t.Error("the members of an embedded struct are missing")
	}
	if at(t, properties, "when", "format") != "date-time" || at(t, properties, "at", "format") != "date-time" || at(t, properties, "from", "type") != "string" {
		t.Errorf("%v", properties)
	}
	if raw := at(t, properties, "raw").(map[string]any); len(raw) != 0 {
		t.Errorf("any JSON is %v", raw)
	}
	if at(t, properties, "nested", "items", "properties", "n", "type") != "integer" || len(properties) != 6 {
		t.Errorf("%v", properties)
	}
	if at(t, ok, "schema", "additionalProperties", "type") != "array" || at(t, ok, "example", "owner") != "me" {
		t.Error("an embedded map or the example is missing")
	}
	at(t, doc, "paths", "/a-b/whole", "post", "responses", "204")
	if !strings.Contains(at(t, doc, "paths", "/a-b/free", "post", "responses", "200", "description").(string), "without the envelope") {
		t.Error("a bare answer is not said to be one")
	}
	at(t, doc, "paths", "/a-b/raw", "get", "responses", "200", "content", "*/*")
	first := at(t, doc, "paths", "/a-b/data/{path}", "get", "operationId")
	if second := at(t, doc, "paths", "/a/b/data/{path}", "get", "operationId"); first == second {
		t.Errorf("two operations are %v", first)
	}
}

func TestOneRouteIsDescribedOnce(t *testing.T) {
	twice := mounts()
	if _, err := OpenAPI("1", append(twice, twice[0])); err == nil {
		t.Error("a mount is described twice and nobody says so")
	}
}

func TestMarkdown(t *testing.T) {
	page := Markdown(mounts()[0])
	for _, want := range []string{
		"# box\n\nKeeps.", "## GET `a-b/data/{path...}`\n\nRead.\n\nNeeds `read`.", "| `ttl` | body | duration | How long. |",
		"| `version` | query | integer | The version. |", `The path \| with a bar.`, "```\nPOST /v1/a-b/data/x\n{\"ttl\":\"1h\"}\n```",
		"answers\n```json\n{\"owner\":\"me\"}", "Needs `update` and `sudo`.", "Needs no token.", "| `body` | body, all of it | object | Any object. |",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if free := page[strings.Index(page, "a-b/free"):strings.Index(page, "a-b/whole")]; strings.Contains(free, "| path |") {
		t.Error("a pattern without variables lists one")
	}
}
