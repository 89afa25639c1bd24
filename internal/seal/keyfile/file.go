package keyfile

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// A key file is text: comment lines that start with "#", then
//
//	coffer-seal-key 1
//	id 0123456789abcdef
//	key <serialized Tink keyset, base64>
const (
	idSize   = 8
	magic    = "coffer-seal-key 1"
	maxBytes = 64 << 10
)

const warning = `# The seal key of a Coffer store. Whoever has it and the store has every secret.
# Keep a copy apart from the backups of the store; without it they cannot be opened.
`

// read reads a key file and refuses one that others than its owner may read.
func read(path string) (*key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the key file %s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("the key file %s has mode %04o and may be read or changed by others; run: chmod 600 %s", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxBytes))
	if err != nil {
		return nil, err
	}
	defer clear(text)
	k, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not a key file that can be used: %w", path, err)
	}
	return k, nil
}

func parse(text []byte) (*key, error) {
	var k key
	var begun, hasID bool
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(make([]byte, 0, 4096), maxBytes)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		name, value, _ := strings.Cut(line, " ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case !begun:
			if line != magic {
				return nil, fmt.Errorf("its first line is not %q", magic)
			}
			begun = true
		case name == "id" && !hasID:
			id, err := hex.DecodeString(value)
			if err != nil || len(id) != idSize {
				return nil, errors.New("its id is malformed")
			}
			copy(k.id[:], id)
			hasID = true
		case name == "key" && k.aead == nil:
			serialized, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return nil, errors.New("its key is malformed")
			}
			defer clear(serialized)
			h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(serialized)))
			if err != nil {
				return nil, errors.New("its key is malformed")
			}
			if k.aead, err = aead.New(h); err != nil {
				return nil, errors.New("its key is not of the right type")
			}
		default:
			return nil, fmt.Errorf("it has an unknown or repeated line %q", name)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if !hasID || k.aead == nil {
		return nil, errors.New("it is incomplete")
	}
	return &k, nil
}

// write makes a new key file. It appears whole and durable or not at all; when
// another process made one first, that one stays.
func write(path string) error {
	text, err := newText()
	if err != nil {
		return err
	}
	defer clear(text)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".seal-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing the key file %s: %w", path, err)
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("writing the key file %s: %w", path, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newText() ([]byte, error) {
	h, err := keyset.NewHandle(aead.XAES256GCM192BitNonceKeyTemplate())
	if err != nil {
		return nil, err
	}
	var serialized bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&serialized)); err != nil {
		return nil, err
	}
	defer clear(serialized.Bytes())
	var id [idSize]byte
	rand.Read(id[:])
	text := fmt.Appendf(nil, "%s%s\nid %s\nkey ", warning, magic, hex.EncodeToString(id[:]))
	text = base64.StdEncoding.AppendEncode(text, serialized.Bytes())
	return append(text, '\n'), nil
}
