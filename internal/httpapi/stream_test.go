package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
)

// A body that is made while it is sent arrives whole, outlasts the bound of
// whole answers, and one that fails never looks whole.
func TestStream(t *testing.T) {
	config, pool := testTLS(t)
	var stream func(context.Context, io.Writer) error
	g := &recorder{answer: func(*gateway.Request) gateway.Answer {
		return gateway.Answer{Status: 200, ContentType: "application/octet-stream", Stream: func(ctx context.Context, w io.Writer) error { return stream(ctx, w) }}
	}}
	address, _ := start(t, Listener{
		Options: Options{Serve: g.Serve, Log: discard, MaxDuration: 100 * time.Millisecond}, TLS: config, WriteTimeout: 200 * time.Millisecond,
	})
	piece := bytes.Repeat([]byte("x"), 100<<10)
	send := func(n int, pause time.Duration, end error) func(context.Context, io.Writer) error {
		return func(ctx context.Context, w io.Writer) error {
			for range n {
				time.Sleep(pause)
				if _, err := w.Write(piece); err != nil {
					return err
				}
			}
			return errors.Join(end, ctx.Err())
		}
	}
	failure := fault.New(fault.Unavailable, "the engine went away")
	for _, http2 := range []bool{false, true} {
		c := client(t, pool, http2)
		get := func() (status int, body []byte, err error) {
			resp, err := c.Get("https://" + address + "/v1/stream")
			if err != nil {
				return 0, nil, err
			}
			defer resp.Body.Close()
			body, err = io.ReadAll(resp.Body)
			if got := resp.Header.Get("Content-Type"); resp.StatusCode == 200 && got != "application/octet-stream" {
				t.Errorf("it is %s", got)
			}
			return resp.StatusCode, body, err
		}
		stream = send(10, 50*time.Millisecond, nil) // longer than both bounds
		if status, body, err := get(); err != nil || status != 200 || len(body) != 10*len(piece) {
			t.Errorf("http2 %v: %d, %d bytes, %v", http2, status, len(body), err)
		}
		stream = send(0, 0, nil)
		if status, body, err := get(); err != nil || status != 200 || len(body) != 0 {
			t.Errorf("http2 %v, empty: %d, %d bytes, %v", http2, status, len(body), err)
		}
		stream = send(0, 0, failure)
		if status, body, err := get(); err != nil || status != 503 || !strings.Contains(string(body), "the engine went away") {
			t.Errorf("http2 %v, failed at once: %d %s %v", http2, status, body, err)
		}
		stream = send(3, 0, failure)
		if _, body, err := get(); err == nil {
			t.Errorf("http2 %v: it ends cleanly after %d bytes", http2, len(body))
		}
		stream = func(_ context.Context, w io.Writer) error {
			_, _ = w.Write(piece)
			panic("a bug")
		}
		if _, body, err := get(); err == nil {
			t.Errorf("http2 %v: a panic ends cleanly after %d bytes", http2, len(body))
		}
	}
}

// A client that leaves ends what is being made for it.
func TestStreamEndsWithItsClient(t *testing.T) {
	config, pool := testTLS(t)
	ended := make(chan error, 1)
	g := &recorder{answer: func(*gateway.Request) gateway.Answer {
		return gateway.Answer{Status: 200, Stream: func(ctx context.Context, w io.Writer) error {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					ended <- err
					return err
				}
				if ctx.Err() != nil {
					ended <- ctx.Err()
					return ctx.Err()
				}
			}
		}}
	}}
	address, _ := start(t, Listener{Options: Options{Serve: g.Serve, Log: discard}, TLS: config})
	for _, http2 := range []bool{false, true} {
		c := client(t, pool, http2)
		resp, err := c.Get("https://" + address + "/v1/stream")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		c.CloseIdleConnections()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("http2 %v: it goes on for nobody", http2)
		}
	}
}
