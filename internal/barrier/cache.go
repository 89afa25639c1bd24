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

	"github.com/cofferhq/coffer/internal/storage"
)

// absentFor is how long at most a Cache remembers that a key is not there.
const absentFor = time.Second

// Cache keeps decoded values of the rows under a prefix in memory, current to
// within CacheBound. What this node writes through the barrier is visible in
// it when Update returns.
//
// It answers from memory only while the barrier's Follow knows from its watch
// that it was right less than CacheBound ago; otherwise every Get reads through.
// A cache serves one session of the barrier: after Shut it only reads through.
// Values are shared by all callers, which must not change them.
type Cache[T any] struct {
	// Keeps reports whether a value is worth its memory; nil keeps all. Set it
	// before the first Get.
	Keeps func(T) bool

	b      *Barrier
	prefix string
	decode func(key string, value []byte) (T, error)

	seed   maphash.Seed
	shards []shard[T]
	limit  int         // entries of one shard
	ended  atomic.Bool // its session is over
}

// shard is a part of a cache under one lock.
type shard[T any] struct {
	mu           sync.RWMutex
	entries      map[string]T
	absent       map[string]int64 // nanoseconds after the pulse's epoch until which it holds
	floor        storage.Revision // newest commit that touched the shard; older snapshots are not kept
	hits, misses atomic.Uint64
	_            [40]byte // keeps the counters of two shards off one cache line
}

// NewCache returns a cache of the rows of b under prefix that holds up to
// maxEntries values; decode makes one from a row and must not keep its slice.
// Nothing is cached until Follow runs.
func NewCache[T any](b *Barrier, prefix string, maxEntries int, decode func(key string, value []byte) (T, error)) *Cache[T] {
	n := 1
	for n < 64 && n*16 < maxEntries {
		n *= 2
	}
	c := &Cache[T]{
		b: b, prefix: prefix, decode: decode,
		seed: maphash.MakeSeed(), shards: make([]shard[T], n), limit: max(1, maxEntries/n),
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

// Get returns the decoded value of a full storage key, storage.ErrNotFound, or
// the error of the engine or of decode. Errors other than ErrNotFound are not
// cached.
func (c *Cache[T]) Get(ctx context.Context, key string) (T, error) {
	s := c.b.session.Load()
	if s == nil {
		var zero T
		return zero, c.b.away()
	}
	fresh := c.b.pulse.fresh() && !c.ended.Load()
	sh := c.shard(key)
	sh.mu.RLock()
	v, ok := sh.entries[key]
	var absent bool
	if !ok && len(sh.absent) > 0 {
		absent = c.b.pulse.now() < sh.absent[key]
	}
	sh.mu.RUnlock()
	switch {
	case fresh && ok:
		sh.hits.Add(1)
		return v, nil
	case fresh && absent:
		sh.hits.Add(1)
		return v, storage.ErrNotFound
	}
	sh.misses.Add(1)
	if fresh || !ok || c.ended.Load() {
		return c.load(ctx, s, sh, key, fresh)
	}
	return c.stale(ctx, s, sh, key, v)
}

// stale reads key from the store, or answers what was held where ctx allows that
// and the engine is away.
func (c *Cache[T]) stale(ctx context.Context, s *session, sh *shard[T], key string, held T) (T, error) {
	v := held
	err := c.b.stale(ctx, func(ctx context.Context) error {
		read, err := c.load(ctx, s, sh, key, false)
		if err == nil {
			v = read
		}
		return err
	})
	if err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

// load reads key from the store and, if keep is set, keeps what it found.
func (c *Cache[T]) load(ctx context.Context, s *session, sh *shard[T], key string, keep bool) (v T, err error) {
	if !strings.HasPrefix(key, c.prefix) {
		return v, fmt.Errorf("%w: %q is not under %q", storage.ErrInvalidKey, key, c.prefix)
	}
	var raw []byte
	var at storage.Revision
	err = c.b.View(ctx, func(r storage.Reader) (err error) {
		raw, err = r.Get(key)
		at = r.Revision() // after a read it costs no call of the engine
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
	if at < sh.floor || c.b.session.Load() != s || c.ended.Load() {
		return v, err
	}
	if missing {
		if len(sh.absent) >= max(1, c.limit/4) {
			clear(sh.absent)
		}
		sh.absent[strings.Clone(key)] = c.b.pulse.now() + int64(absentFor)
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

// end drops everything, for good: the barrier is shut.
func (c *Cache[T]) end() {
	c.ended.Store(true)
	c.forgetAll(0)
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
