package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Proof shows to anybody who has the public key that one entry is in the log,
// without showing the others.
type Proof struct {
	Seq        uint64           `json:"seq"`
	Line       string           `json:"line"`       // the entry as it stands in the log
	Hashes     tlog.RecordProof `json:"hashes"`     // RFC 6962 section 2.1.1 audit path
	Checkpoint string           `json:"checkpoint"` // the signed note that it leads to
}

// Prove returns the proof of one entry against the newest checkpoint in dir.
func Prove(dir string, seq uint64) (Proof, error) {
	c, err := newestCheckpoint(dir)
	if err != nil {
		return Proof{}, err
	}
	if seq == 0 || seq > c.Size {
		return Proof{}, fmt.Errorf("entry %d is not covered by a checkpoint: the newest covers 1–%d", seq, c.Size)
	}
	r := reader{dir: dir, next: seq}
	defer r.close()
	line, err := r.find(seq)
	if err != nil {
		return Proof{}, err
	}
	store, err := readHashStore(filepath.Join(dir, hashesName))
	if err != nil {
		return Proof{}, err
	}
	defer store.file.Close()
	p := Proof{Seq: seq, Line: string(line), Checkpoint: string(c.Note)}
	if p.Hashes, err = tlog.ProveRecord(int64(c.Size), int64(seq-1), store); err != nil {
		return Proof{}, err
	}
	if _, err := p.Check(); err != nil {
		return Proof{}, fmt.Errorf("%w: entry %d cannot be proven (%w); run the verifier", ErrDamaged, seq, err)
	}
	return p, nil
}

// find returns the line of an entry.
func (r *reader) find(seq uint64) ([]byte, error) {
	for {
		line, err := r.line(context.Background())
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: entry %d is missing", ErrDamaged, seq)
		}
		if err != nil {
			return nil, err
		}
		if n, ok := lineSeq(line); ok && n == seq {
			return line, nil
		}
	}
}

// newestCheckpoint returns the last checkpoint in dir without believing it.
func newestCheckpoint(dir string) (Checkpoint, error) {
	content, err := os.ReadFile(filepath.Join(dir, checkpointsName))
	if err != nil {
		return Checkpoint{}, err
	}
	notes, _ := splitNotes(content)
	if len(notes) == 0 {
		return Checkpoint{}, fmt.Errorf("%s has no checkpoint yet", dir)
	}
	return ParseCheckpoint(notes[len(notes)-1].note)
}

// Check returns the proven entry. Without verifiers it checks only that the
// entry belongs to the checkpoint, not who signed that.
func (p Proof) Check(verifiers ...note.Verifier) (Entry, error) {
	c, err := ParseCheckpoint([]byte(p.Checkpoint), verifiers...)
	if err != nil {
		return Entry{}, err
	}
	if seq, ok := lineSeq([]byte(p.Line)); !ok || seq != p.Seq || seq == 0 {
		return Entry{}, fmt.Errorf("the line is not entry %d", p.Seq)
	}
	leaf := tlog.RecordHash([]byte(p.Line))
	if err := tlog.CheckRecord(p.Hashes, int64(c.Size), c.Root, int64(p.Seq-1), leaf); err != nil {
		return Entry{}, err
	}
	return decodeEntry([]byte(p.Line))
}

// ProveConsistency returns the proof that the log at the newer checkpoint
// begins with the log at the older one (RFC 6962 section 2.1.2).
func ProveConsistency(dir string, older, newer Checkpoint) (tlog.TreeProof, error) {
	if older.Size == 0 || older.Size > newer.Size {
		return nil, fmt.Errorf("a log of %d entries cannot have begun with %d", newer.Size, older.Size)
	}
	store, err := readHashStore(filepath.Join(dir, hashesName))
	if err != nil {
		return nil, err
	}
	defer store.file.Close()
	p, err := tlog.ProveTree(int64(newer.Size), int64(older.Size), store)
	if err != nil {
		return nil, err
	}
	return p, CheckConsistency(p, older, newer)
}

// CheckConsistency checks the proof that ProveConsistency returned. The
// checkpoints must come from ParseCheckpoint with a verifier.
func CheckConsistency(p tlog.TreeProof, older, newer Checkpoint) error {
	if older.Origin != newer.Origin {
		return fmt.Errorf("%w: %q and %q", ErrForeign, older.Origin, newer.Origin)
	}
	if older.Size == 0 || older.Size > newer.Size {
		return fmt.Errorf("a log of %d entries cannot have begun with %d", newer.Size, older.Size)
	}
	return tlog.CheckTree(p, int64(newer.Size), newer.Root, int64(older.Size), older.Root)
}
