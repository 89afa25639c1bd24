// Package mount keeps the mount table: which engine answers below which path,
// with which options and lifetimes, and finds the mount of a request. A mount's
// rows live under keys of its own, so that disabling it destroys them at once.
// It does not know what engines do.
package mount

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/google/uuid"
)

// MaxPathBytes is the longest mount path, its trailing slash included.
const MaxPathBytes = 256

// Entry is a row of the mount table.
type Entry struct {
	UUID        string            `json:"uuid"`
	Accessor    string            `json:"accessor"`
	Path        string            `json:"path"` // "secret/", "auth/userpass/"
	Type        string            `json:"type"`
	Class       engine.Class      `json:"class"`
	Description string            `json:"description"`
	Options     map[string]string `json:"options,omitempty"`
	Config      Config            `json:"config"`
	Local       bool              `json:"local"`
	SealWrap    bool              `json:"seal_wrap"`
	Created     time.Time         `json:"created"`
	// Ending is set once the mount was disabled: its keys are gone, nothing is
	// routed to it, and its rows are being erased.
	Ending bool `json:"ending,omitempty"`
}

// Config is what sys/mounts/PATH/tune changes.
type Config struct {
	DefaultTTL        wire.Seconds `json:"default_lease_ttl" doc:"Lifetime of what the mount hands out; 0 is the server's."`
	MaxTTL            wire.Seconds `json:"max_lease_ttl" doc:"Longest lifetime; 0 is the server's."`
	ForceNoCache      bool         `json:"force_no_cache" doc:"Accepted for Vault's clients; caches here are never stale."`
	ListingVisibility string       `json:"listing_visibility,omitempty" doc:"hidden or unauth: whether the mount shows before login."`
	TokenType         string       `json:"token_type,omitempty" doc:"Type of the tokens an auth mount grants: default-service, default-batch, service or batch."`
	AuditKeys         wire.Strings `json:"audit_non_hmac_request_keys,omitempty" doc:"Accepted for Vault's clients; values are never in the audit log."`
	AuditAnswerKeys   wire.Strings `json:"audit_non_hmac_response_keys,omitempty" doc:"Accepted for Vault's clients; values are never in the audit log."`
	PassHeaders       wire.Strings `json:"passthrough_request_headers,omitempty" doc:"Accepted for Vault's clients; engines are shown no headers."`
	AnswerHeaders     wire.Strings `json:"allowed_response_headers,omitempty" doc:"Accepted for Vault's clients; engines set no headers."`
}

// newEntry returns an entry with fresh identifiers.
func newEntry(path, kind string, class engine.Class) *Entry {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return &Entry{
		UUID: uuid.NewString(), Accessor: strings.ReplaceAll(kind, "-", "_") + "_" + hex.EncodeToString(b[:]),
		Path: path, Type: kind, Class: class, Created: time.Now().UTC(),
	}
}

// env returns what the mount's engine is told about it.
func (e *Entry) env(namespace string) engine.Mount {
	return engine.Mount{
		Namespace: namespace,
		Path:      e.Path, Accessor: e.Accessor, UUID: e.UUID, Description: e.Description, Options: e.Options,
		DefaultTTL: e.Config.DefaultTTL.Duration(), MaxTTL: e.Config.MaxTTL.Duration(),
	}
}

// CleanPath returns path with its one trailing slash, or a fault that says what
// is wrong with it.
func CleanPath(path string) (string, error) {
	path = strings.Trim(path, "/") + "/"
	switch {
	case path == "/":
		return "", fault.New(fault.Invalid, "a mount path is needed")
	case len(path) > MaxPathBytes:
		return "", fault.New(fault.Invalid, "a mount path may have at most %d bytes", MaxPathBytes)
	}
	for seg := range strings.SplitSeq(strings.TrimSuffix(path, "/"), "/") {
		if seg == "" || seg == "." || seg == ".." {
			return "", fault.New(fault.Invalid, "mount path %q has an empty, \".\" or \"..\" segment", path)
		}
	}
	for _, r := range path {
		if r <= ' ' || r == 0x7f || r == '*' || r == '+' || r == '\\' || r == 0xfffd {
			return "", fault.New(fault.Invalid, "mount path %q holds a character that paths and policies cannot name", path)
		}
	}
	return path, nil
}

// reserved are paths that no one may mount on, below or above.
var reserved = []string{"sys/", "auth/token/", "cubbyhole/", "identity/", "audit/"}

// checkPlace refuses a path that is reserved, of the wrong class, or in the way
// of another mount.
func checkPlace(path string, class engine.Class, others []*Entry) error {
	below := strings.HasPrefix(path, "auth/")
	if class == engine.Auth && !below {
		return fault.New(fault.Invalid, "auth methods are enabled below auth/")
	}
	if class == engine.Secret && below {
		return fault.New(fault.Invalid, "secrets engines cannot be mounted below auth/")
	}
	for _, r := range reserved {
		if strings.HasPrefix(path, r) || strings.HasPrefix(r, path) {
			return fault.New(fault.Invalid, "path %s is reserved", path)
		}
	}
	for _, o := range others {
		if strings.HasPrefix(path, o.Path) || strings.HasPrefix(o.Path, path) {
			if o.Ending {
				return fault.New(fault.Conflict, "the mount that was at %s is still being erased; try again shortly", o.Path)
			}
			return ErrInUse(o.Path)
		}
	}
	return nil
}
