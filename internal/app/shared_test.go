package app_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// cluster is nodes that share a storage engine, each a process of its own.
type cluster struct {
	nodes []*process
}

// newCluster starts nodes over an engine, initialized through the first.
// storage returns the storage block of a node.
func newCluster(t testing.TB, nodes int, storage func(node int) string, more string) *cluster {
	t.Helper()
	c, key := &cluster{}, filepath.Join(t.TempDir(), "seal.key")
	for i := range nodes {
		p := &process{dir: t.TempDir()}
		p.store = storage(i) + fmt.Sprintf("data_dir = %q\nnode_id = \"node-%d\"\nseal \"keyfile\" {\n  path = %q\n}\n", p.data(), i, key)
		p.configure(t, tcp+more)
		t.Cleanup(func() {
			if p.cmd != nil {
				_ = p.cmd.Process.Signal(syscall.SIGCONT)
				p.kill(t)
				if t.Failed() {
					t.Logf("node %d said:\n%s", i, p.out)
				}
			}
		})
		c.nodes = append(c.nodes, p)
	}
	for _, p := range c.nodes {
		p.start(t)
	}
	c.nodes[0].initialize(t)
	for _, p := range c.nodes {
		p.Root = c.nodes[0].Root
		p.serving(t)
	}
	return c
}

// serving waits until the node is healthy.
func (p *process) serving(t testing.TB) {
	t.Helper()
	eventually(t, "a node serves", func() bool {
		a, err := p.Try("GET", "sys/health", "", "")
		return err == nil && a.Status == 200
	})
}

// each engine that nodes can share, with a way to break it.
type shared struct {
	name  string
	block func(node int) string // the storage block; each node has a way of its own to the engine
	ways  [3]*way
	crash func(t testing.TB) // kills the engine's server, or the one that leads, and brings it back
}

func overEngines(t *testing.T, run func(t *testing.T, e shared)) {
	for name, open := range map[string]func(testing.TB) shared{"postgres": onPostgres, "etcd": onEtcd} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, open(t))
		})
	}
}

// way is how one node reaches the engine: through a proxy for each of its servers.
type way []*storagetest.Proxy

func (w way) each(do func(*storagetest.Proxy)) {
	for _, p := range w {
		do(p)
	}
}

// onPostgres is a PostgreSQL server of the test's own.
func onPostgres(t testing.TB) shared {
	server := postgrestest.Start(t)
	database, e := fmt.Sprintf("app_%d", rand.Int32()), shared{name: "postgres"}
	server.Exec(t, "postgres", "CREATE DATABASE "+database)
	for i := range e.ways {
		e.ways[i] = &way{storagetest.NewProxy(t, "127.0.0.1:"+strconv.Itoa(server.Port))}
	}
	e.block = func(node int) string {
		return fmt.Sprintf("storage \"postgres\" {\n  connection_url = %q\n}\n", server.URLAt((*e.ways[node])[0].Addr(), database))
	}
	e.crash = func(t testing.TB) {
		server.Kill(t)
		server.Restart(t)
	}
	return e
}

// onEtcd is a cluster of three members of the test's own. A node's way to it goes
// through proxies, one for each member.
func onEtcd(t testing.TB) shared {
	c := etcdtest.Start(t, 3)
	e := shared{name: "etcd"}
	for i := range e.ways {
		e.ways[i] = &way{}
		for _, m := range c.Members() {
			*e.ways[i] = append(*e.ways[i], storagetest.NewProxy(t, m.Address()))
		}
	}
	e.block = func(node int) string {
		var addresses []string
		for _, p := range *e.ways[node] {
			addresses = append(addresses, "http://"+p.Addr())
		}
		return fmt.Sprintf("storage \"etcd\" {\n  address = %q\n}\n", strings.Join(addresses, ","))
	}
	e.crash = func(t testing.TB) {
		leader := c.Leader(t)
		leader.Kill(t)
		leader.Start(t)
		leader.WaitReady(t)
	}
	return e
}
