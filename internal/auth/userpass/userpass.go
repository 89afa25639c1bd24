// Package userpass is the auth method of people and programs with a user name
// and a password that Coffer keeps. It proves who logs in; the gateway makes the
// token. Second factors and identities are not its concern.
//
// Nobody learns from it whether a user exists: an unknown name is answered the
// same, after the same work, and is locked after the same number of failures.
package userpass

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/attempts"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Options are the mount's options.
type Options = attempts.Options

// Users answers the routes of one mount.
type Users struct {
	storage storage.Engine
	method  string // the mount's path as display names have it: "userpass"
	guard   *attempts.Guard
	gate    *hashing
	cost    cost
	nobody  string // the hash that the password of an unknown name is compared with
}

// Kind declares userpass. All mounts share one bound of the work that logins do.
func Kind() engine.Kind[Options, *Users] {
	g, h := attempts.NewGate(), newHashing()
	return engine.Kind[Options, *Users]{
		Name: "userpass", Doc: "Log in with a user name and a password.", Class: engine.Auth,
		Open: func(_ context.Context, env engine.Env, o Options) (*Users, error) {
			return open(env, o, g, h, standard)
		},
		Routes: routes,
	}
}

func open(env engine.Env, o Options, g *attempts.Gate, h *hashing, c cost) (*Users, error) {
	guard, err := attempts.New(attempts.Mount{Storage: env.Storage, Fingerprint: env.Fingerprint, ID: env.Mount.Namespace + "/" + env.Mount.Path}, o, g)
	if err != nil {
		return nil, err
	}
	return &Users{
		storage: env.Storage, method: env.Mount.Method(),
		guard: guard, gate: h, cost: c, nobody: c.nobody(),
	}, nil
}

// user is a user's row. The fields without token_ are older names in Vault,
// answered where they were written.
type user struct {
	Password string `json:"password"` // see hash
	auth.TokenParams
	OldPolicies   wire.Strings `json:"policies,omitempty"`
	OldTTL        wire.Seconds `json:"ttl,omitempty"`
	OldMaxTTL     wire.Seconds `json:"max_ttl,omitempty"`
	OldBoundCIDRs wire.Strings `json:"bound_cidrs,omitempty"`
}

const maxPassword = 1024

func userKey(name string) string { return "user/" + name }

// get returns a user, nil when there is none.
func get(r storage.Reader, name string) (*user, error) {
	row, err := r.Get(userKey(name))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u := new(user)
	if err := json.Unmarshal(row, u); err != nil {
		return nil, fmt.Errorf("the row of user %q cannot be read: %w", name, err)
	}
	return u, nil
}

func put(t storage.Txn, name string, u *user) error {
	row, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return t.Put(userKey(name), row)
}
