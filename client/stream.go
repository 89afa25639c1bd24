package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// ErrStalled says that nothing came for as long as Config.Timeout.
var ErrStalled = errors.New("the server sends nothing any more")

// Stream sends a request and copies the body of its answer to a writer as it
// comes, however long it is. Config.Timeout bounds the wait for each next piece, unless
// the request is Quiet, and not the whole. A refusal is an *Error as Do returns it, and then nothing was
// written; after any other error the writer may hold a part. It is not sent again
// once something was written.
func (c *Client) Stream(ctx context.Context, r Request, to io.Writer) error {
	call, err := c.prepare(r)
	if err != nil {
		return fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := c.config.Timeout
	if patience > 0 && !r.Quiet {
		timer := time.AfterFunc(patience, func() { cancel(ErrStalled) })
		defer timer.Stop()
		to = &alive{to, func() { timer.Reset(patience) }}
	}
	call.into = to
	for retry := 0; ; retry++ {
		t := c.send(ctx, call)
		wait, again := c.pause(t, call, retry)
		if !again || !sleep(ctx, wait) {
			return call.failure(ctx, t)
		}
	}
}

// alive notes that something came.
type alive struct {
	to   io.Writer
	came func()
}

func (a *alive) Write(b []byte) (int, error) {
	a.came()
	return a.to.Write(b)
}

// pour copies the body of an answer.
func pour(answer *http.Response, to io.Writer) attempt {
	defer answer.Body.Close()
	if _, err := io.Copy(to, answer.Body); err != nil {
		return attempt{err: fmt.Errorf("the answer broke off: %w", err), sent: true, final: true}
	}
	return attempt{answer: &Response{Status: answer.StatusCode, Header: answer.Header}, sent: true, final: true}
}
