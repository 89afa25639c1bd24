//go:build pkcs11

package app_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

// hsm is a PKCS#11 seal on the token that TestMain made.
func hsm(label string) string {
	return fmt.Sprintf("seal \"pkcs11\" {\n  lib = %q\n  token_label = \"coffer\"\n  pin = \"1234\"\n  key_label = %q\n  generate_key = true\n}\n", softHSMLibrary, label)
}

// TestSealsMoveByConfiguration takes one store from a key file to an HSM, lets
// both stand, loses the key file, and goes on to people's shares: no secret is
// lost on the way, and what was left opens nothing any more.
func TestSealsMoveByConfiguration(t *testing.T) {
	p := newProcess(t, "")
	p.start(t)
	p.initialize(t)
	p.Must(t, 200, "POST", "secret/data/app", `{"data":{"a":"b"}}`)
	p.stop(t)
	again := func(seals string) {
		t.Helper()
		p.configure(t, tcp+seals)
		p.start(t)
		wantUnsealed(t, p)
		p.Must(t, 200, "GET", "secret/data/app", "")
		p.stop(t)
	}
	const keyFile, leaving = "seal \"keyfile\" {\n}\n", "seal \"keyfile\" {\n  disabled = true\n}\n"
	again(keyFile + hsm("both"))
	kept, err := os.ReadFile(p.data("seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(p.data("seal.key")); err != nil {
		t.Fatal(err)
	}
	again(keyFile + hsm("both")) // the HSM is enough
	if err := os.WriteFile(p.data("seal.key"), kept, 0o600); err != nil {
		t.Fatal(err)
	}
	again(leaving + hsm("both"))
	again(hsm("both"))

	// The key file that was left does not open the store.
	p.configure(t, tcp+keyFile)
	p.start(t)
	if health := p.Do(t, "GET", "sys/health", "", ""); health.Status != 503 {
		t.Errorf("a seal that was left opens the server: %d", health.Status)
	}
	p.stop(t)
	again(hsm("both"))
}

// TestRotationWhileServing rotates every layer while clients read and write.
func TestRotationWhileServing(t *testing.T) {
	p := newProcess(t, hsm("rotation"))
	p.start(t)
	p.initialize(t)
	var stop atomic.Bool
	var requests atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(8, func(client int) {
			for n := 0; !stop.Load(); n++ {
				path := fmt.Sprintf("secret/data/c%d", client)
				p.Must(t, 200, "POST", path, `{"data":{"n":"`+strconv.Itoa(n)+`"}}`)
				var out struct {
					Data map[string]string `json:"data"`
				}
				p.Must(t, 200, "GET", path, "").Into(t, &out)
				if out.Data["n"] != strconv.Itoa(n) {
					t.Errorf("%s holds %v, want %d", path, out.Data, n)
				}
				requests.Add(2)
			}
		})
	}()
	for range 3 {
		p.Must(t, 204, "POST", "sys/rotate/keyring", "")
		p.Must(t, 204, "POST", "sys/rotate/root", "")
		p.Must(t, 200, "POST", "sys/rotate/rewrap", "")
	}
	stop.Store(true)
	<-done
	t.Logf("%d requests while nine rotations ran", requests.Load())
	p.kill(t)
	p.start(t)
	wantUnsealed(t, p)
	p.Must(t, 200, "GET", "secret/data/c0", "")
}

// TestPeopleOpenAServer takes shares through HTTP: too few, wrong ones, the
// right ones, and again after a restart.
func TestPeopleOpenAServer(t *testing.T) {
	p := newProcess(t, "seal \"shamir\" {\n}\n")
	p.start(t)
	var made struct {
		Keys []string `json:"keys_base64"`
		Root string   `json:"root_token"`
	}
	decode(t, p.Must(t, 200, "POST", "sys/init", `{"secret_shares":5,"secret_threshold":3}`).Body, &made)
	p.Root = made.Root
	give := func(keys ...string) (last int) {
		for _, key := range keys {
			last = p.Do(t, "POST", "sys/unseal", "", encode(map[string]string{"key": key})).Status
		}
		return last
	}
	sealed := func() bool { return p.Do(t, "GET", "sys/health", "", "").Status == 503 }
	for round := range 2 {
		if !sealed() {
			t.Fatalf("round %d: it is open already", round)
		}
		give(made.Keys[0], made.Keys[1])
		if !sealed() {
			t.Fatal("two of three shares opened it")
		}
		wrong, err := base64.StdEncoding.DecodeString(made.Keys[2])
		if err != nil {
			t.Fatal(err)
		}
		wrong[3] ^= 1
		if status := give(base64.StdEncoding.EncodeToString(wrong)); status != 400 || !sealed() {
			t.Errorf("a wrong share is answered %d", status)
		}
		if status := give(made.Keys[4], made.Keys[0], made.Keys[2]); status != 200 || sealed() {
			t.Fatalf("three right shares are answered %d", status)
		}
		p.Must(t, 200, "GET", "sys/mounts", "")
		p.stop(t)
		p.start(t)
	}
	give(made.Keys[:3]...)
	p.Must(t, 204, "POST", "sys/seal", "")
	eventually(t, "it is sealed", sealed)
	if a := p.Do(t, "GET", "sys/mounts", p.Root, ""); a.Status != 503 {
		t.Errorf("a sealed server answers %d %s", a.Status, a.Body)
	}
}
