package token

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strings"
	"sync"
	"unicode/utf8"
)

// Every token starts with one of these, by which clients and leak scanners know
// it. A root caller may choose a token that has neither.
const (
	servicePrefix = "hvs."
	batchPrefix   = "hvb."
)

// Lengths of tokens, in bytes. What comes after the prefix of a service token is
// 96 characters; that of a batch token is 90 to 120 where its policies, names
// and metadata are short, and longer where they are not.
const (
	secretBytes   = 72 // random, of a service token
	accessorBytes = 18
	idBytes       = 18 // of the keyed hash: 144 bits
	maxSecret     = 4096
	maxChosen     = 256 // of a token that a root caller chose
)

var url64 = base64.RawURLEncoding

// newSecret returns a new service token.
func newSecret() string { return servicePrefix + random(secretBytes) }

// newAccessor returns a new accessor of a token of the namespace.
func (s *Store) newAccessor() string {
	if s.namespace == "" {
		return random(accessorBytes)
	}
	return random(accessorBytes) + "." + s.namespace
}

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the program instead
	return url64.EncodeToString(b)
}

// hasher makes storage ids of tokens.
type hasher struct{ pool sync.Pool }

func newHasher(key []byte) *hasher {
	return &hasher{pool: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

// id returns the storage id of a token: the start of its HMAC-SHA256, 24
// url-safe characters.
func (h *hasher) id(secret string) string {
	mac := h.pool.Get().(hash.Hash)
	mac.Reset()
	var in [128]byte
	_, _ = mac.Write(append(in[:0], secret...))
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	h.pool.Put(mac)
	var out [idBytes * 8 / 6]byte
	url64.Encode(out[:], sum[:idBytes])
	return string(out[:])
}

// checkChosen says whether a token may be what a root caller chose.
func checkChosen(id string) error {
	switch {
	case strings.HasPrefix(id, servicePrefix):
		return invalid("custom token ID cannot have the 'hvs.' prefix")
	case strings.HasPrefix(id, "s."):
		return invalid("custom token ID cannot have the 's.' prefix")
	case strings.Contains(id, "."):
		return invalid("custom token ID cannot have a '.' in the value")
	case len(id) > maxChosen:
		return invalid("a chosen token has at most %d characters", maxChosen)
	case !utf8.ValidString(id) || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return invalid("a chosen token is printable and has no spaces")
	}
	return nil
}
