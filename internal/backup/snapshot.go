package backup

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// A snapshot is an archive in the wrapping that `vault operator raft snapshot
// save` looks for: a gzipped tar with a file SHA256SUMS.sealed at its end. That
// client takes its absence for a snapshot that broke off. The archive lies in it
// in parts, because a tar says the size of a file before the file.
const (
	partPrefix   = "coffer-backup/"
	sealedSums   = "SHA256SUMS.sealed"
	snapshotPart = 1 << 20
)

var gzipMagic = []byte{0x1f, 0x8b}

// Snapshot wraps an archive that is written to it. Close ends it, which only an
// archive that is whole deserves.
type Snapshot struct {
	gzip *gzip.Writer
	tar  *tar.Writer
	part []byte
	made int
	at   time.Time
}

// NewSnapshot returns a snapshot that is written to w.
func NewSnapshot(w io.Writer) *Snapshot {
	z, err := gzip.NewWriterLevel(w, gzip.NoCompression)
	if err != nil { // the level is one of gzip's own
		panic(err)
	}
	return &Snapshot{gzip: z, tar: tar.NewWriter(z), at: time.Now().UTC().Truncate(time.Second)}
}

// Write implements io.Writer.
func (s *Snapshot) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), snapshotPart-len(s.part))
		s.part, rest = append(s.part, rest[:n]...), rest[n:]
		if len(s.part) == snapshotPart {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

func (s *Snapshot) flush() error {
	if len(s.part) == 0 {
		return nil
	}
	s.made++
	err := s.file(fmt.Sprintf("%s%08d", partPrefix, s.made), s.part)
	s.part = s.part[:0]
	return err
}

func (s *Snapshot) file(name string, content []byte) error {
	err := s.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: s.at, Typeflag: tar.TypeReg})
	if err == nil {
		_, err = s.tar.Write(content)
	}
	return err
}

// Close writes what is left and ends the snapshot; it does not close the writer
// below.
func (s *Snapshot) Close() error {
	if err := s.flush(); err != nil {
		return err
	}
	note := fmt.Sprintf("The parts of %s, one behind the other, are a Coffer backup, which proves itself:\ncoffer operator backup-verify\n", partPrefix)
	if err := s.file(sealedSums, []byte(note)); err != nil {
		return err
	}
	return errors.Join(s.tar.Close(), s.gzip.Close())
}

// unsnapshot reads the archive in a snapshot.
type unsnapshot struct {
	in    *bufio.Reader
	tar   *tar.Reader // nil before the first part
	made  int
	ended bool
}

func newUnsnapshot(in *bufio.Reader) *unsnapshot { return &unsnapshot{in: in} }

// Read implements io.Reader. A snapshot without its end is cut short, whatever
// its parts hold.
func (u *unsnapshot) Read(b []byte) (int, error) {
	if u.ended {
		return 0, io.EOF
	}
	if u.tar == nil {
		z, err := gzip.NewReader(u.in)
		if err != nil {
			return 0, unwrapped(err)
		}
		u.tar = tar.NewReader(z)
		if err := u.next(); err != nil {
			return 0, err
		}
	}
	for !u.ended {
		n, err := u.tar.Read(b)
		if n > 0 || len(b) == 0 {
			return n, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, unwrapped(err)
		}
		if err := u.next(); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

// next goes to the next part, or to the end behind the last.
func (u *unsnapshot) next() error {
	h, err := u.tar.Next()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return unwrapped(err)
	}
	switch {
	case h.Name == fmt.Sprintf("%s%08d", partPrefix, u.made+1):
		u.made++
		return nil
	case u.made == 0 && !strings.HasPrefix(h.Name, partPrefix):
		return ErrNoArchive
	case h.Name != sealedSums:
		return fmt.Errorf("%w: its parts are not in order", ErrDamaged)
	}
	u.ended = true
	switch _, err := u.tar.Next(); {
	case err == nil:
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	case !errors.Is(err, io.EOF):
		return unwrapped(err)
	}
	return nil
}

// unwrapped gives an error of the wrapping the words of archives.
func unwrapped(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return err
}
