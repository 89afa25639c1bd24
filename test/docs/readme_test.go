// Package docs runs what the documents tell people to type. It holds nothing
// but tests.
package docs

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// build builds the program as `make build` does, into dir.
func build(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-tags", "pkcs11", "-o", filepath.Join(dir, "bin", "coffer"), "./cmd/coffer")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

// freePort returns a port of loopback that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// section returns the shell commands of a part of a document.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("there is no heading %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var commands strings.Builder
	for _, block := range shellBlock.FindAllStringSubmatch(rest, -1) {
		commands.WriteString(block[1])
	}
	return commands.String()
}

// replace puts new in place of old, which must be there.
func replace(t *testing.T, text, old, new string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("the document does not say %q", old)
	}
	return strings.ReplaceAll(text, old, new)
}

// TestReadme starts a server as `make run` does and types what the section Use
// says, in one shell. Only the port is another, the one command that is to be
// refused must be, and its request's id stands for REQUEST_ID.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil || !bytes.Contains(makefile, []byte("\n\tbin/coffer quickstart -data ./coffer-data\n")) {
		t.Fatalf("`make run` does something else than this test: %v", err)
	}
	dir, port := t.TempDir(), freePort(t)
	build(t, dir)
	env := []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}

	server := exec.Command("bin/coffer", "quickstart", "-data", "./coffer-data", "-listen", "127.0.0.1:"+port)
	server.Dir, server.Env = dir, env
	var printed bytes.Buffer
	server.Stdout, server.Stderr = &printed, &printed
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(os.Interrupt)
		if err := server.Wait(); err != nil {
			t.Errorf("the server ended with %v:\n%s", err, printed.String())
		}
		// What it printed is to be tried as printed.
		for _, want := range []string{"https://127.0.0.1:" + port, "Root token:", "CA file:", "kv put secret/hello", "kv get secret/hello"} {
			if !strings.Contains(printed.String(), want) {
				t.Errorf("it does not print %q:\n%s", want, printed.String())
			}
		}
	}()
	token := filepath.Join(dir, "coffer-data", "root-token")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			conn.Close()
			if _, err := os.Stat(token); err == nil {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not answer")
		}
	}

	commands := section(t, string(text), "Use")
	commands = replace(t, commands, "https://127.0.0.1:8200", "https://127.0.0.1:"+port)
	commands = replace(t, commands, "coffer kv put secret/app/db note=third\n", "! coffer kv put secret/app/db note=third 2> refused.txt\n")
	commands = replace(t, commands, "REQUEST_ID", "$(sed -n 's/.*policy why \\([0-9a-f-]*\\).*/\\1/p' refused.txt)")
	shell := exec.Command("bash", "-e", "-u", "-o", "pipefail", "-O", "expand_aliases", "-x")
	shell.Dir, shell.Env, shell.Stdin = dir, env, strings.NewReader(commands)
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("the commands of the README: %v\n%s", err, out)
	}
	for _, want := range []string{
		"labels             [previous]", "username    app2", "grants list, read but update is needed", "Intact: ",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the commands do not print %q:\n%s", want, out)
		}
	}
}
