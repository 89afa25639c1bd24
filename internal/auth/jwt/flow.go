package jwt

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// stateLife is how long a login in a browser may take.
const stateLife = 10 * time.Minute

// state is the row of a login that was begun. Any node can finish it. It is kept
// under a fingerprint of its state parameter, so that who reads the keys of storage
// cannot finish it; and it ends with its first use.
type state struct {
	Role        string    `json:"role"`
	Config      string    `json:"config"`       // the id of the configuration it was begun under
	RedirectURI string    `json:"redirect_uri"` // must be the same when the code is exchanged
	Nonce       string    `json:"nonce"`        // must stand in the id token
	Verifier    string    `json:"verifier"`     // of PKCE: proves that who began it exchanges the code
	ClientNonce string    `json:"client_nonce"` // fingerprint of what the client must show; "" for nothing
	Expires     time.Time `json:"expires"`
	Code        string    `json:"code,omitempty"`     // what the provider posted
	IDToken     string    `json:"id_token,omitempty"` // likewise
}

// AuthURL asks for the address of a login in a browser.
type AuthURL struct {
	Role        string      `json:"role" doc:"The role to log in as; the configured default without."`
	RedirectURI string      `json:"redirect_uri" doc:"Where the provider shall send the browser back, one of the role's allowed_redirect_uris."`
	ClientNonce wire.Secret `json:"client_nonce" doc:"Made up by the client, which must send it again to finish the login."`
}

// AuthURLAnswer is the address, empty with a warning when the role does not allow
// where the browser should be sent back.
type AuthURLAnswer struct {
	route.Notes
	URL string `json:"auth_url" doc:"The address to open in a browser."`
}

const maxNonce = 256 // bytes of a client's nonce

// errNotBrowsers is Vault's text.
func errNotBrowsers() error {
	return fault.New(fault.Invalid, "OIDC login is not configured for this mount")
}

func (m *Method) authURL(ctx context.Context, by route.Caller, in AuthURL) (out AuthURLAnswer, err error) {
	c, i, err := m.trust(ctx)
	if err != nil {
		return out, err
	}
	if !c.browsers() {
		return out, errNotBrowsers()
	}
	name, o, err := m.chosen(ctx, c, in.Role)
	switch {
	case err != nil:
		return out, err
	case o.RoleType != typeOIDC:
		return out, fault.New(fault.Invalid, "role %q is of type jwt: its callers bring a token, and do not log in in a browser", name)
	case in.RedirectURI == "":
		return out, fault.New(fault.Invalid, "missing redirect_uri")
	case len(in.ClientNonce) > maxNonce:
		return out, fault.New(fault.Invalid, "client_nonce: it has at most %d bytes", maxNonce)
	}
	namespace := ""
	if c.InState {
		in.RedirectURI, namespace = withoutNamespace(in.RedirectURI)
	}
	if !redirectAllowed(in.RedirectURI, o.RedirectURIs) {
		out.Warn("the redirect_uri is not among the role's allowed_redirect_uris")
		return out, nil
	}
	e, err := i.Endpoints(ctx)
	if err != nil {
		return out, err
	}
	if err := m.begun.enter(by.Remote); err != nil {
		return out, err
	}
	s := state{
		Role: name, Config: c.ID, RedirectURI: in.RedirectURI, Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(),
		Expires: time.Now().Add(stateLife).UTC(),
	}
	if in.ClientNonce != "" {
		s.ClientNonce = m.fingerprint([]byte("client nonce " + in.ClientNonce.Reveal()))
	}
	param := rand.Text() + rand.Text()
	if _, err := m.storage.Update(ctx, func(t storage.Txn) error { return storage.Save(t, m.stateKey(param), &s) }); err != nil {
		return out, err
	}
	if namespace != "" {
		param += stateNamespace + namespace
	}
	out.URL = address(c, o, e, s, param)
	return out, nil
}

// stateKey is the key of a login's row. A namespace behind the state is the client's
// business.
func (m *Method) stateKey(param string) string {
	param, _, _ = strings.Cut(param, stateNamespace)
	return statePrefix + m.fingerprint([]byte("state "+param))
}

// address is where the browser is sent to log in (OpenID Connect Core, section
// 3.1.2.1).
func address(c *config, o *role, e issuer.Endpoints, s state, param string) string {
	options := []oauth2.AuthCodeOption{oauth2.SetAuthURLParam("nonce", s.Nonce)}
	if c.asks("id_token") {
		options = append(options, oauth2.SetAuthURLParam("response_type", "id_token"))
	} else {
		options = append(options, oauth2.S256ChallengeOption(s.Verifier))
	}
	if c.ResponseMode == "form_post" {
		options = append(options, oauth2.SetAuthURLParam("response_mode", "form_post"))
	}
	if o.MaxAge > 0 {
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.FormatInt(int64(o.MaxAge.Duration()/time.Second), 10)))
	}
	return exchange(c, o, e, s).AuthCodeURL(param, options...)
}

// exchange is how the provider is talked to.
func exchange(c *config, o *role, e issuer.Endpoints, s state) *oauth2.Config {
	scopes := []string{"openid"}
	for _, scope := range o.Scopes {
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	style := oauth2.AuthStyleInHeader
	if slices.Contains(e.AuthMethods, "client_secret_post") && !slices.Contains(e.AuthMethods, "client_secret_basic") {
		style = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{
		ClientID: c.ClientID, ClientSecret: c.ClientSecret, RedirectURL: s.RedirectURI, Scopes: scopes,
		Endpoint: oauth2.Endpoint{AuthURL: e.Authorization, TokenURL: e.Token, AuthStyle: style},
	}
}

// errNoState says that a login was not begun here, took too long, or was finished
// already.
func errNoState() error { return failed("Expired or missing OAuth state.") }

// failed is how Vault says that a login came to nothing.
func failed(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "Vault login failed. "+format, args...)
}

// take ends a login's row and returns it.
func (m *Method) take(ctx context.Context, param string) (*state, error) {
	var s *state
	_, err := m.storage.Update(ctx, func(t storage.Txn) (err error) {
		key := m.stateKey(param)
		if s, err = storage.Load[state](t, key); err != nil || s == nil {
			return err
		}
		return t.Delete(key)
	})
	if err == nil && (s == nil || !time.Now().Before(s.Expires)) {
		err = errNoState()
	}
	return s, err
}

// shown reports whether the client showed the nonce that it began the login with.
func (m *Method) shown(s *state, nonce wire.Secret) bool {
	return s.ClientNonce == "" || subtle.ConstantTimeCompare([]byte(s.ClientNonce), []byte(m.fingerprint([]byte("client nonce "+nonce.Reveal())))) == 1
}

const (
	tidyEvery = time.Minute
	page      = 100 // rows removed in one Update
)

// run removes the logins that nobody finished until ctx ends.
func (m *Method) run(ctx context.Context) error {
	ticks := time.NewTicker(tidyEvery)
	defer ticks.Stop()
	for {
		if err := m.removeEnded(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("logins that were not finished could not be removed; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

func (m *Method) removeEnded(ctx context.Context) error {
	for after := ""; ; {
		var rows []storage.Entry
		err := m.storage.View(ctx, func(t storage.Reader) (err error) {
			rows, err = t.Scan(statePrefix, after, page)
			return err
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		var ended []string
		for _, row := range rows {
			s, err := storage.Decode[state](row.Key, row.Value, nil)
			if err != nil {
				return err
			}
			if !time.Now().Before(s.Expires) {
				ended = append(ended, row.Key)
			}
		}
		if len(ended) > 0 {
			_, err := m.storage.Update(ctx, func(t storage.Txn) error {
				for _, key := range ended {
					if err := t.Delete(key); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		after = rows[len(rows)-1].Key
		if len(rows) < page {
			return nil
		}
	}
}

// home is the path of the console at which a login of this mount goes on.
func (m *Method) home(param string) string {
	query := url.Values{"state": {param}, "code": {wasPosted}}
	return "/ui/vault/auth/" + (&url.URL{Path: m.mount}).EscapedPath() + "/oidc/callback?" + query.Encode()
}

// wasPosted stands for a code that was posted, and is kept with the state.
const wasPosted = "no_code"

// trimmed is a parameter that a browser carried.
func trimmed(s wire.Secret) string { return strings.TrimSpace(s.Reveal()) }
