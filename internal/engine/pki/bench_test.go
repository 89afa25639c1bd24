package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/pebble"
)

// BenchmarkIssue compares certificates of P-256 that the engine makes with what the key
// and the signature alone take, one after the other in turns, and with those that are
// kept on disk. bare/issue is at least 0.7 where nothing is kept.
func BenchmarkIssue(b *testing.B) {
	disk, err := pebble.Kind.Open(b.Context(), map[string]string{"path": filepath.Join(b.TempDir(), "data")}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer disk.Close()
	e := openOn(b, storage.Engine(disk))
	do(b, e, "POST", "root/generate/internal", `{"common_name":"Root","key_type":"ec"}`)
	do(b, e, "POST", "roles/loose", `{"allowed_domains":"example.com","allow_subdomains":true,"key_type":"ec","no_store":true}`)
	do(b, e, "POST", "roles/kept", `{"allowed_domains":"example.com","allow_subdomains":true,"key_type":"ec"}`)
	bare := bareIssue(b)
	loose, kept := issueBy(b, e, "loose"), issueBy(b, e, "kept")
	var times [3]time.Duration
	for b.Loop() {
		for n, fn := range []func(){bare, loose, kept} {
			start := time.Now()
			fn()
			times[n] += time.Since(start)
		}
	}
	each := func(n int) float64 { return float64(times[n].Microseconds()) / float64(b.N) }
	b.ReportMetric(each(0), "bare-µs")
	b.ReportMetric(each(1), "no_store-µs")
	b.ReportMetric(each(2), "stored-µs")
	b.ReportMetric(each(0)/each(1), "bare/no_store")
	b.ReportMetric(each(2)-each(1), "store-cost-µs")
}

func issueBy(b *testing.B, e *enginetest.Engine, role string) func() {
	return func() {
		if a := e.Do("POST", "issue/"+role, `{"common_name":"shop.example.com"}`); a.Err != nil {
			b.Fatal(a.Err)
		}
	}
}

// bareIssue makes a key and has it certified by crypto/x509 alone.
func bareIssue(b *testing.B) func() {
	ca := newKey(b)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: "Root"}}
	der, err := x509.CreateCertificate(rand.Reader, root, root, ca.Public(), ca)
	if err != nil {
		b.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		b.Fatal(err)
	}
	return func() {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		t := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "shop.example.com"}, DNSNames: []string{"shop.example.com"}, NotAfter: root.NotAfter}
		if _, err := x509.CreateCertificate(rand.Reader, t, root, k.Public(), ca); err != nil {
			b.Fatal(err)
		}
	}
}
