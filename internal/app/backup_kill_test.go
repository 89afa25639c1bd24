package app_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// asClient is the command coffer, as root of a server.
func (p *process) asClient(args ...string) *exec.Cmd {
	cmd := coffer(args...)
	cmd.Env = append(cmd.Env, "COFFER_ADDR="+p.URL(), "COFFER_CACERT="+p.ca(), "COFFER_TOKEN="+p.Root, "COFFER_MAX_RETRIES=0")
	return cmd
}

// place is a server that a backup of p is restored into; it opens by the key of p.
func (p *process) place(t testing.TB) *process {
	t.Helper()
	to := newProcess(t, "")
	to.Root = p.Root
	to.configure(t, tcp+fmt.Sprintf("seal \"keyfile\" {\n  path = %q\n}\n", p.data("seal.key")))
	return to
}

var loss = regexp.MustCompile(`accept_loss = \d+`)

// acceptLoss takes what a restore said of the audit log into the configuration.
func (p *process) acceptLoss(t testing.TB, said []byte) {
	t.Helper()
	text, err := os.ReadFile(p.config())
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, "audit {\n  %s\n}\n", loss.Find(said))
	if err := os.WriteFile(p.config(), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pair is a writer of two secrets, the second always after the first was
// acknowledged: of any moment, the second is the first or one behind it.
type pair struct{ first, second string }

func (w *pair) write(c *apptest.Client, n int) bool {
	for _, path := range []string{w.first, w.second} {
		a, err := c.Try("POST", path, c.Root, fmt.Sprintf(`{"data":{"n":%d,"filling":%q}}`, n, strings.Repeat("x", rand.N(4000))))
		if err != nil || a.Status != 200 {
			return false
		}
	}
	return true
}

func (w *pair) check(t *testing.T, c *apptest.Client) {
	t.Helper()
	var n [2]int
	for i, path := range []string{w.first, w.second} {
		a := c.Do(t, "GET", path, c.Root, "")
		if a.Status == 404 {
			continue
		}
		var data struct {
			Data     struct{ N int }
			Metadata struct{ Version int }
		}
		if a.Status != 200 || json.Unmarshal(a.Data, &data) != nil {
			t.Fatalf("%s is answered %d %s", path, a.Status, a.Body)
		}
		n[i] = data.Data.N
	}
	if n[0] != n[1] && n[0] != n[1]+1 {
		t.Errorf("%s is %d and %s is %d: there was no such moment", w.first, n[0], w.second, n[1])
	}
}

// TestKillWhileBackingUp kills a server that is written to while backups of it are
// taken. A file that is there afterwards is whole, and each of a moment that was.
func TestKillWhileBackingUp(t *testing.T) {
	p := newProcess(t, "")
	p.start(t)
	p.initialize(t)
	const filling = 20_000_000 // bytes of each backup, at least
	for n := range 40 {
		p.Must(t, 200, "POST", fmt.Sprintf("secret/data/filling/%d", n), `{"data":{"a":"`+strings.Repeat("y", filling/40)+`"}}`)
	}
	var pairs []*pair
	for n := range 3 {
		pairs = append(pairs, &pair{fmt.Sprintf("secret/data/a/%d", n), fmt.Sprintf("secret/data/z/%d", n)})
	}
	next, files, broken := 1, 0, 0
	for round := range 4 * soak() {
		var work sync.WaitGroup
		reached := make([]int, len(pairs))
		for i, w := range pairs {
			work.Go(func() {
				n := next
				for w.write(&p.Client, n) {
					n++
				}
				reached[i] = n
			})
		}
		dir, ended := t.TempDir(), make(chan struct{})
		work.Go(func() {
			defer close(ended)
			for n := 0; ; n++ {
				if p.asClient("operator", "backup", filepath.Join(dir, fmt.Sprintf("%d.backup", n))).Run() != nil {
					broken++
					return
				}
			}
		})
		comesTo(t, dir, round%2, rand.Int64N(filling*5/4), ended)
		p.kill(t)
		work.Wait()
		for _, n := range reached {
			next = max(next, n+1)
		}
		made, err := filepath.Glob(filepath.Join(dir, "*.backup"))
		if err != nil {
			t.Fatal(err)
		}
		for i, file := range made {
			if out, err := coffer("operator", "backup-verify", "-config="+p.config(), file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
			files++
			if i == len(made)-1 {
				checkRestored(t, p, file, pairs)
			}
		}
		if left, _ := os.ReadDir(dir); len(left) != len(made) {
			t.Errorf("%d files are left of %d backups", len(left), len(made))
		}
		p.start(t)
		for _, w := range pairs {
			// The server itself may be between the two writes and a lost answer.
			p.Must(t, 200, "POST", w.first, fmt.Sprintf(`{"data":{"n":%d}}`, next))
			p.Must(t, 200, "POST", w.second, fmt.Sprintf(`{"data":{"n":%d}}`, next))
		}
		next++
	}
	t.Logf("%d backups, %d that broke off", files, broken)
	if files == 0 || broken == 0 {
		t.Error("the kills did not meet backups")
	}
}

// comesTo waits until the n-th backup into a directory has so many bytes, or the one
// after it any.
func comesTo(t *testing.T, dir string, n int, bytes int64, ended <-chan struct{}) {
	t.Helper()
	for unfinished(t, dir, n) <= bytes && unfinished(t, dir, n+1) == 0 {
		select {
		case <-ended:
			t.Fatalf("backup %d failed by itself", n)
		case <-time.After(time.Millisecond):
		}
	}
}

// unfinished is how many bytes there are of a backup that is under way.
func unfinished(t *testing.T, dir string, n int) (bytes int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf(".%d.backup.*", n)))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err == nil {
			bytes = info.Size()
		}
	}
	return bytes
}

// checkRestored restores a file and asks the server over it.
func checkRestored(t *testing.T, p *process, file string, pairs []*pair) {
	t.Helper()
	to := p.place(t)
	out, err := coffer("operator", "restore", "-config="+to.config(), file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	to.acceptLoss(t, out)
	to.start(t)
	for _, w := range pairs {
		w.check(t, &to.Client)
	}
	to.kill(t)
}

// refusesHalf starts the server, and reports whether it refuses a store that is half
// restored. One that nobody initialized, or that is whole, it serves.
func (p *process) refusesHalf(t *testing.T) bool {
	t.Helper()
	p.run(t, "server", "-config="+p.config())
	for {
		select {
		case <-p.exited:
			if said := p.out.String(); !strings.Contains(said, "operator restore") || !strings.Contains(said, "not complete") {
				t.Fatalf("the server ended:\n%s", said)
			}
			return true
		case <-time.After(5 * time.Millisecond):
			if serves.MatchString(p.out.String()) {
				p.kill(t)
				return false
			}
		}
	}
}

// written is how many bytes the store in the data directory has.
func written(t *testing.T, p *process) (bytes int64) {
	t.Helper()
	_ = filepath.WalkDir(p.data("store"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil { // it may be gone again
				bytes += info.Size()
			}
		}
		return nil
	})
	return bytes
}

// killedAt kills the process as soon as the store has so many bytes, if it ever has.
func (p *process) killedAt(t *testing.T, bytes int64) {
	t.Helper()
	for written(t, p) < bytes {
		select {
		case <-p.exited:
			return
		case <-time.After(time.Millisecond):
		}
	}
	p.kill(t)
}

// TestKillWhileRestoring kills restores. A store that is half restored is refused
// by the server, which says what to do, and restoring again finishes it.
func TestKillWhileRestoring(t *testing.T) {
	p := newProcess(t, "")
	p.start(t)
	p.initialize(t)
	for n := range 400 {
		p.Must(t, 200, "POST", fmt.Sprintf("secret/data/s/%d", n), fmt.Sprintf(`{"data":{"n":%d,"a":%q}}`, n, strings.Repeat("y", 20_000)))
	}
	file := filepath.Join(t.TempDir(), "one.backup")
	if out, err := p.asClient("operator", "backup", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.kill(t)
	whole := p.place(t)
	if out, err := coffer("operator", "restore", "-config="+whole.config(), file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	size := written(t, whole)
	refused := 0
	for range 5 * soak() {
		to := p.place(t)
		for range 2 {
			to.run(t, "operator", "restore", "-config="+to.config(), file)
			to.killedAt(t, written(t, to)+rand.Int64N(size))
			if to.refusesHalf(t) {
				refused++
			}
		}
		out, err := coffer("operator", "restore", "-config="+to.config(), file).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "the store is not empty: it holds the store") {
			t.Fatalf("%v\n%s", err, out)
		}
		if err == nil {
			to.acceptLoss(t, out)
			to.start(t)
			for _, n := range []int{0, 199, 399} {
				var data struct{ Data struct{ N int } }
				to.Must(t, 200, "GET", fmt.Sprintf("secret/data/s/%d", n), "").Into(t, &data)
				if data.Data.N != n {
					t.Errorf("secret %d is %d", n, data.Data.N)
				}
			}
			to.kill(t)
		}
	}
	t.Logf("%d half restored stores were refused", refused)
	if refused == 0 {
		t.Error("no kill met a restore")
	}
}
