package app_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/audit"
)

// entries reads an audit log.
func entries(t testing.TB, dir string) []audit.Entry {
	t.Helper()
	var all []audit.Entry
	for e, err := range audit.Read(context.Background(), dir, audit.ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// segments returns the log's files with entries, oldest first.
func segments(t testing.TB, dir string) []string {
	t.Helper()
	var found []string
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if text, err := os.ReadFile(filepath.Join(dir, f.Name())); err == nil && bytes.Contains(text, []byte(`"seq":`)) {
			found = append(found, filepath.Join(dir, f.Name()))
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		t.Fatalf("%s holds no entries", dir)
	}
	return found
}

// TestALogThatWasTouchedStopsTheServer deletes, replaces and cuts the file that
// the server writes to. It refuses at once, also to read, until an operator
// repairs the log or restarts; and the restart says what is missing.
func TestALogThatWasTouchedStopsTheServer(t *testing.T) {
	for name, touch := range map[string]func(file string) error{
		"deleted": os.Remove,
		"replaced": func(file string) error {
			text, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file+".new", text, 0o600)
			}
			if err == nil {
				err = os.Rename(file+".new", file)
			}
			return err
		},
		"cut":   func(file string) error { return os.Truncate(file, 300) },
		"grown": func(file string) error { return appendTo(file, "something\n") },
	} {
		t.Run(name, func(t *testing.T) {
			s := apptest.Start(t, "")
			s.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
			files := segments(t, filepath.Join(s.Dir, "audit"))
			if err := touch(files[len(files)-1]); err != nil {
				t.Fatal(err)
			}
			for _, method := range []string{"GET", "POST"} {
				a := s.Do(t, method, "secret/data/app", s.Root, `{"data":{"a":"c"}}`)
				if a.Status != 503 || !strings.Contains(string(a.Body), "audit log cannot be written") || bytes.Contains(a.Body, []byte(`"b"`)) {
					t.Errorf("%s is answered %d %s", method, a.Status, a.Body)
				}
			}
			s.Must(t, 204, "POST", "sys/audit-log/repair", "")
			s.Must(t, 200, "GET", "secret/data/app", "")
		})
	}
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := f.Close(); err != nil {
		return err
	}
	return err
}

// TestALogThatLostItsEndIsRefused puts an older copy of the log in place of the
// newest, as somebody would who wants to be forgotten. The newest checkpoint is
// in storage too: the server does not open, says so, and goes on only when told
// exactly which loss to accept.
func TestALogThatLostItsEndIsRefused(t *testing.T) {
	p := newProcess(t, "")
	p.start(t)
	p.initialize(t)
	p.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
	p.stop(t)
	before := t.TempDir()
	if err := os.CopyFS(before, os.DirFS(p.data("audit"))); err != nil {
		t.Fatal(err)
	}
	p.start(t)
	for i := range 20 {
		p.Must(t, 200, "POST", fmt.Sprintf("secret/data/evil%d", i), `{"data":{"a":"b"}}`)
	}
	p.stop(t)
	if err := os.RemoveAll(p.data("audit")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(p.data("audit"), os.DirFS(before)); err != nil {
		t.Fatal(err)
	}

	p.start(t) // it serves, sealed: whoever is there can be asked for
	if health := p.Do(t, "GET", "sys/health", "", ""); health.Status != 503 {
		t.Errorf("health is %d %s", health.Status, health.Body)
	}
	if a := p.Do(t, "GET", "secret/data/app", p.Root, ""); a.Status != 503 {
		t.Errorf("a read is answered %d %s", a.Status, a.Body)
	}
	said := says(t, p, "accept_loss")
	p.stop(t)
	_, number, _ := strings.Cut(said, "accept_loss = ")
	size := ""
	for _, r := range number {
		if r < '0' || r > '9' {
			break
		}
		size += string(r)
	}
	p.configure(t, tcp+"audit {\n  accept_loss = "+size+"\n}\n")
	p.start(t)
	wantUnsealed(t, p)
	p.Must(t, 200, "GET", "secret/data/evil3", "") // what was done is there, only its record is not
}

// says waits until the process has said something, and returns all it said.
func says(t testing.TB, p *process, what string) string {
	t.Helper()
	eventually(t, "it says "+what, func() bool { return strings.Contains(p.out.String(), what) })
	return p.out.String()
}

func wantUnsealed(t testing.TB, p *process) {
	t.Helper()
	eventually(t, "health is 200", func() bool { return p.Do(t, "GET", "sys/health", "", "").Status == 200 })
}
