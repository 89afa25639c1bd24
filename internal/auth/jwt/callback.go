package jwt

import (
	"context"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Callback is what the provider sent back, carried on by the client.
type Callback struct {
	State       wire.Secret `json:"state" query:"state" doc:"As it was in the address."`
	Code        wire.Secret `json:"code" query:"code" doc:"The provider's code; no_code for one that was posted."`
	IDToken     wire.Secret `json:"id_token" query:"id_token" doc:"The provider's token, posted."`
	ClientNonce wire.Secret `json:"client_nonce" query:"client_nonce" doc:"What the client began the login with."`
	Issuer      string      `json:"iss" query:"iss" doc:"Who the provider says it is (RFC 9207)."`
	Error       string      `json:"error" query:"error" doc:"Why the provider refused."`
	Description string      `json:"error_description" query:"error_description" doc:"The same in words."`
	ErrorURI    string      `json:"error_uri" query:"error_uri" doc:"The same as a page."`
}

const (
	maxCode  = 4096 // bytes of a provider's code
	maxState = 1024 // bytes of a state parameter
)

func (m *Method) callback(ctx context.Context, _ route.Caller, in Callback) (auth.Login, error) {
	c, i, err := m.trust(ctx)
	if err != nil {
		return auth.Login{}, err
	}
	if len(in.State) > maxState || len(in.Code) > maxCode {
		return auth.Login{}, errNoState()
	}
	s, err := m.take(ctx, in.State.Reveal())
	if err != nil {
		return auth.Login{}, err
	}
	o, err := lately[role](ctx, m, rolePrefix+s.Role)
	switch {
	case err != nil:
		return auth.Login{}, err
	case o == nil || o.RoleType != typeOIDC:
		return auth.Login{}, failed("Role could not be found")
	case s.Config != c.ID:
		return auth.Login{}, failed("The configuration was changed meanwhile; begin again.")
	case in.Error != "":
		m.log.Warn("the provider refused a login", "role", s.Role, "error", clip(in.Error), "description", clip(in.Description))
		return auth.Login{}, failed("%s", said(in.Error))
	case !m.shown(s, in.ClientNonce):
		return auth.Login{}, fault.New(fault.Invalid, "invalid client_nonce")
	}
	claims, err := m.finish(ctx, attempt{c, i, o, s, in})
	if err != nil {
		return auth.Login{}, err
	}
	return m.identify(s.Role, o, claims)
}

// said is a provider's reason, if it is one of those that there are (RFC 6749,
// section 4.1.2.1; OpenID Connect Core, section 3.1.2.6).
func said(reason string) string {
	known := []string{
		"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope", "server_error", "temporarily_unavailable",
		"interaction_required", "login_required", "account_selection_required", "consent_required",
	}
	if slices.Contains(known, reason) {
		return "The provider refused: " + reason
	}
	return "The provider refused, for a reason that is in the server's log."
}

// clip shortens what a stranger wrote, for the log.
func clip(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), 200)], "")
}

// attempt is a login on its way back.
type attempt struct {
	c  *config
	i  *issuer.Issuer
	o  *role
	s  *state
	in Callback
}

// finish gets the provider's token and returns what it claims.
func (m *Method) finish(ctx context.Context, a attempt) (issuer.Claims, error) {
	e, err := a.i.Endpoints(ctx)
	if err != nil {
		return nil, err
	}
	// An answer of another provider, to which its code is not to be shown.
	if a.in.Issuer != "" && a.in.Issuer != e.Issuer {
		return nil, failed("The answer is of another provider than the one that was asked.")
	}
	code := trimmed(a.in.Code)
	if code == wasPosted || code == "" {
		code = a.s.Code
	}
	if code == "" {
		if a.s.IDToken == "" || !a.c.asks("id_token") {
			return nil, failed("No code or id_token received.")
		}
		return a.verify(ctx, a.s.IDToken)
	}
	token, err := a.redeem(ctx, e, code)
	if err != nil {
		return nil, err
	}
	id, _ := token.Extra("id_token").(string)
	if id == "" {
		return nil, fault.New(fault.Invalid, "Token verification failed. No id_token found in response.")
	}
	claims, err := a.verify(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := a.inform(ctx, e, token, claims); err != nil {
		m.log.Warn("the provider's userinfo endpoint said nothing of use; the login goes on with what the token claims", "error", err)
	}
	return claims, nil
}

// redeem exchanges a code for tokens (RFC 6749, section 4.1.3; RFC 7636).
func (a attempt) redeem(ctx context.Context, e issuer.Endpoints, code string) (*oauth2.Token, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, a.i.Client())
	token, err := exchange(a.c, a.o, e, *a.s).Exchange(ctx, code, oauth2.VerifierOption(a.s.Verifier))
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode < 500:
		reason := refused.ErrorCode
		if len(reason) > 64 || reason == "" {
			reason = refused.Response.Status
		}
		return nil, failed("Error exchanging oidc code: the provider refused: %q.", reason)
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, err, "Vault login failed. Error exchanging oidc code: the provider cannot be reached at %s, or answers what is not understood.", e.Token)
	}
	return token, nil
}

// verify returns what an id token claims if it is the answer to this login (OpenID
// Connect Core, section 3.1.3.7).
func (a attempt) verify(ctx context.Context, token string) (issuer.Claims, error) {
	const doing = "Token verification failed. "
	want := a.o.expect(a.c)
	want.Audiences, want.NeedExpiry = []string{a.c.ClientID}, true
	claims, err := a.i.Verify(ctx, token, want)
	if err != nil {
		return nil, told(doing, err)
	}
	audience, _ := claims.Texts("aud")
	party := claims.Text("azp")
	since, err := claims.Time("auth_time")
	if err != nil {
		return nil, told(doing, err)
	}
	switch {
	case claims.Text("nonce") != a.s.Nonce:
		return nil, fault.New(fault.Invalid, doing+"The token is not of this login: its nonce is another.")
	case party != a.c.ClientID && (party != "" || len(audience) > 1):
		return nil, fault.New(fault.Invalid, doing+"The token was made for another client (azp).")
	case len(a.o.BoundAudiences) > 0 && !slices.ContainsFunc(audience, func(one string) bool { return slices.Contains(a.o.BoundAudiences, one) }):
		return nil, fault.New(fault.Invalid, doing+"The token is for none of the role's bound_audiences.")
	case a.o.MaxAge > 0 && since.IsZero():
		return nil, fault.New(fault.Invalid, doing+"The provider does not say when the person logged in (auth_time), and the role has a max_age.")
	case a.o.MaxAge > 0 && time.Since(since) > a.o.MaxAge.Duration()+want.Skew:
		return nil, fault.New(fault.Invalid, doing+"The person logged in at the provider longer ago than the role's max_age; log in there again.")
	}
	return claims, nil
}

// inform adds what the userinfo endpoint says to the claims (OpenID Connect Core,
// section 5.3). What is signed is not changed by it.
func (a attempt) inform(ctx context.Context, e issuer.Endpoints, token *oauth2.Token, claims issuer.Claims) error {
	if e.Userinfo == "" {
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.Userinfo, nil)
	if err != nil {
		return err
	}
	token.SetAuthHeader(request)
	answer, err := a.i.Client().Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	decoder := json.NewDecoder(io.LimitReader(answer.Body, issuer.MaxDocument))
	decoder.UseNumber()
	var more map[string]any
	if err := decoder.Decode(&more); err != nil || answer.StatusCode != http.StatusOK {
		return fault.Wrap(fault.Unavailable, err, "it answered %s, and no JSON object", answer.Status)
	}
	// Another person's claims must not be taken for this one's.
	if subject, _ := more["sub"].(string); subject == "" || subject != claims.Text("sub") {
		return fault.New(fault.Unavailable, "it speaks of another subject")
	}
	for name, value := range more {
		if _, signed := claims[name]; !signed {
			claims[name] = value
		}
	}
	return nil
}

// posted keeps what a provider posted, and sends the browser on to where the login
// is finished.
func (m *Method) posted(ctx context.Context, _ route.Caller, in Callback) (route.Raw, error) {
	c, _, err := m.trust(ctx)
	if err != nil {
		return route.Raw{}, err
	}
	if c.ResponseMode != "form_post" {
		return route.Raw{}, fault.New(fault.Method, "the provider is not configured to post its answers (oidc_response_mode)")
	}
	if len(in.State) > maxState || len(in.Code) > maxCode || len(in.IDToken) > issuer.MaxToken {
		return notice(http.StatusBadRequest, "Login failed", "What the provider sent is too long."), nil
	}
	if in.Error != "" {
		if _, err := m.take(ctx, in.State.Reveal()); err != nil && !fault.Is(err, fault.Invalid) {
			return route.Raw{}, err
		}
		m.log.Warn("the provider refused a login", "error", clip(in.Error), "description", clip(in.Description))
		return notice(http.StatusBadRequest, "Login failed", said(in.Error)), nil
	}
	found := false
	_, err = m.storage.Update(ctx, func(t storage.Txn) error {
		key := m.stateKey(in.State.Reveal())
		s, err := storage.Load[state](t, key)
		if found = err == nil && s != nil && s.Code == "" && s.IDToken == "" && time.Now().Before(s.Expires); !found {
			return err
		}
		s.Code, s.IDToken = trimmed(in.Code), trimmed(in.IDToken)
		return storage.Save(t, key, s)
	})
	if err != nil {
		return route.Raw{}, err
	}
	if !found {
		return notice(http.StatusBadRequest, "Login failed", "Expired or missing OAuth state."), nil
	}
	out := notice(http.StatusOK, "Logging in", `<a href="`+html.EscapeString(m.home(in.State.Reveal()))+`">Continue</a>`)
	return out, nil
}

// notice is a page without scripts. text is HTML.
func notice(status int, title, text string) route.Raw {
	var page strings.Builder
	page.WriteString("<!doctype html>\n<meta charset=\"utf-8\">\n<title>" + title + "</title>\n<h1>" + title + "</h1>\n<p>" + text + "</p>\n")
	return route.Raw{Notes: route.Notes{Status: status}, ContentType: "text/html; charset=utf-8", Body: []byte(page.String())}
}
