package pebble

import (
	"strings"
	"sync"
	"sync/atomic"

	lsm "github.com/cockroachdb/pebble/v2"

	"github.com/cofferhq/coffer/internal/storage"
)

// flight is a commit that readers can see and that is not durable yet.
type flight struct {
	commit storage.Commit
	batch  *lsm.Batch
	done   chan struct{} // closed when the commit is durable, or err is set
	err    error         // why it never became durable
}

// flights are the commits under way to the disk. Pebble shows a commit before
// it is durable, so a commit is added before it is applied and removed once it
// is durable: whoever reads a value and then finds its key here may have read
// what a power cut takes back, and must wait; whoever does not find it need not.
type flights struct {
	count atomic.Int64 // len(newest) > 0; lets readers pass without the lock

	mu     sync.Mutex
	newest map[string]*flight // by key: the last commit that wrote it
	last   *flight            // the last commit, nil when all are durable
}

func (fs *flights) add(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.count.Add(1)
	for _, c := range f.commit.Changes {
		fs.newest[c.Key] = f
	}
	fs.last = f
}

func (fs *flights) remove(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, c := range f.commit.Changes {
		if fs.newest[c.Key] == f {
			delete(fs.newest, c.Key)
		}
	}
	if fs.last == f {
		fs.last = nil
	}
	fs.count.Add(-1)
}

// writing returns the last commit under way that wrote key, or nil.
func (fs *flights) writing(key string) *flight {
	if fs.count.Load() == 0 {
		return nil
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.newest[key]
}

// writingRange returns the last commit under way that wrote a key that starts
// with prefix, is greater than after, and is not greater than through ("" has
// no such bound), or nil.
func (fs *flights) writingRange(prefix, after, through string) *flight {
	if fs.count.Load() == 0 {
		return nil
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var found *flight
	for key, f := range fs.newest {
		if strings.HasPrefix(key, prefix) && key > after && (through == "" || key <= through) {
			found = later(found, f)
		}
	}
	return found
}

// any returns the last commit under way, or nil.
func (fs *flights) any() *flight {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.last
}

// later returns the commit that becomes durable last. Commits become durable
// in their order, so waiting for it is waiting for both.
func later(a, b *flight) *flight {
	if a == nil || b != nil && b.commit.Revision > a.commit.Revision {
		return b
	}
	return a
}

// wait returns when f is durable, or why it never will be. nil is durable.
func (f *flight) wait() error {
	if f == nil {
		return nil
	}
	<-f.done
	return f.err
}

// land waits for the sync of each commit, in order, and then announces it:
// first to watchers, then to those who wait for it. Commits that were applied
// while a sync ran share the next one, so most waits here return at once.
func (e *Engine) land() {
	defer close(e.landed)
	for f := range e.queue {
		err := e.failure()
		if err == nil {
			err = f.batch.SyncWait()
		}
		if err != nil {
			f.err = e.fail("the write-ahead log cannot be synced", err)
			close(f.done)
			continue // stays in flights: what it wrote is never durable
		}
		_ = f.batch.Close() // only returns the batch to its pool
		f.batch = nil
		e.history.Append(f.commit)
		e.flights.remove(f)
		e.commits.Add(1)
		close(f.done)
	}
}
