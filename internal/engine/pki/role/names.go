package role

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/ryanuber/go-glob"
	"golang.org/x/net/idna"

	"github.com/cofferhq/coffer/internal/fault"
)

// Asker is who asks for a certificate.
type Asker struct {
	DisplayName string // of the token
	// Resolve returns what a template's name such as identity.entity.name stands
	// for; nil where nothing is known of the asker.
	Resolve func(name string) (string, bool)
}

var (
	hostname = regexp.MustCompile(`^([a-zA-Z0-9_]|[a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_])(\.([a-zA-Z0-9_]|[a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]))*\.?$`)
	// wildLabel is a first label with one asterisk (RFC 6125 section 6.4.3).
	wildLabel = regexp.MustCompile(`^([a-zA-Z0-9_]?[a-zA-Z0-9-_]{0,61}\*|\*[a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]?|[a-zA-Z0-9_][a-zA-Z0-9-_]{0,60}\*[a-zA-Z0-9-_]{0,60}[a-zA-Z0-9_])$`)
	strict    = idna.New(idna.StrictDomainName(true), idna.VerifyDNSLength(true))
)

// Bounds of what a certificate says.
const (
	maxName  = 1024 // bytes of one name
	maxNames = 500  // names of one certificate
)

// plain refuses names that nobody could read, or that programs read differently: a
// NUL ends a name for some of them.
func plain(what, name string) error {
	if len(name) > maxName || strings.ToValidUTF8(name, "") != name || strings.ContainsFunc(name, unicode.IsControl) {
		return fault.New(fault.Invalid, "%s: a name is too long, or holds characters that no name has", what)
	}
	return nil
}

// CheckText refuses a text that no certificate is to say.
func CheckText(text string) error { return plain("subject", text) }

// IsHostname reports whether a text can be a host name, a wildcard or an address of
// email.
func IsHostname(text string) bool {
	n, ok := parse(text)
	return ok && n.wellFormed()
}

// name is a DNS name or the address of an email, taken apart.
type name struct {
	whole string
	host  string // behind the @ and the label with the wildcard
	mail  bool
	wild  bool
	label string // the first one, of a wildcard
}

func parse(text string) (n name, ok bool) {
	n = name{whole: text, host: text}
	if local, host, mail := strings.Cut(text, "@"); mail {
		if local == "" || strings.ContainsAny(local, "* ") || strings.Contains(host, "@") {
			return n, false
		}
		n.host, n.mail = host, true
	}
	if !strings.Contains(n.host, "*") {
		return n, true
	}
	n.wild = true
	n.label, n.host, _ = strings.Cut(n.host, ".")
	return n, !n.mail && strings.Count(n.whole, "*") == 1 && strings.Contains(n.label, "*")
}

// allows reports whether the role gives a DNS name or an email address to somebody.
func (r *Role) allows(text string, by Asker) bool {
	n, ok := parse(text)
	if !ok || n.wild && !r.Wildcards || text == "" {
		return false
	}
	if r.EnforceHostnames && !n.wellFormed() {
		return false
	}
	return r.AnyName || r.AllowLocalhost && r.local(n) || r.TokenDisplayName && r.displayName(n, by.DisplayName) || r.inDomains(n, by)
}

func (n name) wellFormed() bool {
	if n.host != "" || !n.wild {
		host, err := strict.ToASCII(strings.TrimSuffix(n.host, "."))
		if err != nil || !hostname.MatchString(host) {
			return false
		}
	}
	return !n.wild || wildLabel.MatchString(n.label)
}

// below reports whether the name is one level or more below a domain.
func (n name) below(domain string) bool {
	if domain == "" {
		return false
	}
	return len(n.host) > len(domain)+1 && strings.HasSuffix(strings.ToLower(n.host), "."+strings.ToLower(domain)) ||
		n.wild && strings.EqualFold(n.host, domain)
}

func (r *Role) local(n name) bool {
	for _, domain := range []string{"localhost", "localdomain"} {
		if strings.EqualFold(n.host, domain) && !n.wild || r.Subdomains && n.below(domain) {
			return true
		}
	}
	return false
}

func (r *Role) displayName(n name, display string) bool {
	if display == "" {
		return false
	}
	if n.whole == display {
		return true
	}
	_, host, mail := strings.Cut(display, "@")
	if n.mail {
		return r.Subdomains && mail && n.below(host)
	}
	return r.Subdomains && n.below(display)
}

func (r *Role) inDomains(n name, by Asker) bool {
	return slices.ContainsFunc(r.Domains, func(domain string) bool {
		if r.DomainsTemplate {
			var ok bool
			if domain, ok = by.expand(domain); !ok {
				return false
			}
		}
		if domain == "" {
			return false
		}
		if r.BareDomains && (strings.EqualFold(n.whole, domain) || n.mail && strings.EqualFold(n.host, domain)) {
			return true
		}
		if r.Subdomains && n.below(domain) {
			return true
		}
		return r.GlobDomains && strings.Contains(domain, "*") && glob.Glob(strings.ToLower(domain), strings.ToLower(n.whole))
	})
}

// expand fills templates in. What they stand for must not reach beyond its place:
// it holds no wildcard, and is not empty.
func (by Asker) expand(text string) (string, bool) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{{")
		out.WriteString(before)
		if !found {
			return out.String(), true
		}
		name, after, closed := strings.Cut(rest, "}}")
		if !closed || by.Resolve == nil {
			return "", false
		}
		value, ok := by.Resolve(strings.TrimSpace(name))
		if !ok || value == "" || strings.ContainsAny(value, "*{}") {
			return "", false
		}
		out.WriteString(value)
		text = after
	}
}

// allowsCN reports whether the role gives a common name.
func (r *Role) allowsCN(text string, by Asker) bool {
	if slices.Equal(r.CNValidations, []string{"disabled"}) {
		return true
	}
	if !r.allows(text, by) {
		return false
	}
	want := "hostname"
	if strings.Contains(text, "@") {
		want = "email"
	}
	return len(r.CNValidations) == 0 || slices.Contains(r.CNValidations, want)
}

func (r *Role) allowsIP(ip netip.Addr) bool {
	if !r.IPSANs {
		return false
	}
	return len(r.IPRanges) == 0 || slices.ContainsFunc(r.IPRanges, func(text string) bool {
		p, err := netip.ParsePrefix(text)
		return err == nil && p.Contains(ip)
	})
}

func (r *Role) allowsURI(text string, by Asker) bool {
	return slices.ContainsFunc(r.URISANs, func(pattern string) bool {
		if r.URISANsTemplate {
			var ok bool
			if pattern, ok = by.expand(pattern); !ok {
				return false
			}
		}
		return pattern != "" && glob.Glob(pattern, text)
	})
}

// ParseURI reads a URI that a certificate can name.
func ParseURI(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return nil, fault.New(fault.Invalid, "uri_sans: %q is not a URI with its scheme", shown(text))
	}
	return u, nil
}

// listed reports whether a text is in a list, in which * stands for anything.
func listed(list []string, text string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		return pattern == text || strings.Contains(pattern, "*") && glob.Glob(pattern, text)
	})
}
