package audit

import (
	"sync"
	"sync/atomic"
	"time"
)

// latencyBounds are the upper bounds of the latency histograms, in seconds.
var latencyBounds = [...]float64{
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
}

// batchBounds are the upper bounds of the batch size histogram, in entries.
var batchBounds = [...]float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}

// Histogram is a distribution as Prometheus has it.
type Histogram struct {
	Count  uint64
	Sum    float64            // of all observed values
	Counts map[float64]uint64 // observations at or below each bound
}

// Stats is what the log has done since it was opened.
type Stats struct {
	Append   Histogram // seconds from Append to its return, failures included
	Sync     Histogram // seconds of each sync
	Batch    Histogram // entries written together
	Failures uint64    // entries that were refused
	Size     uint64    // entries on disk
	Segment  int       // number of the active segment

	Checkpointed       uint64    // entries covered by the newest checkpoint
	LastCheckpoint     time.Time // when it was made; zero before the first since Open
	CheckpointFailures uint64

	Devices []DeviceStats // by name
}

// histogram counts values under fixed bounds.
type histogram struct {
	mu     sync.Mutex
	counts [len(latencyBounds)]uint64
	count  uint64
	sum    float64
}

func (h *histogram) observe(bounds []float64, v float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	h.sum += v
	for i, bound := range bounds {
		if v <= bound {
			h.counts[i]++
			return
		}
	}
}

func (h *histogram) read(bounds []float64) Histogram {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := Histogram{Count: h.count, Sum: h.sum, Counts: make(map[float64]uint64, len(bounds))}
	var below uint64
	for i, bound := range bounds {
		below += h.counts[i]
		out.Counts[bound] = below
	}
	return out
}

type counters struct {
	appends, syncs, batches      histogram
	failures, checkpointFailures atomic.Uint64
	size, segment                atomic.Uint64
	checkpointSize               atomic.Uint64
	checkpointTime               atomic.Int64 // Unix nanoseconds
}

func (c *counters) appended(took time.Duration, err error) {
	c.appends.observe(latencyBounds[:], took.Seconds())
	if err != nil {
		c.failures.Add(1)
	}
}

func (c *counters) synced(took time.Duration) { c.syncs.observe(latencyBounds[:], took.Seconds()) }
func (c *counters) batch(n int)               { c.batches.observe(batchBounds[:], float64(n)) }

func (c *counters) progress(size uint64, segment int) {
	c.size.Store(size)
	c.segment.Store(uint64(segment))
}

func (c *counters) checkpointed(size uint64) {
	c.checkpointSize.Store(size)
	c.checkpointTime.Store(time.Now().UnixNano())
}

func (c *counters) checkpointFailed() { c.checkpointFailures.Add(1) }

// Stats returns the log's figures for metrics.
func (l *Log) Stats() Stats {
	c := &l.stats
	s := Stats{
		Append:             c.appends.read(latencyBounds[:]),
		Sync:               c.syncs.read(latencyBounds[:]),
		Batch:              c.batches.read(batchBounds[:]),
		Failures:           c.failures.Load(),
		Size:               c.size.Load(),
		Segment:            int(c.segment.Load()),
		Checkpointed:       c.checkpointSize.Load(),
		CheckpointFailures: c.checkpointFailures.Load(),
		Devices:            l.devices.stats(),
	}
	if at := c.checkpointTime.Load(); at != 0 {
		s.LastCheckpoint = time.Unix(0, at)
	}
	return s
}
