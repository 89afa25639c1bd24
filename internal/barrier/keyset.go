package barrier

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/cofferhq/coffer/internal/storage"
)

// keysPrefix is followed by the scope.
const keysPrefix = "barrier/keys/"

// keyRecord is the plaintext of a keyset row.
type keyRecord struct {
	Terms       []term `json:"terms"`       // oldest first; the last one encrypts
	Keyset      []byte `json:"keyset"`      // serialized Tink keyset
	Fingerprint []byte `json:"fingerprint"` // HMAC key, never rotated
}

// term is one key of a scope's keyset.
type term struct {
	Term      uint32    `json:"term"` // 1 is the first; grows by one with each rotation
	KeyID     uint32    `json:"key_id"`
	Installed time.Time `json:"installed"`
}

// scopeKeys are the keys of one scope, ready to use. They are not changed once
// they are installed.
type scopeKeys struct {
	row         []byte // the row they were read from
	terms       []term
	aead        tink.AEAD
	fingerprint []byte
	encryptions *atomic.Uint64   // values this node sealed under the newest key
	installed   storage.Revision // commit at which the store held them
	destroyed   bool
}

func (k *scopeKeys) has(id uint32) bool {
	return slices.ContainsFunc(k.terms, func(t term) bool { return t.KeyID == id })
}

func (k *scopeKeys) newest() term    { return k.terms[len(k.terms)-1] }
func (k *scopeKeys) primary() uint32 { return k.newest().KeyID }

// wrapping is what the keyset row of a scope is sealed with: the keys of the scope
// around it, if there is one, and then the root keyset.
type wrapping struct {
	root  *rootKeys
	outer *scopeKeys // nil: none
}

func (w wrapping) seal(scope string, plain []byte) ([]byte, error) {
	if w.outer != nil {
		inner, err := encrypt(w.outer.aead, formatInner, keysPrefix+scope, plain)
		if err != nil {
			return nil, err
		}
		plain = inner
	}
	return encrypt(w.root.aead, formatKeys, keysPrefix+scope, plain)
}

func (w wrapping) open(scope string, row []byte) ([]byte, error) {
	plain, err := decrypt(w.root.aead, formatKeys, keysPrefix+scope, row)
	if err != nil || w.outer == nil {
		return plain, err
	}
	return decrypt(w.outer.aead, formatInner, keysPrefix+scope, plain)
}

// parseRecord opens the keyset row of scope. The caller clears the record.
func parseRecord(w wrapping, scope string, row []byte) (*keyRecord, error) {
	plain, err := w.open(scope, row)
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", scope, err)
	}
	defer clear(plain)
	var rec keyRecord
	if err := json.Unmarshal(plain, &rec); err != nil || len(rec.Terms) == 0 {
		return nil, fmt.Errorf("keys of %s: malformed record: %w", scope, ErrTampered)
	}
	return &rec, nil
}

func parseKeys(w wrapping, scope string, row []byte) (*scopeKeys, error) {
	rec, err := parseRecord(w, scope, row)
	if err != nil {
		return nil, err
	}
	defer clear(rec.Keyset)
	_, a, err := parseKeyset(rec.Keyset)
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", scope, err)
	}
	return &scopeKeys{row: row, terms: rec.Terms, aead: a, fingerprint: rec.Fingerprint, encryptions: new(atomic.Uint64)}, nil
}

// put stores rec as the keys of scope.
func (rec *keyRecord) put(t storage.Txn, w wrapping, scope string) (row []byte, err error) {
	plain, err := json.Marshal(rec)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	row, err = w.seal(scope, plain)
	if err != nil {
		return nil, err
	}
	return row, t.Put(keysPrefix+scope, row)
}

// putNewKeys stores the first keys of scope and returns their row.
func putNewKeys(t storage.Txn, w wrapping, scope string) ([]byte, error) {
	serialized, id, err := newKeyset()
	if err != nil {
		return nil, err
	}
	defer clear(serialized)
	rec := keyRecord{
		Terms:       []term{{Term: 1, KeyID: id, Installed: now()}},
		Keyset:      serialized,
		Fingerprint: make([]byte, 32),
	}
	rand.Read(rec.Fingerprint)
	defer clear(rec.Fingerprint)
	return rec.put(t, w, scope)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// newKeyset returns a serialized keyset of one fresh key, and the key's id.
func newKeyset() ([]byte, uint32, error) {
	h, err := keyset.NewHandle(aead.XAES256GCM192BitNonceKeyTemplate())
	if err != nil {
		return nil, 0, err
	}
	b, err := serializeKeyset(h)
	return b, h.KeysetInfo().GetPrimaryKeyId(), err
}

// extendKeyset adds a fresh primary key to a serialized keyset.
func extendKeyset(serialized []byte) ([]byte, uint32, error) {
	h, _, err := parseKeyset(serialized)
	if err != nil {
		return nil, 0, err
	}
	m := keyset.NewManagerFromHandle(h)
	id, err := m.Add(aead.XAES256GCM192BitNonceKeyTemplate())
	if err != nil {
		return nil, 0, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, 0, err
	}
	if h, err = m.Handle(); err != nil {
		return nil, 0, err
	}
	b, err := serializeKeyset(h)
	return b, id, err
}

// reduceKeyset removes the given keys from a serialized keyset.
func reduceKeyset(serialized []byte, ids []uint32) ([]byte, error) {
	h, _, err := parseKeyset(serialized)
	if err != nil {
		return nil, err
	}
	m := keyset.NewManagerFromHandle(h)
	for _, id := range ids {
		if err := m.Delete(id); err != nil {
			return nil, err
		}
	}
	if h, err = m.Handle(); err != nil {
		return nil, err
	}
	return serializeKeyset(h)
}

func parseKeyset(serialized []byte) (*keyset.Handle, tink.AEAD, error) {
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(serialized)))
	if err != nil {
		return nil, nil, fmt.Errorf("keyset is malformed: %w", err)
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, nil, fmt.Errorf("keyset is not for AEAD: %w", err)
	}
	return h, a, nil
}

func serializeKeyset(h *keyset.Handle) ([]byte, error) {
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&buf)); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
