package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

const root = "../.."

// program is the directory of coffer, built as `make build` does.
var program string

func TestMain(m *testing.M) {
	etcdtest.Main()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if program, err = os.MkdirTemp("", "coffer-docs"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(program)
	cmd := exec.Command("go", "build", "-tags", "pkcs11", "-o", filepath.Join(program, "coffer"), "./cmd/coffer")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build: %w\n%s", err, out)
	}
	return m.Run(), postgrestest.Clean()
}
