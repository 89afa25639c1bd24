// Package broker signs identity tokens: short-lived JSON web tokens (RFC 7519) that
// say who the holder of a token of this server is, and that other services verify
// offline with public keys. Its words and shapes are Vault's "identity tokens"
// (identity/oidc).
//
// A named key is a chain of key pairs: one signs, the next one is published before it
// does, and those that signed before stay published as long as a token of theirs can
// hold. Rotations turns the chains over, by time. A role says by which key, for whom
// and for how long tokens are signed, and what they claim besides.
//
// The package proves nobody's identity (package auth), verifies no foreign issuer's
// tokens (package auth/issuer), and is no provider that people log in at in a browser.
package broker

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/storage"
)

// Limits.
const (
	MaxKeys      = 64 // named keys of a namespace
	MaxRoles     = 2000
	MaxOld       = 50  // pairs of a key that only verify, after which people cannot rotate it
	MaxClients   = 500 // client ids of a key, audiences of a role
	MaxClientID  = 256 // bytes
	MaxIssuer    = 512 // bytes
	MaxTemplate  = 16 << 10
	MaxClaims    = 16 << 10 // bytes of what a token claims, as JSON
	MinRotation  = time.Minute
	MinLife      = time.Second // of a token, and of a key's verification
	RatioOfLives = 10          // verification over rotation, at most
)

// MaxCached is how long at most verifiers may keep the published keys before they
// fetch them again, and so how long before its use a key is published at least.
const MaxCached = 5 * time.Minute

// Algorithms are those that keys sign with (RFC 7518, RFC 8037).
var Algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// Below is where the issuer is, below the path of its namespace.
const Below = "identity/oidc"

// Rows, below the prefix of a namespace.
const (
	rows      = "core/broker/"
	configRow = "config"
	keyRows   = "key/"  // + name: Key
	roleRows  = "role/" // + name: Role
	useRows   = "use/"  // + key + "/" + role: how long the role's tokens hold
)

// Options are what a Store needs.
type Options struct {
	Barrier    *barrier.Barrier
	Prefix     string        // of the namespace; "" for the root
	Namespace  string        // its id
	Path       func() string // of the namespace, with a trailing slash; "" for the root
	Identities *identity.Store
	Rotations  *Rotations
	// Address is the URL by which clients reach this server, "" where none can be
	// named that holds for all nodes.
	Address func() string
	Log     *slog.Logger
}

// Store keeps the keys and roles of a namespace. It is safe for use by many.
type Store struct {
	Options
	storage storage.Engine
	leave   func()

	changes atomic.Uint64 // counts what may have changed the published document
	known   atomic.Pointer[document]
}

// New returns the store of a namespace's keys and roles.
func New(o Options) *Store {
	s := &Store{Options: o, storage: storage.Sub(o.Barrier, o.Prefix+rows)}
	s.leave = o.Barrier.Subscribe(o.Prefix+rows, func(context.Context) error {
		s.changes.Add(1)
		return nil
	})
	return s
}

// Close ends following changes.
func (s *Store) Close() { s.leave() }

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

func missing() error { return fault.New(fault.NotFound, "") }

var names = regexp.MustCompile(`^\w([\w.-]{0,126}\w)?$`)

func checkName(what, name string) error {
	if !names.MatchString(name) {
		return invalid("the name of a %s has 1 to 128 letters, digits, dots, dashes and underscores, and neither begins nor ends with a dot or dash", what)
	}
	return nil
}

// checkClients checks client ids, which are audiences.
func checkClients(what string, ids []string) error {
	if len(ids) > MaxClients {
		return invalid("%s has %d entries; at most %d are accepted", what, len(ids), MaxClients)
	}
	for _, id := range ids {
		if id == "" || len(id) > MaxClientID || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
			return invalid("%s: an id has 1 to %d printable bytes", what, MaxClientID)
		}
	}
	return nil
}

// Config says what holds for all keys and roles of a namespace.
type Config struct {
	// Issuer is the scheme, host and port of the issuer's URL; "" is the server's own
	// address.
	Issuer string `json:"issuer"`
}

// Config returns the settings.
func (s *Store) Config(ctx context.Context) (Config, error) {
	c, err := storage.LoadFrom[Config](ctx, s.storage, configRow)
	if err != nil || c == nil {
		return Config{}, err
	}
	return *c, nil
}

// WriteConfig changes the settings. Tokens that were signed before keep their issuer,
// and are not what this issuer's verifiers expect any more.
func (s *Store) WriteConfig(ctx context.Context, c Config) error {
	if err := checkIssuer(c.Issuer); err != nil {
		return err
	}
	return s.update(ctx, func(t storage.Txn) error { return storage.Save(t, configRow, c) })
}

func checkIssuer(issuer string) error {
	if issuer == "" {
		return nil
	}
	u, err := url.Parse(issuer)
	if err != nil || len(issuer) > MaxIssuer || *u != (url.URL{Scheme: u.Scheme, Host: u.Host}) || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return invalid("invalid issuer, which must include only a scheme, host, and optional port (e.g. https://example.com:8200)")
	}
	return nil
}

// errIssuer is the cause of a refusal for want of an issuer.
var errIssuer = errors.New("no issuer is set and the server has no address to take for it")

func errNoIssuer() error {
	return fault.Wrap(fault.Invalid, errIssuer, "the issuer of identity tokens is not known: set the address by which those who verify them reach every node of this server, `coffer write %s/config issuer=https://...`", Below)
}

// issuer returns the issuer's URL by the settings in a snapshot.
func (s *Store) issuer(r storage.Reader) (string, error) {
	c, err := storage.Load[Config](r, configRow)
	if err != nil {
		return "", err
	}
	base := ""
	if c != nil {
		base = c.Issuer
	}
	if base == "" {
		base = strings.TrimRight(s.Address(), "/")
	}
	if base == "" {
		return "", errNoIssuer()
	}
	return base + "/v1/" + s.Path() + Below, nil
}

// update runs fn in a transaction on the store's rows.
func (s *Store) update(ctx context.Context, fn func(storage.Txn) error) error {
	_, err := s.storage.Update(ctx, fn)
	s.changes.Add(1)
	return err
}
