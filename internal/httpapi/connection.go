package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
)

// connection is one accepted connection; with TLS, it is the decrypted side.
//
// It stands between net/http and the wire for one reason: a request that
// net/http cannot parse is answered by net/http itself, in plain text and
// without a handler. Such a request belongs into the audit log, and its answer
// has Vault's shape, so that answer is exchanged here on its way out.
//
// A *tls.Conn is hidden behind it, so net/http takes the connection for a plain
// one. It speaks HTTP/2 there all the same, on seeing its preface, which only a
// client that negotiated it sends.
type connection struct {
	net.Conn
	server  *Server
	tls     *tls.Conn           // nil without TLS
	peer    []*x509.Certificate // what the client presented; there before any handler runs
	greeted bool                // the handshake is over; used by the reading side only
	http2   atomic.Bool
	begun   atomic.Bool // bytes of a request have come that has no handler yet
	busy    atomic.Bool // a handler runs; over HTTP/1.1 there is one at a time
}

// Read makes the TLS handshake before the first byte.
func (c *connection) Read(b []byte) (int, error) {
	if !c.greeted && c.tls != nil {
		if err := c.greet(); err != nil {
			return 0, err
		}
	}
	c.greeted = true
	n, err := c.Conn.Read(b)
	if n > 0 && !c.busy.Load() {
		c.begun.Store(true)
	}
	return n, err
}

// greet makes the handshake. net/http has set a deadline for it already.
func (c *connection) greet() error {
	err := c.tls.Handshake()
	if err == nil {
		state := c.tls.ConnectionState()
		c.http2.Store(state.NegotiatedProtocol == "h2")
		c.peer = state.PeerCertificates
		return nil
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader) {
		body := errorsBody("Client sent an HTTP request to an HTTPS server.")
		_, _ = record.Conn.Write(plainAnswer(http.StatusBadRequest, body))
	} else {
		c.server.quiet.say("a TLS handshake failed", "remote", c.RemoteAddr().String(), "error", err.Error())
	}
	return net.ErrClosed // which net/http takes as the client's leaving
}

func looksLikeHTTP(record [5]byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "LIST ", "PATCH", "DELET"} {
		if string(record[:]) == method {
			return true
		}
	}
	return false
}

// Write passes b on, unless it is net/http's own refusal of a request.
func (c *connection) Write(b []byte) (int, error) {
	if !c.busy.Load() && !c.http2.Load() && bytes.HasPrefix(b, []byte("HTTP/1.1 ")) && len(b) > 12 {
		if status, err := strconv.Atoi(string(b[9:12])); err == nil && status >= 400 {
			c.begun.Store(false) // what follows is the end of the connection
			if _, err := c.Conn.Write(c.server.handler.unreadable(c.RemoteAddr(), status)); err != nil {
				return 0, err
			}
			return len(b), nil
		}
	}
	return c.Conn.Write(b)
}

// CloseWrite ends the sending half, so that a client can read its answer
// although it is still sending.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// unreadable records a request that net/http refused with a status, and returns
// the HTTP/1.1 response to send.
func (h *handler) unreadable(remote net.Addr, status int) []byte {
	var what string
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		what = "the request's headers are far too large"
	case http.StatusRequestTimeout:
		what = "the request's headers did not arrive in time"
	default:
		what = "the request is not valid HTTP: its request line or a header could not be parsed"
	}
	peer, _ := parseRemote(remote.String())
	req := gateway.Request{ID: newID(), Remote: peer, Problem: fault.New(fault.Invalid, "%s", what)}
	ctx, cancel := context.WithTimeout(context.Background(), DefaultMaxDuration)
	defer cancel()
	answer := h.serve(ctx, &req)
	if answer.Status != req.Problem.Kind.Status() {
		status = answer.Status
	}
	return plainAnswer(status, answer.Body)
}

// plainAnswer is an HTTP/1.1 response that ends its connection.
func plainAnswer(status int, body []byte) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"+
		"X-Content-Type-Options: nosniff\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), len(body), body)
}

// watched accepts connections as *connection.
type watched struct {
	net.Listener
	server *Server
}

func (l watched) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: inner, server: l.server}
	if l.server.tls != nil {
		c.tls = tls.Server(inner, l.server.tls)
		c.Conn = c.tls
	}
	return c, nil
}

type connectionKey struct{}

func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// handled notes that the request under way on a connection has its handler.
func handled(ctx context.Context) {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		c.busy.Store(true)
	}
}

// peer returns the certificates that were presented on a request's connection.
func peer(ctx context.Context) []*x509.Certificate {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		return c.peer
	}
	return nil
}

// connectionState follows a connection through net/http. A connection that
// ends with a request begun and never handled sent its headers too slowly, or
// went away.
func (s *Server) connectionState(c net.Conn, state http.ConnState) {
	known, ok := c.(*connection)
	if !ok {
		return
	}
	switch state {
	case http.StateIdle:
		known.begun.Store(false)
		known.busy.Store(false)
	case http.StateClosed:
		if known.begun.Load() && !known.busy.Load() && !known.http2.Load() && !s.stopping.Load() {
			s.handler.unreadable(c.RemoteAddr(), http.StatusRequestTimeout)
		}
	}
}

// quietLog logs what strangers cause and can cause in floods: each at debug
// level, and one a minute as a warning.
type quietLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	last time.Time
}

func (q *quietLog) say(message string, args ...any) {
	q.mu.Lock()
	level := slog.LevelDebug
	if time.Since(q.last) > time.Minute {
		level, q.last = slog.LevelWarn, time.Now()
	}
	q.mu.Unlock()
	q.log.Log(context.Background(), level, message, args...)
}

// Write takes net/http's own messages.
func (q *quietLog) Write(line []byte) (int, error) {
	q.say("a connection failed", "error", strings.TrimSpace(string(line)))
	return len(line), nil
}
