package barrier

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

const (
	// CacheBound is how far at most an answer of a Cache is behind the engine.
	CacheBound = time.Second
	// remarkAfter is how old a mark gets before the next is taken.
	remarkAfter = CacheBound / 10
	// absentFor is how long at most a Cache remembers that a key is not there.
	absentFor = time.Second
)

// Cache keeps decoded values of the rows under a prefix in memory, current to
// within CacheBound. What this node writes through the barrier is visible in
// it when Update returns.
//
// It answers from memory only while Run follows the watch and knows from it that
// it was right less than CacheBound ago; otherwise every Get reads through. Values are shared by
// all callers, which must not change them.
type Cache[T any] struct {
	// Keeps reports whether a value is worth its memory; nil keeps all. Set it
	// before the first Get.
	Keeps func(T) bool

	b      *Barrier
	prefix string
	decode func(key string, value []byte) (T, error)

	seed   maphash.Seed
	shards []shard[T]
	limit  int // entries of one shard

	epoch time.Time    // of heard; carries the monotonic clock
	heard atomic.Int64 // nanoseconds after epoch at which the cache was last right, 0 when not following
}

// shard is a part of a cache under one lock.
type shard[T any] struct {
	mu           sync.RWMutex
	entries      map[string]T
	absent       map[string]int64 // nanoseconds after epoch until which it holds
	floor        storage.Revision // newest commit that touched the shard; older snapshots are not kept
	hits, misses atomic.Uint64
	_            [40]byte // keeps the counters of two shards off one cache line
}

// NewCache returns a cache of the rows of b under prefix that holds up to
// maxEntries values; decode makes one from a row and must not keep its slice.
// Nothing is cached until Run follows the watch.
func NewCache[T any](b *Barrier, prefix string, maxEntries int, decode func(key string, value []byte) (T, error)) *Cache[T] {
	n := 1
	for n < 64 && n*16 < maxEntries {
		n *= 2
	}
	c := &Cache[T]{
		b: b, prefix: prefix, decode: decode,
		seed: maphash.MakeSeed(), shards: make([]shard[T], n), limit: max(1, maxEntries/n),
		epoch: time.Now().Add(-time.Nanosecond),
	}
	for i := range c.shards {
		c.shards[i].entries = map[string]T{}
		c.shards[i].absent = map[string]int64{}
	}
	b.cachesMu.Lock()
	b.caches = append(b.caches, c)
	b.cachesMu.Unlock()
	return c
}

func (c *Cache[T]) shard(key string) *shard[T] {
	return &c.shards[maphash.String(c.seed, key)&uint64(len(c.shards)-1)]
}

// now is the time since epoch.
func (c *Cache[T]) now() int64 { return int64(time.Since(c.epoch)) }

// Get returns the decoded value of a full storage key, storage.ErrNotFound, or
// the error of the engine or of decode. Errors other than ErrNotFound are not
// cached.
func (c *Cache[T]) Get(ctx context.Context, key string) (T, error) {
	s := c.b.session.Load()
	if s == nil {
		var zero T
		return zero, c.b.away()
	}
	now, heard := c.now(), c.heard.Load()
	fresh := heard != 0 && now-heard < int64(CacheBound)
	sh := c.shard(key)
	if fresh {
		sh.mu.RLock()
		v, ok := sh.entries[key]
		var absent bool
		if !ok && len(sh.absent) > 0 {
			absent = now < sh.absent[key]
		}
		sh.mu.RUnlock()
		if ok {
			sh.hits.Add(1)
			return v, nil
		}
		if absent {
			sh.hits.Add(1)
			return v, storage.ErrNotFound
		}
	}
	sh.misses.Add(1)
	return c.load(ctx, s, sh, key, fresh)
}

// load reads key from the store and, if keep is set, keeps what it found.
func (c *Cache[T]) load(ctx context.Context, s *session, sh *shard[T], key string, keep bool) (v T, err error) {
	if !strings.HasPrefix(key, c.prefix) {
		return v, fmt.Errorf("%w: %q is not under %q", storage.ErrInvalidKey, key, c.prefix)
	}
	var raw []byte
	var at storage.Revision
	err = c.b.View(ctx, func(r storage.Reader) (err error) {
		at = r.Revision()
		raw, err = r.Get(key)
		return err
	})
	missing := errors.Is(err, storage.ErrNotFound)
	if err == nil {
		v, err = c.decode(key, raw)
	}
	if err != nil && !missing || !keep || err == nil && c.Keeps != nil && !c.Keeps(v) {
		return v, err
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	// A commit newer than the snapshot has touched the shard, or the barrier
	// was shut: what was read may be old news.
	if at < sh.floor || c.b.session.Load() != s {
		return v, err
	}
	if missing {
		if len(sh.absent) >= max(1, c.limit/4) {
			clear(sh.absent)
		}
		sh.absent[strings.Clone(key)] = c.now() + int64(absentFor)
		return v, err
	}
	if _, held := sh.entries[key]; !held && len(sh.entries) >= c.limit {
		for victim := range sh.entries { // any one: iteration starts at random
			delete(sh.entries, victim)
			break
		}
	}
	sh.entries[strings.Clone(key)] = v
	return v, err
}

// forget drops keys that a commit touched. at is its revision, 0 if unknown.
func (c *Cache[T]) forget(keys []string, at storage.Revision) {
	for _, key := range keys {
		if !strings.HasPrefix(key, c.prefix) {
			continue
		}
		sh := c.shard(key)
		sh.mu.Lock()
		sh.floor = max(sh.floor, at)
		delete(sh.entries, key)
		delete(sh.absent, key)
		sh.mu.Unlock()
	}
}

// forgetAll drops everything read from snapshots before at.
func (c *Cache[T]) forgetAll(at storage.Revision) {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.floor = max(sh.floor, at)
		clear(sh.entries)
		clear(sh.absent)
		sh.mu.Unlock()
	}
}

// empty drops everything because the barrier is shut.
func (c *Cache[T]) empty() {
	c.heard.Store(0)
	c.forgetAll(0)
}

// Run follows the watch until ctx ends (nil), the barrier is shut
// (fault.Sealed) or the engine is closed (storage.ErrClosed). Other failures
// are logged and followed by another try; meanwhile the cache reads through.
// Start it again after each opening of the barrier.
func (c *Cache[T]) Run(ctx context.Context) error {
	for {
		s, err := c.b.current()
		if err != nil {
			return err
		}
		err = c.follow(ctx, s)
		c.heard.Store(0)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, storage.ErrHistoryGone):
		case errors.Is(err, storage.ErrClosed), fault.Is(err, fault.Sealed):
			return err
		default:
			c.b.log.Warn("cache lost its watch; reading through and trying again", "prefix", c.prefix, "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-s.ctx.Done():
			case <-time.After(storage.ProgressInterval):
			}
		}
	}
}

// follow empties the cache at the present revision and keeps it from there.
func (c *Cache[T]) follow(ctx context.Context, s *session) error {
	mark, err := c.mark(ctx)
	if err != nil {
		return err
	}
	c.forgetAll(mark.revision)
	keys := make([]string, 0, storage.MaxUpdateKeys)
	return c.b.watch(ctx, s, c.prefix, mark.revision, func(commit storage.Commit) error {
		keys = keys[:0]
		for _, ch := range commit.Changes {
			keys = append(keys, ch.Key)
		}
		c.forget(keys, commit.Revision)
		if commit.Revision < mark.revision {
			return nil
		}
		c.heard.Store(mark.time)
		if s.shut.Load() {
			c.heard.Store(0)
		}
		if c.now()-mark.time < int64(remarkAfter) {
			return nil
		}
		next, err := c.mark(ctx)
		if err == nil {
			mark = next
		}
		return err
	})
}

// mark pairs a time with a revision that no commit acknowledged before that
// time exceeds. When the watch has reported the revision, the cache was right
// at that time, however late the report came.
type mark struct {
	revision storage.Revision
	time     int64 // nanoseconds after epoch
}

func (c *Cache[T]) mark(ctx context.Context) (mark, error) {
	m := mark{time: max(1, c.now())}
	err := c.b.engine.View(ctx, func(r storage.Reader) error {
		m.revision = r.Revision()
		return nil
	})
	return m, err
}

// CacheStats counts what a cache did since it was made.
type CacheStats struct {
	Hits, Misses uint64 // a miss is a Get that read the store
	Entries      int    // values held now
}

// Stats returns the counters.
func (c *Cache[T]) Stats() CacheStats {
	var st CacheStats
	for i := range c.shards {
		sh := &c.shards[i]
		st.Hits += sh.hits.Load()
		st.Misses += sh.misses.Load()
		sh.mu.RLock()
		st.Entries += len(sh.entries)
		sh.mu.RUnlock()
	}
	return st
}
