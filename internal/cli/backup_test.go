package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/backup"
)

// An archive is never written to a terminal.
func TestBackupRefusesATerminal(t *testing.T) {
	var out, said bytes.Buffer
	code := Main(context.Background(), []string{"operator", "backup", "-"}, Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &said, Getenv: func(string) string { return "" }, Terminal: true,
	})
	if code != exitLocal || out.Len() > 0 || !strings.Contains(said.String(), "not for a terminal") {
		t.Errorf("code %d, %q, %q", code, out.String(), said.String())
	}
}

// A server that cannot be reached leaves no file.
func TestBackupLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	var out, said bytes.Buffer
	code := Main(context.Background(), []string{"operator", "backup", filepath.Join(dir, "x")}, Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &said,
		Getenv: func(name string) string {
			return map[string]string{"COFFER_ADDR": "http://127.0.0.1:1", "COFFER_TOKEN": "t", "COFFER_MAX_RETRIES": "0"}[name]
		},
	})
	if left, err := os.ReadDir(dir); code == exitOK || err != nil || len(left) != 0 {
		t.Errorf("code %d, %v %v, %s", code, left, err, said.String())
	}
}

func TestByteCount(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 bytes", 1023: "1023 bytes", 1024: "1.0 KiB", 3 << 19: "1.5 MiB", 5 << 30: "5.0 GiB", 7 << 50: "7168.0 TiB"} {
		if got := byteCount(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

// Progress is said where it is asked for, and not too often.
func TestMeter(t *testing.T) {
	var said bytes.Buffer
	s := &shell{Env: Env{Stderr: &said, Getenv: func(string) string { return "" }}}
	quiet := s.progress("backup", false)
	quiet.say(backup.Progress{Bytes: 5})
	quiet.done(&backup.Summary{})
	if said.Len() > 0 {
		t.Errorf("%q", said.String())
	}
	p := s.progress("backup", true)
	for range 100 {
		p.say(backup.Progress{Bytes: 5})
	}
	p.last = p.last.Add(-progressEvery)
	p.say(backup.Progress{Bytes: 2048, Rows: 1})
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "backup: 2.0 KiB, 1 row, ") {
		t.Errorf("%q", got)
	}
}
