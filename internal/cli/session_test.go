package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// person runs commands inside the test, as somebody at a keyboard does.
type person struct {
	server *apptest.Server
	home   string
	typed  []string // what is answered to questions, in order
	stdin  string
	asked  []string
	set    map[string]string
	browse func(address string) error
	stderr func(text string) // hears what is printed there, as it is printed
}

// run returns a command's exit code and what it printed.
func (p *person) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := Env{
		Program: "coffer", Stdin: strings.NewReader(p.stdin), Stdout: &out, Stderr: heard{&errs, p.stderr}, Home: p.home,
		Getenv: func(name string) string { return p.set[name] },
		Browse: p.browse,
		Prompt: func(question string) (string, error) {
			p.asked = append(p.asked, question)
			if len(p.typed) == 0 {
				return "", fmt.Errorf("nothing is typed")
			}
			answer := p.typed[0]
			p.typed = p.typed[1:]
			return answer, nil
		},
	}
	code = Main(t.Context(), args, env)
	return code, out.String(), errs.String()
}

// heard writes, and tells somebody.
type heard struct {
	io.Writer
	tell func(text string)
}

func (h heard) Write(b []byte) (int, error) {
	if h.tell != nil {
		h.tell(string(b))
	}
	return h.Writer.Write(b)
}

func newPerson(t *testing.T) *person {
	t.Helper()
	s := apptest.Start(t, "")
	return &person{server: s, home: t.TempDir(), set: map[string]string{"COFFER_ADDR": s.URL(), "COFFER_CACERT": s.CAFile}}
}

func TestLoginAsks(t *testing.T) {
	p := newPerson(t)
	p.typed = []string{p.server.Root}
	code, out, errs := p.run(t, "login")
	if code != exitOK || len(p.asked) != 1 || !strings.Contains(out, "Success") || errs != "" {
		t.Fatalf("code %d, asked %q, printed %q, %q", code, p.asked, out, errs)
	}
	if code, out, _ := p.run(t, "print", "token"); code != exitOK || strings.TrimSpace(out) != p.server.Root {
		t.Errorf("the token that is kept is not the one that was typed (code %d)", code)
	}

	p.server.Must(t, 204, "POST", "sys/auth/userpass", `{"type":"userpass"}`)
	p.server.Must(t, 204, "POST", "auth/userpass/users/ada", `{"password":"correct horse"}`)
	p.asked, p.typed, p.stdin = nil, []string{"correct horse"}, "ada\n"
	code, out, errs = p.run(t, "login", "-method=userpass")
	if code != exitOK || !strings.Contains(out, "token_meta_username    ada") || strings.Contains(out+errs, "correct horse") {
		t.Errorf("code %d, printed %q, %q", code, out, errs)
	}

	p.asked, p.typed = nil, []string{"wrong horse"}
	if code, out, errs = p.run(t, "login", "-method=userpass"); code != exitRefused || strings.Contains(out+errs, "wrong horse") {
		t.Errorf("code %d, printed %q, %q", code, out, errs)
	}
}

func TestNobodyIsAsked(t *testing.T) {
	p := newPerson(t)
	for _, args := range [][]string{{"login", "-non-interactive"}, {"login", "-non-interactive", "-method=userpass", "username=ada"}} {
		if code, _, errs := p.run(t, args...); code != exitLocal || len(p.asked) > 0 || !strings.Contains(errs, "nobody to ask") {
			t.Errorf("%q: code %d, asked %q, printed %q", args, code, p.asked, errs)
		}
	}
}

// A login that fails leaves the token that there was.
func TestFailedLoginKeepsTheToken(t *testing.T) {
	p := newPerson(t)
	p.typed = []string{p.server.Root, "hvs.wrong"}
	if code, _, errs := p.run(t, "login"); code != exitOK {
		t.Fatalf("code %d: %s", code, errs)
	}
	if code, _, errs := p.run(t, "login"); code != exitRefused || strings.Contains(errs, "hvs.wrong") {
		t.Errorf("code %d: %s", code, errs)
	}
	if text, err := os.ReadFile(filepath.Join(p.home, tokenFile)); err != nil || string(text) != p.server.Root {
		t.Errorf("the token that was kept is gone: %v", err)
	}
	left, err := os.ReadDir(p.home)
	if err != nil || len(left) != 1 {
		t.Errorf("there are files left over: %v, %v", left, err)
	}
}

func TestLoginWithoutHome(t *testing.T) {
	p := newPerson(t)
	p.home, p.typed = "", []string{p.server.Root, p.server.Root}
	if code, _, errs := p.run(t, "login"); code != exitLocal || !strings.Contains(errs, "-no-store") {
		t.Errorf("code %d: %s", code, errs)
	}
	if code, _, errs := p.run(t, "login", "-no-store"); code != exitOK {
		t.Errorf("code %d: %s", code, errs)
	}
}

// A folder of more names than a page has is listed whole, and so is a search.
func TestPages(t *testing.T) {
	p := newPerson(t)
	p.set["COFFER_TOKEN"] = p.server.Root
	const names = namesPage + 5
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			for i := w; i < names; i += 16 {
				if a, err := p.server.Try("POST", fmt.Sprintf("secret/data/many/n%05d", i), p.server.Root, `{"data":{"v":1}}`); err != nil || a.Status != 200 {
					t.Errorf("write: %v, %v", a, err)
					return
				}
			}
		})
	}
	writers.Wait()
	for _, args := range [][]string{
		{"kv", "list", "secret/many"}, {"kv", "list", "-r", "-mount=secret", "many"}, {"list", "secret/metadata/many"},
		{"kv", "search", "-field=path", "secret/many"},
	} {
		code, out, errs := p.run(t, args...)
		if code != exitOK {
			t.Fatalf("%q: code %d, %s", args, code, errs)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		lines = slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, "n0") })
		if len(lines) != names || !slices.IsSorted(lines) || len(slices.Compact(lines)) != names {
			t.Errorf("%q prints %d names, want %d in order", args, len(lines), names)
		}
	}
}

// The token of Vault's command line is used, but not shown to another server.
func TestVaultsTokenStaysWithVault(t *testing.T) {
	p := newPerson(t)
	if err := os.WriteFile(filepath.Join(p.home, vaultTokenFile), []byte(p.server.Root+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := p.run(t, "token", "lookup"); code != exitOK {
		t.Errorf("it is not used: code %d, %s", code, errs)
	}
	p.set["VAULT_ADDR"] = p.server.URL() + "/"
	if code, _, errs := p.run(t, "token", "lookup"); code != exitOK {
		t.Errorf("it is not used for the same server: code %d, %s", code, errs)
	}
	p.set["VAULT_ADDR"] = "https://vault.example.com:8200"
	if code, _, _ := p.run(t, "print", "token"); code != exitLocal {
		t.Errorf("it is used for another server: code %d", code)
	}
	p.set = map[string]string{"VAULT_ADDR": "https://vault.example.com:8200", "VAULT_TOKEN": p.server.Root}
	if code, _, _ := p.run(t, "print", "token", "-address="+p.server.URL()); code != exitLocal {
		t.Errorf("VAULT_TOKEN is used for the server of -address: code %d", code)
	}
}

func TestHeaders(t *testing.T) {
	p := newPerson(t)
	if code, _, _ := p.run(t, "token", "lookup"); code != exitRefused {
		t.Errorf("without a token: code %d", code)
	}
	if code, _, errs := p.run(t, "token", "lookup", "-header", "Authorization=Bearer "+p.server.Root); code != exitOK {
		t.Errorf("with a header: code %d, %s", code, errs)
	}
	if code, _, _ := p.run(t, "token", "lookup", "-header=word"); code != exitLocal {
		t.Errorf("with half a header: code %d", code)
	}
}
