package question_test

import (
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/question"
	"github.com/cofferhq/coffer/internal/sys"
)

func mounts() *question.Mounts {
	return question.New([]question.Mount{
		{Path: "sys/", Type: "system", Routes: sys.Kind(nil).Spec().Routes},
		{Path: "secret/", Type: "kv", Routes: builtin.Engine("kv", "2").Routes},
		{Path: "secret/old/", Type: "kv", Routes: builtin.Engine("kv", "1").Routes},
		{Path: "auth/approle/", Type: "approle", Routes: builtin.Engine("approle", "").Routes},
		{Path: "db/", Type: "unknown"},
	})
}

// What is asked is what the gateway asks.
func TestAsk(t *testing.T) {
	for _, c := range []struct{ capability, path, wire, plain, need, plainNeed string }{
		{"read", "secret/app/db", "secret/data/app/db", "secret/app/db", "read", "read"},
		{"read", "/secret/data/app/db", "secret/data/app/db", "secret/app/db", "read", "read"},
		{"create", "secret/app/db", "secret/data/app/db", "secret/app/db", "create", "create"},
		{"update", "secret/app/db", "secret/data/app/db", "secret/app/db", "update", "update"},
		{"patch", "secret/app/db", "secret/data/app/db", "secret/app/db", "patch", "patch"},
		{"delete", "secret/app/db", "secret/data/app/db", "secret/app/db", "delete", "delete"},
		{"list", "secret/app", "secret/metadata/app", "secret/app", "list", "list"},
		{"list", "secret/app/", "secret/metadata/app/", "secret/app/", "list", "list"},
		{"list", "secret", "secret/metadata/", "secret/", "list", "list"},
		{"list", "secret/search/app", "secret/search/app", "secret/app", "list", "list"},
		{"create", "secret/metadata/app", "secret/metadata/app", "secret/app", "create", "update"},
		{"update", "secret/destroy/app", "secret/destroy/app", "secret/app", "update", "delete"},
		{"read", "secret/config", "secret/config", "", "read", ""},
		{"read", "secret/old/app", "secret/old/app", "", "read", ""},
		{"create", "secret/old/app", "secret/old/app", "", "create", ""},
		{"update", "auth/approle/role/ci", "auth/approle/role/ci", "", "update", ""},
		{"read", "auth/approle/role/ci", "auth/approle/role/ci", "", "read", ""},
		{"read", "db/creds/app", "db/creds/app", "", "read", ""},
		{"delete", "sys/policies/acl/app", "sys/policies/acl/app", "", "delete", ""},
		{"why", "secret/app", "secret/data/app", "secret/app", "why", "why"},
	} {
		ask, err := mounts().Ask(c.capability, c.path)
		if err != nil {
			t.Errorf("%s %s: %v", c.capability, c.path, err)
			continue
		}
		plainNeed := ""
		if ask.Plain != "" {
			plainNeed = ask.PlainNeed.String()
		}
		if ask.Path != c.wire || ask.Plain != c.plain || ask.Need.String() != c.need || plainNeed != c.plainNeed {
			t.Errorf("%s %s: %+v", c.capability, c.path, ask)
		}
	}
	if ask, err := mounts().Ask("update", "sys/audit/file"); err != nil || !ask.Sudo {
		t.Errorf("sudo is forgotten: %+v %v", ask, err)
	}
	if m, ok := mounts().At("secret/old/x"); !ok || m.Path != "secret/old/" {
		t.Errorf("%+v %v", m, ok)
	}
}

func TestNotAsked(t *testing.T) {
	for _, c := range []struct{ capability, path, want string }{
		{"reed", "secret/app", "is not a capability"},
		{"deny", "secret/app", "nobody asks for deny"},
		{"read", "nosuch/app", "nothing is mounted at nosuch/app"},
		{"read", "sys/nosuch", "has nothing at nosuch"},
		{"create", "sys/policies/acl/app", "POST sys/policies/acl/app needs update, not create"},
		{"read", "sys/health", "no policy is asked"},
		{"update", "auth/approle/login", "no policy is asked"},
		{"patch", "secret/labels/app", "has nothing at labels/app"},
	} {
		if ask, err := mounts().Ask(c.capability, c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %+v %v, want %q", c.capability, c.path, ask, err, c.want)
		}
	}
	if _, ok := mounts().At("nosuch"); ok {
		t.Error("nosuch is mounted")
	}
}

func TestDeclared(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`mount "a" { type = "kv" version = 2 }`, "a/ kv 2"},
		{`auth "ci/" { type = "approle" config = { max_lease_ttl = "1h" } }`, "auth/ci/ approle "},
		{`{"mount": {"a/b": {"type": "kv", "options": {"version": "1"}}}}`, "a/b/ kv 1"},
		{`mount "a" "b" { type = "kv" }`, "line 1: mount takes 1 names"},
		{`mount "a" { kind = "kv" }`, `line 1: "kind" is not a key of a mount`},
		{`mount "/" { type = "kv" }`, "line 1: a mount has a path"},
		{`mount = "a"`, "line 1: a mount has a path"},
	} {
		root, err := policy.ReadDocument(c.text)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		err = question.ReadDeclared(root.Fields[0], func(d question.Declared) error {
			got = d.Path + " " + d.Type + " " + d.Version()
			return nil
		})
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.text, got, c.want)
		}
	}
}
