// Package userpass is the auth method of people and programs with a user name
// and a password that Coffer keeps. It proves who logs in; the gateway makes the
// token. Second factors and identities are not its concern.
//
// Nobody learns from it whether a user exists: an unknown name is answered the
// same, after the same work, and is locked after the same number of failures.
package userpass

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Options are the mount's options, in the names of Vault's user_lockout_config.
type Options struct {
	Threshold    string `json:"lockout_threshold" doc:"Failures in a row that lock a user; 5 unless written, 0 never locks."`
	Duration     string `json:"lockout_duration" doc:"How long a user stays locked; 15m unless written."`
	CounterReset string `json:"lockout_counter_reset" doc:"How long after a failure it counts no more; 15m unless written."`
	Disable      string `json:"lockout_disable" doc:"true never locks anybody."`
}

// Users answers the routes of one mount.
type Users struct {
	storage     storage.Engine
	fingerprint func([]byte) string
	method      string // the mount's path as display names have it: "userpass"
	lockout     lockout
	gate        *gate
	cost        cost
	nobody      string // the hash that the password of an unknown name is compared with
}

// Kind declares userpass. All mounts share one bound of the work that logins do.
func Kind() engine.Kind[Options, *Users] {
	g := newGate()
	return engine.Kind[Options, *Users]{
		Name: "userpass", Doc: "Log in with a user name and a password.", Class: engine.Auth,
		Open: func(_ context.Context, env engine.Env, o Options) (*Users, error) {
			return open(env, o, g, standard)
		},
		Routes: routes,
	}
}

func open(env engine.Env, o Options, g *gate, c cost) (*Users, error) {
	l, err := o.lockout()
	if err != nil {
		return nil, err
	}
	method := strings.Trim(strings.TrimPrefix(env.Mount.Path, "auth/"), "/")
	return &Users{
		storage: env.Storage, fingerprint: env.Fingerprint, method: strings.ReplaceAll(method, "/", "-"),
		lockout: l, gate: g, cost: c, nobody: c.nobody(),
	}, nil
}

func (o Options) lockout() (lockout, error) {
	l := lockout{threshold: 5, duration: 15 * time.Minute, reset: 15 * time.Minute}
	if o.Threshold != "" {
		n, err := strconv.Atoi(o.Threshold)
		if err != nil || n < 0 || n > 1000 {
			return l, fault.New(fault.Invalid, "lockout_threshold: it must be a number from 0 to 1000")
		}
		l.threshold = n
	}
	for _, d := range []struct {
		name, text string
		dst        *time.Duration
	}{{"lockout_duration", o.Duration, &l.duration}, {"lockout_counter_reset", o.CounterReset, &l.reset}} {
		if d.text == "" {
			continue
		}
		v, err := wire.ParseDuration(d.text)
		if err != nil || v < 0 {
			return l, fault.New(fault.Invalid, "%s: it must be a duration such as 15m", d.name)
		}
		*d.dst = v
	}
	if o.Disable != "" {
		off, err := strconv.ParseBool(o.Disable)
		if err != nil {
			return l, fault.New(fault.Invalid, "lockout_disable: it must be true or false")
		}
		l.disabled = off
	}
	return l, nil
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

// names are what Vault accepts as a user's name.
var names = regexp.MustCompile(`^\w([\w.-]*\w)?$`)

const (
	maxName     = 256
	maxPassword = 1024
)

// nameOf returns a user's name in its one spelling.
func nameOf(text string) (string, error) {
	if len(text) > maxName || !names.MatchString(text) {
		return "", fault.New(fault.Invalid, "a user name has letters, digits, '_', '-' and '.', starts and ends with none of the last two, and has at most %d characters", maxName)
	}
	return strings.ToLower(text), nil
}

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

// bucket is where the failures of a name that nobody has are counted: there are
// few enough that guessing names cannot fill the store.
func (u *Users) bucket(name string) string {
	sum := sha256.Sum256([]byte(u.fingerprint([]byte("unknown user " + name))))
	return hex.EncodeToString(sum[:2])
}
