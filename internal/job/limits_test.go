package job_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func nothing(context.Context, *job.Claim, []job.Job) error { return nil }

// workers returns workers that are not running, with one kind of job.
func workers(t testing.TB, o job.Options, kind job.Kind) (*job.Workers, *job.Queue) {
	t.Helper()
	if o.Node == "" {
		o.Node = "a"
	}
	if kind.Name == "" {
		kind.Name = "test"
	}
	w, err := job.New(o)
	if err != nil {
		t.Fatal(err)
	}
	q, err := w.Add(kind)
	if err != nil {
		t.Fatal(err)
	}
	return w, q
}

func update(t testing.TB, e storage.Engine, fn func(storage.Txn) error) {
	t.Helper()
	if _, err := e.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// rows returns how many rows are below a prefix.
func rows(t testing.TB, e storage.Engine, prefix string) (n int) {
	t.Helper()
	err := e.View(context.Background(), func(r storage.Reader) error {
		return storage.All(r, prefix, func(storage.Entry) error { n++; return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLimits(t *testing.T) {
	e := memory.New()
	_, q := workers(t, job.Options{Engine: e}, job.Kind{Name: strings.Repeat("k", 64), Run: nothing})
	ok := time.Now()
	for name, c := range map[string]struct {
		id   string
		due  time.Time
		fine bool
	}{
		"longest id":           {strings.Repeat("x", job.MaxID), ok, true},
		"longer id":            {strings.Repeat("x", job.MaxID+1), ok, false},
		"no id":                {"", ok, false},
		"NUL":                  {"a\x00b", ok, false},
		"slashes":              {"/a//b/", ok, true},
		"any bytes":            {"\xff\x01 ", ok, true},
		"first time":           {"a", job.MinDue, true},
		"before the first":     {"a", job.MinDue.Add(-1), false},
		"last time":            {"a", job.MaxDue, true},
		"after the last":       {"a", job.MaxDue.Add(1), false},
		"no time":              {"a", time.Time{}, false},
		"another zone's clock": {"a", ok.In(time.FixedZone("", 3600)), true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.Update(t.Context(), func(x storage.Txn) error { return q.Schedule(x, c.id, c.due) })
			if c.fine != (err == nil) || err != nil && !errors.Is(err, job.ErrLimit) {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			var due time.Time
			var found bool
			err = e.View(t.Context(), func(r storage.Reader) (err error) { due, found, err = q.Due(r, c.id); return err })
			if err != nil || !found || !due.Equal(c.due) {
				t.Errorf("due %v %v %v", due, found, err)
			}
			update(t, e, func(x storage.Txn) error { return q.Cancel(x, c.id) })
			update(t, e, func(x storage.Txn) error { return q.Cancel(x, c.id) })
			if n := rows(t, e, job.Prefix); n != 0 {
				t.Errorf("%d rows are left", n)
			}
		})
	}
	for _, id := range []string{"", strings.Repeat("x", job.MaxID+1)} {
		if _, err := e.Update(t.Context(), func(x storage.Txn) error { return q.Cancel(x, id) }); !errors.Is(err, job.ErrLimit) {
			t.Error(err)
		}
	}
}

func TestKindsThatAreNone(t *testing.T) {
	w, _ := workers(t, job.Options{Engine: memory.New()}, job.Kind{Run: nothing})
	for name, kind := range map[string]job.Kind{
		"no name": {Run: nothing}, "slash": {Name: "a/b", Run: nothing}, "upper case": {Name: "A", Run: nothing},
		"long name": {Name: strings.Repeat("k", 65), Run: nothing}, "no Run": {Name: "a"},
		"large batch": {Name: "a", Run: nothing, Batch: job.MaxBatch + 1}, "negative batch": {Name: "a", Run: nothing, Batch: -1},
		"twice": {Name: "test", Run: nothing},
	} {
		if _, err := w.Add(kind); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	for _, node := range []string{"", "a/b", "\x00", strings.Repeat("n", 129)} {
		if _, err := job.New(job.Options{Engine: memory.New(), Node: node}); !errors.Is(err, job.ErrLimit) {
			t.Errorf("node %q: %v", node, err)
		}
	}
}

// TestCost counts the keys of what callers add to their transactions.
func TestCost(t *testing.T) {
	e := memory.New()
	_, q := workers(t, job.Options{Engine: e}, job.Kind{Run: nothing})
	fits := func(n int) error {
		_, err := e.Update(t.Context(), func(x storage.Txn) error {
			for i := range n {
				if err := q.Schedule(x, fmt.Sprintf("%d-%d", n, i), time.Now()); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	}
	if err := fits(storage.MaxUpdateKeys / 2); err != nil {
		t.Errorf("a new job takes more than two rows: %v", err)
	}
	if err := fits(storage.MaxUpdateKeys/2 + 1); !errors.Is(err, storage.ErrTooLarge) {
		t.Errorf("a new job takes less than two rows: %v", err)
	}
}

// TestBatchOfFailed has a full batch of jobs that failed before put off again
// in one transaction: the most keys that there can be.
func TestBatchOfFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New()
		fails := func(context.Context, *job.Claim, []job.Job) error { return errors.New("not yet") }
		var full atomic.Int64
		succeeds := func(ctx context.Context, c *job.Claim, jobs []job.Job) error {
			if len(jobs) == job.MaxBatch {
				full.Add(1)
			}
			_, err := c.Update(ctx, func(x *job.Txn) error {
				for _, j := range jobs {
					if err := x.Again(j, j.Due.Add(time.Hour)); err != nil {
						return err
					}
				}
				return nil
			})
			return err
		}
		run := func(w *job.Workers) (stop func()) {
			ctx, end := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { _ = w.Run(ctx); close(ended) }()
			return func() { end(); <-ended }
		}
		w, q := workers(t, job.Options{Engine: e}, job.Kind{Batch: job.MaxBatch, Run: fails})
		ids := 800 // more than a batch in each shard
		for i := range ids {
			update(t, e, func(x storage.Txn) error { return q.Schedule(x, fmt.Sprint(i), time.Now()) })
		}
		stop := run(w)
		time.Sleep(500 * time.Millisecond)
		stop()
		failing, err := q.Failing(t.Context(), "", 1000)
		if err != nil || len(failing) != ids {
			t.Errorf("%d are failing: %v", len(failing), err)
		}
		after, err := q.Failing(t.Context(), failing[9].ID, 5)
		if err != nil || len(after) != 5 || after[0].ID != failing[10].ID {
			t.Errorf("after %s: %+v, %v", failing[9].ID, after, err)
		}
		// They all are due again when the second wait has ended.
		time.Sleep(10 * time.Second)
		w, q = workers(t, job.Options{Engine: e}, job.Kind{Batch: job.MaxBatch, Run: succeeds})
		stop = run(w)
		time.Sleep(10 * time.Second)
		if s := q.Stats(); s.Ran != uint64(ids) || s.Failed != 0 || full.Load() < job.Shards {
			t.Errorf("%+v, %d full batches", s, full.Load())
		}
		if n := rows(t, e, job.Prefix+"kind/test/failed/"); n != 0 {
			t.Errorf("%d jobs still count as failing", n)
		}
		if n := rows(t, e, job.Prefix+"kind/test/due/"); n != ids {
			t.Errorf("%d of %d jobs are due again", n, ids)
		}
		stop()
	})
}
