package ldap

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	ldap "github.com/go-ldap/ldap/v3"
	"golang.org/x/text/unicode/norm"

	"github.com/cofferhq/coffer/internal/fault"
)

// Standards of Vault.
const (
	standardUserFilter  = "({{.UserAttr}}={{.Username}})"
	standardGroupFilter = "(|(memberUid={{.Username}})(member={{.UserDN}})(uniqueMember={{.UserDN}}))"
)

// maxName bounds the names of users and groups, in bytes.
const maxName = 512

var (
	placeholder = regexp.MustCompile(`\{\{\s*\.([A-Za-z]+)\s*\}\}`)
	attribute   = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)+)(;[A-Za-z0-9-]+)*$`)
)

// filled puts values, escaped for a filter (RFC 4515), in the place of a filter's
// {{.Name}}. Nothing else of Go's templates is understood.
func filled(filter string, values map[string]string) string {
	return placeholder.ReplaceAllStringFunc(filter, func(at string) string {
		return ldap.EscapeFilter(values[placeholder.FindStringSubmatch(at)[1]])
	})
}

// checkFilter refuses what is no filter, or names something that there is not.
func checkFilter(field, filter string, names ...string) error {
	values := map[string]string{}
	for _, name := range names {
		values[name] = "x"
	}
	for _, found := range placeholder.FindAllStringSubmatch(filter, -1) {
		if _, known := values[found[1]]; !known {
			return fault.New(fault.Invalid, "invalid %s: there is no {{.%s}}; it may have {{.%s}}", field, found[1], strings.Join(names, "}} and {{."))
		}
	}
	if strings.Contains(placeholder.ReplaceAllString(filter, ""), "{{") {
		return fault.New(fault.Invalid, "invalid %s: of templates it may have {{.%s}} only", field, strings.Join(names, "}} and {{."))
	}
	if _, err := ldap.CompileFilter(filled(filter, values)); err != nil {
		return fault.New(fault.Invalid, "invalid %s: it is no filter of RFC 4515, such as (&(objectClass=person)(uid={{.Username}}))", field)
	}
	return nil
}

// nameOf returns a name in the spelling by which it is known here. Directories take
// several spellings for one name (RFC 4518): compatibility forms of characters, more
// spaces, other cases. It reports false for what no directory takes for a name.
func nameOf(text string, cased bool) (string, bool) {
	if len(text) > maxName || !utf8.ValidString(text) {
		return "", false
	}
	name := strings.Join(strings.Fields(norm.NFKC.String(text)), " ")
	if !cased {
		name = strings.ToLower(name)
	}
	invisible := func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf) || r == '/' }
	return name, name != "" && len(name) <= maxName && !strings.ContainsFunc(name, invisible)
}

// commonName returns the cn of a DN, and what is no DN, or has none, as it is.
func commonName(text string) string {
	dn, err := ldap.ParseDN(text)
	if err != nil {
		return text
	}
	for _, rdn := range dn.RDNs {
		for _, a := range rdn.Attributes {
			if strings.EqualFold(a.Type, "cn") {
				return a.Value
			}
		}
	}
	return text
}
