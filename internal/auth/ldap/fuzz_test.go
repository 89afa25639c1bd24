package ldap

import (
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	ldap "github.com/go-ldap/ldap/v3"
)

var hostile = []string{"ada", "*", "*)(uid=*", "a)(|(uid=*", "\x00", `\2a`, "smith, john", "#1", " x ", "zoë", "\xff", "{{.UserDN}}", "{{", strings.Repeat("(", 1000)}

// Whatever the name is, the filter is one equality of the attribute with it.
func FuzzFilter(f *testing.F) {
	for _, name := range hostile {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" {
			return
		}
		packet, err := ldap.CompileFilter(filled(standardUserFilter, map[string]string{"UserAttr": "uid", "Username": name}))
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if packet.Tag != ber.Tag(ldap.FilterEqualityMatch) || len(packet.Children) != 2 || packet.Children[0].Data.String() != "uid" || packet.Children[1].Data.String() != name {
			t.Fatalf("%q became %v", name, packet)
		}
	})
}

// Whatever the name is, the DN is one attribute of that value below userdn.
func FuzzDN(f *testing.F) {
	for _, name := range hostile {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, ok := nameOf(text, true)
		if !ok {
			return
		}
		if again, ok := nameOf(name, true); !ok || again != name {
			t.Fatalf("%q is %q, and then %q", text, name, again)
		}
		d := &directory{c: &config{Settings: Settings{UserAttr: "uid", UserDN: "dc=x"}}}
		p, err := d.find(name)
		if err != nil {
			t.Fatal(err)
		}
		dn, err := ldap.ParseDN(p.bind)
		if err != nil || len(dn.RDNs) != 2 || len(dn.RDNs[0].Attributes) != 1 || dn.RDNs[0].Attributes[0].Value != name || dn.RDNs[1].Attributes[0].Type != "dc" {
			t.Fatalf("%q became %q: %v", name, p.bind, err)
		}
	})
}

func FuzzCheckFilter(f *testing.F) {
	for _, filter := range []string{standardUserFilter, standardGroupFilter, "(uid={{.Username}})(", "{{.Username}}", "(&(a=b)(!(c=*))({{ .UserAttr }}~={{.Username}}))"} {
		f.Add(filter)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		_ = checkFilter("userfilter", filter, "UserAttr", "Username")
	})
}
