package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/fault"
)

func file(dir, name string) string { return filepath.Join(dir, name) }

func appendBytes(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func edit(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newLog makes a closed log of n signed entries in small segments.
func newLog(t testing.TB, n int, o Options) string {
	t.Helper()
	dir := t.TempDir()
	o.Signer = testSigner(t)
	l := openLog(t, dir, o)
	appendN(t, l, n)
	closeLog(t, l)
	return dir
}

func TestTornTailIsCutAndNoted(t *testing.T) {
	for name, tail := range map[string]string{
		"half a line": `{"seq":11,"time":"2026`, "zeros": strings.Repeat("\x00", 700), "a broken line and more": "{\"seq\":11,\n{\"seq\":12}\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := newLog(t, 10, Options{})
			if err := appendBytes(file(dir, segmentName(1)), tail); err != nil {
				t.Fatal(err)
			}
			l := openLog(t, dir, Options{Signer: testSigner(t)})
			appendN(t, l, 1)
			closeLog(t, l)
			wantWhole(t, dir, 12)
			if e := readAll(t, dir, ReadOptions{From: 11})[0]; e.Event != EventRecovered || !strings.Contains(e.Error, "after entry 10") {
				t.Errorf("no event says what was cut: %+v", e)
			}
			kept, _ := filepath.Glob(file(dir, "*.cut-*"))
			if len(kept) != 1 {
				t.Fatalf("kept %v", kept)
			}
			if content, _ := os.ReadFile(kept[0]); string(content) != tail {
				t.Errorf("kept %q, cut %q", content, tail)
			}
		})
	}
}

func TestOpenRefusesALogThatLostEntries(t *testing.T) {
	cases := map[string]struct {
		damage func(t *testing.T, dir string)
		want   error
	}{
		"last line cut": {func(t *testing.T, dir string) {
			edit(t, lastSegment(t, dir), func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] })
		}, ErrBehind},
		"last line cut, no checkpoints": {func(t *testing.T, dir string) {
			edit(t, lastSegment(t, dir), func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] })
			os.Remove(file(dir, checkpointsName))
		}, ErrBehind},
		"last line cut, no hashes": {func(t *testing.T, dir string) {
			edit(t, lastSegment(t, dir), func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] })
			os.Remove(file(dir, hashesName))
		}, ErrBehind},
		"half of the last line cut": {func(t *testing.T, dir string) {
			edit(t, lastSegment(t, dir), func(b []byte) []byte { return b[:len(b)-20] })
		}, ErrDamaged},
		"last line changed": {func(t *testing.T, dir string) {
			edit(t, lastSegment(t, dir), func(b []byte) []byte { b[len(b)-5] ^= 1; return b })
		}, ErrDamaged},
		"last line changed, no hashes": {func(t *testing.T, dir string) {
			edit(t, lastSegment(t, dir), func(b []byte) []byte { b[len(b)-5] ^= 1; return b })
			os.Remove(file(dir, hashesName))
		}, ErrDamaged},
		"old line changed, no hashes": {func(t *testing.T, dir string) {
			edit(t, file(dir, segmentName(1)), func(b []byte) []byte { b[len(b)-5] ^= 1; return b })
			os.Remove(file(dir, hashesName))
		}, ErrDamaged},
		"last segment gone":   {func(t *testing.T, dir string) { os.Remove(lastSegment(t, dir)) }, ErrBehind},
		"middle segment gone": {func(t *testing.T, dir string) { os.Remove(file(dir, segmentName(2))) }, ErrDamaged},
		"all segments gone": {func(t *testing.T, dir string) {
			all, _ := filepath.Glob(file(dir, "audit-*.log"))
			for _, f := range all {
				os.Remove(f)
			}
		}, ErrDamaged},
		"header changed": {func(t *testing.T, dir string) {
			edit(t, lastSegment(t, dir), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"first_seq":`), []byte(`"first_seq":1`), 1)
			})
		}, ErrDamaged},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := newLog(t, 40, Options{SegmentSize: 8 << 10})
			c.damage(t, dir)
			l, err := Open(dir, Options{Origin: testOrigin})
			if err == nil {
				l.Close()
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, want %v naming the file", err, c.want)
			}
		})
	}
}

func lastSegment(t testing.TB, dir string) string {
	t.Helper()
	numbers, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	return file(dir, segmentName(len(numbers)))
}

func TestOpenRefusesAnotherLogAndASecondWriter(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	appendN(t, l, 1)
	if _, err := Open(dir, Options{Origin: testOrigin}); !errors.Is(err, ErrForeign) {
		t.Errorf("a second writer got %v", err)
	}
	closeLog(t, l)
	if _, err := Open(dir, Options{Origin: "other.test/audit"}); !errors.Is(err, ErrForeign) {
		t.Errorf("another origin got %v", err)
	}
}

func TestHashesAreMadeAgain(t *testing.T) {
	damages := map[string]func([]byte) []byte{
		"missing":    nil,
		"empty":      func([]byte) []byte { return nil },
		"short":      func(b []byte) []byte { return b[:len(b)/3] },
		"odd length": func(b []byte) []byte { return b[:len(b)-7] },
		"zeroed end": func(b []byte) []byte { clear(b[len(b)/2:]); return b },
		"grown":      func(b []byte) []byte { return append(b, make([]byte, 4096)...) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			dir := newLog(t, 60, Options{SegmentSize: 8 << 10})
			want, _ := os.ReadFile(file(dir, hashesName))
			if damage == nil {
				os.Remove(file(dir, hashesName))
			} else {
				edit(t, file(dir, hashesName), damage)
			}
			l := openLog(t, dir, Options{Signer: testSigner(t)})
			if got, _ := os.ReadFile(file(dir, hashesName)); !bytes.Equal(got, want) {
				t.Errorf("the hashes are not what they were: %d and %d bytes", len(got), len(want))
			}
			appendN(t, l, 3)
			closeLog(t, l)
			wantWhole(t, dir, 63)
		})
	}
}

// TestDamagedOldHashes: Open looks only at the hashes it goes on from. The
// verifier finds the others and says what to do, and that works.
func TestDamagedOldHashes(t *testing.T) {
	dir := newLog(t, 60, Options{SegmentSize: 8 << 10})
	want, _ := os.ReadFile(file(dir, hashesName))
	edit(t, file(dir, hashesName), func(b []byte) []byte { clear(b[:256]); return b })
	closeLog(t, openLog(t, dir, Options{Signer: testSigner(t)}))
	r := verify(t, dir)
	if r.Intact() || r.Problems[0].File != hashesName || r.Problems[0].Seq != 0 || r.Signed != 60 {
		t.Fatalf("got %+v", r)
	}
	if _, err := Prove(dir, 2); !errors.Is(err, ErrDamaged) {
		t.Errorf("a proof from damaged hashes: %v", err)
	}
	os.Remove(file(dir, hashesName))
	closeLog(t, openLog(t, dir, Options{Signer: testSigner(t)}))
	if got, _ := os.ReadFile(file(dir, hashesName)); !bytes.Equal(got, want) {
		t.Error("the hashes are not what they were")
	}
	wantWhole(t, dir, 60)
}

func TestTornCheckpointIsCut(t *testing.T) {
	dir := newLog(t, 5, Options{})
	if err := appendBytes(file(dir, checkpointsName), testOrigin+"\n6\nAAAA"); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir); r.Intact() {
		t.Error("the verifier does not see the torn checkpoint")
	}
	l := openLog(t, dir, Options{Signer: testSigner(t)})
	appendN(t, l, 1)
	closeLog(t, l)
	wantWhole(t, dir, 6)
}

func TestCheckAgainstStoredCheckpoint(t *testing.T) {
	var kept Checkpoint
	dir := t.TempDir()
	l := openLog(t, dir, Options{Signer: testSigner(t), OnCheckpoint: func(c Checkpoint) { kept = c }})
	appendN(t, l, 5)
	older, err := l.Checkpoint(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 5)
	closeLog(t, l)
	if kept.Size != 10 {
		t.Fatalf("kept checkpoint of %d entries", kept.Size)
	}

	// Cut log, hashes and checkpoints back together to the older checkpoint.
	edit(t, file(dir, segmentName(1)), func(b []byte) []byte {
		return bytes.Join(bytes.SplitAfter(b, []byte("\n"))[:6], nil)
	})
	os.Remove(file(dir, hashesName))
	if err := os.WriteFile(file(dir, checkpointsName), append(older.Note, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir); !r.Intact() {
		t.Errorf("the cut cannot be seen from the files alone, got %+v", r)
	}
	if r := verify(t, dir, kept); r.Intact() || r.Problems[0].Seq != 6 {
		t.Errorf("the kept checkpoint does not show the cut: %+v", r)
	}
	l = openLog(t, dir, Options{Signer: testSigner(t)})
	if err := l.CheckAgainst(older); err != nil {
		t.Error(err)
	}
	if err := l.CheckAgainst(kept); !errors.Is(err, ErrBehind) || !strings.Contains(err.Error(), "entries 6–10 are missing") {
		t.Errorf("got %v", err)
	}
	appendN(t, l, 5) // entries of the same numbers, with other times
	if err := l.CheckAgainst(kept); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestLongLines(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Signer: testSigner(t)})
	for _, n := range []int{10, 16 << 10, 100 << 10, 900 << 10} {
		e := outcome(n)
		e.Request.Path = strings.Repeat("p", n)
		if err := l.Append(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	e := outcome(0)
	e.Request.Path = strings.Repeat("p", maxLine)
	if err := l.Append(context.Background(), e); !fault.Is(err, fault.TooLarge) {
		t.Errorf("an entry that is too long gave %v", err)
	}
	closeLog(t, l)
	wantWhole(t, dir, 4)
	if all := readAll(t, dir, ReadOptions{}); len(all) != 4 || len(all[3].Request.Path) != 900<<10 {
		t.Errorf("read %d entries", len(all))
	}
	if err := appendBytes(file(dir, segmentName(1)), strings.Repeat("x", 3*maxLine)); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir); r.Intact() {
		t.Errorf("an endless line was not found: %+v", r)
	}
	closeLog(t, openLog(t, dir, Options{Signer: testSigner(t)}))
}
