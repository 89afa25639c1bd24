package pebble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/storage"
)

// storeRows is enough for several blocks of the log.
const storeRows = 250

// store returns a directory with a closed store of some rows in tables and log.
func store(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	e, err := openAt(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range storeRows {
		if i == 50 {
			if err := e.(*Engine).db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := e.Update(context.Background(), func(tx storage.Txn) error {
			return tx.Put(fmt.Sprintf("k%03d", i), make([]byte, 1000))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// only returns the one file in dir whose name matches pattern.
func only(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s in %s: %v, %v", pattern, dir, found, err)
	}
	return found[len(found)-1]
}

// damage changes size bytes in the middle of a file.
func damage(t *testing.T, path string, size int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range min(size, len(content)) {
		content[len(content)/2-min(size, len(content))/2+i] ^= 0xa5
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRefusals: what is not a whole store of ours is refused with a message
// that names the directory and says what to do, and is left as it was.
func TestRefusals(t *testing.T) {
	tests := []struct {
		name string
		want []string
		make func(t *testing.T) string
	}{
		{"a file", []string{"is a file", "must be a directory"}, func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "file")
			return path + write(t, path, "x")
		}},
		{"a foreign directory", []string{"holds letters.txt", "name an empty directory"}, func(t *testing.T) string {
			dir := t.TempDir()
			return dir + write(t, filepath.Join(dir, "letters.txt"), "x")
		}},
		{"a newer format", []string{"format 2", "run the newer Coffer"}, func(t *testing.T) string {
			dir := store(t)
			return dir + write(t, filepath.Join(dir, formatFile), "coffer-storage-pebble 2\n")
		}},
		{"a damaged format", []string{"FORMAT", "damaged or not a Coffer store"}, func(t *testing.T) string {
			dir := store(t)
			return dir + write(t, filepath.Join(dir, formatFile), "something else\n")
		}},
		{"no format", []string{"is not a Coffer store"}, func(t *testing.T) string {
			dir := store(t)
			return dir + remove(t, filepath.Join(dir, formatFile))
		}},
		{"no manifest marker", []string{"damaged", "restore a backup"}, func(t *testing.T) string {
			dir := store(t)
			return dir + remove(t, only(t, dir, "marker.manifest.*"))
		}},
		{"no manifest", []string{"damaged", "restore a backup"}, func(t *testing.T) string {
			dir := store(t)
			return dir + remove(t, only(t, dir, "MANIFEST-*"))
		}},
		{"a damaged manifest", []string{"damaged", "restore a backup"}, func(t *testing.T) string {
			dir := store(t)
			damage(t, only(t, dir, "MANIFEST-*"), 64)
			return dir
		}},
		// Only what is before the last 32 KiB: damage there cannot be told from a
		// write that a power cut has torn.
		{"a damaged log", []string{"damaged", "restore a backup"}, func(t *testing.T) string {
			dir := store(t)
			damage(t, only(t, dir, "*.log"), 64)
			return dir
		}},
		{"no table", []string{"damaged", "restore a backup"}, func(t *testing.T) string {
			dir := store(t)
			return dir + remove(t, only(t, dir, "*.sst"))
		}},
		{"an empty table", []string{"damaged", "restore a backup"}, func(t *testing.T) string {
			dir := store(t)
			return dir + write(t, only(t, dir, "*.sst"), "")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.make(t)
			before := content(t, path)
			e, err := openAt(path)
			if err == nil {
				_ = e.Close()
				t.Fatal("it was opened")
			}
			for _, want := range append(tt.want, path) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			for name, was := range before {
				if now, err := os.ReadFile(name); err != nil || string(now) != was {
					t.Errorf("%s was changed: %v", name, err)
				}
			}
		})
	}
}

// write and remove return "", to stand in a concatenation.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ""
}

func remove(t *testing.T, path string) string {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return ""
}

// content returns the files of a store, but for the lock and the reserve.
func content(t *testing.T, path string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" || d.Name() == reserveFile {
			return err
		}
		text, err := os.ReadFile(name)
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestDamagedRow: a damaged block is an error of the reads that need it, with
// advice, and never a wrong value.
func TestDamagedRow(t *testing.T) {
	dir := store(t)
	table := only(t, dir, "*.sst")
	damage(t, table, 2000)
	e, err := openAt(dir)
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for i := range storeRows {
		err := e.View(context.Background(), func(r storage.Reader) error {
			value, err := r.Get(fmt.Sprintf("k%03d", i))
			if err == nil && string(value) != string(make([]byte, 1000)) {
				t.Errorf("row %d has a wrong value", i)
			}
			return err
		})
		if err != nil {
			bad++
			if !strings.Contains(err.Error(), "restore a backup") || errors.Is(err, storage.ErrNotFound) {
				t.Errorf("row %d: %v", i, err)
			}
		}
	}
	t.Logf("rows that cannot be read: %d of %d", bad, storeRows)
	if bad == 0 {
		t.Error("the damage was not noticed")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// TestLocked: the second to open a directory is told which, whether it is in
// this process or another, and the first goes on.
func TestLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	e, err := openAt(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openAt(dir); err == nil || !strings.Contains(err.Error(), dir+" is in use") {
		t.Errorf("opened twice: %v", err)
	}
	out, err := child(t, nil, "fill", dir, "1")
	if err == nil || !strings.Contains(out, dir+" is in use by another process") {
		t.Errorf("opened by another process: %v %s", err, out)
	}
	if _, err := e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("k", nil) }); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e, err = openAt(dir)
	if err != nil {
		t.Fatalf("after closing: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
