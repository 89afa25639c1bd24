package engine

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/cofferhq/coffer/internal/route"
)

// Lending is how a kind takes back what its engine made outside of Coffer, such as
// an account of a database.
type Lending[S any] struct {
	// Extend makes what was lent last until l.Expires; nil when nothing outside
	// knows of that time.
	Extend func(s S, ctx context.Context, l Leased) error
	// Revoke takes back what was lent and sees that it is gone: only then it
	// returns nil. It may be called for what was taken back, or never made: that
	// is no error. A target that cannot be reached is a fault.Unavailable, or the
	// end of ctx, and is tried for a day; what a target refuses is tried a few
	// times, and then set aside for people. Errors are kept and shown to
	// operators: they hold no secrets.
	Revoke func(s S, ctx context.Context, l Leased) error
}

// Leased is what a lease says to the engine that lent.
type Leased struct {
	Path            string // of the request, below the mount: "creds/readonly"
	Issued, Expires time.Time
	Data            json.RawMessage // Loan.Data
}

// Into reads Loan.Data.
func (l Leased) Into(v any) error { return json.Unmarshal(l.Data, v) }

// Loan is what an engine is about to lend.
type Loan struct {
	// Data is written as JSON before anything is made, and is what Revoke goes by:
	// all it takes to find what was made, such as the name of an account. No
	// secret, and at most MaxLoanBytes.
	Data any
	// TTL and MaxTTL are the role's; 0 is the mount's.
	TTL, MaxTTL time.Duration
	Renewable   bool
}

// MaxLoanBytes is the most that Loan.Data may be as JSON.
const MaxLoanBytes = 16 << 10

// Lender lends in the name of a mount.
type Lender interface {
	// Lend writes a lease and then calls make, which makes what is lent, to last
	// until l.Expires at least. What was made is revoked when the lease ends: at
	// its time, when it is revoked, with the caller's token, or at once when make
	// fails, unless its error says by NothingMade that there is nothing to take
	// back. Should the server die in between, the lease is there and ends at its
	// time. The notes are for the response of the engine.
	Lend(ctx context.Context, by route.Caller, loan Loan, make func(ctx context.Context, l Leased) error) (route.Notes, error)
}

type nothingMade struct{ error }

func (n nothingMade) Unwrap() error { return n.error }

// NothingMade marks the error of a make that is known to have made nothing.
func NothingMade(err error) error { return nothingMade{err} }

// MadeNothing reports whether an error was marked by NothingMade.
func MadeNothing(err error) bool {
	var n nothingMade
	return errors.As(err, &n)
}
