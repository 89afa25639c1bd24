package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cofferhq/coffer/internal/storage"
)

// How an error of the database is met.
type failure int

const (
	refused failure = iota // the server ran the statement and said no: nothing was written
	again                  // as refused, and the same may succeed in a new transaction
	lost                   // the connection is gone or of no use
)

// The states that are told apart; see PostgreSQL's list of error codes.
const (
	stateNoNumber         = "22P02"
	stateReadOnly         = "25006"
	stateUnknownOutcome   = "40003"
	stateUniqueViolation  = "23505"
	stateDenied           = "42501"
	stateDuplicateTable   = "42P07"
	stateDuplicateType    = "42710" // of a table's rows: the table is being made
	stateUndefinedTable   = "42P01"
	stateUndefinedColumn  = "42703"
	stateInvalidCatalog   = "3D000"
	stateTooManyConns     = "53300"
	stateDiskFull         = "53100"
	stateIdleInTxn        = "25P03"
	stateUndefinedSetting = "42704"
)

// classify says what an error of a statement means.
func classify(err error) failure {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return lost
	}
	switch {
	case pg.Severity == "FATAL", pg.Severity == "PANIC", strings.HasPrefix(pg.Code, "08"), strings.HasPrefix(pg.Code, "57P"),
		pg.Code == stateReadOnly, pg.Code == stateIdleInTxn, pg.Code == stateUnknownOutcome:
		return lost
	case strings.HasPrefix(pg.Code, "40"), pg.Code == "55P03", pg.Code == "57014", strings.HasPrefix(pg.Code, "26"):
		return again
	}
	return refused
}

func hasState(err error, state string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == state
}

// explain returns the error that a call ends with after err. caller is the
// context that the call was made with.
func (e *Engine) explain(caller context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case caller.Err() != nil:
		return caller.Err()
	case e.stopped() != nil:
		return storage.ErrClosed
	case isOurs(err):
		return err
	}
	return explain(err, e.config.User)
}

// isOurs says whether err has been explained already.
func isOurs(err error) bool {
	for _, known := range []error{storage.ErrUnavailable, storage.ErrUncertain, storage.ErrFull, storage.ErrClosed, storage.ErrReadOnly} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// refusal is an error that says why a store is not opened, and needs no more
// words.
type refusal struct {
	text  string
	cause error // or nil
}

func (r refusal) Error() string { return r.text }
func (r refusal) Unwrap() error { return r.cause }

// explain puts an error of the database into the contract's words.
func explain(err error, user string) error {
	if said := (refusal{}); errors.As(err, &said) {
		return err
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return fmt.Errorf("%w: PostgreSQL: %w", storage.ErrUnavailable, err)
	}
	switch pg.Code {
	case stateDiskFull:
		return fmt.Errorf("%w: PostgreSQL: %w", storage.ErrFull, err)
	case stateDenied:
		return fmt.Errorf("PostgreSQL user %q lacks a right (%s); the owner of the tables can give it: "+
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ... TO %q, and to make the tables GRANT CREATE ON SCHEMA ... TO %q: %w",
			user, pg.Message, user, user, err)
	case stateTooManyConns:
		return fmt.Errorf("%w: PostgreSQL has no connection left; lower max_parallel or raise the server's max_connections: %w", storage.ErrUnavailable, err)
	}
	if classify(err) != refused {
		return fmt.Errorf("%w: PostgreSQL: %w", storage.ErrUnavailable, err)
	}
	return fmt.Errorf("PostgreSQL: %w", err)
}
