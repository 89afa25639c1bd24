package job

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Claim is this node's hold on one shard of a kind, for as long as it lasts.
type Claim struct {
	q     *Queue
	shard int
	fence uint64

	lose  context.CancelFunc // ends the work under way
	left  bool               // leave is closed
	leave chan struct{}      // closed to end the work after the jobs under way
	ended chan struct{}      // closed when it has ended
	wake  chan struct{}      // a job may be due before next
	next  atomic.Int64       // when the work looks again, in nanoseconds since 1970
	seen  atomic.Pointer[look]

	mu       sync.Mutex
	finished map[string]bool // ids of the jobs under way that a commit has finished
}

// Fence returns the claim's fencing token: greater than that of any earlier claim
// on the same jobs. Pass it along with an effect outside the store, so that the
// other side can refuse the smaller one of a node that has lost its claim.
func (c *Claim) Fence() uint64 { return c.fence }

// Update is a transaction that commits only while the claim holds. It returns
// ErrClaimLost, and nothing was written, when the claim has passed to another
// node; otherwise it is storage.Engine's Update.
func (c *Claim) Update(ctx context.Context, fn func(*Txn) error) (storage.Revision, error) {
	var t *Txn
	rev, err := c.q.w.Engine.Update(ctx, func(below storage.Txn) error {
		t = &Txn{Txn: below, c: c}
		if err := c.holds(below); err != nil {
			return err
		}
		return fn(t)
	})
	if errors.Is(err, ErrClaimLost) {
		c.lose()
	}
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, id := range t.finished {
			c.finished[id] = true
		}
	}
	return rev, err
}

// holds proves the claim inside a transaction. That the row was read makes the
// transaction fail should the claim pass to another node before the commit.
func (c *Claim) holds(r storage.Reader) error {
	row, err := getClaim(r, c.q.keys.claim(c.shard))
	if err == nil && (row.Session != c.q.w.session || row.Fence != c.fence) {
		return ErrClaimLost
	}
	return err
}

// Txn is a transaction under a claim.
type Txn struct {
	storage.Txn
	c        *Claim
	finished []string
}

// Done says that a job is done; it is forgotten with this commit. ErrChanged
// means that it is not this job any more: the transaction must fail.
func (t *Txn) Done(j Job) error {
	p, err := t.same(j)
	if err != nil {
		return err
	}
	t.finished = append(t.finished, j.ID)
	return t.c.q.keys.remove(t, j.ID, p)
}

// Again says that a job is done and is due again later, its failures forgotten.
// Errors are those of Done, and ErrLimit.
func (t *Txn) Again(j Job, due time.Time) error {
	if _, err := t.same(j); err != nil {
		return err
	}
	t.finished = append(t.finished, j.ID)
	return t.c.q.Schedule(t, j.ID, due)
}

// same proves that a job still is where it was found.
func (t *Txn) same(j Job) (place, error) {
	want := place{j.Due.UnixNano(), j.Tries}
	p, err := t.c.q.keys.find(t, j.ID)
	if err != nil {
		return want, err
	}
	if p == nil || *p != want || slices.Contains(t.finished, j.ID) {
		return want, ErrChanged
	}
	return want, nil
}

// begin forgets what was finished before.
func (c *Claim) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = map[string]bool{}
}

// rest returns which of jobs no commit has finished.
func (c *Claim) rest(jobs []Job) []Job {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(jobs), func(j Job) bool { return c.finished[j.ID] })
}
