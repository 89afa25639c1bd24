// Package history keeps the newest commits of a storage engine in memory and
// tells them to watchers: a Log for engines that live in one process, a Feed for
// those that read the commits of all nodes from a server.
package history

import (
	"context"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// beat is how often a watch reports progress: a little more often than the
// contract asks, so that a late timer still keeps it.
const beat = storage.ProgressInterval * 4 / 5

// Log holds the newest commits, in order. It may be used concurrently.
type Log struct {
	maxCommits, maxBytes int

	mu      sync.Mutex
	commits []storage.Commit
	bytes   int
	before  storage.Revision // newest commit that is not held
	last    storage.Revision // newest commit appended
	changed chan struct{}    // closed and replaced by every Append; closed for good by Close
	err     error            // set by Close
}

// New returns a log whose history starts after revision at. It holds at most
// maxCommits commits and maxBytes bytes of keys and values, and always the
// newest commit.
func New(at storage.Revision, maxCommits, maxBytes int) *Log {
	return &Log{
		maxCommits: maxCommits, maxBytes: maxBytes,
		before: at, last: at, changed: make(chan struct{}),
	}
}

// Append adds a commit, whose revision is above all before it. The log keeps
// the changes: they must not be modified any more.
func (l *Log) Append(c storage.Commit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.commits = append(l.commits, c)
	l.bytes += size(c)
	l.last = c.Revision
	for len(l.commits) > 1 && (len(l.commits) > l.maxCommits || l.bytes > l.maxBytes) {
		l.bytes -= size(l.commits[0])
		l.before = l.commits[0].Revision
		l.commits[0] = storage.Commit{}
		l.commits = l.commits[1:]
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func size(c storage.Commit) int {
	n := 0
	for _, ch := range c.Changes {
		n += len(ch.Key) + len(ch.Value)
	}
	return n
}

// Last is the newest commit appended, or the revision the log began with.
func (l *Log) Last() storage.Revision {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Close ends every watch with err.
func (l *Log) Close(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.changed)
	}
}

// Watch implements storage.Engine.Watch.
func (l *Log) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	if from > l.Last() {
		return storage.ErrHistoryGone // told by another history, such as one that a restore replaced
	}
	tick := time.NewTimer(beat)
	defer tick.Stop()
	reported := time.Now()
	for {
		commits, last, changed, err := l.after(from)
		if err != nil {
			return err
		}
		for _, c := range commits {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.Changes = below(c.Changes, prefix)
			if len(c.Changes) == 0 && time.Since(reported) < beat {
				continue
			}
			if err := fn(c); err != nil {
				return err
			}
			reported = time.Now()
		}
		from = last
		if time.Since(reported) >= beat {
			if err := fn(storage.Commit{Revision: from}); err != nil {
				return err
			}
			reported = time.Now()
		}
		tick.Reset(beat - time.Since(reported))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick.C:
		}
	}
}

// next returns the newest commit and a channel that is closed when there is
// another.
func (l *Log) next() (storage.Revision, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.changed, l.err
}

// pageSize bounds what one watcher keeps alive beyond the log's own bounds.
const pageSize = 64

// after returns some of the commits after from, the revision up to which that
// is everything, and a channel that is closed when there is more.
func (l *Log) after(from storage.Revision) ([]storage.Commit, storage.Revision, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, 0, nil, l.err
	}
	if from < l.before {
		return nil, 0, nil, storage.ErrHistoryGone
	}
	i := sort.Search(len(l.commits), func(i int) bool { return l.commits[i].Revision > from })
	rest := l.commits[i:]
	if len(rest) <= pageSize {
		return append([]storage.Commit(nil), rest...), l.last, l.changed, nil
	}
	page := append([]storage.Commit(nil), rest[:pageSize]...)
	return page, page[pageSize-1].Revision, closed, nil
}

var closed = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

// below returns the changes, which are in key order, whose keys start with prefix.
func below(changes []storage.Change, prefix string) []storage.Change {
	from := sort.Search(len(changes), func(i int) bool { return changes[i].Key >= prefix })
	to := from
	for to < len(changes) && strings.HasPrefix(changes[to].Key, prefix) {
		to++
	}
	return changes[from:to]
}
