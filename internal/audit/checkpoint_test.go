package audit

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestCheckpointsComeEachSecond: one checkpoint a second while entries come,
// none while none come.
func TestCheckpointsComeEachSecond(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		l := openLog(t, dir, Options{Signer: testSigner(t), OnCheckpoint: func(Checkpoint) { at = append(at, time.Since(start)) }})
		for range 35 { // 3.5 s of entries
			if err := l.Append(context.Background(), outcome(1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(at) != 4 {
			t.Errorf("checkpoints at %v", at)
		}
		for i, when := range at {
			if i > 0 && when-at[i-1] < time.Second || when > time.Duration(i+1)*1200*time.Millisecond {
				t.Errorf("checkpoints at %v", at)
			}
		}
		if s := l.Stats(); s.Checkpointed != 35 || time.Since(s.LastCheckpoint) < 59*time.Minute {
			t.Errorf("stats: %+v", s)
		}
		closeLog(t, l)
	})
	wantWhole(t, dir, 35)
}

func TestSealedLogIsSignedLater(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := openLog(t, dir, Options{SegmentSize: 4 << 10})
		appendN(t, l, 30)
		time.Sleep(time.Minute)
		if _, err := l.Checkpoint(context.Background()); !errors.Is(err, ErrNoSigner) {
			t.Errorf("a checkpoint without a signer: %v", err)
		}
		if r := verify(t, dir); r.Whole() || r.Entries != 30 || r.Unsigned != 30 {
			t.Errorf("unsigned log: %+v", r)
		}
		l.SetSigner(testSigner(t))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c := l.LastCheckpoint(); c.Size != 30 {
			t.Errorf("the newest checkpoint covers %d", c.Size)
		}
		closeLog(t, l)
	})
	wantWhole(t, dir, 30)
}

func TestCheckpointText(t *testing.T) {
	dir := newLog(t, 3, Options{})
	c, err := newestCheckpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(c.Note), "\n")
	if len(lines) != 6 || lines[0] != testOrigin || lines[1] != "3" || lines[3] != "" || !strings.HasPrefix(lines[4], "— "+testOrigin+" ") {
		t.Errorf("the note is %q", c.Note)
	}
}

func TestProofs(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Signer: testSigner(t), SegmentSize: 4 << 10})
	var checkpoints []Checkpoint
	for range 5 {
		appendN(t, l, 9)
		c, err := l.Checkpoint(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		checkpoints = append(checkpoints, c)
	}
	verifier := testSigner(t).(*ed25519Signer).verifier
	for seq := uint64(1); seq <= 45; seq++ {
		p, err := Prove(dir, seq)
		if err != nil {
			t.Fatal(err)
		}
		e, err := p.Check(verifier)
		if err != nil || e.Seq != seq {
			t.Fatalf("entry %d: %+v, %v", seq, e, err)
		}
		p.Line = strings.Replace(p.Line, `"status":200`, `"status":403`, 1)
		if _, err := p.Check(verifier); err == nil {
			t.Fatalf("a changed entry %d is proven", seq)
		}
	}
	if _, err := Prove(dir, 46); err == nil {
		t.Error("an entry that is not there is proven")
	}
	for i, older := range checkpoints {
		for _, newer := range checkpoints[i:] {
			if _, err := ProveConsistency(dir, older, newer); err != nil {
				t.Errorf("%d in %d: %v", older.Size, newer.Size, err)
			}
			forged := older
			forged.Root[3] ^= 1
			if _, err := ProveConsistency(dir, forged, newer); err == nil {
				t.Errorf("a forged checkpoint of %d is consistent with %d", older.Size, newer.Size)
			}
		}
	}
}
