package issuer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/cofferhq/coffer/internal/fault"
)

// minRSA is the shortest RSA key that is used, in bits (NIST SP 800-131A).
const minRSA = 2048

// parseKeys reads a key document (RFC 7517, section 5). Keys that cannot verify a
// signature are left out: those of unknown types, of other uses, and those of which
// the issuer published more than the public part.
func parseKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, garbage("is not a JSON object of keys (JWKS)")
	}
	if len(set.Keys) > MaxKeys {
		return nil, garbage(fmt.Sprintf("holds %d keys; at most %d are accepted", len(set.Keys), MaxKeys))
	}
	var keys []jose.JSONWebKey
	for _, text := range set.Keys {
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(text); err != nil || !usable(key) {
			continue
		}
		keys = append(keys, key)
	}
	if keys == nil {
		return nil, garbage("holds no key that can verify a signature")
	}
	return keys, nil
}

func usable(key jose.JSONWebKey) bool {
	switch key.Use {
	case "", "sig", "jwt-svid": // the last is SPIFFE's
	default:
		return false
	}
	return key.IsPublic() && key.Valid() && algorithmsOf(key.Key) != nil
}

// algorithmsOf lists what a public key can have signed with, nil for none.
func algorithmsOf(key any) []string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= minRSA {
			return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
		}
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []string{"ES256"}
		case 384:
			return []string{"ES384"}
		case 521:
			return []string{"ES512"}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	}
	return nil
}

// parsePEM reads a public key or a certificate.
func parsePEM(text string) (key jose.JSONWebKey, err error) {
	// A key on one line, as some tools pass it, is a key too.
	block, rest := pem.Decode([]byte(strings.ReplaceAll(text, `\n`, "\n")))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return key, fault.New(fault.Invalid, "a public key is one block of PEM that begins with -----BEGIN PUBLIC KEY-----")
	}
	switch block.Type {
	case "PUBLIC KEY":
		key.Key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key.Key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			key.Key = certificate.PublicKey
		}
	default:
		return key, fault.New(fault.Invalid, "a public key in PEM is expected, not %s", clip(block.Type))
	}
	if err != nil {
		return key, fault.Wrap(fault.Invalid, err, "the public key cannot be read")
	}
	if algorithmsOf(key.Key) == nil {
		return key, fault.New(fault.Invalid, "the public key is of a kind that is not used: RSA of at least %d bits, EC of P-256, P-384 or P-521, and Ed25519 are", minRSA)
	}
	return key, nil
}
