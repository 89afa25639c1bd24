package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

const testTimeout = 1500 * time.Millisecond

// nodes opens engines on one store.
func nodes(t testing.TB, o ...Options) (all []storage.Engine) {
	t.Helper()
	for _, o := range o {
		all = append(all, node(t, o))
	}
	return all
}

// on returns the options for a store in a cluster.
func on(c *etcdtest.Cluster, path string) Options {
	return Options{Endpoints: c.Endpoints(), Path: path, RequestTimeout: testTimeout}
}

// check wants enough writes to prove something, and no call that hangs: an Update
// may run again for 4 request timeouts, and its last call take one more.
func check(t *testing.T, tr *storagetest.Trial, writes int) {
	t.Helper()
	if tr.Count("written") < writes {
		t.Errorf("only %d writes", tr.Count("written"))
	}
	if most := 5*testTimeout + 2*time.Second; tr.Longest() > most {
		t.Errorf("a call took %v", tr.Longest())
	}
}

// TestKillLeader kills the member that leads, under load, and starts it again.
func TestKillLeader(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 3)
	path := c.Path()
	tr := &storagetest.Trial{Nodes: nodes(t, on(c, path), on(c, path)), Clients: 12, Keys: 16, Pause: time.Millisecond}
	kills := storagetest.Rounds(3)
	var worst time.Duration
	tr.Run(t, func() {
		for range kills {
			tr.More(t, 40+rand.IntN(80))
			leader := c.Leader(t)
			killed := time.Now()
			leader.Kill(t)
			tr.More(t, 20)
			worst = max(worst, time.Since(killed))
			leader.Start(t)
			leader.WaitReady(t)
		}
	})
	t.Logf("leaders killed: %d; 20 writes after at most %v", kills, worst.Round(time.Millisecond))
	check(t, tr, 60*kills)
}

// TestKillAll kills every member at once, as a power cut does.
func TestKillAll(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 3)
	path := c.Path()
	tr := &storagetest.Trial{Nodes: nodes(t, on(c, path), on(c, path)), Clients: 12, Keys: 16, Pause: time.Millisecond}
	kills := storagetest.Rounds(2)
	tr.Run(t, func() {
		for range kills {
			tr.More(t, 40+rand.IntN(80))
			for _, m := range c.Members() {
				m.Kill(t)
			}
			for _, m := range c.Members() {
				m.Start(t)
			}
			for _, m := range c.Members() {
				m.WaitReady(t)
			}
		}
	})
	t.Logf("clusters killed: %d", kills)
	check(t, tr, 40*kills)
}

// TestOutage: all members are away for long.
func TestOutage(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 3)
	each := func(do func(*etcdtest.Member)) {
		for _, m := range c.Members() {
			do(m)
		}
	}
	storagetest.Outage(t, node(t, on(c, c.Path())), func() { each(func(m *etcdtest.Member) { m.Kill(t) }) }, func() {
		each(func(m *etcdtest.Member) { m.Start(t) })
		each(func(m *etcdtest.Member) { m.WaitReady(t) })
	})
}

// TestPauses stops members and lets them go on: the leader, and all at once.
func TestPauses(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 3)
	path := c.Path()
	tr := &storagetest.Trial{Nodes: nodes(t, on(c, path), on(c, path)), Clients: 8, Keys: 32, Pause: 5 * time.Millisecond}
	pauses := storagetest.Rounds(1)
	tr.Run(t, func() {
		for range pauses {
			leader := c.Leader(t)
			leader.Stop()
			time.Sleep(2 * testTimeout)
			tr.More(t, 40) // with another leader
			leader.Continue()
			tr.More(t, 40)
			for _, m := range c.Members() {
				m.Stop()
			}
			time.Sleep(2 * testTimeout)
			for _, m := range c.Members() {
				m.Continue()
			}
			tr.More(t, 40)
		}
	})
	t.Logf("pauses of %v: %d of the leader, %d of all members", 2*testTimeout, pauses, pauses)
	check(t, tr, 120*pauses)
	if tr.Count("unavailable")+tr.Count("uncertain") == 0 {
		t.Error("nobody noticed")
	}
}

// TestCuts breaks the connections of one node off, at moments that catch commits
// on their way. Each is found out about, or said to be uncertain.
func TestCuts(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	path := c.Path()
	p := storagetest.NewProxy(t, c.Members()[0].Address())
	through := on(c, path)
	through.Endpoints = []string{"http://" + p.Addr()}
	tr := &storagetest.Trial{Nodes: nodes(t, through, on(c, path)), Clients: 12, Keys: 16, Pause: time.Millisecond}
	cuts := storagetest.Rounds(20)
	tr.Run(t, func() {
		for range cuts {
			tr.More(t, 10+rand.IntN(20))
			p.Drop()
		}
	})
	t.Logf("connections broken off: %d times", cuts)
	check(t, tr, 10*cuts)
}

// TestPartition stops all bytes between one node and the members, and lets them
// go on. The other node goes on working.
func TestPartition(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	path := c.Path()
	p := storagetest.NewProxy(t, c.Members()[0].Address())
	through := on(c, path)
	through.Endpoints = []string{"http://" + p.Addr()}
	tr := &storagetest.Trial{Nodes: nodes(t, through, on(c, path)), Clients: 8, Keys: 32, Pause: 10 * time.Millisecond}
	storagetest.Partition(t, tr, p, 2*testTimeout)
	check(t, tr, storagetest.Rounds(200))
}

// TestManyWriters: hundreds of check-and-set writers of one key, on two nodes,
// all end.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	path := c.Path()
	patient := on(c, path)
	patient.RequestTimeout = 20 * time.Second
	storagetest.Writers(t, nodes(t, patient, patient), 300, 8)
}

// TestFull: an etcd beyond its quota refuses writes by name, leaves reads alone,
// and writes go on when the operator has made room.
func TestFull(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1, etcdtest.WithQuota(16<<20))
	e := node(t, on(c, c.Path()))
	value := make([]byte, 300<<10)
	put := func(key string) error {
		_, err := e.Update(context.Background(), func(tx storage.Txn) error {
			return errors.Join(tx.Put(key, value), tx.Put("last", []byte(key)))
		})
		return err
	}
	written := 0
	var err error
	for ; err == nil && written < 1000; written++ {
		err = put(fmt.Sprint("k", written%5)) // old revisions fill it
	}
	written--
	if !errors.Is(err, storage.ErrFull) {
		t.Fatalf("after %d writes: %v", written, err)
	}
	if err := put("more"); !errors.Is(err, storage.ErrFull) {
		t.Errorf("a write after that: %v", err)
	}
	err = e.View(context.Background(), func(r storage.Reader) error {
		last, err := storagetest.Value(r, "last")
		if want := fmt.Sprint("k", (written-1)%5); last != want {
			t.Errorf("the last write is %s, acknowledged was %s", last, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	makeRoom(t, c, storagetest.Head(t, e))
	storagetest.Eventually(t, func() error { return put("after") })
	t.Logf("quotas exceeded: 1, after %d writes", written)
}

// makeRoom does what the message of ErrFull says.
func makeRoom(t *testing.T, c *etcdtest.Cluster, rev storage.Revision) {
	t.Helper()
	client := c.Client(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := client.Compact(ctx, int64(rev), clientv3.WithCompactPhysical())
	for _, url := range c.Endpoints() {
		_, err2 := client.Defragment(ctx, url)
		err = errors.Join(err, err2)
	}
	_, err2 := client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
}
