// Package architecture holds the test that keeps the floors: a package imports
// only packages of lower floors.
package architecture

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/cofferhq/coffer/"

// floors lists the packages from the ground up. A line is a floor; packages on
// one floor do not import each other, save below a "/...".
var floors = []string{
	"internal/fault",
	"internal/lifetime internal/wire internal/storage internal/policy internal/audit internal/process internal/metrics internal/monitor",
	"internal/storage/... internal/seal internal/route internal/config internal/format internal/password",
	"internal/seal/... internal/barrier internal/audit/auditstore internal/job",
	"internal/identity internal/namespace internal/quota internal/policy/... internal/auth internal/auth/issuer internal/auth/attempts internal/engine internal/node internal/member internal/backup internal/browser",
	"internal/factor internal/broker internal/lease internal/agenda internal/engine/rows",
	"internal/token internal/engine/... internal/auth/...",
	"internal/access internal/mount internal/auth/tokens",
	"internal/realm",
	"internal/sys internal/builtin",
	"internal/gateway",
	"internal/httpapi/... internal/httpapi internal/docgen",
	"internal/app",
	"client",
	"internal/plan",
	"internal/cli/... internal/cli",
	"internal/docgen/...",
	"cmd/...",
}

type listed struct {
	ImportPath string
	Imports    []string
}

func floorOf(path string) int {
	path = strings.TrimPrefix(path, module)
	best, length := -1, -1
	for i, line := range floors {
		for name := range strings.FieldsSeq(line) {
			base, below := strings.CutSuffix(name, "/...")
			if (path == name || below && strings.HasPrefix(path, base+"/")) && len(name) > length {
				best, length = i, len(name)
			}
		}
	}
	return best
}

func TestFloors(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for dec.More() {
		var p listed
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		own := floorOf(p.ImportPath)
		if strings.HasSuffix(p.ImportPath, "test") || strings.Contains(p.ImportPath, "/architecture") || strings.Contains(p.ImportPath, "/bench") || strings.Contains(p.ImportPath, "/coffer/test/") {
			continue
		}
		seen++
		if own < 0 {
			t.Errorf("%s stands on no floor; add it to the table and to docs/architecture.md", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module) {
				continue
			}
			if strings.HasSuffix(imported, "test") {
				t.Errorf("%s imports the test package %s", p.ImportPath, imported)
			}
			if other := floorOf(imported); other > own || other == own && !strings.HasPrefix(imported, p.ImportPath) && !strings.HasPrefix(p.ImportPath, imported) && !sameFamily(p.ImportPath, imported) {
				t.Errorf("%s (floor %d) imports %s (floor %d)", p.ImportPath, own, imported, other)
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages were looked at", seen)
	}
}

// TestEveryPackageIsDescribed holds the table in docs/architecture.md to the
// tree, both ways.
func TestEveryPackageIsDescribed(t *testing.T) {
	out, err := exec.Command("go", "list", "-tags", "pkcs11", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n## Packages")
	if table, _, _ = strings.Cut(table, "\n## "); !found {
		t.Fatal("docs/architecture.md has no section on packages")
	}
	described := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9/]+)` \\| [^|]").FindAllStringSubmatch(table, -1) {
		if described[row[1]] {
			t.Errorf("docs/architecture.md has two rows for %s", row[1])
		}
		described[row[1]] = true
	}
	for path := range strings.FieldsSeq(string(out)) {
		name := strings.TrimPrefix(path, module)
		if !described[name] && !strings.HasPrefix(name, "test/") {
			t.Errorf("docs/architecture.md has no row for %s", name)
		}
		delete(described, name)
	}
	for name := range described {
		t.Errorf("docs/architecture.md describes %s, which is no package", name)
	}
}

// sameFamily reports whether both lie below one "/..." of a floor.
func sameFamily(a, b string) bool {
	a, b = strings.TrimPrefix(a, module), strings.TrimPrefix(b, module)
	for _, line := range floors {
		for name := range strings.FieldsSeq(line) {
			if base, ok := strings.CutSuffix(name, "/..."); ok && strings.HasPrefix(a, base+"/") && strings.HasPrefix(b, base+"/") {
				return true
			}
		}
	}
	return false
}
