// Package storage is the contract of the engines that keep Coffer's rows: a
// transactional, ordered key-value store. It knows nothing of secrets; what it
// is given is already encrypted by package barrier.
//
// Engines are in storage/pebble (embedded, the default), storage/postgres,
// storage/etcd and storage/memory (for tests). storagetest.Run proves each of
// them against this contract.
package storage

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Limits of one Update, the same on every engine so that what works on one
// works on all. Larger work is cut into resumable pieces.
const (
	MaxKeyBytes    = 2048            // length of a key
	MaxUpdateKeys  = 100             // different keys put or deleted in one Update
	MaxUpdateBytes = 1<<20 + 128<<10 // keys and values put: a 1 MiB payload and the rows that go with it
)

// ProgressInterval is how often at least a Watch reports, changes or not, so
// that a cache kept by it knows how old it is.
const ProgressInterval = 250 * time.Millisecond

// Revision numbers the commits of an engine: each is greater than every one
// committed before. It survives restarts.
type Revision uint64

// Errors of the contract. Engines wrap them; test with errors.Is.
var (
	ErrNotFound    = errors.New("key not found")
	ErrClosed      = errors.New("storage engine is closed")
	ErrTooLarge    = errors.New("update is larger than the storage contract allows")
	ErrInvalidKey  = errors.New("storage key is empty, longer than the contract allows, or holds a NUL byte")
	ErrHistoryGone = errors.New("watch history before the given revision is gone; read the present state and watch from its revision")
	ErrFull        = errors.New("storage is full")
	ErrReadOnly    = errors.New("storage accepts no writes")
	ErrFailed      = errors.New("storage engine failed and must be restarted") // every call returns it from then on
	ErrUnavailable = errors.New("storage engine cannot be reached")            // nothing was written; later calls may succeed
	ErrUncertain   = errors.New("storage engine went away during a commit, which may or may not have taken effect")
)

// Reader reads one consistent snapshot. It is valid only inside the function
// it was given to. Returned slices belong to the caller.
type Reader interface {
	// Revision is the newest commit that this snapshot shows. It counts as a
	// read: a View that asked returns when that commit is durable.
	Revision() Revision
	// Get returns the value of key, or ErrNotFound.
	Get(key string) ([]byte, error)
	// Scan returns, in key order, up to limit entries whose keys start with
	// prefix and are greater than after ("" starts at the first). limit must be
	// at least 1; fewer entries than limit mean that there are no more.
	Scan(prefix, after string, limit int) ([]Entry, error)
	// List returns, in order, up to limit names directly below prefix and
	// greater than after. A name that has keys below it ends in "/"; both "a"
	// and "a/" are returned when both exist. The cost is that of the names
	// returned, not of the keys below them.
	List(prefix, after string, limit int) ([]string, error)
}

// Txn is a Reader that also sees and buffers its own writes.
type Txn interface {
	Reader
	// Put sets key. The value is copied. The error (ErrInvalidKey, ErrTooLarge)
	// also fails the Update if the function ignores it.
	Put(key string, value []byte) error
	// Delete removes key; a missing key is no error.
	Delete(key string) error
}

// Entry is a key and its value.
type Entry struct {
	Key   string
	Value []byte
}

// Change is one key that a commit put, or deleted when Deleted is set.
type Change struct {
	Key     string
	Value   []byte
	Deleted bool
}

// Commit is what a Watch reports: the changes of one Update under the watched
// prefix in key order, or none to say that everything up to Revision has been
// reported. Watchers share the values: they must not be modified.
type Commit struct {
	Revision Revision
	Changes  []Change
}

// Engine is a storage engine. All methods may be called concurrently.
type Engine interface {
	// View calls fn with a consistent snapshot. Nothing that fn reads can be
	// lost after View has returned: a snapshot that shows commits which are not
	// durable yet holds View back until they are.
	View(ctx context.Context, fn func(Reader) error) error
	// Update calls fn in a serializable transaction and commits what it wrote.
	// fn may run more than once, must have no effects of its own, and must not
	// call Update or Close: they would wait for it. Only the last run counts; one
	// before it may have read rows that do not fit together, where an engine
	// begins with what it remembers, and what it returned is dropped. When the run
	// that counts returns an error nothing is written and the error is returned as
	// it is.
	// When Update returns nil the commit is durable. Revision is that of the
	// commit, or of the snapshot when fn wrote nothing. Every error but
	// ErrUncertain means that nothing was written; after ErrUncertain fn is not
	// run again, since it could meet its own writes.
	Update(ctx context.Context, fn func(Txn) error) (Revision, error)
	// Watch reports every commit after from that touches prefix, in order and
	// without gaps, only once it is durable, and progress at least every
	// ProgressInterval, to fn, one call at a time, until ctx ends or fn returns
	// an error; that error is returned. It returns ErrHistoryGone when commits
	// after from can no longer be told, when from is newer than any commit (a
	// restore put an older state in place), and when a slow fn falls too far
	// behind.
	Watch(ctx context.Context, prefix string, from Revision, fn func(Commit) error) error
	// Close ends every call under way and releases the store. Calls after it
	// return ErrClosed.
	Close() error
}

// CheckKey returns ErrInvalidKey when key breaks the contract.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKeyBytes {
		return ErrInvalidKey
	}
	for i := 0; i < len(key); i++ {
		if key[i] == 0 {
			return ErrInvalidKey
		}
	}
	return nil
}

// Kind declares an engine for the table in package builtin.
type Kind struct {
	Name string   // the label of the storage block in the configuration
	Also []string // other labels of the same kind, such as Vault's
	Doc  string
	// Open opens the engine. settings holds the block's attributes as written;
	// an unknown or malformed one is an error that names it. log is told what an
	// operator should know while the engine goes on.
	Open func(ctx context.Context, settings map[string]string, log *slog.Logger) (Engine, error)
}
