package sys_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/wire"
	"time"

	"github.com/cofferhq/coffer/internal/sys"
)

func TestInitAndUnseal(t *testing.T) {
	s := newServer(t)
	if out := s.must(t, 200, "", "GET", "sys/init", ""); out["initialized"] != false || len(out) != 1 {
		t.Errorf("%v", out)
	}
	if out := s.must(t, 200, "", "GET", "sys/seal-status", ""); out["initialized"] != false || out["sealed"] != true || out["type"] != "shamir" {
		t.Errorf("%v", out)
	}
	for body, status := range map[string]int{
		`{"secret_shares":5}`: 400, `{"secret_shares":2,"secret_threshold":3}`: 400, `{"secret_shares":-1,"secret_threshold":-1}`: 400,
		`{"secret_shares":1000,"secret_threshold":3}`: 400, `{"secret_shares":1,"secret_threshold":1,"pgp_keys":["x"]}`: 501, `{`: 400,
	} {
		if got, _, raw := s.ask(t, "", "POST", "sys/init", body); got != status {
			t.Errorf("init %s: %d %s", body, got, raw)
		}
	}
	out := s.must(t, 200, "", "PUT", "sys/init", `{"secret_shares":"5","secret_threshold":3}`)
	if len(out["keys"].([]any)) != 5 || len(out["keys_base64"].([]any)) != 5 || !strings.HasPrefix(out["root_token"].(string), "hvs.") || out["request_id"] != nil {
		t.Fatalf("%v", out)
	}
	s.root = out["root_token"].(string)
	s.must(t, 400, "", "POST", "sys/init", `{"secret_shares":5,"secret_threshold":3}`)
	s.must(t, 503, s.root, "GET", "sys/mounts", "")
	shares := names(out["keys"])
	for _, body := range []string{`{}`, `{"key":""}`, `{"key":"zz"}`, `{"key":"00"}`} {
		if got, _, raw := s.ask(t, "", "POST", "sys/unseal", body); got != 400 {
			t.Errorf("unseal %s: %d %s", body, got, raw)
		}
	}
	give := func(share string) map[string]any {
		return s.must(t, 200, "", "POST", "sys/unseal", fmt.Sprintf(`{"key":%q}`, share))
	}
	if out := give(shares[0]); out["progress"] != 1.0 || out["t"] != 3.0 || out["n"] != 5.0 || out["nonce"] == "" || out["sealed"] != true {
		t.Errorf("%v", out)
	}
	if out := give(shares[0]); out["progress"] != 1.0 {
		t.Errorf("a share counted twice: %v", out)
	}
	if out := s.must(t, 200, "", "POST", "sys/unseal", `{"reset":true}`); out["progress"] != 0.0 {
		t.Errorf("%v", out)
	}
	give(shares[4])
	raw, err := hex.DecodeString(shares[2])
	must(t, err)
	give(base64.StdEncoding.EncodeToString(raw))
	if out := give(shares[1]); out["sealed"] != false || out["cluster_id"] == "" || out["cluster_name"] != "name of "+out["cluster_id"].(string) || out["progress"] != 0.0 {
		t.Errorf("%v", out)
	}
	s.must(t, 200, s.root, "GET", "sys/mounts", "")
	if out := give(shares[0]); out["sealed"] != false {
		t.Errorf("a share for an open server: %v", out)
	}
}

func TestSealNeedsSudo(t *testing.T) {
	s := ready(t)
	s.must(t, 403, "", "POST", "sys/seal", "")
	s.must(t, 403, s.user(t, `path "sys/seal" { capabilities = ["update"] }`), "POST", "sys/seal", "")
	s.must(t, 403, s.user(t, `path "sys/*" { capabilities = ["update"] }`), "POST", "sys/step-down", "")
	s.must(t, 204, s.user(t, `path "sys/seal" { capabilities = ["update", "sudo"] }`), "PUT", "sys/seal", "")
	for _, path := range []string{"sys/mounts", "secret/data/x", "sys/capabilities-self", "sys/rekey/init"} {
		s.must(t, 503, s.root, "GET", path, "")
	}
	if out := s.must(t, 200, "", "GET", "sys/seal-status", ""); out["sealed"] != true || out["initialized"] != true || out["cluster_id"] != nil {
		t.Errorf("%v", out)
	}
	for _, share := range s.shares[2:] {
		s.must(t, 200, "", "POST", "sys/unseal", fmt.Sprintf(`{"key":%q}`, share))
	}
	s.must(t, 200, s.root, "GET", "sys/mounts", "")
}

// A request that was let in before a seal is refused by what it asks then; it
// does not fall over.
func TestSealingUnderLoad(t *testing.T) {
	s := ready(t)
	paths := []string{"sys/mounts", "sys/policies/acl/default", "sys/internal/ui/mounts", "sys/internal/ui/resultant-acl", "sys/auth", "sys/audit"}
	together(8, func(i int) {
		if i == 0 {
			s.must(t, 204, s.root, "POST", "sys/seal", "")
			return
		}
		for n := range 50 {
			status, _, raw := s.ask(t, s.root, "GET", paths[n%len(paths)], "")
			if status != 200 && status != 503 {
				t.Errorf("%s: %d %s", paths[n%len(paths)], status, raw)
			}
		}
	})
	s.must(t, 503, s.root, "GET", "sys/mounts", "")
}

func TestHealthChoosesCodes(t *testing.T) {
	s := newServer(t)
	s.must(t, 501, "", "GET", "sys/health", "")
	s.must(t, 299, "", "GET", "sys/health?uninitcode=299&sealedcode=298&activecode=297", "")
	out := s.must(t, 200, "", "PUT", "sys/init", `{"secret_shares":1,"secret_threshold":1}`)
	s.must(t, 503, "", "GET", "sys/health", "")
	h := s.must(t, 298, "", "GET", "sys/health?uninitcode=299&sealedcode=298&activecode=297", "")
	if h["sealed"] != true || h["initialized"] != true || h["standby"] != false || h["request_id"] != nil {
		t.Errorf("%v", h)
	}
	s.must(t, 503, "", "GET", "sys/ready", "")
	s.must(t, 200, "", "POST", "sys/unseal", fmt.Sprintf(`{"key":%q}`, names(out["keys"])[0]))
	h = s.must(t, 200, "", "GET", "sys/health?standbyok=true&perfstandbyok=1&standbycode=200&drsecondarycode=200&performancestandbycode=200", "")
	if h["version"] != "1.19.0+coffer" || h["cluster_name"] != fmt.Sprint("name of ", h["cluster_id"]) || h["server_time_utc"] == nil || h["replication_dr_mode"] != "disabled" {
		t.Errorf("%v", h)
	}
	s.must(t, 297, "", "GET", "sys/health?activecode=297", "")
	s.storage.Store(&sys.Storage{Behind: 9 * time.Second})
	h = s.must(t, 503, "", "GET", "sys/health?perfstandbyok=true", "")
	if h["storage"] != "unreachable" || fmt.Sprint(h["behind_ms"]) != "9000" || h["performance_standby"] != false {
		t.Errorf("with its engine away: %v", h)
	}
	s.must(t, 503, "", "GET", "sys/ready", "")
	s.storage.Store(&sys.Storage{Behind: 9 * time.Second, Serving: true})
	if h = s.must(t, 473, "", "GET", "sys/health", ""); h["performance_standby"] != true {
		t.Errorf("serving stale reads: %v", h)
	}
	s.must(t, 200, "", "GET", "sys/health?perfstandbyok=true", "")
	s.must(t, 299, "", "GET", "sys/health?performancestandbycode=299", "")
	s.must(t, 200, "", "GET", "sys/ready", "")
	s.storage.Store(nil)
	for _, bad := range []string{"activecode=100", "activecode=600", "activecode=-1", "activecode=ok"} {
		s.must(t, 400, "", "GET", "sys/health?"+bad, "")
	}
	if out := s.must(t, 200, "", "GET", "sys/ready", ""); out["ready"] != true {
		t.Errorf("%v", out)
	}
}

// Vault's clients read these times into Go's time.Time, which takes no "".
func TestLeaderAndNodes(t *testing.T) {
	s := ready(t)
	out := s.must(t, 200, "", "GET", "sys/leader", "")
	var when wire.Time
	if err := when.UnmarshalJSON([]byte(quote(out["active_time"]))); err != nil || when.IsZero() {
		t.Errorf("active_time %v", out["active_time"])
	}
	if out["is_self"] != true || out["ha_enabled"] != false || out["leader_address"] != "https://127.0.0.1:8200" {
		t.Errorf("%v", out)
	}
	n := s.data(t, "GET", "sys/ha-status", "")["nodes"].([]any)[0].(map[string]any)
	if n["last_echo"] != nil || n["active_node"] != true || n["hostname"] == "" {
		t.Errorf("%v", n)
	}
	s.must(t, 204, s.root, "PUT", "sys/step-down", "")
}

func TestRekey(t *testing.T) {
	s := ready(t)
	if out := s.must(t, 200, "", "GET", "sys/rekey/init", ""); out["started"] != false || out["required"] != 3.0 || out["nonce"] != "" {
		t.Errorf("%v", out)
	}
	for _, body := range []string{`{}`, `{"secret_shares":1,"secret_threshold":2}`, `{"secret_shares":1,"secret_threshold":1,"backup":true}`} {
		if status, _, raw := s.ask(t, "", "POST", "sys/rekey/init", body); status < 400 || status >= 502 {
			t.Errorf("%s: %d %s", body, status, raw)
		}
	}
	out := s.must(t, 200, "", "PUT", "sys/rekey/init", `{"secret_shares":2,"secret_threshold":2,"require_verification":true}`)
	nonce := out["nonce"].(string)
	if out["started"] != true || out["t"] != 2.0 || out["n"] != 2.0 || out["required"] != 3.0 || out["verification_required"] != true {
		t.Errorf("%v", out)
	}
	s.must(t, 400, "", "POST", "sys/rekey/init", `{"secret_shares":2,"secret_threshold":2}`)
	s.must(t, 400, "", "POST", "sys/rekey/update", fmt.Sprintf(`{"key":%q,"nonce":"wrong"}`, s.shares[0]))
	for i, share := range s.shares[1:4] {
		out = s.must(t, 200, "", "PUT", "sys/rekey/update", quote(map[string]string{"key": share, "nonce": nonce}))
		if i < 2 && (out["progress"] != float64(i+1) || out["keys"] != nil) {
			t.Errorf("%v", out)
		}
	}
	fresh, verify := names(out["keys"]), out["verification_nonce"].(string)
	if out["complete"] != true || len(fresh) != 2 || len(names(out["keys_base64"])) != 2 || verify == "" {
		t.Fatalf("%v", out)
	}
	give := func(status int, nonce, share string) map[string]any {
		return s.must(t, status, "", "PUT", "sys/rekey/verify", quote(map[string]string{"key": share, "nonce": nonce}))
	}
	give(400, nonce, fresh[0])
	if out := give(200, verify, fresh[0]); out["progress"] != 1.0 || out["complete"] != false {
		t.Errorf("%v", out)
	}
	again := s.must(t, 200, "", "DELETE", "sys/rekey/verify", "")
	if again["nonce"] == verify || again["started"] != true || again["progress"] != 0.0 {
		t.Errorf("the verification starts again with %v", again)
	}
	give(400, verify, fresh[0])
	verify = again["nonce"].(string)
	give(200, verify, fresh[0])
	if out := give(200, verify, fresh[1]); out["complete"] != true {
		t.Errorf("%v", out)
	}
	s.must(t, 400, "", "DELETE", "sys/rekey/verify", "")
	s.must(t, 204, s.root, "POST", "sys/seal", "")
	s.must(t, 200, "", "POST", "sys/unseal", quote(map[string]string{"key": fresh[0]}))
	if out := s.must(t, 200, "", "POST", "sys/unseal", quote(map[string]string{"key": fresh[1]})); out["sealed"] != false {
		t.Errorf("the new shares do not open the server: %v", out)
	}
}

func TestRekeyCanBeCancelled(t *testing.T) {
	s := ready(t)
	s.must(t, 200, "", "POST", "sys/rekey/init", `{"secret_shares":2,"secret_threshold":2}`)
	s.must(t, 204, "", "DELETE", "sys/rekey/init", "")
	if out := s.must(t, 200, "", "GET", "sys/rekey/init", ""); out["started"] != false {
		t.Errorf("%v", out)
	}
	if out := s.must(t, 200, "", "GET", "sys/rekey/verify", ""); out["started"] != false {
		t.Errorf("%v", out)
	}
}

func TestGenerateRoot(t *testing.T) {
	for _, name := range []string{"generate-root", "generate-root-token"} {
		t.Run(name, func(t *testing.T) {
			s, base := ready(t), "sys/"+name
			if out := s.must(t, 200, "", "GET", base+"/attempt", ""); out["started"] != false || out["otp_length"] != float64(tokenLength) || out["required"] != 3.0 {
				t.Errorf("%v", out)
			}
			s.must(t, 400, "", "POST", base+"/attempt", `{"otp":"short"}`)
			s.must(t, 200, "", "POST", base+"/attempt", `{}`)
			s.must(t, 204, "", "DELETE", base+"/attempt", "")
			out := s.must(t, 200, "", "PUT", base+"/attempt", `{}`)
			otp, nonce := out["otp"].(string), out["nonce"].(string)
			if len(otp) != tokenLength || nonce == "" || out["started"] != true {
				t.Fatalf("%v", out)
			}
			if out := s.must(t, 200, "", "GET", base+"/attempt", ""); out["otp"] != "" {
				t.Error("the pad is shown to whoever asks")
			}
			for _, share := range s.shares[:3] {
				out = s.must(t, 200, "", "PUT", base+"/update", quote(map[string]string{"key": share, "nonce": nonce}))
			}
			data := out["data"].(map[string]any)
			if out["complete"] != true || out["encoded_token"] != out["encoded_root_token"] || data["encoded_token"] != out["encoded_token"] {
				t.Fatalf("%v", out)
			}
			encoded := out["encoded_token"].(string)
			mixed, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
			must(t, err)
			for i := range mixed {
				mixed[i] ^= otp[i]
			}
			self := s.must(t, 200, string(mixed), "GET", "auth/token/lookup-self", "")
			if got := names(self["data"].(map[string]any)["policies"]); len(got) != 1 || got[0] != "root" {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestRotate(t *testing.T) {
	s := ready(t)
	s.must(t, 204, s.root, "POST", "sys/mounts/secret", `{"type":"kv-v2"}`)
	s.must(t, 200, s.root, "POST", "secret/data/x", `{"data":{"v":"1"}}`)
	before := s.must(t, 200, s.root, "GET", "sys/key-status", "")
	if before["term"] != 1.0 || before["data"].(map[string]any)["term"] != 1.0 || before["install_time"] == "" {
		t.Errorf("%v", before)
	}
	for _, path := range []string{"sys/rotate", "sys/rotate/keyring", "sys/rotate/root", "sys/rotate/rewrap"} {
		s.must(t, 403, s.user(t, `path "sys/rotate*" { capabilities = ["create", "update"] }`), "POST", path, "")
	}
	s.must(t, 204, s.root, "POST", "sys/rotate", "")
	s.must(t, 204, s.root, "PUT", "sys/rotate/keyring", "")
	if out := s.data(t, "GET", "sys/key-status", ""); out["term"] != 3.0 {
		t.Errorf("%v", out)
	}
	s.must(t, 204, s.root, "POST", "sys/rotate/root", "")
	if out := s.data(t, "POST", "sys/rotate/rewrap", ""); out["rows"].(float64) < 5 {
		t.Errorf("%v", out)
	}
	read := s.data(t, "GET", "secret/data/x", "")
	if read["data"].(map[string]any)["v"] != "1" {
		t.Errorf("%v", read)
	}
}

func TestGiveShares(t *testing.T) {
	s := ready(t)
	s.must(t, 403, s.user(t, `path "sys/*" { capabilities = ["update"] }`), "POST", "sys/seal/shares", `{"secret_shares":2,"secret_threshold":2}`)
	if status, _, raw := s.ask(t, s.root, "POST", "sys/seal/shares", `{"secret_shares":2,"secret_threshold":2}`); status != 400 {
		t.Errorf("a server with shares gives out others: %d %s", status, raw)
	}
}
