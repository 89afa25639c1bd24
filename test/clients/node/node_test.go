// Package node runs node-vault, the client of Node.js programs, unmodified,
// against a whole server. What it asks and expects is in client.js.
package node

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

func TestNodeVault(t *testing.T) {
	if _, err := os.Stat("node_modules/node-vault"); err != nil {
		t.Fatal("node-vault is not installed; run scripts/test-deps")
	}
	s := apptest.Start(t, "")
	script := exec.CommandContext(t.Context(), "node", "client.js")
	script.Env = []string{"PATH=" + os.Getenv("PATH"), "VAULT_ADDR=" + s.URL(), "VAULT_TOKEN=" + s.Root, "NODE_EXTRA_CA_CERTS=" + s.CAFile}
	out, err := script.CombinedOutput()
	if err != nil || strings.Count(string(out), "ok ") != 5 {
		t.Fatalf("%v\n%s", err, out)
	}
}
