package app_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// askAny returns an asker that sends to one node. Answers of a node that lost its
// engine in the middle count as none.
func (l *load) askNode(t *testing.T, c *apptest.Client, stop *atomic.Bool) asker {
	return func(want int, method, path, token, body string) *apptest.Answer {
		if stop.Load() {
			return nil
		}
		if token == "" {
			token = c.Root
		}
		a, err := c.Try(method, path, token, body)
		if err != nil || a.Status == 503 {
			return nil
		}
		if a.Status != want {
			t.Errorf("%s %s is answered %d %s, want %d", method, path, a.Status, a.Body, want)
			return nil
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.answered++
		return a
	}
}

// TestClusterLosesNothing breaks a cluster under load again and again: a node is
// killed, a node is stopped and goes on later, the engine is killed. What any
// node acknowledged is there on every node afterwards.
func TestClusterLosesNothing(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 3, e.block, "")
		l := &load{workers: workers(t, &c.nodes[0].Client)}
		harms := map[string]func(){
			"a node is killed": func() {
				p := c.nodes[rand.IntN(3)]
				p.kill(t)
				time.Sleep(rand.N(200 * time.Millisecond))
				p.start(t)
			},
			"a node is stopped for a while": func() {
				p := c.nodes[rand.IntN(3)]
				_ = p.cmd.Process.Signal(syscall.SIGSTOP)
				time.Sleep(1500 * time.Millisecond)
				_ = p.cmd.Process.Signal(syscall.SIGCONT)
			},
			"the engine is killed": func() { e.crash(t) },
		}
		count := map[string]int{}
		for range 2 * soak() {
			for what, harm := range harms {
				var stop atomic.Bool
				var working sync.WaitGroup
				for i, w := range l.workers {
					p := c.nodes[i%3]
					working.Go(func() {
						for !stop.Load() && w.work(l.askNode(t, &p.Client, &stop)) {
						}
					})
				}
				l.more(t, 30)
				time.Sleep(rand.N(300 * time.Millisecond))
				harm()
				time.Sleep(rand.N(300 * time.Millisecond))
				stop.Store(true)
				working.Wait()
				for _, p := range c.nodes {
					p.serving(t)
				}
				time.Sleep(barrier.CacheBound + 100*time.Millisecond)
				together(len(l.workers), func(i int) { l.workers[i].check(t, &c.nodes[(i+1)%3].Client) })
				count[what]++
				if t.Failed() {
					t.Fatalf("after: %s", what)
				}
			}
		}
		entries := uint64(0)
		for _, p := range c.nodes {
			report, err := audit.Verify(p.data("audit"), audit.VerifyOptions{PublicKeys: []string{publicKey(t, &p.Client)}})
			if err != nil || !report.Intact() {
				t.Errorf("the audit log of a node does not verify: %v %v", err, report.Problems)
			}
			entries += report.Entries
		}
		t.Logf("%v, %d answers, %d audit entries", count, l.answered, entries)
	})
}

// A token revoked on one node is refused on the others within the bound: no request
// that is sent later than that is answered with it.
func TestRevocationReachesEveryNode(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 3, e.block, "")
		var worst time.Duration
		revocations := 50 * soak()
		for range revocations {
			token := c.nodes[0].Must(t, 200, "POST", "auth/token/create", newToken).Auth.Token
			for _, p := range c.nodes {
				eventually(t, "the token is known", func() bool {
					return p.Do(t, "GET", "auth/token/lookup-self", token, "").Status == 200
				})
			}
			c.nodes[0].Must(t, 204, "POST", "auth/token/revoke", fmt.Sprintf(`{"token":%q}`, token))
			revoked := time.Now()
			for _, p := range c.nodes {
				for asked := time.Now(); p.Do(t, "GET", "auth/token/lookup-self", token, "").Status == 200; asked = time.Now() {
					worst = max(worst, asked.Sub(revoked))
				}
			}
		}
		if worst > barrier.CacheBound {
			t.Errorf("a revoked token was accepted for %v", worst)
		}
		t.Logf("%d revocations, worst %v", revocations, worst)
	})
}

// A node that slept through a revocation does not answer from what it remembers.
func TestAStoppedNodeWakesUpCarefully(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 2, e.block, "")
		for n := range 3 * soak() {
			token := c.nodes[0].Must(t, 200, "POST", "auth/token/create", newToken).Auth.Token
			sleeper := c.nodes[1]
			eventually(t, "the token is known", func() bool {
				return sleeper.Do(t, "GET", "auth/token/lookup-self", token, "").Status == 200
			})
			_ = sleeper.cmd.Process.Signal(syscall.SIGSTOP)
			c.nodes[0].Must(t, 204, "POST", "auth/token/revoke", fmt.Sprintf(`{"token":%q}`, token))
			time.Sleep(barrier.CacheBound + 50*time.Millisecond)
			_ = sleeper.cmd.Process.Signal(syscall.SIGCONT)
			if a := sleeper.Do(t, "GET", "auth/token/lookup-self", token, ""); a.Status == 200 {
				t.Fatalf("round %d: a node that woke up accepted a token revoked while it slept", n)
			}
		}
	})
}

// A thousand clients add one to the same secret with check-and-set, for a while.
func TestCheckAndSetAcrossNodes(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 3, e.block, "")
		const path, clients = "secret/data/counter", 1000
		until := time.Now().Add(time.Duration(20*soak()) * time.Second)
		c.nodes[0].Must(t, 200, "POST", path, `{"data":{"n":0}}`)
		var added, refused, busy atomic.Int64
		together(clients, func(i int) {
			p := c.nodes[i%3]
			for try := 0; time.Now().Before(until); try++ {
				var now struct {
					Data     struct{ N int }
					Metadata struct{ Version int }
				}
				a := p.Do(t, "GET", path, p.Root, "")
				if a.Status == 200 {
					a.Into(t, &now)
					a = p.Do(t, "POST", path, p.Root, fmt.Sprintf(`{"data":{"n":%d},"options":{"cas":%d}}`, now.Data.N+1, now.Metadata.Version))
				}
				switch {
				case a.Status == 200:
					added.Add(1)
					return
				case a.Status == 400:
					refused.Add(1)
				case a.Status == 503 && a.Header.Get("Retry-After") != "": // a machine that is too slow for so many
					busy.Add(1)
				default:
					t.Errorf("%d %s", a.Status, a.Body)
					return
				}
				time.Sleep(rand.N(250 * time.Millisecond << min(try, 5)))
			}
		})
		time.Sleep(barrier.CacheBound)
		var last struct{ Data struct{ N int64 } }
		c.nodes[1].Must(t, 200, "GET", path, "").Into(t, &last)
		if last.Data.N != added.Load() {
			t.Errorf("%d clients were told that they had added one; the sum is %d", added.Load(), last.Data.N)
		}
		if added.Load() == 0 {
			t.Error("nobody ever added one")
		}
		t.Logf("%d of %d added one, %d were refused first, and %d told to try again", added.Load(), clients, refused.Load(), busy.Load())
	})
}

// Nodes are restarted one by one while a client with retries works.
func TestRollingRestart(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 3, e.block, "")
		var stop atomic.Bool
		var working sync.WaitGroup
		var done atomic.Int64
		for w := range 8 {
			working.Go(func() {
				for n := 0; !stop.Load(); n++ {
					path, want := fmt.Sprintf("secret/data/rolling/%d/%d", w, n), fmt.Sprintf(`{"data":{"v":"%d"}}`, n)
					c.untilAnswered(t, n, "POST", path, want)
					c.untilAnswered(t, n+1, "GET", path, "")
					done.Add(2)
				}
			})
		}
		for _, p := range c.nodes {
			time.Sleep(200 * time.Millisecond)
			p.stop(t)
			p.start(t)
			p.serving(t)
		}
		time.Sleep(200 * time.Millisecond)
		stop.Store(true)
		working.Wait()
		t.Logf("%d requests while every node was restarted", done.Load())
	})
}

// untilAnswered tries one node after the other, as a client behind a load
// balancer with retries does.
func (c *cluster) untilAnswered(t *testing.T, first int, method, path, body string) {
	for try := range 100 {
		p := c.nodes[(first+try)%len(c.nodes)]
		a, err := p.Try(method, path, p.Root, body)
		if err == nil && a.Status == 200 {
			return
		}
		if err == nil && a.Status != 503 && a.Status != 404 {
			t.Errorf("%s %s: %d %s", method, path, a.Status, a.Body)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%s %s failed on every node, again and again", method, path)
}

// Every node knows the others, that they live, and when they no longer do.
func TestMembers(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 3, e.block, "")
		live := func(p *process) (names []string) {
			var all struct {
				Nodes []struct {
					Node string `json:"node_id"`
					API  string `json:"api_address"`
					Live bool
				}
			}
			p.Must(t, 200, "GET", "sys/ha-status", "").Into(t, &all)
			for i, n := range all.Nodes {
				if n.Live {
					names = append(names, n.Node)
				}
				if len(all.Nodes) == 3 && n.API != c.nodes[i].URL() {
					t.Errorf("%s is at %s, not at %s", n.Node, n.API, c.nodes[i].URL())
				}
			}
			return names
		}
		for _, p := range c.nodes {
			eventually(t, "all nodes are seen", func() bool { return len(live(p)) == 3 })
			var leader struct {
				HA   bool `json:"ha_enabled"`
				Self bool `json:"is_self"`
			}
			decode(t, p.Must(t, 200, "GET", "sys/leader", "").Body, &leader)
			if !leader.HA || !leader.Self {
				t.Errorf("%+v", leader)
			}
		}
		c.nodes[2].kill(t)
		eventually(t, "the killed node is missed", func() bool { return slices.Equal(live(c.nodes[0]), []string{"node-0", "node-1"}) })
		c.nodes[1].stop(t)
		eventually(t, "the stopped node left", func() bool { return len(live(c.nodes[0])) == 1 })
	})
}

// A database that another Coffer uses is refused by name.
func TestAForeignStoreIsRefused(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		newCluster(t, 1, e.block, "")
		stranger, key := &process{dir: t.TempDir()}, filepath.Join(t.TempDir(), "another.key")
		stranger.store = e.block(0) + fmt.Sprintf("data_dir = %q\nnode_id = \"stranger\"\nseal \"keyfile\" {\n  path = %q\n}\n", stranger.data(), key)
		stranger.configure(t, tcp)
		stranger.start(t)
		defer stranger.kill(t)
		eventually(t, "it says why it stays sealed", func() bool { return strings.Contains(stranger.out.String(), "no seal opens the server") })
		if a := stranger.Do(t, "GET", "sys/health", "", ""); a.Status != 503 {
			t.Errorf("health: %d %s", a.Status, a.Body)
		}
	})
}

// A node that is cut off from the engine accepts no token that was revoked since,
// says so, and goes on when it is back. Nothing that any node acknowledged is lost.
func TestPartition(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 3, e.block, "")
		lone, others := c.nodes[2], c.nodes[:2]
		for round, part := range []func(*storagetest.Proxy){(*storagetest.Proxy).Stall, (*storagetest.Proxy).Cut} {
			path := fmt.Sprintf("secret/data/partition/%d", round)
			token := others[0].Must(t, 200, "POST", "auth/token/create", newToken).Auth.Token
			others[0].Must(t, 200, "POST", path, `{"data":{"v":"before"}}`)
			for range 3 {
				eventually(t, "the node knows the token and the secret", func() bool { return lone.Do(t, "GET", path, token, "").Status == 200 })
			}
			e.ways[2].each(part)
			begun := time.Now()
			others[0].Must(t, 204, "POST", "auth/token/revoke", fmt.Sprintf(`{"token":%q}`, token))
			others[1].Must(t, 200, "POST", path, `{"data":{"v":"after"}}`)
			revoked := time.Now()
			for time.Since(revoked) < 3*time.Second {
				asked := time.Now()
				a, err := lone.Try("GET", path, token, "")
				if err == nil && a.Status == 200 && asked.Sub(revoked) > barrier.CacheBound {
					t.Fatalf("%v after the revocation the token was accepted by the node that could not know of it", asked.Sub(revoked))
				}
			}
			eventually(t, "it says that it cannot reach the storage", func() bool {
				a, err := lone.Try("GET", "sys/health", "", "")
				return err == nil && a.Status == 503 && strings.Contains(string(a.Body), `"storage":"unreachable"`)
			})
			if a := lone.Do(t, "POST", path, lone.Root, `{"data":{"v":"lost"}}`); a.Status != 503 {
				t.Errorf("a write on the node that is cut off: %d %s", a.Status, a.Body)
			}
			e.ways[2].each((*storagetest.Proxy).Heal)
			lone.serving(t)
			eventually(t, "it knows what happened meanwhile", func() bool {
				return strings.Contains(string(lone.Do(t, "GET", path, lone.Root, "").Body), "after") && lone.Do(t, "GET", path, token, "").Status == 403
			})
			t.Logf("apart for %v", time.Since(begun).Round(time.Millisecond))
		}
	})
}

// With stale_reads a node that is cut off goes on answering what it has in memory,
// and says how old it is.
func TestStaleReadsOfANode(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 2, e.block, "stale_reads = \"1m\"\n")
		lone := c.nodes[1]
		c.nodes[0].Must(t, 200, "POST", "secret/data/a", `{"data":{"v":"known"}}`)
		c.nodes[0].Must(t, 200, "POST", "secret/data/b", `{"data":{"v":"never read"}}`)
		time.Sleep(barrier.CacheBound) // what comes to be known later is not remembered
		for range 5 {
			lone.Must(t, 200, "GET", "secret/data/a", "")
		}
		e.ways[1].each((*storagetest.Proxy).Stall)
		eventually(t, "a read is answered, marked as stale", func() bool {
			a := lone.Do(t, "GET", "secret/data/a", lone.Root, "")
			return a.Status == 200 && a.Header.Get("X-Coffer-Stale") != "" && strings.Contains(string(a.Body), "known") && strings.Contains(string(a.Body), "stale: ")
		})
		if a := lone.Do(t, "GET", "secret/data/b", lone.Root, ""); a.Status != 503 {
			t.Errorf("a read of what is not in memory: %d %s", a.Status, a.Body)
		}
		asked := time.Now()
		if a := lone.Do(t, "GET", "sys/health", "", ""); a.Status != 473 {
			t.Errorf("health: %d %s", a.Status, a.Body)
		}
		if took := time.Since(asked); took > 2*time.Second { // a load balancer's patience
			t.Errorf("health took %v", took)
		}
		if a := lone.Do(t, "POST", "secret/data/b", lone.Root, `{"data":{"v":"x"}}`); a.Status != 503 || a.Header.Get("Retry-After") != "1" {
			t.Errorf("a write: %d %s, Retry-After %q", a.Status, a.Body, a.Header.Get("Retry-After"))
		}
		slowest := time.Duration(0)
		for range 50 {
			begun := time.Now()
			lone.Must(t, 200, "GET", "secret/data/a", "")
			slowest = max(slowest, time.Since(begun))
		}
		if slowest > 2*time.Second {
			t.Errorf("a stale read took %v", slowest)
		}
		e.ways[1].each((*storagetest.Proxy).Heal)
		eventually(t, "answers are fresh again", func() bool {
			a := lone.Do(t, "GET", "secret/data/a", lone.Root, "")
			return a.Status == 200 && a.Header.Get("X-Coffer-Stale") == ""
		})
		stale := 0
		lone.stop(t)
		for entry, err := range audit.Read(t.Context(), lone.data("audit"), audit.ReadOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if entry.StaleMS > 0 {
				stale++
			}
		}
		if stale < 50 {
			t.Errorf("%d entries of the audit log are marked as stale", stale)
		}
	})
}

// A slow engine makes requests slow, and wrong nowhere.
func TestSlowEngine(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		c := newCluster(t, 2, e.block, "")
		e.ways[0].each(func(p *storagetest.Proxy) { p.Delay(50 * time.Millisecond) })
		for n := range 5 {
			want := fmt.Sprintf(`"v":"%d"`, n)
			c.nodes[0].Must(t, 200, "POST", "secret/data/slow", "{\"data\":{"+want+"}}")
			for i, p := range c.nodes {
				eventually(t, fmt.Sprintf("node %d has it", i), func() bool {
					return strings.Contains(string(p.Do(t, "GET", "secret/data/slow", p.Root, "").Body), want)
				})
			}
			if a := c.nodes[0].Do(t, "GET", "sys/health", "", ""); a.Status != 200 {
				t.Errorf("health: %d %s", a.Status, a.Body)
			}
		}
	})
}

// TestScheduledBackupsOfACluster: of the nodes one makes each backup, all know of
// it, and another goes on when that one dies.
func TestScheduledBackupsOfACluster(t *testing.T) {
	overEngines(t, func(t *testing.T, e shared) {
		dir := t.TempDir()
		c := newCluster(t, 3, e.block, fmt.Sprintf("backup {\n  directory = %q\n  every = \"1m\"\n  keep = 10\n}\n", dir))
		type status struct {
			Failures int
			Error    string
			Next     time.Time
			Last     struct{ Node, File string }
		}
		ask := func(p *process) (st status) {
			p.Must(t, 200, "GET", "sys/backup/status", "").Into(t, &st)
			return st
		}
		agree := func(nodes []*process, not string) (st status) {
			eventually(t, "all nodes know of a backup", func() bool {
				st = ask(nodes[0])
				for _, p := range nodes {
					if other := ask(p); other != st || st.Last.File == not {
						return false
					}
				}
				return true
			})
			return st
		}
		first := agree(c.nodes, "")
		maker, err := strconv.Atoi(strings.TrimPrefix(first.Last.Node, "node-"))
		if err != nil || first.Failures != 0 {
			t.Fatalf("%+v", first)
		}
		for i, p := range c.nodes {
			done := fmt.Sprintf("coffer_jobs_done_total{kind=\"backup\"} %d\n", map[bool]int{true: 1}[i == maker])
			if text := string(p.Must(t, 200, "GET", "sys/metrics?format=prometheus", "").Body); !strings.Contains(text, done) {
				t.Errorf("the metrics of node %d, and node %d made it, lack %s", i, maker, done)
			}
		}
		c.nodes[maker].kill(t)
		rest := slices.Delete(slices.Clone(c.nodes), maker, maker+1)
		second := agree(rest, first.Last.File)
		if second.Last.Node == first.Last.Node {
			t.Errorf("the dead node made it: %+v", second)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
			t.Errorf("there are %v, %v", files, err)
		}
		made := 0
		for _, p := range c.nodes {
			for _, entry := range entries(t, p.data("audit")) {
				if entry.Event == "backup-made" {
					made++
				}
			}
		}
		if made != 2 {
			t.Errorf("%d entries tell of backups", made)
		}
	})
}
