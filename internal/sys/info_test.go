package sys_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/gateway"
)

func TestWrapping(t *testing.T) {
	s := ready(t)
	wrapped := func(body string) (string, map[string]any) {
		out := s.must(t, 200, s.root, "POST", "sys/wrapping/wrap", body, func(r *gateway.Request) { r.WrapTTL = "5m" })
		info := out["wrap_info"].(map[string]any)
		if out["data"] != nil || info["ttl"] != 300.0 || info["creation_path"] != "sys/wrapping/wrap" {
			t.Fatalf("%v", out)
		}
		return info["token"].(string), info
	}
	s.refused(t, 400, "X-Vault-Wrap-TTL", "POST", "sys/wrapping/wrap", `{"a":"b"}`)
	tok, info := wrapped(`{"password":"p4","n":12345678901234567890}`)
	look := s.must(t, 200, "", "POST", "sys/wrapping/lookup", quote(map[string]string{"token": tok}))["data"].(map[string]any)
	if look["creation_path"] != info["creation_path"] || look["creation_ttl"] != 300.0 || look["creation_time"] != info["creation_time"] {
		t.Errorf("%v", look)
	}
	s.must(t, 200, tok, "GET", "sys/wrapping/lookup", "")
	again := s.must(t, 200, tok, "POST", "sys/wrapping/rewrap", "")["wrap_info"].(map[string]any)["token"].(string)
	if again == tok {
		t.Fatal("rewrap gave the same token")
	}
	for _, gone := range []string{tok, "hvs.none", "", s.root} {
		for _, verb := range []string{"unwrap", "lookup", "rewrap"} {
			status, _, raw := s.ask(t, "", "POST", "sys/wrapping/"+verb, quote(map[string]string{"token": gone}))
			if status != 400 || !strings.Contains(string(raw), "wrapping token is not valid or does not exist") {
				t.Errorf("%s of a token that wraps nothing: %d %s", verb, status, raw)
			}
		}
	}
	_, out, raw := s.ask(t, again, "POST", "sys/wrapping/unwrap", "")
	if d := out["data"].(map[string]any); d["password"] != "p4" || !strings.Contains(string(raw), "12345678901234567890") {
		t.Errorf("%s", raw)
	}
	s.must(t, 400, again, "POST", "sys/wrapping/unwrap", "")

	tok, _ = wrapped(`{"a":"b"}`)
	won := make(chan bool, 8)
	together(8, func(int) {
		status, _, _ := s.ask(t, s.root, "POST", "sys/wrapping/unwrap", quote(map[string]string{"token": tok}))
		won <- status == 200
	})
	n := 0
	for range 8 {
		if <-won {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of 8 callers got what was wrapped", n)
	}
}

func TestAuditDevices(t *testing.T) {
	s, dir := ready(t), t.TempDir()
	if out := s.data(t, "GET", "sys/audit", ""); len(out) != 0 {
		t.Errorf("%v", out)
	}
	file := filepath.Join(dir, "requests.log")
	body := quote(map[string]any{"type": "file", "description": "d", "options": map[string]string{"file_path": file}, "local": true})
	s.must(t, 204, s.root, "PUT", "sys/audit/file", body)
	out := s.must(t, 200, s.root, "GET", "sys/audit", "")
	device := out["data"].(map[string]any)["file/"].(map[string]any)
	if device["type"] != "file" || device["path"] != "file/" || device["description"] != "d" || device["local"] != true || device["options"].(map[string]any)["file_path"] != file || out["file/"] == nil {
		t.Errorf("%v", out)
	}
	s.refused(t, 400, "path already in use", "POST", "sys/audit/file", body)
	s.refused(t, 400, "one word", "POST", "sys/audit/a/b", body)
	s.refused(t, 400, "unknown audit device type", "POST", "sys/audit/other", `{"type":"socket"}`)
	s.refused(t, 400, "file_path", "POST", "sys/audit/other", `{"type":"file"}`)
	hash := s.must(t, 200, s.root, "POST", "sys/audit-hash/file", `{"input":"x"}`)
	if h := hash["hash"].(string); !strings.HasPrefix(h, "hmac-sha256:") || hash["data"].(map[string]any)["hash"] != h {
		t.Errorf("%v", hash)
	}
	s.refused(t, 400, "empty", "POST", "sys/audit-hash/file", `{}`)
	s.refused(t, 400, "unknown audit backend", "POST", "sys/audit-hash/none", `{"input":"x"}`)
	for _, try := range [][2]string{{"GET", "sys/audit"}, {"POST", "sys/audit/x"}, {"DELETE", "sys/audit/file"}, {"POST", "sys/audit-log/repair"}} {
		s.must(t, 403, s.user(t, `path "sys/audit*" { capabilities = ["create", "read", "update", "delete"] }`), try[0], try[1], "")
	}
	s.must(t, 204, s.root, "DELETE", "sys/audit/file", "")
	s.must(t, 204, s.root, "DELETE", "sys/audit/file", "")
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestAuditLogIsRepairedByAnOperator(t *testing.T) {
	s := ready(t)
	nobody := s.user(t, readApp)
	s.must(t, 204, s.root, "POST", "sys/audit-log/repair", "") // nothing is broken
	segments, err := filepath.Glob(filepath.Join(s.audit.Dir(), "audit-0*.log"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segment: %v", err)
	}
	must(t, os.Rename(segments[0], segments[0]+".away"))
	s.must(t, 503, s.root, "POST", "sys/policies/acl/x", quote(map[string]string{"policy": readApp}))
	s.must(t, 503, s.root, "GET", "sys/mounts", "")
	s.must(t, 503, nobody, "POST", "sys/audit-log/repair", "") // a refusal is not recorded either
	s.must(t, 503, nobody, "GET", "sys/mounts", "")
	s.must(t, 204, s.root, "POST", "sys/audit-log/repair", "")
	s.must(t, 200, s.root, "POST", "sys/policies/acl/x", quote(map[string]string{"policy": readApp}))
	must(t, os.Remove(segments[0]+".away"))
	repaired := false
	for e, err := range audit.Read(t.Context(), s.audit.Dir(), audit.ReadOptions{}) {
		must(t, err)
		repaired = repaired || e.Event == audit.EventRepaired
	}
	if !repaired {
		t.Error("the repair is not in the log")
	}
}

func TestAuditLogForVerifiers(t *testing.T) {
	s := ready(t)
	_, err := s.audit.Checkpoint(t.Context())
	must(t, err)
	out := s.data(t, "GET", "sys/audit-log", "")
	if out["origin"] != "coffer-test/audit" || !strings.HasPrefix(out["public_key"].(string), "coffer-test/audit+") || out["entries"].(float64) < 3 {
		t.Errorf("%v", out)
	}
	report, err := audit.Verify(s.audit.Dir(), audit.VerifyOptions{PublicKeys: []string{out["public_key"].(string)}})
	if err != nil || !report.Intact() {
		t.Errorf("%v %+v", err, report)
	}
}

func TestInformation(t *testing.T) {
	s := ready(t)
	nobody := s.user(t, readApp)
	if _, _, raw := s.ask(t, s.root, "GET", "sys/metrics?format=prometheus", ""); string(raw) != "format prometheus" {
		t.Errorf("%s", raw)
	}
	if _, out, _ := s.ask(t, s.root, "GET", "sys/internal/specs/openapi?generic_mount_paths=true&context=x", ""); out["openapi"] != "3.0.2" {
		t.Errorf("%v", out)
	}
	if out := s.must(t, 200, s.root, "GET", "sys/config/state/sanitized", ""); out["data"].(map[string]any)["api_addr"] != "x" {
		t.Errorf("%v", out)
	}
	for _, method := range []string{"GET", "LIST"} {
		out := s.data(t, method, "sys/version-history", "")
		if !slices.Equal(names(out["keys"]), []string{"1.19.0+coffer"}) || out["key_info"].(map[string]any)["1.19.0+coffer"].(map[string]any)["timestamp_installed"] == "" {
			t.Errorf("%v", out)
		}
	}
	host := s.data(t, "GET", "sys/host-info", "")
	if host["host"].(map[string]any)["hostname"] == "" || len(host["cpu"].([]any)) == 0 || host["memory"].(map[string]any)["sys"].(float64) <= 0 {
		t.Errorf("%v", host)
	}
	flight := s.data(t, "GET", "sys/in-flight-req", "")
	if len(flight) != 1 || flight[keysOf(flight)[0]].(map[string]any)["request_path"] != "sys/in-flight-req" {
		t.Errorf("%v", flight)
	}
	for _, path := range []string{"sys/metrics", "sys/internal/specs/openapi", "sys/config/state/sanitized", "sys/host-info", "sys/in-flight-req", "sys/version-history", "sys/ha-status", "sys/key-status", "sys/audit-log"} {
		s.must(t, 403, nobody, "GET", path, "")
		s.must(t, 403, "", "GET", path, "")
	}
}

func TestProfiles(t *testing.T) {
	s := ready(t)
	for _, name := range []string{"heap", "goroutine", "allocs"} {
		if status, _, raw := s.ask(t, s.root, "GET", "sys/pprof/"+name, ""); status != 200 || len(raw) == 0 {
			t.Errorf("%s: %d", name, status)
		}
	}
	if _, _, raw := s.ask(t, s.root, "GET", "sys/pprof/goroutine?debug=1", ""); !strings.Contains(string(raw), "goroutine profile") {
		t.Errorf("%.80s", raw)
	}
	if status, _, raw := s.ask(t, s.root, "GET", "sys/pprof/profile?seconds=1", ""); status != 200 || len(raw) == 0 {
		t.Errorf("%d %.80s", status, raw)
	}
	if status, _, raw := s.ask(t, s.root, "GET", "sys/pprof/trace?seconds=0.2", ""); status != 200 || len(raw) == 0 {
		t.Errorf("%d %.80s", status, raw)
	}
	s.must(t, 404, s.root, "GET", "sys/pprof/none", "")
	for _, span := range []string{"61", "-1"} {
		s.must(t, 400, s.root, "GET", "sys/pprof/profile?seconds="+span, "")
	}
	s.must(t, 403, s.user(t, `path "sys/pprof/*" { capabilities = ["read"] }`), "GET", "sys/pprof/heap", "")
}
