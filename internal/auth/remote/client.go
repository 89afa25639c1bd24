package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Client asks one server again and again, over connections that are kept. It
// follows no redirect.
type Client struct {
	http  http.Client
	limit int64
}

// Answer is what a server answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// NewClient returns a client of servers whose certificates are of the authorities
// in ca, in PEM; "" is what the machine trusts. An answer of more than limit bytes
// is refused.
func NewClient(ca string, limit int64) (*Client, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("it holds no certificate in PEM")
		}
	}
	t := transport(settings)
	t.DisableKeepAlives, t.MaxIdleConnsPerHost, t.IdleConnTimeout = false, 16, 30*time.Second
	return &Client{limit: limit, http: http.Client{
		Transport: t, Timeout: Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Send sends a request, which has to carry its context. Errors say what went wrong
// and repeat nothing of the request or the answer.
func (c *Client) Send(r *http.Request) (Answer, error) {
	answer, err := c.http.Do(r)
	if err != nil {
		return Answer{}, plain(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, c.limit+1))
	switch {
	case err != nil:
		return Answer{}, plain(err)
	case int64(len(body)) > c.limit:
		return Answer{}, fmt.Errorf("its answer is longer than %d bytes", c.limit)
	}
	return Answer{answer.StatusCode, answer.Header, body}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// plain is bare, which also knows a client's own timeout.
func plain(err error) error {
	var slow interface{ Timeout() bool }
	if errors.As(err, &slow) && slow.Timeout() {
		return fmt.Errorf("it does not answer within %v", Timeout)
	}
	return bare(err)
}

// Secure refuses a URL to which no secret may be sent: one that is neither https
// nor, for what runs on this machine, http to its loopback.
func Secure(text string) (*url.URL, error) {
	u, err := CheckURL(text)
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, errors.New("it must begin with https://")
	}
	return u, nil
}
