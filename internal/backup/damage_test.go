package backup_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/storage"
)

// refused wants an archive to be refused by every reader, with one of the errors.
func (s *store) refused(t *testing.T, what string, archive []byte, want ...error) error {
	t.Helper()
	p, err := backup.Verify(context.Background(), bytes.NewReader(archive), backup.Seals(s.seals), nil)
	if err == nil || p != nil {
		t.Fatalf("%s: it is taken for an archive", what)
	}
	for _, w := range want {
		if errors.Is(err, w) {
			return err
		}
	}
	t.Fatalf("%s: %v, want one of %v", what, err, want)
	return nil
}

// An archive cut short at any byte is refused, and the message says that.
func TestTruncation(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	s.fill(t, 5, 300)
	archive := s.archive(t)
	for n := range archive {
		s.refused(t, "cut", archive[:n], backup.ErrCut)
		if _, err := backup.Check(bytes.NewReader(archive[:n]), nil); !errors.Is(err, backup.ErrCut) {
			t.Fatalf("without a key, cut after %d of %d bytes: %v", n, len(archive), err)
		}
	}
	t.Logf("cut short %d times", len(archive))
	var z bytes.Buffer
	snapshot := backup.NewSnapshot(&z)
	_, err := snapshot.Write(archive)
	must(t, err)
	must(t, snapshot.Close())
	for n := 0; n < z.Len()-1100; n += 7 { // what follows the last file of a tar is padding
		s.refused(t, "snapshot cut", z.Bytes()[:n], backup.ErrCut, backup.ErrNoArchive, backup.ErrDamaged)
	}
}

// A changed bit anywhere, bytes that are gone, doubled or added: all refused.
func TestDamage(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	s.fill(t, 5, 300)
	archive := s.archive(t)
	errs := []error{backup.ErrDamaged, backup.ErrCut, backup.ErrNoArchive, backup.ErrFormat}
	for at := range archive {
		bad := bytes.Clone(archive)
		bad[at] ^= 1 << rand.N(8)
		s.refused(t, "flipped", bad, errs...)
		if _, err := backup.Check(bytes.NewReader(bad), nil); err == nil {
			t.Fatalf("the checksum does not see a change of byte %d", at)
		}
	}
	for range 300 * soak() {
		at, n := rand.N(len(archive)-1), 1+rand.N(40)
		to := min(at+n, len(archive))
		s.refused(t, "removed", bytes.Join([][]byte{archive[:at], archive[to:]}, nil), errs...)
		s.refused(t, "doubled", bytes.Join([][]byte{archive[:to], archive[at:]}, nil), errs...)
	}
	s.refused(t, "appended", append(bytes.Clone(archive), 0), backup.ErrDamaged)
	s.refused(t, "two archives", append(bytes.Clone(archive), archive...), backup.ErrDamaged)
}

// parts are the header and the frames of an archive.
func parts(t *testing.T, archive []byte) (head []byte, frames [][]byte) {
	t.Helper()
	at := len("coffer backup 1\n")
	for range 2 {
		at += 4 + int(uint32At(archive, at))
	}
	head, rest := archive[:at], archive[at:]
	for len(rest) > 0 {
		n := 9 + int(uint32At(rest, 1))
		frames, rest = append(frames, rest[:n]), rest[n:]
	}
	return head, frames
}

func uint32At(b []byte, at int) uint32 {
	return uint32(b[at])<<24 | uint32(b[at+1])<<16 | uint32(b[at+2])<<8 | uint32(b[at+3])
}

func joined(head []byte, frames ...[]byte) []byte {
	return append(bytes.Clone(head), bytes.Join(frames, nil)...)
}

// Whole frames that are moved, dropped, doubled or taken from another archive of
// the same store are found, although each of them is genuine.
func TestFramesAreBound(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	s.fill(t, 60, 100_000)
	head, f := parts(t, s.archive(t))
	otherHead, o := parts(t, s.archive(t))
	if len(f) < 6 || len(f) != len(o) {
		t.Fatalf("%d and %d frames", len(f), len(o))
	}
	n := len(f)
	for what, bad := range map[string][]byte{
		"swapped":               joined(head, append([][]byte{f[1], f[0]}, f[2:]...)...),
		"first dropped":         joined(head, f[1:]...),
		"one dropped":           joined(head, append(append([][]byte{}, f[:2]...), f[3:]...)...),
		"last rows dropped":     joined(head, append(append([][]byte{}, f[:n-3]...), f[n-2:]...)...),
		"doubled":               joined(head, append([][]byte{f[0]}, f...)...),
		"trailer dropped":       joined(head, append(append([][]byte{}, f[:n-2]...), f[n-1])...),
		"trailer doubled":       joined(head, append(append([][]byte{}, f[:n-1]...), f[n-2], f[n-1])...),
		"from another":          joined(head, append([][]byte{o[0]}, f[1:]...)...),
		"another's trailer":     joined(head, append(append([][]byte{}, f[:n-2]...), o[n-2], o[n-1])...),
		"under another's head":  joined(otherHead, f...),
		"rows behind the trail": joined(head, append(append([][]byte{}, f[:n-1]...), f[0], f[n-1])...),
	} {
		s.refused(t, what, bad, backup.ErrDamaged)
	}
	if _, err := backup.Verify(t.Context(), bytes.NewReader(joined(head, f...)), backup.Seals(s.seals), nil); err != nil {
		t.Errorf("the archive itself: %v", err)
	}
}

// An archive of another store is refused by name.
func TestForeignSeal(t *testing.T) {
	mine, other := newStore(t, engines["memory"](t)), newStore(t, engines["memory"](t))
	err := mine.refused(t, "foreign", other.archive(t), backup.ErrForeign)
	for _, word := range []string{"sealed by keyfile", "fingerprint ", "none of the configured seals opens"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the message lacks %q: %v", word, err)
		}
	}
	nobody := &store{}
	nobody.refused(t, "no seal at all", other.archive(t), backup.ErrForeign)
}

// A seal of the day opens an archive: each of several, and one that has been
// left since.
func TestSeveralSeals(t *testing.T) {
	a, b := keyFile(t), keyFile(t)
	b.Name = "second"
	s := newStore(t, engines["memory"](t), a, b)
	archive := s.archive(t)
	for _, one := range []seal.Named{a, b} {
		if _, err := backup.Verify(t.Context(), bytes.NewReader(archive), backup.Seals([]seal.Named{one}), nil); err != nil {
			t.Errorf("seal %s: %v", one.Name, err)
		}
	}
}

// A store that is damaged makes an archive that is refused, and says why.
func TestDamagedStore(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	s.fill(t, 5, 300)
	_, err := s.engine.Update(t.Context(), put("mount/a/first", "not what the barrier wrote"))
	must(t, err)
	_, err = backup.Verify(t.Context(), bytes.NewReader(s.archive(t)), backup.Seals(s.seals), nil)
	if err == nil || !strings.Contains(err.Error(), "damaged when this archive was made") || !strings.Contains(err.Error(), "mount/a/first") {
		t.Errorf("%v", err)
	}
}

// Rows of a mount whose keys are destroyed are counted, and restored as they are.
func TestLostRows(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	s.fill(t, 30, 300)
	_, err := s.barrier.Update(t.Context(), func(txn storage.Txn) error { return s.barrier.DestroyKeys(txn, "mount/a") })
	must(t, err)
	e := engines["memory"](t)
	if p := s.restore(t, s.archive(t), e, backup.Restore{}); p.Lost == 0 {
		t.Error("no lost rows are counted")
	}
	s.reopened(t, e)
}

// FuzzArchive feeds what is no archive, or a bent one, to the reader.
func FuzzArchive(f *testing.F) {
	s := newStore(f, engines["memory"](f))
	s.fill(f, 5, 100)
	whole := s.archive(f)
	var z bytes.Buffer
	snapshot := backup.NewSnapshot(&z)
	_, _ = snapshot.Write(whole)
	_ = snapshot.Close()
	for _, seed := range [][]byte{nil, whole, z.Bytes(), whole[:len(whole)/2], []byte("coffer backup 1\n\x00\x00\x00\x02{}\x00\x00\x00\x01x"), []byte("coffer backup 2\n")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Equal(b, whole) || bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
			// A gzip has many spellings of one content.
			_, _ = backup.Verify(context.Background(), bytes.NewReader(b), backup.Seals(s.seals), nil)
			return
		}
		if _, err := backup.Verify(context.Background(), bytes.NewReader(b), backup.Seals(s.seals), nil); err == nil {
			t.Error("it is taken for an archive")
		}
	})
}
