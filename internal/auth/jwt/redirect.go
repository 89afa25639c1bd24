package jwt

import (
	"errors"
	"net/url"
	"slices"
	"strings"
)

const maxRedirect = 2048 // bytes of a redirect address

// parseRedirect reads an address that a browser can be sent to.
func parseRedirect(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxRedirect:
		return nil, errors.New("a redirect address has at most 2048 bytes")
	case err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "" && u.Path == "":
		return nil, errors.New("a redirect address is a whole URL, as https://coffer.example.com/ui/vault/auth/oidc/oidc/callback")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return nil, errors.New("a redirect address has no part after #")
	case slices.Contains([]string{"javascript", "data", "vbscript", "file"}, strings.ToLower(u.Scheme)):
		return nil, errors.New("a redirect address begins with https://, http:// or the scheme of an application")
	}
	return u, nil
}

// withoutNamespace takes the namespace out of an address's query, where the console
// puts it. The rest of an address that has none stays letter by letter.
func withoutNamespace(text string) (uri, namespace string) {
	u, err := url.Parse(text)
	if err != nil {
		return text, ""
	}
	query := u.Query()
	if namespace = query.Get("namespace"); namespace == "" || len(namespace) > maxNamespace {
		return text, ""
	}
	query.Del("namespace")
	u.RawQuery = query.Encode()
	return u.String(), namespace
}

const maxNamespace = 256 // bytes of a namespace in an address

// stateNamespace stands between a state and the namespace that a client finds
// behind it, as Vault has it.
const stateNamespace = ",ns="

// redirectAllowed reports whether a role allows an address. Of loopback addresses
// the port is not compared (RFC 8252, section 7.3), since a program that listens
// there takes one that is free.
func redirectAllowed(uri string, allowed []string) bool {
	u, err := parseRedirect(uri)
	if err != nil {
		return false
	}
	if slices.Contains(allowed, uri) {
		return true
	}
	if !local(u) {
		return false
	}
	return slices.ContainsFunc(allowed, func(text string) bool {
		a, err := parseRedirect(text)
		return err == nil && local(a) && withoutPort(a) == withoutPort(u)
	})
}

func local(u *url.URL) bool {
	return u.User == nil && slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
}

func withoutPort(u *url.URL) string {
	c := *u
	c.Host = u.Hostname()
	return c.String()
}
