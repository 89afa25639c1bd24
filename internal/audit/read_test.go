package audit

import (
	"context"
	"testing"
	"time"
)

func TestReadFromAndFilter(t *testing.T) {
	dir := newLog(t, 50, Options{SegmentSize: 4 << 10})
	for _, from := range []uint64{0, 1, 2, 7, 8, 9, 30, 50, 51} {
		want := 51 - int(max(from, 1))
		if got := readAll(t, dir, ReadOptions{From: from}); len(got) != want || want > 0 && got[0].Seq != max(from, 1) {
			t.Errorf("from %d: %d entries", from, len(got))
		}
	}
	even := readAll(t, dir, ReadOptions{Filter: func(e *Entry) bool { return e.Seq%2 == 0 }})
	if len(even) != 25 {
		t.Errorf("%d entries pass the filter", len(even))
	}
}

// TestFollow reads along while entries are appended over several segments.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Signer: testSigner(t), SegmentSize: 2 << 10})
	go func() {
		for i := range 60 {
			if err := l.Append(context.Background(), outcome(i)); err != nil {
				t.Error(err)
			}
			if i%20 == 0 {
				time.Sleep(150 * time.Millisecond)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	next := uint64(5)
	for e, err := range Read(ctx, dir, ReadOptions{From: 5, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq != next {
			t.Fatalf("entry %d came instead of %d", e.Seq, next)
		}
		if next++; next > 60 {
			cancel()
		}
	}
	if next != 61 {
		t.Errorf("followed up to entry %d", next-1)
	}
}
