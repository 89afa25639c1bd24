package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Timeouts that hold when Listener leaves them at 0; they are Vault's.
const (
	DefaultReadHeaderTimeout = 10 * time.Second
	DefaultIdleTimeout       = 5 * time.Minute
)

// headroom is what net/http may read of headers beyond the handler's own limit,
// so that too large headers still reach the handler and are recorded by name.
const headroom = 256 << 10

// Listener is one place where the API is served.
type Listener struct {
	Options
	TLS *tls.Config // nil serves plain HTTP

	ReadHeaderTimeout time.Duration // for the TLS handshake and for a request's headers
	ReadTimeout       time.Duration // for a whole request; 0 leaves it to BodyGrace and MinBodyRate
	WriteTimeout      time.Duration // from the last header to the end of the answer; 0 is MaxDuration and a minute
	IdleTimeout       time.Duration // between requests
}

// Server serves one listener over HTTP/1.1 and, with TLS, HTTP/2.
type Server struct {
	http     *http.Server
	handler  *handler
	tls      *tls.Config
	quiet    *quietLog
	stopping atomic.Bool
}

// NewServer returns a server that serves nothing yet.
func NewServer(l Listener) *Server {
	set(&l.ReadHeaderTimeout, DefaultReadHeaderTimeout)
	set(&l.IdleTimeout, DefaultIdleTimeout)
	h := New(l.Options).(*handler)
	h.readTimeout = l.ReadTimeout
	if h.MaxDuration > 0 {
		// A client that asks and never reads would hold its answer for ever.
		set(&l.WriteTimeout, h.MaxDuration+time.Minute)
	}
	s := &Server{handler: h, quiet: &quietLog{log: l.Log}}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	if l.TLS != nil {
		h.secure = true
		protocols.SetUnencryptedHTTP2(true) // behind our own TLS; see connection
		s.tls = l.TLS.Clone()
		s.tls.MinVersion = max(l.TLS.MinVersion, tls.VersionTLS12)
		s.tls.NextProtos = []string{"h2", "http/1.1"}
	}
	s.http = &http.Server{
		Handler:                      h,
		Protocols:                    protocols,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            l.ReadHeaderTimeout,
		ReadTimeout:                  l.ReadTimeout,
		WriteTimeout:                 l.WriteTimeout,
		IdleTimeout:                  l.IdleTimeout,
		MaxHeaderBytes:               h.MaxHeader + headroom,
		ErrorLog:                     log.New(s.quiet, "", 0),
		ConnContext:                  withConnection,
		ConnState:                    s.connectionState,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: 250, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	return s
}

// Serve accepts connections on l until Shutdown, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(watched{l, s}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops accepting, lets the requests that are under way finish, and
// closes what is left when ctx ends; it then returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopping.Store(true)
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	return err
}
