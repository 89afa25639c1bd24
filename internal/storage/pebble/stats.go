package pebble

import (
	"context"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Stats is what the engine has counted since it was opened.
type Stats struct {
	Views, Updates uint64 // calls, failed ones included
	Commits        uint64 // durable
	Syncs          Histogram
	Revision       storage.Revision // newest durable commit
	DiskBytes      uint64
	MemtableBytes  uint64
	CacheBytes     int64
	CacheHits      int64
	CacheMisses    int64
	Compactions    int64
	Full           bool  // commits are refused until there is space
	Failed         error // why the engine answers nothing, or nil
}

// Histogram tells how long the syncs of the write-ahead log took.
type Histogram struct {
	Bounds []float64 // upper bounds in seconds, ascending
	Counts []uint64  // syncs up to each bound, and in one more those above all
	Sum    float64   // seconds
	Count  uint64
}

// Stats returns the counts. It costs some microseconds.
func (e *Engine) Stats() Stats {
	s := Stats{
		Views: e.views.Load(), Updates: e.updates.Load(), Commits: e.commits.Load(),
		Syncs: e.syncs.histogram(), Revision: e.history.Last(),
		Full: e.space.isFull(), Failed: e.failure(),
	}
	if e.begin(context.Background()) != nil {
		return s
	}
	defer e.calls.Done()
	m := e.db.Metrics()
	s.DiskBytes = m.DiskSpaceUsage()
	s.MemtableBytes = m.MemTable.Size
	s.CacheBytes, s.CacheHits, s.CacheMisses = m.BlockCache.Size, m.BlockCache.Hits, m.BlockCache.Misses
	s.Compactions = m.Compact.Count
	return s
}

var syncBounds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

// syncMeter measures syncs.
type syncMeter struct {
	mu     sync.Mutex
	counts []uint64
	sum    float64
	count  uint64
}

func newSyncMeter() *syncMeter { return &syncMeter{counts: make([]uint64, len(syncBounds)+1)} }

func (m *syncMeter) time(sync func() error) error {
	start := time.Now()
	err := sync()
	seconds := time.Since(start).Seconds()
	i := 0
	for i < len(syncBounds) && seconds > syncBounds[i] {
		i++
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[i]++
	m.count++
	m.sum += seconds
	return err
}

func (m *syncMeter) histogram() Histogram {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Histogram{Bounds: syncBounds, Counts: append([]uint64(nil), m.counts...), Sum: m.sum, Count: m.count}
}
