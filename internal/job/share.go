package job

import (
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// run claims shards and has their jobs done until ctx ends, and gives them back.
func (q *Queue) run(ctx context.Context) {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan struct{})
	go func() { defer close(watched); q.watch(watching) }()
	defer func() { stop(); <-watched }()
	tick := time.NewTicker(q.w.Beat)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := q.settle(ctx); err != nil && ctx.Err() == nil {
			q.w.trouble(q.kind.Name, err)
		}
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-tick.C:
		}
	}
	q.giveBack(context.WithoutCancel(ctx))
}

// shares is what a snapshot says of the claims of a kind.
type shares struct {
	rows  [Shards]claimRow
	stray []int // shards that this node holds without doing their work: their claiming was uncertain
	free  []int // shards that no living node holds
	quota int   // how many this node should have
}

// read is called by the goroutine of run, which alone changes q.held.
func (q *Queue) read(r storage.Reader) (s shares, err error) {
	living, err := q.w.live(r)
	if err != nil {
		return s, err
	}
	if s.rows, err = q.keys.allClaims(r); err != nil {
		return s, err
	}
	alive := map[string]bool{}
	var ours []string
	for _, n := range living {
		alive[n.Session] = true
		if slices.Contains(n.Kinds, q.kind.Name) {
			ours = append(ours, n.Session)
		}
	}
	for shard, row := range s.rows {
		switch {
		case q.held[shard] != nil:
		case row.Session == q.w.session:
			s.stray = append(s.stray, shard)
		case !alive[row.Session]:
			s.free = append(s.free, shard)
		}
	}
	s.quota = quota(ours, q.w.session, q.kind.Name)
	return s, nil
}

// quota is how many shards of a kind one of several sessions should hold. What
// comes out uneven falls to other nodes for other kinds.
func quota(sessions []string, own, kind string) int {
	at := slices.Index(sessions, own)
	if at < 0 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(kind))
	n := len(sessions)
	share := Shards / n
	if (at+int(h.Sum32()%uint32(n)))%n < Shards%n {
		share++
	}
	return share
}

// settle compares what this node holds with what it should: it drops what it has
// lost, leaves what others lack, and takes what is free.
func (q *Queue) settle(ctx context.Context) error {
	if !q.w.steady() {
		return nil
	}
	var s shares
	err := q.w.Engine.View(ctx, func(r storage.Reader) (err error) {
		s, err = q.read(r)
		return err
	})
	if err != nil {
		return err
	}
	q.drop(s)
	if err := q.release(ctx, q.leaving(s.quota)); err != nil {
		return err
	}
	if len(s.stray) > 0 || len(q.held) < s.quota && len(s.free) > 0 {
		return q.take(ctx)
	}
	return nil
}

// drop ends the work of claims that have passed to others, and forgets those
// whose work has ended.
func (q *Queue) drop(s shares) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for shard, c := range q.held {
		if row := s.rows[shard]; row.Session == q.w.session && row.Fence == c.fence {
			continue
		}
		c.lose()
		if c.over() {
			delete(q.held, shard)
			q.stats.lost.Add(1)
		}
	}
}

// leaving lets go of what is more than the quota, and returns the claims whose
// work has ended.
func (q *Queue) leaving(quota int) (ended []*Claim) {
	staying := 0
	for _, c := range q.held {
		if !c.left {
			staying++
		}
	}
	for _, c := range q.held {
		if !c.left && staying > quota {
			c.left = true
			close(c.leave)
			staying--
		}
		if c.left && c.over() {
			ended = append(ended, c)
		}
	}
	return ended
}

// over reports whether the work has ended.
func (c *Claim) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// release gives claims back whose work has ended.
func (q *Queue) release(ctx context.Context, ended []*Claim) error {
	if len(ended) == 0 {
		return nil
	}
	_, err := q.w.Engine.Update(ctx, func(t storage.Txn) error {
		for _, c := range ended {
			err := c.holds(t)
			if errors.Is(err, ErrClaimLost) {
				continue
			}
			if err != nil {
				return err
			}
			if err := putJSON(t, q.keys.claim(c.shard), claimRow{Fence: c.fence}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range ended {
		delete(q.held, c.shard)
	}
	return nil
}

// take claims free shards, as many as this node lacks, and frees strays that are
// more than that.
func (q *Queue) take(ctx context.Context) error {
	taken := map[int]uint64{} // shard: fence
	_, err := q.w.Engine.Update(ctx, func(t storage.Txn) error {
		clear(taken)
		s, err := q.read(t)
		if err != nil {
			return err
		}
		room := max(0, s.quota-len(q.held))
		for i, shard := range slices.Concat(s.stray, s.free) {
			row := claimRow{Fence: s.rows[shard].Fence + 1}
			switch {
			case i < room:
				row.Node, row.Session, taken[shard] = q.w.Node, q.w.session, row.Fence
			case i >= len(s.stray):
				return nil
			}
			if err := putJSON(t, q.keys.claim(shard), row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for shard, fence := range taken {
		q.begin(ctx, shard, fence)
	}
	return nil
}

// begin starts the work of a shard.
func (q *Queue) begin(ctx context.Context, shard int, fence uint64) {
	ctx, lose := context.WithCancel(ctx)
	c := &Claim{
		q: q, shard: shard, fence: fence, lose: lose,
		leave: make(chan struct{}), ended: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	q.mu.Lock()
	q.held[shard] = c
	q.mu.Unlock()
	q.stats.taken.Add(1)
	go func() {
		defer lose()
		q.work(ctx, c)
		close(c.ended)
		wake(q.wake)
	}()
}

// giveBack ends all work and gives the claims back.
func (q *Queue) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, q.w.Takeover())
	defer cancel()
	var all []*Claim
	for _, c := range q.held {
		c.lose()
		<-c.ended
		all = append(all, c)
	}
	if err := q.release(ctx, all); err != nil {
		q.w.trouble(q.kind.Name, err) // the others take them over as soon as the node's row is gone
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.held)
}

// watch wakes whoever has something to do because of a commit, until ctx ends.
func (q *Queue) watch(ctx context.Context) {
	for ctx.Err() == nil {
		var at storage.Revision
		err := q.w.Engine.View(ctx, func(r storage.Reader) error { at = r.Revision(); return nil })
		if err == nil {
			q.wakeAll()
			err = q.w.Engine.Watch(ctx, q.keys.kind, at, q.changed)
		}
		if errors.Is(err, storage.ErrHistoryGone) {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(q.w.Beat):
		}
	}
}

func (q *Queue) wakeAll() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.held {
		wake(c.wake)
	}
}

func (q *Queue) changed(commit storage.Commit) error {
	for _, ch := range commit.Changes {
		part, rest, _ := strings.Cut(strings.TrimPrefix(ch.Key, q.keys.kind), "/")
		switch {
		case part == "claim":
			wake(q.wake)
		case part == "due" && !ch.Deleted:
			_, at, _ := strings.Cut(rest, "/")
			j, err := parseDue(at, nil)
			if err != nil {
				return err
			}
			q.mu.Lock()
			c := q.held[shardOf(j.ID)]
			q.mu.Unlock()
			if c != nil && j.Due.UnixNano() < c.next.Load() {
				wake(c.wake)
			}
		}
	}
	return nil
}

// wake signals a channel of length one.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
