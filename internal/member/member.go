// Package member knows which nodes share a store: each writes a row about itself
// every few seconds, and sees from the others' rows who lives and how far its own
// clock is from theirs. No node is first; nothing is decided here.
//
// It is not for claiming work (package job): a node that seems gone may only be
// slow, and nothing that must not happen twice may rest on that.
package member

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

const (
	// Prefix is in front of the keys of members' rows; the node's name follows.
	Prefix = "core/members/"
	// Beat is how often a node writes its row.
	Beat = 2 * time.Second
	// Gone is after how long without a beat a node no longer counts as live.
	Gone = 5 * Beat
	// forget is after how long the row of a node that is gone is removed.
	forget = 2 * time.Hour
	// MaxSkew is how far a clock may be off before the node says so.
	MaxSkew = 2 * time.Second
)

// Info is what a node says of itself.
type Info struct {
	Node           string    `json:"node"` // its name
	Hostname       string    `json:"hostname"`
	APIAddress     string    `json:"api_address"`
	ClusterAddress string    `json:"cluster_address"`
	Version        string    `json:"version"`
	Knows          int       `json:"knows"`   // the newest format of stores that it knows
	Started        time.Time `json:"started"` // by its clock
}

// row is a member's row.
type row struct {
	Info
	Run   string    `json:"run"`   // tells this process from an earlier one of the same name
	Beats uint64    `json:"beats"` // grows with each write
	Clock time.Time `json:"clock"` // the node's clock when it wrote
}

// Member is a node as this one sees it.
type Member struct {
	Info
	Self bool
	Live bool
	Echo time.Time     // when this node last saw a beat of it, by this node's clock
	Skew time.Duration // how far its clock is ahead of this node's
}

// Options are what a Members needs.
type Options struct {
	Engine storage.Engine
	Self   Info
	Log    *slog.Logger
	Now    func() time.Time // the wall clock; time.Now when nil
}

// Members are the nodes that share the store.
type Members struct {
	Options
	run string

	mu     sync.Mutex
	looked storage.Revision // of the rows that others is made of
	others map[string]*seen
	last   time.Time // of the own beat
	taken  bool      // another process uses this node's name
	warned bool      // of a clock that is off
}

// seen is what this node saw of another.
type seen struct {
	row  row
	at   time.Time     // when its beats last changed; carries the monotonic clock
	skew time.Duration // of its clock at that time
}

// New returns the members of the store, of which it knows none yet.
func New(o Options) *Members {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Members{Options: o, run: rand.Text(), others: map[string]*seen{}}
}

// Join writes this node's row and reads the others'.
func (m *Members) Join(ctx context.Context) error {
	if err := m.beat(ctx, true); err != nil {
		return err
	}
	return m.Look(ctx)
}

// Run writes this node's row again and again until ctx ends, and removes it then.
func (m *Members) Run(ctx context.Context) error {
	ticks := time.NewTicker(Beat)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return m.leave(context.WithoutCancel(ctx))
		case <-ticks.C:
		}
		if err := errors.Join(m.beat(ctx, false), m.Look(ctx), m.sweep(ctx)); err != nil && ctx.Err() == nil {
			m.Log.Warn("the other nodes hear nothing from this one", "error", err)
		}
		m.watchClock()
	}
}

// beat writes this node's row. One that another process of the same name wrote
// is taken over by a node that joins, and left alone by one that beats.
func (m *Members) beat(ctx context.Context, join bool) error {
	taken := false
	_, err := m.Engine.Update(ctx, func(t storage.Txn) error {
		taken = false
		var there row
		text, err := t.Get(Prefix + m.Self.Node)
		switch {
		case err == nil:
			if err := json.Unmarshal(text, &there); err != nil {
				return fmt.Errorf("row %s: %w", Prefix+m.Self.Node, err)
			}
			if there.Run != m.run && !join {
				taken = true
				return nil
			}
		case !errors.Is(err, storage.ErrNotFound):
			return err
		}
		mine := row{Info: m.Self, Run: m.run, Beats: there.Beats + 1, Clock: m.Now()}
		if text, err = json.Marshal(mine); err != nil {
			return err
		}
		return t.Put(Prefix+m.Self.Node, text)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if taken {
		m.Log.Error("another process calls itself by this node's name; give each its own node_id", "node_id", m.Self.Node)
	} else {
		m.last = time.Now()
	}
	m.taken = taken
	return nil
}

// leaving bounds the removal of the own row.
const leaving = 2 * time.Second

func (m *Members) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaving)
	defer cancel()
	_, err := m.Engine.Update(ctx, func(t storage.Txn) error {
		var there row
		text, err := t.Get(Prefix + m.Self.Node)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err == nil {
			err = json.Unmarshal(text, &there)
		}
		if err != nil || there.Run != m.run {
			return err
		}
		return t.Delete(Prefix + m.Self.Node)
	})
	return err
}

// Look reads the rows of all nodes. It is to be called soon after one changed:
// what it learns of clocks is off by as much as it is late.
func (m *Members) Look(ctx context.Context) error {
	var rows []row
	var at storage.Revision
	err := m.Engine.View(ctx, func(r storage.Reader) (err error) {
		rows, err = read(r)
		at = r.Revision()
		return err
	})
	if err != nil {
		return err
	}
	now, clock := time.Now(), m.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if at < m.looked { // another Look saw more meanwhile
		return nil
	}
	m.looked = at
	there := map[string]bool{}
	for _, r := range rows {
		if r.Node == m.Self.Node {
			continue
		}
		there[r.Node] = true
		known := m.others[r.Node]
		if known != nil && known.row.Beats == r.Beats && known.row.Run == r.Run {
			continue
		}
		next := &seen{row: r, at: now, skew: r.Clock.Sub(clock)}
		if known == nil {
			// Its row may be old: whether it lives shows with its next beat. How its
			// clock stands too.
			next.skew = 0
			if old := clock.Sub(r.Clock); old > Gone {
				next.at = now.Add(-min(old, forget))
			}
		}
		m.others[r.Node] = next
	}
	for node := range m.others {
		if !there[node] {
			delete(m.others, node)
		}
	}
	return nil
}

func read(r storage.Reader) ([]row, error) {
	var rows []row
	err := storage.All(r, Prefix, func(e storage.Entry) error {
		var one row
		if err := json.Unmarshal(e.Value, &one); err != nil {
			return fmt.Errorf("row %s: %w", e.Key, err)
		}
		if one.Node != strings.TrimPrefix(e.Key, Prefix) {
			return fmt.Errorf("row %s is of the node %q", e.Key, one.Node)
		}
		rows = append(rows, one)
		return nil
	})
	return rows, err
}

// List returns all nodes that have a row, by name.
func (m *Members) List() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []Member{{Info: m.Self, Self: true, Live: !m.taken, Echo: m.last.Round(0)}}
	for _, o := range m.others {
		all = append(all, Member{Info: o.row.Info, Live: o.live(), Echo: o.at.Round(0), Skew: o.skew})
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.Node, b.Node) })
	return all
}

func (s *seen) live() bool { return time.Since(s.at) < Gone }

// Offset returns how far this node's clock is ahead of the others', negative when
// it is behind: its distance from the middle clock of all live nodes, and of two
// nodes from the one that is behind, so that neither does anything early.
func (m *Members) Offset() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	skews := []time.Duration{0}
	for _, o := range m.others {
		if o.live() {
			skews = append(skews, o.skew)
		}
	}
	slices.Sort(skews)
	return -skews[(len(skews)-1)/2]
}

// watchClock tells the operator once when the clock is off, and when it no longer is.
func (m *Members) watchClock() {
	off := m.Offset()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch wrong := off.Abs() > MaxSkew; {
	case wrong && !m.warned:
		m.Log.Error("this node's clock differs from the others'; set it right, or what is timed comes late", "ahead_by", off.Round(time.Millisecond))
	case !wrong && m.warned:
		m.Log.Info("this node's clock agrees with the others' again")
	}
	m.warned = off.Abs() > MaxSkew
}

// Formats reads, in a transaction, the newest format that each node knows which
// is not known to be gone for long.
func (m *Members) Formats(r storage.Reader) ([]int, error) {
	rows, err := read(r)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []int
	for _, one := range rows {
		if known := m.others[one.Node]; known != nil && known.row.Run == one.Run && time.Since(known.at) > 10*Gone {
			continue
		}
		all = append(all, one.Knows)
	}
	return all, nil
}

// sweep removes the rows of nodes that are gone for that long.
func (m *Members) sweep(ctx context.Context) error {
	m.mu.Lock()
	var old []row
	for _, o := range m.others {
		if time.Since(o.at) >= forget {
			old = append(old, o.row)
		}
	}
	m.mu.Unlock()
	for _, gone := range old {
		_, err := m.Engine.Update(ctx, func(t storage.Txn) error {
			var there row
			text, err := t.Get(Prefix + gone.Node)
			if errors.Is(err, storage.ErrNotFound) {
				return nil
			}
			if err == nil {
				err = json.Unmarshal(text, &there)
			}
			if err != nil || there.Run != gone.Run || there.Beats != gone.Beats {
				return err
			}
			return t.Delete(Prefix + gone.Node)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Live is how many nodes there are now, this one included.
func (m *Members) Live() (n int) {
	for _, o := range m.List() {
		if o.Live {
			n++
		}
	}
	return n
}
