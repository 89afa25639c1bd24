package audit

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// child runs, in a process of its own, what must be killed or must have its
// own mounts. Its directory comes in AUDIT_TEST_DIR.
func child(job string) int {
	switch job {
	case "append":
		return childAppend(os.Getenv("AUDIT_TEST_DIR"))
	case "full":
		return childFull(os.Getenv("AUDIT_TEST_DIR"))
	}
	fmt.Fprintln(os.Stderr, "unknown job", job)
	return 2
}

func childCommand(job, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "AUDIT_TEST_CHILD="+job, "AUDIT_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// childAppend appends as fast as it can and prints the id and number of each
// entry once it is acknowledged.
func childAppend(dir string) int {
	signer, err := NewSigner(testOrigin, testKey)
	if err != nil {
		return 2
	}
	l, err := Open(dir, Options{Origin: testOrigin, Signer: signer, SegmentSize: 32 << 10, CheckpointEvery: 10 * time.Millisecond})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	var print sync.Mutex
	for p := range 8 {
		go func() {
			for i := 0; ; i++ {
				e := outcome(i)
				e.Request.ID = fmt.Sprintf("%d-%d-%d", os.Getpid(), p, i)
				appendOne := l.Append
				if p%2 == 1 {
					appendOne = l.AppendRelaxed
				}
				if err := appendOne(context.Background(), e); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(2)
				}
				print.Lock()
				fmt.Println(e.Seq, e.Request.ID)
				print.Unlock()
			}
		}()
	}
	select {}
}

// TestKill9LosesNothing kills a process that appends, several times over the
// same log, and counts that every acknowledged entry is there afterwards.
func TestKill9LosesNothing(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]uint64{}
	rounds := 8
	if os.Getenv("COFFER_SOAK") == "1" {
		rounds *= 20
	}
	for round := range rounds {
		cmd := childCommand("append", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		seen := 0
		for s := bufio.NewScanner(out); s.Scan(); seen++ {
			var seq uint64
			var id string
			if _, err := fmt.Sscan(s.Text(), &seq, &id); err != nil {
				break // the line the kill tore
			}
			acknowledged[id] = seq
			if seen == 600+67*round {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if seen < 600 {
			t.Fatalf("round %d: the child stopped after %d entries", round, seen)
		}
		l := openLog(t, dir, Options{Signer: testSigner(t)})
		closeLog(t, l)
	}
	if r := verify(t, dir); !r.Whole() {
		t.Fatalf("after the kills: %+v", r)
	}
	there := map[string]uint64{}
	for _, e := range readAll(t, dir, ReadOptions{}) {
		there[e.Request.ID] = e.Seq
	}
	for id, seq := range acknowledged {
		if there[id] != seq {
			t.Errorf("entry %s was acknowledged as %d and is %d", id, seq, there[id])
		}
	}
	t.Logf("%d kills, %d entries acknowledged, %d in the log, none lost", rounds, len(acknowledged), len(there))
}

// childFull runs against a file system of 1 MiB.
func childFull(dir string) int {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		fmt.Println("mount:", err)
		return 2
	}
	if err := fullDisk(dir); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// fullDisk fills the disk under a log and frees it again.
func fullDisk(dir string) error {
	ctx := context.Background()
	signer, err := NewSigner(testOrigin, testKey)
	if err != nil {
		return err
	}
	l, err := Open(dir+"/log", Options{Origin: testOrigin, Signer: signer, Reserve: 192 << 10, Ahead: 64 << 10})
	if err != nil {
		return err
	}
	good, filler := 0, dir+"/filler"
	for range 20 {
		if err := l.Append(ctx, outcome(good)); err != nil {
			return err
		}
		good++
	}
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); err == nil {
		return fmt.Errorf("the disk cannot be filled")
	}
	refused := error(nil)
	for range 2000 {
		if refused = l.Append(ctx, outcome(good)); refused != nil {
			break
		}
		good++
	}
	if refused == nil || !strings.Contains(refused.Error(), "audit log cannot be written: the disk is full, free space in ") {
		return fmt.Errorf("a full disk gave %v after %d entries", refused, good)
	}
	if err := l.AppendDone(ctx, outcome(good)); err != nil {
		return fmt.Errorf("the outcome of what was done finds no room in the reserve: %w", err)
	}
	good++
	denied := 0
	for ; denied < 10000; denied++ {
		e := outcome(denied)
		e.Decision = &Decision{Missing: "read"}
		if err := l.Append(ctx, e); err != nil {
			break
		}
	}
	if denied < 20 || denied == 10000 {
		return fmt.Errorf("%d denials fit into the reserve", denied)
	}
	if err := l.Append(ctx, outcome(0)); err == nil {
		return fmt.Errorf("a plain entry was taken while the log lives on its reserve")
	}
	if err := l.Append(ctx, &Entry{Type: Event, Event: "seal"}); err != nil {
		return fmt.Errorf("the seal could not be recorded: %w", err)
	}
	if err := os.Remove(filler); err != nil {
		return err
	}
	if err := l.Append(ctx, outcome(good)); err != nil {
		return fmt.Errorf("the log does not come back: %w", err)
	}
	if err := l.Close(); err != nil {
		return err
	}
	return countFull(dir+"/log", good+1, denied)
}

// countFull checks that everything acknowledged, and nothing refused, is in
// the log.
func countFull(dir string, good, denied int) error {
	key, err := VerifierKey(testOrigin, testKey.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	r, err := Verify(dir, VerifyOptions{PublicKeys: []string{key}})
	if err != nil || !r.Whole() {
		return fmt.Errorf("verify: %+v %w", r, err)
	}
	allowed, refused, seals := 0, 0, 0
	for e, err := range Read(context.Background(), dir, ReadOptions{}) {
		switch {
		case err != nil:
			return err
		case e.Event == "seal":
			seals++
		case e.Decision != nil && e.Decision.Allowed:
			allowed++
		case e.Decision != nil:
			refused++
		}
	}
	if allowed != good || refused != denied || seals != 1 {
		return fmt.Errorf("want %d plain, %d denials, 1 seal; the log has %d, %d, %d", good, denied, allowed, refused, seals)
	}
	fmt.Printf("%d plain entries, %d denials in the reserve\n", good, denied)
	return nil
}

func TestFullDisk(t *testing.T) {
	cmd := childCommand("full", t.TempDir())
	cmd.SysProcAttr = ownMounts()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// ownMounts lets a child mount a file system that only it sees.
func ownMounts() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
}
