package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// logFiles is a log in memory.
type logFiles map[string][]byte

func loadLog(t testing.TB, dir string) logFiles {
	t.Helper()
	out := logFiles{}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if n.Name() == lockName || n.Name() == reserveName {
			continue
		}
		if out[n.Name()], err = os.ReadFile(file(dir, n.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func (f logFiles) clone() logFiles {
	out := logFiles{}
	for name, content := range f {
		out[name] = bytes.Clone(content)
	}
	return out
}

// become makes dir, which holds f, hold next, and f too.
func (f logFiles) become(next logFiles, dir string) error {
	for name := range f {
		if _, ok := next[name]; !ok {
			delete(f, name)
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	for name, content := range next {
		if old, ok := f[name]; ok && bytes.Equal(old, content) {
			continue
		}
		f[name] = bytes.Clone(content)
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (f logFiles) segments() []string {
	var names []string
	for n := 1; f[segmentName(n)] != nil; n++ {
		names = append(names, segmentName(n))
	}
	return names
}

func lines(b []byte) [][]byte {
	all := bytes.SplitAfter(b, []byte("\n"))
	return all[:len(all)-1]
}

// tampering is one way to change a log. It reports whether it changed
// anything, and the first entry that it touched, 0 when that is not about one
// entry.
type tampering struct {
	name  string
	apply func(t *rapid.T, f logFiles) uint64
}

// pickLine draws an entry line: its segment, its place in the file and its
// number.
func pickLine(t *rapid.T, f logFiles) (string, int, uint64) {
	name := rapid.SampledFrom(f.segments()).Draw(t, "segment")
	all := lines(f[name])
	i := rapid.IntRange(1, len(all)-1).Draw(t, "line")
	seq, _ := lineSeq(all[i])
	return name, i, seq
}

func insertAt(all [][]byte, i int, more ...[]byte) []byte {
	out := append([][]byte(nil), all[:i]...)
	out = append(out, more...)
	return bytes.Join(append(out, all[i:]...), nil)
}

var tamperings = []tampering{
	{"edit a byte", func(t *rapid.T, f logFiles) uint64 {
		name, i, seq := pickLine(t, f)
		all := lines(f[name])
		at := rapid.IntRange(0, len(all[i])-2).Draw(t, "at")
		old := all[i][at]
		all[i][at] = rapid.Byte().Filter(func(b byte) bool { return b != old && b != '\n' }).Draw(t, "byte")
		f[name] = bytes.Join(all, nil)
		return seq
	}},
	{"change a field", func(t *rapid.T, f logFiles) uint64 {
		name, i, seq := pickLine(t, f)
		all := lines(f[name])
		all[i] = bytes.Replace(all[i], []byte(`"status":200`), []byte(`"status":403`), 1)
		f[name] = bytes.Join(all, nil)
		return seq
	}},
	{"delete a line", func(t *rapid.T, f logFiles) uint64 {
		name, i, seq := pickLine(t, f)
		all := lines(f[name])
		f[name] = bytes.Join(append(all[:i:i], all[i+1:]...), nil)
		return seq
	}},
	{"delete a line and renumber", func(t *rapid.T, f logFiles) uint64 {
		name, i, seq := pickLine(t, f)
		all := lines(f[name])
		all = append(all[:i:i], all[i+1:]...)
		for j := i; j < len(all); j++ {
			all[j] = renumber(all[j], seq+uint64(j-i))
		}
		f[name] = bytes.Join(all, nil)
		return seq
	}},
	{"swap lines", func(t *rapid.T, f logFiles) uint64 {
		name := rapid.SampledFrom(f.segments()).Draw(t, "segment")
		all := lines(f[name])
		i := rapid.IntRange(1, len(all)-2).Draw(t, "first")
		j := rapid.IntRange(i+1, len(all)-1).Draw(t, "second")
		seq, _ := lineSeq(all[i])
		all[i], all[j] = all[j], all[i]
		f[name] = bytes.Join(all, nil)
		return seq
	}},
	{"repeat a line", func(t *rapid.T, f logFiles) uint64 {
		name, i, seq := pickLine(t, f)
		all := lines(f[name])
		f[name] = insertAt(all, i, all[i])
		return seq + 1
	}},
	{"insert an entry and renumber", func(t *rapid.T, f logFiles) uint64 {
		name, i, seq := pickLine(t, f)
		all := lines(f[name])
		for j := i; j < len(all); j++ {
			all[j] = renumber(all[j], seq+1+uint64(j-i))
		}
		f[name] = insertAt(all, i, renumber(all[i], seq))
		return 0
	}},
	{"cut the end", func(t *rapid.T, f logFiles) uint64 {
		names := f.segments()
		n := rapid.IntRange(0, len(names)-1).Draw(t, "segment")
		for _, name := range names[n+1:] {
			delete(f, name)
		}
		content := f[names[n]]
		f[names[n]] = content[:rapid.IntRange(1, len(content)-1).Draw(t, "bytes")]
		return 0
	}},
	{"delete a segment", func(t *rapid.T, f logFiles) uint64 {
		delete(f, rapid.SampledFrom(f.segments()).Draw(t, "segment"))
		return 0
	}},
	{"delete a segment and rename the others", func(t *rapid.T, f logFiles) uint64 {
		names := f.segments()
		n := rapid.IntRange(0, len(names)-1).Draw(t, "segment")
		for i := n; i < len(names)-1; i++ {
			f[names[i]] = f[names[i+1]]
		}
		delete(f, names[len(names)-1])
		return 0
	}},
	{"swap segments", func(t *rapid.T, f logFiles) uint64 {
		names := f.segments()
		i := rapid.IntRange(0, len(names)-2).Draw(t, "first")
		j := rapid.IntRange(i+1, len(names)-1).Draw(t, "second")
		f[names[i]], f[names[j]] = f[names[j]], f[names[i]]
		return 0
	}},
	{"repeat a segment", func(t *rapid.T, f logFiles) uint64 {
		names := f.segments()
		f[segmentName(len(names)+1)] = f[rapid.SampledFrom(names).Draw(t, "segment")]
		return 0
	}},
	{"edit a header", func(t *rapid.T, f logFiles) uint64 {
		name := rapid.SampledFrom(f.segments()).Draw(t, "segment")
		n := len(lines(f[name])[0])
		f[name][rapid.IntRange(0, n-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		return 0
	}},
	{"edit the checkpoints", func(t *rapid.T, f logFiles) uint64 {
		b := f[checkpointsName]
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		return 0
	}},
	{"forge a checkpoint", func(t *rapid.T, f logFiles) uint64 {
		notes, _ := splitNotes(f[checkpointsName])
		last := notes[len(notes)-1].note
		c, err := ParseCheckpoint(last)
		if err != nil {
			t.Fatal(err)
		}
		c.Size++
		signature := last[bytes.Index(last, []byte("\n\n"))+1:]
		f[checkpointsName] = append(f[checkpointsName], c.text()+string(signature)+"\n"...)
		return 0
	}},
	{"swap checkpoints", func(t *rapid.T, f logFiles) uint64 {
		notes, _ := splitNotes(f[checkpointsName])
		if len(notes) < 2 {
			t.Fatal("too few checkpoints")
		}
		notes[0], notes[1] = notes[1], notes[0]
		var out []byte
		for _, n := range notes {
			out = append(append(out, n.note...), '\n')
		}
		f[checkpointsName] = out
		return 0
	}},
	{"delete the checkpoints", func(_ *rapid.T, f logFiles) uint64 { delete(f, checkpointsName); return 0 }},
	{"edit the hashes", func(t *rapid.T, f logFiles) uint64 {
		b := f[hashesName]
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		return 0
	}},
	{"change an entry and its hash", func(t *rapid.T, f logFiles) uint64 {
		name, i, _ := pickLine(t, f)
		all := lines(f[name])
		all[i] = bytes.Replace(all[i], []byte(`"allowed":true`), []byte(`"allowed":null`), 1)
		f[name] = bytes.Join(all, nil)
		delete(f, hashesName)
		return 0
	}},
	{"renumber a segment", func(t *rapid.T, f logFiles) uint64 {
		names := f.segments()
		name := names[len(names)-1]
		all := lines(f[name])
		for i := 1; i < len(all); i++ {
			seq, _ := lineSeq(all[i])
			all[i] = renumber(all[i], seq+1)
		}
		f[name] = bytes.Join(all, nil)
		return 0
	}},
}

func renumber(line []byte, seq uint64) []byte {
	_, rest, _ := strings.Cut(string(line), ",")
	return append(uintText(seq), ","+rest...)
}

func uintText(seq uint64) []byte {
	var digits []byte
	for ; seq > 0; seq /= 10 {
		digits = append([]byte{byte('0' + seq%10)}, digits...)
	}
	return append([]byte(linePrefix), digits...)
}

// sampleLog is a log of 60 entries, several segments and several checkpoints.
func sampleLog(t testing.TB) logFiles {
	t.Helper()
	dir := t.TempDir()
	l := openLog(t, dir, Options{Signer: testSigner(t), SegmentSize: 8 << 10})
	for range 6 {
		appendN(t, l, 10)
		if _, err := l.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
	wantWhole(t, dir, 60)
	return loadLog(t, dir)
}

func TestVerifyFindsEveryTampering(t *testing.T) {
	sample := sampleLog(t)
	key := testVerifierKey(t)
	work, there := t.TempDir(), logFiles{}
	for _, kind := range tamperings {
		t.Run(kind.name, func(t *testing.T) {
			tried, exact := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				f := sample.clone()
				seq := kind.apply(t, f)
				if err := there.become(f, work); err != nil {
					t.Fatal(err)
				}
				r, err := Verify(work, VerifyOptions{PublicKeys: []string{key}})
				if err != nil {
					t.Fatal(err)
				}
				tried++
				if r.Whole() {
					t.Fatalf("not found: %+v", r)
				}
				bad, named := r.FirstBad()
				if seq > 0 && (!named || bad.Seq != seq || bad.Line == 0) {
					t.Fatalf("entry %d was touched, reported %+v", seq, r.Problems)
				}
				if named {
					exact++
				}
			})
			t.Logf("%d tried, all found, %d named an entry", tried, exact)
		})
	}
}

// FuzzVerify changes bytes anywhere in a log: the verifier never panics and
// never calls a changed log whole.
func FuzzVerify(f *testing.F) {
	sample := sampleLog(f)
	key := testVerifierKey(f)
	dir, there := f.TempDir(), logFiles{}
	f.Add(uint8(0), uint16(0), []byte{}, uint8(1))
	f.Add(uint8(1), uint16(300), []byte("{\"seq\":1}\n"), uint8(0))
	f.Add(uint8(2), uint16(20), []byte("\n\n— x AAAA\n\n"), uint8(3))
	f.Fuzz(func(t *testing.T, which uint8, at uint16, put []byte, drop uint8) {
		changed := sample.clone()
		for _, n := range []string{checkpointsName, hashesName} {
			if which%8 == 7 {
				delete(changed, n)
			}
		}
		all := append(sample.segments(), checkpointsName, hashesName)
		name := all[int(which>>3)%len(all)]
		old := changed[name]
		i := min(int(at), len(old))
		j := min(i+int(drop), len(old))
		changed[name] = append(append(append([]byte(nil), old[:i]...), put...), old[j:]...)
		if err := there.become(changed, dir); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(dir, VerifyOptions{PublicKeys: []string{key}})
		if err != nil {
			t.Fatal(err)
		}
		if !r.Whole() {
			return
		}
		if r.Signed < 60 {
			return // cut back to an older checkpoint: the documented limit
		}
		for _, n := range sample.segments() {
			if !bytes.Equal(changed[n], sample[n]) {
				t.Fatalf("a changed %s was accepted: %+v", n, r)
			}
		}
	})
}
