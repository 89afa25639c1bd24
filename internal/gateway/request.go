// Package gateway is the life of a request, in one place: see Gateway.Serve.
// Nothing reaches an engine around it: the agent, the console and the jobs come
// through the same door. It knows no HTTP; package httpapi does.
package gateway

import (
	"context"
	"crypto/x509"
	"io"
	"net/netip"
	"net/url"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/quota"
)

// Request is what a listener understood of a request before anyone looked at
// what it is for.
type Request struct {
	ID          string // unique, answered as request_id and written to the audit log
	Method      string // GET, LIST, POST (PUT is POST), PATCH or DELETE; another one is answered 405
	Path        string // below /v1/, decoded, without a leading slash
	Query       url.Values
	Body        []byte
	ContentType string
	Token       string              // X-Vault-Token, or Authorization: Bearer
	Namespace   string              // X-Vault-Namespace
	WrapTTL     string              // X-Vault-Wrap-TTL, as sent
	Factors     []string            // X-Vault-MFA, as sent: "method:passcode"
	Traceparent string              // W3C traceparent, "" when absent or malformed
	Correlation string              // X-Correlation-ID or X-Request-ID, printable, at most 128 bytes
	Headers     map[string][]string // those that the audit log is to have, as it is to have them
	Remote      netip.AddrPort
	Help        bool // ?help=1
	// Peer are the certificates that the client presented over TLS, leaf first. It
	// holds the leaf's key; nothing else about them was verified, unless the
	// listener has authorities of its own for its clients.
	Peer []*x509.Certificate
	// Problem is set when the listener could not read the request (a path that
	// is no path, a body over the limit, a body that stopped arriving). The
	// gateway records it and answers it.
	Problem *fault.Error
	// Status is what Problem is answered with where its kind's own status is less
	// exact; 0 otherwise.
	Status int
}

// Answer is what goes back.
type Answer struct {
	Status      int
	ContentType string // "application/json" unless the route answers raw
	Body        []byte // nil with 204
	RetryAfter  time.Duration
	// Stream, where it is set, writes the body, and must be called once. The
	// outcome is in the audit log when it returns nil; an error before the first
	// write is to be answered, a later one must not look like the body's end.
	Stream func(context.Context, io.Writer) error
	MaxAge time.Duration // how long anybody may keep the answer; 0: nobody may
	Left   *quota.Left   // what a quota still allows; nil says nothing
	Live   bool          // with Stream: what is written is to leave at once
	Allow  []string      // with 405: the methods there are
	Stale  time.Duration // how old at most the answer is; above 0 only while the storage engine is away
}
