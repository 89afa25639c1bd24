package backup

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/storage"
)

// Rows are read a page at a time: as many as pageBytes should hold, going by the
// page before. Where small rows are followed by the largest there can be, one page
// holds 36 MiB.
const (
	pageRows  = 32
	pageBytes = 1 << 20
)

// keySize is the length of an archive's key.
const keySize = 32

// errNotWhole says that a store has nothing yet that is worth an archive.
var errNotWhole = errors.New("the store is not initialized to the end; there is nothing to back up yet")

// Write writes an archive of the open store to w. It reads one snapshot, which
// is held until w has taken everything: a slow w holds up no writer, only the
// engine's cleaning up. It ends with an error when the barrier is shut.
func Write(ctx context.Context, b *barrier.Barrier, from Source, w io.Writer, watch Watcher) (Summary, error) {
	var sum Summary
	err := b.Archive(ctx, func(ctx context.Context, r storage.Reader, wrap barrier.Wrap) error {
		rec, err := seal.Load(r)
		if err != nil {
			return err
		}
		if rec.Pending {
			return errNotWhole
		}
		sum = Summary{Header: Header{
			Created: time.Now().UTC().Truncate(time.Second), Coffer: from.Coffer, Engine: from.Engine,
			Revision: r.Revision(), Seals: *rec,
		}}
		out := &writer{out: w, sum: &sum, hash: sha256.New(), watch: watch}
		if err := out.begin(wrap); err != nil {
			return err
		}
		if err := eachRow(ctx, r, out.row); err != nil {
			return err
		}
		return out.end()
	})
	return sum, err
}

// eachRow calls fn for every row, a page at a time.
func eachRow(ctx context.Context, r storage.Reader, fn func(storage.Entry) error) error {
	limit := pageRows
	for after := ""; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows, err := r.Scan("", after, limit)
		if err != nil {
			return err
		}
		size := 1
		for _, e := range rows {
			size += len(e.Key) + len(e.Value)
			if err := fn(e); err != nil {
				return err
			}
		}
		if len(rows) < limit {
			return nil
		}
		after = rows[len(rows)-1].Key
		limit = max(1, min(pageRows, pageBytes/(size/len(rows)+1)))
	}
}

// writer writes one archive.
type writer struct {
	out   io.Writer
	sum   *Summary
	hash  hash.Hash // of everything written
	watch Watcher

	aead   cipher.AEAD
	bound  [sumSize]byte // SHA-256 of all before the frames
	frames uint64
	chunk  []byte // rows of the frame to come
	rows   uint32
	framed []byte // the frame that is written
}

func (w *writer) write(b []byte) error {
	w.hash.Write(b)
	w.sum.Bytes += uint64(len(b))
	_, err := w.out.Write(b)
	return err
}

// begin writes what stands before the frames.
func (w *writer) begin(wrap barrier.Wrap) error {
	header, err := json.Marshal(w.sum.Header)
	if err != nil {
		return err
	}
	head := append([]byte(magic), sized(header)...)
	bound := sha256.Sum256(head)
	key := make([]byte, keySize)
	rand.Read(key)
	defer clear(key)
	wrapped, err := wrap(key, bound[:])
	if err != nil {
		return err
	}
	if w.aead, err = newAEAD(key); err != nil {
		return err
	}
	head = append(head, sized(wrapped)...)
	w.bound = sha256.Sum256(head)
	return w.write(head)
}

// sized puts a length before b.
func sized(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func (w *writer) row(e storage.Entry) error {
	w.chunk = binary.AppendUvarint(w.chunk, uint64(len(e.Key)))
	w.chunk = append(w.chunk, e.Key...)
	w.chunk = binary.AppendUvarint(w.chunk, uint64(len(e.Value)))
	w.chunk = append(w.chunk, e.Value...)
	w.rows++
	w.sum.Rows++
	w.sum.RowBytes += uint64(len(e.Key) + len(e.Value))
	if len(w.chunk) < chunkSize {
		return nil
	}
	return w.flush()
}

// flush writes the rows that wait.
func (w *writer) flush() error {
	if w.rows == 0 {
		return nil
	}
	err := w.frame(kindRows, w.rows, w.chunk)
	w.chunk, w.rows = w.chunk[:0], 0
	w.watch.say(Progress{Bytes: w.sum.Bytes, Rows: w.sum.Rows})
	return err
}

// Lengths of AES-GCM: a random nonce, which no archive has enough frames to see
// twice, and a tag.
const (
	nonceSize = 12
	overhead  = nonceSize + 16 // how many bytes a body grows by encryption
)

// newAEAD returns the AES-256-GCM of an archive's key.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// frame writes one frame. It keeps one buffer for all of them: what a backup of
// a large store leaves behind would make the server's memory grow.
func (w *writer) frame(kind byte, rows uint32, plain []byte) error {
	head := headOf(kind, len(plain)+overhead, rows)
	if w.framed == nil {
		w.framed = make([]byte, 0, frameHead+overhead+chunkSize*5/4)
	}
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	out := append(append(w.framed[:0], head[:]...), nonce[:]...)
	w.framed = w.aead.Seal(out, nonce[:], plain, binding(w.bound, w.frames, head))
	w.frames++
	return w.write(w.framed)
}

func headOf(kind byte, length int, rows uint32) (head [frameHead]byte) {
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(length))
	binary.BigEndian.PutUint32(head[5:], rows)
	return head
}

// binding is the associated data of a frame.
func binding(bound [sumSize]byte, number uint64, head [frameHead]byte) []byte {
	out := binary.BigEndian.AppendUint64(bound[:sumSize:sumSize], number)
	return append(out, head[:]...)
}

// end writes the trailer and the checksum. Both leave in one piece at the very
// end, so that whoever holds back the last bytes holds back what makes the
// archive one.
func (w *writer) end() error {
	if err := w.flush(); err != nil {
		return err
	}
	last, err := json.Marshal(trailer{Rows: w.sum.Rows, Bytes: w.sum.RowBytes, Frames: w.frames, SHA256: w.hash.Sum(nil)})
	if err != nil {
		return err
	}
	if err := w.frame(kindTrailer, 0, last); err != nil {
		return err
	}
	head := headOf(kindEnd, sumSize, 0)
	w.hash.Write(head[:])
	sum := w.hash.Sum(nil)
	w.hash.Write(sum)
	w.sum.SHA256 = hex.EncodeToString(w.hash.Sum(nil))
	w.sum.Bytes += frameHead + sumSize
	if _, err := w.out.Write(append(head[:], sum...)); err != nil {
		return err
	}
	w.watch.say(Progress{Bytes: w.sum.Bytes, Rows: w.sum.Rows})
	return nil
}
