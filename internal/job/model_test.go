package job_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/job/jobtest"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// move is something that happens to jobs or nodes.
type move struct {
	What string
	ID   string
	Wait time.Duration // before the move
	In   time.Duration // a job is due in, or a node is away for, that long
	Node int
}

var moves = rapid.Custom(func(t *rapid.T) move {
	return move{
		What: rapid.SampledFrom([]string{"schedule", "schedule", "schedule", "cancel", "cut"}).Draw(t, "what"),
		ID:   rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "id"),
		Wait: time.Duration(rapid.IntRange(0, 40).Draw(t, "wait")) * 100 * time.Millisecond,
		In:   time.Duration(rapid.IntRange(-5, 60).Draw(t, "in")) * 250 * time.Millisecond,
		Node: rapid.IntRange(0, 1).Draw(t, "node"),
	}
})

// event is a commit that concerns a job.
type event struct {
	at   storage.Revision
	what string // schedule, cancel or done
	id   string
	due  time.Time
	late time.Duration // of what was done
	job  job.Job
}

// history is what happened, in any order.
type history struct {
	mu     sync.Mutex
	events []event
	runs   int
}

func (h *history) add(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// run does a job slowly, and fails it now and then.
func (h *history) run(ctx context.Context, c *job.Claim, jobs []job.Job) error {
	h.mu.Lock()
	h.runs++
	n := h.runs
	h.mu.Unlock()
	time.Sleep(time.Duration(n%4) * 300 * time.Millisecond)
	if n%5 == 0 {
		return errors.New("this time it fails")
	}
	rev, err := c.Update(ctx, func(t *job.Txn) error {
		for _, j := range jobs {
			if err := t.Put("effect/"+j.ID, []byte(fmt.Sprint(n))); err != nil {
				return err
			}
			if err := t.Done(j); err != nil {
				return err
			}
		}
		return nil
	})
	for _, j := range jobs {
		if err == nil {
			h.add(event{at: rev, what: "done", id: j.ID, due: j.Due, job: j, late: time.Since(j.Due)})
		}
	}
	return err
}

// check replays the commits in their order: a job is done only while it is
// scheduled, for that time, and nothing that is due is left at the end.
func (h *history) check() error {
	slices.SortStableFunc(h.events, func(a, b event) int { return int(a.at) - int(b.at) })
	due := map[string]time.Time{}
	for _, e := range h.events {
		was, scheduled := due[e.id]
		switch e.what {
		case "schedule":
			due[e.id] = e.due
		case "cancel":
			delete(due, e.id)
		case "done":
			switch {
			case !scheduled:
				return fmt.Errorf("%s was done at %d, when it was not scheduled", e.id, e.at)
			case e.job.Tries == 0 && !e.due.Equal(was):
				return fmt.Errorf("%s was done at %d for %v, when it was scheduled for %v", e.id, e.at, e.due, was)
			case e.late < 0 || e.due.Before(was):
				return fmt.Errorf("%s was done %v early", e.id, -e.late)
			}
			delete(due, e.id)
		}
	}
	for id, at := range due {
		return fmt.Errorf("%s, due at %v, was never done", id, at)
	}
	return nil
}

// TestAnyHistoryIsLegal schedules, reschedules and cancels jobs while two nodes
// do them, fail at them and are cut off.
func TestAnyHistoryIsLegal(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := rapid.SliceOfN(moves, 1, 30).Draw(rt, "moves")
		var err error
		synctest.Test(t, func(t *testing.T) { err = play(t, all) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func play(t *testing.T, all []move) error {
	store := memory.New()
	e := jobtest.Optimistic(store)
	h := &history{}
	var queues []*job.Queue
	var engines []*storagetest.Away
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := range 2 {
		engines = append(engines, storagetest.NewAway(jobtest.Optimistic(store)))
		w, q := workers(t, job.Options{Engine: engines[i], Node: fmt.Sprint("node-", i)}, job.Kind{Batch: 2, Run: h.run})
		queues = append(queues, q)
		running.Go(func() { _ = w.Run(ctx) })
	}
	for _, m := range all {
		time.Sleep(m.Wait)
		ev := event{what: m.What, id: m.ID, due: time.Now().Add(m.In)}
		var err error
		switch m.What {
		case "schedule":
			ev.at, err = e.Update(ctx, func(x storage.Txn) error {
				// A row of its own, so that the commit has a revision of its own.
				return errors.Join(queues[0].Schedule(x, m.ID, ev.due), x.Put("asked", nil))
			})
			h.add(ev)
		case "cancel":
			ev.at, err = e.Update(ctx, func(x storage.Txn) error {
				return errors.Join(queues[1].Cancel(x, m.ID), x.Put("asked", nil))
			})
			h.add(ev)
		case "cut":
			engines[m.Node].Set(true)
			running.Go(func() { time.Sleep(m.In); engines[m.Node].Set(false) })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2 * time.Minute)
	stop()
	running.Wait()
	return h.check()
}
