package audit

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	hashesName      = "hashes"
	checkpointsName = "checkpoints"
	reserveName     = "reserve"
	lockName        = "lock"

	segmentPrefix = "audit-"
	segmentSuffix = ".log"
	partSuffix    = ".part" // a segment that was never put in place

	// maxLine bounds an entry's line; longer ones are refused when written.
	maxLine = 1 << 20
)

// segmentName names segment n, counted from 1.
func segmentName(n int) string { return fmt.Sprintf("%s%08d%s", segmentPrefix, n, segmentSuffix) }

// segmentNumber is the inverse of segmentName.
func segmentNumber(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, segmentPrefix)
	if !ok {
		return 0, false
	}
	if digits, ok = strings.CutSuffix(digits, segmentSuffix); !ok {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n > 0 && segmentName(n) == name
}

// segments returns the numbers of the segments in dir, ascending. A number
// that is missing between 1 and the last is an error that names it.
func segments(dir string) ([]int, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, f := range files {
		if n, ok := segmentNumber(f.Name()); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != i+1 {
			return numbers, fmt.Errorf("%w: %s is missing", ErrDamaged, filepath.Join(dir, segmentName(i+1)))
		}
	}
	return numbers, nil
}

// appendHeader appends a segment's first line. It follows from the log alone,
// so that a verifier can tell what it must be.
func appendHeader(b []byte, origin string, segment int, before uint64, root tlog.Hash) []byte {
	b = append(b, `{"coffer_audit":1,"origin":`...)
	b = appendString(b, origin)
	b = append(b, `,"segment":`...)
	b = strconv.AppendInt(b, int64(segment), 10)
	b = append(b, `,"first_seq":`...)
	b = strconv.AppendUint(b, before+1, 10)
	b = append(b, `,"previous_root":"`...)
	b = base64.StdEncoding.AppendEncode(b, root[:])
	return append(b, "\"}\n"...)
}

// headerParts returns the numbers in a header line. The caller makes the line
// again from them and compares, which proves the rest.
func headerParts(line []byte) (origin string, segment int, before uint64, root tlog.Hash, err error) {
	var h struct {
		Format  int    `json:"coffer_audit"`
		Origin  string `json:"origin"`
		Segment int    `json:"segment"`
		First   uint64 `json:"first_seq"`
		Root    []byte `json:"previous_root"`
	}
	if err := decodeStrict(line, &h); err != nil || h.Format != 1 || h.First == 0 || len(h.Root) != tlog.HashSize {
		return "", 0, 0, root, errors.New("not the header of an audit segment")
	}
	copy(root[:], h.Root)
	return h.Origin, h.Segment, h.First - 1, root, nil
}

// lineReader reads a segment line by line and knows where it is.
type lineReader struct {
	r    *bufio.Reader
	long []byte // a line that does not fit into r's buffer
	off  int64  // where the next line starts
	line int    // number of the line last returned, from 1
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 16<<10)}
}

var (
	errTorn     = errors.New("the line has no end")
	errLongLine = errors.New("the line is longer than an entry may be")
)

// next returns the next line without its newline, valid until the next call.
// At the end it returns io.EOF, and errTorn with what is left when the last
// line has no newline.
func (l *lineReader) next() ([]byte, error) {
	b, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = l.long[:0]
		for errors.Is(err, bufio.ErrBufferFull) && len(l.long) <= maxLine {
			l.long = append(l.long, b...)
			b, err = l.r.ReadSlice('\n')
		}
		l.long = append(l.long, b...)
		b = l.long
	}
	switch {
	case len(b) > maxLine:
		l.line++
		return b, errLongLine
	case err == nil:
		l.off += int64(len(b))
		l.line++
		return b[:len(b)-1], nil
	case errors.Is(err, io.EOF) && len(b) > 0:
		l.line++
		return b, errTorn
	}
	return nil, err
}

// lineSeq returns the number that an entry line starts with.
func lineSeq(line []byte) (uint64, bool) {
	if len(line) <= len(linePrefix) || string(line[:len(linePrefix)]) != linePrefix {
		return 0, false
	}
	var n uint64
	digits := line[len(linePrefix):]
	for i, c := range digits {
		if c == ',' {
			return n, i > 0
		}
		if c < '0' || c > '9' || n == 0 && i > 0 || n > 1<<60 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return 0, false
}
