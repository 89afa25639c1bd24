package sys_test

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

func TestRandomBytes(t *testing.T) {
	s := ready(t)
	seen := map[string]bool{}
	for _, c := range []struct {
		path, body string
		want       int
		hex, warns bool
	}{
		{"", "", 32, false, false}, {"", `{"bytes":1}`, 1, false, false}, {"", `{"bytes":"24","format":"hex"}`, 24, true, false},
		{"/16", `{"format":"base64","bytes":99}`, 16, false, false}, {"/131072", "", 131072, false, false},
		{"/platform", `{"bytes":8}`, 8, false, false}, {"/platform/12", `{"format":"hex"}`, 12, true, false},
		{"/seal/9", "", 9, false, true}, {"/all", "", 32, false, true},
	} {
		out := s.must(t, 200, s.root, "PUT", "sys/tools/random"+c.path, c.body)
		text := out["data"].(map[string]any)["random_bytes"].(string)
		raw, err := base64.StdEncoding.DecodeString(text)
		if c.hex {
			raw, err = hex.DecodeString(text)
		}
		if err != nil || len(raw) != c.want || (out["warnings"] != nil) != c.warns {
			t.Errorf("%s %s: %d bytes, %v %v", c.path, c.body, len(raw), err, out["warnings"])
		}
		if len(raw) >= 8 && seen[string(raw[:8])] {
			t.Errorf("%s: the bytes came before", c.path)
		} else if len(raw) >= 8 {
			seen[string(raw[:8])] = true
		}
	}
	for path, says := range map[string]string{
		"/0": "cannot be less than 1", "/-1": "cannot be less than 1", "/131073": "cannot be more than 131072", "/x": "error parsing url-set byte count",
		"/99999999999999999999": "error parsing", "/hsm/8": "unsupported entropy source", "/platform/x": "error parsing", "/1.5": "error parsing",
	} {
		s.refused(t, 400, says, "POST", "sys/tools/random"+path, "")
	}
	s.refused(t, 400, "unsupported encoding format", "POST", "sys/tools/random", `{"format":"rot13"}`)
	s.refused(t, 400, "cannot be less than 1", "POST", "sys/tools/random", `{"bytes":0}`)
	s.refused(t, 400, "bytes", "POST", "sys/tools/random", `{"bytes":"many"}`)
	few := s.user(t, `path "sys/tools/random/16" { capabilities = ["update"] }`)
	s.must(t, 200, few, "POST", "sys/tools/random/16", "")
	s.must(t, 403, few, "POST", "sys/tools/random/32", "")
	s.must(t, 403, "", "POST", "sys/tools/random", "")
	s.must(t, 405, s.root, "GET", "sys/tools/random", "")
}

func TestHashes(t *testing.T) {
	s := ready(t)
	// The sums of "abc" are in FIPS 180-4 and FIPS 202.
	for name, sum := range map[string]string{
		"sha2-224": "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
		"sha2-256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"sha2-384": "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
		"sha2-512": "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
		"sha3-224": "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf",
		"sha3-256": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
		"sha3-384": "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
		"sha3-512": "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
	} {
		if out := s.data(t, "POST", "sys/tools/hash/"+name, `{"input":"YWJj","algorithm":"sha2-224"}`); out["sum"] != sum {
			t.Errorf("%s: %v", name, out)
		}
		raw, _ := hex.DecodeString(sum)
		if out := s.data(t, "PUT", "sys/tools/hash", `{"input":"YWJj","format":"base64","algorithm":"`+name+`"}`); out["sum"] != base64.StdEncoding.EncodeToString(raw) {
			t.Errorf("%s: %v", name, out)
		}
	}
	if out := s.data(t, "POST", "sys/tools/hash", `{}`); out["sum"] != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("of nothing: %v", out)
	}
	s.refused(t, 400, "unsupported algorithm", "POST", "sys/tools/hash/md5", `{"input":"YWJj"}`)
	s.refused(t, 400, "unsupported encoding format", "POST", "sys/tools/hash", `{"input":"YWJj","format":"text"}`)
	s.refused(t, 400, "unable to decode input as base64", "POST", "sys/tools/hash", `{"input":"a secret"}`)
	if _, _, raw := s.ask(t, s.root, "POST", "sys/tools/hash", `{"input":"a secret"}`); strings.Contains(string(raw), "a secret") {
		t.Errorf("the input is told: %s", raw)
	}
}
