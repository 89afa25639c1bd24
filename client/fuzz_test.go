package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzAnswer lets a server answer anything. Whatever it is, the client must
// neither panic nor take it for an envelope that it is not, and must not repeat
// it in an error.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		fine, `{"request_id":"1","lease_duration":"1h","data":{"data":{"k":1},"metadata":{"version":2,"created_time":"2030-01-31T12:00:00Z","deletion_time":""}},"warnings":["w"]}`,
		`{"request_id":"1","auth":{"client_token":"t","lease_duration":3600,"renewable":true,"metadata":null}}`, `{"request_id":"1","wrap_info":{"token":"t","ttl":1,"creation_time":"2030-01-31T12:00:00Z"}}`,
		`{"errors":["a"],"request_id":"2"}`, `{"sealed":true,"t":2}`, `null`, `[]`, `{"request_id":1}`, `{"data":null,"request_id":"1"}`, `{"errors":{}}`, `{"lease_duration":1e999,"request_id":"1"}`, ``,
	} {
		f.Add(200, "application/json", body)
		f.Add(404, "application/json", body)
		f.Add(503, "text/html", body)
	}
	f.Fuzz(func(t *testing.T, status int, kind, body string) {
		if status < 200 || status > 599 {
			return
		}
		c, err := New(Config{MaxRetries: -1, Transport: carrier(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, ContentLength: -1, Body: io.NopCloser(strings.NewReader(body))}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		out, err := c.Do(ctx, Request{Path: "x"})
		if status >= 200 && status < 300 && err == nil && string(out.Body) != body {
			t.Fatalf("the body is not what came: %q", []byte(out.Body))
		}
		if (status < 200 || status > 299) && err == nil {
			t.Fatal("a refusal is no error")
		}
		var refusal *Error
		if err != nil && !errors.As(err, &refusal) && len(body) > 8 && strings.Contains(err.Error(), body) {
			t.Fatalf("the error repeats the answer: %v", err)
		}
		if out != nil {
			if text := fmt.Sprintf("%v %+v %s", out, *out, out.Data); len(out.Data) > 12 && strings.Contains(text, string(out.Data.Reveal())) {
				t.Fatalf("the data is printed: %s", text)
			}
			var any any
			_ = out.Decode(&any)
		}
		kv := c.KV("secret")
		_, _ = kv.Get(ctx, "x")
		_, _ = kv.Metadata(ctx, "x")
		_, _ = kv.Labels(ctx, "x")
		for _, err := range kv.List(ctx, "x") {
			if err != nil {
				break
			}
		}
		for range kv.Search(ctx, Query{}) {
			break
		}
		_, _ = c.Token().LookupSelf(ctx)
		_, _ = c.Token().RenewSelf(ctx, 0)
		_, _ = c.Sys().SealStatus(ctx)
		_, _ = c.Sys().Mounts(ctx)
		_, _ = c.Sys().Capabilities(ctx, "a", "b")
		_, _ = c.Wrapping().Unwrap(ctx, "t")
	})
}

type carrier func(*http.Request) (*http.Response, error)

func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) { return c(r) }
