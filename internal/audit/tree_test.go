package audit

import (
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// TestFrontierIsTheTree compares the frontier and the stored hashes with
// tlog's own for every size up to a few hundred.
func TestFrontierIsTheTree(t *testing.T) {
	store, err := openHashStore(filepath.Join(t.TempDir(), "hashes"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.file.Close()
	var f frontier
	var all []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			out[i] = all[index]
		}
		return out, nil
	})
	for n := range int64(300) {
		want, err := tlog.TreeHash(n, reader)
		if err != nil || want != f.root() {
			t.Fatalf("root of %d: %v, want %v (%v)", n, f.root(), want, err)
		}
		if got := leavesIn(int64(len(all))); got != uint64(n) {
			t.Fatalf("%d hashes hold %d leaves, want %d", len(all), got, n)
		}
		again, err := frontierAt(uint64(n), store)
		if err != nil || again.root() != want {
			t.Fatalf("frontier of %d from the store: %v (%v)", n, again.root(), err)
		}
		line := []byte{byte(n), byte(n >> 8)}
		hashes, err := tlog.StoredHashes(n, line, reader)
		if err != nil {
			t.Fatal(err)
		}
		mine := f.add(tlog.RecordHash(line), nil)
		if len(mine) != len(hashes) || mine[len(mine)-1] != hashes[len(hashes)-1] {
			t.Fatalf("entry %d stores %v, want %v", n, mine, hashes)
		}
		all = append(all, mine...)
		if _, err := store.append(mine, nil); err != nil {
			t.Fatal(err)
		}
	}
}
