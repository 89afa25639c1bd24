package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cofferhq/coffer/internal/storage"
)

// trial runs clients on nodes while something goes wrong, and checks what they
// were told: the history is linearizable, no acknowledged write is lost, none
// that was said not to be written is there, and every watch tells every
// acknowledged commit once, in order.
type trial struct {
	nodes   []storage.Engine
	clients int
	keys    int
	pause   time.Duration // between two calls of a client

	mu      sync.Mutex
	history []porcupine.Operation
	acked   map[storage.Revision]string // key=value
	counts  map[string]int
	longest time.Duration // of all calls
}

type op struct{ kind, key, value, old string }

// registers are keys that hold a value, "" for none.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(op).key
			byKey[key] = append(byKey[key], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(string), input.(op), output.(string)
		switch {
		case in.kind == "get":
			return out == now, now
		case in.kind == "put":
			return true, in.value
		case out == "swapped":
			return now == in.old, in.value
		case out == "kept":
			return now != in.old, now
		case now == in.old: // nobody was told
			return true, in.value
		}
		return true, now
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %v", input, output) },
}

// run runs the clients until disturb returns, and a little longer.
func (tr *trial) run(t *testing.T, disturb func()) {
	t.Helper()
	tr.acked, tr.counts = map[storage.Revision]string{}, map[string]int{}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var watches sync.WaitGroup
	seen := make([]*witness, len(tr.nodes))
	for i, node := range tr.nodes {
		seen[i] = &witness{commits: map[storage.Revision][]storage.Change{}}
		from := head(t, node)
		watches.Go(func() { seen[i].follow(ctx, t, node, from) })
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	start := time.Now()
	for id := range tr.clients {
		clients.Go(func() { tr.client(t, id, start, stop) })
	}
	tr.more(t, 20)
	disturb()
	tr.more(t, 20)
	close(stop)
	clients.Wait()
	end := time.Now()
	last := head(t, tr.nodes[0])
	for i, w := range seen {
		w.reach(t, last)
		w.check(t, i, tr.acked)
	}
	cancel()
	watches.Wait()
	asked := int64(0)
	for _, node := range tr.nodes {
		asked += node.(*Engine).asked.Load()
	}
	t.Logf("calls: %d acknowledged writes, %d reads, %d unavailable, %d uncertain; outcomes asked for: %d; longest %v; %d commits watched on each of %d nodes; ran %v",
		tr.counts["written"], tr.counts["read"], tr.counts["unavailable"], tr.counts["uncertain"], asked,
		tr.longest.Round(time.Millisecond), len(seen[0].commits), len(tr.nodes), end.Sub(start).Round(time.Millisecond))
	result, _ := porcupine.CheckOperationsVerbose(registers, tr.history, 40*time.Second)
	if result != porcupine.Ok {
		t.Errorf("the history of %d calls is not linearizable: %v", len(tr.history), result)
	}
}

// more waits until n more writes have been acknowledged, so that what is done
// next meets enough of them on any machine.
func (tr *trial) more(t *testing.T, n int) {
	t.Helper()
	written := func() int {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return tr.counts["written"]
	}
	from := written()
	eventually(t, func() error {
		if now := written(); now < from+n {
			return fmt.Errorf("%d writes of %d", now-from, n)
		}
		return nil
	})
}

func (tr *trial) client(t *testing.T, id int, start time.Time, stop chan struct{}) {
	rng := rand.New(rand.NewPCG(7, uint64(id)))
	known := map[string]string{}
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(tr.pause):
		}
		in := op{kind: []string{"get", "put", "cas"}[rng.IntN(3)], key: fmt.Sprintf("r/%d", rng.IntN(tr.keys)), value: fmt.Sprintf("%d.%d", id, n)}
		in.old = known[in.key]
		began := time.Since(start)
		out, rev, err := perform(tr.nodes[id%len(tr.nodes)], in)
		ended := time.Since(start)
		if in.kind == "get" && err == nil {
			known[in.key] = out
		}
		tr.note(t, id, in, out, rev, err, began, ended)
	}
}

func (tr *trial) note(t *testing.T, id int, in op, out string, rev storage.Revision, err error, began, ended time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.longest = max(tr.longest, ended-began)
	at := int64(ended)
	switch {
	case err == nil && in.kind == "get":
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
		at, out = math.MaxInt64, "unknown"
	case errors.Is(err, storage.ErrUnavailable):
		tr.counts["unavailable"]++
		return // nothing was written, which later reads hold it to
	default:
		t.Errorf("%s: %v", in.kind, err)
		return
	}
	tr.history = append(tr.history, porcupine.Operation{ClientId: id, Input: in, Output: out, Call: int64(began), Return: at})
}

var errKept = errors.New("another value")

func perform(e storage.Engine, in op) (out string, rev storage.Revision, err error) {
	ctx := context.Background()
	switch in.kind {
	case "get":
		err = e.View(ctx, func(r storage.Reader) (err error) { out, err = value(r, in.key); return err })
	case "put":
		rev, err = e.Update(ctx, func(tx storage.Txn) error { return tx.Put(in.key, []byte(in.value)) })
	case "cas":
		out = "swapped"
		rev, err = e.Update(ctx, func(tx storage.Txn) error {
			now, err := value(tx, in.key)
			if err != nil {
				return err
			}
			if now != in.old {
				return errKept
			}
			return tx.Put(in.key, []byte(in.value))
		})
		if errors.Is(err, errKept) {
			out, err = "kept", nil
		}
	}
	return out, rev, err
}

func value(r storage.Reader, key string) (string, error) {
	v, err := r.Get(key)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	return string(v), err
}

// head returns the newest revision, when the database answers.
func head(t testing.TB, e storage.Engine) (rev storage.Revision) {
	t.Helper()
	eventually(t, func() error {
		return e.View(context.Background(), func(r storage.Reader) error { rev = r.Revision(); return nil })
	})
	return rev
}

func eventually(t testing.TB, fn func() error) {
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
	eventually(t, func() error {
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

// rounds returns n, or many times n in a soak.
func rounds(n int) int {
	if os.Getenv("COFFER_SOAK") == "1" {
		return 20 * n
	}
	return n
}
