package role

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/cofferhq/coffer/internal/fault"
)

var oidSAN = asn1.ObjectIdentifier{2, 5, 29, 17}

// Other is a subject alternative name of a type of its own (otherName), a UTF-8 text.
type Other struct {
	OID   asn1.ObjectIdentifier
	Value string
}

// others reads names written OID;UTF8:value; a single * is any, and nil.
func others(list []string) ([]Other, error) {
	if slices.Equal(list, []string{"*"}) {
		return nil, nil
	}
	var out []Other
	for _, text := range list {
		id, rest, ok := strings.Cut(text, ";")
		kind, value, ok2 := strings.Cut(rest, ":")
		if k := strings.ToLower(kind); !ok || !ok2 || k != "utf8" && k != "utf-8" {
			return nil, fault.New(fault.Invalid, "other_sans: %q is not written OID;UTF8:value", shown(text))
		}
		oid, err := parseOID(id)
		if err != nil {
			return nil, fault.New(fault.Invalid, "other_sans: %v", err)
		}
		out = append(out, Other{oid, value})
	}
	return out, nil
}

func (r *Role) allowsOther(o Other) bool {
	if slices.Equal(r.OtherSANs, []string{"*"}) {
		return true
	}
	allowed, err := others(r.OtherSANs)
	return err == nil && slices.ContainsFunc(allowed, func(a Other) bool {
		return a.OID.Equal(o.OID) && listed([]string{a.Value}, o.Value)
	})
}

// The kinds of GeneralName in RFC 5280 section 4.2.1.6.
const (
	tagOther = 0
	tagMail  = 1
	tagDNS   = 2
	tagURI   = 6
	tagIP    = 7
)

// OthersOf returns the otherNames among a list of extensions, and refuses those that
// are no UTF-8 texts.
func OthersOf(extensions []pkix.Extension) (out []Other, err error) {
	for _, e := range extensions {
		if !e.Id.Equal(oidSAN) {
			continue
		}
		der := cryptobyte.String(e.Value)
		var names cryptobyte.String
		if !der.ReadASN1(&names, cryptobyte_asn1.SEQUENCE) || !der.Empty() {
			return nil, errOther()
		}
		for !names.Empty() {
			var value cryptobyte.String
			var tag cryptobyte_asn1.Tag
			if !names.ReadAnyASN1(&value, &tag) {
				return nil, errOther()
			}
			if tag != cryptobyte_asn1.Tag(tagOther).ContextSpecific().Constructed() {
				continue
			}
			var o Other
			var wrapped, text cryptobyte.String
			if !value.ReadASN1ObjectIdentifier(&o.OID) || !value.ReadASN1(&wrapped, cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()) ||
				!value.Empty() || !wrapped.ReadASN1(&text, cryptobyte_asn1.UTF8String) || !wrapped.Empty() || !utf8.Valid(text) {
				return nil, errOther()
			}
			o.Value = string(text)
			if len(out) == maxNames {
				return nil, errOther()
			}
			out = append(out, o)
		}
	}
	return out, nil
}

func errOther() error {
	return fault.New(fault.Invalid, "the request's subject alternative names hold one that is not understood: other names must be UTF-8 texts")
}

// sanExtension writes all of a certificate's alternative names: crypto/x509 leaves
// other names out.
func sanExtension(c *x509.Certificate, others []Other, critical bool) (pkix.Extension, error) {
	var b cryptobyte.Builder
	add := func(b *cryptobyte.Builder, tag int, value []byte) {
		b.AddASN1(cryptobyte_asn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
	}
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, n := range c.DNSNames {
			add(b, tagDNS, []byte(n))
		}
		for _, n := range c.EmailAddresses {
			add(b, tagMail, []byte(n))
		}
		for _, ip := range c.IPAddresses {
			if four := ip.To4(); four != nil {
				ip = four
			}
			add(b, tagIP, ip)
		}
		for _, u := range c.URIs {
			add(b, tagURI, []byte(u.String()))
		}
		for _, o := range others {
			b.AddASN1(cryptobyte_asn1.Tag(tagOther).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(o.OID)
				b.AddASN1(cryptobyte_asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
					b.AddASN1(cryptobyte_asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(o.Value)) })
				})
			})
		}
	})
	value, err := b.Bytes()
	return pkix.Extension{Id: oidSAN, Critical: critical, Value: value}, err
}
