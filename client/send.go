package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// maxRedirects is how many redirects one attempt follows.
const maxRedirects = 3

// attempt is how one attempt ended: with an answer, or with an error and
// whether the server may have seen the request.
type attempt struct {
	answer *Response
	err    error
	sent   bool
	final  bool // it would end the same way again
}

// send makes one attempt, with the redirects it meets.
func (c *Client) send(ctx context.Context, r *call) attempt {
	at := r.url
	for redirects := 0; ; redirects++ {
		answer, t := c.roundTrip(ctx, r, at)
		if answer == nil {
			return t
		}
		next, err := c.redirect(r, at, answer, redirects)
		if err != nil || next == nil {
			if err != nil {
				return attempt{err: err, final: true}
			}
			if r.into != nil && answer.StatusCode == http.StatusOK {
				return pour(answer, r.into)
			}
			return c.take(answer)
		}
		drop(answer)
		at = next
	}
}

// roundTrip sends the request to one place. It returns an answer whose body is
// not read yet, or else how the attempt ended.
func (c *Client) roundTrip(ctx context.Context, r *call, at *url.URL) (*http.Response, attempt) {
	var connected atomic.Bool
	// The transport itself starts over where it knows that the server, say on a
	// connection just closed, did not take the request.
	trace := &httptrace.ClientTrace{
		GetConn: func(string) { connected.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), r.verb, at.String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, attempt{err: err, final: true}
	}
	if len(r.body) == 0 {
		req.Body, req.GetBody, req.ContentLength = http.NoBody, nil, 0
	}
	req.Header = r.header.Clone() // a transport of the user's may add to it
	answer, err := c.carrier.RoundTrip(req)
	if err == nil {
		return answer, attempt{}
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		err = fmt.Errorf("the server does not speak TLS at this address: %w", err)
	}
	// A transport of the user's may not report connections.
	return nil, attempt{err: err, sent: connected.Load() || c.own == nil, final: hopeless(err)}
}

// hopeless reports whether an error means that the settings are wrong.
func hopeless(err error) bool {
	var verification *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	return errors.As(err, &verification) || errors.As(err, &alert) || errors.As(err, &record)
}

// take reads an answer to its end.
func (c *Client) take(answer *http.Response) attempt {
	defer answer.Body.Close()
	limit := c.config.MaxResponse
	if answer.ContentLength > limit {
		return attempt{err: tooLarge(limit), sent: true, final: true}
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	switch {
	case int64(len(body)) > limit:
		return attempt{err: tooLarge(limit), sent: true, final: true}
	case err != nil:
		return attempt{err: fmt.Errorf("reading the answer: %w", err), sent: true}
	}
	out := &Response{Status: answer.StatusCode, Header: answer.Header, Body: body}
	if err := out.read(); err != nil {
		return attempt{err: err, sent: true, final: true}
	}
	return attempt{answer: out, sent: true}
}

func tooLarge(limit int64) error {
	return fmt.Errorf("the answer is larger than %d bytes", limit)
}

// drop reads a little of an unwanted body, so that its connection can be used
// again.
func drop(answer *http.Response) {
	_, _ = io.CopyN(io.Discard, answer.Body, 4<<10)
	_ = answer.Body.Close()
}

// redirect returns where an answer sends the request, nil when it does not. The
// token goes along, so a redirect never leads out of TLS.
func (c *Client) redirect(r *call, at *url.URL, answer *http.Response, done int) (*url.URL, error) {
	switch answer.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if !r.reads {
			return nil, nil
		}
	default:
		return nil, nil
	}
	where := answer.Header.Get("Location")
	if where == "" {
		return nil, nil
	}
	defer drop(answer)
	next, err := at.Parse(where)
	switch {
	case err != nil || next.Host == "" || next.User != nil:
		return nil, errors.New("the server redirects to what is not an address")
	case c.unix:
		return nil, errors.New("the server redirects away from its socket; name its address instead")
	case next.Scheme != "https" && next.Scheme != at.Scheme:
		return nil, fmt.Errorf("the server redirects from %s to %s, which would show the token to everyone on the way", at.Scheme, next.Scheme)
	case done >= maxRedirects:
		return nil, fmt.Errorf("the server redirected more than %d times", maxRedirects)
	}
	return next, nil
}

func isJSON(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}

// failure makes the error of how a call ended, nil when it ended well.
func (r *call) failure(ctx context.Context, t attempt) error {
	if t.err != nil {
		err := t.err
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w (%w)", cause, err)
		}
		if t.sent && !r.reads {
			return fmt.Errorf("%s %s: %w; %w", r.method, r.path, err, ErrUncertain)
		}
		return fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	if t.answer.Status >= 200 && t.answer.Status < 300 {
		return nil
	}
	refusal := &Error{
		Method: r.method, Path: r.path, Status: t.answer.Status, Errors: t.answer.errors,
		RequestID: t.answer.RequestID, RetryAfter: retryAfter(t.answer.Header, time.Now()),
	}
	if ctx.Err() != nil { // it ended while the call waited to try again
		return fmt.Errorf("%w; %w", refusal, context.Cause(ctx))
	}
	return refusal
}
