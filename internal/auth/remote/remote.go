// Package remote asks the servers that auth methods rely on, such as those of
// revocation lists and of trust bundles: with an end, a size beyond which an
// answer is refused, and few redirects. What an answer means is its caller's, and
// so is which servers are asked.
package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Timeout is when a server is given up.
const Timeout = 10 * time.Second

const maxRedirects = 3

// Question is one request.
type Question struct {
	URL    string
	Post   []byte // nil asks with GET
	Type   string // of Post
	Accept string
	Limit  int64       // bytes of the longest answer
	TLS    *tls.Config // nil trusts what the machine trusts
}

// CheckURL refuses what is no http or https URL of a server.
func CheckURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return nil, errors.New("it is not a URL; write for example https://pki.example.com/ca.crl")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("it is a URL of neither http nor https")
	case u.User != nil:
		return nil, errors.New("it has a user name in it")
	}
	return u, nil
}

// Ask returns the answer's body. Errors say what went wrong and never repeat what
// was answered.
func (q Question) Ask(ctx context.Context) ([]byte, error) {
	u, err := CheckURL(q.URL)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if q.Post != nil {
		method, body = http.MethodPost, bytes.NewReader(q.Post)
	}
	request, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if q.Type != "" {
		request.Header.Set("Content-Type", q.Type)
	}
	if q.Accept != "" {
		request.Header.Set("Accept", q.Accept)
	}
	client := http.Client{Transport: transport(q.TLS), CheckRedirect: func(next *http.Request, before []*http.Request) error {
		switch {
		case len(before) > maxRedirects:
			return fmt.Errorf("it redirects more than %d times", maxRedirects)
		case u.Scheme == "https" && next.URL.Scheme != "https":
			return errors.New("it redirects from https to http")
		}
		return nil
	}}
	defer client.CloseIdleConnections()
	answer, err := client.Do(request)
	if err != nil {
		return nil, bare(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %d", answer.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, q.Limit+1))
	switch {
	case err != nil:
		return nil, bare(err)
	case int64(len(text)) > q.Limit:
		return nil, fmt.Errorf("its answer is longer than %d bytes", q.Limit)
	}
	return text, nil
}

// transport is for one request: the settings of its TLS may be others the next
// time.
func transport(settings *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: Timeout}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: settings, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: Timeout, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true, DisableKeepAlives: true,
	}
}

// bare is an error without the URL, which its reader has.
func bare(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("it does not answer within %v", Timeout)
	}
	return err
}
