package pki_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTidy removes what expired, and nothing else.
func TestTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := ready(t)
		stop := e.Work(t)
		defer stop()
		short, long := `{"common_name":"a.example.com","ttl":"1h"}`, `{"common_name":"a.example.com","ttl":"100h"}`
		for range 100 {
			do(t, e, "POST", "issue/web", short)
		}
		gone, kept := do(t, e, "POST", "issue/web", short), do(t, e, "POST", "issue/web", long)
		for _, c := range []fields{gone, kept} {
			do(t, e, "POST", "revoke", fields{"serial_number": c.text("serial_number")})
		}
		if a := e.Must(t, 200, "POST", "tidy", `{}`); len(a.Warnings) != 1 {
			t.Errorf("%q", a.Warnings)
		}
		time.Sleep(3 * time.Hour)
		e.Must(t, 202, "POST", "tidy", `{"tidy_cert_store":true,"tidy_revoked_certs":true,"safety_buffer":"1h"}`)
		time.Sleep(time.Minute)
		s := do(t, e, "GET", "tidy-status", "")
		if s["state"] != "Finished" || s["cert_store_deleted_count"] != 101.0 || s["revoked_cert_deleted_count"] != 1.0 || s["safety_buffer"] != 3600.0 {
			t.Errorf("%v", s)
		}
		if got := do(t, e, "LIST", "certs", "").list("keys"); len(got) != 2 { // and the root
			t.Errorf("%q are left", got)
		}
		if l := listOf(t, e, "crl"); len(l.RevokedCertificateEntries) != 1 {
			t.Errorf("%d entries", len(l.RevokedCertificateEntries))
		}
		e.Must(t, 404, "GET", "cert/"+gone.text("serial_number"), "")
		refused(t, e, "POST", "tidy-cancel", fields{}, "none is currently running")
		refused(t, e, "POST", "tidy", fields{"safety_buffer": "0s"}, "greater than zero")
	})
}

// TestAutoTidy removes by the clock what expired, issuers included, and stops when it
// is told to.
func TestAutoTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := ready(t)
		stop := e.Work(t)
		defer stop()
		refused(t, e, "POST", "config/auto-tidy", fields{"enabled": true}, "no tidy operations")
		do(t, e, "POST", "issuers/generate/root/internal", `{"common_name":"Short","ttl":"1h","key_type":"ec"}`)
		do(t, e, "POST", "issue/web", `{"common_name":"a.example.com","ttl":"30m"}`)
		got := do(t, e, "POST", "config/auto-tidy", `{"enabled":true,"interval_duration":"2h","tidy_cert_store":true,"tidy_expired_issuers":true,"safety_buffer":"1m","issuer_safety_buffer":"1m"}`)
		if got["interval_duration"] != 7200.0 || got["enabled"] != true {
			t.Errorf("%v", got)
		}
		time.Sleep(2*time.Hour + 5*time.Minute)
		if left := do(t, e, "LIST", "issuers", "").list("keys"); len(left) != 1 {
			t.Errorf("issuers left: %q", left)
		}
		if left := do(t, e, "LIST", "certs", "").list("keys"); len(left) != 1 {
			t.Errorf("certificates left: %q", left)
		}
		s := do(t, e, "GET", "tidy-status", "")
		if s["last_auto_tidy_finished"] == nil {
			t.Errorf("%v", s)
		}
		do(t, e, "POST", "config/auto-tidy", `{"enabled":false}`)
		time.Sleep(5 * time.Hour)
		if now := do(t, e, "GET", "tidy-status", ""); now.text("time_started") != s.text("time_started") {
			t.Error("it goes on")
		}
	})
}
