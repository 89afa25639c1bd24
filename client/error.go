package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// ErrUncertain is in the error of a write whose answer did not arrive: it may
// or may not have been carried out. Look before doing it again.
var ErrUncertain = errors.New("whether it was carried out is not known")

// Error is a server's refusal: an answer of status 400 and above.
type Error struct {
	Method, Path string
	Status       int
	Errors       []string      // the server's texts; none for what is simply not there
	RequestID    string        // by which an operator finds the request in the audit log
	RetryAfter   time.Duration // when the server says to come again, 0 when it does not
}

// Error returns for example
//
//	GET secret/data/x: 403: permission denied (request 5e1c…)
func (e *Error) Error() string {
	text := strings.Join(e.Errors, "; ")
	if text == "" {
		text = strings.ToLower(http.StatusText(e.Status))
	}
	out := fmt.Sprintf("%s %s: %d: %s", e.Method, e.Path, e.Status, text)
	if e.RequestID != "" {
		out += " (request " + e.RequestID + ")"
	}
	return out
}

func has(err error, fits func(*Error) bool) bool {
	var e *Error
	return errors.As(err, &e) && fits(e)
}

// IsNotFound reports whether err says that there is nothing at the path.
func IsNotFound(err error) bool {
	return has(err, func(e *Error) bool { return e.Status == http.StatusNotFound })
}

// IsDenied reports whether err says that the token does not allow the request.
func IsDenied(err error) bool {
	return has(err, func(e *Error) bool { return e.Status == http.StatusForbidden })
}

// IsConflict reports whether err says that a check-and-set did not match.
func IsConflict(err error) bool {
	return has(err, func(e *Error) bool {
		return e.Status == http.StatusBadRequest && e.says("check-and-set")
	})
}

// IsSealed reports whether err says that the server is sealed.
func IsSealed(err error) bool {
	return has(err, func(e *Error) bool {
		return e.Status == http.StatusServiceUnavailable && e.says("sealed")
	})
}

func (e *Error) says(word string) bool {
	for _, text := range e.Errors {
		if strings.Contains(strings.ToLower(text), word) {
			return true
		}
	}
	return false
}
