//go:build pkcs11

package pkcs11

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/sealtest"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so" // Debian package softhsm2

// TestMain makes one token for all tests: the library reads its configuration
// once in a process.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "softhsm")
	if err != nil {
		panic(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	os.Mkdir(filepath.Join(dir, "tokens"), 0o700)
	os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s/tokens\nobjectstore.backend = file\n", dir), 0o600)
	os.Setenv("SOFTHSM2_CONF", conf)
	for _, label := range []string{"coffer", "locked"} {
		out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", "1234", "--so-pin", "5678").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "these tests need the Debian package softhsm2: %v\n%s", err, out)
			os.Exit(1)
		}
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func with(change ...string) map[string]string {
	s := map[string]string{"lib": softHSM, "token_label": "coffer", "pin": "1234", "key_label": "k", "generate_key": "true"}
	for i := 0; i < len(change); i += 2 {
		s[change[i]] = change[i+1]
	}
	return s
}

func opened(t *testing.T, settings map[string]string) seal.Seal {
	t.Helper()
	s, err := Kind.Open(context.Background(), settings)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSeal(t *testing.T) {
	keys := 0
	sealtest.Run(t, func(t *testing.T) (seal.Seal, func() seal.Seal) {
		keys++
		settings := with("key_label", fmt.Sprintf("suite %d", keys))
		return opened(t, settings), func() seal.Seal { return opened(t, settings) }
	})
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		name     string
		settings map[string]string
		says     string
	}{
		{"no library", with("lib", "/nowhere.so"), "/nowhere.so"},
		{"no key", with("key_label", "missing", "generate_key", ""), `"missing"`},
		{"no token", with("token_label", "other"), softHSM},
		{"wrong PIN", with("token_label", "locked", "pin", "0000"), "PIN"},
	} {
		if _, err := opened(t, tt.settings).Wrap(ctx, []byte("x"), nil); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v does not say %q", tt.name, err, tt.says)
		}
	}
	// Unwrapping never generates a key: it could not be the right one.
	wrapped := append([]byte{format}, make([]byte, 64)...)
	if _, err := opened(t, with("key_label", "lost")).Unwrap(ctx, wrapped, nil); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("lost key: %v", err)
	}
}

func TestEmptyAAD(t *testing.T) {
	s := opened(t, with("key_label", "no aad"))
	wrapped, err := s.Wrap(context.Background(), []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := s.Unwrap(context.Background(), wrapped, nil); err != nil || string(plain) != "x" {
		t.Fatalf("%q, %v", plain, err)
	}
}
