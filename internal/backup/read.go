package backup

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/storage"
)

// Archive is an archive that is read from its beginning to its end.
type Archive struct {
	Header Header

	in      *bufio.Reader
	hash    hash.Hash // of everything read
	sum     Summary
	watch   Watcher
	key     []byte        // the archive's key, wrapped
	keyed   [sumSize]byte // what that is bound to
	bound   [sumSize]byte // what the frames are bound to
	aead    cipher.AEAD   // nil while the archive is locked
	frames  uint64
	trailer trailer
	last    string // key of the row before
	body    []byte
}

// Open reads the beginning of an archive, also of one in the wrapping that
// Vault's clients are given (see Snapshot).
func Open(r io.Reader, watch Watcher) (*Archive, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if start, _ := in.Peek(2); bytes.Equal(start, gzipMagic) {
		in = bufio.NewReaderSize(newUnsnapshot(in), 64<<10)
	}
	a := &Archive{in: in, hash: sha256.New(), watch: watch}
	if err := a.readMagic(); err != nil {
		return nil, err
	}
	header, err := a.sized("header")
	if err != nil {
		return nil, err
	}
	copy(a.keyed[:], a.hash.Sum(nil))
	if err := json.Unmarshal(header, &a.Header); err != nil {
		return nil, fmt.Errorf("%w: its header cannot be read", ErrDamaged)
	}
	if a.key, err = a.sized("key"); err != nil {
		return nil, err
	}
	copy(a.bound[:], a.hash.Sum(nil))
	a.sum.Header = a.Header
	return a, nil
}

func (a *Archive) readMagic() error {
	start := make([]byte, len(magic))
	n, err := io.ReadFull(a.in, start)
	switch text := string(start[:n]); {
	case n == 0 && errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it is empty", ErrCut)
	case err != nil && strings.HasPrefix(magic, text) && ended(err):
		return fmt.Errorf("%w after %d bytes", ErrCut, n)
	case err != nil && !ended(err):
		return a.failed(err)
	case text == magic:
	case strings.HasPrefix(text, magicStart):
		return ErrFormat
	default:
		return ErrNoArchive
	}
	a.took(start)
	return nil
}

// ended reports whether an error of a read says that there is no more.
func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func (a *Archive) took(b []byte) {
	a.hash.Write(b)
	a.sum.Bytes += uint64(len(b))
}

// read reads exactly len(b) bytes.
func (a *Archive) read(b []byte) error {
	if n, err := io.ReadFull(a.in, b); err != nil {
		a.sum.Bytes += uint64(n)
		return a.failed(err)
	}
	a.took(b)
	return nil
}

func (a *Archive) failed(err error) error {
	if ended(err) {
		return fmt.Errorf("%w: it ends after %d bytes and %d rows", ErrCut, a.sum.Bytes, a.sum.Rows)
	}
	return fmt.Errorf("read the archive: %w", err)
}

// sized reads a part with its length before it.
func (a *Archive) sized(what string) ([]byte, error) {
	var length [4]byte
	if err := a.read(length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > maxHeader {
		return nil, fmt.Errorf("%w: the length of its %s cannot be", ErrDamaged, what)
	}
	b := make([]byte, n)
	return b, a.read(b)
}

// Unlock opens the archive with the root keyset of its store.
func (a *Archive) Unlock(v *barrier.Verifier) error {
	key, err := v.Unwrap(a.key, a.keyed[:])
	if err != nil {
		return fmt.Errorf("%w: the root key that its seal opens does not open its key: its header was changed", ErrDamaged)
	}
	defer clear(key)
	if a.aead, err = newAEAD(key); err != nil {
		return fmt.Errorf("%w: its key is none", ErrDamaged)
	}
	return nil
}

// Each reads the archive to its end. Once it is unlocked it calls fn for every
// row, in key order, with slices that are fn's own; a locked one is only held
// against its checksum. What fn was given is proven to be this archive's, but
// not to be all of it until Each returns nil.
func (a *Archive) Each(fn func(storage.Entry) error) (Summary, error) {
	for done := false; !done; {
		kind, rows, body, err := a.frame()
		if err != nil {
			return a.sum, err
		}
		if done = kind == kindTrailer; !done {
			a.sum.Rows += uint64(rows)
		}
		if a.aead != nil {
			if err := a.open(kind, rows, body, fn); err != nil {
				return a.sum, err
			}
		}
		a.frames++
		a.watch.say(Progress{Bytes: a.sum.Bytes, Rows: a.sum.Rows})
	}
	return a.sum, a.finish()
}

// frame reads the next frame of rows, or the trailer. The body is valid until
// the next call.
func (a *Archive) frame() (kind byte, rows uint32, body []byte, err error) {
	if a.aead != nil {
		a.trailer.SHA256 = a.hash.Sum(a.trailer.SHA256[:0])
	}
	var head [frameHead]byte
	if err := a.read(head[:]); err != nil {
		return 0, 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	kind, rows = head[0], binary.BigEndian.Uint32(head[5:])
	if kind != kindRows && kind != kindTrailer || length < overhead || length > maxFrame || (kind == kindRows) != (rows > 0) {
		return 0, 0, nil, fmt.Errorf("%w: at byte %d", ErrDamaged, a.sum.Bytes-frameHead)
	}
	if cap(a.body) < int(length) {
		a.body = make([]byte, length, max(int(length), chunkSize*5/4))
	}
	body = a.body[:length]
	return kind, rows, body, a.read(body)
}

// open decrypts a frame.
func (a *Archive) open(kind byte, rows uint32, body []byte, fn func(storage.Entry) error) error {
	at := a.sum.Bytes - uint64(len(body)) - frameHead
	plain, err := a.aead.Open(nil, body[:nonceSize], body[nonceSize:], binding(a.bound, a.frames, headOf(kind, len(body), rows)))
	if err != nil {
		return fmt.Errorf("%w: at byte %d", ErrDamaged, at)
	}
	if kind == kindTrailer {
		return a.close(plain)
	}
	for range rows {
		key, rest, ok := cut(plain)
		value, rest, ok2 := cut(rest)
		if !ok || !ok2 {
			return fmt.Errorf("%w: the rows at byte %d cannot be read", ErrDamaged, at)
		}
		plain = rest
		e := storage.Entry{Key: string(key), Value: value}
		if storage.CheckKey(e.Key) != nil || e.Key <= a.last || len(value) > storage.MaxUpdateBytes {
			return fmt.Errorf("%w: the rows at byte %d are not in order", ErrDamaged, at)
		}
		a.last = e.Key
		a.sum.RowBytes += uint64(len(key) + len(value))
		if err := fn(e); err != nil {
			return err
		}
	}
	if len(plain) > 0 {
		return fmt.Errorf("%w: more rows at byte %d than were counted", ErrDamaged, at)
	}
	return nil
}

// cut takes a part with its length before it off b.
func cut(b []byte) (part, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	b = b[size:]
	return b[:n:n], b[n:], true
}

// close holds what was read against the trailer.
func (a *Archive) close(plain []byte) error {
	want := trailer{Rows: a.sum.Rows, Bytes: a.sum.RowBytes, Frames: a.frames, SHA256: a.trailer.SHA256}
	var got trailer
	if err := json.Unmarshal(plain, &got); err != nil || got.Rows != want.Rows || got.Bytes != want.Bytes ||
		got.Frames != want.Frames || !bytes.Equal(got.SHA256, want.SHA256) {
		return fmt.Errorf("%w: it does not hold what its trailer says", ErrDamaged)
	}
	return nil
}

// finish reads the checksum and makes sure that nothing follows.
func (a *Archive) finish() error {
	var head [frameHead]byte
	if err := a.read(head[:]); err != nil {
		return err
	}
	sum := a.hash.Sum(nil)
	var stored [sumSize]byte
	if err := a.read(stored[:]); err != nil {
		return err
	}
	if head != headOf(kindEnd, sumSize, 0) || !bytes.Equal(sum, stored[:]) {
		return fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	switch _, err := a.in.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	case !errors.Is(err, io.EOF):
		return a.failed(err)
	}
	a.sum.SHA256 = hex.EncodeToString(a.hash.Sum(nil))
	a.watch.say(Progress{Bytes: a.sum.Bytes, Rows: a.sum.Rows})
	return nil
}
