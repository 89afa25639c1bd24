package cert

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Limits of a role.
const (
	maxPEM          = 512 << 10 // bytes of certificates
	maxCertificates = 1000
	maxPatterns     = 200 // of one list
	maxPattern      = 1024
	maxDisplayName  = 256
	maxMetadata     = 50 // extensions that become metadata
)

// trusted is a role with its certificates parsed.
type trusted struct {
	role
	name       string
	row        []byte
	leaf       *x509.Certificate   // the certificate that is accepted, nil where authorities are trusted
	chain      []*x509.Certificate // what stands behind leaf
	roots      []*x509.Certificate
	isRoot     map[string]bool // by their DER
	pool       *x509.CertPool
	responders []*x509.Certificate
	required   []required
}

// required is an extension that must be there.
type required struct {
	oid     string
	hex     bool // the pattern is for the value's bytes in hexadecimal
	pattern string
}

// trust is all the roles of a mount.
type trust struct {
	byName map[string]*trusted
	names  []string       // in order
	pool   *x509.CertPool // all authorities of all roles
}

// loadTrust reads the roles. One that did not change is not parsed again.
func loadTrust(r storage.Reader, before *trust) (*trust, error) {
	out := &trust{byName: map[string]*trusted{}, pool: x509.NewCertPool()}
	err := storage.All(r, rolePrefix, func(e storage.Entry) error {
		name := strings.TrimPrefix(e.Key, rolePrefix)
		var t *trusted
		if before != nil {
			t = before.byName[name]
		}
		if t == nil || !bytes.Equal(t.row, e.Value) {
			o, err := storage.Decode[role](e.Key, e.Value, nil)
			if err != nil {
				return err
			}
			if t, err = parseRole(name, *o); err != nil {
				return err
			}
			t.row = bytes.Clone(e.Value)
		}
		out.byName[name] = t
		out.names = append(out.names, name)
		for _, c := range t.roots {
			out.pool.AddCert(c)
		}
		return nil
	})
	return out, err
}

// authorities are all certificates that may have signed something.
func (t *trust) authorities() (all []*x509.Certificate) {
	for _, name := range t.names {
		o := t.byName[name]
		all = append(append(append(all, o.roots...), o.chain...), o.responders...)
	}
	return all
}

// parseRole refuses a role that cannot be.
func parseRole(name string, o role) (*trusted, error) {
	t := &trusted{role: o, name: name}
	certificates, err := parsePEM("certificate", o.Certificate)
	if err != nil {
		return nil, err
	}
	if len(certificates) == 0 {
		return nil, fault.New(fault.Invalid, "failed to parse certificate: it must be in PEM")
	}
	if certificates[0].IsCA {
		t.trustRoots(certificates)
	} else {
		t.leaf, t.chain = certificates[0], certificates[1:]
		if !allowsClients(t.leaf) {
			return nil, fault.New(fault.Invalid, "nonCA certificates should have TLS client authentication set as an extended key usage")
		}
	}
	if t.responders, err = parsePEM("ocsp_ca_certificates", o.Responders); err != nil {
		return nil, err
	}
	if err := o.checkLists(); err != nil {
		return nil, err
	}
	if t.required, err = parseRequired(o.Extensions); err != nil {
		return nil, err
	}
	if len(o.MetadataOIDs) > maxMetadata {
		return nil, fault.New(fault.Invalid, "allowed_metadata_extensions: it has more than %d entries", maxMetadata)
	}
	for _, oid := range o.MetadataOIDs {
		if !oids.MatchString(oid) {
			return nil, fault.New(fault.Invalid, "allowed_metadata_extensions: %s is no OID; write for example 1.3.6.1.4.1.311.20.2", quoted(oid))
		}
	}
	return t, o.OCSP.check()
}

func (t *trusted) trustRoots(certificates []*x509.Certificate) {
	t.roots, t.pool, t.isRoot = certificates, x509.NewCertPool(), map[string]bool{}
	for _, c := range certificates {
		t.pool.AddCert(c)
		t.isRoot[string(c.Raw)] = true
	}
}

// parsePEM parses certificates. Text between them counts for nothing.
func parsePEM(field, text string) (out []*x509.Certificate, err error) {
	if len(text) > maxPEM {
		return nil, fault.New(fault.Invalid, "%s: it is longer than %d bytes", field, maxPEM)
	}
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return out, nil
		}
		if block.Type != "CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" {
			return nil, fault.New(fault.Invalid, "%s: it holds something that is no certificate", field)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Invalid, "%s: certificate %d cannot be parsed: %v", field, len(out)+1, err)
		}
		if out = append(out, c); len(out) > maxCertificates {
			return nil, fault.New(fault.Invalid, "%s: it holds more than %d certificates", field, maxCertificates)
		}
	}
}

// allowsClients reports whether a certificate may be a client's.
func allowsClients(c *x509.Certificate) bool {
	for _, usage := range c.ExtKeyUsage {
		if usage == x509.ExtKeyUsageClientAuth || usage == x509.ExtKeyUsageAny {
			return true
		}
	}
	return len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0
}

func (o *role) checkLists() error {
	for _, list := range []struct {
		name     string
		patterns wire.Strings
	}{
		{"allowed_names", o.Names}, {"allowed_common_names", o.CommonNames}, {"allowed_dns_sans", o.DNSNames}, {"allowed_email_sans", o.Emails},
		{"allowed_uri_sans", o.URIs}, {"allowed_organizational_units", o.Units}, {"required_extensions", o.Extensions},
		{"allowed_metadata_extensions", o.MetadataOIDs}, {"ocsp_servers_override", o.Servers},
	} {
		if len(list.patterns) > maxPatterns {
			return fault.New(fault.Invalid, "%s: it has more than %d entries", list.name, maxPatterns)
		}
		for _, p := range list.patterns {
			if len(p) > maxPattern || p == "" || !utf8.ValidString(p) {
				return fault.New(fault.Invalid, "%s: an entry is empty, longer than %d bytes, or no UTF-8", list.name, maxPattern)
			}
		}
	}
	if err := readable(o.DisplayName); err != nil || len(o.DisplayName) > maxDisplayName {
		return fault.New(fault.Invalid, "display_name: it has at most %d bytes, none of which is a control character", maxDisplayName)
	}
	return nil
}

func (o *OCSP) check() error {
	for _, server := range o.Servers {
		if _, err := remote.CheckURL(server); err != nil {
			return fault.New(fault.Invalid, "ocsp_servers_override: %v", err)
		}
	}
	switch {
	case len(o.Servers) > maxServers:
		return fault.New(fault.Invalid, "ocsp_servers_override: it has more than %d servers", maxServers)
	case o.MaxRetries < 0 || o.MaxRetries > 10:
		return fault.New(fault.Invalid, "ocsp_max_retries: it is from 0 to 10")
	case o.MaxAge < 0:
		return fault.New(fault.Invalid, "ocsp_this_update_max_age cannot be negative")
	}
	return nil
}

var oids = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]{0,38}))+$`)

// parseRequired reads required_extensions.
func parseRequired(list []string) (out []required, err error) {
	for _, text := range list {
		var r required
		rest, isHex := strings.CutPrefix(text, "hex:")
		oid, pattern, found := strings.Cut(rest, ":")
		if !found || !oids.MatchString(oid) {
			return nil, fault.New(fault.Invalid, "required_extensions: %s is neither oid:pattern nor hex:oid:pattern; write for example 1.2.3.4:web-*", quoted(text))
		}
		r.oid, r.hex, r.pattern = oid, isHex, pattern
		if isHex {
			r.pattern = strings.ToLower(strings.ReplaceAll(pattern, ":", ""))
			if strings.Trim(r.pattern, "0123456789abcdef*") != "" || r.pattern == "" {
				return nil, fault.New(fault.Invalid, "required_extensions: the value of %s is not in hexadecimal", quoted(text))
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// quoted is a text as it may stand in a message: short, and without what a
// terminal or a log would take for something else.
func quoted(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.QuoteToASCII(strings.ToValidUTF8(text[:most], "")) + "…"
	}
	return strconv.QuoteToASCII(text)
}
