package jobtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
)

// testFaults lets each fault happen to a node at each of its steps, while it has
// jobs to do and another node is there to do them in its place.
func testFaults(t *testing.T, o Options) {
	for _, fault := range []Fault{Die, Unavailable, Uncertain, Pause, Cut} {
		t.Run(string(fault), func(t *testing.T) {
			hits := map[string]int{}
			var mu sync.Mutex
			room := make(chan struct{}, o.Parallel)
			var all sync.WaitGroup
			one := func(at int) {
				var hit string
				o.within(t, func(t *testing.T) { hit = faultAt(t, o, fault, at) })
				mu.Lock()
				hits[hit]++
				mu.Unlock()
			}
			for at := 1; ; at += o.Every {
				mu.Lock()
				end := hits[""] > 0 || t.Failed()
				mu.Unlock()
				if end {
					break
				}
				if o.Beat == 0 {
					one(at)
					continue
				}
				room <- struct{}{}
				all.Go(func() { defer func() { <-room }(); one(at) })
			}
			all.Wait()
			total := 0
			for hit, n := range hits {
				if hit != "" {
					total += n
				}
			}
			t.Logf("%s: %d times, %v", fault, total, hits)
			if total*o.Every < 100 {
				t.Errorf("only %d steps", total)
			}
		})
	}
}

func faultAt(t *testing.T, o Options, fault Fault, at int) string {
	c := newCluster(t, o)
	defer c.stopAll()
	long := 3 * o.takeover()
	f := newFaulty(c.open(), fault, at, long)
	defer func() {
		if t.Failed() {
			t.Logf("%s at step %d, %s", fault, at, f.happened())
		}
	}()
	first := c.add("first", f, 0, c.count)
	ids := names(8)
	c.schedule(first.q, time.Now(), ids[:4]...)
	c.schedule(first.q, time.Now().Add(o.beat()), ids[4:6]...)
	time.Sleep(o.beat() / 2)
	second := c.add("second", c.open(), 0, c.count)
	time.Sleep(o.beat() * 2)
	c.schedule(second.q, time.Now(), ids[6:]...)
	c.await(long+4*o.takeover()+20*time.Second, ids)
	hit := f.happened()
	if fault == Pause && hit != "" {
		time.Sleep(long) // it wakes up and tries to go on
	}
	c.stopAll()
	c.once(ids)
	return hit
}

// testNodesComeAndGo has jobs done by nodes that join, stop and die.
func testNodesComeAndGo(t *testing.T, o Options) {
	o.within(t, func(t *testing.T) {
		c := newCluster(t, o)
		defer c.stopAll()
		a := c.add("a", c.open(), 0, c.count)
		jobs := 200
		ids := names(jobs)
		span := 8 * o.takeover()
		for i, id := range ids {
			c.schedule(a.q, time.Now().Add(span*time.Duration(i)/time.Duration(jobs)), id)
		}
		c.holding(o.takeover(), []int{job.Shards}, a)
		b, d := c.add("b", c.open(), 0, c.count), newFaulty(c.open(), Die, 0, 0)
		dying := c.add("d", d, 0, c.count)
		c.holding(o.takeover(), []int{5, 5, 6}, a, b, dying)
		d.dead() // as kill -9 does: it gives nothing back
		dying.end()
		c.holding(2*o.takeover(), []int{8, 8}, a, b)
		a.stop()
		c.holding(2*o.beat(), []int{job.Shards}, b)
		c.await(span+o.patience(), ids)
		c.stopAll()
		c.once(ids)
	})
}

// testChangedWhileDone reschedules and cancels jobs while they are done. Each
// scheduling is done at most once, the last one of those that were not cancelled
// exactly once.
func testChangedWhileDone(t *testing.T, o Options) {
	o.within(t, func(t *testing.T) {
		c := newCluster(t, o)
		defer c.stopAll()
		slow := func(ctx context.Context, claim *job.Claim, jobs []job.Job) error {
			time.Sleep(o.beat() / 20)
			return c.count(ctx, claim, jobs)
		}
		a := c.add("a", c.open(), 0, slow)
		c.add("b", c.open(), 0, slow)
		ids := names(10)
		scheduled := map[string]int{}
		for round := range soak(20) {
			for i, id := range ids {
				if (i+round)%7 == 3 {
					if _, err := c.store.Update(t.Context(), func(x storage.Txn) error { return a.q.Cancel(x, id) }); err != nil {
						t.Fatal(err)
					}
					continue
				}
				c.schedule(a.q, time.Now().Add(time.Duration(i%3)*o.beat()/10), id)
				scheduled[id]++
			}
			time.Sleep(time.Duration(round%5) * o.beat() / 20)
		}
		before := c.effects(ids)
		last := time.Now()
		c.schedule(a.q, last, ids...)
		c.settles(o.takeover()+10*time.Second, func() string {
			for id, e := range c.effects(ids) {
				if !e.Due.Equal(last) {
					return id + " was not done since it was last scheduled"
				}
			}
			return ""
		})
		time.Sleep(o.takeover()) // for whoever would do one twice
		for id, e := range c.effects(ids) {
			c.right(id, e)
			if e.Times > scheduled[id]+1 || e.Times < before[id].Times+1 || !e.Due.Equal(last) {
				t.Errorf("%s was scheduled %d times and done %d times, %d of them before the last, which was due %v and not %v",
					id, scheduled[id]+1, e.Times, before[id].Times, last, e.Due)
			}
		}
	})
}

// testPoison has jobs that always fail, one that panics and one that is never
// finished stand before others.
func testPoison(t *testing.T, o Options) {
	o.within(t, func(t *testing.T) {
		c := newCluster(t, o)
		defer c.stopAll()
		bad := map[string]bool{"job-0": true, "job-1": true, "job-2": true}
		var mu sync.Mutex
		tries := map[string]int{}
		run := func(ctx context.Context, claim *job.Claim, jobs []job.Job) error {
			for _, j := range jobs {
				mu.Lock()
				heal := !bad[j.ID]
				if !heal && len(jobs) == 1 {
					tries[j.ID]++
				}
				mu.Unlock()
				switch {
				case heal:
				case j.ID == "job-0":
					return errors.New("the target refused")
				case j.ID == "job-1":
					panic("poison")
				default:
					return nil
				}
			}
			return c.count(ctx, claim, jobs)
		}
		a := c.add("a", c.open(), 0, run)
		ids := names(40)
		c.schedule(a.q, time.Now().Add(-time.Hour), ids[:3]...)
		c.schedule(a.q, time.Now(), ids[3:]...)
		c.await(o.takeover()+5*time.Second+o.patience(), ids[3:])
		c.settles(5*time.Second, func() string {
			failing, err := a.q.Failing(t.Context(), "", 10)
			again := 0
			for _, f := range failing {
				if f.Tries >= 2 {
					again++
				}
			}
			if again == 3 {
				return ""
			}
			return fmt.Sprintf("tried again and failing are %d of %d jobs: %v", again, len(failing), err)
		})
		failing, err := a.q.Failing(t.Context(), "", 10)
		if err != nil || len(failing) != 3 {
			t.Fatalf("failing: %+v, %v", failing, err)
		}
		for i, text := range []string{"the target refused", "panic of type string", "the job was neither done nor put off"} {
			if f := failing[i]; f.ID != ids[i] || f.Error != text || f.Tries < 2 || !f.Next.After(f.At) {
				t.Errorf("%+v", f)
			}
		}
		mu.Lock()
		for id, n := range tries {
			if n < 2 || n > 8 {
				t.Errorf("%s was tried %d times", id, n)
			}
		}
		clear(bad)
		mu.Unlock()
		c.await(time.Minute, ids)
		c.stopAll()
		c.once(ids)
		if failing, err := a.q.Failing(context.Background(), "", 10); err != nil || len(failing) != 0 {
			t.Errorf("failing: %+v, %v", failing, err)
		}
	})
}

// testWrongClock has a node five minutes ahead, and one behind, among others.
func testWrongClock(t *testing.T, o Options) {
	o.within(t, func(t *testing.T) {
		c := newCluster(t, o)
		defer c.stopAll()
		a := c.add("a", c.open(), 0, c.count)
		fast := c.add("fast", c.open(), 5*time.Minute, c.count)
		slow := c.add("slow", c.open(), -5*time.Minute, c.count)
		c.holding(2*o.takeover(), []int{5, 5, 6}, a, fast, slow)
		ids := names(100)
		for i, id := range ids {
			c.schedule(a.q, time.Now().Add(3*o.takeover()*time.Duration(i)/100), id)
		}
		c.await(6*o.takeover()+5*time.Second+o.patience(), ids)
		for _, n := range c.nodes {
			if s := n.q.Stats(); s.Ran < 10 {
				t.Errorf("a node did %d jobs", s.Ran)
			}
		}
		c.stopAll()
		c.once(ids)
	})
}

// testGivenBack stops a node and expects another to go on at once.
func testGivenBack(t *testing.T, o Options) {
	o.within(t, func(t *testing.T) {
		c := newCluster(t, o)
		defer c.stopAll()
		a, b := c.add("a", c.open(), 0, c.count), c.add("b", c.open(), 0, c.count)
		c.holding(2*o.takeover(), []int{8, 8}, a, b)
		a.stop()
		ids := names(50)
		c.schedule(b.q, time.Now(), ids...)
		start := time.Now()
		c.await(o.takeover()+o.patience(), ids)
		if took := time.Since(start); took > 2*o.beat()+time.Second+o.patience() {
			t.Errorf("it took %v", took)
		}
		c.holding(o.takeover(), []int{job.Shards}, b)
		if s := b.q.Stats(); s.Lost != 0 && o.patience() == 0 || s.Ran != 50 || s.Failed != 0 || s.Due != 0 {
			t.Errorf("%+v", s)
		}
		c.stopAll()
		c.once(ids)
		err := c.store.View(context.Background(), func(r storage.Reader) error {
			rows, err := r.Scan(job.Prefix+"node/", "", 5)
			if len(rows) > 0 {
				err = fmt.Errorf("rows of nodes that left: %v", rows)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
