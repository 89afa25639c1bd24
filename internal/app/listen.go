package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/cofferhq/coffer/internal/config"
	"github.com/cofferhq/coffer/internal/httpapi"
	"github.com/cofferhq/coffer/internal/httpapi/certificate"
)

// overhead is what a request's body may have beyond a payload of the largest
// size: names, options, and escapes of JSON.
const overhead = 1 << 20

// listener is one place where the API is served.
type listener struct {
	server *httpapi.Server
	net    net.Listener
	secure bool
	caFile string            // of the private authority; "" for other certificates
	pair   *certificate.Pair // nil unless the certificate is read from files
	expiry func() time.Time  // nil with plain HTTP
}

func (l *listener) url() string {
	if l.net.Addr().Network() == "unix" {
		return "unix://" + l.net.Addr().String()
	}
	scheme := "http"
	if l.secure {
		scheme = "https"
	}
	host, port, _ := net.SplitHostPort(l.net.Addr().String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

func (l *listener) reload(log *slog.Logger) {
	if l.pair == nil {
		return
	}
	if _, err := l.pair.Reload(); err != nil {
		log.Error("the certificate was not reloaded; the one before stays", "error", err)
	}
}

// listen opens every listener and serves it.
func (s *Server) listen(ctx context.Context) error {
	for _, c := range s.cfg.Listeners {
		l, err := s.openListener(ctx, c)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, l)
		s.background.Go(func() {
			if err := l.server.Serve(l.net); err != nil {
				s.failed <- fmt.Errorf("listener %s: %w", l.url(), err)
			}
		})
	}
	return nil
}

func (s *Server) openListener(ctx context.Context, c config.Listener) (*listener, error) {
	l := &listener{secure: c.TLS.Mode != config.TLSOff}
	options := httpapi.Options{
		Serve: s.gateway.Serve, Log: s.log, MaxBody: c.MaxRequestSize, MaxDuration: c.MaxRequestDuration,
		RequireRequestHeader: c.RequireRequestHeader, Headers: headers(c.ResponseHeaders), Panicked: s.metrics.Panicked, CORS: s.cors, Recorded: s.recorded,
	}
	if options.MaxBody == 0 {
		options.MaxBody = s.cfg.MaxPayloadSize + overhead
	}
	if options.MaxDuration == 0 {
		options.MaxDuration = s.cfg.MaxRequestDuration
	}
	if c.Forwarded != nil {
		f := httpapi.Forwarded(*c.Forwarded)
		options.Forwarded = &f
	}
	if c.UnauthenticatedStats {
		options.Metrics = s.metrics
	}
	place := httpapi.Listener{
		Options: options, ReadHeaderTimeout: c.ReadHeaderTimeout, ReadTimeout: c.ReadTimeout,
		WriteTimeout: c.WriteTimeout, IdleTimeout: c.IdleTimeout,
	}
	if l.secure {
		var err error
		if place.TLS, err = s.openTLS(ctx, c.TLS, l); err != nil {
			return nil, fmt.Errorf("listener %s: %w", c.Address, err)
		}
	}
	var err error
	if l.net, err = httpapi.Listen(ctx, c.Kind, c.Address, c.SocketMode); err != nil {
		return nil, err
	}
	if c.Kind == "unix" {
		if err := httpapi.Own(c.Address, c.SocketUser, c.SocketGroup); err != nil {
			return nil, err
		}
	}
	l.server = httpapi.NewServer(place)
	return l, nil
}

// openTLS returns a listener's TLS, with a certificate from its files or from
// the private authority.
func (s *Server) openTLS(ctx context.Context, c config.TLS, l *listener) (*tls.Config, error) {
	base := &tls.Config{MinVersion: c.Min, MaxVersion: c.Max, CipherSuites: c.Ciphers}
	if c.Mode == config.TLSFiles {
		pair, err := certificate.Load(certificate.Files{Cert: c.Cert, Key: c.Key, ClientCA: c.ClientCA}, s.log)
		if err != nil {
			return nil, err
		}
		l.pair, l.expiry = pair, pair.Expiry
		s.background.Go(func() { pair.Watch(ctx) })
		return certificate.Config(base, pair, c.Auth), nil
	}
	dir := c.Dir
	if dir == "" {
		dir = filepath.Join(s.dataDir, "tls")
	}
	authority, err := certificate.Open(dir, c.Names, s.log)
	if err != nil {
		return nil, err
	}
	l.caFile, l.expiry = authority.CAFile(), authority.Expiry
	s.background.Go(func() { authority.Renew(ctx) })
	return certificate.Config(base, authority, c.Auth), nil
}

func headers(given map[string]map[string][]string) httpapi.StatusHeaders {
	if given == nil {
		return nil
	}
	out := httpapi.StatusHeaders{}
	for status, h := range given {
		out[status] = http.Header(h)
	}
	return out
}
