// Package certificate provides the server's TLS certificates: read from files
// and read again when they change, or issued by a private authority that is made
// at first start, so that TLS is on although nobody has set anything up.
//
// It is not the certificate authority that users get: that is an engine.
package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how often files are looked at for changes.
const checkEvery = time.Second

// Files names the PEM files of a listener.
type Files struct {
	Cert     string // the certificate and its intermediates
	Key      string // its private key
	ClientCA string // who issues client certificates; "" accepts none
}

// Pair is a certificate that is read from files and kept up to date. A handshake
// uses what was last read whole: while files are being exchanged, and when the
// new ones do not fit, the old pair stays.
type Pair struct {
	files Files
	log   *slog.Logger

	mu      sync.Mutex // one Reload at a time
	read    contents
	current atomic.Pointer[loaded]
}

// contents is what the files held.
type contents struct{ cert, key, clientCA []byte }

func (c contents) equal(o contents) bool {
	return bytes.Equal(c.cert, o.cert) && bytes.Equal(c.key, o.key) && bytes.Equal(c.clientCA, o.clientCA)
}

type loaded struct {
	certificate tls.Certificate
	clients     *x509.CertPool
}

// Load reads the files. Call Watch to keep them up to date.
func Load(files Files, log *slog.Logger) (*Pair, error) {
	p := &Pair{files: files, log: log}
	if _, err := p.Reload(); err != nil {
		return nil, err
	}
	return p, nil
}

// Reload reads the files again and reports whether they held something new. On
// an error the pair stays as it is.
func (p *Pair) Reload() (changed bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := p.files.read()
	if err != nil {
		return false, err
	}
	if p.current.Load() != nil && now.equal(p.read) {
		return false, nil
	}
	next, err := p.files.parse(now)
	if err != nil {
		return false, &refusedError{now, err}
	}
	p.read = now
	p.current.Store(next)
	return true, nil
}

// refusedError is an error about what files hold, as against reading them.
type refusedError struct {
	contents contents
	err      error
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// Watch reloads the files when they change, until ctx ends. Their contents are
// compared, not their times: a link that is exchanged and a file that is written
// twice within a second are seen too.
func (p *Pair) Watch(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	unreadable := false
	var logged contents // what was last refused, so that it is logged once
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := p.Reload()
		var refused *refusedError
		switch {
		case errors.As(err, &refused):
			unreadable = false
			if !refused.contents.equal(logged) {
				logged = refused.contents
				p.log.Error("the new TLS certificate is refused, the old one stays", "file", p.files.Cert, "error", err)
			}
		case err != nil:
			if !unreadable {
				p.log.Error("the TLS files cannot be read, the old certificate stays", "file", p.files.Cert, "error", err)
			}
			unreadable = true
		default:
			unreadable, logged = false, contents{}
			if changed {
				p.log.Info("a new TLS certificate is in use", "file", p.files.Cert, "expires", p.Expiry())
			}
		}
	}
}

// Certificate returns the certificate for a handshake; it is made for
// tls.Config.GetCertificate.
func (p *Pair) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return &p.current.Load().certificate, nil
}

// Clients returns the authorities of client certificates, nil for none.
func (p *Pair) Clients() *x509.CertPool { return p.current.Load().clients }

// Expiry is when the certificate in use expires.
func (p *Pair) Expiry() time.Time { return p.current.Load().certificate.Leaf.NotAfter }

func (f Files) read() (contents, error) {
	var c contents
	var err error
	if c.cert, err = os.ReadFile(f.Cert); err != nil {
		return c, fmt.Errorf("read the TLS certificate: %w", err)
	}
	if c.key, err = os.ReadFile(f.Key); err != nil {
		return c, fmt.Errorf("read the TLS key: %w", err)
	}
	if f.ClientCA == "" {
		return c, nil
	}
	if c.clientCA, err = os.ReadFile(f.ClientCA); err != nil {
		return c, fmt.Errorf("read the client CA: %w", err)
	}
	return c, nil
}

func (f Files) parse(c contents) (*loaded, error) {
	pair, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s are no TLS certificate and its key: %w", f.Cert, f.Key, err)
	}
	l := &loaded{certificate: pair}
	if l.certificate.Leaf == nil {
		if l.certificate.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Cert, err)
		}
	}
	if f.ClientCA != "" {
		l.clients = x509.NewCertPool()
		if !l.clients.AppendCertsFromPEM(c.clientCA) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", f.ClientCA)
		}
	}
	return l, nil
}

// Source is where a listener's certificate comes from: a Pair or an Authority.
type Source interface {
	Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Clients() *x509.CertPool
}

// Config returns base with its certificates, and the authorities of its
// clients, taken from source at each handshake. auth says whether a client
// certificate is asked for or required; one that is only asked for is verified by
// nobody here.
func Config(base *tls.Config, source Source, auth tls.ClientAuthType) *tls.Config {
	config := base.Clone()
	config.GetCertificate = source.Certificate
	config.ClientAuth = auth
	if auth < tls.VerifyClientCertIfGiven || source.Clients() == nil {
		return config
	}
	perHello := config.Clone()
	config.ClientCAs = source.Clients()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		// Built anew for each handshake, so that a withdrawn authority counts at
		// once, and without session tickets, which would outlive it.
		fresh := perHello.Clone()
		fresh.ClientCAs = source.Clients()
		fresh.SessionTicketsDisabled = true
		fresh.NextProtos = []string{"h2", "http/1.1"}
		return fresh, nil
	}
	return config
}
