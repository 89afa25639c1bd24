package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/auth/issuer/providertest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// people is a server where Ada and Bob log in at a real provider, which sends them
// back to port.
func people(t *testing.T, config map[string]any) (p *person, provider *providertest.Provider, port string) {
	t.Helper()
	p, port = newPerson(t), fmt.Sprint(storagetest.FreePort(t))
	provider = providertest.New(t, "http://localhost:"+port+"/oidc/callback")
	fields := map[string]any{
		"oidc_discovery_url": provider.URL, "oidc_discovery_ca_pem": provider.CA, "default_role": "people",
		"oidc_client_id": providertest.ClientID, "oidc_client_secret": providertest.ClientSecret,
	}
	for name, value := range config {
		fields[name] = value
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	p.server.Must(t, 204, "POST", "sys/auth/oidc", `{"type":"oidc"}`)
	p.server.Must(t, 204, "POST", "auth/oidc/config", string(text))
	p.server.Must(t, 204, "POST", "auth/oidc/role/people", `{"user_claim":"email","oidc_scopes":"email","allowed_redirect_uris":"http://localhost/oidc/callback","token_policies":"default","bound_claims":{"groups":"engineers"}}`)
	return p, provider, port
}

// visit makes the browser's request and returns the page.
func visit(t *testing.T, answer providertest.Answer) (int, string) {
	t.Helper()
	var response *http.Response
	var err error
	if answer.Method == http.MethodPost {
		response, err = http.PostForm(answer.URL.String(), answer.Form)
	} else {
		response, err = http.Get(answer.URL.String())
	}
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	if policy := response.Header.Get("Content-Security-Policy"); strings.Contains(string(page), "<script") || !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("%s %s", policy, page)
	}
	return response.StatusCode, string(page)
}

// logsIn is a browser in which user logs in at the provider, and what it is shown.
func logsIn(t *testing.T, provider *providertest.Provider, user string, page chan<- string) func(string) error {
	return func(address string) error {
		go func() {
			answer, err := provider.LogIn(t, address, user, providertest.Password)
			if err != nil {
				t.Error(err)
				return
			}
			// Any page can make the browser ask here; it changes nothing.
			stranger := *answer.URL
			stranger.RawQuery = "state=x&code=y"
			if code, _ := visit(t, providertest.Answer{Method: http.MethodGet, URL: &stranger, Form: url.Values{}}); code != http.StatusBadRequest {
				t.Errorf("a stranger's request: %d", code)
			}
			_, shown := visit(t, answer)
			page <- shown
		}()
		return nil
	}
}

func TestBrowserLogin(t *testing.T) {
	for name, config := range map[string]map[string]any{
		"code":      nil,
		"form post": {"oidc_response_mode": "form_post"},
		"id token":  {"oidc_response_mode": "form_post", "oidc_response_types": "id_token"},
	} {
		t.Run(name, func(t *testing.T) {
			p, provider, port := people(t, config)
			page := make(chan string, 1)
			p.browse = logsIn(t, provider, providertest.Ada, page)
			if name == "id token" { // which holds no groups, and no email
				p.server.Must(t, 204, "POST", "auth/oidc/role/people", `{"user_claim":"sub","bound_claims":{}}`)
			}
			code, out, errs := p.run(t, "login", "-method=oidc", "role=people", "port="+port)
			if code != exitOK || !strings.Contains(out, "token_meta_role") || !strings.Contains(errs, provider.URL+"/auth?") {
				t.Fatalf("code %d: %s %s", code, out, errs)
			}
			if shown := <-page; !strings.Contains(shown, "You are logged in") {
				t.Error(shown)
			}
			if code, out, errs = p.run(t, "token", "lookup", "-field=display_name"); code != exitOK || !strings.HasPrefix(out, "oidc-") {
				t.Errorf("code %d: %s %s", code, out, errs)
			}
		})
	}
}

// Bob is none of the engineers: the terminal and the browser both say so.
func TestBrowserLoginRefused(t *testing.T) {
	p, provider, port := people(t, nil)
	page := make(chan string, 1)
	p.browse = logsIn(t, provider, providertest.Bob, page)
	code, _, errs := p.run(t, "login", "-method=oidc", "port="+port)
	if code != exitRefused || !strings.Contains(errs, `claim "groups" does not match`) {
		t.Fatalf("code %d: %s", code, errs)
	}
	if shown := <-page; !strings.Contains(shown, "claim &#34;groups&#34; does not match") {
		t.Error(shown)
	}
}

// Without a browser the address is printed.
func TestBrowserLoginWithoutBrowser(t *testing.T) {
	for _, how := range []string{"-no-browser", "skip_browser=true"} {
		p, provider, port := people(t, nil)
		p.browse = func(string) error { t.Error("a browser was opened"); return nil }
		p.stderr = func(text string) {
			for line := range strings.Lines(text) {
				if line = strings.TrimSpace(line); strings.HasPrefix(line, provider.URL) {
					_ = logsIn(t, provider, providertest.Ada, make(chan string, 1))(line)
				}
			}
		}
		if code, out, errs := p.run(t, "login", "-method=oidc", how, "-token-only", "port="+port); code != exitOK || !strings.HasPrefix(out, "hvs.") {
			t.Errorf("code %d: %s %s", code, out, errs)
		}
	}
}

func TestBrowserLoginMistakes(t *testing.T) {
	p, _, port := people(t, nil)
	p.browse = func(string) error { t.Error("a browser was opened"); return nil }
	taken, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, used, _ := net.SplitHostPort(taken.Addr().String())
	for want, args := range map[string][]string{
		"choose another port":   {"port=" + used},
		"is true or false":      {"skip_browser=perhaps"},
		`not "user"`:            {"user=x"},
		"could not be found":    {"port=" + port, "role=nobody"},
		"allowed_redirect_uris": {"port=" + port, "callbackhost=other.example"},
		"permission denied":     {"port=" + port, "-path=elsewhere"},
	} {
		if code, _, errs := p.run(t, append([]string{"login", "-method=oidc"}, args...)...); code == exitOK || !strings.Contains(errs, want) {
			t.Errorf("%q: code %d: %s", args, code, errs)
		}
	}
}

// A browser that cannot be opened is a warning, or the end where that is asked.
func TestBrowserThatCannotBeOpened(t *testing.T) {
	p, provider, port := people(t, nil)
	page := make(chan string, 1)
	logs := logsIn(t, provider, providertest.Ada, page)
	p.browse = func(address string) error {
		_ = logs(address)
		return errors.New("no display")
	}
	code, _, errs := p.run(t, "login", "-method=oidc", "port="+port)
	if code != exitOK || !strings.Contains(errs, "no display") {
		t.Errorf("code %d: %s", code, errs)
	}
	<-page
	p.browse = func(string) error { return errors.New("no display") }
	if code, _, errs := p.run(t, "login", "-method=oidc", "port="+port, "abort_on_error=true"); code != exitLocal || !strings.Contains(errs, "no display") {
		t.Errorf("code %d: %s", code, errs)
	}
}

// Nothing is opened that is no page, whatever the server answers.
func TestBrowserLoginOpensPagesOnly(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"request_id":"x","data":{"auth_url":"file:///etc/passwd?state=x"}}`)
	}))
	defer server.Close()
	p := &person{home: t.TempDir(), set: map[string]string{"COFFER_ADDR": server.URL}}
	p.browse = func(string) error { t.Error("a browser was opened"); return nil }
	if code, _, errs := p.run(t, "login", "-method=oidc", "port=0"); code == exitOK || !strings.Contains(errs, "not the address of a page") {
		t.Errorf("code %d: %s", code, errs)
	}
}

// A person's own browser: the provider's pages, the way back to this machine, and
// the page there.
func TestBrowserLoginInChromium(t *testing.T) {
	for name, config := range map[string]map[string]any{"code": nil, "form post": {"oidc_response_mode": "form_post"}} {
		t.Run(name, func(t *testing.T) {
			p, provider, port := people(t, config)
			page := make(chan string, 1)
			p.browse = func(address string) error {
				go func() {
					text, err := provider.Chromium(t, address, providertest.Ada, providertest.Password, "http://localhost:"+port+"/oidc/callback")
					if err != nil {
						t.Error(err)
					}
					page <- text
				}()
				return nil
			}
			if code, out, errs := p.run(t, "login", "-method=oidc", "-token-only", "port="+port); code != exitOK || !strings.HasPrefix(out, "hvs.") {
				t.Fatalf("code %d: %s %s", code, out, errs)
			}
			if text := <-page; !strings.Contains(text, "You are logged in") {
				t.Errorf("the browser shows %q", text)
			}
		})
	}
}
