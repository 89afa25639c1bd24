package client

import (
	"context"
	"net/http"
)

// Logins proves who calls and is given a token for it. A login changes nothing
// in the client; go on with WithToken(auth.Token).
type Logins struct{ client *Client }

// Login returns the login routes.
func (c *Client) Login() Logins { return Logins{c} }

// Userpass logs in by name and password at the method mounted at auth/mount;
// "" is userpass.
func (l Logins) Userpass(ctx context.Context, mount, username string, password Secret) (*Auth, error) {
	return l.At(ctx, "auth/"+mountPath(mount, "userpass")+"/login/"+username, struct {
		Password Secret `json:"password"`
	}{password})
}

// At logs in at any path of any method with the body that it wants. No token is
// sent along.
func (l Logins) At(ctx context.Context, path string, body any) (*Auth, error) {
	return l.client.grant(ctx, Request{Method: http.MethodPost, Path: path, Body: body, Anonymous: true})
}
