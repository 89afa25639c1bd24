package pki_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/wire"
)

// raw makes a request whose answer is no JSON.
func raw(t testing.TB, e *enginetest.Engine, path string) []byte {
	t.Helper()
	a := e.Do("GET", path, "")
	if a.Err != nil {
		t.Fatalf("GET %s: %v", path, a.Err)
	}
	return a.Output.(route.Raw).Body
}

// listOf is a list of revoked certificates that one of the issuers signed.
func listOf(t testing.TB, e *enginetest.Engine, path string) *x509.RevocationList {
	t.Helper()
	der := raw(t, e, path)
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	ca := parse(t, string(raw(t, e, "ca/pem")))
	if err := l.CheckSignatureFrom(ca); err != nil {
		t.Fatal(err)
	}
	return l
}

// serve has the OCSP responder behind HTTP, as the gateway has it.
func serve(t testing.TB, e *enginetest.Engine) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		spec, vars, _ := e.Table.Find(r.Method, strings.Trim(r.URL.Path, "/"))
		if spec == nil {
			http.NotFound(w, r)
			return
		}
		in, _, err := spec.Decode(&route.Input{Vars: vars, Params: &wire.Params{Body: body}})
		if err != nil {
			t.Error(err)
		}
		out, err := spec.Invoke(r.Context(), e.State, route.Caller{}, in)
		if err != nil {
			t.Error(err)
			return
		}
		w.Header().Set("Content-Type", out.(route.Raw).ContentType)
		_, _ = w.Write(out.(route.Raw).Body)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/ocsp"
}

// TestRevoke revokes a certificate of every kind of issuer, and has openssl look at
// the list and ask the responder.
func TestRevoke(t *testing.T) {
	for _, kind := range []string{"rsa", "ec", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			e := open(t)
			root := do(t, e, "POST", "root/generate/internal", `{"common_name":"Root","key_type":"`+kind+`"}`)
			do(t, e, "POST", "roles/web", `{"allow_any_name":true,"key_type":"ec"}`)
			good, bad := do(t, e, "POST", "issue/web", `{"common_name":"good.example.com"}`), do(t, e, "POST", "issue/web", `{"common_name":"bad.example.com"}`)
			ca := file(t, "ca.pem", root.text("certificate"))
			if n := len(listOf(t, e, "crl").RevokedCertificateEntries); n != 0 {
				t.Errorf("the first list has %d entries", n)
			}
			out := do(t, e, "POST", "revoke", fields{"serial_number": bad.text("serial_number")})
			again := do(t, e, "POST", "revoke", fields{"serial_number": strings.ReplaceAll(bad.text("serial_number"), ":", "-")})
			if out["revocation_time"] != again["revocation_time"] || out.text("state") != "revoked" {
				t.Errorf("%v, then %v", out, again)
			}
			if l := listOf(t, e, "crl"); len(l.RevokedCertificateEntries) != 1 || l.Number.Int64() < 2 {
				t.Errorf("the list: %v entries, number %v", len(l.RevokedCertificateEntries), l.Number)
			}
			if c := do(t, e, "GET", "cert/"+bad.text("serial_number"), ""); c["revocation_time"] != out["revocation_time"] {
				t.Errorf("read: %v", c)
			}
			if got := do(t, e, "LIST", "certs/revoked", "").list("keys"); len(got) != 1 || got[0] != bad.text("serial_number") {
				t.Errorf("revoked: %q", got)
			}
			crl := file(t, "crl.pem", string(raw(t, e, "crl/pem")))
			openssl(t, "crl", "-in", crl, "-CAfile", ca, "-noout")
			goodFile, badFile := file(t, "good.pem", good.text("certificate")), file(t, "bad.pem", bad.text("certificate"))
			openssl(t, "verify", "-x509_strict", "-crl_check", "-CRLfile", crl, "-CAfile", ca, goodFile)
			if said, err := exec.Command("openssl", "verify", "-crl_check", "-CRLfile", crl, "-CAfile", ca, badFile).CombinedOutput(); err == nil || !strings.Contains(string(said), "certificate revoked") {
				t.Errorf("openssl verify: %s", said)
			}
			url := serve(t, e)
			said := openssl(t, "ocsp", "-issuer", ca, "-cert", goodFile, "-url", url, "-CAfile", ca, "-no_nonce")
			if !strings.Contains(said, "Response verify OK") || !strings.Contains(said, "good.pem: good") {
				t.Errorf("openssl ocsp: %s", said)
			}
			said = openssl(t, "ocsp", "-sha256", "-issuer", ca, "-cert", badFile, "-url", url, "-CAfile", ca)
			if !strings.Contains(said, "Response verify OK") || !strings.Contains(said, "bad.pem: revoked") {
				t.Errorf("openssl ocsp: %s", said)
			}
		})
	}
}

// TestOCSPGet asks by a path, as browsers do, and for what is no certificate of these.
func TestOCSPGet(t *testing.T) {
	e, other := ready(t), ready(t)
	leaf, foreign := do(t, e, "POST", "issue/web", `{"common_name":"a.example.com"}`), do(t, other, "POST", "issue/web", `{"common_name":"a.example.com"}`)
	for _, c := range []struct {
		of   *enginetest.Engine
		leaf fields
		want string
	}{{e, leaf, "good"}, {other, foreign, "unauthorized"}} {
		ca, cert := file(t, "ca.pem", string(raw(t, c.of, "ca/pem"))), file(t, "leaf.pem", c.leaf.text("certificate"))
		request := strings.TrimSuffix(ca, "ca.pem") + "request.der"
		openssl(t, "ocsp", "-issuer", ca, "-cert", cert, "-reqout", request, "-no_nonce")
		text := strings.ReplaceAll(openssl(t, "base64", "-A", "-in", request), "\n", "")
		answer := file(t, "answer.der", string(raw(t, e, "ocsp/"+text)))
		said, _ := exec.Command("openssl", "ocsp", "-respin", answer, "-issuer", ca, "-cert", cert, "-CAfile", ca).CombinedOutput()
		if !strings.Contains(string(said), c.want) {
			t.Errorf("want %s: %s", c.want, said)
		}
	}
	if got := raw(t, e, "ocsp/garbage"); !bytes.Equal(got, []byte{0x30, 3, 0x0a, 1, 1}) {
		t.Errorf("garbage: %x", got)
	}
	do(t, e, "POST", "config/crl", `{"ocsp_disable":true}`)
}

func TestRevokeOthers(t *testing.T) {
	e, other := ready(t), ready(t)
	do(t, e, "POST", "roles/loose", `{"allow_any_name":true,"key_type":"ec","no_store":true}`)
	loose := do(t, e, "POST", "issue/loose", `{"common_name":"a.example.com"}`)
	refused(t, e, "POST", "revoke", fields{"serial_number": loose.text("serial_number")}, "not found")
	foreign := do(t, other, "POST", "issue/web", `{"common_name":"a.example.com"}`)
	refused(t, e, "POST", "revoke", fields{"certificate": foreign.text("certificate")}, "none of the issuers")
	refused(t, e, "POST", "revoke", fields{}, "must be provided")
	refused(t, e, "POST", "revoke", fields{"serial_number": "xyz"}, "no serial number")
	refused(t, e, "POST", "revoke-with-key", fields{"certificate": loose.text("certificate"), "private_key": foreign.text("private_key")}, "not the certificate's")
	do(t, e, "POST", "revoke-with-key", fields{"certificate": loose.text("certificate"), "private_key": loose.text("private_key")})
	root := do(t, e, "GET", "cert/ca", "")
	refused(t, e, "POST", "revoke", fields{"certificate": root.text("certificate")}, "issuer/")
	if n := len(listOf(t, e, "crl").RevokedCertificateEntries); n != 1 {
		t.Errorf("%d entries", n)
	}
	// An intermediate of the same mount.
	asked := do(t, e, "POST", "intermediate/generate/internal", `{"common_name":"Middle","key_type":"ec"}`)
	signed := do(t, e, "POST", "root/sign-intermediate", fields{"csr": asked.text("csr"), "common_name": "Middle"})
	set := do(t, e, "POST", "intermediate/set-signed", fields{"certificate": signed.text("certificate")})
	id := set.list("imported_issuers")[0]
	do(t, e, "POST", "issuer/"+id+"/issue/web", `{"common_name":"a.example.com"}`)
	if got := do(t, e, "POST", "issuer/"+id+"/revoke", `{}`); got["revoked"] != true || strings.Contains(got.text("usage"), "issuing") {
		t.Errorf("%v", got)
	}
	refused(t, e, "POST", "issuer/"+id+"/issue/web", fields{"common_name": "a.example.com"}, "may not issue")
	if n := len(listOf(t, e, "crl").RevokedCertificateEntries); n != 2 {
		t.Errorf("%d entries", n)
	}
}

func TestLease(t *testing.T) {
	e := ready(t)
	e.Work(t)
	do(t, e, "POST", "roles/web", `{"allow_any_name":true,"key_type":"ec","generate_lease":true,"ttl":"1h"}`)
	a := e.Must(t, 200, "POST", "issue/web", `{"common_name":"a.example.com"}`)
	if a.Notes.Lease == nil || a.Notes.Lease.Renewable || a.Notes.Lease.TTL.Round(time.Minute) != time.Hour {
		t.Fatalf("%+v", a.Notes)
	}
	if err := e.Leases().Revoke(t.Context(), a.Notes.Lease.Key, true); err != nil {
		t.Fatal(err)
	}
	if n := len(listOf(t, e, "crl").RevokedCertificateEntries); n != 1 {
		t.Errorf("%d entries", n)
	}
}

// TestAtOnce has many revoke at once, and each find what it revoked in the list that
// there is when it is answered.
func TestAtOnce(t *testing.T) {
	e := ready(t)
	var serials []string
	for range 40 {
		serials = append(serials, do(t, e, "POST", "issue/web", `{"common_name":"a.example.com"}`).text("serial_number"))
	}
	var wg sync.WaitGroup
	for _, serial := range serials {
		wg.Go(func() {
			do(t, e, "POST", "revoke", fields{"serial_number": serial})
			want := strings.ReplaceAll(serial, ":", "")
			for _, r := range listOf(t, e, "crl").RevokedCertificateEntries {
				if fmt.Sprintf("%x", r.SerialNumber) == want {
					return
				}
			}
			t.Errorf("%s is not in the list", serial)
		})
	}
	wg.Wait()
	if n := listOf(t, e, "crl").Number.Int64(); n > 41 {
		t.Errorf("%d lists for 40 that were revoked", n)
	}
}

// TestByTheClock goes through a day's work of lists that are made by the clock alone.
func TestByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := ready(t)
		stop := e.Work(t)
		defer stop()
		do(t, e, "POST", "config/crl", `{"expiry":"2h","auto_rebuild":true,"auto_rebuild_grace_period":"30m","enable_delta":true,"delta_rebuild_interval":"15m"}`)
		time.Sleep(time.Minute)
		first := listOf(t, e, "crl")
		leaf := do(t, e, "POST", "issue/web", `{"common_name":"a.example.com"}`)
		do(t, e, "POST", "revoke", fields{"serial_number": leaf.text("serial_number")})
		if n := len(listOf(t, e, "crl").RevokedCertificateEntries); n != 0 {
			t.Errorf("the list is made at once")
		}
		time.Sleep(20 * time.Minute)
		delta := listOf(t, e, "crl/delta")
		if len(delta.RevokedCertificateEntries) != 1 || delta.Number.Cmp(first.Number) <= 0 {
			t.Errorf("delta: %d entries, number %v of %v", len(delta.RevokedCertificateEntries), delta.Number, first.Number)
		}
		critical := false
		for _, x := range delta.Extensions {
			critical = critical || x.Critical && x.Id.String() == "2.5.29.27"
		}
		if !critical {
			t.Error("the delta does not say so")
		}
		for range 8 {
			time.Sleep(time.Hour + time.Minute)
			if l := listOf(t, e, "crl"); time.Now().After(l.NextUpdate) {
				t.Fatalf("the list ended at %v", l.NextUpdate)
			}
		}
		if n := len(listOf(t, e, "crl").RevokedCertificateEntries); n != 1 {
			t.Errorf("%d entries", n)
		}
	})
}

// dying is storage of which all is refused once some updates were made.
type dying struct {
	storage.Engine
	left atomic.Int64
}

func (d *dying) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if d.left.Add(-1) < 0 {
		return 0, storage.ErrUnavailable
	}
	return d.Engine.Update(ctx, fn)
}

// TestDies has whoever revokes die before the list is made: the clock has it made.
func TestDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dying{Engine: memory.New()}
		d.left.Store(1 << 30)
		e := openOn(t, d)
		do(t, e, "POST", "root/generate/internal", `{"common_name":"Root","key_type":"ec"}`)
		do(t, e, "POST", "roles/web", `{"allow_any_name":true,"key_type":"ec"}`)
		leaf := do(t, e, "POST", "issue/web", `{"common_name":"a.example.com"}`)
		d.left.Store(1)
		if a := e.Do("POST", "revoke", fmt.Sprintf(`{"serial_number":%q}`, leaf.text("serial_number"))); a.Err == nil {
			t.Fatal("it did not die")
		}
		d.left.Store(1 << 30)
		if n := len(listOf(t, e, "crl").RevokedCertificateEntries); n != 0 {
			t.Fatal("the list was made")
		}
		stop := e.Work(t)
		defer stop()
		time.Sleep(time.Minute)
		if n := len(listOf(t, e, "crl").RevokedCertificateEntries); n != 1 {
			t.Errorf("%d entries", n)
		}
	})
}
