package quota

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// With several nodes, a quota that counts callers apart is counted by each node for
// itself: a caller that asks n nodes at once may have n times the rate. A quota that
// counts all callers together is divided by demand: each node tells the others, every
// ShareEvery, how many requests it saw, and takes the part of the rate that its part of
// them is. While demand stays where it is the nodes let through the rate, and no more;
// for up to two such periods after it moved they may let through up to n times the rate.
// A node whose demand is new begins with an n-th.

// ShareEvery is how often nodes tell each other their demand.
const ShareEvery = 2 * time.Second

const demandRows = "core/quota-demand/" // + node

// demand is a row: what a node saw of each quota that counts all callers together, in
// the last period.
type demand struct {
	Time time.Time          `json:"time"`
	Seen map[string]float64 `json:"seen"`
}

// Share tells other nodes this node's demand, and takes theirs, until ctx ends. live
// returns how many nodes there are.
func (s *Store) Share(ctx context.Context, node string, live func() int) error {
	last := map[string]uint64{}
	seen := map[string]float64{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(ShareEvery):
		}
		shared := s.together()
		if len(shared) == 0 || live() < 2 {
			s.share.Store(nil)
			continue
		}
		for k, l := range shared {
			asked := l.asked.Load()
			seen[k] = (seen[k] + float64(asked-min(last[k], asked))) / 2 // smooths a period over the ones before
			last[k] = asked
		}
		maps.DeleteFunc(seen, func(k string, _ float64) bool { return shared[k] == nil })
		if err := s.exchange(ctx, node, live(), seen); err != nil && ctx.Err() == nil {
			return fmt.Errorf("share quotas with other nodes: %w", err)
		}
	}
}

// together returns the quotas that count all callers together.
func (s *Store) together() map[string]*limit {
	out := map[string]*limit{}
	for k, l := range s.current.Load().limits {
		if l.GroupBy == Together && l.Kind != LeaseCount {
			out[k] = l
		}
	}
	return out
}

// exchange writes this node's demand, reads the others', and works out this node's
// part of each quota.
func (s *Store) exchange(ctx context.Context, node string, nodes int, seen map[string]float64) error {
	now := s.now().UTC()
	if _, err := s.barrier.Update(ctx, func(t storage.Txn) error {
		return storage.Save(t, demandRows+node, demand{now, seen})
	}); err != nil {
		return err
	}
	total := maps.Clone(seen)
	if err := s.barrier.View(ctx, func(r storage.Reader) error {
		return storage.All(r, demandRows, func(e storage.Entry) error {
			d, err := storage.Decode[demand](e.Key, e.Value, nil)
			if err != nil || strings.TrimPrefix(e.Key, demandRows) == node || now.Sub(d.Time).Abs() > 3*ShareEvery {
				return err
			}
			for k, n := range d.Seen {
				total[k] += n
			}
			return nil
		})
	}); err != nil {
		return err
	}
	part := map[string]float64{}
	for _, k := range slices.Sorted(maps.Keys(seen)) {
		if part[k] = 1 / float64(nodes); total[k] > 0 && seen[k] > 0 {
			part[k] = seen[k] / total[k]
		}
	}
	s.share.Store(&part)
	return nil
}

// shareOf is this node's part of a quota.
func (s *Store) shareOf(l *limit) float64 {
	if l.GroupBy != Together {
		return 1
	}
	parts := s.share.Load()
	if parts == nil {
		return 1
	}
	if p, ok := (*parts)[key(l.Kind, l.Name)]; ok {
		return p
	}
	return 1
}
