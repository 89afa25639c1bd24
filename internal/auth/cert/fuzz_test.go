package cert

import (
	"math/big"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
)

func FuzzRequired(f *testing.F) {
	for _, seed := range []string{"1.2.3.4:value", "hex:1.2.3:0a*", "hex:1.2:", "1.2", ":", "hex:", "hex:1.2:0A:0B", "1.2:a:b", "2.999.1:*", "0.0:\x00", "1.02:x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseRequired([]string{text})
		if err != nil {
			if readable(strings.ReplaceAll(err.Error(), "…", "")) != nil {
				t.Errorf("the message is %q", err)
			}
			return
		}
		r := list[0]
		if !oids.MatchString(r.oid) || !strings.Contains(text, r.oid) {
			t.Errorf("%q is %+v", text, r)
		}
	})
}

func FuzzCRL(f *testing.F) {
	ca := certtest.Root(f, "ca")
	der := ca.CRL(f, 1, big.NewInt(7))
	for _, seed := range [][]byte{der, []byte(crlPEM(der)), []byte(certtest.PEM(ca.Cert)), []byte("AAAA"), nil, der[:40], []byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := parseCRL(raw)
		if err != nil {
			return
		}
		for _, e := range list.RevokedCertificateEntries {
			if e.SerialNumber == nil || len(e.SerialNumber.Bytes()) > maxSerial {
				t.Errorf("a serial number: %v", e.SerialNumber)
			}
		}
	})
}

func FuzzPEM(f *testing.F) {
	ca := certtest.PEM(certtest.Root(f, "ca").Cert)
	for _, seed := range []string{ca, ca + ca, "text\n" + ca, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "", ca[:100]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := parseRole("x", role{Certificate: text})
		if err == nil && o.leaf == nil && len(o.roots) == 0 {
			t.Error("a role that trusts nothing is accepted")
		}
	})
}
