package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// BrowserLogin is a login in a browser on its way: somebody opens URL, logs in at
// their identity provider, and the provider sends the browser to the redirect
// address with parameters, with which Finish ends it.
type BrowserLogin struct {
	URL string // to open

	client *Client
	path   string
	nonce  Secret
}

// OIDC begins a login in a browser at the method mounted at auth/mount; "" is oidc.
// role is "" for the method's default; redirectURI is where the provider shall send
// the browser, as the role allows it.
func (l Logins) OIDC(ctx context.Context, mount, role, redirectURI string) (*BrowserLogin, error) {
	b := &BrowserLogin{client: l.client, path: "auth/" + mountPath(mount, "oidc") + "/oidc/", nonce: Secret(rand.Text())}
	var out struct {
		URL string `json:"auth_url"`
	}
	answer, err := l.client.ask(ctx, Request{Method: http.MethodPost, Path: b.path + "auth_url", Anonymous: true, Once: true, Body: struct {
		Role  string `json:"role,omitempty"`
		URI   string `json:"redirect_uri"`
		Nonce Secret `json:"client_nonce"`
	}{role, redirectURI, b.nonce}}, &out)
	if err != nil {
		return nil, err
	}
	if b.URL = out.URL; b.URL == "" {
		why := strings.Join(answer.Warnings, "; ")
		if why == "" {
			why = "the server does not say why"
		}
		return nil, fmt.Errorf("nobody can log in with role %q and be sent back to %s: %s", role, redirectURI, why)
	}
	return b, nil
}

// State is the parameter by which an answer of the provider is known to be of this
// login; answers with another are not.
func (b *BrowserLogin) State() string {
	u, err := url.Parse(b.URL)
	if err != nil {
		return ""
	}
	return u.Query().Get("state")
}

// Finish ends the login with the parameters that the provider sent the browser back
// with, in the query or posted. It can be called once: the server forgets the login
// whatever comes of it.
func (b *BrowserLogin) Finish(ctx context.Context, answer url.Values) (*Auth, error) {
	r, err := b.FinishRequest(ctx, answer)
	if err != nil {
		return nil, err
	}
	return b.client.grant(ctx, r)
}

// FinishRequest is the request that Finish sends last, for one that wants its whole
// answer, or that wrapped.
func (b *BrowserLogin) FinishRequest(ctx context.Context, answer url.Values) (Request, error) {
	if answer.Get("state") == "" || answer.Get("state") != b.State() {
		return Request{}, errors.New("the provider's answer is not of this login")
	}
	query := url.Values{"client_nonce": {b.nonce.Reveal()}}
	for _, name := range []string{"state", "code", "iss", "error", "error_description", "error_uri"} {
		if value := answer.Get(name); value != "" {
			query.Set(name, value)
		}
	}
	if token := answer.Get("id_token"); token != "" {
		// A token is posted, as the provider does, so that it stands in no address.
		post := Request{Method: http.MethodPost, Path: b.path + "callback", Anonymous: true, Once: true, WrapTTL: -1, Body: struct {
			State string `json:"state"`
			Token Secret `json:"id_token"`
		}{answer.Get("state"), Secret(token)}}
		if _, err := b.client.Do(ctx, post); err != nil {
			return Request{}, err
		}
	}
	return Request{Path: b.path + "callback", Query: query, Anonymous: true, Once: true}, nil
}
