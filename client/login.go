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

// LDAP logs in by the name and password of a directory, at the method mounted at
// auth/mount; "" is ldap.
func (l Logins) LDAP(ctx context.Context, mount, username string, password Secret) (*Auth, error) {
	return l.Userpass(ctx, mountPath(mount, "ldap"), username, password)
}

// AppRole logs a program in at the method mounted at auth/mount; "" is approle.
// secretID is "" where the role needs none.
func (l Logins) AppRole(ctx context.Context, mount, roleID string, secretID Secret) (*Auth, error) {
	return l.At(ctx, "auth/"+mountPath(mount, "approle")+"/login", struct {
		RoleID   string `json:"role_id"`
		SecretID Secret `json:"secret_id,omitempty"`
	}{roleID, secretID})
}

// JWT logs in with a token of an issuer that the method mounted at auth/mount
// trusts; "" is jwt. role is "" for the method's default.
func (l Logins) JWT(ctx context.Context, mount, role string, token Secret) (*Auth, error) {
	return l.At(ctx, "auth/"+mountPath(mount, "jwt")+"/login", struct {
		Role string `json:"role,omitempty"`
		JWT  Secret `json:"jwt"`
	}{role, token})
}

// At logs in at any path of any method with the body that it wants. No token is
// sent along.
func (l Logins) At(ctx context.Context, path string, body any) (*Auth, error) {
	return l.client.grant(ctx, Request{Method: http.MethodPost, Path: path, Body: body, Anonymous: true})
}
