package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"slices"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var keyRoutes = []route.Route[*Engine]{
	route.New("LIST", "keys", "List the keys.", (*Engine).listKeys,
		route.Shows("keys", "", "")),
	route.New("GET", "key/{key_ref}", "Read what is known of a key, without what is secret.", (*Engine).readKey,
		route.Shows("key/default", "", "")),
	route.New("POST", "key/{key_ref}", "Name a key.", (*Engine).nameKey,
		route.Shows("key/default", `{"key_name":"root-2026"}`, "")),
	route.New("DELETE", "key/{key_ref}", "Delete a key. Its issuers stay, and sign no more.", (*Engine).deleteKey,
		route.Shows("key/spare", "", "")),
	route.New("POST", "keys/generate/{exported}", "Make a key.", (*Engine).generateKey,
		route.Shows("keys/generate/internal", `{"key_type":"ec","key_name":"next"}`, "")),
	route.New("POST", "keys/import", "Take over a key.", (*Engine).importKey,
		route.Shows("keys/import", `{"pem_bundle":"-----BEGIN PRIVATE KEY-----\n…","key_name":"old"}`, "")),
	route.New("GET", "config/keys", "Read which key is taken where none is named.", (*Engine).readDefaultKey,
		route.Shows("config/keys", "", "")),
	route.New("POST", "config/keys", "Say which key is taken where none is named.", (*Engine).writeDefaultKey,
		route.Shows("config/keys", `{"default":"next"}`, "")),
}

// KeyInfo is a key in a list.
type KeyInfo struct {
	Name    string `json:"key_name"`
	Default bool   `json:"is_default"`
}

func (e *Engine) listKeys(ctx context.Context, _ route.Caller, _ route.Page) (route.KeysInfo[KeyInfo], error) {
	out := route.KeysInfo[KeyInfo]{Info: map[string]KeyInfo{}}
	b, err := e.book(ctx)
	if err != nil {
		return out, err
	}
	for _, k := range b.Keys {
		out.Keys = append(out.Keys, k.ID)
		out.Info[k.ID] = KeyInfo{k.Name, k.ID == b.DefaultKey}
	}
	if len(out.Keys) == 0 {
		return out, route.Missing()
	}
	slices.Sort(out.Keys)
	return out, nil
}

// KeyRef names a key.
type KeyRef struct {
	Ref string `path:"key_ref" doc:"The key: its id, its name, or default."`
}

// Key is a key in Vault's shape.
type Key struct {
	ID      string      `json:"key_id"`
	Name    string      `json:"key_name"`
	Type    string      `json:"key_type"`
	Subject string      `json:"subject_key_id,omitempty"`
	Private wire.Secret `json:"private_key,omitempty"`
}

func (e *Engine) readKey(ctx context.Context, _ route.Caller, in KeyRef) (Key, error) {
	b, err := e.book(ctx)
	if err != nil {
		return Key{}, err
	}
	k, err := b.findKey(in.Ref)
	if err != nil {
		return Key{}, err
	}
	return k.shown()
}

func (k *keyEntry) shown() (Key, error) {
	out := Key{ID: k.ID, Name: k.Name, Type: k.Type}
	public, err := x509.ParsePKIXPublicKey(k.Public)
	if err != nil {
		return out, err
	}
	id, err := key.ID(public)
	out.Subject = colons(hex.EncodeToString(id))
	return out, err
}

// NameKey names a key.
type NameKey struct {
	KeyRef
	Name string `json:"key_name" doc:"The new name; empty for none."`
}

func (e *Engine) nameKey(ctx context.Context, _ route.Caller, in NameKey) (out Key, err error) {
	err = e.change(ctx, func(_ engine.Txn, b *book) error {
		k, err := b.findKey(in.Ref)
		if err != nil {
			return err
		}
		if err := b.freeKeyName(in.Name, k.ID); err != nil {
			return err
		}
		k.Name = in.Name
		out, err = k.shown()
		return err
	})
	return out, err
}

func (e *Engine) deleteKey(ctx context.Context, _ route.Caller, in KeyRef) (out route.Empty, err error) {
	err = e.change(ctx, func(t engine.Txn, b *book) error {
		out = route.Empty{}
		k, err := b.findKey(in.Ref)
		if err != nil {
			return err
		}
		b.Keys = slices.DeleteFunc(b.Keys, func(o *keyEntry) bool { return o.ID == k.ID })
		if b.DefaultKey == k.ID {
			b.DefaultKey = ""
			out.Warn("Deleted the default key: config/keys names another")
		}
		for _, i := range b.Issuers {
			if i.Key == k.ID {
				i.Key = ""
			}
		}
		e.signers.Delete(k.ID)
		return t.Delete(keyRows + k.ID)
	})
	return out, err
}

// GenerateKey makes a key.
type GenerateKey struct {
	Exported string   `path:"exported" doc:"internal, or exported: its private key is answered, this once."`
	Name     string   `json:"key_name" doc:"A name for it."`
	Type     string   `json:"key_type" doc:"rsa unless given, ec or ed25519."`
	Bits     wire.Int `json:"key_bits" doc:"Its size: 2048 of RSA and 256 of EC unless given."`
}

// Whether the private key of what is made is answered.
const (
	internal = "internal"
	exported = "exported"
	existing = "existing" // it is here already
)

func checkExported(text string, also ...string) error {
	if text == internal || text == exported || slices.Contains(also, text) {
		return nil
	}
	return fault.New(fault.Invalid, "the last part of the path is internal or exported, not %q", shown(text))
}

func (e *Engine) generateKey(ctx context.Context, _ route.Caller, in GenerateKey) (out Key, err error) {
	if err := checkExported(in.Exported); err != nil {
		return out, err
	}
	s, err := key.Kind{Type: in.Type, Bits: int(in.Bits)}.Generate()
	if err != nil {
		return out, err
	}
	if err := e.change(ctx, func(t engine.Txn, b *book) error {
		k, _, err := b.addKey(t, in.Name, s)
		if err != nil {
			return err
		}
		out, err = k.shown()
		return err
	}); err != nil {
		return out, err
	}
	return out, out.export(in.Exported, s)
}

func (k *Key) export(how string, s crypto.Signer) error {
	if how != exported {
		return nil
	}
	text, err := key.Encode(s, key.PEM, "")
	k.Private = wire.Secret(text)
	return err
}

// ImportKey takes over a key.
type ImportKey struct {
	Bundle wire.Secret `json:"pem_bundle" doc:"The private key in PEM, not encrypted."`
	Name   string      `json:"key_name" doc:"A name for it."`
}

func (e *Engine) importKey(ctx context.Context, _ route.Caller, in ImportKey) (out Key, err error) {
	block, rest := pem.Decode([]byte(in.Bundle.Reveal()))
	if block == nil {
		return out, fault.New(fault.Invalid, "pem_bundle holds no PEM block")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return out, fault.New(fault.Invalid, "pem_bundle holds more than one block: issuers/import/bundle takes certificates and keys")
	}
	s, err := key.Parse(block)
	if err != nil {
		return out, err
	}
	err = e.change(ctx, func(t engine.Txn, b *book) error {
		k, existed, err := b.addKey(t, in.Name, s)
		if err != nil {
			return err
		}
		if existed && in.Name != "" && k.Name != in.Name {
			return fault.New(fault.Invalid, "the key is here already, under the id %s; key/%s names it", k.ID, k.ID)
		}
		out, err = k.shown()
		return err
	})
	return out, err
}

// DefaultKey says which key is taken where none is named.
type DefaultKey struct {
	Default string `json:"default" doc:"The key's id or name."`
}

func (e *Engine) readDefaultKey(ctx context.Context, _ route.Caller, _ route.Nothing) (DefaultKey, error) {
	b, err := e.book(ctx)
	if err != nil {
		return DefaultKey{}, err
	}
	return DefaultKey{b.DefaultKey}, nil
}

func (e *Engine) writeDefaultKey(ctx context.Context, _ route.Caller, in DefaultKey) (DefaultKey, error) {
	if in.Default == "" || in.Default == byDefault {
		return in, fault.New(fault.Invalid, "default: name the key's id or name")
	}
	err := e.change(ctx, func(_ engine.Txn, b *book) error {
		k, err := b.findKey(in.Default)
		if err == nil {
			b.DefaultKey = k.ID
		}
		return err
	})
	if err != nil {
		return in, err
	}
	return e.readDefaultKey(ctx, route.Caller{}, route.Nothing{})
}
