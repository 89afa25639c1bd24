// Package pkcs11 is the seal whose key is in a hardware security module and
// never leaves it: wrapping is AES-256-GCM done by the module.
//
// The code that talks to modules needs cgo and is built with the tag "pkcs11".
// Without it the kind is declared all the same and says how to build it.
package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cofferhq/coffer/internal/seal"
)

// Kind declares the seal.
var Kind = seal.Kind{
	Name:     "pkcs11",
	Doc:      "The key is in a hardware security module; the server opens the store by itself when it starts.",
	Settings: settings,
	Open:     open,
}

var settings = []seal.Setting{
	{Name: "lib", Doc: "path of the module's PKCS#11 library", Required: true},
	{Name: "slot", Doc: "number of the slot that holds the token; this or token_label"},
	{Name: "token_label", Doc: "label of the token; this or slot"},
	{Name: "pin", Doc: "the user PIN; better in pin_file or pin_env"},
	{Name: "pin_file", Doc: "file that holds the user PIN"},
	{Name: "pin_env", Doc: "environment variable that holds the user PIN"},
	{Name: "key_label", Doc: "label of the AES-256 key", Required: true},
	{Name: "generate_key", Doc: `"true" lets the first wrap generate the key when the token has none of that label`},
}

// config is the settings, checked.
type config struct {
	lib, tokenLabel, keyLabel string
	slot                      *int
	pin                       func() (string, error)
	generate                  bool
}

func parse(given map[string]string) (*config, error) {
	if err := seal.CheckSettings("pkcs11", settings, given); err != nil {
		return nil, err
	}
	c := &config{lib: given["lib"], tokenLabel: given["token_label"], keyLabel: given["key_label"]}
	if (given["slot"] == "") == (c.tokenLabel == "") {
		return nil, errors.New(`seal "pkcs11" needs one of the settings "slot" and "token_label"`)
	}
	if given["slot"] != "" {
		n, err := strconv.ParseUint(given["slot"], 0, 31)
		if err != nil {
			return nil, fmt.Errorf(`seal "pkcs11": the setting "slot" is not a number: %q`, given["slot"])
		}
		slot := int(n)
		c.slot = &slot
	}
	switch given["generate_key"] {
	case "", "false":
	case "true":
		c.generate = true
	default:
		return nil, fmt.Errorf(`seal "pkcs11": the setting "generate_key" is "true" or "false", not %q`, given["generate_key"])
	}
	var err error
	c.pin, err = pinSource(given)
	return c, err
}

// pinSource returns what reads the PIN from the one setting that gives it. It
// is read at each connection, so that a changed PIN needs no restart.
func pinSource(given map[string]string) (func() (string, error), error) {
	n := 0
	for _, name := range []string{"pin", "pin_file", "pin_env"} {
		if given[name] != "" {
			n++
		}
	}
	if n != 1 {
		return nil, errors.New(`seal "pkcs11" needs one of the settings "pin", "pin_file" and "pin_env"`)
	}
	switch pin, file, env := given["pin"], given["pin_file"], given["pin_env"]; {
	case file != "":
		return func() (string, error) {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", fmt.Errorf(`the setting "pin_file": %w`, err)
			}
			return strings.TrimSpace(string(text)), nil
		}, nil
	case env != "":
		return func() (string, error) {
			pin, ok := os.LookupEnv(env)
			if !ok {
				return "", fmt.Errorf(`the setting "pin_env": the environment variable %s is not set`, env)
			}
			return pin, nil
		}, nil
	default:
		return func() (string, error) { return pin, nil }, nil
	}
}

// open checks the settings. The module is reached at first use, so that a
// module that is away does not keep a server from starting with another seal.
func open(_ context.Context, given map[string]string) (seal.Seal, error) {
	c, err := parse(given)
	if err != nil {
		return nil, err
	}
	return newSeal(c)
}
