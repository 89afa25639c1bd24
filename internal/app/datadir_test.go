package app_test

import (
	"bytes"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kept is a server that was set up and stopped, with one secret in it.
func kept(t *testing.T) *process {
	t.Helper()
	p := newProcess(t, "")
	p.start(t)
	p.initialize(t)
	p.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
	p.stop(t)
	return p
}

// refuses starts the server and wants that it ends with code 1, says each of
// texts, and leaves what it keeps as it was.
func (p *process) refuses(t *testing.T, texts ...string) {
	t.Helper()
	before := snapshot(t, p.data())
	p.run(t, "server", "-config="+p.config())
	if code := p.wait(t); code != 1 {
		t.Errorf("it ends with code %d", code)
	}
	for _, text := range texts {
		if !strings.Contains(p.out.String(), text) {
			t.Errorf("it does not say %q:\n%s", text, p.out)
		}
	}
	after := snapshot(t, p.data())
	for path, text := range before {
		if !bytes.Equal(after[path], text) {
			t.Errorf("%s changed", path)
		}
	}
}

// snapshot is what lies in a directory's keys, certificates and audit log.
func snapshot(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(path, "/store/") {
			return err
		}
		files[path], err = os.ReadFile(path)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return files
}

func TestStartsThatAreRefused(t *testing.T) {
	t.Run("a directory that another server uses", func(t *testing.T) {
		p := kept(t)
		p.start(t)
		second := &process{dir: p.dir}
		second.run(t, "server", "-config="+p.config())
		if code := second.wait(t); code != 1 || !strings.Contains(second.out.String(), "in use") {
			t.Errorf("the second ends with %d:\n%s", code, second.out)
		}
		p.Must(t, 200, "GET", "secret/data/app", "")
	})
	t.Run("a configuration written in half", func(t *testing.T) {
		p := kept(t)
		if err := os.WriteFile(p.config(), []byte("storage \"pebble\" {\n  path = \""), 0o600); err != nil {
			t.Fatal(err)
		}
		p.refuses(t, p.config()+":2", "Error:")
	})
	t.Run("a storage path that is a file", func(t *testing.T) {
		p := newProcess(t, "")
		if err := os.WriteFile(p.data(), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.refuses(t, p.data())
	})
	t.Run("an address in use", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		p := kept(t)
		p.configure(t, "listener \"tcp\" {\n  address = \""+l.Addr().String()+"\"\n}\n")
		p.run(t, "server", "-config="+p.config())
		if code := p.wait(t); code != 1 || !strings.Contains(p.out.String(), l.Addr().String()) || !strings.Contains(p.out.String(), "in use") {
			t.Errorf("it ends with %d:\n%s", code, p.out)
		}
	})
	t.Run("a certificate of another key", func(t *testing.T) {
		p, other := kept(t), kept(t)
		p.configure(t, "listener \"tcp\" {\n  address = \"127.0.0.1:0\"\n  tls_cert_file = \""+p.data("tls", "server.pem")+"\"\n  tls_key_file = \""+other.data("tls", "server.key")+"\"\n}\n")
		p.run(t, "server", "-config="+p.config())
		if code := p.wait(t); code != 1 || !strings.Contains(p.out.String(), "server.pem") {
			t.Errorf("it ends with %d:\n%s", code, p.out)
		}
	})
	t.Run("a damaged store", func(t *testing.T) {
		p := kept(t)
		damaged := 0
		files, err := filepath.Glob(p.data("store", "MANIFEST-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.Truncate(file, 10); err != nil {
				t.Fatal(err)
			}
			damaged++
		}
		if damaged == 0 {
			t.Fatal("the store has no manifest to damage")
		}
		p.refuses(t, p.data("store"), "backup")
	})
}

// A seal that does not open leaves a server that says so and can be asked, for
// the key may come back: with it the server opens by itself.
func TestAServerWhoseKeyIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, key string) (says string){
		"missing": func(t *testing.T, key string) string {
			if err := os.Remove(key); err != nil {
				t.Fatal(err)
			}
			return "seal.key"
		},
		"of another server": func(t *testing.T, key string) string {
			text, err := os.ReadFile(kept(t).data("seal.key"))
			if err == nil {
				err = os.WriteFile(key, text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			return "seal"
		},
		"written in half": func(t *testing.T, key string) string {
			if err := os.Truncate(key, 50); err != nil {
				t.Fatal(err)
			}
			return "seal.key"
		},
		"readable by others": func(t *testing.T, key string) string {
			if err := os.Chmod(key, 0o644); err != nil {
				t.Fatal(err)
			}
			return "chmod"
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := kept(t)
			key := p.data("seal.key")
			right, err := os.ReadFile(key)
			if err != nil {
				t.Fatal(err)
			}
			want := spoil(t, key)
			p.start(t)
			if health := p.Do(t, "GET", "sys/health", "", ""); health.Status != 503 {
				t.Errorf("health is %d %s", health.Status, health.Body)
			}
			if a := p.Do(t, "GET", "secret/data/app", p.Root, ""); a.Status != 503 {
				t.Errorf("a read is answered %d %s", a.Status, a.Body)
			}
			if a := p.Do(t, "POST", "sys/init", "", `{}`); a.Status != 400 {
				t.Errorf("it can be initialized again: %d %s", a.Status, a.Body)
			}
			says(t, p, want)
			p.stop(t)
			if err := os.Remove(key); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if err := os.WriteFile(key, right, 0o600); err != nil {
				t.Fatal(err)
			}
			p.start(t)
			wantUnsealed(t, p)
			p.Must(t, 200, "GET", "secret/data/app", "")
		})
	}
}
