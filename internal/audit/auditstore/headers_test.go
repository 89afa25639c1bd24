package auditstore_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/audit/auditstore"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestHeadersThatAreRecorded(t *testing.T) {
	rows := memory.New()
	s := mustStart(t, t.TempDir(), rows)
	sent := map[string][]string{
		"User-Agent": {"curl/8"}, "X-Forwarded-For": {"10.0.0.1", "10.0.0.2"}, "X-Vault-Token": {"hvs.x"}, "Cookie": {"c"}, "X-Long": {strings.Repeat("x", auditstore.MaxHeaderBytes+1)},
		"X-Many": strings.Split(strings.Repeat("y,", auditstore.MaxHeaderList+1), ","),
	}
	if got := s.Recorded(sent); got != nil {
		t.Errorf("nothing was chosen: %v", got)
	}
	must(t, s.RecordHeader(t.Context(), "X-FORWARDED-for", auditstore.Header{HMAC: false}))
	must(t, s.RecordHeader(t.Context(), "user-agent", auditstore.Header{HMAC: true}))
	must(t, s.RecordHeader(t.Context(), "X-Long", auditstore.Header{}))
	must(t, s.RecordHeader(t.Context(), "X-Many", auditstore.Header{}))
	must(t, s.RecordHeader(t.Context(), "X-Absent", auditstore.Header{}))
	got := s.Recorded(sent)
	if names := slices.Sorted(maps.Keys(got)); fmt.Sprint(names) != "[user-agent x-forwarded-for x-long x-many]" {
		t.Errorf("%v", got)
	}
	if fmt.Sprint(got["x-forwarded-for"]) != "[10.0.0.1 10.0.0.2]" || len(got["x-long"][0]) != auditstore.MaxHeaderBytes || len(got["x-many"]) != auditstore.MaxHeaderList {
		t.Errorf("%v", got)
	}
	if agent := got["user-agent"][0]; !strings.HasPrefix(agent, "hmac-sha256:") || strings.Contains(agent, "curl") {
		t.Errorf("%s", agent)
	}
	must(t, s.RecordHeader(t.Context(), "User-Agent", auditstore.Header{HMAC: false}))
	if got := s.Recorded(sent); got["user-agent"][0] != "curl/8" {
		t.Errorf("%v", got)
	}
	must(t, s.ForgetHeader(t.Context(), "USER-AGENT"))
	must(t, s.ForgetHeader(t.Context(), "user-agent"))
	if got := s.Recorded(sent); got["user-agent"] != nil {
		t.Errorf("%v", got)
	}
	all, err := s.Headers(t.Context())
	if err != nil || len(all) != 4 {
		t.Errorf("%v %v", all, err)
	}
	// Another node hears of it, and a restart finds it.
	other, err := startNode(t, "other", t.TempDir(), origin, rows, 0)
	must(t, err)
	must(t, other.ForgetHeader(t.Context(), "x-long"))
	must(t, s.ReconcileHeaders(t.Context())) // as the watch asks for it
	if got := s.Recorded(sent); got["x-long"] != nil || got["x-many"] == nil {
		t.Errorf("%v", got)
	}
	s.stop()
	if got := s.Recorded(sent); got != nil {
		t.Errorf("a sealed server records %v", got)
	}
}

// TestStrangersCannotFillTheLog sends as much as the listener takes.
func TestStrangersCannotFillTheLog(t *testing.T) {
	s := mustStart(t, t.TempDir(), memory.New())
	sent := map[string][]string{}
	for i := range auditstore.MaxHeaders {
		name := fmt.Sprintf("X-%02d", i)
		must(t, s.RecordHeader(t.Context(), name, auditstore.Header{HMAC: i == auditstore.MaxHeaders-1}))
		for range 100 {
			sent[name] = append(sent[name], strings.Repeat("\x01", 1000))
		}
	}
	clear := 0
	for name, values := range s.Recorded(sent) {
		for _, v := range values {
			if name != "x-31" {
				clear += len(v)
			} else if !strings.HasPrefix(v, "hmac-sha256:") || len(v) != len("hmac-sha256:")+64 {
				t.Errorf("%s: %q", name, v)
			}
		}
	}
	if clear != auditstore.MaxRecorded {
		t.Errorf("%d bytes are recorded as they are, want %d", clear, auditstore.MaxRecorded)
	}
}

func TestHeadersThatAreNeverRecorded(t *testing.T) {
	s := mustStart(t, t.TempDir(), memory.New())
	for _, name := range []string{
		"X-Vault-Token", "x-vault-token", "Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "Cookie2", "X-Api-Key", "X-Vault-MFA", "X-Amz-Security-Token",
		"X-Goog-Iap-Jwt-Assertion", "X-Vault-AWS-IAM-Server-Auth", "X-Csrf-Token", "X-Session-Id", "X-My-Password", "Signature", "DPoP", "X-Secret", "X-OTP", "WWW-Authenticate",
		"", "a b", "a:b", "a\r\nb", strings.Repeat("x", auditstore.MaxHeaderName+1), "é",
	} {
		for _, hashed := range []bool{true, false} {
			if err := s.RecordHeader(t.Context(), name, auditstore.Header{HMAC: hashed}); !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	must(t, s.RecordHeader(t.Context(), strings.Repeat("x", auditstore.MaxHeaderName), auditstore.Header{}))
	for i := range auditstore.MaxHeaders - 1 {
		must(t, s.RecordHeader(t.Context(), fmt.Sprint("X-N", i), auditstore.Header{}))
	}
	if err := s.RecordHeader(t.Context(), "X-One-More", auditstore.Header{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("more than the limit: %v", err)
	}
	must(t, s.RecordHeader(t.Context(), "X-N0", auditstore.Header{HMAC: true}))
}
