package shamir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/cofferhq/coffer/internal/seal"
)

// Name of the kind, and of its seal in a store's record.
const Name = "shamir"

// KeySize is the length of the seal's key; shares of it are a byte longer.
const KeySize = 32

// ErrWrongKey says that the key does not unwrap what it was given.
var ErrWrongKey = errors.New("the key shares do not belong to this store, or one of them is wrong")

// Kind declares the seal.
var Kind = seal.Kind{
	Name: Name,
	Doc:  "People hold shares of the key; a threshold of them opens the store after each start.",
	Open: func(_ context.Context, settings map[string]string) (seal.Seal, error) {
		for name := range settings {
			return nil, fmt.Errorf("seal %q has no setting %q", Name, name)
		}
		return nil, seal.ErrShares
	},
}

// NewKey returns a key to open the seal with and to split.
func NewKey() []byte {
	key := make([]byte, KeySize)
	rand.Read(key)
	return key
}

// Open returns the seal of a key (XChaCha20-Poly1305 with random nonces). It
// takes any key; whether it is the right one shows when it unwraps.
func Open(key []byte) (seal.Seal, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("the key has %d bytes, not %d: %w", len(key), KeySize, ErrWrongKey)
	}
	a, err := subtle.NewXChaCha20Poly1305(key)
	if err != nil {
		return nil, err
	}
	return keyed{a}, nil
}

type keyed struct{ aead tink.AEAD }

func (k keyed) Wrap(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	return k.aead.Encrypt(plaintext, aad)
}

func (k keyed) Unwrap(_ context.Context, wrapped, aad []byte) ([]byte, error) {
	plain, err := k.aead.Decrypt(wrapped, aad)
	if err != nil {
		return nil, ErrWrongKey
	}
	return plain, nil
}
