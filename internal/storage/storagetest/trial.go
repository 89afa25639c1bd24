package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cofferhq/coffer/internal/storage"
)

// Trial runs clients on nodes while something goes wrong, and checks what they
// were told: the history is linearizable, no acknowledged write is lost, none
// that was said not to be written is there, and every watch tells every
// acknowledged commit once, in order.
type Trial struct {
	Nodes   []storage.Engine
	Clients int
	Keys    int
	Pause   time.Duration // between two calls of a client

	mu      sync.Mutex
	history []porcupine.Operation
	acked   map[storage.Revision]string // key=value
	counts  map[string]int
	longest time.Duration // of all calls
}

// Run runs the clients until disturb returns, and a little longer.
func (tr *Trial) Run(t *testing.T, disturb func()) {
	t.Helper()
	tr.acked, tr.counts = map[storage.Revision]string{}, map[string]int{}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var watches sync.WaitGroup
	seen := make([]*witness, len(tr.Nodes))
	for i, node := range tr.Nodes {
		seen[i] = &witness{commits: map[storage.Revision][]storage.Change{}}
		from := Head(t, node)
		watches.Go(func() { seen[i].follow(ctx, t, node, from) })
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	start := time.Now()
	for id := range tr.Clients {
		clients.Go(func() { tr.client(t, id, start, stop) })
	}
	tr.More(t, 20)
	disturb()
	tr.More(t, 20)
	close(stop)
	clients.Wait()
	end := time.Now()
	last := Head(t, tr.Nodes[0])
	for i, w := range seen {
		w.reach(t, last)
		w.check(t, i, tr.acked)
	}
	cancel()
	watches.Wait()
	t.Logf("calls: %d acknowledged writes, %d reads, %d unavailable, %d uncertain; longest %v; %d commits watched on each of %d nodes; ran %v",
		tr.counts["written"], tr.counts["read"], tr.counts["unavailable"], tr.counts["uncertain"],
		tr.longest.Round(time.Millisecond), len(seen[0].commits), len(tr.Nodes), end.Sub(start).Round(time.Millisecond))
	result, _ := porcupine.CheckOperationsVerbose(register, tr.history, 40*time.Second)
	if result != porcupine.Ok {
		t.Errorf("the history of %d calls is not linearizable: %v", len(tr.history), result)
	}
}

// Count is how many calls ended as "written", "read", "kept" (a check-and-set that
// found another value), "unavailable" or "uncertain".
func (tr *Trial) Count(how string) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.counts[how]
}

// Longest is how long the longest call took.
func (tr *Trial) Longest() time.Duration {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.longest
}

// More waits until n more writes have been acknowledged, so that what is done
// next meets enough of them on any machine.
func (tr *Trial) More(t *testing.T, n int) {
	t.Helper()
	from := tr.Count("written")
	Eventually(t, func() error {
		if now := tr.Count("written"); now < from+n {
			return fmt.Errorf("%d writes of %d", now-from, n)
		}
		return nil
	})
}

func (tr *Trial) client(t *testing.T, id int, start time.Time, stop chan struct{}) {
	rng := rand.New(rand.NewPCG(7, uint64(id)))
	known := map[string]string{}
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(tr.Pause):
		}
		in := call{op: []string{"get", "put", "cas"}[rng.IntN(3)], key: fmt.Sprintf("r/%d", rng.IntN(tr.Keys)), value: fmt.Sprintf("%d.%d", id, n)}
		in.old = known[in.key]
		began := time.Since(start)
		out, rev, err := attempt(tr.Nodes[id%len(tr.Nodes)], in)
		ended := time.Since(start)
		if in.op == "get" && err == nil {
			known[in.key] = out.value
		}
		tr.note(t, id, in, out, rev, err, began, ended)
	}
}

func (tr *Trial) note(t *testing.T, id int, in call, out reply, rev storage.Revision, err error, began, ended time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.longest = max(tr.longest, ended-began)
	at := int64(ended)
	switch {
	case err == nil && in.op == "get":
		tr.counts["read"]++
	case err == nil && rev > 0:
		tr.counts["written"]++
		if other, ok := tr.acked[rev]; ok {
			t.Errorf("revision %d was given to %s and to %s", rev, other, in.key+"="+in.value)
		}
		tr.acked[rev] = in.key + "=" + in.value
	case err == nil:
		tr.counts["kept"]++
	case errors.Is(err, storage.ErrUncertain):
		tr.counts["uncertain"]++
		at, out = math.MaxInt64, reply{unknown: true}
	case errors.Is(err, storage.ErrUnavailable):
		tr.counts["unavailable"]++
		return // nothing was written, which later reads hold it to
	default:
		t.Errorf("%s: %v", in.op, err)
		return
	}
	tr.history = append(tr.history, porcupine.Operation{ClientId: id, Input: in, Output: out, Call: int64(began), Return: at})
}

// Head returns the newest revision, when the engine answers.
func Head(t testing.TB, e storage.Engine) (rev storage.Revision) {
	t.Helper()
	Eventually(t, func() error {
		return e.View(context.Background(), func(r storage.Reader) error { rev = r.Revision(); return nil })
	})
	return rev
}

// Eventually calls fn until it returns nil, for 30 s.
func Eventually(t testing.TB, fn func() error) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// witness is what a watch was told.
type witness struct {
	mu      sync.Mutex
	last    storage.Revision
	commits map[storage.Revision][]storage.Change
	wrong   []string
}

// follow watches, again where it left off when the watch ends.
func (w *witness) follow(ctx context.Context, t *testing.T, e storage.Engine, from storage.Revision) {
	w.last = from
	for ctx.Err() == nil {
		err := e.Watch(ctx, "", w.last, func(c storage.Commit) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if c.Revision < w.last || c.Revision == w.last && len(c.Changes) > 0 {
				w.wrong = append(w.wrong, fmt.Sprintf("revision %d after %d", c.Revision, w.last))
			}
			if len(c.Changes) > 0 {
				w.commits[c.Revision] = c.Changes
			}
			w.last = c.Revision
			return nil
		})
		if ctx.Err() == nil && !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("the watch ended: %v", err)
			return
		}
	}
}

func (w *witness) reach(t *testing.T, rev storage.Revision) {
	t.Helper()
	Eventually(t, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.last < rev {
			return fmt.Errorf("the watch is at %d, the store at %d", w.last, rev)
		}
		return nil
	})
}

func (w *witness) check(t *testing.T, node int, acked map[storage.Revision]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, text := range w.wrong {
		t.Errorf("node %d: %s", node, text)
	}
	for rev, want := range acked {
		changes := w.commits[rev]
		if len(changes) != 1 || changes[0].Key+"="+string(changes[0].Value) != want {
			t.Errorf("node %d: commit %d wrote %s, the watch told %v", node, rev, want, changes)
		}
	}
}
