package client

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// pause decides whether a call is sent again after an attempt, and how long to
// wait before.
func (c *Client) pause(t attempt, r *call, retry int) (wait time.Duration, again bool) {
	if r.once || retry >= c.config.MaxRetries || !repeatable(t, r.reads) {
		return 0, false
	}
	wait = c.backoff(retry)
	if t.answer == nil {
		return wait, true
	}
	// What the server asks for is kept to; the random part on top keeps those
	// who were all told the same from coming back together.
	asked := retryAfter(t.answer.Header, time.Now())
	return asked + wait, asked <= c.config.RetryAfter
}

// repeatable reports whether a request may be sent again: after errors, when it
// did not get through or only reads; after an answer, when the server was not
// able to handle it. A write is refused unhandled with 429 and, where the
// answer says when to come again, with 503; a gateway's 502 or 504 leaves open
// what became of it.
func repeatable(t attempt, reads bool) bool {
	if t.err != nil {
		return !t.final && (reads || !t.sent)
	}
	switch t.answer.Status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusServiceUnavailable:
		return reads || t.answer.Header.Get("Retry-After") != ""
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return reads
	}
	return false
}

// backoff is a random time up to a bound that doubles with each retry.
func (c *Client) backoff(retry int) time.Duration {
	bound := c.config.RetryMin
	for range retry {
		if bound >= c.config.RetryMax/2 {
			bound = c.config.RetryMax
			break
		}
		bound *= 2
	}
	return rand.N(min(bound, c.config.RetryMax) + 1)
}

// retryAfter reads the header, in seconds or as a date (RFC 9110, section
// 10.2.3); 0 is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(at.Sub(now), 0)
}

// sleep waits, and reports whether there is time left after it. A wait that the
// deadline would cut short is not begun.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	return wait(ctx, d)
}
