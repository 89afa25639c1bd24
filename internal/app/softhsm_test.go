//go:build pkcs11

package app_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const softHSMLibrary = "/usr/lib/softhsm/libsofthsm2.so" // Debian package softhsm2

// softHSM makes an HSM in software with one token, for this process and those it
// starts, and returns what removes it.
func softHSM() (end func()) {
	dir, err := os.MkdirTemp("", "softhsm")
	if err != nil {
		panic(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	text := fmt.Appendf(nil, "directories.tokendir = %s/tokens\nobjectstore.backend = file\n", dir)
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		panic(err)
	}
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		panic(err)
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		panic(err)
	}
	out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "coffer", "--pin", "1234", "--so-pin", "5678").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "these tests need the Debian package softhsm2: %v\n%s", err, out)
		os.Exit(1)
	}
	return func() { _ = os.RemoveAll(dir) }
}
