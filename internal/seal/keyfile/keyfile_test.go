package keyfile

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/sealtest"
)

func opened(t testing.TB, path string) *Seal {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSeal(t *testing.T) {
	sealtest.Run(t, func(t *testing.T) (seal.Seal, func() seal.Seal) {
		path := filepath.Join(t.TempDir(), "sub", "key")
		return opened(t, path), func() seal.Seal { return opened(t, path) }
	})
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	s := opened(t, path)
	if _, err := os.Stat(path); err == nil {
		t.Fatal("opening made the file")
	}
	wrapped, err := s.Wrap(context.Background(), []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	left, _ := os.ReadDir(filepath.Dir(path))
	if len(left) != 1 {
		t.Errorf("files left behind: %v", left)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o602, 0o610, 0o777} {
		os.Chmod(path, mode)
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	os.Chmod(path, 0o400)
	if back, err := opened(t, path).Unwrap(context.Background(), wrapped, nil); err != nil || string(back) != "x" {
		t.Fatalf("read-only file: %q, %v", back, err)
	}
}

func TestWrongAndMissingFilesAreNamed(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	wrapped, err := opened(t, a).Wrap(ctx, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened(t, b).Wrap(ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := opened(t, b).Unwrap(ctx, wrapped, nil); err == nil || !strings.Contains(err.Error(), b) || !strings.Contains(err.Error(), "holds key") {
		t.Errorf("another file: %v", err)
	}
	missing := filepath.Join(dir, "missing")
	if _, err := opened(t, missing).Unwrap(ctx, wrapped, nil); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("unwrapping made a new key")
	}
	for _, settings := range []map[string]string{{}, {"path": a, "pth": "x"}} {
		if _, err := Kind.Open(ctx, settings); err == nil {
			t.Errorf("%v: no error", settings)
		}
	}
}

func TestMalformedFilesAreRefused(t *testing.T) {
	text, err := newText()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	bad := map[string][]byte{
		"empty":          nil,
		"only a comment": []byte("# x\n"),
		"other format":   []byte("-----BEGIN PRIVATE KEY-----\n"),
		"version 2":      bytes.Replace(text, []byte(magic), []byte("coffer-seal-key 2"), 1),
		"no key":         text[:bytes.Index(text, []byte("\nkey "))+1],
		"twice":          append(bytes.Clone(text), text...),
		"bad base64":     append(bytes.TrimSpace(bytes.Clone(text)), "!\n"...),
		"unknown line":   append(bytes.Clone(text), "more x\n"...),
		"binary":         {0, 1, 2, 3, 255},
	}
	for n := bytes.Index(text, []byte("\nkey ")) + 5; n < len(text)-2; n++ {
		bad["cut at "+string(rune('0'+n%10))] = text[:n]
	}
	for name, content := range bad {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("a directory was taken for a key file")
	}
}

// Several processes may start at once on one machine: they end up with one key.
func TestOneKeyWinsTheRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	var work sync.WaitGroup
	wraps := make([][]byte, 8)
	for i := range wraps {
		s := opened(t, path)
		work.Go(func() {
			var err error
			if wraps[i], err = s.Wrap(context.Background(), []byte("x"), nil); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	s := opened(t, path)
	for _, w := range wraps {
		if _, err := s.Unwrap(context.Background(), w, nil); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := newText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(magic + "\nid 0011223344556677\nkey AAAA\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parse(text)
		if (k == nil) == (err == nil) {
			t.Errorf("%v, %v", k, err)
		}
	})
}
