package audit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// VerifyOptions say what a log is verified against.
type VerifyOptions struct {
	// PublicKeys are the verifier keys of every signer the log has had, as
	// VerifierKey returns them. At least one is needed.
	PublicKeys []string
	// Checkpoints are signed checkpoints that were kept elsewhere. Only with
	// one of these does it show when the log was cut back together with its
	// own checkpoints file.
	Checkpoints []Checkpoint
	// Progress, when set, is told now and then how many entries were read.
	Progress func(entries uint64)
}

// Report is what Verify found.
type Report struct {
	Origin      string    // of the log
	Segments    int       // that were read
	Entries     uint64    // that follow each other without a gap from the first
	Checkpoints int       // with a good signature, the extra ones included
	Signed      uint64    // entries covered by the newest checkpoint that holds
	Unsigned    uint64    // entries after it: present, but proven by nothing
	Torn        int64     // bytes of an unfinished line at the very end: an entry being written, or a crash
	Problems    []Problem // in the order of the log; empty when it is intact
}

// Intact reports whether no problem was found. Unsigned and Torn may still
// say that the very end is not proven.
func (r Report) Intact() bool { return len(r.Problems) == 0 }

// Whole reports whether the log is intact and every entry is proven by a
// checkpoint. A log that was closed with its signer is whole; in one that is
// being written, or that died, the last second is not signed yet.
func (r Report) Whole() bool { return r.Intact() && r.Unsigned == 0 && r.Torn == 0 }

// FirstBad returns the first problem that names an entry.
func (r Report) FirstBad() (Problem, bool) {
	i := slices.IndexFunc(r.Problems, func(p Problem) bool { return p.Seq > 0 })
	if i < 0 {
		return Problem{}, false
	}
	return r.Problems[i], true
}

// Problem is one thing that is wrong.
type Problem struct {
	Seq  uint64 // the first entry concerned; 0 when it is not about entries
	File string // name in the log's directory
	Line int    // from 1; 0 when it is about the whole file
	Text string
}

func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Seq > 0 {
		return fmt.Sprintf("%s: entry %d: %s", where, p.Seq, p.Text)
	}
	return where + ": " + p.Text
}

// Verify reads a log from its files alone and proves it against its signed
// checkpoints. It may run while the log is written. Everything that is wrong
// with the log is in the report; the error is for what kept Verify from
// finding out. Entries are read up to the first that is wrong.
func Verify(dir string, o VerifyOptions) (Report, error) {
	v := verification{dir: dir, progress: o.Progress}
	for _, text := range o.PublicKeys {
		key, err := note.NewVerifier(text)
		if err != nil {
			return v.report, fmt.Errorf("public key %q: %w", text, err)
		}
		v.keys = append(v.keys, key)
	}
	if len(v.keys) == 0 {
		return v.report, errors.New("a public key is needed to verify an audit log")
	}
	// What is claimed is read before what is claimed about, so that a log
	// that grows meanwhile has at least what was claimed.
	if err := v.readCheckpoints(o.Checkpoints); err != nil {
		return v.report, err
	}
	if err := v.openHashes(); err != nil {
		return v.report, err
	}
	defer v.closeHashes()
	numbers, err := segments(dir)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return v.report, err
	}
	for i, n := range numbers {
		if n != i+1 {
			v.problem(Problem{Seq: v.tree.size + 1, File: segmentName(i + 1), Text: "the segment is missing"})
			break
		}
		ok, err := v.readSegment(n, i == len(numbers)-1)
		if err != nil {
			return v.report, err
		}
		if !ok {
			break
		}
	}
	v.conclude()
	return v.report, nil
}

// claim is a checkpoint whose signature is good.
type claim struct {
	Checkpoint
	file string
	line int
}

// progressStep is how many entries are read between two words of progress.
const progressStep = 4096

// verification is one run of Verify.
type verification struct {
	dir      string
	keys     []note.Verifier
	report   Report
	progress func(entries uint64) // nil where nobody asks

	claims  []claim // by size; the first ones are taken away as they are met
	tree    frontier
	hashes  []tlog.Hash // of the entry that was added last
	stored  io.Reader   // the stored hashes that come next
	store   *hashStore  // nil when there is none
	doubt   *Problem    // an entry differs from its stored hash; a checkpoint says which is right
	hole    uint64      // the first entry with a stored hash that a power cut took
	file    string      // the segment that is read
	line    int
	stopped bool // at the first problem with an entry
}

func (v *verification) problem(p Problem) {
	v.report.Problems = append(v.report.Problems, p)
	if p.Seq > 0 {
		v.stopped = true
	}
}

// readCheckpoints takes the log's own checkpoints and the extra ones.
func (v *verification) readCheckpoints(extra []Checkpoint) error {
	content, err := os.ReadFile(filepath.Join(v.dir, checkpointsName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	notes, rest := splitNotes(content)
	last := uint64(0)
	for _, n := range notes {
		c, err := ParseCheckpoint(n.note, v.keys...)
		switch {
		case err == nil && !bytes.Equal(n.note, canonicalNote(c, v.keys)):
			err = errors.New("checkpoint: the note is not written as it was signed")
		case err == nil && c.Size <= last:
			err = fmt.Errorf("checkpoint: its size %d does not follow %d", c.Size, last)
		}
		if err != nil {
			v.problem(Problem{File: checkpointsName, Line: n.line, Text: err.Error()})
			continue
		}
		last = c.Size
		v.claims = append(v.claims, claim{c, checkpointsName, n.line})
	}
	if len(rest) > 0 {
		line := 1 + bytes.Count(content[:len(content)-len(rest)], []byte("\n"))
		v.problem(Problem{File: checkpointsName, Line: line, Text: "checkpoint: it is not complete"})
	}
	for i, c := range extra {
		name := fmt.Sprintf("given checkpoint %d", i+1)
		read, err := ParseCheckpoint(c.Note, v.keys...)
		if err != nil {
			v.problem(Problem{File: name, Text: err.Error()})
			continue
		}
		v.claims = append(v.claims, claim{read, name, 0})
	}
	slices.SortStableFunc(v.claims, func(a, b claim) int {
		switch {
		case a.Size < b.Size:
			return -1
		case a.Size > b.Size:
			return 1
		}
		return 0
	})
	v.report.Checkpoints = len(v.claims)
	return nil
}

// canonicalNote writes a checkpoint's note again from what was read of it,
// with the one signature the log makes.
func canonicalNote(c Checkpoint, keys []note.Verifier) []byte {
	n, err := note.Open(c.Note, note.VerifierList(keys...))
	if err != nil || len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
		return nil
	}
	s := n.Sigs[0]
	raw, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(raw) < 4 {
		return nil
	}
	signed := binary.BigEndian.AppendUint32(nil, s.Hash)
	signed = append(signed, raw[4:]...)
	return fmt.Appendf(nil, "%s\n— %s %s\n", n.Text, s.Name, base64.StdEncoding.EncodeToString(signed))
}

func (v *verification) openHashes() error {
	store, err := readHashStore(filepath.Join(v.dir, hashesName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	v.store = store
	v.stored = bufio.NewReaderSize(io.NewSectionReader(store.file, 0, store.count*tlog.HashSize), 1<<16)
	return nil
}

func (v *verification) closeHashes() {
	if v.store != nil {
		v.store.file.Close()
	}
}

// readSegment reads segment n and reports whether the next may be read.
func (v *verification) readSegment(n int, last bool) (bool, error) {
	v.file = segmentName(n)
	f, err := os.Open(filepath.Join(v.dir, v.file))
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := newLineReader(f)
	h, err := readHeader(lines, v.report.Origin, n)
	if err != nil {
		v.problem(Problem{Seq: v.tree.size + 1, File: v.file, Line: 1, Text: err.Error()})
		return false, nil
	}
	if h.before != v.tree.size || h.root != v.tree.root() {
		v.line = 1
		v.outOfPlace(h)
		return false, nil
	}
	if n == 1 {
		if err := v.takeOrigin(f); err != nil {
			return false, err
		}
	}
	v.report.Segments++
	for !v.stopped {
		line, err := lines.next()
		v.line = lines.line
		switch {
		case errors.Is(err, io.EOF):
			return true, nil
		case errors.Is(err, errTorn) && last:
			v.report.Torn = int64(len(line))
			return true, nil
		case err != nil && !errors.Is(err, errTorn) && !errors.Is(err, errLongLine):
			return false, err
		case err != nil:
			v.wrong("%v", err)
		default:
			v.entry(line)
		}
	}
	return false, nil
}

// takeOrigin reads the log's name from its first segment.
func (v *verification) takeOrigin(f *os.File) error {
	line, err := newLineReader(io.NewSectionReader(f, 0, maxLine)).next()
	if err == nil {
		v.report.Origin, _, _, _, err = headerParts(line)
	}
	return err
}

// outOfPlace says why a segment cannot stand where it stands.
func (v *verification) outOfPlace(h segmentHeader) {
	switch {
	case v.doubt != nil:
		v.changed()
	case h.before > v.tree.size:
		v.wrong("entries %d–%d are missing before this segment", v.tree.size+1, h.before)
	case h.before < v.tree.size:
		v.wrong("the segment begins with entry %d again", h.before+1)
	default:
		v.problem(Problem{
			Seq: v.lastProven() + 1, File: v.file, Line: 1,
			Text: fmt.Sprintf("one of the entries %d–%d was changed: the segment was begun after other ones",
				v.lastProven()+1, v.tree.size),
		})
	}
}

func (v *verification) lastProven() uint64 { return v.report.Signed }

// wrong is a problem with the entry that comes next.
func (v *verification) wrong(format string, args ...any) {
	v.problem(Problem{Seq: v.tree.size + 1, File: v.file, Line: v.line, Text: fmt.Sprintf(format, args...)})
}

// entry adds one line to the tree and meets the checkpoints of that size.
func (v *verification) entry(line []byte) {
	want := v.tree.size + 1
	seq, ok := lineSeq(line)
	switch {
	case !ok:
		v.wrong("the line is not an entry")
		return
	case seq > want:
		v.wrong("entry %d stands here: entries were deleted or moved", seq)
		return
	case seq < want:
		v.wrong("entry %d stands here: entries were repeated, inserted or moved", seq)
		return
	}
	if len(v.claims) == 0 && !json.Valid(line) {
		v.wrong("the line is not whole")
		return
	}
	v.hashes = v.tree.add(tlog.RecordHash(line), v.hashes[:0])
	if v.progress != nil && v.tree.size%progressStep == 0 {
		v.progress(v.tree.size)
	}
	v.compareStored()
	for len(v.claims) > 0 && v.claims[0].Size == v.tree.size && !v.stopped {
		v.meet(v.claims[0])
		v.claims = v.claims[1:]
	}
}

// compareStored compares the newest entry's hashes with the stored ones.
func (v *verification) compareStored() {
	if v.stored == nil {
		return
	}
	for _, h := range v.hashes {
		var there tlog.Hash
		if _, err := io.ReadFull(v.stored, there[:]); err != nil {
			v.stored = nil
			return
		}
		if there == (tlog.Hash{}) {
			if v.hole == 0 {
				v.hole = v.tree.size
			}
			continue
		}
		if there != h && v.doubt == nil {
			v.doubt = &Problem{Seq: v.tree.size, File: v.file, Line: v.line, Text: "the entry was changed"}
		}
	}
}

// meet compares the tree with a checkpoint of its size.
func (v *verification) meet(c claim) {
	switch {
	case c.Root == v.tree.root() && c.Origin == v.report.Origin:
		v.report.Signed = c.Size
		if v.doubt != nil {
			v.problem(Problem{File: hashesName, Text: fmt.Sprintf(
				"the stored hashes of entry %d are wrong, the entry itself is signed: remove the file", v.doubt.Seq)})
			v.doubt, v.stored = nil, nil
		}
	case c.Origin != v.report.Origin:
		v.problem(Problem{File: c.file, Line: c.line, Text: fmt.Sprintf("the checkpoint is of %q", c.Origin)})
	case v.doubt != nil:
		v.changed()
	default:
		v.problem(Problem{
			Seq: v.lastProven() + 1, File: v.file, Line: v.line,
			Text: fmt.Sprintf("one of the entries %d–%d was changed: %s:%d signs others",
				v.lastProven()+1, c.Size, c.file, c.line),
		})
	}
}

// changed reports the entry in doubt.
func (v *verification) changed() {
	v.problem(*v.doubt)
	v.doubt = nil
}

// conclude compares what was read with what was claimed beyond it.
func (v *verification) conclude() {
	v.report.Entries = v.tree.size
	v.report.Unsigned = v.tree.size - v.report.Signed
	if v.hole > 0 {
		v.problem(Problem{File: hashesName, Text: fmt.Sprintf(
			"stored hashes of entry %d are blank: start the server, or remove the file", v.hole)})
	}
	if v.stopped {
		return
	}
	if v.doubt != nil {
		v.changed()
		return
	}
	missing := uint64(0)
	if len(v.claims) > 0 {
		missing = v.claims[len(v.claims)-1].Size
	}
	if v.store != nil {
		missing = max(missing, v.store.leaves())
	}
	if missing > v.tree.size {
		v.line++
		v.wrong("entries %d–%d are missing", v.tree.size+1, missing)
		return
	}
	if v.report.Signed == 0 && v.tree.size > 0 {
		v.problem(Problem{File: checkpointsName, Text: "no checkpoint with a good signature covers any entry"})
	}
}
