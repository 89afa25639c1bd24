package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/auth/tokens"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/sys"
)

// errShown ends a command that showed its request and did not send it.
var errShown = errors.New("the request was shown, and not sent")

// instead stands where a client has its transport: it shows the first request of
// a command, as curl would send it or as the rule that would allow it.
type instead struct {
	to     io.Writer
	config client.Config
	policy bool
}

// RoundTrip implements http.RoundTripper, and sends nothing.
func (i *instead) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := i.curl(r)
	if i.policy {
		text, err = i.rule(r), nil
	}
	if err == nil {
		_, err = io.WriteString(i.to, text+"\n")
	}
	if err != nil {
		return nil, err
	}
	return nil, errShown
}

// printToken is what the shell puts in place of the token, which is not printed.
const printToken = `"$(coffer print token)"`

// curl returns the command that sends the request. The calling token is read
// when that runs; another one, as of unwrap, must be in $TOKEN then.
func (i *instead) curl(r *http.Request) (string, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return "", err
		}
	}
	parts := []string{"curl"}
	if r.Method != http.MethodGet {
		parts = append(parts, "-X", r.Method)
	}
	target := *r.URL
	parts = append(parts, i.connection(&target)...)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if name == "Accept" || name == "User-Agent" {
			continue
		}
		for _, value := range r.Header[name] {
			parts = append(parts, "-H", i.header(name, value))
		}
	}
	if len(body) > 0 {
		parts = append(parts, "-d", i.quote(string(body)))
	}
	return strings.Join(append(parts, i.quote(target.String())), " "), nil
}

// connection returns the options that say how the server is reached.
func (i *instead) connection(target *url.URL) (parts []string) {
	c := &i.config
	if socket, ok := strings.CutPrefix(c.Address, "unix://"); ok {
		parts = append(parts, "--unix-socket", i.quote(socket))
	}
	if c.ServerName != "" {
		parts = append(parts, "--connect-to", i.quote(c.ServerName+"::"+target.Hostname()+":"))
		target.Host = strings.Replace(target.Host, target.Hostname(), c.ServerName, 1)
	}
	if c.SkipVerify {
		parts = append(parts, "--insecure")
	}
	for _, file := range []struct{ option, name string }{
		{"--cacert", c.CACert}, {"--capath", c.CAPath}, {"--cert", c.ClientCert}, {"--key", c.ClientKey},
	} {
		if file.name != "" {
			parts = append(parts, file.option, i.quote(file.name))
		}
	}
	return parts
}

func (i *instead) header(name, value string) string {
	switch {
	case name == "X-Vault-Token" && value == i.config.Token.Reveal():
		return i.quote(name+": ") + printToken
	case name == "X-Vault-Token":
		return i.quote(name+": ") + `"$TOKEN"`
	case name == "Authorization":
		return i.quote(name+": Bearer ") + `"$TOKEN"`
	}
	return i.quote(name + ": " + value)
}

// quote writes a word for the shell, with the command that prints the token
// where that would stand. Short ones, as root of a development server, are words
// that stand everywhere.
func (i *instead) quote(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	if token := i.config.Token.Reveal(); len(token) >= 16 {
		quoted = strings.ReplaceAll(quoted, token, "'"+printToken+"'")
	}
	return strings.ReplaceAll(quoted, `"''`, `"`)
}

// rule returns a policy with the rule that the request needs.
func (i *instead) rule(r *http.Request) string {
	method := r.Method
	if r.URL.Query().Get("list") == "true" {
		method = "LIST"
	}
	_, path, _ := strings.Cut(r.URL.Path, "/v1/")
	if base, err := url.Parse(i.config.Address); err == nil && base.Scheme != "unix" {
		path = strings.TrimPrefix(r.URL.Path, strings.TrimSuffix(base.Path, "/")+"/v1/")
	}
	need, free := needs(method, path)
	if free {
		return fmt.Sprintf("# %s needs no rule.", path)
	}
	return fmt.Sprintf("path %q {\n  capabilities = [\"%s\"]\n}", path, strings.Join(need.Words(), `", "`))
}

// needs returns what a caller needs for a path, or that nothing is needed. Of
// Coffer's own paths it knows by their routes; what is mounted it cannot know,
// and goes by the method.
func needs(method, path string) (need policy.Capability, free bool) {
	for _, own := range []struct {
		prefix string
		routes []route.Spec
	}{{"sys/", sys.Kind(nil).Spec().Routes}, {"auth/token/", tokens.Kind(tokens.Options{}).Spec().Routes}} {
		below, ok := strings.CutPrefix(path, own.prefix)
		if !ok {
			continue
		}
		found, _, _ := route.NewTable(own.routes).Find(method, below)
		if found == nil {
			break
		}
		need = found.Need
		if need == 0 {
			need = policy.Create | policy.Update
		}
		if found.Sudo {
			need |= policy.Sudo
		}
		return need, found.Public || found.AnyToken
	}
	switch method {
	case "LIST":
		return policy.List, false
	case http.MethodPost, http.MethodPut:
		return policy.Create | policy.Update, false
	case http.MethodPatch:
		return policy.Patch, false
	case http.MethodDelete:
		return policy.Delete, false
	}
	return policy.Read, false
}
