package client

import (
	"context"
	"net/http"
	"strings"
)

// Plain is a mount of secrets without versions: kv version 1, or cubbyhole,
// which every token has of its own.
type Plain struct {
	client *Client
	mount  string
}

// Plain returns the mount at a path; "" is cubbyhole.
func (c *Client) Plain(mount string) Plain { return Plain{c, mountPath(mount, "cubbyhole")} }

func (p Plain) at(path string) string { return p.mount + "/" + strings.TrimPrefix(path, "/") }

// Get returns a secret, a JSON object.
func (p Plain) Get(ctx context.Context, path string) (Raw, error) {
	out, err := p.client.ask(ctx, get(p.at(path)), nil)
	if err != nil {
		return nil, err
	}
	return out.Data, nil
}

// Put writes a secret in place of the one that there is. data is marshalled to
// a JSON object.
func (p Plain) Put(ctx context.Context, path string, data any) error {
	_, err := p.client.ask(ctx, Request{Method: http.MethodPost, Path: p.at(path), Body: data}, nil)
	return err
}

// Delete deletes a secret.
func (p Plain) Delete(ctx context.Context, path string) error {
	_, err := p.client.ask(ctx, remove(p.at(path)), nil)
	return err
}

// List returns the names in a folder, in order; a name with more below it ends
// in a slash. A folder that does not exist has no names.
func (p Plain) List(ctx context.Context, folder string) ([]string, error) {
	return p.client.names(ctx, get(strings.TrimSuffix(p.at(folder), "/")+"/"))
}
