package storagetest

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// childEnv holds the location of the store in a child process.
const childEnv = "COFFER_STORAGETEST_CHILD"

// Main must begin TestMain of a package that sets Options.Location. In a child
// process, which the suite starts, it never returns.
func Main(openAt func(location string) (storage.Engine, error)) {
	location := os.Getenv(childEnv)
	if location == "" {
		return
	}
	e, err := openAt(location)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	runLoad(context.Background(), e, func(s sighting) {
		mu.Lock()
		defer mu.Unlock()
		// One write for each line: the parent reads none that is not whole.
		fmt.Fprintf(os.Stdout, "%s %d %d %d\n", s.how, s.id, s.seq, s.rev)
	})
	fmt.Fprintln(os.Stderr, "the load ended by itself")
	os.Exit(1)
}

// testKill kills a process that writes, reads and watches, again and again, and
// looks each time for what the process had told.
func testKill(t *testing.T, o Options) {
	location := o.Location(t)
	total := map[string]int{}
	kills := Rounds(15)
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range kills {
		told := killOne(t, location, 20*time.Millisecond+time.Duration(rng.IntN(250))*time.Millisecond)
		for how, n := range told.counts {
			total[how] += n
		}
		e, err := o.OpenAt(location)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := told.check(e); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("kills: %d, acknowledged writes checked: %d, reads: %d, watched: %d",
		kills, total["acknowledged"], total["read"], total["watched"])
	if total["acknowledged"] < 10*kills || total["read"] < kills || total["watched"] < kills {
		t.Errorf("too little happened before the kills to prove anything")
	}
}

// killOne runs a child and kills it some time after its first word. It returns
// everything the child told.
func killOne(t *testing.T, location string, after time.Duration) *sightings {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(program, "-test.run=^$")
	child.Env = append(os.Environ(), childEnv+"="+location)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	told := &sightings{}
	lines := bufio.NewReader(out)
	var once sync.Once
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // the child is dead
		}
		var s sighting
		if _, err := fmt.Sscanf(line, "%s %d %d %d\n", &s.how, &s.id, &s.seq, &s.rev); err != nil {
			t.Fatalf("the child said %q", line)
		}
		told.note(s)
		once.Do(func() {
			time.AfterFunc(after, func() { _ = child.Process.Kill() }) // SIGKILL
		})
	}
	if err := child.Wait(); child.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child was not killed: %v", err)
	}
	return told
}
