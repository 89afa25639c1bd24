package job

import (
	"sync/atomic"
	"time"
)

type counters struct{ ran, failed, taken, lost atomic.Uint64 }

// Stats are the figures of one kind of job on this node.
type Stats struct {
	Kind   string
	Claims int           // shards that this node holds now
	Due    int           // jobs that its workers found due when they last looked, at most a batch for each shard
	Lag    time.Duration // how long the first of those has been due
	Ran    uint64        // jobs finished since the node joined
	Failed uint64        // tries that failed since then
	Taken  uint64        // shards claimed since then
	Lost   uint64        // of them, those that passed to another node without being given back
}

// Stats returns the figures.
func (q *Queue) Stats() Stats {
	s := Stats{
		Kind: q.kind.Name, Ran: q.stats.ran.Load(), Failed: q.stats.failed.Load(),
		Taken: q.stats.taken.Load(), Lost: q.stats.lost.Load(),
	}
	now, _ := q.w.now()
	q.mu.Lock()
	defer q.mu.Unlock()
	s.Claims = len(q.held)
	for _, c := range q.held {
		l := c.seen.Load()
		if l == nil || l.due == 0 {
			continue
		}
		s.Due += l.due
		s.Lag = max(s.Lag, now.Sub(l.oldest))
	}
	return s
}
