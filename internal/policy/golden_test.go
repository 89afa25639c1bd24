package policy

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with a file beside the input.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (run with -update when it is meant):\n%s", path, diff)
	}
}

func inputs(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no input %s: %v", pattern, err)
	}
	return files
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFormatGolden(t *testing.T) {
	for _, file := range inputs(t, "testdata/format/*.in") {
		got, err := Format(readFile(t, file))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		golden(t, strings.TrimSuffix(file, ".in")+".golden", got)
		again, err := Format(got)
		if err != nil || again != got {
			t.Errorf("%s: a second time gives %v\n%s", file, err, again)
		}
	}
}

func TestLintGolden(t *testing.T) {
	mounts := []MountInfo{
		{Path: "secret/", Versioned: true}, {Path: "kv1/"}, {Path: "cubbyhole/"},
		{Path: "sys/", Sudo: []string{"sys/seal", "sys/audit", "sys/audit/*"}}, {Path: "auth/token/", Sudo: []string{"auth/token/create-orphan"}},
	}
	for _, file := range inputs(t, "testdata/lint/*.hcl") {
		for suffix, mounts := range map[string][]MountInfo{".golden": mounts, ".bare.golden": nil} {
			var out strings.Builder
			for _, f := range Lint(mustParse(t, "lint", readFile(t, file)), mounts) {
				out.WriteString(f.String() + "\n")
			}
			golden(t, strings.TrimSuffix(file, ".hcl")+suffix, out.String())
		}
	}
}

func TestExplainGolden(t *testing.T) {
	acl := Compile(
		mustParse(t, "team", readFile(t, "testdata/explain/team.hcl")),
		mustParse(t, "limits", readFile(t, "testdata/explain/limits.hcl")),
	)
	var out strings.Builder
	for _, r := range []Request{
		{Path: "secret/data/app/db", Plain: "secret/app/db", Need: Read},
		{Path: "secret/data/app/db", Plain: "secret/app/db", Need: Delete},
		{Path: "secret/data/app/vault/key", Plain: "secret/app/vault/key", Need: Read},
		{Path: "secret/metadata/app", Plain: "secret/app", Need: List},
		{Path: "secret/data/other", Plain: "secret/other", Need: Create},
		{Path: "secret/destroy/app/db", Plain: "secret/app/db", Need: Update, PlainNeed: Delete},
		{Path: "sys/audit/file", Need: Update, Sudo: true},
		{Path: "kv1/config", Need: Update, Params: params{"mode", `"fast"`, "size", "3"}},
		{Path: "kv1/config", Need: Update},
		{Path: "kv1/secret", Need: Read},
		{Path: "kv1/teams/red/app/key", Need: Read},
		{Path: "nothing/here", Need: Patch},
	} {
		out.WriteString(strings.Join(acl.Explain(r).Lines(), "\n") + "\n\n")
	}
	out.WriteString(strings.Join(Root().Explain(Request{Path: "sys/seal", Need: Update, Sudo: true}).Lines(), "\n") + "\n")
	golden(t, "testdata/explain/explain.golden", out.String())
}
