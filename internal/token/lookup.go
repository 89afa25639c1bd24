package token

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Lookup returns the token of a secret, if it holds: it and every ancestor
// exist and have not ended. Otherwise the error is a fault.Denied that says
// "bad token" whatever the reason. The token's networks are the gateway's to
// check, who knows where the request comes from.
func (s *Store) Lookup(ctx context.Context, secret string) (*Token, error) {
	tok, err := s.find(ctx, secret)
	if err != nil {
		return nil, err
	}
	if !s.sees(tok) {
		return nil, errBad()
	}
	return tok, s.holds(ctx, tok)
}

// find returns the token of a secret, whether it holds or not.
func (s *Store) find(ctx context.Context, secret string) (*Token, error) {
	if secret == "" || len(secret) > maxSecret {
		return nil, errBad()
	}
	if strings.HasPrefix(secret, batchPrefix) {
		return s.openBatch(secret)
	}
	return s.byID(ctx, s.hash.id(secret))
}

func (s *Store) byID(ctx context.Context, id string) (*Token, error) {
	tok, err := s.cached(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errBad()
	}
	return tok, err
}

func (s *Store) holds(ctx context.Context, tok *Token) error {
	if tok.Parent == "" {
		if !tok.valid(time.Now()) {
			return errBad()
		}
		return nil
	}
	return holds(tok, time.Now(), func(id string) (*Token, error) { return s.cached(ctx, id) })
}

// Self returns the token of a caller whose request is under way, also when that
// request is its last use.
func (s *Store) Self(ctx context.Context, secret string) (*Token, error) {
	tok, err := s.find(ctx, secret)
	if err != nil || tok.Type == Batch {
		return tok, err
	}
	err = s.storage.View(ctx, func(r storage.Reader) error {
		tok, err = read(r, tok.ID)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errBad()
	}
	if err == nil && tok.State == gone {
		err = errBad()
	}
	return tok, err
}

// Ends returns when the token of a caller whose request is under way ends by itself,
// or with one that it hangs below; the zero time for never.
func (s *Store) Ends(ctx context.Context, secret string) (time.Time, error) {
	tok, err := s.Self(ctx, secret)
	if err != nil {
		return time.Time{}, err
	}
	ends := tok.ExpiresAt
	for id := tok.Parent; id != ""; {
		ancestor, err := s.byID(ctx, id)
		if err != nil {
			return time.Time{}, err
		}
		if ancestor.State == gone {
			break // its children live on as orphans
		}
		if at := ancestor.ExpiresAt; !at.IsZero() && (ends.IsZero() || at.Before(ends)) {
			ends = at
		}
		id = ancestor.Parent
	}
	return ends, nil
}

// ByAccessor returns the token of an accessor, if it holds; a fault.Invalid that
// says "invalid accessor" otherwise.
func (s *Store) ByAccessor(ctx context.Context, accessor string) (*Token, error) {
	var tok *Token
	err := s.storage.View(ctx, func(r storage.Reader) error {
		var err error
		tok, err = s.byAccessor(r, accessor)
		return err
	})
	return tok, err
}

// byAccessor returns the token of an accessor, if it holds.
func (s *Store) byAccessor(r storage.Reader, accessor string) (*Token, error) {
	if accessor == "" || storage.CheckKey(accessorKey(accessor)) != nil {
		return nil, errAccessor()
	}
	id, err := r.Get(accessorKey(accessor))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errAccessor()
	}
	if err != nil {
		return nil, err
	}
	tok, err := readHolding(r, string(id))
	if fault.Is(err, fault.Denied) || err == nil && !s.sees(tok) {
		return nil, errAccessor()
	}
	return tok, err
}

func errAccessor() error { return invalid("invalid accessor") }

// readHolding returns the token of an id, or errBad when it does not hold.
func readHolding(r storage.Reader, id string) (*Token, error) {
	tok, err := read(r, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errBad()
	}
	if err != nil {
		return nil, err
	}
	return tok, holds(tok, time.Now(), func(id string) (*Token, error) { return read(r, id) })
}

// Orphaned reports whether the token has no parent, or its parent is gone and
// left it behind.
func (s *Store) Orphaned(ctx context.Context, tok *Token) (bool, error) {
	if tok.Parent == "" {
		return true, nil
	}
	parent, err := s.cached(ctx, tok.Parent)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return err == nil && parent.State == gone, err
}

// Accessors returns, in order, up to limit accessors that sort after the given
// one. Those of tokens that ended a moment ago may be among them.
func (s *Store) Accessors(ctx context.Context, after string, limit int) ([]string, error) {
	var names []string
	err := s.storage.View(ctx, func(r storage.Reader) error {
		var err error
		names, err = r.List(accessorsOf(s.namespace), after, limit)
		return err
	})
	return names, err
}

// Use takes one of a token's uses. It refuses exactly the use after the last
// one, however many requests run at once. What the last use asked for is
// answered; the token holds no longer, and Release removes it.
//
// A wrapping token has one use too, and Unwrap takes it.
func (s *Store) Use(ctx context.Context, tok *Token) error {
	if tok.NumUses == 0 || tok.Wrapping != nil {
		return nil
	}
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		before, err := readHolding(t, tok.ID)
		if err != nil {
			return err
		}
		now := *before
		if now.NumUses--; now.NumUses <= 0 {
			// The row stays while the request is under way. Should nobody
			// release it, the sweep does.
			now.State, now.ExpiresAt = spent, soonest(now.ExpiresAt, time.Now().Add(lastUse))
		}
		return put(t, &now, before)
	})
	return err
}

// lastUse is how long the row of a token stays after its last use began, when
// the gateway does not release it.
const lastUse = 5 * time.Minute

func soonest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// Release ends a token whose last use was the request that is over. It does
// nothing for other tokens, and costs nothing for those without a limit.
func (s *Store) Release(ctx context.Context, tok *Token) error {
	if tok.NumUses == 0 || tok.Wrapping != nil {
		return nil
	}
	return s.end(ctx, tok.ID, func(now *Token) bool { return now.State == spent })
}
