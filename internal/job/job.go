// Package job is work that time drives: a kind of job says what is done, a row
// says when it is due, and one node does it, once, whatever happens to nodes,
// connections and clocks meanwhile. Jobs that wait cost two rows on disk each,
// and no memory, timer or goroutine.
//
// # How a job is done once
//
// Jobs are spread over Shards by a hash of their ids. A node claims a shard of a
// kind by a row that names its session and a fence, which grows by one whenever
// the shard changes hands. What a job does to the store it does in Claim.Update,
// a transaction that reads the claim's row first: when the claim has passed to
// another node, or passes before the commit, it fails with ErrClaimLost and
// nothing was done. Txn.Done, in that same transaction, fails with ErrChanged
// when the job was rescheduled, cancelled or done meanwhile. So effect and
// completion are one commit, under a claim that holds at that commit. For effects
// outside the store there is Claim.Fence: whoever is told it can refuse what
// comes with a smaller one. Such an effect can happen twice when a node dies
// between it and Done, so it must be one that can be done again.
//
// # Who holds a claim
//
// Every node writes a row of its own every Beat. A node takes a shard over when
// the row of its holder is gone, belongs to a later session, or has stood still
// for Takeover by the taker's own monotonic clock; nobody's wall clock is asked.
// A node that did not reach the store for half of that begins nothing new. These
// times only keep nodes from getting in each other's way: what is right rests on
// the fence. Shards are shared out evenly among the nodes that know the kind, and
// given back by a node that stops.
//
// # Clocks
//
// Due times are wall-clock times. Workers takes how far this node's clock is
// ahead of the others' (package member) and does not go by its own clock where
// that is more than MaxSkew. After its clock jumps, and when it joins others, a
// node waits for Settle, until that figure is right, before it begins anything.
//
// The package is not a queue for work that is to be done now: doing it is
// cheaper.
package job

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Limits of jobs.
const (
	MaxID  = 1024 // bytes of an id, which holds no NUL
	Shards = 16   // claims of a kind, and so the most nodes that share its work
	// Keys is how many keys Schedule, Cancel, Done and Again write at most.
	Keys = 4
	// MaxBatch is how many jobs are given to Run at once at most: one Update can
	// finish them all.
	MaxBatch = storage.MaxUpdateKeys / Keys
	maxName  = 64
)

// Due times lie between these.
var (
	MinDue = time.Unix(0, 0).UTC()
	MaxDue = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Errors of the package.
var (
	ErrLimit     = errors.New("job is outside of what can be scheduled")
	ErrClaimLost = errors.New("the claim on this work has passed to another node")
	ErrChanged   = errors.New("the job was rescheduled, cancelled or done meanwhile")
)

// Kind is a kind of job.
type Kind struct {
	Name string // of lower-case letters, digits and dashes; it stands in keys
	Doc  string
	// Run does jobs that are due: up to Batch of them, of one shard, the one that
	// has waited longest first. It must end when ctx does. A job is finished by
	// Txn.Done or Txn.Again in a Claim.Update; what Run leaves unfinished has
	// failed, with the error that it returns. When it was given several, those are
	// given to it once more, one by one, and only what fails alone is counted.
	// Errors are kept in the store and shown to operators: they hold no secrets.
	Run func(ctx context.Context, c *Claim, jobs []Job) error
	// Batch is how many jobs Run takes at once; 0 is 1.
	Batch int
	// Timeout bounds one Run; 0 is a minute. Others of its shard wait for it.
	Timeout time.Duration
	// MaxBackoff is how long at most a job that failed waits for its next try; 0
	// is five minutes. It begins with a second and doubles.
	MaxBackoff time.Duration
}

var kindName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

func (k *Kind) check() error {
	switch {
	case !kindName.MatchString(k.Name) || len(k.Name) > maxName:
		return fmt.Errorf("%w: kind %q: a name has 1 to %d lower-case letters, digits and dashes", ErrLimit, k.Name, maxName)
	case k.Run == nil:
		return fmt.Errorf("kind %q has no Run", k.Name)
	case k.Batch < 0 || k.Batch > MaxBatch:
		return fmt.Errorf("%w: kind %q: a batch of %d, more than %d", ErrLimit, k.Name, k.Batch, MaxBatch)
	}
	if k.Batch == 0 {
		k.Batch = 1
	}
	if k.Timeout <= 0 {
		k.Timeout = time.Minute
	}
	if k.MaxBackoff <= 0 {
		k.MaxBackoff = 5 * time.Minute
	}
	return nil
}

// Job is a job that is due.
type Job struct {
	ID    string
	Due   time.Time // when it was to be done
	Tries int       // how often it failed
}

// Queue is the jobs of one kind in a store. Its methods may be called
// concurrently.
type Queue struct {
	w    *Workers
	kind Kind
	keys keys

	mu    sync.Mutex
	held  map[int]*Claim // by shard
	wake  chan struct{}  // tells settle to look
	stats counters
}

// Schedule makes a job due at a time, in the caller's transaction. It takes the
// place of an earlier time of the same job and forgets its failures.
func (q *Queue) Schedule(t storage.Txn, id string, due time.Time) error {
	if err := checkID(id); err != nil {
		return err
	}
	if due.Before(MinDue) || due.After(MaxDue) {
		return fmt.Errorf("%w: due at %v", ErrLimit, due)
	}
	old, err := q.keys.find(t, id)
	if err != nil {
		return err
	}
	next := place{due: due.UnixNano()}
	if old != nil {
		if *old == next {
			return nil
		}
		if err := q.keys.remove(t, id, *old); err != nil {
			return err
		}
	}
	return q.keys.put(t, id, next)
}

// Cancel forgets a job, in the caller's transaction. One that is not there is no
// error.
func (q *Queue) Cancel(t storage.Txn, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	old, err := q.keys.find(t, id)
	if err != nil || old == nil {
		return err
	}
	return q.keys.remove(t, id, *old)
}

// Due returns when a job is due, and false when there is none. After a failure
// that is the time of the next try.
func (q *Queue) Due(r storage.Reader, id string) (time.Time, bool, error) {
	if err := checkID(id); err != nil {
		return time.Time{}, false, err
	}
	p, err := q.keys.find(r, id)
	if err != nil || p == nil {
		return time.Time{}, false, err
	}
	return p.time(), true, nil
}

func checkID(id string) error {
	if id == "" || len(id) > MaxID || strings.IndexByte(id, 0) >= 0 {
		return fmt.Errorf("%w: an id has 1 to %d bytes and no NUL", ErrLimit, MaxID)
	}
	return nil
}

// place is where a job stands in the index.
type place struct {
	due   int64 // nanoseconds since 1970
	tries int
}

func (p place) time() time.Time { return time.Unix(0, p.due).UTC() }

func (p place) String() string { return dueText(p.due) + " " + strconv.Itoa(p.tries) }
