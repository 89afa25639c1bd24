package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Timeouts that hold when Listener leaves them at 0; they are Vault's.
const (
	DefaultReadHeaderTimeout = 10 * time.Second
	DefaultIdleTimeout       = 5 * time.Minute
)

// headroom is what net/http may read of headers beyond the handler's own limit,
// so that too large headers still reach the handler and are recorded.
const headroom = 256 << 10

// Listener is one place where the API is served.
type Listener struct {
	Options
	TLS *tls.Config // nil serves plain HTTP

	ReadHeaderTimeout time.Duration // for the TLS handshake and for a request's headers
	ReadTimeout       time.Duration // for a whole request; 0 leaves it to BodyGrace and MinBodyRate
	WriteTimeout      time.Duration // from the last header to the end of the answer; 0 is no bound
	IdleTimeout       time.Duration // between requests
}

// Server serves one listener over HTTP/1.1 and, with TLS, HTTP/2.
type Server struct {
	http    *http.Server
	handler *handler
	secure  bool
}

// NewServer returns a server that serves nothing yet.
func NewServer(l Listener) *Server {
	set(&l.ReadHeaderTimeout, DefaultReadHeaderTimeout)
	set(&l.IdleTimeout, DefaultIdleTimeout)
	h := New(l.Options).(*handler)
	s := &Server{handler: h, secure: l.TLS != nil}
	s.http = &http.Server{
		Handler:                      h,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            l.ReadHeaderTimeout,
		ReadTimeout:                  l.ReadTimeout,
		WriteTimeout:                 l.WriteTimeout,
		IdleTimeout:                  l.IdleTimeout,
		MaxHeaderBytes:               h.MaxHeader + headroom,
		ErrorLog:                     log.New(&connectionLog{log: l.Log}, "", 0),
		ConnContext:                  withConnection,
		ConnState:                    s.connectionState,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: 250, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	if l.TLS != nil {
		s.http.TLSConfig = l.TLS.Clone()
		s.http.TLSConfig.MinVersion = max(l.TLS.MinVersion, tls.VersionTLS12)
	}
	return s
}

// Serve accepts connections on l until Shutdown or Close, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	l = watched{l}
	var err error
	if s.secure {
		err = s.http.ServeTLS(l, "", "")
	} else {
		err = s.http.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, lets the requests that are under way finish, and
// closes what is left when ctx ends; it then returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	return err
}

// connection is one accepted connection. It notes whether the request that is
// under way reached the handler: net/http answers those that it cannot parse by
// itself, and they belong into the audit log all the same.
type connection struct {
	net.Conn
	waiting atomic.Bool // bytes of a request have come, the handler has not seen it
}

// CloseWrite ends the sending half, so that a client can read its answer.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// watched accepts connections as *connection.
type watched struct{ net.Listener }

func (l watched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &connection{Conn: c}, nil
}

type connectionKey struct{}

func withConnection(ctx context.Context, c net.Conn) context.Context {
	if known := connectionOf(c); known != nil {
		return context.WithValue(ctx, connectionKey{}, known)
	}
	return ctx
}

func connectionOf(c net.Conn) *connection {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	known, _ := c.(*connection)
	return known
}

func markHandled(ctx context.Context) {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		c.waiting.Store(false)
	}
}

// connectionState follows a connection through net/http.
func (s *Server) connectionState(c net.Conn, state http.ConnState) {
	known := connectionOf(c)
	if known == nil {
		return
	}
	switch state {
	case http.StateActive:
		known.waiting.Store(true)
	case http.StateClosed:
		if known.waiting.Load() {
			remote, _ := parseRemote(c.RemoteAddr().String())
			s.handler.unreadable(remote)
		}
	}
}

// connectionLog is where net/http reports failed handshakes and the like. They
// come in floods and from strangers, so they are debug lines, and one line a
// minute says at warning level that there are some.
type connectionLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last time.Time
}

func (l *connectionLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	loud := time.Since(l.last) > time.Minute
	if loud {
		l.last = time.Now()
	}
	l.mu.Unlock()
	level := slog.LevelDebug
	if loud {
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, "a connection failed", "error", string(trimNewline(line)))
	return len(line), nil
}

func trimNewline(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		return line[:n-1]
	}
	return line
}
