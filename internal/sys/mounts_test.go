package sys_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/gateway"
)

func TestMounts(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/team/", `{"type":"kv","description":"of the team","options":{"version":"2"},"config":{"default_lease_ttl":"1h","max_lease_ttl":"","force_no_cache":false,"plugin_name":"","options":null},"local":false,"seal_wrap":false,"external_entropy_access":false}`)
	s.must(t, 204, s.root, "POST", "sys/mounts/a/b", `{"type":"kv-v2"}`)
	s.must(t, 204, s.root, "PUT", "sys/mounts/old", `{"type":"plugin","plugin_name":"kv"}`)
	s.must(t, 204, s.root, "POST", "sys/mounts/older", `{"type":"plugin","config":{"plugin_name":"kv"}}`)
	out := s.must(t, 200, s.root, "GET", "sys/mounts", "")
	data := out["data"].(map[string]any)
	want := []string{"a/b/", "cubbyhole/", "old/", "older/", "sys/", "team/"}
	if !slices.Equal(keysOf(data), want) {
		t.Errorf("mounts %v", keysOf(data))
	}
	team := data["team/"].(map[string]any)
	if fmt.Sprint(out["team/"]) != fmt.Sprint(team) {
		t.Error("the list does not stand beside data too")
	}
	config := team["config"].(map[string]any)
	if team["type"] != "kv" || team["description"] != "of the team" || team["options"].(map[string]any)["version"] != "2" ||
		!strings.HasPrefix(team["accessor"].(string), "kv_") || team["uuid"] == "" || config["default_lease_ttl"] != 3600.0 || config["max_lease_ttl"] != 0.0 || config["token_type"] != nil {
		t.Errorf("%v", team)
	}
	if v := data["old/"].(map[string]any)["options"].(map[string]any)["version"]; v != "1" {
		t.Errorf("kv without a version is %v", v)
	}
	one := s.must(t, 200, s.root, "GET", "sys/mounts/a/b/", "")
	if one["type"] != "kv" || one["data"].(map[string]any)["accessor"] != data["a/b/"].(map[string]any)["accessor"] {
		t.Errorf("%v", one)
	}
	s.refused(t, 400, "No secret engine mount at none/", "GET", "sys/mounts/none", "")
	s.must(t, 200, s.root, "POST", "team/data/x", `{"data":{"v":"1"}}`)
	s.must(t, 204, s.root, "DELETE", "sys/mounts/team", "")
	s.must(t, 204, s.root, "DELETE", "sys/mounts/team", "")
	s.must(t, 404, s.root, "GET", "team/data/x", "")
}

func TestMountsThatAreRefused(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/team", `{"type":"kv"}`)
	for body, says := range map[string]string{
		`{}`:                  "backend type must be specified",
		`{"type":"plugin"}`:   "backend type must be specified",
		`{"type":"transit"}`:  "plugin not found in the catalog: transit",
		`{"type":"userpass"}`: "plugin not found",
		`{"type":"kv","options":{"version":"3"}}`:                                  "plugin not found",
		`{"type":"kv","config":{"default_lease_ttl":"2h","max_lease_ttl":"1h"}}`:   "longer than max_lease_ttl",
		`{"type":"kv","config":{"default_lease_ttl":"soon"}}`:                      "is not a duration",
		`{"type":"kv","config":{"max_lease_ttl":"-1h"}}`:                           "cannot be negative",
		`{"type":"kv","config":{"listing_visibility":"maybe"}}`:                    "listing_visibility",
		`{"type":"kv","config":{"user_lockout_config":{"lockout_threshold":"3"}}}`: "not allowed",
	} {
		s.refused(t, 400, says, "POST", "sys/mounts/new", body)
	}
	for path, says := range map[string]string{
		"team": "path is already in use at team/", "team/below": "path is already in use", "sys": "reserved", "auth/x": "below auth/", "cubbyhole": "reserved", "a//b": "", "a/../b": "",
	} {
		s.refused(t, 400, says, "POST", "sys/mounts/"+path, `{"type":"kv"}`)
	}
	s.refused(t, 400, "cannot unmount", "DELETE", "sys/mounts/sys", "")
	s.refused(t, 400, "cannot unmount", "DELETE", "sys/mounts/cubbyhole", "")
	s.refused(t, 400, "cannot unmount", "DELETE", "sys/auth/token", "")
	if got := keysOf(s.data(t, "GET", "sys/mounts", "")); len(got) != 3 {
		t.Errorf("what was refused is mounted: %v", got)
	}
}

// What Vault's client sends for a change of one setting holds the others empty.
func TestTune(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/team", `{"type":"kv","description":"before","config":{"default_lease_ttl":"1h","max_lease_ttl":"24h"}}`)
	tune := func(body string) map[string]any {
		t.Helper()
		s.must(t, 204, s.root, "POST", "sys/mounts/team/tune", body)
		return s.data(t, "GET", "sys/mounts/team/tune", "")
	}
	out := tune(`{"options":null,"default_lease_ttl":"","description":"after","max_lease_ttl":"","force_no_cache":false}`)
	if out["description"] != "after" || out["default_lease_ttl"] != 3600.0 || out["max_lease_ttl"] != 86400.0 || out["force_no_cache"] != false {
		t.Errorf("a new description came with %v", out)
	}
	out = tune(`{"default_lease_ttl":"system","max_lease_ttl":"48h","listing_visibility":"unauth"}`)
	if out["default_lease_ttl"] != 2764800.0 || out["max_lease_ttl"] != 172800.0 || out["listing_visibility"] != "unauth" || out["description"] != "after" {
		t.Errorf("%v", out)
	}
	out = tune(`{"max_lease_ttl":7200,"description":"","options":{"note":"x"},"audit_non_hmac_request_keys":["a","b"]}`)
	if out["max_lease_ttl"] != 7200.0 || out["description"] != "" || out["options"].(map[string]any)["note"] != "x" || len(names(out["audit_non_hmac_request_keys"])) != 2 {
		t.Errorf("%v", out)
	}
	out = tune(`{"options":{"note":"","version":"2"}}`)
	if o := out["options"].(map[string]any); o["version"] != "2" || o["note"] != nil {
		t.Errorf("options %v", o)
	}
	s.must(t, 200, s.root, "POST", "team/data/x", `{"data":{"v":"1"}}`)
	for body, says := range map[string]string{
		`{"options":{"version":"1"}}`: "cannot be changed from version 2", `{"options":{"version":""}}`: "cannot be changed", `{"options":{"version":"x"}}`: "cannot be changed",
		`{"token_type":"batch"}`: "can only be modified on auth mounts", `{"default_lease_ttl":"-5s"}`: "negative",
		`{"default_lease_ttl":"3h"}`: "longer than max_lease_ttl", `{"listing_visibility":"x"}`: "listing_visibility", `{"max_lease_ttl":{}}`: "max_lease_ttl",
		`{"user_lockout_config":{"lockout_threshold":"1"}}`: "not allowed",
	} {
		s.refused(t, 400, says, "POST", "sys/mounts/team/tune", body)
	}
	s.refused(t, 400, "none/", "POST", "sys/mounts/none/tune", `{}`)
	s.refused(t, 400, "none/", "GET", "sys/mounts/none/tune", "")
	for _, path := range []string{"sys", "cubbyhole"} {
		s.refused(t, 400, "cannot tune", "POST", "sys/mounts/"+path+"/tune", `{"max_lease_ttl":"1h"}`)
	}
	s.must(t, 204, s.root, "POST", "sys/auth/token/tune", `{"default_lease_ttl":"1h"}`)
	s.refused(t, 400, "cannot be set for 'token'", "POST", "sys/auth/token/tune", `{"token_type":"batch"}`)
	if out := s.data(t, "GET", "sys/mounts/team/tune", ""); out["max_lease_ttl"] != 7200.0 {
		t.Errorf("what was refused changed something: %v", out)
	}
}

func TestAuthMounts(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/auth/people", `{"type":"userpass","description":"d","config":{"listing_visibility":"unauth","token_type":"batch"}}`)
	out := s.must(t, 200, s.root, "GET", "sys/auth", "")
	data := out["data"].(map[string]any)
	if !slices.Equal(keysOf(data), []string{"people/", "token/"}) || out["people/"] == nil {
		t.Errorf("%v", keysOf(data))
	}
	if c := data["people/"].(map[string]any)["config"].(map[string]any); c["token_type"] != "batch" || c["listing_visibility"] != "unauth" {
		t.Errorf("%v", c)
	}
	if c := data["token/"].(map[string]any)["config"].(map[string]any); c["token_type"] != "default-service" {
		t.Errorf("%v", c)
	}
	if one := s.data(t, "GET", "sys/auth/people", ""); one["type"] != "userpass" {
		t.Errorf("%v", one)
	}
	s.refused(t, 400, "No auth engine at none/", "GET", "sys/auth/none", "")
	s.refused(t, 400, "plugin not found", "POST", "sys/auth/x", `{"type":"kv"}`)
	// Vault's command line tunes an auth method below sys/mounts.
	s.must(t, 204, s.root, "POST", "sys/mounts/auth/people/tune", `{"default_lease_ttl":"2h","token_type":"service"}`)
	if out := s.data(t, "GET", "sys/auth/people/tune", ""); out["default_lease_ttl"] != 7200.0 || out["token_type"] != "service" {
		t.Errorf("%v", out)
	}
	narrow := s.user(t, `path "sys/mounts/*" { capabilities = ["read", "update", "delete"] }
path "sys/auth/*" { capabilities = ["read", "update", "delete"] }`)
	for _, try := range [][3]string{
		{"POST", "sys/auth/more", `{"type":"userpass"}`}, {"DELETE", "sys/auth/people", ""}, {"GET", "sys/auth/people", ""},
		{"GET", "sys/auth/people/tune", ""}, {"POST", "sys/auth/people/tune", `{}`},
	} {
		s.must(t, 403, narrow, try[0], try[1], try[2])
	}
	if status, _, raw := s.ask(t, narrow, "DELETE", "sys/mounts/auth/people", ""); status != 400 || !strings.Contains(string(raw), "sys/auth/people") {
		t.Errorf("an auth method is disabled below sys/mounts, where nobody asks for sudo: %d %s", status, raw)
	}
	s.must(t, 204, s.root, "DELETE", "sys/auth/people", "")
	s.must(t, 204, s.root, "DELETE", "sys/auth/people/", "")
}

func TestUserLockout(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/auth/people", `{"type":"userpass","config":{"user_lockout_config":{"lockout_threshold":"3","lockout_duration":"10m","lockout_counter_reset_duration":"5m","lockout_disable":false}}}`)
	config := s.data(t, "GET", "sys/auth", "")["people/"].(map[string]any)["config"].(map[string]any)
	want := map[string]any{"user_lockout_threshold": 3.0, "user_lockout_duration": 600.0, "user_lockout_counter_reset_duration": 300.0, "user_lockout_disable": false}
	if fmt.Sprint(config["user_lockout_config"]) != fmt.Sprint(want) {
		t.Errorf("%v", config)
	}
	s.must(t, 204, s.root, "POST", "sys/auth/people/tune", `{"user_lockout_config":{"lockout_threshold":2,"lockout_counter_reset_duration":"system"}}`)
	tuned := s.data(t, "GET", "sys/auth/people/tune", "")
	if tuned["user_lockout_threshold"] != 2.0 || tuned["user_lockout_duration"] != 600.0 || tuned["user_lockout_counter_reset_duration"] != nil || tuned["user_lockout_disable"] != false || tuned["user_lockout_config"] != nil {
		t.Errorf("%v", tuned)
	}
	for body, says := range map[string]string{
		`{"user_lockout_config":{"lockout_threshold":"-1"}}`:   "lockout_threshold",
		`{"user_lockout_config":{"lockout_threshold":"many"}}`: "user_lockout_config",
		`{"user_lockout_config":{"lockout_duration":"-1m"}}`:   "lockout_duration",
		`{"user_lockout_config":7}`:                            "user_lockout_config",
	} {
		s.refused(t, 400, says, "POST", "sys/auth/people/tune", body)
	}
	s.must(t, 204, s.root, "POST", "auth/people/users/ann", `{"password":"correct horse"}`)
	login := func(password string) int {
		status, _, _ := s.ask(t, "", "POST", "auth/people/login/ann", quote(map[string]string{"password": password}))
		return status
	}
	for range 2 {
		if got := login("wrong"); got != 400 {
			t.Fatalf("a wrong password: %d", got)
		}
	}
	if got := login("correct horse"); got != 403 {
		t.Errorf("two failures do not lock: %d", got)
	}
	s.must(t, 204, s.root, "POST", "sys/auth/people/tune", `{"user_lockout_config":{"lockout_disable":true}}`)
	if got := login("correct horse"); got != 200 {
		t.Errorf("a lockout that is disabled locks: %d", got)
	}
}

func TestRemount(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/team", `{"type":"kv"}`)
	s.must(t, 204, s.root, "POST", "sys/mounts/other", `{"type":"kv"}`)
	s.must(t, 204, s.root, "POST", "sys/auth/people", `{"type":"userpass"}`)
	s.must(t, 204, s.root, "POST", "team/x", `{"v":"1"}`)
	s.must(t, 403, s.user(t, `path "sys/remount" { capabilities = ["update"] }`), "POST", "sys/remount", `{"from":"team","to":"crew"}`)
	id := s.data(t, "POST", "sys/remount", `{"from":"team/","to":"crew/"}`)["migration_id"].(string)
	if id == "" || strings.Contains(id, "/") {
		t.Fatalf("migration id %q", id)
	}
	info := s.data(t, "GET", "sys/remount/status/"+id, "")["migration_info"].(map[string]any)
	if info["status"] != "success" || info["source_mount"] != "team/" || info["target_mount"] != "crew/" {
		t.Errorf("%v", info)
	}
	s.must(t, 404, s.root, "GET", "team/x", "")
	if out := s.data(t, "GET", "crew/x", ""); out["v"] != "1" {
		t.Errorf("%v", out)
	}
	for body, says := range map[string]string{
		`{"from":"none","to":"x"}`: "no matching mount", `{"from":"crew","to":"other"}`: "already in use", `{"from":"crew","to":""}`: "mount path is needed",
		`{"from":"sys","to":"x"}`: "cannot remount", `{"from":"crew","to":"auth/x"}`: "below auth/", `{"from":"auth/people","to":"x"}`: "below auth/", `{}`: "no matching mount",
	} {
		s.refused(t, 400, says, "POST", "sys/remount", body)
	}
	s.data(t, "POST", "sys/remount", `{"from":"auth/people","to":"auth/staff"}`)
	if got := keysOf(s.data(t, "GET", "sys/auth", "")); !slices.Equal(got, []string{"staff/", "token/"}) {
		t.Errorf("%v", got)
	}
	for _, none := range []string{"x", "x.y", id + "x!", strings.Split(id, ".")[0]} {
		s.must(t, 404, s.root, "GET", "sys/remount/status/"+none, "")
	}
}

// Vault's kv commands ask which version a mount has by this.
func TestMountOfAPath(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/team", `{"type":"kv","options":{"version":"2"}}`)
	s.must(t, 204, s.root, "POST", "sys/mounts/hidden", `{"type":"kv"}`)
	reader := s.user(t, `path "team/app/*" { capabilities = ["read"] }`)
	out := s.must(t, 200, reader, "GET", "sys/internal/ui/mounts/team/app/db", "")["data"].(map[string]any)
	if out["path"] != "team/" || out["type"] != "kv" || out["options"].(map[string]any)["version"] != "2" {
		t.Errorf("%v", out)
	}
	for _, path := range []string{"hidden/x", "none/x", "none"} {
		got, _, raw := s.ask(t, reader, "GET", "sys/internal/ui/mounts/"+path, "")
		if got != 403 || !strings.Contains(string(raw), "preflight capability check returned 403") {
			t.Errorf("%s: %d %s", path, got, raw)
		}
	}
	// A token that has no other policy, not even default, finds its mount too.
	made := s.must(t, 200, s.root, "POST", "auth/token/create", `{"no_default_policy":true,"policies":["team-reader"]}`)["auth"].(map[string]any)
	s.must(t, 204, s.root, "POST", "sys/policies/acl/team-reader", `{"policy":"path \"team/app/*\" { capabilities = [\"read\"] }"}`)
	bare := made["client_token"].(string)
	s.must(t, 200, bare, "GET", "sys/internal/ui/mounts/team/app/db", "")
	s.must(t, 403, bare, "GET", "sys/internal/ui/mounts/hidden/x", "")
	s.must(t, 403, "", "GET", "sys/internal/ui/mounts/team/app/db", "")
	all := s.must(t, 200, reader, "GET", "sys/internal/ui/mounts", "")["data"].(map[string]any)
	if got := keysOf(all["secret"].(map[string]any)); slices.Contains(got, "hidden/") || !slices.Contains(got, "team/") {
		t.Errorf("a reader of team/ is shown %v", got)
	}
	s.must(t, 204, s.root, "POST", "sys/mounts/hidden/tune", `{"listing_visibility":"unauth"}`)
	all = s.must(t, 200, reader, "GET", "sys/internal/ui/mounts", "")["data"].(map[string]any)
	if got := keysOf(all["secret"].(map[string]any)); !slices.Contains(got, "hidden/") {
		t.Errorf("a mount for all to see is not shown: %v", got)
	}
	if got := keysOf(s.data(t, "GET", "sys/internal/ui/mounts", "")["auth"].(map[string]any)); !slices.Equal(got, []string{"token/"}) {
		t.Errorf("%v", got)
	}
}

func TestCatalog(t *testing.T) {
	s := ready(t)
	out := s.data(t, "GET", "sys/plugins/catalog", "")
	if !slices.Equal(names(out["secret"]), []string{"database", "kv", "pki"}) || !slices.Equal(names(out["auth"]), []string{"approle", "aws", "cert", "jwt", "kubernetes", "ldap", "oidc", "spiffe", "userpass"}) || len(names(out["database"])) != 0 || len(out["detailed"].([]any)) != 12 {
		t.Errorf("%v", out)
	}
	if one := s.data(t, "GET", "sys/plugins/catalog/auth/userpass", ""); one["builtin"] != true || one["name"] != "userpass" {
		t.Errorf("%v", one)
	}
	s.must(t, 404, s.root, "GET", "sys/plugins/catalog/auth/kv", "")
	s.must(t, 405, s.root, "DELETE", "sys/plugins/catalog/auth/userpass", "")
}

func TestNamespacesAreToldToBeMissing(t *testing.T) {
	s := ready(t)
	s.must(t, 404, s.root, "GET", "sys/mounts", "", func(r *gateway.Request) { r.Namespace = "team" })
	s.must(t, 200, s.root, "GET", "sys/mounts", "", func(r *gateway.Request) { r.Namespace = "root/" })
}
