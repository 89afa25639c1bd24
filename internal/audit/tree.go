package audit

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/bits"
	"os"

	"golang.org/x/mod/sumdb/tlog"
)

// frontier is the right edge of the Merkle tree of the first size entries:
// the roots of its complete subtrees, largest first, one for each bit set in
// size. It is all that is needed to add entries and to name the tree.
type frontier struct {
	size  uint64
	nodes []tlog.Hash
}

// add adds a leaf and appends to stored the hashes that it completes, in the
// order in which tlog stores them.
func (f *frontier) add(leaf tlog.Hash, stored []tlog.Hash) []tlog.Hash {
	stored = append(stored, leaf)
	for n := f.size; n&1 == 1; n >>= 1 {
		last := len(f.nodes) - 1
		leaf = tlog.NodeHash(f.nodes[last], leaf)
		f.nodes = f.nodes[:last]
		stored = append(stored, leaf)
	}
	f.nodes = append(f.nodes, leaf)
	f.size++
	return stored
}

// root names the tree (RFC 6962 section 2.1).
func (f *frontier) root() tlog.Hash {
	if f.size == 0 {
		return sha256.Sum256(nil)
	}
	last := len(f.nodes) - 1
	h := f.nodes[last]
	for i := last - 1; i >= 0; i-- {
		h = tlog.NodeHash(f.nodes[i], h)
	}
	return h
}

// set makes f a copy of from, reusing its memory.
func (f *frontier) set(from *frontier) {
	f.size = from.size
	f.nodes = append(f.nodes[:0], from.nodes...)
}

// clone returns a copy that shares nothing.
func (f *frontier) clone() frontier {
	return frontier{size: f.size, nodes: append([]tlog.Hash(nil), f.nodes...)}
}

// frontierAt reads the edge of the tree of the first size entries.
func frontierAt(size uint64, r tlog.HashReader) (frontier, error) {
	f := frontier{size: size}
	indexes := make([]int64, 0, bits.OnesCount64(size))
	var before uint64
	for level := 63; level >= 0; level-- {
		if size>>level&1 == 1 {
			indexes = append(indexes, tlog.StoredHashIndex(level, int64(before>>level)))
			before += 1 << level
		}
	}
	var err error
	f.nodes, err = r.ReadHashes(indexes)
	return f, err
}

// hashStore is the file of stored hashes: 32 bytes each, in tlog's order, so
// that a tree of n entries takes just under 64 n bytes.
type hashStore struct {
	file  *os.File
	count int64 // hashes that are written, without a gap
}

// openHashStore opens or makes the file and counts the hashes that stand in
// it. Space that was grown but never written, as a power cut may leave it,
// is not counted.
func openHashStore(path string) (*hashStore, error) {
	return useHashStore(os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600))
}

// readHashStore opens the file for reading only.
func readHashStore(path string) (*hashStore, error) { return useHashStore(os.Open(path)) }

func useHashStore(file *os.File, err error) (*hashStore, error) {
	if err != nil {
		return nil, err
	}
	s := &hashStore{file: file}
	if err := s.measure(); err != nil {
		file.Close()
		return nil, err
	}
	return s, nil
}

// measure counts the hashes up to the last that is not zero.
func (s *hashStore) measure() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	s.count = info.Size() / tlog.HashSize
	var h, zero tlog.Hash
	for s.count > 0 {
		if _, err := s.file.ReadAt(h[:], (s.count-1)*tlog.HashSize); err != nil {
			return err
		}
		if h != zero {
			return nil
		}
		s.count--
	}
	return nil
}

// ReadHashes returns the stored hashes with the given indexes.
func (s *hashStore) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= s.count {
			return nil, fmt.Errorf("stored hash %d of %d: %w", index, s.count, io.ErrUnexpectedEOF)
		}
		if _, err := s.file.ReadAt(hashes[i][:], index*tlog.HashSize); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

// append writes hashes after those that stand. A failure leaves the count, so
// that the same hashes can be written again.
func (s *hashStore) append(hashes []tlog.Hash, scratch []byte) ([]byte, error) {
	scratch = scratch[:0]
	for i := range hashes {
		scratch = append(scratch, hashes[i][:]...)
	}
	if _, err := s.file.WriteAt(scratch, s.count*tlog.HashSize); err != nil {
		return scratch, err
	}
	s.count += int64(len(hashes))
	return scratch, nil
}

// cut forgets all hashes from count on.
func (s *hashStore) cut(count int64) error {
	if err := s.file.Truncate(count * tlog.HashSize); err != nil {
		return err
	}
	s.count = count
	return nil
}

// leaves returns how many entries have their leaf hash stored.
func (s *hashStore) leaves() uint64 { return leavesIn(s.count) }

// leavesIn returns the size of the largest tree whose leaves are all among
// the first count stored hashes.
func leavesIn(count int64) uint64 {
	if count == 0 {
		return 0
	}
	// A tree of n entries stores between n and 2n hashes.
	low, high := count/2, count
	for low < high {
		mid := (low + high + 1) / 2
		if tlog.StoredHashIndex(0, mid-1) < count {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return uint64(low)
}
