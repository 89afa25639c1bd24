// Package seal is the contract of what keeps the root keyset while the barrier
// is shut, and the record of which seals wrap it.
//
// Several seals may wrap the same root keyset; any one of them opens it, so the
// loss of one locks nobody out. The kinds are in seal/keyfile, seal/shamir and
// seal/pkcs11; sealtest.Run proves each of them. The package is not for data
// keys (package barrier) nor for the life of a node (package node).
package seal

import "context"

// Seal wraps short secrets, at most a few KiB. Its methods may be called
// concurrently.
type Seal interface {
	// Wrap encrypts plaintext, bound to aad.
	Wrap(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Unwrap returns what Wrap was given for the same aad. Anything changed, or
	// wrapped by another seal, is an error that says what to look at.
	Unwrap(ctx context.Context, wrapped, aad []byte) ([]byte, error)
}

// Kind declares a seal for the table in package builtin.
type Kind struct {
	Name     string // the label of the seal block in the configuration
	Doc      string
	Settings []Setting
	// Open opens the seal. settings holds the block's attributes as written; an
	// unknown, missing or malformed one is an error that names it. Kinds that
	// people open with key shares return ErrShares.
	Open func(ctx context.Context, settings map[string]string) (Seal, error)
}

// Setting is an attribute of a seal block.
type Setting struct {
	Name     string
	Doc      string
	Required bool
}

// Named is a seal as the configuration names it. Seal is nil for one that is
// opened by key shares (Kind "shamir").
type Named struct {
	Name string
	Kind string
	Seal Seal
}
