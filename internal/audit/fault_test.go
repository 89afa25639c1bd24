package audit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/cofferhq/coffer/internal/fault"
)

// faultyFile is a segment on a disk that can be made to fail.
type faultyFile struct {
	segmentFile
	failSync  *atomic.Bool
	failWrite *atomic.Bool
}

func (f faultyFile) Sync() error {
	if f.failSync.Load() {
		return unix.EIO
	}
	return f.segmentFile.Sync()
}

// WriteAt writes half of what it is given and fails.
func (f faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if f.failWrite.Load() {
		n, err := f.segmentFile.WriteAt(p[:len(p)/2], off)
		return n, errors.Join(err, unix.EIO)
	}
	return f.segmentFile.WriteAt(p, off)
}

func TestFailingDiskRefusesAndComesBack(t *testing.T) {
	var failSync, failWrite atomic.Bool
	for name, fail := range map[string]*atomic.Bool{"sync": &failSync, "half a write": &failWrite} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir, Options{
				Signer: testSigner(t), CheckpointEvery: time.Hour,
				wrap: func(f segmentFile, _ string) segmentFile { return faultyFile{f, &failSync, &failWrite} },
			})
			appendN(t, l, 5)
			relaxed := outcome(99)
			if err := l.AppendRelaxed(context.Background(), relaxed); err != nil {
				t.Fatal(err)
			}
			fail.Store(true)
			for range 3 {
				err := l.Append(context.Background(), outcome(6))
				if !fault.Is(err, fault.Unavailable) || !errors.Is(err, unix.EIO) {
					t.Fatalf("a failing disk gave %v", err)
				}
			}
			fail.Store(false)
			appendN(t, l, 5)
			if s := l.Stats(); s.Failures != 3 {
				t.Errorf("%d failures counted", s.Failures)
			}
			closeLog(t, l)
			if r := verify(t, dir); !r.Whole() {
				t.Fatalf("%+v", r)
			}
			all := readAll(t, dir, ReadOptions{})
			if all[5].Request.ID != relaxed.Request.ID || all[len(all)-1].Request.ID != outcome(4).Request.ID {
				t.Errorf("entries were lost: %d there", len(all))
			}
			problems := 0
			for _, e := range all {
				if e.Event == EventProblem && strings.Contains(e.Error, "input/output error") {
					problems++
				}
			}
			if problems != 1 {
				t.Errorf("the log tells of %d problems", problems)
			}
		})
	}
}

// volatileFile remembers what of a segment a power cut could take away.
type volatileFile struct {
	segmentFile
	disk *volatileDisk
	name string
}

// volatileDisk keeps, for each segment, the length that was synced.
type volatileDisk struct {
	mu     sync.Mutex
	synced map[string]int64
	end    map[string]int64
}

func (f volatileFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	f.disk.end[f.name] = max(f.disk.end[f.name], off+int64(len(p)))
	f.disk.mu.Unlock()
	return f.segmentFile.WriteAt(p, off)
}

func (f volatileFile) Sync() error {
	f.disk.mu.Lock()
	end := f.disk.end[f.name]
	f.disk.mu.Unlock()
	if err := f.segmentFile.Sync(); err != nil {
		return err
	}
	f.disk.mu.Lock()
	f.disk.synced[f.name] = end
	f.disk.mu.Unlock()
	return nil
}

// cutPower copies dir as a power cut might leave it: of what was not synced,
// each sector is there, is zero, or lies beyond the end. Stored hashes are
// synced only when a segment begins.
func (d *volatileDisk) cutPower(t *testing.T, dir, to string, random *rand.Rand) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		content, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err != nil {
			t.Fatal(err)
		}
		safe := int64(len(content))
		if synced, ok := d.synced[n.Name()]; ok {
			safe = min(safe, synced)
		} else if n.Name() == hashesName {
			newest := lastSegment(t, dir)
			h, err := headerOf(newest, len(d.synced))
			if err != nil {
				t.Fatal(err)
			}
			safe = tlog.StoredHashCount(int64(h.before)) * tlog.HashSize
		}
		content = content[:safe+random.Int64N(int64(len(content))-safe+1)]
		for at := safe; at < int64(len(content)); at = at/512*512 + 512 {
			if random.IntN(3) == 0 {
				clear(content[at:min(at/512*512+512, int64(len(content)))])
			}
		}
		if err := os.WriteFile(filepath.Join(to, n.Name()), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCutLosesNothing cuts the power at random moments, many times, and
// opens what is left.
func TestPowerCutLosesNothing(t *testing.T) {
	const seed = 20260304
	random := rand.New(rand.NewPCG(seed, 0))
	rounds, kept, cut := 40, 0, 0
	if os.Getenv("COFFER_SOAK") == "1" {
		rounds *= 20
	}
	for round := range rounds {
		dir, after := t.TempDir(), t.TempDir()
		disk := &volatileDisk{synced: map[string]int64{}, end: map[string]int64{}}
		l := openLog(t, dir, Options{
			Signer: testSigner(t), SegmentSize: 16 << 10, CheckpointEvery: time.Duration(1+random.IntN(5)) * time.Millisecond,
			wrap: func(f segmentFile, path string) segmentFile { return volatileFile{f, disk, filepath.Base(path)} },
		})
		durable := map[string]uint64{}
		for i := range 20 + random.IntN(60) {
			e := outcome(i)
			appendOne, relaxed := l.Append, random.IntN(2) == 0
			if relaxed {
				appendOne = l.AppendRelaxed
			}
			if err := appendOne(context.Background(), e); err != nil {
				t.Fatal(err)
			}
			if disk.covers(e, filepath.Join(dir, segmentName(l.Stats().Segment))) {
				durable[e.Request.ID] = e.Seq
			} else if !relaxed {
				t.Fatalf("entry %d was acknowledged before it was synced", e.Seq)
			}
		}
		// The writer rests while the copy is made, so that it is one moment.
		if err := l.do(func() error { disk.cutPower(t, dir, after, random); return nil }); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
		again := openLog(t, after, Options{Signer: testSigner(t)})
		appendN(t, again, 1)
		closeLog(t, again)
		if r := verify(t, after); !r.Whole() {
			t.Fatalf("round %d: %+v", round, r)
		}
		there := map[string]uint64{}
		for _, e := range readAll(t, after, ReadOptions{}) {
			if e.Event == EventRecovered {
				cut++
			}
			if _, ok := there[e.Request.ID]; !ok {
				there[e.Request.ID] = e.Seq
			}
		}
		for id, seq := range durable {
			if there[id] != seq {
				t.Fatalf("round %d: entry %s was on disk as %d and is %d", round, id, seq, there[id])
			}
		}
		kept += len(durable)
	}
	t.Logf("%d power cuts, %d durable entries all kept, %d times something was cut off or taken up", rounds, kept, cut)
}

// covers reports whether an acknowledged entry was synced.
func (d *volatileDisk) covers(e *Entry, path string) bool {
	content, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	synced := min(d.synced[filepath.Base(path)], int64(len(content)))
	return strings.Contains(string(content[:synced]), fmt.Sprintf(`{"seq":%d,`, e.Seq))
}

func TestTouchedFilesAreNoticedAndRepaired(t *testing.T) {
	cases := map[string]struct {
		touch func(path string) error
		want  string
		lost  bool
	}{
		"deleted": {os.Remove, "was deleted", false},
		"renamed": {func(p string) error { return os.Rename(p, p+".1") }, "was renamed or moved", false},
		"replaced": {func(p string) error {
			return errors.Join(os.Rename(p, p+".1"), os.WriteFile(p, []byte("other\n"), 0o600))
		}, "was replaced", false},
		"cut":        {func(p string) error { return os.Truncate(p, 2000) }, "was cut from", true},
		"emptied":    {func(p string) error { return os.Truncate(p, 0) }, "was cut from", true},
		"written to": {func(p string) error { return appendBytes(p, "{\"seq\":21}\n") }, "was written to by others", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir, Options{Signer: testSigner(t)})
			appendN(t, l, 20)
			if err := c.touch(file(dir, segmentName(1))); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				err := l.Append(context.Background(), outcome(20))
				if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want %q", err, c.want)
				}
			}
			if err := l.Repair(); err != nil {
				t.Fatal(err)
			}
			appendN(t, l, 5)
			closeLog(t, l)
			r := verify(t, dir)
			if r.Intact() == c.lost {
				t.Errorf("after the repair: %+v", r)
			}
			if !c.lost && (!r.Whole() || r.Entries < 26) {
				t.Errorf("after the repair: %+v", r)
			}
			last := readSegment(t, dir, 2)
			text := ""
			for _, e := range last {
				if e.Event == EventRepaired {
					text = e.Error
				}
			}
			if !strings.Contains(text, c.want) || strings.Contains(text, "lost or changed") != c.lost {
				t.Errorf("the repair is told as %q", text)
			}
			l = openLog(t, dir, Options{Signer: testSigner(t)})
			appendN(t, l, 1)
		})
	}
}

func readSegment(t *testing.T, dir string, n int) []Entry {
	t.Helper()
	f, err := os.Open(file(dir, segmentName(n)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := newLineReader(f)
	if _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	var out []Entry
	for {
		line, err := r.next()
		if err != nil {
			return out
		}
		e, err := decodeEntry(line)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
}

// TestRelaxedEntrySurvivesAFailedSync: nothing but the checkpointer comes by
// after the disk works again.
func TestRelaxedEntrySurvivesAFailedSync(t *testing.T) {
	var failSync, failWrite atomic.Bool
	dir := t.TempDir()
	l := openLog(t, dir, Options{
		Signer: testSigner(t), CheckpointEvery: time.Hour,
		wrap: func(f segmentFile, _ string) segmentFile { return faultyFile{f, &failSync, &failWrite} },
	})
	if err := l.AppendRelaxed(context.Background(), outcome(1)); err != nil {
		t.Fatal(err)
	}
	failSync.Store(true)
	if _, err := l.Checkpoint(context.Background()); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("a checkpoint of entries that are not on disk: %v", err)
	}
	failSync.Store(false)
	closeLog(t, l)
	if r := verify(t, dir); !r.Whole() || r.Entries < 1 {
		t.Fatalf("%+v", r)
	}
	if all := readAll(t, dir, ReadOptions{}); all[0].Request.ID != outcome(1).Request.ID {
		t.Errorf("the first entry is %+v", all[0])
	}
}
