package app_test

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/audit"
)

// A worker changes one kind of thing again and again, one request at a time, and
// knows what was acknowledged. When a request gets no answer the server was
// killed, and what that request asked for may or may not have come about.
type worker interface {
	// work sends one request and returns false when no answer came.
	work(ask asker) bool
	// check wants everything that was acknowledged, and learns what became of
	// the request without an answer.
	check(t *testing.T, c *apptest.Client)
}

// asker sends a request. The answer is nil when none came, and was as wanted
// otherwise.
type asker func(want int, method, path, token, body string) *apptest.Answer

// load is what many workers do to one server.
type load struct {
	workers []worker

	mu       sync.Mutex
	ids      []string // of the requests that were answered since the last kill
	answered int
}

// run lets every worker work until the server answers no more.
func (l *load) run(t *testing.T, c *apptest.Client) {
	together(len(l.workers), func(i int) {
		for l.workers[i].work(l.asker(t, c)) {
		}
	})
}

func (l *load) asker(t *testing.T, c *apptest.Client) asker {
	return func(want int, method, path, token, body string) *apptest.Answer {
		if token == "" {
			token = c.Root
		}
		a, err := c.Try(method, path, token, body)
		if err != nil {
			return nil
		}
		if a.Status != want {
			t.Errorf("%s %s is answered %d %s, want %d", method, path, a.Status, a.Body, want)
			return nil
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ids = append(l.ids, a.Header.Get("X-Coffer-Request-Id"))
		l.answered++
		return a
	}
}

// more waits until so many more requests have been answered.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	answered := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.answered
	}
	from := answered()
	eventually(t, "the server answers", func() bool { return answered() >= from+n })
}

// checkAudit wants an outcome of every answered request in the log's entries
// from one on, and returns how far the log goes.
func (l *load) checkAudit(t *testing.T, dir string, from uint64) (to uint64) {
	t.Helper()
	outcomes := map[string]bool{}
	for e, err := range audit.Read(context.Background(), dir, audit.ReadOptions{From: from}) {
		if err != nil {
			t.Fatalf("read the audit log: %v", err)
		}
		if to = e.Seq; e.Type == audit.Outcome {
			outcomes[e.Request.ID] = true
		}
	}
	for _, id := range l.ids {
		if !outcomes[id] {
			t.Errorf("the request %q was answered and has no outcome in the audit log", id)
		}
	}
	l.ids = nil
	return to
}

// TestKill kills a server under load again and again. What it acknowledged is
// there afterwards, and what it answered is in its audit log.
func TestKill(t *testing.T) {
	p := newProcess(t, "")
	p.start(t)
	p.initialize(t)
	l := &load{workers: workers(t, &p.Client)}
	kills, seq := 8*soak(), uint64(0)
	for n := range kills {
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.run(t, &p.Client)
		}()
		l.more(t, 30)
		time.Sleep(rand.N(400 * time.Millisecond))
		p.kill(t)
		<-done
		seq = l.checkAudit(t, p.data("audit"), seq+1)
		p.start(t)
		together(len(l.workers), func(i int) { l.workers[i].check(t, &p.Client) })
		if n%10 == 9 || n == kills-1 {
			report, err := audit.Verify(p.data("audit"), audit.VerifyOptions{PublicKeys: []string{publicKey(t, &p.Client)}})
			if err != nil || !report.Intact() {
				t.Fatalf("after %d kills the audit log does not verify: %v %v", n+1, err, report.Problems)
			}
		}
		if t.Failed() {
			t.Fatalf("after %d kills and %d answers; the server said:\n%s", n+1, l.answered, p.out)
		}
	}
	t.Logf("%d kills, %d answers, %d audit entries", kills, l.answered, seq)
}

// TestKillWhileInitializing kills a server while it is initialized. Either it is
// not initialized afterwards and can be, or it is and serves; when somebody got
// the root token, it is valid.
func TestKillWhileInitializing(t *testing.T) {
	finished := 0
	for n := range 6 * soak() {
		p := newProcess(t, "")
		p.start(t)
		got := make(chan *apptest.Answer, 1)
		go func() {
			a, _ := p.Try("POST", "sys/init", "", `{}`)
			got <- a
		}()
		time.Sleep(time.Duration(n%6)*3*time.Millisecond + rand.N(3*time.Millisecond))
		p.kill(t)
		a := <-got
		p.start(t)
		var state struct{ Initialized, Sealed bool }
		decode(t, p.Must(t, 200, "GET", "sys/health?uninitcode=200&sealedcode=200", "").Body, &state)
		switch {
		case a != nil && a.Status == 200:
			var made struct {
				Root string `json:"root_token"`
			}
			decode(t, a.Body, &made)
			p.Root = made.Root
			p.Must(t, 200, "GET", "auth/token/lookup-self", "")
			finished++
		case state.Initialized && state.Sealed:
			t.Fatalf("the server is initialized and its seal does not open it:\n%s", p.out)
		case !state.Initialized:
			p.initialize(t)
			p.Must(t, 200, "POST", "secret/data/a", `{"data":{"a":"b"}}`)
			finished++
		}
		p.kill(t)
		if left, _ := filepath.Glob(p.data(".seal-key-*")); len(left) > 1 {
			t.Errorf("half-written key files lie about: %v", left)
		}
	}
	t.Logf("%d servers were used afterwards", finished)
}
