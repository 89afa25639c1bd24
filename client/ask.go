package client

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// ask sends a request of the typed parts, which want the answer itself and not
// a wrapped one, and decodes its data into a value unless that is nil.
func (c *Client) ask(ctx context.Context, r Request, into any) (*Response, error) {
	r.WrapTTL = -1
	out, err := c.Do(ctx, r)
	switch {
	case err != nil:
		return out, err
	case into != nil:
		err = out.Decode(into)
	case len(out.Body) > 0 && !isJSON(out.Header):
		err = errMalformed // a login page, say, of what stands in front of the server
	}
	if err != nil {
		return out, fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
	}
	return out, nil
}

// grant sends a request whose answer is a token.
func (c *Client) grant(ctx context.Context, r Request) (*Auth, error) {
	out, err := c.ask(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	if out.Auth == nil {
		return nil, fmt.Errorf("%s %s: the answer holds no token", r.Method, r.Path)
	}
	return out.Auth, nil
}

// names lists names; nothing there is an empty list.
func (c *Client) names(ctx context.Context, r Request) ([]string, error) {
	var out struct {
		Keys []string `json:"keys"`
	}
	r.Method = "LIST"
	_, err := c.ask(ctx, r, &out)
	if IsNotFound(err) {
		return nil, nil
	}
	return out.Keys, err
}

func get(path string) Request { return Request{Method: http.MethodGet, Path: path} }

func post(path string, body any) Request {
	return Request{Method: http.MethodPost, Path: path, Body: body}
}

func remove(path string) Request { return Request{Method: http.MethodDelete, Path: path} }

// mountPath is a mount's path without the slashes around it.
func mountPath(mount, usual string) string {
	if mount = strings.Trim(mount, "/"); mount == "" {
		return usual
	}
	return mount
}
