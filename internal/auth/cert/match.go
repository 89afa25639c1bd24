package cert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/fault"
)

// Limits of what a client presents.
const (
	maxPresented = 16   // certificates
	maxNames     = 1000 // of the leaf, all kinds together
	maxText      = 512  // bytes of a name or an extension's string that becomes metadata
)

// checkPresented refuses what is not worth a closer look.
func checkPresented(peer []*x509.Certificate) error {
	switch {
	case len(peer) == 0:
		return fault.New(fault.Invalid, "client certificate must be supplied: connect with TLS and a client certificate, directly or through a proxy that passes TLS on")
	case len(peer) > maxPresented:
		return fault.New(fault.Invalid, "the client presents %d certificates, more than %d", len(peer), maxPresented)
	}
	c := peer[0]
	if n := len(c.DNSNames) + len(c.EmailAddresses) + len(c.URIs) + len(c.IPAddresses) + len(c.Subject.OrganizationalUnit); n > maxNames {
		return fault.New(fault.Invalid, "the certificate has %d names, more than %d", n, maxNames)
	}
	if err := readable(c.Subject.CommonName); err != nil {
		return fault.New(fault.Invalid, "the certificate's common name %v", err)
	}
	if strings.Contains(c.Subject.CommonName, "*") {
		return fault.New(fault.Invalid, "the certificate's common name has a wildcard in it, and names nobody")
	}
	return nil
}

// readable refuses a text that must not stand in metadata, logs or paths.
func readable(text string) error {
	switch {
	case len(text) > maxText:
		return errors.New("is too long")
	case !utf8.ValidString(text):
		return errors.New("is no UTF-8")
	}
	for _, c := range text {
		if !unicode.IsPrint(c) {
			return errors.New("has a character in it that cannot be printed")
		}
	}
	return nil
}

// fits reports whether a certificate has what the role asks for.
func (t *trusted) fits(c *x509.Certificate) bool {
	uris := make([]string, len(c.URIs))
	for i, u := range c.URIs {
		uris[i] = u.String()
	}
	common := []string{c.Subject.CommonName}
	return oneOf(t.Names, common, c.DNSNames, c.EmailAddresses) &&
		oneOf(t.CommonNames, common) &&
		oneOf(t.DNSNames, c.DNSNames) &&
		oneOf(t.Emails, c.EmailAddresses) &&
		oneOf(t.URIs, uris) &&
		oneOf(t.Units, c.Subject.OrganizationalUnit) &&
		t.hasExtensions(c)
}

// oneOf reports whether one of the patterns fits one of the names, or there are no
// patterns.
func oneOf(patterns []string, names ...[]string) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, list := range names {
		for _, name := range list {
			if slices.ContainsFunc(patterns, func(p string) bool { return auth.Glob(p, name) }) {
				return true
			}
		}
	}
	return false
}

func (t *trusted) hasExtensions(c *x509.Certificate) bool {
	for _, r := range t.required {
		if !slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.String() == r.oid && r.fits(e) }) {
			return false
		}
	}
	return true
}

func (r required) fits(e pkix.Extension) bool {
	if r.hex {
		return auth.Glob(r.pattern, hex.EncodeToString(e.Value))
	}
	text, ok := stringOf(e)
	return ok && auth.Glob(r.pattern, text)
}

// stringOf returns the string that an extension holds, if it holds one.
func stringOf(e pkix.Extension) (text string, ok bool) {
	rest, err := asn1.Unmarshal(e.Value, &text)
	return text, err == nil && len(rest) == 0
}

// extensions are the strings of a certificate's extensions that become metadata.
func (t *trusted) extensions(c *x509.Certificate) (map[string]string, error) {
	out := map[string]string{}
	for _, e := range c.Extensions {
		oid := e.Id.String()
		if !slices.Contains(t.MetadataOIDs, oid) {
			continue
		}
		text, ok := stringOf(e)
		if !ok {
			continue
		}
		if err := readable(text); err != nil {
			return nil, fault.New(fault.Invalid, "the certificate's extension %s %v", oid, err)
		}
		out[strings.ReplaceAll(oid, ".", "-")] = text
	}
	return out, nil
}
