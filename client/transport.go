package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// parseAddress reads an address. For a socket it returns the socket's path and
// a stand-in for the address.
func parseAddress(address string) (base *url.URL, socket string, err error) {
	base, err = url.Parse(address)
	if err != nil {
		return nil, "", errors.New("the address is not a URL; write for example https://coffer.example.com:8200")
	}
	switch {
	case base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return nil, "", errors.New("the address must have no user, query or fragment")
	case base.Scheme == "unix":
		socket = base.Host + base.Path
		if socket == "" {
			return nil, "", fmt.Errorf("the address %q names no socket; write for example unix:///run/coffer/coffer.sock", address)
		}
		return &url.URL{Scheme: "http", Host: "localhost"}, socket, nil
	case base.Scheme != "https" && base.Scheme != "http", base.Host == "":
		return nil, "", fmt.Errorf("the address %q does not start with https://, http:// or unix://", address)
	}
	base.Path = strings.TrimSuffix(base.Path, "/")
	return base, "", nil
}

// newTransport makes the client's own transport: HTTP/2 where the server has
// it, bounded in time and size, without compression, whose length would tell
// about secrets.
func newTransport(c Config, socket string) (*http.Transport, error) {
	settings, err := c.tls()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		Proxy: c.Proxy, DialContext: dialer.DialContext, TLSClientConfig: settings,
		ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 60 * time.Second, ExpectContinueTimeout: time.Second,
		MaxIdleConns: 32, MaxIdleConnsPerHost: 16, MaxResponseHeaderBytes: 256 << 10, DisableCompression: true,
	}
	if socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	return t, nil
}

func (c Config) tls() (*tls.Config, error) {
	settings := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: c.ServerName,
		InsecureSkipVerify: c.SkipVerify, //nolint:gosec // only when the user asks for it
	}
	var err error
	if settings.RootCAs, err = c.roots(); err != nil {
		return nil, err
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		return nil, errors.New("a client certificate needs its key, and the key its certificate")
	}
	if c.ClientCert == "" {
		return settings, nil
	}
	if _, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey); err != nil {
		return nil, fmt.Errorf("the client certificate: %w", err)
	}
	// Read for each connection, so that a renewed certificate is used.
	settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
		return &pair, err
	}
	return settings, nil
}

// roots returns the certificates that are trusted, nil for the system's.
func (c Config) roots() (*x509.CertPool, error) {
	if c.CACert == "" && c.CAPath == "" && len(c.CACertPEM) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if len(c.CACertPEM) > 0 && !pool.AppendCertsFromPEM(c.CACertPEM) {
		return nil, errors.New("the CA certificates given hold none in PEM")
	}
	var files []string
	if c.CACert != "" {
		files = append(files, c.CACert)
	}
	if c.CAPath != "" {
		entries, err := os.ReadDir(c.CAPath)
		if err != nil {
			return nil, fmt.Errorf("the CA certificates: %w", err)
		}
		for _, entry := range entries {
			if !entry.IsDir() {
				files = append(files, filepath.Join(c.CAPath, entry.Name()))
			}
		}
		if len(entries) == 0 {
			return nil, fmt.Errorf("the directory %s holds no CA certificates", c.CAPath)
		}
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("the CA certificates: %w", err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", name)
		}
	}
	return pool, nil
}
