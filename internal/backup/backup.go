// Package backup makes archives of a store while it serves, proves them, and
// restores them into an empty store of any engine. It also makes them on a
// schedule and removes old ones.
//
// It is not for single secrets, whose versions package engine/kv keeps, nor for
// the audit log, which is files of its own. It holds no root key longer than
// the work at hand.
//
// # What an archive is
//
// An archive holds every row of one snapshot as it lies in the engine, below the
// barrier: values are ciphertext already. Rows are encrypted once more, with
// their keys, under a key of this one archive; that key is wrapped by the root
// keyset, and the root keyset, as the seals of that day wrap it, is in the
// archive's header. So any seal that opened the store on that day opens the
// archive, nothing else does, and keys and paths show to nobody else. It says
// nothing about the engine: what was written from one is restored into another.
//
// # Format 1
//
// Numbers are big endian.
//
//	"coffer backup 1\n"
//	uint32, header     JSON, see Header
//	uint32, key        the archive's key (AES-256-GCM), wrapped by the root keyset
//	                   (Tink), bound to the SHA-256 of all that stands before it
//	frames
//
// A frame is a byte for its kind, a uint32 with the length of its body, a uint32
// with the number of rows in it, and the body:
//
//	'R'  rows: for each a uvarint length, the key, a uvarint length, the value
//	'T'  trailer, once, behind the rows: JSON, see trailer
//	'E'  end: the SHA-256 of everything before these 32 bytes, in clear
//
// The bodies of 'R' and 'T' are encrypted by the archive's key (12 bytes nonce,
// ciphertext, 16 bytes tag). Their associated data are the SHA-256 of all that
// stands before the frames, the frame's number from 0 as a uint64, and the
// frame's own first nine bytes: no frame can be changed, moved, dropped, added,
// or taken from another archive. Rows come in key order, each key once. Nothing
// is compressed: ciphertext does not get smaller.
//
// How many rows there are, and how large they are together, shows from outside.
package backup

import (
	"errors"
	"fmt"
	"time"

	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/storage"
)

const (
	magic      = "coffer backup 1\n"
	magicStart = "coffer backup " // of every format

	maxHeader = 1 << 20   // bytes of the header, and of the wrapped key
	chunkSize = 512 << 10 // a frame of rows is closed when it holds so much
	maxFrame  = chunkSize + storage.MaxKeyBytes + storage.MaxUpdateBytes + 1<<10

	frameHead = 1 + 4 + 4
	sumSize   = 32

	kindRows    = 'R'
	kindTrailer = 'T'
	kindEnd     = 'E'
)

// Errors of archives. They come wrapped with what was met.
var (
	ErrNoArchive = errors.New("this is not a Coffer backup")
	ErrFormat    = errors.New("the archive has a format that this program does not know; use the version of Coffer that wrote it, or a newer one")
	ErrCut       = errors.New("the archive is cut short")
	ErrDamaged   = errors.New("the archive is damaged or was changed")
	ErrForeign   = errors.New("none of the configured seals opens the archive")
	ErrNotEmpty  = errors.New("the store is not empty")
	ErrOvertaken = errors.New("another restore into the same store has begun meanwhile")
	ErrAnother   = errors.New("the archive is not the one that was verified: it was changed meanwhile")
)

// Header stands in clear at the beginning of an archive.
type Header struct {
	Created  time.Time        `json:"created"`  // when the snapshot was taken
	Coffer   string           `json:"coffer"`   // version of the server that wrote it
	Engine   string           `json:"engine"`   // kind of the storage engine that it was read from
	Revision storage.Revision `json:"revision"` // of that engine
	Seals    seal.Record      `json:"seals"`    // the wrapped root keyset
}

// Source names where an archive comes from.
type Source struct {
	Coffer string // version of the server
	Engine string // kind of its storage engine
}

// Summary is what an archive came to.
type Summary struct {
	Header   Header
	Rows     uint64
	RowBytes uint64 // keys and values
	Bytes    uint64 // of the archive
	SHA256   string // of the whole archive in hex, as sha256sum prints it
}

// trailer closes the rows.
type trailer struct {
	Rows   uint64 `json:"rows"`
	Bytes  uint64 `json:"bytes"` // keys and values
	Frames uint64 `json:"frames"`
	SHA256 []byte `json:"sha256"` // of the archive up to the trailer's frame
}

// Progress is how far a long work is.
type Progress struct {
	Bytes uint64 // of the archive
	Rows  uint64
}

// Watcher is told of progress; it must be quick. Nil is nobody.
type Watcher func(Progress)

func (w Watcher) say(p Progress) {
	if w != nil {
		w(p)
	}
}

// Fingerprint is a short name of a store, for people to compare.
func Fingerprint(rec *seal.Record) string {
	if len(rec.Store) < 8 {
		return rec.Store
	}
	return rec.Store[:8]
}

// sealNames lists the seals of a record for people.
func sealNames(rec *seal.Record) string {
	text := ""
	for i, s := range rec.Seals {
		if i > 0 {
			text += ", "
		}
		text += s.Kind
		if s.Name != s.Kind {
			text += fmt.Sprintf(" %q", s.Name)
		}
	}
	return text
}
