// Package fault is the one error type that crosses package borders. A fault
// has a kind, which decides the HTTP status at the edge, and a message, which
// is sent to the client; its cause is logged and never sent.
//
// A message says what happened, to what, and what to do next, and never holds
// a secret.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Kind classifies a fault. Each kind has one HTTP status.
type Kind uint8

// The kinds, with the status each is answered with.
const (
	Internal      Kind = iota // 500: a bug or a broken dependency
	Invalid                   // 400: the request cannot be understood or breaks a rule
	Conflict                  // 400: a check-and-set did not match (Vault's status for it)
	Denied                    // 403: the caller may not
	NotFound                  // 404
	Method                    // 405: the path exists, the operation on it does not
	Timeout                   // 408: the client sent its request too slowly
	TooLarge                  // 413
	Limited                   // 429: a quota or a lockout; see RetryAfter
	Uninitialized             // 501 where health asks, 400 elsewhere
	Unsupported               // 501
	Sealed                    // 503: the barrier is closed
	Unavailable               // 503: a dependency is away (engine, audit disk)
)

var statuses = [...]int{
	Internal: http.StatusInternalServerError, Invalid: http.StatusBadRequest, Conflict: http.StatusBadRequest,
	Denied: http.StatusForbidden, NotFound: http.StatusNotFound, Method: http.StatusMethodNotAllowed,
	Timeout: http.StatusRequestTimeout, TooLarge: http.StatusRequestEntityTooLarge,
	Limited: http.StatusTooManyRequests, Uninitialized: http.StatusBadRequest,
	Unsupported: http.StatusNotImplemented, Sealed: http.StatusServiceUnavailable,
	Unavailable: http.StatusServiceUnavailable,
}

// Status is the HTTP status that the kind is answered with.
func (k Kind) Status() int { return statuses[k] }

// Error is a fault.
type Error struct {
	Kind       Kind
	Message    string        // sent to the client
	RetryAfter time.Duration // with Limited and Unavailable: when to try again; 0 says nothing
	Cause      error         // logged, never sent
}

// Error returns the message and, for logs, the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New returns a fault of the given kind whose message is formatted for the client.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns a fault of the given kind that keeps cause for the log only.
func Wrap(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// From returns err as a fault: itself when it is one, Timeout or Unavailable
// when a context ended, Internal otherwise. It returns nil for nil.
func From(err error) *Error {
	var f *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
		return f
	case errors.Is(err, context.DeadlineExceeded):
		return Wrap(Unavailable, err, "the request took longer than it may; try again")
	case errors.Is(err, context.Canceled):
		return Wrap(Timeout, err, "the request was given up by its client")
	}
	return Wrap(Internal, err, "internal error")
}

// Is reports whether err is a fault of the given kind.
func Is(err error, kind Kind) bool {
	var f *Error
	return errors.As(err, &f) && f.Kind == kind
}
