package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	lsm "github.com/cockroachdb/pebble/v2"

	"github.com/cofferhq/coffer/internal/storage"
)

// The key space: the engine's own rows, and the users' keys behind a byte.
const (
	userSpace    = "\x01"
	userSpaceEnd = "\x02"
)

// revisionKey holds the newest commit's revision, 8 bytes big endian. Every
// commit writes it in its own batch.
var revisionKey = []byte("\x00revision")

var errOutside = errors.New("storage reader used after its View or Update ended")

// source is a snapshot or an indexed batch.
type source interface {
	Get(key []byte) ([]byte, io.Closer, error)
	NewIter(*lsm.IterOptions) (*lsm.Iterator, error)
}

// reader implements storage.Reader and remembers what its View or Update must
// wait for.
type reader struct {
	e       *Engine
	ctx     context.Context
	src     source // nil when the View or Update has ended
	touched *flight
	key     [128]byte // where Get makes most keys
}

// usable returns an error when the reader must not be read any more.
func (r *reader) usable() error {
	if r.src == nil {
		return errOutside
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	return r.e.stopped()
}

// Revision counts as a read: a revision that a power cut takes back would be
// given to another commit afterwards.
func (r *reader) Revision() storage.Revision {
	if r.src == nil {
		return 0
	}
	rev, err := readRevision(r.src)
	if err != nil {
		r.e.fail("the revision row cannot be read", err)
		return 0
	}
	r.touched = later(r.touched, r.e.flights.any())
	return rev
}

func readRevision(src source) (storage.Revision, error) {
	value, closer, err := src.Get(revisionKey)
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	if len(value) != 8 {
		return 0, fmt.Errorf("revision row has %d bytes", len(value))
	}
	return storage.Revision(binary.BigEndian.Uint64(value)), nil
}

func (r *reader) Get(key string) ([]byte, error) {
	if err := r.usable(); err != nil {
		return nil, err
	}
	stored := append(append(r.key[:0], userSpace...), key...)
	value, closer, err := r.src.Get(stored)
	r.touched = later(r.touched, r.e.flights.writing(key)) // after the read; see flights
	if errors.Is(err, lsm.ErrNotFound) {
		return nil, storage.ErrNotFound
	}
	if err != nil {
		return nil, r.e.readError(err)
	}
	own := make([]byte, len(value))
	copy(own, value)
	return own, closer.Close()
}

func (r *reader) Scan(prefix, after string, limit int) ([]storage.Entry, error) {
	if limit < 1 {
		return nil, fmt.Errorf("scan of %q with limit %d: the limit must be at least 1", prefix, limit)
	}
	from := userSpace + prefix
	if after != "" && after >= prefix {
		from = userSpace + after + "\x00"
	}
	if from >= string(endOf(userSpace+prefix)) {
		return nil, r.usable()
	}
	it, err := r.iterate(from, prefix)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var entries []storage.Entry
	for ok := it.SeekGE([]byte(from)); ok && len(entries) < limit; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, r.e.readError(err)
		}
		entries = append(entries, storage.Entry{
			Key:   string(it.Key()[len(userSpace):]),
			Value: append([]byte{}, value...),
		})
	}
	through := ""
	if len(entries) == limit {
		through = entries[limit-1].Key
	}
	r.touched = later(r.touched, r.e.flights.writingRange(prefix, after, through))
	if err := it.Error(); err != nil {
		return nil, r.e.readError(err)
	}
	return entries, nil
}

// List seeks from name to name: past "a/" the next key to look at is the first
// that is not below it.
func (r *reader) List(prefix, after string, limit int) ([]string, error) {
	if limit < 1 {
		return nil, fmt.Errorf("list of %q with limit %d: the limit must be at least 1", prefix, limit)
	}
	// Also skips the key that is the prefix itself: it has no name below it.
	from := pastName(prefix, after)
	it, err := r.iterate(from, prefix)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var names []string
	ok := it.SeekGE([]byte(from))
	for ok && len(names) < limit {
		name := string(it.Key()[len(userSpace)+len(prefix):])
		if i := strings.IndexByte(name, '/'); i >= 0 {
			name = name[:i+1]
			ok = it.SeekGE([]byte(pastName(prefix, name)))
		} else {
			ok = it.Next()
		}
		names = append(names, name)
	}
	through := ""
	if len(names) == limit {
		// Everything below the last name matters to it, and nothing after.
		through = pastName(prefix, names[limit-1])[len(userSpace):]
	}
	r.touched = later(r.touched, r.e.flights.writingRange(prefix, "", through))
	if err := it.Error(); err != nil {
		return nil, r.e.readError(err)
	}
	return names, nil
}

// pastName returns the first stored key that can have a name after name.
func pastName(prefix, name string) string {
	if i := strings.IndexByte(name, '/'); i >= 0 {
		return userSpace + prefix + name[:i] + string(byte('/'+1))
	}
	return userSpace + prefix + name + "\x00"
}

// iterate returns an iterator over the stored keys from from to the end of prefix.
func (r *reader) iterate(from, prefix string) (*lsm.Iterator, error) {
	if err := r.usable(); err != nil {
		return nil, err
	}
	it, err := r.src.NewIter(&lsm.IterOptions{LowerBound: []byte(from), UpperBound: endOf(userSpace + prefix)})
	if err != nil {
		return nil, r.e.readError(err)
	}
	return it, nil
}

// endOf returns the first key after all that start with prefix. The first byte
// is never 0xff.
func endOf(prefix string) []byte {
	end := []byte(prefix)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}

// txn implements storage.Txn on an indexed batch.
type txn struct {
	reader
	batch  *lsm.Batch
	writes storage.Writes
}

func (t *txn) Put(key string, value []byte) error {
	if err := t.usable(); err != nil {
		return err
	}
	if err := t.writes.Put(key, value); err != nil {
		return err
	}
	return t.batch.Set([]byte(userSpace+key), value, nil)
}

func (t *txn) Delete(key string) error {
	if err := t.usable(); err != nil {
		return err
	}
	if err := t.writes.Delete(key); err != nil {
		return err
	}
	return t.batch.Delete([]byte(userSpace+key), nil)
}
