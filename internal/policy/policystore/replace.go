package policystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/storage"
)

// None is the fingerprint of a policy that there is not.
const None = "none"

// Fingerprint names a policy's text: SHA-256, in hex.
func Fingerprint(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (s *Store) key(name string) string { return s.rows + name }

// Replace is Put that leaves a policy alone whose text is not the one with the
// fingerprint seen, None for a policy that must not be there yet: fault.Conflict.
func (s *Store) Replace(ctx context.Context, name, text, seen string) (*policy.Policy, error) {
	name, err := CleanName(name)
	if err != nil {
		return nil, err
	}
	if name == "root" || name == wrapping {
		return nil, fault.New(fault.Invalid, "cannot update %q policy", name)
	}
	p, err := policy.Parse(name, text)
	if err != nil {
		return nil, err
	}
	return p, s.change(ctx, name, seen, func(tx storage.Txn) error { return tx.Put(s.key(name), []byte(text)) })
}

// Remove is Delete that leaves a policy alone whose text is not the one with the
// fingerprint seen: fault.Conflict.
func (s *Store) Remove(ctx context.Context, name, seen string) error {
	name, err := CleanName(name)
	if err != nil {
		return err
	}
	if name == "root" || name == "default" || name == wrapping {
		return fault.New(fault.Invalid, "cannot delete %q policy", name)
	}
	return s.change(ctx, name, seen, func(tx storage.Txn) error { return tx.Delete(s.key(name)) })
}

func (s *Store) change(ctx context.Context, name, seen string, do func(storage.Txn) error) error {
	_, err := s.barrier.Update(ctx, func(tx storage.Txn) error {
		is := None
		text, err := tx.Get(s.key(name))
		switch {
		case err == nil:
			is = Fingerprint(string(text))
		case !errors.Is(err, storage.ErrNotFound):
			return err
		}
		if is != seen {
			return fault.New(fault.Conflict, "check-and-set parameter did not match: the policy %s was changed meanwhile; look at it anew", name)
		}
		return do(tx)
	})
	return err
}
