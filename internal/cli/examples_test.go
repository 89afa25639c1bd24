package cli

import (
	"strings"
	"testing"
)

const examples = "../../examples/policies"

// The repository's example passes its tests, which touch every rule, and lints clean.
func TestExamplePolicies(t *testing.T) {
	p := &person{home: t.TempDir()}
	code, out, errs := p.run(t, "policy", "test", "-coverage", examples)
	if code != exitOK || !strings.Contains(out, "(100%)") || strings.Contains(out, "untested") {
		t.Errorf("code %d:\n%s%s", code, out, errs)
	}
}

// The example is applied to a server once; the second time there is nothing to do.
func TestExampleIsApplied(t *testing.T) {
	p := newPerson(t)
	p.set["COFFER_TOKEN"] = p.server.Root
	for _, want := range []string{"Success! Made", "Nothing to change."} {
		if code, out, errs := p.run(t, "policy", "apply", examples); code != exitOK || !strings.Contains(out, want) || errs != "" {
			t.Fatalf("code %d, want %q:\n%s%s", code, want, out, errs)
		}
	}
	if code, out, errs := p.run(t, "policy", "plan", "-detailed-exitcode", examples); code != exitOK {
		t.Errorf("code %d:\n%s%s", code, out, errs)
	}
	for _, name := range []string{"web", "payments", "ci-web", "walls", "person", "break-glass"} {
		if code, out, errs := p.run(t, "policy", "lint", name); code != exitOK {
			t.Errorf("%s, code %d:\n%s%s", name, code, out, errs)
		}
	}
	p.server.Must(t, 200, "GET", "auth/approle/role/ci-web/role-id", "")
	token := p.server.Must(t, 200, "POST", "auth/token/create/break-glass", "").Auth.Token
	if a := p.server.Do(t, "LIST", "secret/metadata/", token, ""); a.Status == 403 {
		t.Error("the glass cannot be broken")
	}
	if a := p.server.Do(t, "POST", "sys/policies/acl/web", token, `{"policy":"path \"x\" {}"}`); a.Status != 403 {
		t.Errorf("a policy is changed: %d", a.Status)
	}
}
