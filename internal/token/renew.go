package token

import (
	"context"
	"errors"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/storage"
)

// Renewal asks for more life.
type Renewal struct {
	// Increment is how long the token is to live from now on; 0 is as its terms
	// say. Its terms cap it.
	Increment time.Duration
	// Terms replace those the token was granted with, where its auth method or
	// mount changed them; nil keeps them. A token made by a role of the token
	// store always follows the role as it is now.
	Terms *lifetime.Terms
}

// Renew extends a token's life. Whether its auth method still agrees is asked
// before, by the caller. Errors: Denied when the token does not hold, Invalid
// when it may not be renewed or is past its greatest lifetime.
func (s *Store) Renew(ctx context.Context, id string, r Renewal) (*Issued, error) {
	if r.Increment < 0 {
		return nil, invalid("increment must be positive")
	}
	var out *Issued
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		before, err := readHolding(t, id)
		if err != nil {
			return err
		}
		if out, err = s.renewed(t, before, r); err != nil {
			return err
		}
		return put(t, out.Token, before)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// renewed is the token as it is after a renewal.
func (s *Store) renewed(r storage.Reader, before *Token, ask Renewal) (*Issued, error) {
	switch {
	case before.ExpiresAt.IsZero():
		return nil, invalid("invalid lease ID") // Vault's word for a token that never ends
	case !before.Renewable:
		return nil, invalid("lease is not renewable")
	}
	terms := before.Terms
	if ask.Terms != nil {
		terms = *ask.Terms
	}
	if before.Role != "" && before.Mount == "" {
		role, err := s.In(before.Namespace).readRole(r, before.Role)
		if fault.Is(err, fault.NotFound) || errors.Is(err, storage.ErrNotFound) {
			return nil, invalid("original token role %q could not be found, not renewing", before.Role)
		}
		if err != nil {
			return nil, err
		}
		terms.Period, terms.ExplicitMax = role.period(), role.explicitMax()
	}
	now := time.Now()
	ttl, warnings, err := terms.Left(s.defaults, ask.Increment, before.CreatedAt, now)
	if err != nil {
		return nil, err
	}
	after := *before
	after.RenewedAt, after.ExpiresAt = now, now.Add(ttl)
	out := &Issued{Token: &after, TTL: ttl}
	out.Warnings = warnings
	return out, nil
}
