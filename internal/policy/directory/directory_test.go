package directory_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/directory"
)

// tree writes files given as name, text, … and returns their directory.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		file := filepath.Join(root, filepath.FromSlash(files[i]))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(files[i+1]), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	rule = `path "secret/a" { capabilities = ["read"] }`
	test = `test "a" { policies = ["a"]  allow "read" "secret/a" {} }`
)

func TestLoad(t *testing.T) {
	root := tree(t,
		"policies/b.json", `{"path": {"secret/b": {"capabilities": ["read"]}}}`, "policies/A.hcl", rule, "policies/a_test.hcl", test,
		"policies/README.md", "none of ours", "policies/.hidden.hcl", "none of ours", "c_test.hcl", test,
		"mounts.hcl", `mount "z" { type = "kv" } auth "ci" { type = "approle" }`,
		"paths/auth/approle/role/ci.hcl", `token_ttl = "20m" token_policies = ["a"]`, "paths/sys/x.json", `{"b": {"c": [1, true, null, "d"]}}`, "paths/notes.txt", "none of ours",
	)
	d, err := directory.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range d.Policies {
		got = append(got, p.Name)
	}
	for _, m := range d.Mounts {
		got = append(got, m.Path)
	}
	for _, b := range d.Bodies {
		got = append(got, b.Path, string(b.JSON))
	}
	for _, f := range d.Tests {
		got = append(got, filepath.Base(f.Name))
	}
	want := `a b auth/ci/ z/ auth/approle/role/ci {"token_ttl":"20m","token_policies":["a"]} sys/x {"b":{"c":[1,true,null,"d"]}} a_test.hcl c_test.hcl`
	if strings.Join(got, " ") != want {
		t.Errorf("%s\nwant %s", strings.Join(got, " "), want)
	}
	if file := d.File("a"); !strings.HasSuffix(file, "policies/A.hcl") || d.File("nosuch") != "" {
		t.Error(file)
	}
	// The directory of policies alone knows the mounts beside it, also from inside.
	t.Chdir(filepath.Join(root, "policies"))
	for _, name := range []string{filepath.Join(root, "policies"), "."} {
		if d, err = directory.Load(name); err != nil || len(d.Policies) != 2 || len(d.Mounts) != 2 || len(d.Tests) != 1 || len(d.Bodies) != 0 {
			t.Errorf("%s: %+v %v", name, d, err)
		}
	}
	if d, err = directory.Load(".."); err != nil || len(d.Bodies) != 2 {
		t.Errorf("by a way upwards: %+v %v", d, err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		files []string
		want  string
	}{
		{[]string{"policies/a.hcl", "path \"x\" {\n  capabilities = [\"reed\"]\n}"}, `a.hcl:2: "reed" is not a capability`},
		{[]string{"policies/a.hcl", rule, "policies/a.json", `{}`}, "the policy a is in"},
		{[]string{"policies/a?b.hcl", rule}, "its name is no name for a policy"},
		{[]string{"policies/root.hcl", rule}, "its name is no name for a policy"},
		{[]string{"policies/a_test.hcl", "test"}, "a_test.hcl:1:"},
		{[]string{"policies/a.hcl", rule, "mounts.hcl", "\npath \"x\" {}"}, `mounts.hcl:2: "path" is not a key`},
		{[]string{"policies/a.hcl", rule, "mounts.hcl", "mount \"x\" { type = \"kv\" }\nmount \"x/\" { type = \"kv\" }"}, "mounts.hcl:2: the mount x/ is declared twice"},
		{[]string{"policies/a.hcl", rule, "paths/a.hcl", "b = 1\nb = 2"}, "a.hcl:2: b is set twice"},
		{[]string{"policies/a.hcl", rule, "paths/a.hcl", "b \"c\" {}"}, "a.hcl:1: b has a label"},
		{[]string{"policies/a.hcl", rule, "paths/a.json", "[1]"}, "a.json:1:"},
		{[]string{"policies/a.hcl", rule, "paths/a.json", "{}", "paths/a.hcl", ""}, "a is in"},
		{[]string{"policies/a.hcl", strings.Repeat("#", policy.MaxSource+1)}, "has more than the 524288 bytes allowed"},
	} {
		if d, err := directory.Load(tree(t, c.files...)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80q: %+v %v, want %q", c.files, d, err, c.want)
		}
	}
	if _, err := directory.Load(filepath.Join(t.TempDir(), "nosuch")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestIsTest(t *testing.T) {
	for name, want := range map[string]bool{"a_test.hcl": true, "x/a_test.json": true, "a.hcl": false, "a_test.txt": false, ".a_test.hcl": false} {
		if directory.IsTest(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
