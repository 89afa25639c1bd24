package config

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func noEnv(string) string { return "" }

// put writes a file into a new directory and returns its path.
func put(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, paths ...string) *Config {
	t.Helper()
	c, err := Load(Source{Paths: paths, Getenv: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const storage = "storage \"pebble\" {\n  path = \"/tmp/coffer-test\"\n}\n"

// everything is written as Vault's documentation writes its examples, quirks of
// the language included.
const everything = `
# a comment
ui            = true
cluster_addr  = "https://127.0.0.1:8201"
api_addr      = "https://coffer.example.test:8200/"
disable_mlock = "true"
"log_level" = "debug"
log_format = "json"
default_lease_ttl = "24h", max_lease_ttl = 2592000
plugin_directory = "/usr/lib/plugins"
max_payload_size = "2MiB"

backend "raft" {
  path    = "DIR/data"
  node_id = "raft_node_1"
}

listener tcp {
  address = "0.0.0.0:8200", cluster_address = "0.0.0.0:8201"
  tls_cert_file = "DIR/cert.pem"
  tls_key_file  = "DIR/key.pem"
  tls_client_ca_file = "DIR/ca.pem"
  tls_min_version = "tls13"
  tls_cipher_suites = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
  x_forwarded_for_authorized_addrs = "10.0.0.0/8, 192.0.2.1"
  x_forwarded_for_hop_skips = "1"
  x_forwarded_for_reject_not_present = false
  http_read_timeout = "30s"
  max_request_duration = 60
  custom_response_headers {
    "default" = {
      "Strict-Transport-Security" = ["max-age=31536000","includeSubDomains"],
      "X-Custom" = ["one"],
    },
    "4xx" = { "X-Error" = "yes" },
  }
  telemetry {
    unauthenticated_metrics_access = true
  }
}

listener "unix" {
  address = "DIR/coffer.sock"
  socket_mode = "660"
}

seal "keyfile" { path = "DIR/seal.key" }
seal "pkcs11" {
  name = "hsm"
  lib = "DIR/cert.pem"
  token_label = "coffer"
  pin = "env://HSM_PIN"
  key_label = "root"
  generate_key = "true"
  disabled = true
}

user_lockout "all" {
  lockout_threshold = "10"
  lockout_duration = "10m"
}

audit {
  path = "DIR/audit"
  sync = "changes"
  segment_size = "16MiB"
}

telemetry {
  prometheus_retention_time = "30s"
  disable_hostname = true
  statsd_address = "127.0.0.1:8125"
}
`

func TestEverySettingIsUnderstood(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cert.pem", "key.pem", "ca.pem"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := put(t, "coffer.hcl", strings.ReplaceAll(everything, "DIR", dir))
	c, err := Load(Source{Paths: []string{path}, Getenv: func(name string) string {
		return map[string]string{"HSM_PIN": "1234"}[name]
	}})
	if err != nil {
		t.Fatal(err)
	}
	l := c.Listeners[0]
	checks := map[string][2]any{
		"api_addr":       {c.APIAddr, "https://coffer.example.test:8200"},
		"storage":        {c.Storage.Kind + " " + c.Storage.Path, "pebble " + dir + "/data"},
		"data dir":       {c.DataDir, dir + "/data"},
		"mlock":          {c.DisableMlock, true},
		"level":          {c.LogLevel, slog.LevelDebug},
		"format":         {c.LogFormat, "json"},
		"default ttl":    {c.DefaultLeaseTTL, 24 * time.Hour},
		"max ttl":        {c.MaxLeaseTTL, 720 * time.Hour},
		"payload":        {c.MaxPayloadSize, int64(2 << 20)},
		"listeners":      {len(c.Listeners), 2},
		"address":        {l.Address, "0.0.0.0:8200"},
		"tls mode":       {l.TLS.Mode, TLSFiles},
		"client auth":    {l.TLS.Auth, tls.VerifyClientCertIfGiven},
		"min version":    {l.TLS.Min, uint16(tls.VersionTLS13)},
		"ciphers":        {fmt.Sprint(l.TLS.Ciphers), fmt.Sprint([]uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384})},
		"proxies":        {fmt.Sprint(l.Forwarded.Authorized), fmt.Sprint([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")})},
		"hop skips":      {l.Forwarded.HopSkips, 1},
		"not present":    {l.Forwarded.RejectNotPresent, false},
		"not authorized": {l.Forwarded.RejectNotAuthorized, true},
		"read timeout":   {l.ReadTimeout, 30 * time.Second},
		"max duration":   {l.MaxRequestDuration, time.Minute},
		"headers":        {fmt.Sprint(l.ResponseHeaders), "map[4xx:map[X-Error:[yes]] default:map[Strict-Transport-Security:[max-age=31536000 includeSubDomains] X-Custom:[one]]]"},
		"metrics":        {l.UnauthenticatedStats, true},
		"socket mode":    {c.Listeners[1].SocketMode, os.FileMode(0o660)},
		"seals":          {len(c.Seals), 2},
		"seal name":      {c.Seals[1].Name, "hsm"},
		"pin":            {c.Seals[1].PIN.Reveal(), "1234"},
		"seal disabled":  {c.Seals[1].Disabled, true},
		"lockout":        {c.Lockouts[0], Lockout{"all", 10, 10 * time.Minute, 15 * time.Minute, false}},
		"audit":          {c.Audit, Audit{dir + "/audit", false, 16 << 20, 0, 0}},
		"telemetry":      {c.Telemetry, Telemetry{30 * time.Second, true, 0}},
	}
	for name, pair := range checks {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
	if got := fmt.Sprint(c.Seals[0].Settings("/data"), c.Seals[1].Settings("/data")); got != "map[path:"+dir+"/seal.key] map[generate_key:true key_label:root lib:"+dir+"/cert.pem pin:1234 token_label:coffer]" {
		t.Errorf("the seals' settings are %s", got)
	}
	for _, want := range []string{"plugin_directory", "cluster_address", "node_id", "statsd_address", "Vault's raft storage is not read"} {
		if !strings.Contains(strings.Join(c.Notices, "\n"), want) {
			t.Errorf("no notice about %s in %q", want, c.Notices)
		}
	}
	if len(c.Notices) != 5 {
		t.Errorf("notices: %q", c.Notices)
	}
	out, err := json.Marshal(c.Sanitized())
	if err != nil || strings.Contains(string(out)+fmt.Sprintf("%+v", c), "1234") {
		t.Errorf("the PIN shows: %s, %v", out, err)
	}
	if !strings.Contains(string(out), `"storage":{"type":"pebble"`) || !strings.Contains(string(out), `"default_lease_ttl":86400`) {
		t.Errorf("sanitized: %s", out)
	}
}

func TestJSONMeansTheSame(t *testing.T) {
	for _, text := range []string{
		`{"storage":{"file":{"path":"/tmp/x"}},"listener":{"tcp":{"address":"127.0.0.1:1","tls_disable":true,"telemetry":{"unauthenticated_metrics_access":"true"}}},"telemetry":{"disable_hostname":true}}`,
		`{"storage":[{"file":[{"path":"/tmp/x"}]}],"listener":[{"tcp":{"address":"127.0.0.1:1","tls_disable":"1","telemetry":[{"unauthenticated_metrics_access":true}]}}],"telemetry":[{"disable_hostname":1}]}`,
	} {
		c := load(t, put(t, "coffer.json", text))
		if c.Storage.Path != "/tmp/x" || len(c.Listeners) != 1 || c.Listeners[0].Address != "127.0.0.1:1" || c.Listeners[0].TLS.Mode != TLSOff ||
			!c.Listeners[0].UnauthenticatedStats || !c.Telemetry.DisableHostname {
			t.Errorf("%s\ngives %+v", text, c)
		}
	}
	nested := load(t, put(t, "n.json", `{"storage":{"file":{"path":"/tmp/x"}},"listener":{"tcp":{"telemetry":{"unauthenticated_metrics_access":true}}}}`))
	if !nested.Listeners[0].UnauthenticatedStats {
		t.Errorf("a block that holds nothing but a block: %+v", nested.Listeners[0])
	}
	two := load(t, put(t, "two.json", `{"storage":{"file":{"path":"/tmp/x"}},"listener":[{"tcp":{"address":"127.0.0.1:1"}},{"tcp":{"address":"127.0.0.1:2"}}]}`))
	if len(two.Listeners) != 2 || two.Listeners[1].Address != "127.0.0.1:2" {
		t.Errorf("two listeners: %+v", two.Listeners)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"unknown key", storage + "ui = true\nmax_lease_tll = 5\n", `c.hcl:5: max_lease_tll: it is not known; did you mean "max_lease_ttl"?`},
		{"unknown key in a block", storage + "listener \"tcp\" {\n tls_dsable = 1\n}", `c.hcl:5: listener "tcp": tls_dsable: it is not known; did you mean "tls_disable"?`},
		{"unknown listener", storage + `listener "udp" {}`, `c.hcl:4: listener "udp": a listener is "tcp" or "unix"`},
		{"no label", storage + `listener { address = "a:1" }`, `c.hcl:4: listener: its kind is missing`},
		{"not a block", storage + `telemetry = 5`, `c.hcl:4: telemetry: it must be a block`},
		{"not a setting", storage + `ui { a = 1 }`, `c.hcl:4: ui: it must be one value`},
		{"labelled setting", storage + `ui "x" { a = 1 }`, `c.hcl:4: ui: it is a setting, not a block`},
		{"two storages", storage + storage, `c.hcl:4: storage "pebble": there is a storage block already`},
		{"no storage", "ui = true", `c.hcl: storage: it is missing; write storage "pebble"`},
		{"other storage", `storage "consul" { path = "x" }`, `storage "consul" is not there; available are "pebble"`},
		{"no data_dir", `storage "etcd" { address = "http://127.0.0.1:2379" }`, `data_dir: it is missing; this node's audit log`},
		{"nested storage", "storage \"postgres\" {\n connection_url { a = 1 }\n}", `c.hcl:2: storage "postgres": connection_url: it must be`},
		{"bad node", storage + `node_id = "a/b"`, `node_id: "a/b" is no name for a node`},
		{"inmem", `storage "inmem" {}`, `-dev`},
		{"no path", "storage \"file\" {\n}", `c.hcl:1: storage "file": path is missing`},
		{"retry_join", "storage \"raft\" {\n path = \"x\"\n retry_join {\n }\n}", `c.hcl:3: storage "raft": retry_join: the embedded engine serves one machine`},
		{"bad duration", storage + `max_lease_ttl = "5 parsecs"`, `c.hcl:4: max_lease_ttl: "5 parsecs": it is not a duration`},
		{"negative duration", storage + `max_lease_ttl = "-5h"`, `at least 1s`},
		{"absurd duration", storage + `max_lease_ttl = "99999999999999h"`, `max_lease_ttl`},
		{"default above max", storage + "default_lease_ttl = \"2h\"\nmax_lease_ttl = \"1h\"", `default_lease_ttl: 2h0m0s is longer`},
		{"bad size", storage + `max_payload_size = "huge"`, `"huge" is not a size`},
		{"overflowing size", storage + `max_payload_size = "9999999999999TiB"`, `is not a size`},
		{"bad boolean", storage + `ui = "perhaps"`, `neither true nor false`},
		{"bad address", storage + `listener "tcp" { address = "http://x" }`, `write host:port`},
		{"bad port", storage + `listener "tcp" { address = "127.0.0.1:99999" }`, `no port from 0 to 65535`},
		{"same address", storage + "listener \"tcp\" {}\nlistener \"tcp\" {}", `two listeners have the address`},
		{"missing file", storage + `listener "tcp" { tls_cert_file = "/nowhere/cert.pem" }`, `tls_cert_file: the file is not there`},
		{"cert without key", storage + "listener \"tcp\" {\n tls_cert_file = \"/proc/self/maps\"\n}", `tls_cert_file is given without tls_key_file`},
		{"directory as file", storage + `listener "tcp" { tls_cert_file = "/tmp" }`, `/tmp is not a file`},
		{"old TLS", storage + `listener "tcp" { tls_min_version = "tls10" }`, `too old; accepted are tls12 and tls13`},
		{"inverted TLS", storage + "listener \"tcp\" {\n tls_min_version = \"tls13\"\n tls_max_version = \"tls12\"\n}", `tls_max_version is below`},
		{"weak cipher", storage + `listener "tcp" { tls_cipher_suites = "TLS_RSA_WITH_RC4_128_SHA" }`, `no safe cipher suite`},
		{"client certs without CA", storage + `listener "tcp" { tls_require_and_verify_client_cert = true }`, `needs tls_client_ca_file`},
		{"proxy protocol", storage + `listener "tcp" { proxy_protocol_behavior = "use_always" }`, `PROXY protocol is not spoken`},
		{"bad proxy", storage + `listener "tcp" { x_forwarded_for_authorized_addrs = "proxy.example" }`, `neither an IP address nor a network`},
		{"bad header status", storage + `listener "tcp" { custom_response_headers { "7xx" = {} } }`, `"7xx" is neither`},
		{"protocol header", storage + `listener "tcp" { custom_response_headers { "default" = { "X-Vault-Token" = ["a"] } } }`, `the protocol's`},
		{"raw endpoint", storage + `raw_storage_endpoint = true`, `c.hcl:4: raw_storage_endpoint: reading and writing storage`},
		{"unknown seal", storage + `seal "awskms" { region = "x" }`, `available are "keyfile", "shamir" and "pkcs11"`},
		{"half a seal", storage + `seal "pkcs11" { lib = "/proc/self/maps" }`, `key_label is missing`},
		{"slot and label", storage + "seal \"pkcs11\" {\n lib = \"/proc/self/maps\"\n key_label = \"k\"\n slot = 1\n token_label = \"t\"\n}", `token_label and slot are both given`},
		{"no PIN", storage + "seal \"pkcs11\" {\n lib = \"/proc/self/maps\"\n key_label = \"k\"\n slot = 1\n}", `pin_file, pin_env or pin is missing`},
		{"unset PIN", storage + `seal "pkcs11" { pin = "env://NOT_SET" }`, `no variable NOT_SET`},
		{"PIN from a device", storage + `seal "pkcs11" { pin = "file:///dev/zero" }`, `/dev/zero is not a file`},
		{"same seals", storage + "seal \"keyfile\" {}\nseal \"keyfile\" {}", `two seals are named "keyfile"`},
		{"no seal stays", storage + `seal "keyfile" { disabled = true }`, `all seals are disabled`},
		{"bad level", storage + `log_level = "wran"`, `did you mean "warn"?`},
		{"log directory", storage + `log_file = "/nowhere/coffer.log"`, `log_file: the file is not there`},
		{"bad URL", storage + `api_addr = "coffer:8200"`, `not a server's URL`},
		{"bad lockout", storage + `user_lockout "userpas" {}`, `did you mean "userpass"?`},
		{"given twice", storage + "ui = true\nui = false", `c.hcl`},
		{"half-written block", "storage \"pebble\" {\n  path = \"/tmp/x\"\n", `c.hcl`},
		{"half-written string", "storage \"pebble\" {\n  path = \"/tm", `c.hcl:2`},
		{"half-written name", storage + "max_lea", `c.hcl:4`},
		{"empty", "  \n", `the file is empty; was it written to the end?`},
		{"binary", "\x00\x01\x02", `c.hcl`},
		{"half-written JSON", `{"storage": {"file": {"path":`, `c.hcl`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := put(t, "c.hcl", c.text)
			_, err := Load(Source{Paths: []string{path}, Getenv: noEnv})
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want an *Error", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is\n%v\nwant in it\n%s", err, c.want)
			}
		})
	}
}

// A cut-off file never passes for a whole one, unless the cut is at a line's end
// between settings, where nothing can tell.
func TestEveryCutOfABlockIsRefused(t *testing.T) {
	text := "storage \"pebble\" {\n  path = \"/tmp/x\"\n}"
	for i := 1; i < len(text); i++ {
		if _, err := Load(Source{Paths: []string{put(t, "c.hcl", text[:i])}, Getenv: noEnv}); err == nil {
			t.Errorf("%q is accepted", text[:i])
		}
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	_, err := Load(Source{Paths: []string{put(t, "c.hcl", "uii = 1\nlog_level = \"x\"\n"), "/nowhere.hcl"}, Getenv: noEnv})
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != 3 {
		t.Errorf("error %v", err)
	}
}

func TestFilesAndDirectoriesMerge(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"10-base.hcl":   storage + "log_level = \"info\"\nlistener \"tcp\" { address = \"127.0.0.1:1\" }",
		"20-more.json":  `{"log_level": "warn", "listener": {"tcp": {"address": "127.0.0.1:2"}}}`,
		"README.txt":    "not = read",
		".hidden.hcl":   "not = read",
		"30-places.hcl": `storage "file" { path = "/tmp/elsewhere" }`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := load(t, dir, put(t, "last.hcl", `log_level = "error"`))
	if c.LogLevel != slog.LevelError || len(c.Listeners) != 2 || c.Listeners[1].Address != "127.0.0.1:2" || c.Storage.Path != "/tmp/elsewhere" {
		t.Errorf("merged to %+v", c)
	}
	if _, err := Load(Source{Paths: []string{t.TempDir()}, Getenv: noEnv}); err == nil || !strings.Contains(err.Error(), "holds no .hcl") {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	c := load(t, put(t, "c.hcl", storage))
	l := c.Listeners[0]
	if l.Address != DefaultAddress || l.TLS.Mode != TLSPrivate || l.TLS.Min != tls.VersionTLS12 || l.Forwarded != nil {
		t.Errorf("listener %+v", l)
	}
	if len(c.Seals) != 1 || c.Seals[0].Kind != "keyfile" || c.Seals[0].Path != "" || !c.Audit.SyncReads || c.MaxPayloadSize != 1<<20 ||
		c.Seals[0].Settings("/data")["path"] != "/data/seal.key" {
		t.Errorf("%+v", c)
	}
	if len(c.Notices) != 0 {
		t.Errorf("notices %q", c.Notices)
	}
}

func TestAnEngineOnTheNetworkIsToldItsSettings(t *testing.T) {
	path := put(t, "c.hcl", `
data_dir = "/var/lib/coffer"
node_id  = "node-1"
storage "etcd" {
  address  = ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]
  path     = "coffer/"
  password = "not-to-be-printed"
}`)
	c, err := Load(Source{Paths: []string{path}, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{"address": "https://10.0.0.1:2379,https://10.0.0.2:2379", "path": "coffer/", "password": "not-to-be-printed"}
	if c.Storage.Kind != "etcd" || !maps.Equal(c.Storage.Settings, want) || c.DataDir != "/var/lib/coffer" || c.NodeID != "node-1" {
		t.Errorf("%q %v", c.Storage.Kind, maps.Equal(c.Storage.Settings, want))
	}
	if text := fmt.Sprintf("%v %+v %#v %s", c, c.Storage, c.Storage, c.Storage.Settings); strings.Contains(text, "not-to-be") {
		t.Errorf("a printed configuration shows the password: %s", text)
	}
	if text, err := json.Marshal(c.Sanitized()); err != nil || strings.Contains(string(text), "not-to-be") {
		t.Errorf("the sanitized configuration shows the password: %s %v", text, err)
	}
}

func TestEnvironment(t *testing.T) {
	path := put(t, "c.hcl", storage+"log_level = \"info\"\napi_addr = \"https://file.example.test\"")
	from := func(env map[string]string) (*Config, error) {
		return Load(Source{Paths: []string{path}, Getenv: func(name string) string { return env[name] }})
	}
	c, err := from(map[string]string{"VAULT_LOG_LEVEL": "warn", "VAULT_API_ADDR": "https://vault.example.test", "COFFER_API_ADDR": "https://coffer.example.test"})
	if err != nil || c.LogLevel != slog.LevelWarn || c.APIAddr != "https://coffer.example.test" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err = from(map[string]string{"VAULT_LOG_LEVEL": "wran"}); err == nil || !strings.Contains(err.Error(), "environment: VAULT_LOG_LEVEL") {
		t.Errorf("error %v", err)
	}
}

func TestDev(t *testing.T) {
	env := map[string]string{"VAULT_DEV_ROOT_TOKEN_ID": "from-env"}
	getenv := func(name string) string { return env[name] }
	c, err := Load(Source{Dev: &Dev{}, Getenv: getenv})
	if err != nil {
		t.Fatal(err)
	}
	if l := c.Listeners[0]; l.Address != "127.0.0.1:8200" || l.TLS.Mode != TLSOff || c.Storage.Kind != "memory" || c.Dev.RootToken.Reveal() != "from-env" {
		t.Errorf("%+v", c)
	}
	c, err = Load(Source{Dev: &Dev{RootToken: "flag", Address: "0.0.0.0:8300", TLS: true, TLSNames: []string{"a.test"}}, Getenv: getenv})
	if err != nil || c.Listeners[0].TLS.Mode != TLSPrivate || c.Listeners[0].Address != "0.0.0.0:8300" || c.Dev.RootToken.Reveal() != "flag" || len(c.Notices) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = Load(Source{Dev: &Dev{Address: "0.0.0.0:8300"}, Getenv: getenv})
	if err != nil || len(c.Notices) != 1 || !strings.Contains(c.Notices[0], "-dev-tls") {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err = Load(Source{Dev: &Dev{Address: "what:is:this"}, Getenv: getenv}); err == nil || !strings.Contains(err.Error(), "-dev-listen-address") {
		t.Errorf("error %v", err)
	}
}

// FuzzRead holds that whatever stands in a file, reading it ends with a
// configuration or with problems that name the file, and never in a panic.
func FuzzRead(f *testing.F) {
	f.Add(everything)
	f.Add(storage)
	f.Add(`{"storage":{"file":{"path":"/tmp/x"}},"listener":[{"tcp":{"address":"127.0.0.1:1"}}]}`)
	for _, seed := range []string{"", "a", "a=", "a={", `a "b" {`, "listener", `listener "tcp" "x" {}`, "storage = [1]", "listener = [{}]", `{"seal":[[[]]]}`, "ui = <<E\ntrue\nE", `storage "a" "b" "c" {}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		r := &reader{file: "c.hcl", env: noEnv}
		r.read([]byte(text), c.settings())
		for _, p := range r.problems {
			if !strings.HasPrefix(p.String(), "c.hcl") || p.Message == "" {
				t.Errorf("problem %q", p)
			}
		}
		if len(r.problems) == 0 {
			_ = c.complete(Source{})
			_ = c.Sanitized()
		}
	})
}
