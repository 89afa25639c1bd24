package jobtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
)

// childEnv holds a node's name, how far its clock is ahead, its beat, and the
// location of the store, in a process that is a node.
const childEnv = "COFFER_JOBTEST_NODE"

// Main must begin TestMain of a package that calls Processes. In the process of a
// node it never returns.
func Main(openAt func(location string) (storage.Engine, error)) {
	words := strings.SplitN(os.Getenv(childEnv), " ", 4)
	if len(words) < 4 {
		return
	}
	if err := serve(words[0], words[1], words[2], words[3], openAt); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

// serve does jobs until the process is killed.
func serve(name, ahead, beat, location string, openAt func(string) (storage.Engine, error)) error {
	skew, err := time.ParseDuration(ahead)
	if err != nil {
		return err
	}
	every, err := time.ParseDuration(beat)
	if err != nil {
		return err
	}
	e, err := openAt(location)
	if err != nil {
		return err
	}
	c := &cluster{o: Options{Beat: every}, store: e}
	w, _, err := c.workers(name, e, skew, c.count)
	if err != nil {
		return err
	}
	return w.Run(context.Background())
}

// child is the process of a node.
type child struct {
	name, ahead string
	cmd         *exec.Cmd
	ended       chan struct{}
}

func (c *cluster) child(name string, ahead time.Duration, location string) *child {
	c.t.Helper()
	n := &child{name: name, ahead: ahead.String()}
	n.start(c.t, c.o.Beat, location)
	return n
}

func (n *child) start(t *testing.T, beat time.Duration, location string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n.cmd, n.ended = exec.Command(program, "-test.run=^$"), make(chan struct{})
	n.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %v %s", childEnv, n.name, n.ahead, beat, location))
	n.cmd.Stderr = os.Stderr
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(n.cmd, n.ended)
}

func (n *child) signal(s syscall.Signal) { _ = n.cmd.Process.Signal(s) } // it may have ended

func (n *child) kill() {
	n.signal(syscall.SIGKILL)
	<-n.ended
}

// Processes proves the package on nodes that are processes: while jobs become due
// all the time, nodes are killed with -9 and started again, or stopped for longer
// than a claim lasts and go on; one's clock is five minutes ahead, another's five
// behind. location names a new, empty store.
func Processes(t *testing.T, o Options, location string, openAt func(string) (storage.Engine, error)) {
	e, err := openAt(location)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{t: t, o: o, store: e}
	_, q, err := c.workers("nobody", e, 0, c.count)
	if err != nil {
		t.Fatal(err)
	}
	nodes := []*child{c.child("even", 0, location), c.child("fast", 5*time.Minute, location), c.child("slow", -5*time.Minute, location)}
	t.Cleanup(func() {
		for _, n := range nodes {
			n.kill()
		}
	})
	ids := names(soak(400))
	long := 2 * o.takeover()
	if soak(1) > 1 {
		long = max(long, 30*time.Second)
	}
	stop, scheduled := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; n < len(ids); n++ {
			c.schedule(q, time.Now().Add(rand.N(o.beat())), ids[n])
			select {
			case <-stop:
				scheduled <- n + 1
				return
			case <-time.After(o.beat() / 8):
			}
		}
		scheduled <- n
	}()
	counts := map[string]int{}
	for range soak(4) {
		time.Sleep(o.takeover() + rand.N(o.takeover()))
		n := nodes[rand.N(len(nodes))]
		if counts["killed"] <= counts["stopped"] {
			counts["killed"]++
			n.kill()
			n.start(t, o.Beat, location)
			continue
		}
		counts["stopped"]++
		n.signal(syscall.SIGSTOP)
		time.Sleep(long)
		n.signal(syscall.SIGCONT)
	}
	close(stop)
	ids = ids[:<-scheduled]
	c.await(6*o.takeover()+30*time.Second, ids)
	time.Sleep(o.takeover()) // for whoever would do one twice
	for _, n := range nodes {
		n.kill()
	}
	c.once(ids)
	t.Logf("%d jobs, each done once, while nodes were %v", len(ids), counts)
}

// workers returns a node's workers that count, and their queue.
func (c *cluster) workers(name string, e storage.Engine, ahead time.Duration, run func(context.Context, *job.Claim, []job.Job) error) (*job.Workers, *job.Queue, error) {
	w, err := job.New(job.Options{
		Engine: e, Node: name, Beat: c.o.Beat,
		Wall:   func() time.Time { return time.Now().Add(ahead) },
		Offset: func() time.Duration { return ahead },
	})
	if err != nil {
		return nil, nil, err
	}
	q, err := w.Add(job.Kind{Name: "count", Doc: "Counts.", Batch: 4, Run: run})
	return w, q, err
}
