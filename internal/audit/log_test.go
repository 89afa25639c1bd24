package audit

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"
)

func TestMain(m *testing.M) {
	if job := os.Getenv("AUDIT_TEST_CHILD"); job != "" {
		os.Exit(child(job))
	}
	goleak.VerifyTestMain(m)
}

const testOrigin = "coffer.test/audit"

// testKey is a fixed key, so that fuzz seeds stay valid.
var testKey = ed25519.NewKeyFromSeed([]byte("thirty-two bytes of a test seed."))

func testSigner(t testing.TB) note.Signer {
	t.Helper()
	s, err := NewSigner(testOrigin, testKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testVerifierKey(t testing.TB) string {
	t.Helper()
	s, err := VerifierKey(testOrigin, testKey.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openLog(t testing.TB, dir string, o Options) *Log {
	t.Helper()
	if o.Origin == "" {
		o.Origin = testOrigin
	}
	if o.Reserve == 0 {
		o.Reserve = 128 << 10
	}
	if o.Ahead == 0 {
		o.Ahead = 64 << 10
	}
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// outcome is an entry as a read of a secret makes it.
func outcome(i int) *Entry {
	return &Entry{
		Type: Outcome,
		Request: Request{
			ID: fmt.Sprintf("8f14e45f-ceea-467f-a0e6-%012d", i), Operation: "read", Path: fmt.Sprintf("secret/data/app/%d", i),
			MountPoint: "secret/", MountType: "kv", MountAccessor: "kv_1a2b3c4d", RemoteAddress: "192.0.2.7", RemotePort: 40000 + i%1000,
			TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Fields: []string{"version"},
		},
		Principal: Principal{
			DisplayName: "approle-app", Accessor: "Q1w2E3r4T5y6U7i8O9p0AaSs", EntityID: "2b9d9e1c-6a04-4f3e-9d0a-0d8e1a3f2c11",
			Policies: []string{"app-read", "default"}, TokenType: "service", Issued: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		},
		Decision: &Decision{Allowed: true, Policy: "app-read", Rule: "secret/app/*"},
		Subject:  Subject{Path: "secret/app", Version: i%9 + 1, Label: "active", Fingerprint: "f:9c1185a5c5e9fc54"},
		Status:   200, DurationUS: 412,
	}
}

func appendN(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(context.Background(), outcome(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func verify(t testing.TB, dir string, extra ...Checkpoint) Report {
	t.Helper()
	r, err := Verify(dir, VerifyOptions{PublicKeys: []string{testVerifierKey(t)}, Checkpoints: extra})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantWhole verifies that dir holds n entries, all signed.
func wantWhole(t testing.TB, dir string, n uint64) {
	t.Helper()
	r := verify(t, dir)
	if !r.Intact() || r.Entries != n || r.Signed != n || r.Torn != 0 {
		t.Fatalf("want %d signed entries, got %+v", n, r)
	}
}

func readAll(t testing.TB, dir string, o ReadOptions) []Entry {
	t.Helper()
	var out []Entry
	for e, err := range Read(context.Background(), dir, o) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAppendReadVerify(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Signer: testSigner(t), SegmentSize: 4 << 10})
	appendN(t, l, 100)
	e := outcome(100)
	if err := l.AppendRelaxed(context.Background(), e); err != nil || e.Seq != 101 || e.Time.IsZero() {
		t.Fatalf("relaxed append: seq %d, time %v, %v", e.Seq, e.Time, err)
	}
	closeLog(t, l)
	wantWhole(t, dir, 101)
	all := readAll(t, dir, ReadOptions{})
	if len(all) != 101 || all[100].Request.ID != e.Request.ID || all[100].Seq != 101 {
		t.Fatalf("read %d entries, last %+v", len(all), all[len(all)-1])
	}
	if segs, _ := segments(dir); len(segs) < 5 {
		t.Fatalf("want several segments, got %v", segs)
	}

	l = openLog(t, dir, Options{Signer: testSigner(t), SegmentSize: 4 << 10})
	appendN(t, l, 10)
	closeLog(t, l)
	wantWhole(t, dir, 111)
}

func TestConcurrentAppendsShareSyncs(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Signer: testSigner(t)})
	const people, each = 64, 20
	seen := make([][]uint64, people)
	var wait sync.WaitGroup
	for p := range people {
		wait.Go(func() {
			for i := range each {
				e := outcome(p*each + i)
				if err := l.Append(context.Background(), e); err != nil {
					t.Error(err)
				}
				seen[p] = append(seen[p], e.Seq)
			}
		})
	}
	wait.Wait()
	s := l.Stats()
	closeLog(t, l)
	wantWhole(t, dir, people*each)
	if s.Sync.Count*2 > people*each {
		t.Errorf("%d appends took %d syncs: they did not share them", people*each, s.Sync.Count)
	}
	if s.Append.Count != people*each || s.Size != people*each {
		t.Errorf("stats count %d appends and %d entries", s.Append.Count, s.Size)
	}
	byID := map[string]uint64{}
	for _, e := range readAll(t, dir, ReadOptions{}) {
		byID[e.Request.ID] = e.Seq
	}
	for p := range people {
		for i, seq := range seen[p] {
			if id := outcome(p*each + i).Request.ID; byID[id] != seq {
				t.Fatalf("%s was told %d and is %d", id, seq, byID[id])
			}
		}
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	l := openLog(t, dir, Options{Signer: testSigner(t)})
	appendN(t, l, 1)
	closeLog(t, l)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("directory has mode %v (%v)", info.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files (%v)", len(files), err)
	}
	for _, f := range files {
		if info, _ := f.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
}
