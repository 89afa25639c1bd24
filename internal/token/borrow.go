package token

import (
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Borrower returns the token with whose end what is lent to a caller ends, "" for
// none, and the latest time that it may last to, zero for none but the token's end:
// a batch token, which has no row, borrows for its parent, until it ends itself. r
// reads what the store keeps. It is an error when the caller's token holds no
// longer, or this request is its last use.
func (s *Store) Borrower(r storage.Reader, id, secret string) (owner string, until time.Time, err error) {
	if strings.HasPrefix(secret, batchPrefix) {
		tok, err := s.openBatch(secret)
		if err != nil {
			return "", until, err
		}
		if tok.Parent != "" {
			_, err = readHolding(r, tok.Parent)
		}
		if err == nil && !tok.valid(time.Now()) {
			err = errBad()
		}
		return tok.Parent, tok.ExpiresAt, err
	}
	tok, err := read(r, id)
	if err == nil && tok.State == spent {
		return "", until, invalid("this is the last use of the token, with which all that it was lent ends: nothing can be lent to it")
	}
	if _, err := readHolding(r, id); err != nil {
		return "", until, fault.Wrap(fault.Denied, err, "the token ended while its request was under way")
	}
	return id, until, nil
}

// Ended reports whether the token of an id holds no longer; r reads what the store
// keeps.
func Ended(r storage.Reader, id string) (bool, error) {
	_, err := readHolding(r, id)
	if fault.Is(err, fault.Denied) {
		return true, nil
	}
	return false, err
}
