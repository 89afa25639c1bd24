package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/history"
)

const (
	// askEvery is how often head is asked for.
	askEvery = 100 * time.Millisecond
	// mostBehind is how long the watch may take to tell what head has been found
	// to be. Beyond it the watch is begun anew.
	mostBehind = time.Second
)

// feed reads the commits of all nodes once, for all Watches of this one.
type feed struct {
	*history.Feed
	e     *Engine
	began atomic.Int64 // CreateRevision of head: the store's first

	mu      sync.Mutex
	whole   int64                      // revision of etcd up to which everything has come
	asked   []sighting                 // of head, that the watch has not got to yet
	partial map[int64][]storage.Change // commits whose head has not come yet
}

// sighting is what a read of head found, and when it was sent.
type sighting struct {
	at       time.Time
	head     int64
	revision int64 // of etcd
}

func newFeed(e *Engine, at *snapshot) *feed {
	f := &feed{e: e, whole: at.revision, partial: map[int64][]storage.Change{}}
	f.began.Store(at.began)
	f.Feed = history.NewFeed(storage.Revision(at.head), e.o.RequestTimeout, func(ctx context.Context) (head storage.Revision, err error) {
		err = e.View(ctx, func(r storage.Reader) error { head = r.Revision(); return nil })
		return head, err
	})
	return f
}

// run follows etcd until the engine is closed.
func (f *feed) run() {
	const longest = 500 * time.Millisecond
	wait := 10 * time.Millisecond
	for f.e.stopped() == nil {
		began := time.Now()
		err := f.follow()
		if f.e.stopped() != nil {
			return
		}
		if time.Since(began) > longest {
			wait = 10 * time.Millisecond
			f.e.log.Warn("the change feed of etcd broke off; it begins again where it was", "error", err)
		}
		pause(f.e.ctx, wait)
		wait = min(2*wait, longest)
	}
}

// errBehind says that the watch has not told what etcd has.
var errBehind = fmt.Errorf("the watch is more than %v behind", mostBehind)

// follow watches until the watch breaks off.
func (f *feed) follow() error {
	ctx, cancel := context.WithCancel(f.e.ctx)
	asking := make(chan error, 1)
	busy := false
	defer func() {
		cancel()
		if busy { // it must not meet the next watch
			<-asking
		}
	}()
	from := f.begin()
	events := f.e.client.Watch(clientv3.WithRequireLeader(ctx), f.e.o.Path, clientv3.WithPrefix(), clientv3.WithRev(from+1))
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case resp, open := <-events:
			if !open {
				return fmt.Errorf("%w: the watch ended", storage.ErrUnavailable)
			}
			if resp.CompactRevision > 0 {
				return f.restart(ctx)
			}
			if err := resp.Err(); err != nil {
				return err
			}
			f.take(resp)
		case <-tick.C:
			if f.behind() {
				return errBehind
			}
			if !busy {
				busy = true
				f.e.tasks.Go(func() { asking <- f.ask(ctx) })
			}
		case err := <-asking:
			busy = false
			if err != nil && !errors.Is(err, storage.ErrUnavailable) {
				return err
			}
		}
	}
}

// watch implements Engine.Watch.
func (f *feed) watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	began := storage.Revision(f.began.Load())
	if from > 0 && from < began { // of a store that was there before this one
		return fmt.Errorf("%w: the store began at revision %d", storage.ErrHistoryGone, began)
	}
	_, err := f.Watch(ctx, prefix, max(from, began), fn)
	return err
}

// begin forgets what was under way and returns up to where everything has come.
func (f *feed) begin() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = nil
	clear(f.partial)
	return f.whole
}

// take appends the commits of a watch's answer.
func (f *feed) take(resp clientv3.WatchResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ev := range resp.Events {
		rev := ev.Kv.ModRevision
		key := string(ev.Kv.Key)
		if key == f.e.head {
			c := storage.Commit{Revision: storage.Revision(rev), Changes: f.partial[rev]}
			f.e.recent.Told(c)
			f.Append(c)
			delete(f.partial, rev)
			f.whole = rev
			continue
		}
		key, ours := strings.CutPrefix(key, f.e.data)
		if !ours {
			continue
		}
		c := storage.Change{Key: key, Deleted: ev.Type == clientv3.EventTypeDelete}
		if !c.Deleted {
			c.Value = notNil(ev.Kv.Value)
		}
		f.partial[rev] = append(f.partial[rev], c)
	}
	f.settle()
}

// ask reads head and notes what was found.
func (f *feed) ask(ctx context.Context) error {
	s, began := sighting{at: time.Now()}, int64(0)
	err := f.e.read(ctx, func(ctx context.Context) error {
		resp, err := f.e.client.Get(ctx, f.e.head)
		if err == nil && len(resp.Kvs) > 0 {
			began, s.head, s.revision = resp.Kvs[0].CreateRevision, resp.Kvs[0].ModRevision, resp.Header.Revision
		}
		return err
	})
	if err != nil {
		return f.e.explain(err)
	}
	if s.head == 0 {
		return f.e.errGone()
	}
	if began != f.began.Load() { // another store has taken its place
		return f.restart(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, s)
	f.settle()
	return nil
}

// settle tells of sightings that the watch has got to.
func (f *feed) settle() {
	n := 0
	for n < len(f.asked) && storage.Revision(f.asked[n].head) <= f.Last() {
		f.Heard(f.asked[n].at)
		if len(f.partial) == 0 {
			f.whole = max(f.whole, f.asked[n].revision)
		}
		n++
	}
	f.asked = f.asked[n:]
}

// behind says whether the watch has left a sighting without an answer for long.
func (f *feed) behind() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked) > 0 && time.Since(f.asked[0].at) > mostBehind
}

// restart begins a new history: what came after the old cannot be read any more.
func (f *feed) restart(ctx context.Context) error {
	s := f.e.snapshot(ctx)
	defer s.cancel()
	head, err := s.At()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole = s.revision
	f.began.Store(s.began)
	f.Restart(head)
	f.e.recent.Forget()
	return fmt.Errorf("%w: changes were compacted or replaced before they were read, so that caches start again", storage.ErrHistoryGone)
}
