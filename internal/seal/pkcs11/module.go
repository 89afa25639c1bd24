//go:build pkcs11

package pkcs11

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThalesGroup/crypto11"

	"github.com/cofferhq/coffer/internal/seal"
)

// A wrap is the format byte, the nonce, and what AES-GCM of the module makes.
const (
	format    = 1
	nonceSize = 12
)

// module is the seal of one key in a module.
type module struct {
	config *config

	mu  sync.Mutex
	ctx *crypto11.Context // nil until reached
	gcm cipher.AEAD       // nil until the key is found
}

func newSeal(c *config) (seal.Seal, error) { return &module{config: c}, nil }

// Wrap encrypts plaintext in the module. It generates the key when there is
// none and the settings ask for that.
func (m *module) Wrap(_ context.Context, plaintext, aad []byte) (wrapped []byte, err error) {
	gcm, err := m.key(m.config.generate)
	if err != nil {
		return nil, err
	}
	defer m.recoverLost(&err) // the library panics when the module fails
	wrapped = make([]byte, 1+nonceSize, 1+nonceSize+len(plaintext)+gcm.Overhead())
	wrapped[0] = format
	nonce := wrapped[1:]
	rand.Read(nonce)
	return gcm.Seal(wrapped, nonce, plaintext, m.bind(aad)), nil
}

// Unwrap decrypts in the module what Wrap made.
func (m *module) Unwrap(_ context.Context, wrapped, aad []byte) (plain []byte, err error) {
	if len(wrapped) < 1+nonceSize+16 || wrapped[0] != format {
		return nil, errors.New("what the seal wrapped is malformed")
	}
	gcm, err := m.key(false)
	if err != nil {
		return nil, err
	}
	defer m.recoverLost(&err)
	plain, err = gcm.Open(nil, wrapped[1:1+nonceSize], wrapped[1+nonceSize:], m.bind(aad))
	if err != nil {
		m.forget()
		return nil, fmt.Errorf("the module does not unwrap it with the key %q: it was wrapped with another key, or was changed: %w", m.config.keyLabel, err)
	}
	return plain, nil
}

// bind makes sure that the associated data is never empty, which some modules
// take badly, and holds the format.
func (m *module) bind(aad []byte) []byte { return append([]byte{format}, aad...) }

// recoverLost turns a panic of the library into an error.
func (m *module) recoverLost(err *error) {
	if p := recover(); p != nil {
		m.forget()
		*err = fmt.Errorf("the module at %s failed: %v", m.config.lib, p)
	}
}

// forget drops the connection, so that the next use makes a new one.
func (m *module) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx != nil {
		ctx := m.ctx
		m.ctx, m.gcm = nil, nil
		// Calls under way on other goroutines end first.
		time.AfterFunc(time.Minute, func() { ctx.Close() })
	}
}

// key returns the key's AEAD, reached and found, or generated, if it was not yet.
func (m *module) key(generate bool) (cipher.AEAD, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gcm != nil {
		return m.gcm, nil
	}
	if m.ctx == nil {
		if err := m.connect(); err != nil {
			return nil, err
		}
	}
	label := []byte(m.config.keyLabel)
	keys, err := m.ctx.FindKeys(nil, label)
	if err != nil {
		return nil, fmt.Errorf("looking for the key %q: %w", label, err)
	}
	if len(keys) > 1 {
		return nil, fmt.Errorf("the token has %d keys %q; remove or rename all but the right one", len(keys), label)
	}
	var key *crypto11.SecretKey
	if len(keys) == 1 {
		key = keys[0]
	}
	if key == nil && generate {
		id := make([]byte, 16)
		rand.Read(id)
		if key, err = m.ctx.GenerateSecretKeyWithLabel(id, label, 256, crypto11.CipherAES); err != nil {
			return nil, fmt.Errorf("generating the key %q: %w", label, err)
		}
	}
	if key == nil {
		return nil, fmt.Errorf(`the token has no AES key %q; make one, or set generate_key = "true" and initialize`, label)
	}
	m.gcm, err = key.NewGCM()
	return m.gcm, err
}

func (m *module) connect() error {
	pin, err := m.config.pin()
	if err != nil {
		return err
	}
	m.ctx, err = crypto11.Configure(&crypto11.Config{
		Path: m.config.lib, TokenLabel: m.config.tokenLabel, SlotNumber: m.config.slot,
		Pin: pin, PoolWaitTimeout: 10 * time.Second,
	})
	if err != nil {
		m.ctx = nil
		return fmt.Errorf("reaching the module at %s: %w", m.config.lib, err)
	}
	return nil
}
