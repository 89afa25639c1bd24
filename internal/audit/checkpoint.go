package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is a signed statement of what the log contained: its first Size
// entries have the Merkle root Root.
type Checkpoint struct {
	Origin string    // names the log
	Size   uint64    // number of entries, which is the last entry's Seq
	Root   tlog.Hash // RFC 6962 root of the tree of these entries
	Note   []byte    // the signed note, as it stands in the checkpoints file
}

// text is what is signed: origin, size and root, a line each
// (C2SP tlog-checkpoint).
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// parseText is the inverse of text, and accepts nothing else.
func parseText(text string) (Checkpoint, error) {
	var c Checkpoint
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return c, errors.New("a checkpoint has three lines: origin, size, root")
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return c, errors.New("the root of a checkpoint is 32 bytes in base64")
	}
	c.Origin = lines[0]
	copy(c.Root[:], root)
	if c.Size, err = strconv.ParseUint(lines[1], 10, 62); err != nil || c.Origin == "" || c.text() != text {
		return c, errors.New("a checkpoint has three lines: origin, size, root")
	}
	return c, nil
}

// ParseCheckpoint reads a signed note whose signature is one of the given
// verifiers'. Without verifiers it reads the note and believes it.
func ParseCheckpoint(signed []byte, verifiers ...note.Verifier) (Checkpoint, error) {
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) && len(verifiers) == 0 {
		n, err = unverified.Note, nil
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	c, err := parseText(n.Text)
	if err != nil {
		return c, err
	}
	c.Note = bytes.Clone(signed)
	return c, nil
}

// signCheckpoint fills in the note.
func signCheckpoint(c Checkpoint, signer note.Signer) (Checkpoint, error) {
	var err error
	c.Note, err = note.Sign(&note.Note{Text: c.text()}, signer)
	return c, err
}

// NewVerifier returns the verifier of checkpoints that key's owner signs for
// the log named origin.
func NewVerifier(origin string, key ed25519.PublicKey) (note.Verifier, error) {
	text, err := note.NewEd25519VerifierKey(origin, key)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(text)
}

// VerifierKey is the text form of a checkpoint key's public half:
// name, key id and key, as VerifyOptions and other tools for signed notes
// read it.
func VerifierKey(origin string, key ed25519.PublicKey) (string, error) {
	return note.NewEd25519VerifierKey(origin, key)
}

// ed25519Signer signs notes.
type ed25519Signer struct {
	verifier note.Verifier
	key      ed25519.PrivateKey
}

// NewSigner returns the signer of checkpoints of the log named origin.
func NewSigner(origin string, key ed25519.PrivateKey) (note.Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("checkpoint key has %d bytes instead of %d", len(key), ed25519.PrivateKeySize)
	}
	verifier, err := NewVerifier(origin, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("checkpoint key: %w", err)
	}
	return &ed25519Signer{verifier, key}, nil
}

func (s *ed25519Signer) Name() string    { return s.verifier.Name() }
func (s *ed25519Signer) KeyHash() uint32 { return s.verifier.KeyHash() }
func (s *ed25519Signer) Sign(msg []byte) ([]byte, error) {
	return ed25519.Sign(s.key, msg), nil
}

// placedNote is a note in the checkpoints file.
type placedNote struct {
	line int // of its first line
	note []byte
}

// splitNotes cuts the content of a checkpoints file into its notes. rest is
// what follows the last whole one: nothing, or a torn write.
func splitNotes(content []byte) (notes []placedNote, rest []byte) {
	line := 1
	for {
		end := noteEnd(content)
		if end < 0 {
			return notes, content
		}
		notes = append(notes, placedNote{line, content[:end-1]})
		line += bytes.Count(content[:end], []byte("\n"))
		content = content[end:]
	}
}

// noteEnd returns where the first note in b ends, after the empty line that
// follows its signatures, or -1.
func noteEnd(b []byte) int {
	text := bytes.Index(b, []byte("\n\n"))
	if text < 0 {
		return -1
	}
	signatures := bytes.Index(b[text+2:], []byte("\n\n"))
	if signatures < 0 {
		return -1
	}
	return text + 2 + signatures + 2
}
