package history

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Feed is a Log whose commits come from a server. It tells progress only while
// the server is heard, and begins a new log where the history breaks off.
type Feed struct {
	head     func(ctx context.Context) (storage.Revision, error)
	patience time.Duration

	mu    sync.Mutex
	log   *Log
	heard time.Time // a moment at which nothing was newer than the log
	ended bool
}

// NewFeed returns a feed that starts after revision at, with a Log of the given
// bounds. head asks the server for its newest commit; patience is how long the
// feed may take to get to a commit that the server has.
func NewFeed(at storage.Revision, patience time.Duration, head func(ctx context.Context) (storage.Revision, error)) *Feed {
	return &Feed{head: head, patience: patience, log: newLog(at), heard: time.Now()}
}

// What a watch may fall behind by without asking the server.
const (
	feedCommits = 16384
	feedBytes   = 16 << 20
)

func newLog(at storage.Revision) *Log { return New(at, feedCommits, feedBytes) }

func (f *Feed) now() *Log {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log
}

// Last is the newest commit that is known.
func (f *Feed) Last() storage.Revision { return f.now().Last() }

// Append adds a commit, whose revision is above all before it, and whose changes
// must not be modified any more.
func (f *Feed) Append(c storage.Commit) { f.now().Append(c) }

// Heard says that at a moment the server had nothing newer than what had been
// appended when Heard was called.
func (f *Feed) Heard(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.After(f.heard) {
		f.heard = at
	}
}

// Silence is how long ago the server was heard.
func (f *Feed) Silence() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.heard)
}

// Restart begins a new history at a revision, and ends every Watch of the old
// with ErrHistoryGone.
func (f *Feed) Restart(at storage.Revision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return
	}
	f.log.Close(storage.ErrHistoryGone)
	f.log = newLog(at)
}

// Close ends every Watch with ErrClosed.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.log.Close(storage.ErrClosed)
}

// Watch implements storage.Engine.Watch for what the feed holds: it returns
// ErrHistoryGone for older commits. told says that fn was called.
func (f *Feed) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) (told bool, err error) {
	if from > f.Last() {
		if err := f.reach(ctx, from); err != nil {
			return false, err
		}
	}
	err = f.now().Watch(ctx, prefix, from, func(c storage.Commit) error {
		if len(c.Changes) == 0 && f.Silence() > storage.ProgressInterval {
			return nil // nobody knows whether there is something newer
		}
		told = true
		return fn(c)
	})
	return told, err
}

// reach waits until the log has got to a revision that the server is said to
// have.
func (f *Feed) reach(ctx context.Context, rev storage.Revision) error {
	head, err := f.head(ctx)
	if err != nil {
		return err
	}
	if rev > head {
		return storage.ErrHistoryGone // told by another history, such as one that a restore replaced
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.patience, errLate)
	defer cancel()
	for {
		last, changed, err := f.now().next()
		switch {
		case err != nil && !errors.Is(err, storage.ErrHistoryGone):
			return err
		case last >= rev:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errLate) {
				return fmt.Errorf("%w: the change feed has not got to revision %d", storage.ErrUnavailable, rev)
			}
			return ctx.Err()
		}
	}
}

var errLate = errors.New("too late")
