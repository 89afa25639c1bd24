// Package providertest runs an identity provider for people inside a test: a whole
// OpenID Connect provider over real TLS, with a page to log in on, and a browser
// that goes there. It is for tests of logins in a browser; package issuertest has
// an issuer that can be made to misbehave.
package providertest

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/text/language"
)

// What the provider knows: a client, and two people with the same password. Ada is
// in the groups engineers and admins, Bob in none of them.
const (
	ClientID     = "coffer"
	ClientSecret = "the client's secret"
	Password     = "verysecure"
	Ada          = "ada"
	Bob          = "bob"
)

// Provider is a running provider.
type Provider struct {
	URL string
	CA  string // PEM of the authority of its certificate
}

// New starts a provider that sends browsers back to the addresses given. It ends
// with the test.
func New(t testing.TB, redirectURIs ...string) *Provider {
	t.Helper()
	var handler http.Handler
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	client := storage.WebClient(ClientID, ClientSecret, redirectURIs...)
	handler = exampleop.SetupServer(server.URL, people{storage.NewStorageWithClients(users{}, map[string]*storage.Client{ClientID: client})}, slog.New(slog.DiscardHandler), false)
	return &Provider{URL: server.URL, CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))}
}

// users are those whom the provider knows.
type users struct{}

func (users) ExampleClientID() string { return "none" }

func (users) GetUserByUsername(name string) *storage.User { return users{}.GetUserByID("id-" + name) }

func (users) GetUserByID(id string) *storage.User {
	name := strings.TrimPrefix(id, "id-")
	if name != Ada && name != Bob {
		return nil
	}
	return &storage.User{
		ID: "id-" + name, Username: name, Password: Password, FirstName: name, LastName: "Example",
		Email: name + "@example.com", EmailVerified: true, PreferredLanguage: language.English,
	}
}

// people add groups to what the storage says of somebody.
type people struct{ *storage.Storage }

func group(info *oidc.UserInfo, subject string) {
	if subject == "id-"+Ada {
		info.AppendClaims("groups", []string{"engineers", "admins"})
	} else {
		info.AppendClaims("groups", []string{"visitors"})
	}
}

// SetUserinfoFromRequest says what an id token holds besides the usual.
func (p people) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string) error {
	group(info, request.GetSubject())
	return p.Storage.SetUserinfoFromRequest(ctx, info, request, scopes)
}

// SetUserinfoFromToken says what the userinfo endpoint answers.
func (p people) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, id, subject, origin string) error {
	group(info, subject)
	return p.Storage.SetUserinfoFromToken(ctx, info, id, subject, origin)
}

// Answer is what the provider sent the browser back with.
type Answer struct {
	Method string // GET, or POST with response_mode=form_post
	URL    *url.URL
	Form   url.Values // of the POST, or the query
}

// Browser returns a client with cookies that trusts the provider and follows
// redirects as far as the provider's own pages go.
func (p *Provider) Browser(t testing.TB) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(p.CA))
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = pool
	transport.Proxy = nil
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(r.URL.String(), p.URL+"/") {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

var (
	hidden = regexp.MustCompile(`(?s)<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"`)
	action = regexp.MustCompile(`<form[^>]*action="([^"]+)"`)
)

// LogIn opens the address in a browser, logs somebody in on the provider's page, and
// returns what the browser was sent back with; it does not go there.
func (p *Provider) LogIn(t testing.TB, address, user, password string) (Answer, error) {
	t.Helper()
	browser := p.Browser(t)
	page, at, err := read(browser.Get(address))
	if err != nil || page == nil {
		return Answer{}, err
	}
	id := at.Query().Get("authRequestID")
	if id == "" {
		return Answer{}, errors.New("the provider shows no page to log in on: " + string(page))
	}
	response, err := browser.PostForm(p.URL+"/login/username", url.Values{"username": {user}, "password": {password}, "id": {id}})
	if err == nil && response.StatusCode == http.StatusFound {
		_ = response.Body.Close()
		back, err := response.Location()
		if err != nil {
			return Answer{}, err
		}
		return Answer{http.MethodGet, back, back.Query()}, nil
	}
	page, _, err = read(response, err)
	if err != nil {
		return Answer{}, err
	}
	form := action.FindSubmatch(page)
	if form == nil || strings.Contains(string(form[1]), "/login/username") {
		return Answer{}, errors.New("the provider let nobody in: " + string(page))
	}
	to, err := url.Parse(html.UnescapeString(string(form[1])))
	if err != nil {
		return Answer{}, err
	}
	values := url.Values{}
	for _, input := range hidden.FindAllSubmatch(page, -1) {
		values.Set(string(input[1]), html.UnescapeString(string(input[2])))
	}
	return Answer{http.MethodPost, to, values}, nil
}

func read(response *http.Response, err error) ([]byte, *url.URL, error) {
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	return page, response.Request.URL, err
}
