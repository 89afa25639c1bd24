package kv

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// The rows of a mount. A secret's versions lie under its id and not its path,
// so that a deleted secret's versions can be cleared away while a new secret
// takes the path.
//
//	config           settings of the mount, JSON
//	m/PATH           metadata of a secret and the small facts of its versions
//	v/ID/NUMBER      one version's fingerprint and data
//	s/ID             when and by whom the secret was last read
//	d/TIME/ID/NUMBER a version to destroy at TIME; the value is the path
//	t/ID/NUMBER      versions to clear away; the value lists their numbers
const (
	configKey   = "config"
	metaPrefix  = "m/"
	dataPrefix  = "v/"
	seenPrefix  = "s/"
	duePrefix   = "d/"
	trashPrefix = "t/"
)

func metaKey(path string) string { return metaPrefix + path }

func dataKey(id string, number uint64) string {
	var digits [16]byte
	return dataPrefix + id + "/" + string(appendHex(digits[:0], number))
}

func dueKey(at time.Time, id string, number uint64) string {
	b := appendHex([]byte(duePrefix), uint64(max(at.Unix(), 0)))
	b = append(append(append(b, '/'), id...), '/')
	return string(appendHex(b, number))
}

// parseDue takes a due row's key apart.
func parseDue(key string) (at time.Time, id string, number uint64, err error) {
	parts := strings.Split(strings.TrimPrefix(key, duePrefix), "/")
	if len(parts) != 3 {
		return at, "", 0, errCorrupt
	}
	seconds, err1 := strconv.ParseInt(parts[0], 16, 64)
	number, err2 := strconv.ParseUint(parts[2], 16, 64)
	return time.Unix(seconds, 0), parts[1], number, errors.Join(err1, err2)
}

func trashKey(id string, first uint64) string {
	return string(appendHex([]byte(trashPrefix+id+"/"), first))
}

// appendHex appends 16 digits, so that keys sort as their numbers do.
func appendHex(b []byte, n uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&15])
	}
	return b
}

// errCorrupt is returned for a row that this package did not write.
var errCorrupt = errors.New("kv: a stored row cannot be understood; restore it from a backup")

// rowFormat is the first byte of every binary row.
const rowFormat = 1

// writer appends the parts of a row.
type writer []byte

func (w *writer) uint(n uint64) { *w = binary.AppendUvarint(*w, n) }

func (w *writer) text(s string) {
	w.uint(uint64(len(s)))
	*w = append(*w, s...)
}

// time writes nanoseconds since 1970, 0 for the zero time.
func (w *writer) time(t time.Time) {
	if t.IsZero() {
		w.uint(0)
		return
	}
	w.uint(uint64(t.UnixNano()))
}

// parser takes a row apart; after an error it returns zero values.
type parser struct {
	rest []byte
	err  error
}

func (p *parser) uint() uint64 {
	n, size := binary.Uvarint(p.rest)
	if size <= 0 {
		p.rest, p.err = nil, errCorrupt
		return 0
	}
	p.rest = p.rest[size:]
	return n
}

func (p *parser) bytes() []byte {
	n := p.uint()
	if n > uint64(len(p.rest)) {
		p.rest, p.err = nil, errCorrupt
		return nil
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) text() string { return string(p.bytes()) }

func (p *parser) time() time.Time {
	n := p.uint()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

func parseRow(row []byte) parser {
	if len(row) == 0 || row[0] != rowFormat {
		return parser{err: errCorrupt}
	}
	return parser{rest: row[1:]}
}

// value is one version's row.
type value struct {
	fingerprint string
	by          string // who wrote it
	data        []byte // JSON text of the secret's object
}

func (v *value) row() []byte {
	w := make(writer, 0, len(v.data)+len(v.fingerprint)+len(v.by)+8)
	w = append(w, rowFormat)
	w.text(v.fingerprint)
	w.text(v.by)
	return append(w, v.data...)
}

// loadValue reads a version's row.
func loadValue(r getter, id string, number uint64) (value, error) {
	row, err := r.Get(dataKey(id, number))
	if err != nil {
		return value{}, err
	}
	p := parseRow(row)
	v := value{fingerprint: p.text()}
	p.bytes() // who wrote it, which no read asks for
	v.data = p.rest
	return v, p.err
}

// trash is the list of versions that are to be cleared away.
func trashRow(numbers []uint64) []byte {
	w := writer{rowFormat}
	w.uint(uint64(len(numbers)))
	for _, n := range numbers {
		w.uint(n)
	}
	return w
}

func parseTrash(row []byte) ([]uint64, error) {
	p := parseRow(row)
	count := p.uint()
	var numbers []uint64
	for range count {
		numbers = append(numbers, p.uint())
		if p.err != nil {
			return nil, p.err
		}
	}
	return numbers, p.err
}

// seen says when and by whom a secret was last read.
type seen struct {
	at         time.Time
	by         string
	deprecated uint64 // reads of deprecated versions, ever
}

func (s seen) row() []byte {
	w := writer{rowFormat}
	w.time(s.at)
	w.text(s.by)
	w.uint(s.deprecated)
	return w
}

func loadSeen(r storage.Reader, id string) (seen, error) {
	row, err := r.Get(seenPrefix + id)
	if errors.Is(err, storage.ErrNotFound) {
		return seen{}, nil
	}
	if err != nil {
		return seen{}, err
	}
	p := parseRow(row)
	s := seen{at: p.time(), by: p.text(), deprecated: p.uint()}
	return s, p.err
}

// chunk splits off what fits in one Update beside a few other rows.
func chunk(numbers []uint64) (now, later []uint64) {
	const most = storage.MaxUpdateKeys - 20
	if len(numbers) <= most {
		return numbers, nil
	}
	return numbers[:most], slices.Clone(numbers[most:])
}
