package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestStream(t *testing.T) {
	var asked atomic.Int32
	piece := bytes.Repeat([]byte("x"), 1<<20)
	_, c := serve(t, Config{Token: "t", MaxResponse: 1 << 10}, func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); r.URL.Path {
		case "/v1/whole":
			for range 5 {
				_, _ = w.Write(piece)
			}
		case "/v1/later":
			if n < 3 {
				w.WriteHeader(503)
				reply(w, `{"errors":["away"]}`)
				return
			}
			_, _ = io.WriteString(w, "there")
		case "/v1/breaks":
			_, _ = w.Write(piece)
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(403)
			reply(w, `{"errors":["permission denied"]}`)
		}
	})
	stream := func(path string) (int, string, error) {
		asked.Store(0)
		var out bytes.Buffer
		err := c.Stream(t.Context(), Request{Path: path}, &out)
		return out.Len(), out.String(), err
	}
	if n, _, err := stream("whole"); err != nil || n != 5<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, text, err := stream("later"); err != nil || text != "there" {
		t.Errorf("%q, %v", text, err)
	}
	if n, _, err := stream("breaks"); err == nil || asked.Load() != 1 {
		t.Errorf("%d bytes, %v, asked %d times", n, err, asked.Load())
	}
	if n, _, err := stream("denied"); !IsDenied(err) || n != 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// What comes slowly may take long; what does not come at all may not.
func TestStreamStalls(t *testing.T) {
	end := make(chan struct{})
	_, c := serve(t, Config{Timeout: 300 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		for range 8 {
			time.Sleep(100 * time.Millisecond)
			_, _ = io.WriteString(w, strings.Repeat("x", 100))
			_ = http.NewResponseController(w).Flush()
		}
		if r.URL.Path == "/v1/quiet" {
			time.Sleep(600 * time.Millisecond)
		}
		if r.URL.Path == "/v1/stalls" {
			select {
			case <-end:
			case <-r.Context().Done():
			}
		}
	})
	defer close(end)
	var out bytes.Buffer
	if err := c.Stream(context.Background(), Request{Path: "slow"}, &out); err != nil || out.Len() != 800 {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
	if err := c.Stream(context.Background(), Request{Path: "quiet", Quiet: true}, &out); err != nil || out.Len() != 1600 {
		t.Errorf("a body that may pause: %d bytes, %v", out.Len(), err)
	}
	if err := c.Stream(context.Background(), Request{Path: "quiet"}, io.Discard); !errors.Is(err, ErrStalled) {
		t.Errorf("one that may not: %v", err)
	}
	if err := c.Stream(context.Background(), Request{Path: "stalls"}, io.Discard); !errors.Is(err, ErrStalled) {
		t.Errorf("%v", err)
	}
}
