package route

import (
	"context"
	"io"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
)

// Notes rides on a response: what is said besides its data. A response type
// that wants it embeds it.
type Notes struct {
	Status   int      `json:"-"` // HTTP status; 0 is 200, 204 answers nothing else
	Warnings []string `json:"-"`
	Subject  Subject  `json:"-"`
	// LeaseDuration is answered as lease_duration for data that should be read
	// again after that time although nothing has to be revoked (kv version 1).
	LeaseDuration time.Duration `json:"-"`
	// MaxAge is how long anybody may keep the answer, which holds nothing that is for
	// its caller alone; 0: nobody may.
	MaxAge time.Duration `json:"-"`
	// Lease is of what is answered, and is taken back when it ends.
	Lease *Lease `json:"-"`
}

// Lease names what is lent, for as long as it lasts.
type Lease struct {
	ID        string // from the namespace of the mount: its path, the path below it, and a random name
	Key       string // by which it is kept
	TTL       time.Duration
	Renewable bool
}

// Carried returns the notes of a response that embeds them.
func (n Notes) Carried() Notes { return n }

// Warn adds a warning that the client is shown.
func (n *Notes) Warn(text string) { n.Warnings = append(n.Warnings, text) }

// Noted is a response that carries notes.
type Noted interface{ Carried() Notes }

// Subject is what a request was about, for the audit log: a version is named by
// path, number and keyed fingerprint, never by its value.
type Subject struct {
	Path        string
	Version     int
	Label       string
	Fingerprint string
}

// Empty answers 204, or 200 with warnings where there are any.
type Empty struct{ Notes }

// Bare marks a response that is answered without Vault's envelope, as
// sys/health is. A response type that wants it embeds it.
type Bare struct{}

// IsBare marks the response.
func (Bare) IsBare() {}

// Doubled marks a response whose data stands both in the envelope's data and
// beside it at the top level, as sys/mounts has it.
type Doubled struct{}

// IsDoubled marks the response.
func (Doubled) IsDoubled() {}

// Raw answers a body as it is.
type Raw struct {
	Notes
	ContentType string
	Body        []byte
}

// Stream answers a body that is made while it is sent. Such a route Changes, so
// that an intent is recorded before the first byte leaves.
type Stream struct {
	Notes
	ContentType string
	// Live is a body without an end of its own, such as a log that is followed:
	// what is written leaves at once, and the outcome is recorded when it ends.
	Live bool
	// Write writes the body and returns what it was, for the outcome's entry. The
	// context ends when the client is gone. An error breaks the connection off, so
	// that the client cannot take what it has for the whole.
	Write func(ctx context.Context, w io.Writer) (Subject, error)
}

// Nothing is a request without fields.
type Nothing struct{}

// Page is the paging of a list: names after After, at most Limit of them.
type Page struct {
	After string   `query:"after" doc:"Return only names that sort after this one."`
	Limit wire.Int `query:"limit" doc:"Return at most this many names; 0 returns all."`
}

// Keys answers a list.
type Keys struct {
	Notes
	Keys []string `json:"keys" doc:"The names, in order; a name with more below it ends in a slash."`
}

// KeysInfo answers a list with something about each name.
type KeysInfo[T any] struct {
	Notes
	Keys []string     `json:"keys" doc:"The names, in order."`
	Info map[string]T `json:"key_info" doc:"About each name."`
}

// Found returns the list, or Missing when it is empty, as Vault answers.
func (k Keys) Found() (Keys, error) {
	if len(k.Keys) == 0 {
		return k, Missing()
	}
	return k, nil
}

// Missing is the answer for what does not exist: 404 with no errors listed, the
// shape by which Vault clients tell "nothing there" from a mistake.
func Missing() error { return fault.New(fault.NotFound, "") }
