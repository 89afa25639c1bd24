package token

import (
	"context"
	"errors"

	"github.com/cofferhq/coffer/internal/storage"
)

// Revoke ends a token and everything below it, at once. An id that is not there
// is no error.
func (s *Store) Revoke(ctx context.Context, id string) error {
	return s.end(ctx, id, func(*Token) bool { return true })
}

// RevokeAccessor ends the token of an accessor and everything below it.
func (s *Store) RevokeAccessor(ctx context.Context, accessor string) error {
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		tok, err := s.byAccessor(t, accessor)
		if err != nil {
			return err
		}
		return remove(t, tok)
	})
	s.stir(err)
	return err
}

// RevokeOrphan ends a token and leaves its children, which become orphans; its
// batch tokens, which cannot, end with it. It refuses a token that does not
// hold: its children ended with it already.
func (s *Store) RevokeOrphan(ctx context.Context, id string) error {
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		tok, err := readHolding(t, id)
		if err != nil {
			return err
		}
		if err := unlist(t, tok); err != nil {
			return err
		}
		if err := t.Put(orphanKey(id), nil); err != nil {
			return err
		}
		return put(t, &Token{ID: id, Namespace: tok.Namespace, Type: Service, State: gone, CreatedAt: tok.CreatedAt}, nil)
	})
	s.stir(err)
	return err
}

// end removes a token's row, and with it everything below, if the row as it is
// now is to end.
func (s *Store) end(ctx context.Context, id string, when func(*Token) bool) error {
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		tok, err := read(t, id)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil || tok.State == gone || !when(tok) {
			return err
		}
		return remove(t, tok)
	})
	s.stir(err)
	return err
}

// stir tells Run that something ended.
func (s *Store) stir(err error) {
	if err != nil {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// remove deletes a token's rows and notes that what hangs below it is to be
// removed. The token and all below it do not hold from this commit on.
func remove(t storage.Txn, tok *Token) error {
	if err := unlist(t, tok); err != nil {
		return err
	}
	if err := t.Delete(idKey(tok.ID)); err != nil {
		return err
	}
	return t.Put(endingKey(tok.ID), []byte(tok.Namespace))
}

// unlist deletes the rows by which a token is found, but not its own.
func unlist(t storage.Txn, tok *Token) error {
	var rows []string
	if tok.Accessor != "" {
		rows = append(rows, accessorKey(tok.Accessor))
	}
	if !tok.ExpiresAt.IsZero() {
		rows = append(rows, dueKey(tok.ExpiresAt, tok.ID))
	}
	if tok.Parent != "" {
		rows = append(rows, childKey(tok.Parent, tok.ID))
	}
	if tok.Wrapping != nil {
		rows = append(rows, wrappedKey(tok.ID))
	}
	for _, row := range rows {
		if err := t.Delete(row); err != nil {
			return err
		}
	}
	return nil
}
