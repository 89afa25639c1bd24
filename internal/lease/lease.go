// Package lease keeps what engines lent outside of Coffer, such as an account of
// a database, and sees that it is taken back: when its time is over, when
// somebody revokes it, when the token that it was lent to ends, when its mount
// goes. It does not know what engines lend (package engine's Lending does it).
//
// # Nothing is lost
//
// A lease is a row that is durable before its engine makes anything, with all it
// takes to find what was made, and that goes only after the engine has seen that
// it is gone. Whatever dies in between, the row is there, and a job (package job)
// is due at its time: no timers, and no memory for leases that wait.
//
// What is revoked while it may still be under way, on whatever node, is revoked
// once more when it cannot be any longer (Settle after the lease was written).
//
// # Trouble
//
// What a target refuses to take back is tried MaxRefused times with back-off and
// then set aside with the target's words, to be listed, counted, and tried again
// by hand. A target that cannot be reached is tried for MaxAway; meanwhile a
// node asks the same mount only now and then (see breaker), so that one dead
// target does not hold up the leases of others.
//
// Rows of all namespaces are under the server's keys, as tokens are: they name
// accounts and hold no secret.
package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Limits and times of leases.
const (
	MaxPathBytes = 512 // of the path of the request that lends, below its mount
	maxError     = 2048
	// MaxRefused is how often a target may refuse to take something back before
	// the lease is set aside, and MaxAway how long one may be out of reach.
	MaxRefused = 6
	MaxAway    = 24 * time.Hour
	// CallTimeout bounds what an engine is asked when a lease ends, and MakeTimeout
	// what it makes and extends.
	CallTimeout = 10 * time.Second
	MakeTimeout = 30 * time.Second
	// Settle is how long after a lease was written what it is for may still come
	// into being: the time that making may take, and as much again for a target
	// that goes on although nobody waits for it any more.
	Settle = 2 * MakeTimeout
)

// Lease is a lease as it is kept.
type Lease struct {
	// Key is the mount's UUID, the path below the mount, and a random name:
	// "<uuid>/creds/readonly/<name>". It is not in the row.
	Key       string `json:"-"`
	Namespace string `json:"namespace,omitempty"` // id of the mount's
	Token     string `json:"token,omitempty"`     // storage id of the token that it ends with; "" for none
	Entity    string `json:"entity,omitempty"`    // that it was lent to
	// Issued, Renewed and Expires are of the lease, Until is the latest that it may
	// be renewed to whatever the terms say; zero for none.
	Issued    time.Time       `json:"issued"`
	Renewed   time.Time       `json:"renewed,omitzero"`
	Expires   time.Time       `json:"expires"`
	Until     time.Time       `json:"until,omitzero"`
	Terms     lifetime.Terms  `json:"terms,omitzero"` // of the role
	Renewable bool            `json:"renewable,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"` // for the engine
	Ending    *Ending         `json:"ending,omitempty"`
	Counted   tally           `json:"counted,omitempty"` // what it is counted as
}

// Ending is how far taking back has come.
type Ending struct {
	Why     string    `json:"why"` // one of the reasons
	Since   time.Time `json:"since"`
	Refused int       `json:"refused,omitempty"` // how often the target refused
	Away    int       `json:"away,omitempty"`    // how often it could not be reached
	Last    time.Time `json:"last,omitzero"`     // when it was tried last
	Error   string    `json:"error,omitempty"`   // the target's words then
	Aside   bool      `json:"aside,omitempty"`   // it is not tried again by itself
	Gone    bool      `json:"gone,omitempty"`    // it was taken back, and is looked at once more
}

// The reasons for which leases end.
const (
	Expired  = "expired"
	Revoked  = "revoked"
	TokenEnd = "token ended"
	Unmade   = "making it failed"
	Stray    = "ended while it was made"
)

// Mount is the part of a lease's key that names its mount, and Path the path of the
// request below it.
func (l *Lease) Mount() string { mount, _, _ := strings.Cut(l.Key, "/"); return mount }

// Path is the path of the request that lent, below its mount.
func (l *Lease) Path() string {
	path := strings.TrimPrefix(l.Key, l.Mount()+"/")
	return path[:strings.LastIndexByte(path, '/')]
}

// Left is how long the lease has to live.
func (l *Lease) Left() time.Duration { return max(0, time.Until(l.Expires)) }

// leased is what the lease says to its engine.
func (l *Lease) leased() engine.Leased {
	return engine.Leased{Path: l.Path(), Issued: l.Issued, Expires: l.Expires, Data: l.Data}
}

// Target is the opened mount that lent.
type Target struct {
	Path  string // of the mount
	Spec  *engine.Spec
	State any
}

// Borrower is to whom something is lent.
type Borrower struct {
	Token string    // storage id of the token that the lease ends with; "" for none
	Until time.Time // the lease lasts no longer; zero for no such bound
}

// Options are what a Book needs.
type Options struct {
	Engine storage.Engine // the whole of the barrier
	Server lifetime.Server
	// Find returns an opened mount, by its namespace's id and its UUID; false when
	// it is not there.
	Find func(namespace, uuid string) (Target, bool)
	// Borrower returns whom a caller borrows for, in the transaction that lends; an
	// error when the caller's token holds no longer, or will not after the request.
	Borrower func(r storage.Reader, by route.Caller) (Borrower, error)
	// Ended reports whether a token, by its storage id, holds no longer.
	Ended func(r storage.Reader, token string) (bool, error)
	// Bounds returns the limits that a new lease is under, nil where there are none,
	// and MaxHeld how many one holder may have, 0 for any number. Either may be nil.
	Bounds  func(l *Lease) []Bound
	MaxHeld func() int
	// Record puts the end of a lease into the audit log: with an error when it was
	// set aside.
	Record func(ctx context.Context, l *Lease, mount string, failed error)
	Log    *slog.Logger
}

// Book is all leases. Its methods may be called concurrently.
type Book struct {
	Options
	queue   *job.Queue
	breaker breaker
}

// Open returns the book, and has the workers end what is due.
func Open(o Options, workers *job.Workers) (b *Book, err error) {
	b = &Book{Options: o}
	b.queue, err = workers.Add(job.Kind{
		Name: "leases", Doc: "Takes back what was lent when its time is over.",
		Run: b.run, Batch: batch, Timeout: 3 * CallTimeout,
	})
	return b, err
}

// Get returns a lease that has not ended, or a fault.Invalid.
func (b *Book) Get(ctx context.Context, key string) (l *Lease, err error) {
	err = b.Engine.View(ctx, func(r storage.Reader) error {
		l, err = find(r, key)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) || err == nil && l.Ending != nil && !l.Ending.Aside {
		return nil, fault.New(fault.Invalid, "invalid lease: there is none of that id, or it has ended")
	}
	return l, err
}

// find returns the lease of a key, or storage.ErrNotFound.
func find(r storage.Reader, key string) (*Lease, error) {
	if key == "" || storage.CheckKey(rowKey(key)) != nil {
		return nil, storage.ErrNotFound
	}
	row, err := r.Get(rowKey(key))
	if err != nil {
		return nil, err
	}
	return decode(key, row)
}

func decode(key string, row []byte) (*Lease, error) {
	l := &Lease{Key: key}
	if err := json.Unmarshal(row, l); err != nil {
		return nil, fmt.Errorf("lease %s: %w", key, err)
	}
	return l, nil
}
