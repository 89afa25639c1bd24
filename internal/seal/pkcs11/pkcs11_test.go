package pkcs11

import (
	"context"
	"os"
	"strings"
	"testing"
)

func TestSettings(t *testing.T) {
	good := func(change ...string) map[string]string {
		s := map[string]string{"lib": "/l.so", "token_label": "t", "pin": "1", "key_label": "k"}
		for i := 0; i < len(change); i += 2 {
			s[change[i]] = change[i+1]
		}
		return s
	}
	if _, err := parse(good()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		given map[string]string
		names string
	}{
		{good("libb", "x"), "libb"},
		{good("lib", ""), "lib"},
		{good("key_label", ""), "key_label"},
		{good("slot", "1"), "token_label"},
		{good("token_label", ""), "token_label"},
		{good("token_label", "", "slot", "one"), "slot"},
		{good("pin", ""), "pin_file"},
		{good("pin_env", "X"), "pin_env"},
		{good("generate_key", "yes"), "generate_key"},
	} {
		if _, err := Kind.Open(context.Background(), tt.given); err == nil || !strings.Contains(err.Error(), tt.names) {
			t.Errorf("%v: %v does not name %q", tt.given, err, tt.names)
		}
	}
}

func TestPINSources(t *testing.T) {
	file := t.TempDir() + "/pin"
	if err := os.WriteFile(file, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SEAL_TEST_PIN", "1234")
	for name, value := range map[string]string{"pin": "1234", "pin_file": file, "pin_env": "SEAL_TEST_PIN"} {
		source, err := pinSource(map[string]string{name: value})
		if err != nil {
			t.Fatal(err)
		}
		if pin, err := source(); err != nil || pin != "1234" {
			t.Errorf("%s: %q, %v", name, pin, err)
		}
	}
	for name, value := range map[string]string{"pin_file": file + "x", "pin_env": "SEAL_TEST_NO_PIN"} {
		source, err := pinSource(map[string]string{name: value})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := source(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("missing %s: %v", name, err)
		}
	}
}
