package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"time"
)

// ReadOptions say which entries Read yields.
type ReadOptions struct {
	From   uint64            // the first entry; 0 and 1 mean the beginning
	Filter func(*Entry) bool // yields only entries that it accepts; nil accepts all
	Follow bool              // goes on with new entries until the context ends
}

// followEvery is how often a followed log is looked at for new entries.
const followEvery = 100 * time.Millisecond

// Read yields the entries in dir in their order, while the log is written or
// not. It reads what stands there and proves nothing; see Verify. An error
// ends it.
func Read(ctx context.Context, dir string, o ReadOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := reader{dir: dir, options: o, next: max(o.From, 1)}
		defer r.close()
		for {
			e, err := r.entry(ctx)
			if errors.Is(err, io.EOF) || err != nil && ctx.Err() != nil {
				return
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if (o.Filter == nil || o.Filter(&e)) && !yield(e, nil) {
				return
			}
		}
	}
}

// Holds reports whether a directory has segments of a log.
func Holds(dir string) bool {
	numbers, err := segments(dir)
	return len(numbers) > 0 || errors.Is(err, ErrDamaged)
}

// Newest returns the Seq of the last entry that stands in dir, 0 when there is
// none. Like Read it proves nothing.
func Newest(dir string) (uint64, error) {
	n, err := segmentOf(dir, math.MaxUint64)
	if err != nil {
		return 0, err
	}
	h, err := headerOf(filepath.Join(dir, segmentName(n)), n)
	if err != nil {
		return 0, err
	}
	r := reader{dir: dir, segment: n}
	defer r.close()
	newest := h.before
	for {
		line, err := r.line(context.Background())
		if errors.Is(err, io.EOF) {
			return newest, nil
		}
		if err != nil {
			return 0, err
		}
		seq, ok := lineSeq(line)
		if !ok {
			return 0, fmt.Errorf("%w: %s:%d is not an entry", ErrDamaged, r.path, r.lines.line)
		}
		newest = max(newest, seq)
	}
}

// line returns the next entry line, valid until the next call.
func (r *reader) line(ctx context.Context) ([]byte, error) {
	for {
		if r.file == nil {
			if err := r.open(); err != nil {
				return nil, err
			}
		}
		// Looked for before reading: when the next segment stands, this one
		// gets no more lines.
		_, err := os.Lstat(filepath.Join(r.dir, segmentName(r.segment+1)))
		ended := err == nil
		line, err := r.lines.next()
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, errTorn) {
			return nil, fmt.Errorf("%s:%d: %w", r.path, r.lines.line, err)
		}
		if ended {
			r.close()
			r.segment++
			continue
		}
		if !r.options.Follow {
			return nil, io.EOF
		}
		if err := r.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// reader walks over the segments.
type reader struct {
	dir     string
	options ReadOptions
	next    uint64 // the entry that comes next

	segment int // 0 before the first is chosen
	path    string
	file    *os.File
	lines   *lineReader
}

// entry returns the next entry from r.next on.
func (r *reader) entry(ctx context.Context) (Entry, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Entry{}, err
		}
		line, err := r.line(ctx)
		if err != nil {
			return Entry{}, err
		}
		seq, ok := lineSeq(line)
		if !ok {
			return Entry{}, fmt.Errorf("%w: %s:%d is not an entry", ErrDamaged, r.path, r.lines.line)
		}
		if seq < r.next {
			continue
		}
		e, err := decodeEntry(line)
		if err != nil {
			return e, fmt.Errorf("%w: %s:%d: %w", ErrDamaged, r.path, r.lines.line, err)
		}
		r.next = seq + 1
		return e, nil
	}
}

// open opens the segment that holds r.next, or the one after the last.
func (r *reader) open() error {
	if r.segment == 0 {
		n, err := segmentOf(r.dir, r.next)
		if err != nil {
			return err
		}
		r.segment = n
	}
	r.path = filepath.Join(r.dir, segmentName(r.segment))
	f, err := os.Open(r.path)
	if err != nil {
		return err
	}
	r.file, r.lines = f, newLineReader(f)
	if _, err := readHeader(r.lines, "", r.segment); err != nil {
		return fmt.Errorf("%s: %w", r.path, err)
	}
	return nil
}

// segmentOf returns the number of the last segment that begins at or before
// an entry.
func segmentOf(dir string, seq uint64) (int, error) {
	numbers, err := segments(dir)
	if err != nil {
		return 0, err
	}
	if len(numbers) == 0 {
		return 0, fmt.Errorf("%s has no audit segments: %w", dir, os.ErrNotExist)
	}
	low, high := 1, len(numbers)
	for low < high {
		mid := (low + high + 1) / 2
		h, err := headerOf(filepath.Join(dir, segmentName(mid)), mid)
		if err != nil {
			return 0, err
		}
		if h.before < seq {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low, nil
}

func headerOf(path string, n int) (segmentHeader, error) {
	f, err := os.Open(path)
	if err != nil {
		return segmentHeader{}, err
	}
	defer f.Close()
	h, err := readHeader(newLineReader(f), "", n)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return h, err
}

// wait waits for more and goes back to where the next line starts.
func (r *reader) wait(ctx context.Context) error {
	timer := time.NewTimer(followEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	off, line := r.lines.off, r.lines.line
	if _, err := r.file.Seek(off, io.SeekStart); err != nil {
		return err
	}
	r.lines = newLineReader(r.file)
	r.lines.off, r.lines.line = off, line
	return nil
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}
