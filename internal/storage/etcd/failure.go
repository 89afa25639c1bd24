package etcd

import (
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cofferhq/coffer/internal/storage"
)

// How an error of a call is met.
type failure int

const (
	lost    failure = iota // no answer, or one that says nothing about what happened
	again                  // the server did not run the call; it may run it later
	refused                // the server did not run the call and will not
)

// rejections are answers that a server gives instead of running a call, and to
// calls that it ran without effect.
var rejections = []struct {
	err   error
	means failure
}{
	{rpctypes.ErrNoSpace, refused}, // or run: see judgeFull
	{rpctypes.ErrRequestTooLarge, refused},
	{rpctypes.ErrTooManyOps, refused},
	{rpctypes.ErrDuplicateKey, refused},
	{rpctypes.ErrEmptyKey, refused},
	{rpctypes.ErrPermissionDenied, refused},
	{rpctypes.ErrUserEmpty, refused},
	{rpctypes.ErrUserNotFound, refused},
	{rpctypes.ErrAuthFailed, refused},
	{rpctypes.ErrCompacted, refused},
	{rpctypes.ErrFutureRev, refused},
	{rpctypes.ErrCorrupt, refused},
	{rpctypes.ErrTooManyRequests, again},
	{rpctypes.ErrNoLeader, again},
	{rpctypes.ErrInvalidAuthToken, again}, // the client library has fetched a new one
	{rpctypes.ErrAuthOldRevision, again},
	{rpctypes.ErrNotCapable, again},
	{rpctypes.ErrGRPCNotSupportedForLearner, again},
}

// classify says what an error of a call means, unsent when no byte of the call
// left.
func classify(err error, unsent bool) failure {
	known := rpctypes.Error(err)
	for _, r := range rejections {
		if errors.Is(known, r.err) || rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(r.err) {
			return r.means
		}
	}
	switch {
	case strings.Contains(err.Error(), "raft proposal dropped"): // by this member, before its log
		return again
	case status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.Unimplemented:
		return refused
	case unsent && tlsRefused(err):
		return refused
	case unsent && strings.Contains(err.Error(), "trying to send message larger"):
		return refused
	case unsent:
		return again
	}
	return lost
}

// tlsRefused says whether the two sides did not agree on TLS.
func tlsRefused(err error) bool {
	text := err.Error()
	return strings.Contains(text, "authentication handshake failed") && !strings.Contains(text, "EOF") &&
		!strings.Contains(text, "context ") && !strings.Contains(text, "reset by peer") && !strings.Contains(text, "i/o timeout")
}

// is tells whether err is a certain answer of etcd.
func is(err, answer error) bool { return err != nil && errors.Is(rpctypes.Error(err), answer) }

// explain puts an error of a call into the contract's words. Nothing was written.
// An end of the caller's own must have been looked for before.
func (e *Engine) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case isOurs(err):
		return err
	case is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: etcd raised its NOSPACE alarm: compact and defragment it, or raise --quota-backend-bytes, then: etcdctl alarm disarm: %w", storage.ErrFull, err)
	case is(err, rpctypes.ErrRequestTooLarge), strings.Contains(err.Error(), "trying to send message larger"):
		return fmt.Errorf("%w: etcd takes less than the 1.5 MiB of its default --max-request-bytes: %w", storage.ErrTooLarge, err)
	case is(err, rpctypes.ErrPermissionDenied), status.Code(err) == codes.PermissionDenied:
		return fmt.Errorf("etcd user %q lacks a permission; grant it to a role of that user: etcdctl role grant-permission ROLE --prefix=true readwrite %q: %w",
			e.o.Username, e.o.Path, err)
	case is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("etcd wants a user: set username and password, or ETCD_USERNAME and ETCD_PASSWORD: %w", err)
	case is(err, rpctypes.ErrAuthFailed), is(err, rpctypes.ErrUserNotFound):
		return fmt.Errorf("etcd does not accept user %q with this password: %w", e.o.Username, err)
	case is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%w: the snapshot took longer than etcd keeps revisions (it was compacted): %w", storage.ErrUnavailable, err)
	case is(err, rpctypes.ErrCorrupt):
		return fmt.Errorf("etcd raised its CORRUPT alarm, its members hold different data: %w", err)
	case tlsRefused(err):
		return fmt.Errorf("TLS with etcd at %s failed; look at tls_ca_file, tls_cert_file, tls_key_file and the names in the members' certificates: %w", e, err)
	}
	// Not wrapped: a deadline of ours must not look like the caller's.
	return fmt.Errorf("%w: etcd at %s: %v", storage.ErrUnavailable, e, err)
}

// errGone says that the store was deleted under the engine.
func (e *Engine) errGone() error {
	return fmt.Errorf("%w: the store is not in etcd any more: the key %s is missing; restore a backup", storage.ErrFailed, e.head)
}

// isOurs says whether err has been explained already.
func isOurs(err error) bool {
	for _, known := range []error{
		storage.ErrUnavailable, storage.ErrUncertain, storage.ErrFull, storage.ErrClosed, storage.ErrTooLarge, storage.ErrFailed,
		errConflict,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
