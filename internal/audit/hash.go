package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// Hash returns the keyed hash of input in the form of Vault's audit devices:
// "hmac-sha256:" and 64 hex digits (HMAC-SHA256 with the device's salt as the
// key). An operator who has a value finds its entries with it.
func Hash(salt, input string) string {
	m := hmac.New(sha256.New, []byte(salt))
	m.Write([]byte(input))
	return "hmac-sha256:" + hex.EncodeToString(m.Sum(nil))
}
