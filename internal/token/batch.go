package token

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A batch token's text is "hvb." and the url-safe base64 of the sealed form of:
//
//	version  1 byte
//	parent   idBytes, only if bit 0 of flags is set
//	times    creation in seconds, lifetime in seconds
//	texts    path, display name, entity id, mount, role
//	lists    policies, identity policies, metadata (name, value, …), networks
//	zeros    up to batchBytes
//
// Numbers are varints; a text is its length and its bytes; a list its length
// and its texts.
const (
	batchVersion = 1
	// batchBytes is the shortest plaintext, so that the token has at least the
	// 90 characters that leak scanners look for: 33 bytes go to the seal.
	batchBytes = 35
	batchLabel = "coffer batch token v1"
)

// Entries of the dictionary stand for texts that most tokens have. The order is
// part of the format: only append.
var dictionary = []string{
	"", DefaultPolicy, "auth/token/create", "auth/token/create-orphan", "token",
	"auth/userpass/login/", "userpass-", "username", "auth/approle/login", "approle",
	"auth/kubernetes/login", "auth/jwt/login", "auth/cert/login", "role", "role_name",
}

var errBatch = errors.New("the token's content cannot be read")

func (s *Store) sealBatch(t *Token) (string, error) {
	b := []byte{batchVersion}
	if t.Parent == "" {
		b = append(b, 0)
	} else {
		id, err := url64.DecodeString(t.Parent)
		if err != nil || len(id) != idBytes {
			return "", errBatch
		}
		b = append(append(b, 1), id...)
		b = binary.AppendUvarint(b, uint64(t.Depth))
	}
	b = binary.AppendUvarint(b, uint64(t.CreatedAt.Unix()))
	// The lifetime is rounded up, so that a token of half a second is not born dead.
	b = binary.AppendUvarint(b, uint64((t.TTL+time.Second-1)/time.Second))
	b = appendTexts(b, t.Policies)
	for _, text := range []string{t.Path, t.Namespace, t.DisplayName, t.EntityID, t.Mount, t.Role} {
		b = appendText(b, text)
	}
	meta := make([]string, 0, 2*len(t.Meta))
	for _, k := range slices.Sorted(maps.Keys(t.Meta)) {
		meta = append(meta, k, t.Meta[k])
	}
	b = appendTexts(b, meta)
	cidrs := make([]string, len(t.BoundCIDRs))
	for i, c := range t.BoundCIDRs {
		cidrs[i] = c.String()
	}
	b = appendTexts(b, cidrs)
	if short := batchBytes - len(b); short > 0 {
		b = append(b, make([]byte, short)...)
	}
	sealed, err := s.batch.Encrypt(b, []byte(batchLabel))
	if err != nil {
		return "", err
	}
	// What was sealed is what holds, also for the answer to its creator.
	t.CreatedAt = t.CreatedAt.Truncate(time.Second)
	t.TTL = (t.TTL + time.Second - 1).Truncate(time.Second)
	t.ExpiresAt = t.CreatedAt.Add(t.TTL)
	return batchPrefix + url64.EncodeToString(sealed), nil
}

// openBatch returns the token that a batch token's text holds, errBad when it
// was not sealed by this store.
func (s *Store) openBatch(secret string) (*Token, error) {
	if strings.ContainsAny(secret, "\r\n") { // which the decoder would pass over
		return nil, errBad()
	}
	sealed, err := url64.Strict().DecodeString(strings.TrimPrefix(secret, batchPrefix))
	if err != nil {
		return nil, errBad()
	}
	plain, err := s.batch.Decrypt(sealed, []byte(batchLabel))
	if err != nil {
		return nil, errBad()
	}
	t, err := parseBatch(plain)
	if err != nil {
		return nil, errBad()
	}
	t.ID = s.hash.id(secret)
	return t, nil
}

func parseBatch(b []byte) (*Token, error) {
	if len(b) < 2 || b[0] != batchVersion || b[1] > 1 {
		return nil, errBatch
	}
	t := &Token{Type: Batch, Orphan: b[1] == 0}
	r := &batchReader{b: b[2:]}
	if !t.Orphan {
		t.Parent = url64.EncodeToString(r.take(idBytes))
		t.Depth = int(r.number())
	}
	t.CreatedAt = time.Unix(int64(r.number()), 0)
	t.TTL = time.Duration(r.number()) * time.Second
	t.ExpiresAt = t.CreatedAt.Add(t.TTL)
	t.Policies = r.texts()
	for _, dst := range []*string{&t.Path, &t.Namespace, &t.DisplayName, &t.EntityID, &t.Mount, &t.Role} {
		*dst = r.text()
	}
	meta := r.texts()
	for i := 0; i+1 < len(meta); i += 2 {
		if t.Meta == nil {
			t.Meta = map[string]string{}
		}
		t.Meta[meta[i]] = meta[i+1]
	}
	for _, text := range r.texts() {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, errBatch
		}
		t.BoundCIDRs = append(t.BoundCIDRs, prefix)
	}
	if r.bad {
		return nil, errBatch
	}
	return t, nil
}

// appendText writes a text: an even number is twice its length with the text
// after it; an odd one is twice a place in the dictionary plus one, with the
// rest of the text after it in the same form.
func appendText(b []byte, s string) []byte {
	best := 0
	for i, entry := range dictionary {
		if strings.HasPrefix(s, entry) && len(entry) > len(dictionary[best]) {
			best = i
		}
	}
	if best != 0 {
		b = binary.AppendUvarint(b, uint64(best)<<1|1)
		s = s[len(dictionary[best]):]
	}
	b = binary.AppendUvarint(b, uint64(len(s))<<1)
	return append(b, s...)
}

func appendTexts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

// batchReader reads a batch token's content; bad says that it was too short.
type batchReader struct {
	b   []byte
	bad bool
}

func (r *batchReader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<40 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *batchReader) take(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *batchReader) text() string {
	start := ""
	n := r.number()
	if n&1 == 1 {
		if n>>1 >= uint64(len(dictionary)) {
			r.bad = true
			return ""
		}
		start = dictionary[n>>1]
		n = r.number() &^ 1
	}
	return start + string(r.take(int(n>>1)))
}

func (r *batchReader) texts() []string {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	var out []string
	for range n {
		out = append(out, r.text())
	}
	return out
}
