package job

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

const (
	defaultBeat = 2 * time.Second
	takeover    = 5 // beats
	maxNode     = 128
	quiet       = 10 * time.Second // between two complaints about the store
)

var errSuperseded = errors.New("another process works under this node's name")

// Options are what a node's workers need.
type Options struct {
	Engine storage.Engine // the barrier, whole
	Node   string         // the node's name, which no other has
	// Offset returns how far this node's wall clock is ahead of the time that all
	// nodes go by, negative when it is behind. nil: it is not.
	Offset func() time.Duration
	// Wall is the wall clock; nil is the machine's.
	Wall func() time.Time
	// Beat is how often this node says that it lives; 0 is 2 s. It must be the same
	// on all nodes.
	Beat time.Duration
	Log  *slog.Logger
}

// Workers do the jobs of one node. Add the kinds before Run.
type Workers struct {
	Options
	session string // tells this run of the node from every other
	queues  []*Queue
	epoch   time.Time // zero of this node's monotonic clock

	mu         sync.Mutex
	peers      map[string]*peer // the other nodes, by name
	joined     bool
	superseded bool
	lastBeat   time.Duration // when the last beat that reached the store was begun, by mono
	complained time.Duration
	clock      clock
}

// peer is what is known of another node.
type peer struct {
	nodeRow
	since time.Duration // when its row was first seen as it is, by mono
}

// nodeRow is the row of a node that works.
type nodeRow struct {
	Node    string   `json:"node"`
	Session string   `json:"session"`
	Beat    uint64   `json:"beat"` // greater at every writing
	Kinds   []string `json:"kinds"`
}

// New returns workers that have nothing to do yet.
func New(o Options) (*Workers, error) {
	if o.Node == "" || len(o.Node) > maxNode || strings.ContainsAny(o.Node, "/\x00") {
		return nil, fmt.Errorf("%w: a node's name has 1 to %d bytes and no slash", ErrLimit, maxNode)
	}
	if o.Beat <= 0 {
		o.Beat = defaultBeat
	}
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.Offset == nil {
		o.Offset = func() time.Duration { return 0 }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Workers{Options: o, session: rand.Text(), epoch: time.Now(), complained: -quiet, peers: map[string]*peer{}}, nil
}

// Add gives the workers a kind of job. The queue can be scheduled to at once; its
// jobs are done while Run runs.
func (w *Workers) Add(kind Kind) (*Queue, error) {
	if err := kind.check(); err != nil {
		return nil, err
	}
	for _, q := range w.queues {
		if q.kind.Name == kind.Name {
			return nil, fmt.Errorf("%w: kind %q twice", ErrLimit, kind.Name)
		}
	}
	q := &Queue{w: w, kind: kind, keys: newKeys(kind.Name), held: map[int]*Claim{}, wake: make(chan struct{}, 1)}
	w.queues = append(w.queues, q)
	return q, nil
}

// Queues returns the queues of all kinds.
func (w *Workers) Queues() []*Queue { return w.queues }

// Takeover is how long a node may not be heard before others take its work over.
func (w *Workers) Takeover() time.Duration { return takeover * w.Beat }

// mono is a clock that only goes forward, also while the process is stopped. It
// stands while the machine is suspended; then the wall clock is seen to jump.
func (w *Workers) mono() time.Duration { return time.Since(w.epoch) }

// Run does jobs until ctx ends, and gives back then what this node holds. It
// returns nil: what fails is logged and tried again. It is called once.
func (w *Workers) Run(ctx context.Context) error {
	if len(w.queues) == 0 {
		<-ctx.Done()
		return nil
	}
	alive, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var beating, working sync.WaitGroup
	if !w.join(ctx) {
		return nil
	}
	beating.Go(func() { w.keepBeating(alive) })
	for _, q := range w.queues {
		working.Go(func() { q.run(ctx) })
	}
	working.Wait()
	end()
	beating.Wait()
	w.leave(ctx)
	return nil
}

// join makes the node known. It is false when ctx ended first.
func (w *Workers) join(ctx context.Context) bool {
	for ctx.Err() == nil {
		err := w.round(ctx, true)
		if err == nil {
			return true
		}
		w.trouble("", err)
		select {
		case <-ctx.Done():
		case <-time.After(w.Beat):
		}
	}
	return false
}

func (w *Workers) keepBeating(ctx context.Context) {
	tick := time.NewTicker(w.Beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := w.round(ctx, false)
		if errors.Is(err, errSuperseded) {
			w.Log.Error("another process works under this node's name, and this one stops doing timed work; give each its own node_id", "node_id", w.Node)
			return
		}
		if err != nil && ctx.Err() == nil {
			w.trouble("", err)
		}
	}
}

// trouble logs an error, but not every one while the store is away.
func (w *Workers) trouble(kind string, err error) {
	w.mu.Lock()
	now := w.mono()
	silent := away(err) && now-w.complained < quiet
	if !silent {
		w.complained = now
	}
	w.mu.Unlock()
	if !silent {
		w.Log.Warn("timed work met an error and goes on trying", "kind", kind, "error", err)
	}
}

// round beats, and looks who else does.
func (w *Workers) round(ctx context.Context, join bool) error {
	ctx, cancel := context.WithTimeout(ctx, w.Takeover())
	defer cancel()
	if err := w.beat(ctx, join); err != nil {
		return err
	}
	return w.look(ctx)
}

// beat writes this node's row. join allows that it is that of another run.
func (w *Workers) beat(ctx context.Context, join bool) error {
	begun := w.mono()
	kinds := []string{}
	for _, q := range w.queues {
		kinds = append(kinds, q.kind.Name)
	}
	_, err := w.Engine.Update(ctx, func(t storage.Txn) error {
		old, err := getNode(t, w.Node)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if err == nil && old.Session != w.session && !join {
			return errSuperseded
		}
		return putJSON(t, nodePrefix+w.Node, nodeRow{Node: w.Node, Session: w.session, Beat: old.Beat + 1, Kinds: kinds})
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.superseded = w.superseded || errors.Is(err, errSuperseded)
	if err != nil {
		return err
	}
	if w.joined && begun-w.lastBeat >= w.Takeover()/2 {
		// Whatever kept this node from the store may have kept the others too.
		for _, p := range w.peers {
			p.since = w.mono()
		}
	}
	w.joined, w.lastBeat = true, begun
	return nil
}

// steady reports whether this node reached the store so recently that no other
// takes it for dead.
func (w *Workers) steady() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.joined && !w.superseded && w.mono()-w.lastBeat < w.Takeover()/2
}

// look takes in the rows of the other nodes.
func (w *Workers) look(ctx context.Context) error {
	var rows []nodeRow
	err := w.Engine.View(ctx, func(r storage.Reader) (err error) {
		rows, err = nodes(r)
		return err
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	peers := make(map[string]*peer, len(rows))
	for _, row := range rows {
		if row.Node == w.Node {
			continue
		}
		p := w.peers[row.Node]
		if p == nil || p.Session != row.Session || p.Beat < row.Beat {
			p = &peer{row, w.mono()}
		}
		peers[row.Node] = p
	}
	w.peers = peers
	return nil
}

// live returns, by their names, the nodes whose rows r shows and that are not
// known to be dead. In a transaction, that makes it fail against one in which a
// node beats: it is for rare ones.
func (w *Workers) live(r storage.Reader) ([]nodeRow, error) {
	all, err := nodes(r)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var living []nodeRow
	for _, row := range all {
		p := w.peers[row.Node]
		stands := p != nil && p.Session == row.Session && p.Beat == row.Beat && w.mono()-p.since >= w.Takeover()
		if !stands {
			living = append(living, row)
		}
	}
	return living, nil
}

// leave removes this node's row, so that the others need not wait for its death.
func (w *Workers) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.Beat)
	defer cancel()
	_, err := w.Engine.Update(ctx, func(t storage.Txn) error {
		row, err := getNode(t, w.Node)
		if errors.Is(err, storage.ErrNotFound) || err == nil && row.Session != w.session {
			return nil
		}
		if err != nil {
			return err
		}
		return t.Delete(nodePrefix + w.Node)
	})
	w.mu.Lock()
	w.joined = false
	w.mu.Unlock()
	if err != nil {
		w.trouble("", fmt.Errorf("this node could not take leave, and the others wait until they take it for dead: %w", err))
	}
}

func getNode(r storage.Reader, name string) (n nodeRow, err error) {
	row, err := r.Get(nodePrefix + name)
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(row, &n); err != nil {
		return n, fmt.Errorf("row %q: %w", nodePrefix+name, err)
	}
	return n, nil
}

func nodes(r storage.Reader) ([]nodeRow, error) {
	var all []nodeRow
	err := storage.All(r, nodePrefix, func(e storage.Entry) error {
		var n nodeRow
		if err := json.Unmarshal(e.Value, &n); err != nil {
			return fmt.Errorf("row %q: %w", e.Key, err)
		}
		all = append(all, n)
		return nil
	})
	return all, err
}
