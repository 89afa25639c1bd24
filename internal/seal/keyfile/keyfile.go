// Package keyfile is the seal whose key is a file that only the server's user
// may read, so that a restart needs nobody. Whoever has the file and the store
// has every secret: keep them on different disks and in different backups.
package keyfile

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/cofferhq/coffer/internal/seal"
)

// Kind declares the seal.
var Kind = seal.Kind{
	Name:     "keyfile",
	Doc:      "The key is a file with mode 0600; the server opens the store by itself when it starts.",
	Settings: settings,
	Open:     open,
}

var settings = []seal.Setting{
	{Name: "path", Doc: "the key file; made when the store is initialized", Required: true},
}

func open(_ context.Context, given map[string]string) (seal.Seal, error) {
	if err := seal.CheckSettings("keyfile", settings, given); err != nil {
		return nil, err
	}
	return Open(given["path"])
}

// Seal is the seal of one key file.
type Seal struct {
	path string

	mu  sync.Mutex
	key *key // nil until the file is there
}

// key is what a key file holds.
type key struct {
	id   [idSize]byte
	aead tink.AEAD
}

// Open reads the key file at path. A missing file is made by the first Wrap and
// not before, so that a lost file is not silently replaced by a new one. A file
// that others may read is refused.
func Open(path string) (*Seal, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &Seal{path: path}
	if s.key, err = read(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return s, nil
}

// Path is where the key file is.
func (s *Seal) Path() string { return s.path }

// Wrap encrypts plaintext; it makes the key file when there is none.
func (s *Seal) Wrap(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	k, err := s.load(true)
	if err != nil {
		return nil, err
	}
	sealed, err := k.aead.Encrypt(plaintext, aad)
	return append(k.id[:], sealed...), err
}

// Unwrap decrypts what Wrap made. When another key file did, the error names
// both by their ids.
func (s *Seal) Unwrap(_ context.Context, wrapped, aad []byte) ([]byte, error) {
	k, err := s.load(false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the key file %s is missing; put it back from its backup", s.path)
	}
	if err != nil {
		return nil, err
	}
	if len(wrapped) < idSize {
		return nil, errors.New("what the seal wrapped is cut short")
	}
	if id := wrapped[:idSize]; string(id) != string(k.id[:]) {
		return nil, fmt.Errorf("the key file %s holds key %s, but the store was sealed with key %s; put the right file in its place",
			s.path, hex.EncodeToString(k.id[:]), hex.EncodeToString(id))
	}
	plain, err := k.aead.Decrypt(wrapped[idSize:], aad)
	if err != nil {
		return nil, fmt.Errorf("the key file %s is the right one, but what it wrapped was changed or belongs elsewhere", s.path)
	}
	return plain, nil
}

// load returns the key, read or made if it was not there before.
func (s *Seal) load(create bool) (*key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key != nil {
		return s.key, nil
	}
	k, err := read(s.path)
	if errors.Is(err, os.ErrNotExist) && create {
		if err = write(s.path); err == nil {
			k, err = read(s.path)
		}
	}
	if err == nil {
		s.key = k
	}
	return k, err
}
