package barrier

import (
	"encoding/binary"
	"strings"
	"sync"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/cofferhq/coffer/internal/storage"
)

// A stored value is a Tink ciphertext: 0x01, the key id (4 bytes, big endian),
// salt and nonce (24 bytes), ciphertext, tag (16 bytes). A later format starts
// with another byte.
const (
	tinkPrefix = 0x01
	prefixSize = 5
	minSealed  = Overhead
)

// Overhead is how many bytes a value grows by encryption. They count towards
// storage.MaxUpdateBytes.
const Overhead = prefixSize + 24 + 16

// What a ciphertext is, as the first byte of its associated data, so that none
// can be taken for another even under the same name.
const (
	formatValue   = 'V'
	formatKeys    = 'K'
	formatInner   = 'N'
	formatRoot    = 'R'
	formatUpgrade = 'U'
	formatArchive = 'B'
)

// keyID returns the id of the key that sealed was encrypted with; false when
// it is not of the format.
func keyID(sealed []byte) (uint32, bool) {
	if len(sealed) < minSealed || sealed[0] != tinkPrefix {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[1:prefixSize]), true
}

var bindings = sync.Pool{New: func() any { b := make([]byte, 0, 256); return &b }}

// encrypt seals value for the row named key.
func encrypt(a tink.AEAD, format byte, key string, value []byte) ([]byte, error) {
	aad := bindings.Get().(*[]byte)
	*aad = append(append((*aad)[:0], format), key...)
	out, err := a.Encrypt(value, *aad)
	bindings.Put(aad)
	return out, err
}

// decrypt opens what encrypt made for the same format and key.
func decrypt(a tink.AEAD, format byte, key string, sealed []byte) ([]byte, error) {
	aad := bindings.Get().(*[]byte)
	*aad = append(append((*aad)[:0], format), key...)
	out, err := a.Decrypt(sealed, *aad)
	bindings.Put(aad)
	if err != nil {
		return nil, ErrTampered
	}
	return out, nil
}

const (
	mountPrefix = "mount/"
	spacePrefix = "ns/"
)

// scopeOf returns the scope that key belongs to.
func scopeOf(key string) string {
	n := segment(key, 0, spacePrefix)
	if n == 0 {
		if n = segment(key, 0, mountPrefix); n == 0 {
			return CoreScope
		}
		return key[:n]
	}
	if m := segment(key, n+1, mountPrefix); m > 0 {
		return key[:m]
	}
	return key[:n]
}

// segment returns where, in a key that has prefix at a place and an id after it,
// the id ends before a slash; 0 when the key is not such.
func segment(key string, at int, prefix string) int {
	if !strings.HasPrefix(key[at:], prefix) {
		return 0
	}
	at += len(prefix)
	if n := strings.IndexByte(key[at:], '/'); n > 0 {
		return at + n
	}
	return 0
}

// validScope reports whether rows can have scope.
func validScope(scope string) bool { return scopeOf(scope+"/") == scope || scope == CoreScope }

// outerOf returns the scope whose keys wrap those of scope, "" when only the root
// keyset does.
func outerOf(scope string) string {
	if n := segment(scope, 0, spacePrefix); n > 0 {
		return scope[:n]
	}
	return ""
}

// wraps reports whether the keys of other scopes may be wrapped by those of scope.
func wraps(scope string) bool { return strings.HasPrefix(scope, spacePrefix) && outerOf(scope) == "" }

// Rows that lie in the engine as they are: the barrier's own, and the wrapped
// root keyset. They are not visible through the barrier.
var reservedPrefixes = [...]string{"barrier/", "seal/"}

func reserved(key string) bool {
	for _, p := range reservedPrefixes {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

// mayMeetReserved reports whether keys under prefix can be reserved ones.
func mayMeetReserved(prefix string) bool {
	for _, p := range reservedPrefixes {
		if strings.HasPrefix(p, prefix) || strings.HasPrefix(prefix, p) {
			return true
		}
	}
	return false
}

// lastUnder is the greatest key that can start with prefix: scanning after it
// skips all of them.
func lastUnder(prefix string) string {
	return prefix + strings.Repeat("\xff", storage.MaxKeyBytes-len(prefix))
}
