package member

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// node is a member with a clock of its own.
type node struct {
	*Members
	log  strings.Builder
	kill context.CancelFunc // without leaving
	stop func()             // as a server stops
}

func start(t *testing.T, e storage.Engine, name string, ahead time.Duration) *node {
	t.Helper()
	away := storagetest.NewAway(e)
	n := &node{}
	n.Members = New(Options{
		Engine: away, Self: Info{Node: name, APIAddress: "https://" + name, Knows: 1, Started: time.Now()},
		Log: slog.New(slog.NewTextHandler(&n.log, nil)),
		Now: func() time.Time { return time.Now().Add(ahead) },
	})
	if err := n.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = n.Run(ctx) })
	work.Go(func() { // as the barrier's subscription does
		_ = away.Watch(ctx, Prefix, 0, func(storage.Commit) error { return n.Look(ctx) })
	})
	n.stop = sync.OnceFunc(func() { cancel(); work.Wait() })
	n.kill = func() { away.Set(true); n.stop() }
	t.Cleanup(n.stop)
	return n
}

func (n *node) live() (names []string) {
	for _, m := range n.List() {
		if m.Live {
			names = append(names, m.Node)
		}
	}
	return names
}

func want(t *testing.T, n *node, names ...string) {
	t.Helper()
	if live := n.live(); !slices.Equal(live, names) {
		t.Errorf("%s sees %v live, want %v", n.Self.Node, live, names)
	}
}

func TestNodesSeeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New()
		a, b, c := start(t, e, "a", 0), start(t, e, "b", 0), start(t, e, "c", 0)
		time.Sleep(Beat + time.Second)
		for _, n := range []*node{a, b, c} {
			want(t, n, "a", "b", "c")
			for _, m := range n.List() {
				if m.Self != (m.Node == n.Self.Node) || m.APIAddress != "https://"+m.Node || time.Since(m.Echo) > Beat+time.Second {
					t.Errorf("%s sees %+v", n.Self.Node, m)
				}
			}
		}
		b.stop()
		time.Sleep(Beat)
		want(t, a, "a", "c")
		if len(a.List()) != 2 {
			t.Errorf("a node that stopped is still listed: %v", a.List())
		}
		c.kill()
		time.Sleep(Gone - Beat - time.Second)
		want(t, a, "a", "c")
		time.Sleep(Beat + 2*time.Second)
		want(t, a, "a")
		if len(a.List()) != 2 {
			t.Errorf("a node that was killed is no longer listed: %v", a.List())
		}
		c = start(t, e, "c", 0)
		want(t, c, "a", "c")
		time.Sleep(Beat)
		want(t, a, "a", "c")
		c.kill()
		time.Sleep(forget + 2*Beat)
		if len(a.List()) != 1 {
			t.Errorf("a node that was killed is listed for ever: %v", a.List())
		}
		want(t, a, "a")
	})
}

func TestTheClockThatIsOffIsFound(t *testing.T) {
	const off = 5 * time.Minute
	for name, c := range map[string]struct {
		ahead []time.Duration // of the nodes' clocks
		want  []time.Duration // what each finds
	}{
		"all right":            {[]time.Duration{0, 0, 0}, []time.Duration{0, 0, 0}},
		"one of three ahead":   {[]time.Duration{0, off, 0}, []time.Duration{0, off, 0}},
		"one of three behind":  {[]time.Duration{0, -off, 0}, []time.Duration{0, -off, 0}},
		"one of five ahead":    {[]time.Duration{0, 0, off, 0, 0}, []time.Duration{0, 0, off, 0, 0}},
		"two nodes, one ahead": {[]time.Duration{0, off}, []time.Duration{0, off}},
		"alone":                {[]time.Duration{off}, []time.Duration{0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := memory.New()
				var nodes []*node
				for i, ahead := range c.ahead {
					nodes = append(nodes, start(t, e, string(rune('a'+i)), ahead))
				}
				time.Sleep(3*Beat + Beat/2) // between two beats
				for i, n := range nodes {
					if got := n.Offset(); (got - c.want[i]).Abs() > 100*time.Millisecond {
						t.Errorf("node %d is %v ahead and finds %v", i, c.ahead[i], got)
					}
				}
				for i, n := range nodes {
					n.kill() // one that left would change what the rest find
					if told := strings.Contains(n.log.String(), "clock differs"); told != (c.want[i] != 0) {
						t.Errorf("node %d: its operator was told: %v", i, told)
					}
				}
			})
		})
	}
}

func TestTwoProcessesOfOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New()
		first := start(t, e, "a", 0)
		second := start(t, e, "a", 0)
		time.Sleep(2 * Beat)
		if first.List()[0].Live || !second.List()[0].Live {
			t.Errorf("%+v %+v", first.List(), second.List())
		}
		first.stop()
		second.stop()
		if !strings.Contains(first.log.String(), "give each its own node_id") {
			t.Errorf("the operator was told %q", first.log.String())
		}
	})
}

func TestAMemberWhoseEngineIsAwayGoesOnTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New()
		a, b := start(t, e, "a", 0), start(t, e, "b", 0)
		time.Sleep(Beat + time.Second)
		away := b.Engine.(*storagetest.Away)
		away.Set(true)
		time.Sleep(Gone + Beat)
		want(t, a, "a")
		away.Set(false)
		time.Sleep(Beat + time.Second)
		want(t, a, "a", "b")
	})
}

func TestFormatsAreThoseOfAllWhoMayLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New()
		a, b := start(t, e, "a", 0), start(t, e, "b", 0)
		time.Sleep(Beat + time.Second)
		formats := func() (all []int) {
			if err := e.View(t.Context(), func(r storage.Reader) (err error) { all, err = a.Formats(r); return err }); err != nil {
				t.Fatal(err)
			}
			return all
		}
		b.kill()
		time.Sleep(2 * Gone)
		if len(formats()) != 2 {
			t.Error("a node that was gone for a moment is not counted")
		}
		time.Sleep(10 * Gone)
		if len(formats()) != 1 {
			t.Error("a node that is gone for long is counted")
		}
	})
}

func TestRowsThatAreNoMembersAreRefused(t *testing.T) {
	for _, text := range []string{"", "[]", `{"node":"other"}`, "\x00"} {
		e := memory.New()
		if _, err := e.Update(t.Context(), func(x storage.Txn) error { return x.Put(Prefix+"b", []byte(text)) }); err != nil {
			t.Fatal(err)
		}
		m := New(Options{Engine: e, Self: Info{Node: "a"}, Log: slog.New(slog.DiscardHandler)})
		if err := m.Join(t.Context()); err == nil || !strings.Contains(err.Error(), Prefix+"b") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
