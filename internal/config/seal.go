package config

import (
	"fmt"
	"path/filepath"
)

// openSeal reads a seal block.
func (c *Config) openSeal(kind string) (*section, error) {
	at := len(c.Seals)
	seal := Seal{Kind: kind}
	s := &section{keys: []key{
		{"name", text(&seal.Name)},
		{"disabled", flag(&seal.Disabled)},
		ignored("priority", "every seal opens; they are tried in their order"),
	}, done: func() error {
		if seal.Name == "" {
			seal.Name = kind
		}
		c.Seals[at] = seal
		return seal.check()
	}}
	switch kind {
	case "keyfile":
		s.keys = append(s.keys, key{"path", text(&seal.Path)})
	case "shamir":
	case "pkcs11":
		s.keys = append(s.keys,
			key{"lib", file(&seal.Lib)},
			key{"token_label", text(&seal.TokenLabel)},
			key{"slot", text(&seal.Slot)},
			key{"pin", secret(&seal.PIN)},
			key{"pin_file", file(&seal.PINFile)},
			key{"pin_env", text(&seal.PINEnv)},
			key{"key_label", text(&seal.KeyLabel)},
			key{"generate_key", flag(&seal.GenerateKey)},
			ignored("mechanism", "the key's type decides"),
			ignored("hmac_key_label", "the wrapping authenticates by itself"),
			ignored("hmac_mechanism", "the wrapping authenticates by itself"),
			ignored("default_key_label", "every wrapped key names the key that wrapped it"),
			ignored("force_rw_session", "it is not needed"),
			ignored("rsa_oaep_hash", "the key's type decides"),
		)
	default:
		return nil, fmt.Errorf("seal %q is not there; available are \"keyfile\", \"shamir\" and \"pkcs11\"", kind)
	}
	c.Seals = append(c.Seals, seal)
	return s, nil
}

func (s *Seal) check() error {
	if s.Kind != "pkcs11" {
		return nil
	}
	switch {
	case s.Lib == "":
		return fmt.Errorf("lib is missing; give the path of the HSM's PKCS#11 module")
	case s.KeyLabel == "":
		return fmt.Errorf("key_label is missing; name the key that wraps the root key")
	case s.TokenLabel == "" && s.Slot == "":
		return fmt.Errorf("token_label or slot is missing; one of them says which token to use")
	case s.TokenLabel != "" && s.Slot != "":
		return fmt.Errorf("token_label and slot are both given; one of them says which token to use")
	case s.PIN == "" && s.PINFile == "" && s.PINEnv == "":
		return fmt.Errorf("pin_file, pin_env or pin is missing; the first two keep the PIN out of this file")
	}
	return nil
}

// Settings are the seal's settings by the names that its kind knows. dataDir is
// where the key file lies when no path is given. They may hold the PIN: they are
// for the seal and not for logs.
func (s *Seal) Settings(dataDir string) map[string]string {
	settings := map[string]string{}
	put := func(name, value string) {
		if value != "" {
			settings[name] = value
		}
	}
	switch s.Kind {
	case "keyfile":
		put("path", s.Path)
		if s.Path == "" {
			put("path", filepath.Join(dataDir, "seal.key"))
		}
	case "pkcs11":
		put("lib", s.Lib)
		put("slot", s.Slot)
		put("token_label", s.TokenLabel)
		put("pin", s.PIN.Reveal())
		put("pin_file", s.PINFile)
		put("pin_env", s.PINEnv)
		put("key_label", s.KeyLabel)
		if s.GenerateKey {
			put("generate_key", "true")
		}
	}
	return settings
}
