package backup_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/storage"
)

// dying is an engine whose process ends at one of its updates: before it, or
// after it took effect and before anyone knew.
type dying struct {
	storage.Engine
	left  atomic.Int64 // updates until then
	after bool
}

var errKilled = errors.New("the process is gone")

func (d *dying) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	switch left := d.left.Add(-1); {
	case left < 0:
		return 0, errKilled
	case left == 0 && d.after:
		_, _ = d.Engine.Update(ctx, fn)
		return 0, errKilled
	case left == 0:
		return 0, errKilled
	}
	return d.Engine.Update(ctx, fn)
}

// A restore that ends between any two steps leaves a store that no server opens,
// and the next one finishes it.
func TestRestoreDiesAtEveryStep(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	want := s.fill(t, 2500, 40)
	archive := s.archive(t)
	proof, err := backup.Verify(t.Context(), bytes.NewReader(archive), backup.Seals(s.seals), nil)
	must(t, err)
	deaths := 0
	for _, after := range []bool{false, true} {
		for step := int64(1); ; step++ {
			e := engines["memory"](t)
			d := &dying{Engine: e, after: after}
			d.left.Store(step)
			err := proof.Into(t.Context(), d, bytes.NewReader(archive), backup.Restore{})
			if err == nil {
				break // it came to its end before
			}
			if !errors.Is(err, errKilled) {
				t.Fatalf("step %d: %v", step, err)
			}
			deaths++
			whole := backup.Whole(t.Context(), e)
			_, complete := rows(t, e)[seal.RecordRow]
			if empty := len(rows(t, e)) == 0; !empty && !complete && !errors.Is(whole, seal.ErrRestoring) {
				t.Fatalf("step %d: a half restored store is taken for a whole one: %v", step, whole)
			}
			if !complete {
				initialized(t, e)
				must(t, proof.Into(t.Context(), e, bytes.NewReader(archive), backup.Restore{}))
			}
			same(t, "finished", plain(t, s.reopened(t, e)), want)
		}
	}
	t.Logf("ended %d times", deaths)
	if deaths < 10 {
		t.Errorf("only %d steps were met", deaths)
	}
}

// initialized makes sure that a node cannot initialize a store that is being
// restored.
func initialized(t *testing.T, e storage.Engine) {
	t.Helper()
	if len(rows(t, e)) == 0 {
		return
	}
	_, err := e.Update(t.Context(), seal.NewRecord().Put)
	if !errors.Is(err, seal.ErrRestoring) {
		t.Fatalf("the store can be initialized meanwhile: %v", err)
	}
}

// An engine that goes away for a moment does not end a restore, whether what it
// was asked took effect or not.
func TestRestoreOutlivesAnEngineThatGoesAway(t *testing.T) {
	synced(t, restoreOutlives)
}

func restoreOutlives(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	want := s.fill(t, 500, 40)
	archive := s.archive(t)
	for n := range int64(8) {
		for _, after := range []bool{false, true} {
			e := engines["memory"](t)
			f := &flaky{Engine: e, after: after}
			f.at.Store(n)
			s.restore(t, archive, f, backup.Restore{})
			same(t, "restored", plain(t, s.reopened(t, e)), want)
		}
	}
	s.barrier.Shut()
}

// flaky is away once.
type flaky struct {
	storage.Engine
	at    atomic.Int64
	after bool
}

func (f *flaky) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if f.at.Add(-1) != -1 {
		return f.Engine.Update(ctx, fn)
	}
	if f.after {
		_, _ = f.Engine.Update(ctx, fn)
		return 0, storage.ErrUncertain
	}
	return 0, storage.ErrUnavailable
}

// What is not empty is never touched.
func TestRestoreRefusesWhatIsNotEmpty(t *testing.T) {
	s, other := newStore(t, engines["memory"](t)), newStore(t, engines["memory"](t))
	archive := s.archive(t)
	foreign := engines["memory"](t)
	_, err := foreign.Update(t.Context(), put("x", "y"))
	must(t, err)
	for _, e := range []storage.Engine{other.engine, s.engine, foreign} {
		before := rows(t, e)
		p, err := backup.Verify(t.Context(), bytes.NewReader(archive), backup.Seals(s.seals), nil)
		must(t, err)
		if err := p.Into(t.Context(), e, bytes.NewReader(archive), backup.Restore{}); !errors.Is(err, backup.ErrNotEmpty) {
			t.Errorf("%v", err)
		}
		same(t, "untouched", rows(t, e), before)
	}
}

// A restore of one archive that was given up is replaced by that of another.
func TestRestoreStartsOverWithAnotherArchive(t *testing.T) {
	a, b := newStore(t, engines["memory"](t)), newStore(t, engines["memory"](t))
	a.fill(t, 2500, 40)
	want := b.fill(t, 300, 100)
	first, second := a.archive(t), b.archive(t)
	for step := int64(2); step < 30; step += 3 {
		e := engines["memory"](t)
		d := &dying{Engine: e}
		d.left.Store(step)
		p, err := backup.Verify(t.Context(), bytes.NewReader(first), backup.Seals(a.seals), nil)
		must(t, err)
		if err := p.Into(t.Context(), d, bytes.NewReader(first), backup.Restore{}); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		// It dies while it clears, too.
		d.left.Store(step / 2)
		p, err = backup.Verify(t.Context(), bytes.NewReader(second), backup.Seals(b.seals), nil)
		must(t, err)
		_ = p.Into(t.Context(), d, bytes.NewReader(second), backup.Restore{})
		if err := backup.Whole(t.Context(), e); !errors.Is(err, seal.ErrRestoring) {
			t.Fatalf("step %d: %v", step, err)
		}
		b.restore(t, second, e, backup.Restore{})
		same(t, "the second", plain(t, b.reopened(t, e)), want)
		if n := len(rows(t, e)); n != len(rows(t, b.engine))+1 { // and the notice
			t.Errorf("%d rows, of %d", n, len(rows(t, b.engine)))
		}
	}
}

// Of two restores into one store at the same time the later one wins, and the
// other one says so.
func TestTwoRestores(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	want := s.fill(t, 2500, 40)
	archive := s.archive(t)
	e := engines["memory"](t)
	p, err := backup.Verify(t.Context(), bytes.NewReader(archive), backup.Seals(s.seals), nil)
	must(t, err)
	taken := &overtaken{Engine: e}
	taken.then = func() { s.restore(t, archive, e, backup.Restore{}) }
	if err := p.Into(t.Context(), taken, bytes.NewReader(archive), backup.Restore{}); !errors.Is(err, backup.ErrOvertaken) {
		t.Errorf("%v", err)
	}
	same(t, "restored", plain(t, s.reopened(t, e)), want)
}

type overtaken struct {
	storage.Engine
	n    atomic.Int64
	then func()
}

func (o *overtaken) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if o.n.Add(1) == 5 {
		o.then()
	}
	return o.Engine.Update(ctx, fn)
}

// An archive that is exchanged between the two readings is noticed, and the
// store stays unusable.
func TestArchiveIsExchanged(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	s.fill(t, 50, 100)
	first := s.archive(t)
	_, err := s.barrier.Update(t.Context(), put("core/later", "x"))
	must(t, err)
	second := s.archive(t)
	p, err := backup.Verify(t.Context(), bytes.NewReader(first), backup.Seals(s.seals), nil)
	must(t, err)
	for _, other := range [][]byte{second, first[:len(first)-10]} {
		e := engines["memory"](t)
		if err := p.Into(t.Context(), e, bytes.NewReader(other), backup.Restore{}); err == nil {
			t.Error("it was restored")
		}
		if err := backup.Whole(t.Context(), e); !errors.Is(err, seal.ErrRestoring) {
			t.Errorf("%v", err)
		}
	}
}

// The notice of a restore is recorded once, and again when recording failed.
func TestNotice(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	e := engines["memory"](t)
	p := s.restore(t, s.archive(t), e, backup.Restore{})
	failure := errors.New("the audit log is full")
	if err := backup.TakeNotice(t.Context(), e, func(backup.Notice) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
	var seen []backup.Notice
	for range 2 {
		must(t, backup.TakeNotice(t.Context(), e, func(n backup.Notice) error { seen = append(seen, n); return nil }))
	}
	if len(seen) != 1 || seen[0].Archive != p.SHA256 || seen[0].Revision != p.Header.Revision {
		t.Errorf("%+v", seen)
	}
}

// A backup while the root key is rotated opens with the seals in it, whatever
// step the rotation is at.
func TestRootRotation(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	want := s.fill(t, 50, 100)
	rewrap := func(root []byte) {
		t.Helper()
		_, err := s.engine.Update(t.Context(), func(txn storage.Txn) error {
			rec, err := seal.Load(txn)
			if err != nil {
				return err
			}
			if err := rec.Rewrap(t.Context(), s.seals, root); err != nil {
				return err
			}
			return rec.Put(txn)
		})
		must(t, err)
	}
	check := func(step string) {
		t.Helper()
		e := engines["memory"](t)
		s.restore(t, s.archive(t), e, backup.Restore{})
		same(t, step, plain(t, s.reopened(t, e)), want)
	}
	before := s.archive(t)
	next, err := s.barrier.BeginRootRotation(t.Context(), s.root)
	must(t, err)
	check("begun")
	rewrap(next)
	check("wrapped")
	last, err := s.barrier.FinishRootRotation(t.Context(), next)
	must(t, err)
	check("finished")
	rewrap(last)
	check("reduced")
	must(t, s.barrier.EndRootRotation(t.Context(), last))
	check("ended")
	// An archive from before the rotation still opens with the seals of its day.
	e := engines["memory"](t)
	s.restore(t, before, e, backup.Restore{})
	same(t, "before", plain(t, s.reopened(t, e)), want)
}

// Sealing ends a backup.
func TestSealingEndsABackup(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	s.fill(t, 60, 200_000)
	w := &sealing{b: s.barrier}
	if _, err := backup.Write(t.Context(), s.barrier, from, w, nil); err == nil {
		t.Error("it came to its end")
	}
	if _, err := backup.Write(t.Context(), s.barrier, from, w, nil); err == nil {
		t.Error("a sealed store makes an archive")
	}
}

type sealing struct {
	b *barrier.Barrier
	n int
}

func (s *sealing) Write(p []byte) (int, error) {
	if s.n++; s.n == 3 {
		s.b.Shut()
	}
	return len(p), nil
}
