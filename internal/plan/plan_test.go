package plan_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/plan"
	"github.com/cofferhq/coffer/internal/policy/directory"
)

// project is a directory and the server that it is applied to.
type project struct {
	t      *testing.T
	root   string
	server *apptest.Server
	client *client.Client
}

func newProject(t *testing.T) *project {
	t.Helper()
	t.Parallel()
	s := apptest.Start(t, "")
	c, err := client.New(client.Config{Address: s.URL(), CACert: s.CAFile, Token: client.Secret(s.Root)})
	if err != nil {
		t.Fatal(err)
	}
	p := &project{t: t, root: t.TempDir(), server: s, client: c}
	p.write("mounts.hcl", `auth "approle/" { type = "approle" }`)
	p.write("policies/a.hcl", `path "secret/a" { capabilities = ["read"] }`)
	p.write("policies/b.hcl", `path "secret/b" { capabilities = ["read"] }`)
	p.write("paths/auth/approle/role/ci.hcl", `token_policies = ["a", "b"]`)
	return p
}

func (p *project) write(name, text string) {
	p.t.Helper()
	file := filepath.Join(p.root, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) remove(name string) {
	p.t.Helper()
	if err := os.Remove(filepath.Join(p.root, filepath.FromSlash(name))); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) plan(o plan.Options) *plan.Plan {
	p.t.Helper()
	d, err := directory.Load(p.root)
	if err != nil {
		p.t.Fatal(err)
	}
	o.Client, o.Set = p.client, "main"
	made, err := plan.Make(p.t.Context(), d, o)
	if err != nil {
		p.t.Fatal(err)
	}
	return made
}

// apply returns what was changed and remembered.
func (p *project) apply(made *plan.Plan) ([]string, error) {
	var out []string
	err := made.Apply(p.t.Context(), p.client, func(c plan.Change) { out = append(out, string(c.Action)+" "+c.ID) })
	return out, err
}

func (p *project) applied(o plan.Options, want ...string) {
	p.t.Helper()
	got, err := p.apply(p.plan(o))
	if err != nil || !slices.Equal(got, want) {
		p.t.Fatalf("%q %v, want %q", got, err, want)
	}
}

func (p *project) policy(name string) string {
	p.t.Helper()
	text, err := p.client.Sys().Policy(p.t.Context(), name)
	if err != nil && !client.IsNotFound(err) {
		p.t.Fatal(err)
	}
	return text
}

var all = []string{"create mount:auth/approle/", "create policy:a", "create policy:b", "create path:auth/approle/role/ci"}

func TestApplyTwice(t *testing.T) {
	p := newProject(t)
	p.applied(plan.Options{}, all...)
	p.applied(plan.Options{})
	if made := p.plan(plan.Options{}); made.Pending() || len(made.Unmanaged) != 0 {
		t.Errorf("%+v", made)
	}
}

// An apply that is killed between any two steps leaves what it did, and the next one
// goes on.
func TestApplyIsInterrupted(t *testing.T) {
	for stop := range all {
		t.Run(all[stop], func(t *testing.T) { interrupted(t, stop) })
	}
}

func interrupted(t *testing.T, stop int) {
	p := newProject(t)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := p.plan(plan.Options{}).Apply(ctx, p.client, func(plan.Change) {
		if n++; n == stop+1 {
			cancel()
		}
	})
	if stop+1 < len(all) && err == nil {
		t.Errorf("after %d changes: it went on", n)
	}
	p.applied(plan.Options{}, all[stop+1:]...)
	p.applied(plan.Options{})
	cancel()
}

// What was written and not remembered, as where the power went between the two, is
// only remembered.
func TestWrittenAndNotRemembered(t *testing.T) {
	p := newProject(t)
	p.server.Must(t, 204, "POST", "sys/auth/approle", `{"type":"approle"}`)
	if _, err := p.client.Sys().WritePolicy(t.Context(), "a", `path "secret/a" { capabilities = ["read"] }`); err != nil {
		t.Fatal(err)
	}
	p.applied(plan.Options{}, "adopt mount:auth/approle/", "adopt policy:a", "create policy:b", "create path:auth/approle/role/ci")
	p.applied(plan.Options{})
}

// What another changed between plan and apply is not overwritten.
func TestConcurrentChange(t *testing.T) {
	const theirs = `path "secret/theirs" { capabilities = ["read"] }`
	p := newProject(t)
	p.applied(plan.Options{}, all...)

	p.write("policies/a.hcl", `path "secret/a" { capabilities = ["list"] }`)
	made := p.plan(plan.Options{})
	if _, err := p.client.Sys().WritePolicy(t.Context(), "a", theirs); err != nil {
		t.Fatal(err)
	}
	if got, err := p.apply(made); len(got) > 0 || !client.IsConflict(err) || p.policy("a") != theirs {
		t.Errorf("%q %v, and the policy is %s", got, err, p.policy("a"))
	}

	p.remove("policies/b.hcl")
	p.write("policies/a.hcl", theirs)
	made = p.plan(plan.Options{Prune: true})
	if _, err := p.client.Sys().WritePolicy(t.Context(), "b", theirs); err != nil {
		t.Fatal(err)
	}
	if got, err := p.apply(made); !client.IsConflict(err) || p.policy("b") != theirs {
		t.Errorf("%q %v, and the policy is %s", got, err, p.policy("b"))
	}

	p.write("policies/b.hcl", theirs)
	p.write("paths/auth/approle/role/ci.hcl", `token_policies = ["a"]`)
	made = p.plan(plan.Options{})
	p.server.Must(t, 204, "POST", "auth/approle/role/ci", `{"token_policies":["theirs"]}`)
	if _, err := p.apply(made); err == nil || !strings.Contains(err.Error(), "changed by another") {
		t.Errorf("a role: %v", err)
	}

	p.write("mounts.hcl", `auth "approle/" { type = "approle" description = "ours" }`)
	made = p.plan(plan.Options{})
	p.server.Must(t, 204, "POST", "sys/auth/approle/tune", `{"description":"theirs"}`)
	if _, err := p.apply(made); err == nil || !strings.Contains(err.Error(), "changed by another") {
		t.Errorf("a mount: %v", err)
	}
}

// Of two who apply at once one is told so.
func TestTwoApply(t *testing.T) {
	p := newProject(t)
	first, second := p.plan(plan.Options{}), p.plan(plan.Options{})
	if _, err := p.apply(first); err != nil {
		t.Fatal(err)
	}
	if got, err := p.apply(second); err == nil || len(got) > 0 {
		t.Errorf("the second did %q", got)
	}
}

func TestDrift(t *testing.T) {
	p := newProject(t)
	p.applied(plan.Options{}, all...)
	p.server.Must(t, 204, "POST", "auth/approle/role/ci", `{"token_policies":["a"],"token_ttl":"1h"}`)
	p.server.Must(t, 204, "DELETE", "sys/policies/acl/b", "")
	var drifted []string
	for _, c := range p.plan(plan.Options{}).Changes {
		if c.Drifted {
			drifted = append(drifted, string(c.Action)+" "+c.ID)
		}
	}
	if want := []string{"create policy:b", "update path:auth/approle/role/ci"}; !slices.Equal(drifted, want) {
		t.Errorf("%q, want %q", drifted, want)
	}
	// What others did that the directory says by now, too, is no change.
	p.write("paths/auth/approle/role/ci.hcl", `token_policies = "a"`+"\n"+`token_ttl = 3600`)
	p.applied(plan.Options{}, "create policy:b", "adopt path:auth/approle/role/ci")
	p.applied(plan.Options{})
}

func TestPrune(t *testing.T) {
	p := newProject(t)
	p.applied(plan.Options{}, all...)
	p.server.Must(t, 204, "POST", "sys/policies/acl/theirs", `{"policy":"path \"secret/x\" { capabilities = [\"read\"] }"}`)
	p.remove("policies/a.hcl")
	p.remove("policies/b.hcl")
	p.remove("paths/auth/approle/role/ci.hcl")
	p.remove("mounts.hcl")
	p.applied(plan.Options{})
	p.applied(plan.Options{Prune: true}, "delete path:auth/approle/role/ci", "delete policy:a", "delete policy:b")
	if p.policy("theirs") == "" || p.policy("a") != "" {
		t.Error("it deleted another's policy, or not its own")
	}
	p.applied(plan.Options{Prune: true})
	p.server.Must(t, 204, "DELETE", "sys/auth/approle", "")
	p.applied(plan.Options{Prune: true}, "forget mount:auth/approle/")
	p.applied(plan.Options{PruneMounts: true})
}

// The type of a mount cannot be changed by an apply.
func TestMountOfAnotherType(t *testing.T) {
	p := newProject(t)
	p.server.Must(t, 204, "POST", "sys/auth/approle", `{"type":"userpass"}`)
	if got, err := p.apply(p.plan(plan.Options{})); err == nil || len(got) > 0 || !strings.Contains(err.Error(), "a mount's type stays") {
		t.Errorf("%q %v", got, err)
	}
}

// Names of files are paths, whatever is in them.
func TestOddNames(t *testing.T) {
	p := newProject(t)
	p.write("paths/secret/data/what?not=1 #%41.json", `{"data": {"a": "b"}}`)
	d, err := directory.Load(p.root)
	if err != nil || d.Bodies[1].Path != "secret/data/what?not=1 #%41" {
		t.Fatalf("%+v %v", d, err)
	}
	if _, err := p.apply(p.plan(plan.Options{})); err != nil {
		t.Fatal(err)
	}
	if a := p.server.Must(t, 200, "LIST", "secret/metadata/", ""); !strings.Contains(string(a.Data), "what?not=1 #%41") {
		t.Errorf("%s", a.Data)
	}
	p.applied(plan.Options{})
}

// A plan has the same name for as long as it would do the same.
func TestName(t *testing.T) {
	p := newProject(t)
	first := p.plan(plan.Options{}).Name()
	if again := p.plan(plan.Options{}).Name(); again != first {
		t.Errorf("%s is %s the second time", first, again)
	}
	p.write("policies/a.hcl", `path "secret/a" { capabilities = ["list"] }`)
	if other := p.plan(plan.Options{}).Name(); other == first {
		t.Error("another plan has the same name")
	}
}
