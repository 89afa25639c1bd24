package barrier

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// ShortFingerprint is how many characters of a fingerprint are its short form:
// 64 bits, enough to tell values apart in logs and lists, not to prove identity.
const ShortFingerprint = 16

// Fingerprint returns the HMAC-SHA256 of data under a key of scope that is made
// with the scope and never rotated: 64 lower-case hex digits, the first
// ShortFingerprint of which are its short form. Equal data in one scope have
// equal fingerprints for the life of the scope; nobody without the key can
// guess data from them. It is "" when the barrier is shut or the scope has no
// keys.
func (b *Barrier) Fingerprint(scope string, data []byte) string {
	s, err := b.current()
	if err != nil {
		return ""
	}
	sum := s.mac(scope, data)
	if sum == nil {
		ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		defer cancel()
		if _, err = b.loadKeys(ctx, scope); err != nil {
			return ""
		}
		sum = s.mac(scope, data)
	}
	return hex.EncodeToString(sum)
}

// mac computes a fingerprint with keys held in memory, or returns nil. The lock
// keeps the key from being zeroed meanwhile.
func (s *session) mac(scope string, data []byte) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k := s.scopes[scope]
	if k == nil || k.destroyed {
		return nil
	}
	mac := hmac.New(sha256.New, k.fingerprint)
	mac.Write(data)
	return mac.Sum(nil)
}
