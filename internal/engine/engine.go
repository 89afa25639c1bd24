// Package engine is the contract of what can be mounted: secrets engines, auth
// methods and Coffer's own system mounts. An engine is declared as data, a
// Kind, with its routes; it is opened once per mount and sees only its own
// storage. Only the gateway calls its handlers.
package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Class says where a kind may be mounted.
type Class string

// The classes.
const (
	Secret Class = "secret" // anywhere but below auth/ and sys/
	Auth   Class = "auth"   // below auth/
	System Class = "system" // mounted by Coffer itself, once, at a fixed place
)

// Mount describes the mount an engine was opened for.
type Mount struct {
	Namespace   string // the id of the namespace it is in; "" is the root
	Path        string // with its trailing slash, "auth/" included: "secret/", "auth/userpass/"
	Accessor    string
	UUID        string
	Description string
	Options     map[string]string
	DefaultTTL  time.Duration // 0: the server's
	MaxTTL      time.Duration // 0: the server's
}

// Method is an auth method's path as display names have it: "userpass".
func (m Mount) Method() string {
	return strings.ReplaceAll(strings.Trim(strings.TrimPrefix(m.Path, "auth/"), "/"), "/", "-")
}

// Env is what an engine gets of its surroundings.
type Env struct {
	Mount   Mount
	Storage storage.Engine // the mount's own part of the barrier, keys relative to it
	// Recent returns a row as it was at most a second ago, or
	// storage.ErrNotFound; what this node wrote is in it. It answers from memory
	// where it can, one row by itself: rows that must agree are read in one View.
	// The row is shared and must not be changed.
	Recent func(ctx context.Context, key string) ([]byte, error)
	Log    *slog.Logger
	// Fingerprint is a keyed digest under a key of this mount, by which a value
	// is named where it must not stand.
	Fingerprint func(value []byte) string
	// MaxPayload is the largest payload accepted, in bytes.
	MaxPayload int
	// Leases lends what the engine makes outside; for kinds with a Lending.
	Leases Lender
	// Agenda is what the mount has to do at a time; for kinds with a Due.
	Agenda Agenda
	// Password makes a password by a policy of the mount's namespace; "" is a
	// policy of Coffer's own.
	Password func(ctx context.Context, policy string) (wire.Secret, error)
}

// ReadThrough is an Env.Recent without memory.
func ReadThrough(s storage.Engine) func(ctx context.Context, key string) ([]byte, error) {
	return func(ctx context.Context, key string) (row []byte, err error) {
		err = s.View(ctx, func(r storage.Reader) error {
			row, err = r.Get(key)
			return err
		})
		return row, err
	}
}

// Kind declares an engine whose options are a C (a struct of strings tagged
// json, decoded from the mount's options) and whose opened state is an S.
type Kind[C, S any] struct {
	Name    string // the mount's type on the wire: "kv"
	Version string // the value of the option "version" that selects this kind; "" when there is one only
	Doc     string // one line
	Class   Class
	// Open opens a mount. It writes nothing and starts nothing: it is also called
	// to try options before they are kept.
	Open   func(ctx context.Context, env Env, options C) (S, error)
	Routes []route.Route[S]
	// Run does background work until ctx ends; nil when there is none.
	Run func(s S, ctx context.Context) error
	// Lending takes back what is lent; nil for kinds that lend nothing.
	Lending *Lending[S]
	// Due does a task of the mount's agenda; nil for kinds without one.
	Due func(s S, ctx context.Context, t Task) error
	// Upgradable lists the versions whose mounts this kind opens as they are.
	Upgradable []string
}

// Spec is a kind with its types erased.
type Spec struct {
	Name, Version, Doc string
	Class              Class
	Routes             []route.Spec
	Upgradable         []string

	open           func(ctx context.Context, env Env) (any, error)
	run            func(ctx context.Context, s any) error
	extend, revoke func(ctx context.Context, s any, l Leased) error
	due            func(ctx context.Context, s any, t Task) error
}

// Spec erases the kind's types.
func (k Kind[C, S]) Spec() *Spec {
	s := &Spec{
		Name: k.Name, Version: k.Version, Doc: k.Doc, Class: k.Class,
		Routes: route.Erase(k.Routes), Upgradable: k.Upgradable,
	}
	s.open = func(ctx context.Context, env Env) (any, error) {
		var options C
		text, err := json.Marshal(env.Mount.Options)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &options); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "options of mount %s are not understood by %s", env.Mount.Path, k.Name)
		}
		return k.Open(ctx, env, options)
	}
	if k.Run != nil {
		s.run = func(ctx context.Context, state any) error { return k.Run(state.(S), ctx) }
	}
	if l := k.Lending; l != nil {
		s.revoke = func(ctx context.Context, state any, lease Leased) error { return l.Revoke(state.(S), ctx, lease) }
		s.extend = func(ctx context.Context, state any, lease Leased) error { return nil }
		if l.Extend != nil {
			s.extend = func(ctx context.Context, state any, lease Leased) error { return l.Extend(state.(S), ctx, lease) }
		}
	}
	if k.Due != nil {
		s.due = func(ctx context.Context, state any, t Task) error { return k.Due(state.(S), ctx, t) }
	}
	return s
}

// Open opens the kind for a mount and returns its state.
func (s *Spec) Open(ctx context.Context, env Env) (any, error) {
	state, err := s.open(ctx, env)
	if err != nil {
		return nil, fmt.Errorf("open %s at %s: %w", s.Name, env.Mount.Path, err)
	}
	return state, nil
}

// Run does the kind's background work on an opened state until ctx ends.
func (s *Spec) Run(ctx context.Context, state any) error {
	if s.run == nil {
		return nil
	}
	return s.run(ctx, state)
}

// Extend makes what an opened state lent last until the lease expires.
func (s *Spec) Extend(ctx context.Context, state any, l Leased) error {
	if s.extend == nil {
		return s.lendsNothing()
	}
	return s.extend(ctx, state, l)
}

// Revoke takes back what an opened state lent.
func (s *Spec) Revoke(ctx context.Context, state any, l Leased) error {
	if s.revoke == nil {
		return s.lendsNothing()
	}
	return s.revoke(ctx, state, l)
}

func (s *Spec) lendsNothing() error { return fmt.Errorf("%s lends nothing", s.Name) }

// Due does a task of an opened state's agenda.
func (s *Spec) Due(ctx context.Context, state any, t Task) error {
	if s.due == nil {
		return fmt.Errorf("%s has no agenda", s.Name)
	}
	return s.due(ctx, state, t)
}

// Lends reports whether the kind lends anything.
func (s *Spec) Lends() bool { return s.revoke != nil }
