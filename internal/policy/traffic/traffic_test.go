package traffic_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/traffic"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/sys"
)

func routes(kind, version string) []route.Spec {
	if kind == "system" {
		return sys.Kind(nil).Spec().Routes
	}
	if spec := builtin.Engine(kind, version); spec != nil {
		return spec.Routes
	}
	return nil
}

func judge(t *testing.T, texts ...string) *traffic.Judge {
	t.Helper()
	var list []*policy.Policy
	for i := 0; i < len(texts); i += 2 {
		p, err := policy.Parse(texts[i], texts[i+1])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return traffic.NewJudge(list, routes)
}

// asked is an outcome of a request by somebody with policies; the policy and rule that
// allowed it, or none where it was denied.
func asked(operation, mount, kind, path, policies, by string, fields ...string) *audit.Entry {
	e := &audit.Entry{
		Type: audit.Outcome, Time: time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC),
		Request:   audit.Request{ID: "id-" + path, Operation: operation, Path: path, MountPoint: mount, MountType: kind, Fields: fields},
		Principal: audit.Principal{DisplayName: "token-ci", Policies: strings.Fields(policies)},
		Decision:  &audit.Decision{Missing: "no rule covers " + path},
	}
	if by != "" {
		name, rule, _ := strings.Cut(by, ":")
		e.Decision = &audit.Decision{Allowed: true, Policy: name, Rule: rule}
	}
	return e
}

func entity(e *audit.Entry, id string) *audit.Entry {
	e.Principal.EntityID = id
	return e
}

const app = `path "secret/app/*" { capabilities = ["read", "list"] }
path "secret/own/{{identity.entity.id}}" { capabilities = ["read"] }
path "secret/people/{{identity.entity.name}}" { capabilities = ["read"] }
path "secret/bound" {
  capabilities        = ["update"]
  required_parameters = ["data"]
  denied_parameters   = { "cas" = [1], "force" = [] }
}
path "sys/audit/*" { capabilities = ["update"] }
`

func TestReplay(t *testing.T) {
	for _, c := range []struct {
		e    *audit.Entry
		want string
	}{
		{asked("read", "secret/", "kv", "secret/data/app/db", "app", "app:secret/app/*"), "same"},
		{asked("read", "secret/", "kv", "secret/app/db", "app", "app:secret/app/*"), "same"}, // version 1
		{asked("list", "secret/", "kv", "secret/metadata/app", "app", "app:secret/app/*"), "same"},
		{asked("read", "secret/", "kv", "secret/search/app/", "app", "app:secret/app/*"), "same"}, // needs list
		{asked("read", "secret/", "kv", "secret/data/app/db", "app", ""), "newly allowed"},
		{asked("delete", "secret/", "kv", "secret/data/app/db", "app", "app:secret/app/*"), "newly denied"},
		{asked("read", "secret/", "kv", "secret/data/app/db", "app other", "app:secret/app/*"), "undecided: no policy named other is in the set"},
		{entity(asked("read", "secret/", "kv", "secret/data/own/e1", "app", "app:secret/own/e1"), "e1"), "same"},
		{entity(asked("read", "secret/", "kv", "secret/data/own/e1", "app", "app:secret/own/e1"), "e2"), "newly denied"},
		{entity(asked("read", "secret/", "kv", "secret/data/people/ada", "app", "app:secret/people/ada"), "e1"), "undecided: it hangs on a template"},
		{entity(asked("read", "secret/", "kv", "secret/data/app/db", "app", "app:secret/app/*"), "e1"), "same"},
		{asked("update", "secret/", "kv", "secret/data/bound", "app", "app:secret/bound", "data"), "same"},
		{asked("update", "secret/", "kv", "secret/data/bound", "app", "app:secret/bound", "options"), "newly denied"},
		{asked("update", "secret/", "kv", "secret/data/bound", "app", "app:secret/bound", "data", "force"), "newly denied"},
		{asked("update", "secret/", "kv", "secret/data/bound", "app", "app:secret/bound", "data", "cas"), "undecided: it hangs on the value of the parameter cas"},
		{asked("update", "sys/", "system", "sys/audit/file", "app", "app:sys/audit/*"), "newly denied"}, // it needs sudo
		{asked("read", "db/", "unknown", "db/creds/app", "app", ""), "same"},
		{asked("rub out", "secret/", "kv", "secret/data/a", "app", ""), "undecided: the operation"},
		// Nobody asked a policy about these.
		{asked("read", "sys/", "system", "sys/health", "app", "app:x"), "not judged"},
		{asked("read", "secret/", "kv", "secret/data/app/db", "root", "root:"), "not judged"},
		{asked("read", "secret/", "kv", "secret/data/app/db", "", "app:x"), "not judged"},
		{&audit.Entry{Type: audit.Event, Event: "unseal"}, "not judged"},
	} {
		r := traffic.NewReplay(judge(t, "app", app))
		r.Add(c.e)
		report := r.Report()
		got := "not judged"
		switch {
		case report.Same == 1:
			got = "same"
		case len(report.Groups) == 1 && report.Groups[0].Effect == traffic.Undecided:
			got = "undecided: " + report.Groups[0].Reason
		case len(report.Groups) == 1:
			got = string(report.Groups[0].Effect)
		}
		if !strings.HasPrefix(got, c.want) || c.want != "not judged" && report.Requests != 1 {
			t.Errorf("%+v: %s, want %s", c.e.Request, got, c.want)
		}
	}
	refused := asked("read", "secret/", "kv", "secret/data/app/db", "app", "")
	refused.Decision.Missing = "the token is bound to networks that the client's address is not in"
	elsewhere := asked("read", "secret/", "kv", "secret/data/app/db", "app", "")
	elsewhere.Principal.Namespace, elsewhere.Request.Namespace = "team-a/", "team-a/"
	for _, e := range []*audit.Entry{refused, elsewhere} {
		if a, ok := judge(t, "app", app).Judge(e); ok {
			t.Errorf("%+v is judged: %+v", e.Principal, a)
		}
	}
}

// Policies of a namespace name paths from there, also those of namespaces below it.
func TestNamespaces(t *testing.T) {
	j := judge(t, "app", `path "team-b/secret/app/*" { capabilities = ["read"] }`)
	j.Namespace = "team-a/"
	e := asked("read", "secret/", "kv", "secret/data/app/db", "app", "")
	e.Principal.Namespace, e.Request.Namespace = "team-a/", "team-a/team-b/"
	if a, ok := j.Judge(e); !ok || !a.Decision.Allowed {
		t.Errorf("%+v %v", a, ok)
	}
}

func TestGroups(t *testing.T) {
	r := traffic.NewReplay(judge(t, "app", `path "x" { capabilities = ["read"] }`))
	for i := range traffic.MaxPaths + 10 {
		e := asked("read", "secret/", "kv", fmt.Sprintf("secret/data/app/%d", i), "app", "app:secret/app/*")
		r.Add(e)
		r.Add(e)
	}
	r.Add(asked("list", "secret/", "kv", "secret/metadata/app", "app", "app:secret/app/*"))
	got := r.Report()
	if len(got.Groups) != 2 || got.Groups[0].Requests != 2*traffic.MaxPaths+20 || got.Groups[0].Paths != traffic.MaxPaths || got.Denied != 2*traffic.MaxPaths+21 {
		t.Errorf("%+v", got)
	}
	if g := got.Groups[0]; g.Example != fmt.Sprintf("id-secret/data/app/%d", traffic.MaxPaths+9) || g.Reason != "no rule covers it" {
		t.Errorf("%+v", g)
	}
}

func TestUses(t *testing.T) {
	u := traffic.NewUses(judge(t, "app", app, "same", `path "secret/app/*" { capabilities = ["read", "update"] }
path "secret/walls" { capabilities = ["deny"] }
path "secret/team/{{identity.entity.name}}/*" { capabilities = ["read"] }
path "secret/busy/*" { capabilities = ["read"] }`))
	for _, e := range []*audit.Entry{
		asked("read", "secret/", "kv", "secret/data/app/db", "app same", "app:secret/app/*"),
		asked("read", "secret/", "kv", "secret/data/app/db", "app same", "app:secret/app/*"),
		entity(asked("read", "secret/", "kv", "secret/data/team/ada/x", "same", "same:secret/team/ada/*"), "e1"),
	} {
		u.Add(e)
	}
	for i := range traffic.FewPaths + 1 {
		u.Add(asked("read", "secret/", "kv", fmt.Sprintf("secret/data/busy/%d", i), "same", "same:secret/busy/*"))
	}
	got := map[string]traffic.Use{}
	for _, use := range u.Report(true) {
		got[use.Policy+" "+use.Rule] = use
	}
	if len(got) != 9 || u.Undecided != 1 {
		t.Fatalf("%d rules, %d undecided", len(got), u.Undecided)
	}
	for rule, want := range map[string]struct {
		requests         int
		advice, narrower string
	}{
		"app secret/app/*":                            {2, "it covers much more", "path \"secret/app/db\" {\n  capabilities = [\"read\"]\n}\n"},
		"same secret/app/*":                           {2, "it covers much more", "path \"secret/app/db\" {\n  capabilities = [\"read\"]\n}\n"}, // rules of one path decide together
		"same secret/walls":                           {0, "", ""},
		"same secret/team/{{identity.entity.name}}/*": {1, "it covers much more", ""},
		"same secret/busy/*":                          {traffic.FewPaths + 1, "", ""},
		"app secret/bound":                            {0, "no request used it", ""},
	} {
		use := got[rule]
		if use.Requests != want.requests || !strings.HasPrefix(use.Advice, want.advice) || want.advice == "" && use.Advice != "" || use.Narrower != want.narrower {
			t.Errorf("%s: %+v", rule, use)
		}
	}
	if some := u.Report(false); len(some) != 7 {
		t.Errorf("%d rules have advice", len(some))
	}
}

func TestADenyWhoseValueIsNotInTheLog(t *testing.T) {
	j := judge(t, "app", `path "secret/*" { capabilities = ["read"] }
path "secret/people/{{identity.entity.name}}" { capabilities = ["deny"] }`)
	e := asked("read", "secret/", "kv", "secret/data/people/ada", "app", "app:secret/*")
	if a, ok := j.Judge(e); !ok || a.Undecided != "" || a.Decision.Allowed {
		t.Errorf("for a token without an entity: %+v %v", a, ok)
	}
	if a, ok := j.Judge(entity(e, "e1")); !ok || !strings.HasPrefix(a.Undecided, "it hangs on a template") {
		t.Errorf("for an entity: %+v %v", a, ok)
	}
}
