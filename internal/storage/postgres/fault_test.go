package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

const testTimeout = 1500 * time.Millisecond

// node opens an engine that is closed with the test.
func node(t testing.TB, o Options) storage.Engine {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet
	}
	e, err := open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func address(s *postgrestest.Server) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
}

// TestManyWriters: a thousand check-and-set writers of one key, on two nodes,
// all end, and soon.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	url := postgrestest.Start(t).Database(t)
	nodes := []storage.Engine{node(t, Options{URL: url, RequestTimeout: 20 * time.Second}), node(t, Options{URL: url, RequestTimeout: 20 * time.Second})}
	storagetest.Writers(t, nodes, 1000, 3)
}

// TestLongUpdate: an Update that reads many rows ends although others commit all
// the time, on this node and another.
func TestLongUpdate(t *testing.T) {
	t.Parallel()
	url := postgrestest.Start(t).Database(t)
	storagetest.Long(t, []storage.Engine{node(t, Options{URL: url}), node(t, Options{URL: url})}, 240, time.Minute)
}

// TestFeedOrder: while many write on two nodes and commits are held up at
// random, watches on both tell every commit once, in the order of revisions.
func TestFeedOrder(t *testing.T) {
	t.Parallel()
	url := postgrestest.Start(t).Database(t)
	gate := func() { time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond) }
	nodes := []storage.Engine{node(t, Options{URL: url, gate: gate}), node(t, Options{URL: url, gate: gate}), node(t, Options{URL: url})}
	tr := &storagetest.Trial{Nodes: nodes, Clients: 24, Keys: 12}
	tr.Run(t, func() { tr.More(t, storagetest.Rounds(1000)) })
}

// TestKillServer kills PostgreSQL under load, and starts it again.
func TestKillServer(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	url := server.Database(t)
	nodes := []storage.Engine{node(t, Options{URL: url, RequestTimeout: testTimeout}), node(t, Options{URL: url, RequestTimeout: testTimeout})}
	tr := &storagetest.Trial{Nodes: nodes, Clients: 12, Keys: 16, Pause: time.Millisecond}
	kills := storagetest.Rounds(5)
	tr.Run(t, func() {
		for range kills {
			tr.More(t, 80+rand.IntN(80))
			server.Kill(t)
			server.Restart(t)
		}
	})
	t.Logf("kills of PostgreSQL: %d", kills)
	check(t, tr, 80*kills)
}

// TestOutage: PostgreSQL is away for long.
func TestOutage(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	e := node(t, Options{URL: server.Database(t), RequestTimeout: testTimeout})
	storagetest.Outage(t, e, func() { server.Kill(t) }, func() { server.Restart(t) })
}

// check wants enough writes to prove something, and no call that hangs.
func check(t *testing.T, tr *storagetest.Trial, writes int) {
	t.Helper()
	if tr.Count("written") < writes {
		t.Errorf("only %d writes", tr.Count("written"))
	}
	if most := 2*testTimeout + 2*time.Second; tr.Longest() > most {
		t.Errorf("a call took %v", tr.Longest())
	}
}

// TestCuts breaks the connections of one node off, at moments that catch
// commits on their way. Each is found out about.
func TestCuts(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	direct := server.Database(t)
	l := storagetest.NewProxy(t, address(server))
	through := server.URLAt(l.Addr(), database(t, direct))
	nodes := []storage.Engine{node(t, Options{URL: through, RequestTimeout: testTimeout}), node(t, Options{URL: direct, RequestTimeout: testTimeout})}
	tr := &storagetest.Trial{Nodes: nodes, Clients: 12, Keys: 16, Pause: time.Millisecond}
	cuts := storagetest.Rounds(40)
	tr.Run(t, func() {
		for range cuts {
			tr.More(t, 10+rand.IntN(20))
			l.Drop()
		}
	})
	t.Logf("connections broken off: %d times", cuts)
	check(t, tr, 10*cuts)
}

// TestPartition stops all bytes between one node and the server, and lets them
// go on. The other node goes on working.
func TestPartition(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	direct := server.Database(t)
	l := storagetest.NewProxy(t, address(server))
	through := server.URLAt(l.Addr(), database(t, direct))
	nodes := []storage.Engine{node(t, Options{URL: through, RequestTimeout: testTimeout}), node(t, Options{URL: direct, RequestTimeout: testTimeout})}
	tr := &storagetest.Trial{Nodes: nodes, Clients: 8, Keys: 32, Pause: 10 * time.Millisecond}
	storagetest.Partition(t, tr, l, 2*testTimeout)
	check(t, tr, storagetest.Rounds(200))
}

// TestSlowServer stops the server's processes for some time.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	url := server.Database(t)
	nodes := []storage.Engine{node(t, Options{URL: url, RequestTimeout: testTimeout}), node(t, Options{URL: url, RequestTimeout: testTimeout})}
	tr := &storagetest.Trial{Nodes: nodes, Clients: 12, Keys: 16, Pause: time.Millisecond}
	pauses := []time.Duration{300 * time.Millisecond, 900 * time.Millisecond, 2500 * time.Millisecond}
	tr.Run(t, func() {
		for _, d := range pauses {
			server.Signal(syscall.SIGSTOP)
			time.Sleep(d)
			server.Signal(syscall.SIGCONT)
			tr.More(t, 60)
		}
	})
	t.Logf("pauses of the server: %v", pauses)
	check(t, tr, 100)
}

// TestFailover kills the primary, and promotes its synchronous replica.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary := postgrestest.Start(t, "synchronous_standby_names=r1")
	// Until there is a replica, commits wait for it.
	replica := primary.Replica(t, "r1", "cluster_name=r1")
	waitSync(t, primary)
	hosts := address(primary) + "," + address(replica)
	url := primary.URLAt(hosts, "postgres")
	nodes := []storage.Engine{node(t, Options{URL: url, RequestTimeout: testTimeout}), node(t, Options{URL: url, RequestTimeout: testTimeout})}
	tr := &storagetest.Trial{Nodes: nodes, Clients: 12, Keys: 16, Pause: time.Millisecond}
	var promoted, away time.Duration
	tr.Run(t, func() {
		tr.More(t, 100)
		start := time.Now()
		primary.Kill(t)
		replica.Promote(t)
		promoted = time.Since(start)
		storagetest.Eventually(t, func() error {
			_, err := nodes[0].Update(context.Background(), func(tx storage.Txn) error { return tx.Put("after", nil) })
			return err
		})
		away = time.Since(start)
		tr.More(t, 60)
	})
	t.Logf("failover: promoted after %v, writes again after %v", promoted.Round(time.Millisecond), away.Round(time.Millisecond))
	check(t, tr, 100)
}

func waitSync(t *testing.T, s *postgrestest.Server) {
	t.Helper()
	ctx := context.Background()
	e := node(t, Options{URL: s.URL("postgres"), Table: "probe", RequestTimeout: 10 * time.Second})
	storagetest.Eventually(t, func() error {
		var n int
		err := e.(*Engine).pool.QueryRow(ctx, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").Scan(&n)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d synchronous replicas", n)
		}
		return err
	})
}
