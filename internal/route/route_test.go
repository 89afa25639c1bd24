package route

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/google/go-cmp/cmp"
)

type box struct{}

type anyPath struct {
	Path    string       `path:"path"`
	Version wire.Int     `query:"version"`
	TTL     wire.Seconds `json:"ttl"`
	Tags    wire.Strings `json:"tags"`
	Data    wire.Object  `json:"data"`
	Name    string       `json:"name"`
}

type oneName struct {
	Name string `path:"name"`
}

type whole struct {
	Path string      `path:"path"`
	Body wire.Object `json:"body" body:"whole"`
}

func (*box) any(context.Context, Caller, anyPath) (Empty, error)  { return Empty{}, nil }
func (*box) one(context.Context, Caller, oneName) (Empty, error)  { return Empty{}, nil }
func (*box) none(context.Context, Caller, Nothing) (Empty, error) { return Empty{}, nil }
func (*box) raw(context.Context, Caller, whole) (Empty, error)    { return Empty{}, nil }

func table(t testing.TB) *Table {
	t.Helper()
	return NewTable(Erase([]Route[*box]{
		New("GET", "data/{path...}", "", (*box).any),
		New("POST", "data/{path...}", "", (*box).any),
		New("LIST", "metadata/{path...}", "", (*box).any),
		New("GET", "roles/{name}", "", (*box).one),
		New("LIST", "roles", "", (*box).none),
		New("GET", "roles/special", "", (*box).none),
		New("POST", "mounts/{path...}", "", (*box).any),
		New("POST", "mounts/{path...}/tune", "", (*box).any),
		New("GET", "", "", (*box).none),
	}))
}

func TestFind(t *testing.T) {
	tab := table(t)
	for _, c := range []struct {
		method, path, pattern, value string
		allowed                      []string
	}{
		{"GET", "data/a/b", "data/{path...}", "a/b", nil},
		{"GET", "data/", "data/{path...}", "", nil},
		{"GET", "data", "data/{path...}", "", nil},
		{"GET", "data/a/", "data/{path...}", "a/", nil},
		{"LIST", "metadata/", "metadata/{path...}", "", nil},
		{"LIST", "metadata", "metadata/{path...}", "", nil},
		{"LIST", "metadata/a/", "metadata/{path...}", "a/", nil},
		{"GET", "roles/x", "roles/{name}", "x", nil},
		{"GET", "roles/special", "roles/special", "", nil},
		{"LIST", "roles/", "roles", "", nil},
		{"POST", "mounts/a/b/tune", "mounts/{path...}/tune", "a/b", nil},
		{"POST", "mounts/tune", "mounts/{path...}", "tune", nil},
		{"POST", "mounts/a/b", "mounts/{path...}", "a/b", nil},
		{"GET", "", "", "", nil},
		{"PATCH", "data/a", "", "", []string{"GET", "POST"}},
		{"POST", "roles/x", "", "", []string{"GET"}},
		{"GET", "nothing", "", "", nil},
		{"GET", "roles/x/y", "", "", nil},
		{"GET", "roles/", "", "", nil},
		{"GET", "roles//", "", "", nil},
	} {
		spec, vars, allowed := tab.Find(c.method, c.path)
		if c.pattern == "" && c.path != "" {
			if spec != nil {
				t.Errorf("%s %q: found %s", c.method, c.path, spec.Pattern)
			}
			if !slices.Equal(allowed, c.allowed) {
				t.Errorf("%s %q: allowed %v, want %v", c.method, c.path, allowed, c.allowed)
			}
			continue
		}
		if spec == nil || spec.Pattern != c.pattern {
			t.Errorf("%s %q: found %v, want %s", c.method, c.path, spec, c.pattern)
			continue
		}
		if len(vars) > 0 && vars[0].Value != c.value {
			t.Errorf("%s %q: %v, want %q", c.method, c.path, vars, c.value)
		}
	}
}

func TestDecode(t *testing.T) {
	spec := New("POST", "data/{path...}", "", (*box).any).Spec()
	decode := func(body string) (anyPath, []string, error) {
		params, err := wire.ParseBody([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		req, warnings, err := spec.Decode(&Input{Vars{{"path", "a/b"}}, params})
		got, _ := req.(anyPath)
		return got, warnings, err
	}
	got, warnings, err := decode(`{"ttl":"1h","tags":"a,b","data":{"n":12345678901234567890},"name":"x","extra":1,"other":2}`)
	want := anyPath{Path: "a/b", TTL: 3600e9, Tags: wire.Strings{"a", "b"}, Data: wire.Object(`{"n":12345678901234567890}`), Name: "x"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if !slices.Equal(warnings, []string{"Endpoint ignored these unrecognized parameters: [extra other]"}) {
		t.Errorf("warnings %v", warnings)
	}
	for _, body := range []string{
		`{"ttl":"hunter2"}`, `{"tags":{"hunter2":1}}`, `{"data":"hunter2"}`, `{"data":["hunter2"]}`, `{"name":{"hunter2":1}}`, `{"name":7}`,
	} {
		_, _, err := decode(body)
		field := strings.Split(body, `"`)[1]
		if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), field+": ") {
			t.Errorf("%s: %v", body, err)
		}
		if field != "ttl" && err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats the value: %v", body, err)
		}
	}
}

type deep struct {
	Options struct {
		CAS   *wire.Int `json:"cas"`
		Rules []rule    `json:"rules"`
	} `json:"options"`
	Named map[string]rule `json:"named"`
	Tags  wire.Strings    `json:"tags"`
}

type rule struct {
	Most int64 `json:"most"`
}

func (*box) deep(context.Context, Caller, deep) (Empty, error) { return Empty{}, nil }

// What cannot be read is named to its innermost field, but no name that is the
// sender's own is repeated, and no value.
func TestDecodeNamesTheInnerField(t *testing.T) {
	spec := New("POST", "deep", "", (*box).deep).Spec()
	for body, want := range map[string]string{
		`{"options":{"cas":"hunter2"}}`:              "options.cas: it is not a whole number",
		`{"options":{"cas":{"a":1}}}`:                "options.cas: it must be a whole number",
		`{"options":5}`:                              "options: it must be an object",
		`{"options":{"rules":[{},{"most":"x"}]}}`:    "options.rules[1].most: it must be an integer",
		`{"options":{"rules":[{},"hunter2"]}}`:       "options.rules[1]: it must be an object",
		`{"named":{"hunter2":{"most":true}}}`:        "named: it must be an object",
		`{"tags":[{"hunter2":1}]}`:                   "tags: it must be a list of strings",
		`{"options":{"hunter2":{"hunter2":[1,2]}}}`:  "",
		`{"options":{"cas":1,"rules":[{"most":3}]}}`: "",
	} {
		params, err := wire.ParseBody([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = spec.Decode(&Input{Params: params})
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != want {
			t.Errorf("%s: %q, want %q", body, text, want)
		}
	}
}

func TestDecodeQueryAndWholeBody(t *testing.T) {
	spec := New("GET", "data/{path...}", "", (*box).any).Spec()
	req, _, err := spec.Decode(&Input{Vars{{"path", "a"}}, wire.ParseQuery(url.Values{"version": {"7"}, "list": {"false"}})})
	if err != nil || req.(anyPath).Version != 7 {
		t.Errorf("%+v %v", req, err)
	}
	spec = New("POST", "{path...}", "", (*box).raw).Spec()
	params, _ := wire.ParseBody([]byte(`{"any":1,"thing":[2]}`))
	req, warnings, err := spec.Decode(&Input{Vars{{"path", "a"}}, params})
	if got := req.(whole); err != nil || string(got.Body) != `{"any":1,"thing":[2]}` || warnings != nil {
		t.Errorf("%q %v %v", []byte(got.Body), warnings, err)
	}
}

func TestNeeded(t *testing.T) {
	exists := false
	spec := New("POST", "data/{path...}", "", (*box).any, ExistsBy(func(*box, context.Context, anyPath) (bool, error) { return exists, nil })).Spec()
	for _, want := range []policy.Capability{policy.Create, policy.Update} {
		if got, err := spec.Needed(t.Context(), &box{}, anyPath{}); got != want || err != nil {
			t.Errorf("exists %v: %v %v", exists, got, err)
		}
		exists = true
	}
}

func TestWrongTablesPanic(t *testing.T) {
	for name, build := range map[string]func(){
		"method":   func() { New("HEAD", "x", "", (*box).none) },
		"variable": func() { New("GET", "{id}", "", (*box).one) },
		"twice": func() {
			NewTable(Erase([]Route[*box]{New("GET", "a/{name}", "", (*box).one), New("GET", "a/{name}", "", (*box).one)}))
		},
		"rest in the middle": func() { NewTable(Erase([]Route[*box]{New("GET", "{path...}/{name}", "", (*box).mixed)})) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			build()
		})
	}
}

type mixed struct {
	Path string `path:"path"`
	Name string `path:"name"`
}

func (*box) mixed(context.Context, Caller, mixed) (Empty, error) { return Empty{}, nil }

func FuzzFind(f *testing.F) {
	tab := table(f)
	for _, seed := range []string{"data/a/b", "data//", "/", "//", "mounts/a/tune", "roles/x/", "\x00", "%2e%2e/"} {
		f.Add("GET", seed)
		f.Add("LIST", seed)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		spec, vars, allowed := tab.Find(method, path)
		if spec == nil {
			return
		}
		if spec.Method != method || allowed != nil {
			t.Fatalf("%s found for %s, allowed %v", spec.Method, method, allowed)
		}
		back := strings.TrimSuffix(Expand(spec.Pattern, vars), "/")
		if back != strings.TrimSuffix(path, "/") && back != strings.TrimSuffix(strings.TrimSuffix(path, "/"), "/") {
			t.Fatalf("%q matched %s with %v, which spells %q", path, spec.Pattern, vars, back)
		}
	})
}
