// Package httpapi is where HTTP ends: it turns what arrives on a listener into
// a gateway.Request and a gateway.Answer into what leaves, in the shape that
// Vault clients know.
//
// It reads headers, path and body strictly and within bounds, and hands every
// request below /v1/ on, also one that it could not read: that one carries a
// Problem, so that it is recorded like any other. It knows no route, no token
// and no engine, and it never decides who may do what.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/browser"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
)

// Limits that hold when Options leaves them at 0.
const (
	DefaultMaxBody     = 2 << 20          // bytes of a request's body
	DefaultMaxHeader   = 64 << 10         // bytes of a request's target and headers together
	DefaultMaxPath     = 4 << 10          // bytes of a decoded path
	DefaultMaxDuration = 90 * time.Second // from the last header to the answer
	DefaultBodyGrace   = 10 * time.Second // before MinBodyRate counts
	DefaultMinBodyRate = 4 << 10          // bytes a second
)

// Options says what one listener's handler does.
type Options struct {
	// Serve answers a request; it is gateway.Gateway's Serve.
	Serve func(context.Context, *gateway.Request) gateway.Answer
	// Log takes panics. It is required.
	Log *slog.Logger

	MaxBody     int64         // bytes; a longer body is answered 413
	MaxHeader   int           // bytes; longer headers are answered 431
	MaxPath     int           // bytes; a longer path is answered 414
	MaxDuration time.Duration // after which the request's context ends; negative is no bound
	BodyGrace   time.Duration // how long a body may take however short it is
	MinBodyRate int64         // bytes a second that a body must keep after the grace; slower is answered 408

	// RequireRequestHeader refuses requests without "X-Vault-Request: true" (412).
	RequireRequestHeader bool
	// Forwarded says whose X-Forwarded-For is believed; nil believes nobody's.
	Forwarded *Forwarded
	// Headers are added to answers.
	Headers StatusHeaders
	// CORS returns whose pages may call; nil, and what is answered nil, takes no
	// notice of where a page is from, and browsers keep the answers from it.
	CORS func(context.Context) (*browser.CORS, error)
	// Recorded returns of a request's headers what the audit log is to have; nil has
	// nothing of them recorded.
	Recorded func(http.Header) map[string][]string
	// Panicked is told of each request that panicked; nil: nobody is.
	Panicked func()
	// Metrics answers GET /v1/sys/metrics without a token where the listener
	// allows that; nil sends it through Serve.
	Metrics http.Handler
}

// handler is the http.Handler of one listener.
type handler struct {
	Options
	headers     *headerPlan
	secure      bool          // behind TLS
	readTimeout time.Duration // of the listener; the rate of bodies does not lengthen it
}

// New returns the handler of a listener.
func New(o Options) http.Handler {
	if o.Serve == nil || o.Log == nil {
		panic("httpapi: Serve and Log are required")
	}
	set(&o.MaxBody, DefaultMaxBody)
	set(&o.MaxHeader, DefaultMaxHeader)
	set(&o.MaxPath, DefaultMaxPath)
	set(&o.MaxDuration, DefaultMaxDuration)
	set(&o.BodyGrace, DefaultBodyGrace)
	set(&o.MinBodyRate, DefaultMinBodyRate)
	return &handler{Options: o, headers: planHeaders(o.Headers)}
}

func set[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// ServeHTTP answers one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handled(r.Context())
	if path := r.URL.Path; !strings.HasPrefix(path, prefix) && path != "/v1" {
		h.elsewhere(w, r)
		return
	}
	if h.crossOrigin(w, r) {
		return
	}
	if h.Metrics != nil && r.Method == http.MethodGet && r.URL.Path == "/v1/sys/metrics" {
		h.headers.apply(w.Header(), http.StatusOK)
		h.Metrics.ServeHTTP(w, r)
		return
	}
	ctx := r.Context()
	if h.MaxDuration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.MaxDuration)
		defer cancel()
	}
	var req gateway.Request
	h.read(w, r, &req)
	identified(w.Header(), r.Header, &req)
	if req.Problem != nil {
		leave(w, r)
	}
	answer := h.serve(ctx, &req)
	if answer.Stream != nil {
		h.stream(w, r, req.ID, &answer)
		return
	}
	h.write(w, r, &answer)
}

// serve calls Serve and answers 500 when it panics. The log gets the stack and
// the kind of panic; its text could hold a secret, unless the runtime wrote it.
func (h *handler) serve(ctx context.Context, req *gateway.Request) (answer gateway.Answer) {
	defer func() {
		if p := recover(); p != nil {
			answer = refusal(h.panicked(req.ID, p))
		}
	}()
	return h.Serve(ctx, req)
}

// panicked logs and counts a panic, and returns what its client is told.
func (h *handler) panicked(id string, p any) *fault.Error {
	what := fmt.Sprintf("%T", p)
	if e, ok := p.(runtime.Error); ok {
		what = e.Error()
	}
	h.Log.Error("a request panicked", "request_id", id, "panic", what, "stack", string(debug.Stack()))
	if h.Panicked != nil {
		h.Panicked()
	}
	return fault.New(fault.Internal, "internal error; the server's log has it under request id %s", id)
}

// refusal is the answer to a fault that was not answered by Serve.
func refusal(f *fault.Error) gateway.Answer {
	return gateway.Answer{Status: f.Kind.Status(), Body: errorsBody(f.Message), RetryAfter: f.RetryAfter}
}

// elsewhere answers what is not below /v1/: nothing is there, and it says where
// the API is. It is not recorded, for it can touch nothing.
func (h *handler) elsewhere(w http.ResponseWriter, r *http.Request) {
	leave(w, r)
	message := "there is nothing here; the API is under /v1/, for example /v1/sys/health"
	if r.URL.Path == "/" || r.URL.Path == "/ui" || strings.HasPrefix(r.URL.Path, "/ui/") {
		message = "this is a Coffer server; its API is under /v1/, for example /v1/sys/health"
	}
	h.write(w, r, &gateway.Answer{Status: http.StatusNotFound, Body: errorsBody(message)})
}

// errBadHost is what an unusable remote address gives.
var errBadHost = errors.New("the connection has no usable remote address")
