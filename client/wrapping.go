package client

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Wrappings hands answers over behind tokens of one use.
type Wrappings struct{ client *Client }

// Wrapping returns the wrapping routes. Any answer is wrapped by
// Request.WrapTTL.
func (c *Client) Wrapping() Wrappings { return Wrappings{c} }

// Wrap puts data, which is marshalled to a JSON object, behind a token that
// lives for ttl.
func (w Wrappings) Wrap(ctx context.Context, data any, ttl time.Duration) (*WrapInfo, error) {
	return w.info(ctx, Request{Method: http.MethodPost, Path: "sys/wrapping/wrap", Body: data, WrapTTL: ttl})
}

// Unwrap returns the answer behind a wrapping token and ends the token. It is
// never tried twice: when it fails for an answer that got lost, what was
// wrapped is lost with it.
func (w Wrappings) Unwrap(ctx context.Context, token Secret) (*Response, error) {
	return w.client.Do(ctx, Request{Method: http.MethodPost, Path: "sys/wrapping/unwrap", Token: token, WrapTTL: -1})
}

// WrapState is what may be known of a wrapping token without using it.
type WrapState struct {
	CreationPath string  `json:"creation_path"` // of the request whose answer is wrapped
	CreationTime Time    `json:"creation_time"`
	CreationTTL  Seconds `json:"creation_ttl"`
}

// Lookup returns when and for what a wrapping token was made. Check it before
// Unwrap: a CreationPath that was not expected means that someone put another
// answer in its place.
func (w Wrappings) Lookup(ctx context.Context, token Secret) (*WrapState, error) {
	out := new(WrapState)
	r := Request{Method: http.MethodPost, Path: "sys/wrapping/lookup", Body: ofToken{token}, Reads: true, Anonymous: true}
	if _, err := w.client.ask(ctx, r, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Rewrap puts what is behind a wrapping token behind a fresh one.
func (w Wrappings) Rewrap(ctx context.Context, token Secret) (*WrapInfo, error) {
	return w.info(ctx, Request{Method: http.MethodPost, Path: "sys/wrapping/rewrap", Body: ofToken{token}, Anonymous: true, WrapTTL: -1})
}

func (w Wrappings) info(ctx context.Context, r Request) (*WrapInfo, error) {
	out, err := w.client.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	if out.WrapInfo == nil {
		return nil, fmt.Errorf("%s %s: the answer is not wrapped", r.Method, r.Path)
	}
	return out.WrapInfo, nil
}
