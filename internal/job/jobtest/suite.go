// Package jobtest proves package job on a storage engine: that every job is done
// once, and not before its time, while nodes die, stop and go on, are cut off
// from the engine, or have clocks that are wrong. An engine's own tests call Run.
package jobtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
)

// Options say what is tested.
type Options struct {
	// New makes a new, empty store and returns a function that opens a node's own
	// connection to it; that may be the same engine each time. What it opens it
	// closes when the test ends.
	New func(t testing.TB) func() storage.Engine
	// Beat is the workers' Beat, 200ms for instance. 0 is their default, in a bubble
	// of testing/synctest, for engines that keep within one.
	Beat time.Duration
	// Every is how many of the steps are tried: 1 is each, 10 every tenth. A soak
	// tries more.
	Every int
	// Parallel is how many clusters run at once outside of a bubble; 0 is 8.
	Parallel int
}

// Run runs the suite.
func Run(t *testing.T, o Options) {
	o.Every = max(1, o.Every/soak(1))
	if o.Parallel == 0 {
		o.Parallel = 8
	}
	for name, test := range map[string]func(*testing.T, Options){
		"faults at every step": testFaults,
		"nodes come and go":    testNodesComeAndGo,
		"changed while done":   testChangedWhileDone,
		"a poisoned job":       testPoison,
		"a wrong clock":        testWrongClock,
		"given back":           testGivenBack,
	} {
		t.Run(name, func(t *testing.T) { test(t, o) })
	}
}

// soak returns n, or many times n in a soak.
func soak(n int) int {
	if os.Getenv("COFFER_SOAK") == "1" {
		return 20 * n
	}
	return n
}

// within runs a test in a bubble, or in real time; what it opens is closed after it.
func (o Options) within(t *testing.T, test func(*testing.T)) {
	if o.Beat == 0 {
		synctest.Test(t, test)
		return
	}
	t.Run("cluster", test)
}

// beat is how often the nodes of a test beat.
func (o Options) beat() time.Duration {
	if o.Beat == 0 {
		return 2 * time.Second
	}
	return o.Beat
}

// takeover is how long it takes until a dead node's work is another's.
func (o Options) takeover() time.Duration { return 5 * o.beat() }

// patience is what a bound is wider by in real time, where the machine may have other
// things to do; in a bubble bounds are exact.
func (o Options) patience() time.Duration {
	if o.Beat == 0 {
		return 0
	}
	return 30 * time.Second
}

// cluster is a store and the nodes over it.
type cluster struct {
	t     *testing.T
	o     Options
	open  func() storage.Engine
	store storage.Engine // the test's own connection

	mu    sync.Mutex
	nodes []*node
}

func newCluster(t *testing.T, o Options) *cluster {
	open := o.New(t)
	c := &cluster{t: t, o: o, open: open, store: open()}
	t.Cleanup(c.stopAll)
	return c
}

// node is one node of a cluster.
type node struct {
	*job.Workers
	q    *job.Queue
	down sync.WaitGroup
	end  context.CancelFunc
}

// add starts a node. ahead is how wrong its clock is.
func (c *cluster) add(name string, e storage.Engine, ahead time.Duration, run func(context.Context, *job.Claim, []job.Job) error) *node {
	c.t.Helper()
	w, q, err := c.workers(name, e, ahead, run)
	if err != nil {
		c.t.Fatal(err)
	}
	n := &node{Workers: w, q: q}
	ctx, end := context.WithCancel(context.Background())
	n.end = end
	n.down.Go(func() { _ = w.Run(ctx) })
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	return n
}

func (n *node) stop() { n.end(); n.down.Wait() }

func (c *cluster) stopAll() {
	c.mu.Lock()
	nodes := c.nodes
	c.mu.Unlock()
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(n.stop)
	}
	all.Wait()
}

// effect is the row that shows what a job did. What must not happen stands in it
// too: a run of a transaction that is not the one that counts may see an old claim
// beside a new effect, and only what was committed has happened.
type effect struct {
	Times int       `json:"times"`
	Due   time.Time `json:"due"` // of the last time
	Step  int       `json:"step"`
	Fence uint64    `json:"fence"` // of whoever touched it last
	Claim string    `json:"claim"` // tells that claim from others
	Wrong []string  `json:"wrong,omitempty"`
}

func (e *effect) wrong(format string, args ...any) {
	e.Wrong = append(e.Wrong, fmt.Sprintf(format, args...))
}

// nameOf tells a claim from all others.
func nameOf(c *job.Claim) string { return fmt.Sprintf("%d %p", os.Getpid(), c) }

func effectKey(id string) string { return "effect/" + id }

func getEffect(r storage.Reader, id string) (e effect, err error) {
	row, err := r.Get(effectKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return e, nil
	}
	if err == nil {
		err = json.Unmarshal(row, &e)
	}
	return e, err
}

// count does jobs in three commits: two that note how far it has come, and one
// with the effect, a counter.
func (c *cluster) count(ctx context.Context, claim *job.Claim, jobs []job.Job) error {
	for step := range 3 {
		_, err := claim.Update(ctx, func(t *job.Txn) error {
			for _, j := range jobs {
				if err := c.countOne(t, claim, j, step); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) countOne(t *job.Txn, claim *job.Claim, j job.Job, step int) error {
	e, err := getEffect(t, j.ID)
	if err != nil {
		return err
	}
	if time.Now().Before(j.Due) { // by the true clock
		e.wrong("done %v early", time.Until(j.Due))
	}
	// Two sessions never have one fence, and the smaller one never comes later.
	if e.Fence > claim.Fence() || e.Fence == claim.Fence() && e.Claim != nameOf(claim) {
		e.wrong("touched under fence %d after %d", claim.Fence(), e.Fence)
	}
	e.Fence, e.Claim, e.Step = claim.Fence(), nameOf(claim), step
	if step == 2 {
		e.Times, e.Due = e.Times+1, j.Due
	}
	row, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := t.Put(effectKey(j.ID), row); err != nil || step < 2 {
		return err
	}
	return t.Done(j)
}

// schedule makes jobs due, each with a transaction of the test's own.
func (c *cluster) schedule(q *job.Queue, due time.Time, ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		if _, err := c.store.Update(c.t.Context(), func(t storage.Txn) error { return q.Schedule(t, id, due) }); err != nil {
			c.t.Fatal(err)
		}
	}
}

// effects returns how often each job was done.
func (c *cluster) effects(ids []string) map[string]effect {
	c.t.Helper()
	done := map[string]effect{}
	err := c.store.View(context.Background(), func(r storage.Reader) error {
		for _, id := range ids {
			e, err := getEffect(r, id)
			if err != nil {
				return err
			}
			done[id] = e
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return done
}

// await waits until each job was done.
func (c *cluster) await(bound time.Duration, ids []string) {
	c.t.Helper()
	for end := time.Now().Add(bound); ; time.Sleep(c.o.beat() / 4) {
		missing := 0
		for _, e := range c.effects(ids) {
			if e.Times == 0 {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%d of %d jobs were not done within %v", missing, len(ids), bound)
		}
	}
}

// settles waits until wrong has nothing to say any more.
func (c *cluster) settles(bound time.Duration, wrong func() string) {
	c.t.Helper()
	for end := time.Now().Add(bound + c.o.patience()); ; time.Sleep(c.o.beat() / 8) {
		text := wrong()
		if text == "" {
			return
		}
		if !time.Now().Before(end) {
			c.t.Errorf("after %v: %s", bound, text)
			return
		}
	}
}

// holding waits until nodes hold so many shards, in any order.
func (c *cluster) holding(bound time.Duration, want []int, nodes ...*node) {
	c.t.Helper()
	c.settles(bound, func() string {
		var n []int
		for _, node := range nodes {
			n = append(n, node.q.Stats().Claims)
		}
		slices.Sort(n)
		if slices.Equal(n, want) {
			return ""
		}
		return fmt.Sprintf("%d nodes hold %v shards, want %v", len(nodes), n, want)
	})
}

// once fails the test unless each job was done once, on time.
func (c *cluster) once(ids []string) {
	c.t.Helper()
	for id, e := range c.effects(ids) {
		if e.Times != 1 {
			c.t.Errorf("job %s was done %d times", id, e.Times)
		}
		c.right(id, e)
	}
	// Nothing may be left of them.
	_, q, err := c.workers("nobody", c.store, 0, c.count)
	if err != nil {
		c.t.Fatal(err)
	}
	err = c.store.View(context.Background(), func(r storage.Reader) error {
		for _, id := range ids {
			if due, found, err := q.Due(r, id); err != nil || found {
				c.t.Errorf("job %s is still due at %v: %v", id, due, err)
			}
		}
		return nil
	})
	if err != nil {
		c.t.Error(err)
	}
}

// right fails the test where an effect tells of what must not happen.
func (c *cluster) right(id string, e effect) {
	c.t.Helper()
	for _, wrong := range e.Wrong {
		c.t.Errorf("job %s was %s", id, wrong)
	}
}

func names(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("job-%d", i)
	}
	return ids
}
