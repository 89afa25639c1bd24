package vault

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage/storagetest"
	"github.com/hashicorp/vault/api"
)

// TestDevelopmentServer starts the program as test harnesses start Vault: it is
// found by the address and the token it prints, and ends by SIGTERM.
func TestDevelopmentServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "coffer")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../../cmd/coffer").CombinedOutput(); err != nil {
		t.Fatalf("build: %v %s", err, out)
	}
	address := fmt.Sprint("127.0.0.1:", storagetest.FreePort(t))
	server := exec.CommandContext(t.Context(), program, "server", "-dev", "-dev-root-token-id=root", "-dev-listen-address="+address)
	server.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir}
	stdout, err := server.StdoutPipe()
	must(t, err)
	server.Stderr = server.Stdout
	must(t, server.Start())
	printed := make(chan string)
	go func() {
		defer close(printed)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			printed <- lines.Text()
		}
	}()
	var url, token string
	for end := time.After(30 * time.Second); url == "" || token == ""; {
		select {
		case line, ok := <-printed:
			if !ok {
				t.Fatal("it ended before it printed where it is")
			}
			if _, after, ok := strings.Cut(line, "VAULT_ADDR="); ok {
				url = strings.Trim(after, `'"`)
			}
			for _, name := range []string{"VAULT_TOKEN=", "Root Token: "} {
				if _, after, ok := strings.Cut(line, name); ok {
					token = strings.Trim(after, `'"`)
				}
			}
		case <-end:
			_ = server.Process.Kill()
			t.Fatalf("after 30 seconds it printed address %q and token %q", url, token)
		}
	}
	go func() {
		for range printed { //nolint:revive // the pipe is kept empty
		}
	}()
	equal(t, "the address", url, "http://"+address)
	equal(t, "the token", token, "root")

	config := api.DefaultConfig()
	must(t, config.Error)
	config.Address = url
	client, err := api.NewClient(config)
	must(t, err)
	client.SetToken(token)
	_, err = client.KVv2("secret").Put(t.Context(), "a", map[string]any{"b": "c"})
	must(t, err)
	got, err := client.KVv2("secret").Get(t.Context(), "a")
	must(t, err)
	equal(t, "data", got.Data, map[string]any{"b": "c"})
	if h, err := client.Sys().Health(); err != nil || h.Sealed {
		t.Errorf("health: %+v %v", h, err)
	}
	must(t, server.Process.Signal(syscall.SIGTERM))
	if err := server.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}
