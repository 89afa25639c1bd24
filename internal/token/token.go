// Package token keeps tokens: the tree they form, how long they live, how often
// they may be used, the roles they are made by, and responses wrapped in a
// token of one use.
//
// What ends a token is one row write, whatever hangs below it: a token is valid
// only while its row and that of each ancestor say so, so revoking a parent
// ends everything below it at once and cannot end half of it. The rows of what
// ended that way are removed afterwards, in bounded pieces that a crash
// interrupts and Run takes up again.
//
// A token is stored under a keyed hash. Whoever reads the store learns no token.
//
// The package decides no policies (package policy), knows no auth method
// (package auth) and no leases.
package token

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// Type is the kind of a token.
type Type string

// The types of tokens. A service token is a row; a batch token is sealed into
// its own text, has no row and cannot be renewed, revoked or used to create
// tokens. It ends with its parent.
const (
	Service Type = "service"
	Batch   Type = "batch"
)

// String returns the type as the wire has it.
func (t Type) String() string { return string(t) }

// MaxDepth is how many ancestors a token may have.
const MaxDepth = 32

// RootPolicy is the policy that may do anything; DefaultPolicy is the one that
// every token gets unless it is asked to have none; WrappingPolicy is that of
// the tokens which hold a wrapped response.
const (
	RootPolicy     = "root"
	DefaultPolicy  = "default"
	WrappingPolicy = "response-wrapping"
)

// state says why a row is there although its token is not valid.
type state string

const (
	alive state = ""
	spent state = "spent" // its last use is under way or over
	gone  state = "gone"  // revoked as an orphaning parent: its children live on
)

// Token is a token without its secret. A Token that the store returned is
// shared and must not be changed.
type Token struct {
	ID          string            `json:"id"`                  // storage id: a keyed hash of the token
	Accessor    string            `json:"accessor,omitempty"`  // "" for batch tokens
	Parent      string            `json:"parent,omitempty"`    // storage id, "" for an orphan
	Namespace   string            `json:"namespace,omitempty"` // id of the one it belongs to; "" is the root
	Path        string            `json:"path,omitempty"`      // of the request that created it: "auth/userpass/login/bob"
	DisplayName string            `json:"display_name,omitempty"`
	EntityID    string            `json:"entity_id,omitempty"`
	Policies    []string          `json:"policies,omitempty"` // sorted, with "default" where it holds
	Meta        map[string]string `json:"meta,omitempty"`
	Type        Type              `json:"type"`
	Orphan      bool              `json:"orphan,omitempty"`
	Renewable   bool              `json:"renewable,omitempty"`
	CreatedAt   time.Time         `json:"created_at"`
	RenewedAt   time.Time         `json:"renewed_at,omitzero"`
	ExpiresAt   time.Time         `json:"expires_at,omitzero"` // zero: never
	TTL         time.Duration     `json:"ttl,omitempty"`       // as it was created with
	Terms       lifetime.Terms    `json:"terms,omitzero"`
	NumUses     int               `json:"num_uses,omitempty"` // uses left; 0 is any number
	BoundCIDRs  []netip.Prefix    `json:"bound_cidrs,omitempty"`
	Role        string            `json:"role,omitempty"`
	Mount       string            `json:"mount,omitempty"` // accessor of the auth mount that granted it; "" for auth/token
	Depth       int               `json:"depth,omitempty"` // number of ancestors
	Login       json.RawMessage   `json:"login,omitempty"` // what the auth method granted, for its renewer
	Wrapping    *Wrapping         `json:"wrapping,omitempty"`

	State state `json:"state,omitempty"`
}

// Wrapping is what a wrapping token says of the response it holds.
type Wrapping struct {
	CreationPath    string        `json:"creation_path"`
	TTL             time.Duration `json:"ttl"`
	WrappedAccessor string        `json:"wrapped_accessor,omitempty"` // of the token that was wrapped, if one was
}

// Root reports whether the token holds the root policy.
func (t *Token) Root() bool { return slices.Contains(t.Policies, RootPolicy) }

// Remaining is how long the token has to live; 0 for one that never ends.
func (t *Token) Remaining() time.Duration {
	if t.ExpiresAt.IsZero() {
		return 0
	}
	return max(0, time.Until(t.ExpiresAt))
}

// valid reports whether the token, looked at without its ancestors, holds.
func (t *Token) valid(now time.Time) bool {
	return t.State == alive && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt))
}

// Issued is a token that was just made or renewed, with its secret. The gateway
// answers it as Vault's auth block. Warnings are in its notes.
type Issued struct {
	route.Notes
	Secret   wire.Secret   // "" when it was renewed by its accessor
	Token    *Token        // as it is now
	TTL      time.Duration // lease_duration: what it has to live; 0 never ends
	Identity []string      // policies that its entity adds to its own, as the gateway knows them
}

// Decode reads a token's row, for a cache of them.
func Decode(_ string, row []byte) (*Token, error) {
	t := new(Token)
	if err := json.Unmarshal(row, t); err != nil {
		return nil, fmt.Errorf("a token's row cannot be read: %w", err)
	}
	return t, nil
}

// maxRow bounds a token's row, and with it what a cached token takes.
const maxRow = 64 << 10

func encode(t *Token) ([]byte, error) {
	row, err := json.Marshal(t)
	if err == nil && len(row) > maxRow {
		err = fault.New(fault.TooLarge, "the token would take %d bytes, beyond the limit of %d; give it fewer policies or less metadata", len(row), maxRow)
	}
	return row, err
}

// errBad is the refusal of a token that is none, or is one no longer. It says
// the same whatever the reason, so that nothing is learnt from it.
func errBad() error { return fault.New(fault.Denied, "bad token") }

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
