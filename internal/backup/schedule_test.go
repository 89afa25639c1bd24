package backup_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// scheduled is a node with a schedule over a store, and what it recorded.
type scheduled struct {
	*backup.Scheduler
	*store
	mu       sync.Mutex
	made     []string
	failures []error
	refuse   error // what Record answers
}

func newScheduled(t *testing.T, p backup.Plan) *scheduled {
	t.Helper()
	return newStore(t, memory.New()).scheduled("a", p)
}

// scheduled returns a node of the store.
func (st *store) scheduled(node string, p backup.Plan) *scheduled {
	s := &scheduled{store: st}
	s.Scheduler = &backup.Scheduler{
		Plan: p, From: from, Barrier: st.barrier, Node: node, Log: slog.New(slog.DiscardHandler),
		Record: func(_ context.Context, sum *backup.Summary, file string, failed error) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if failed != nil {
				s.failures = append(s.failures, failed)
				return nil
			}
			s.made = append(s.made, filepath.Base(file))
			return s.refuse
		},
	}
	return s
}

// run runs the node for some time.
func (s *scheduled) run(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	w, err := job.New(job.Options{Engine: s.barrier, Node: s.Node, Beat: time.Minute})
	must(t, err)
	must(t, s.Join(ctx, w))
	must(t, w.Run(ctx))
}

func (s *scheduled) status(t *testing.T) backup.Status {
	t.Helper()
	st, err := s.Status(t.Context())
	must(t, err)
	return st
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// synced runs fn in a bubble with a clock of its own.
func synced(t *testing.T, fn func(t *testing.T)) { synctest.Test(t, fn) }

// Backups are made at once and then when they are due; a restart neither skips
// one nor makes one too many.
func TestSchedule(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backups")
	synced(t, func(t *testing.T) {
		plan := backup.Plan{Directory: dir, Every: time.Hour, KeepFor: 1000 * time.Hour}
		s := newScheduled(t, plan)
		s.run(t, 2*time.Hour+time.Minute) // at 0 h, 1 h, 2 h
		if st := s.status(t); len(s.made) != 3 || st.Failures != 0 || st.Last.Node != "a" || st.Last.File != filepath.Join(dir, s.made[2]) || !st.Next.After(time.Now()) {
			t.Errorf("%v, %+v", s.made, st)
		}
		s.run(t, 30*time.Minute) // none is due
		if len(s.made) != 3 {
			t.Errorf("%v", s.made)
		}
		time.Sleep(5 * time.Hour) // the server is off; one is due at once
		s.run(t, time.Minute)
		if got := names(t, dir); len(got) != 4 || !slices.Equal(got, s.made) {
			t.Errorf("%v, recorded %v", got, s.made)
		}
		s.barrier.Shut()
	})
}

// Only as many as should be are kept, and only files that are the schedule's own
// are ever removed. The newest one stays however old it is.
func TestRetention(t *testing.T) {
	for name, c := range map[string]struct {
		keep    int
		keepFor time.Duration
		left    int
	}{"count": {keep: 3, left: 3}, "age": {keepFor: 150 * time.Minute, left: 3}, "both": {keep: 5, keepFor: 90 * time.Minute, left: 2}, "one": {keep: 1, left: 1}, "short": {keepFor: time.Minute, left: 1}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			foreign := []string{
				"notes.txt", "coffer-20200101T000000Z-12345678-r1.backup.gz", "coffer-2020-12345678-r1.backup", "mine.backup",
				"coffer-20200101T000000Z-1234567g-r1.backup", ".coffer-backup-x.unfinished", "coffer-99999999T999999Z-12345678-r1.backup",
			}
			for _, f := range foreign {
				must(t, os.WriteFile(filepath.Join(dir, f), nil, 0o600))
			}
			must(t, os.Mkdir(filepath.Join(dir, "coffer-20200101T000000Z-12345678-r1.backup"), 0o700))
			must(t, os.Symlink("notes.txt", filepath.Join(dir, "coffer-20200102T000000Z-12345678-r1.backup")))
			synced(t, func(t *testing.T) {
				s := newScheduled(t, backup.Plan{Directory: dir, Every: time.Hour, Keep: c.keep, KeepFor: c.keepFor})
				s.run(t, 7*time.Hour+time.Minute)
				all := names(t, dir)
				if n := len(all) - len(foreign) - 2; n != c.left || len(s.made) != 8 {
					t.Errorf("%d of %d are left: %v", n, len(s.made), all)
				}
				for _, f := range append(foreign, s.made[7]) {
					if !slices.Contains(all, f) {
						t.Errorf("%s was removed", f)
					}
				}
				s.barrier.Shut()
			})
		})
	}
}

// What a crash left of an unfinished backup is removed a day later.
func TestUnfinishedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	old, young := ".coffer-backup-"+strings.Repeat("A", 26)+".unfinished", ".coffer-backup-"+strings.Repeat("B", 26)+".unfinished"
	for _, f := range []string{old, young} {
		must(t, os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o600))
	}
	must(t, os.Chtimes(filepath.Join(dir, old), time.Now().Add(-48*time.Hour), time.Now().Add(-48*time.Hour)))
	s := newScheduled(t, backup.Plan{Directory: dir, Every: time.Hour, Keep: 1})
	s.run(t, time.Second)
	if got := names(t, dir); slices.Contains(got, old) || !slices.Contains(got, young) || len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// A failure is recorded, shows, leaves nothing behind, and is tried again sooner
// than the next backup would be due; a success clears it.
func TestScheduleFails(t *testing.T) {
	dir := t.TempDir()
	synced(t, func(t *testing.T) {
		s := newScheduled(t, backup.Plan{Directory: dir, Every: 24 * time.Hour, Keep: 2})
		s.refuse = errors.New("the audit log is full")
		s.run(t, 10*time.Minute) // after a second, two, four, and so on
		if st := s.status(t); st.Failures < 8 || st.Failures > 12 || !strings.Contains(st.Error, "audit log is full") || len(s.failures) != st.Failures {
			t.Errorf("%+v, %d recorded", st, len(s.failures))
		}
		if left := names(t, dir); len(left) != 0 {
			t.Errorf("%v are left", left)
		}
		s.refuse = nil
		s.run(t, 10*time.Minute)
		if st := s.status(t); st.Failures != 0 || st.Error != "" || st.Last == nil {
			t.Errorf("%+v", st)
		}
		s.barrier.Shut()
	})
}

// A store that is damaged is not taken for one that is backed up.
func TestScheduleProvesWhatItWrote(t *testing.T) {
	dir := t.TempDir()
	synced(t, func(t *testing.T) {
		s := newScheduled(t, backup.Plan{Directory: dir, Every: time.Hour, Keep: 2})
		_, err := s.barrier.Update(t.Context(), func(txn storage.Txn) error { return txn.Put("core/x", []byte("y")) })
		must(t, err)
		_, err = s.engine.Update(t.Context(), put("core/x", "not what was written"))
		must(t, err)
		s.run(t, time.Second/2)
		if st := s.status(t); st.Failures == 0 || !strings.Contains(st.Error, "core/x") || len(names(t, dir)) != 0 {
			t.Errorf("%+v, %v", st, names(t, dir))
		}
		s.barrier.Shut()
	})
}

// A denser schedule holds at once, a thinner one after the next backup.
func TestScheduleIsChanged(t *testing.T) {
	dir := t.TempDir()
	synced(t, func(t *testing.T) {
		s := newScheduled(t, backup.Plan{Directory: dir, Every: 24 * time.Hour, Keep: 100})
		s.run(t, time.Hour)
		s.Plan.Every = time.Hour
		s.run(t, 2*time.Hour+time.Minute)
		if len(s.made) != 3 {
			t.Errorf("%v", s.made)
		}
		s.Plan.Every = 24 * time.Hour
		s.run(t, 24*time.Hour)
		if len(s.made) != 4 {
			t.Errorf("%v", s.made)
		}
		s.barrier.Shut()
	})
}

// node returns another node's view of a store, through an engine of its own.
func (st *store) node(t *testing.T, e storage.Engine) *store {
	t.Helper()
	b := barrier.New(e, slog.New(slog.DiscardHandler))
	must(t, b.Open(t.Context(), st.root))
	return &store{engine: e, barrier: b, root: st.root, seals: st.seals}
}

// Of several nodes one makes each backup, and all know of it.
func TestNodesTakeTurns(t *testing.T) {
	shared := t.TempDir()
	synced(t, func(t *testing.T) {
		st := newStore(t, memory.New())
		var nodes []*scheduled
		var work sync.WaitGroup
		for i := range 3 {
			s := st.node(t, st.engine).scheduled(fmt.Sprint("node-", i), backup.Plan{Directory: shared, Every: time.Hour, Keep: 100})
			nodes = append(nodes, s)
			work.Go(func() { s.run(t, time.Duration(i+3)*time.Hour+30*time.Minute) }) // they leave one by one
		}
		work.Wait()
		n := 0
		for _, s := range nodes {
			n += len(s.made)
			if got, want := s.status(t), nodes[0].status(t); got.Last == nil || *got.Last != *want.Last || got.Next != want.Next {
				t.Errorf("%s says %+v, another %+v", s.Node, got, want)
			}
		}
		if n != 6 || len(names(t, shared)) != 6 {
			t.Errorf("%d backups, %v", n, names(t, shared))
		}
		for _, s := range nodes {
			s.barrier.Shut()
		}
		st.barrier.Shut()
	})
}

// pausing is a node's engine that stands still once, at one of the calls that
// come after it was armed, and the node with it.
type pausing struct {
	storage.Engine
	mu    sync.Mutex
	at    int // the call
	until time.Time
}

func (p *pausing) step() {
	p.mu.Lock()
	if p.at--; p.at == 0 {
		p.until = time.Now().Add(10 * time.Minute)
	}
	wait := time.Until(p.until)
	p.mu.Unlock()
	time.Sleep(wait)
}

func (p *pausing) View(ctx context.Context, fn func(storage.Reader) error) error {
	p.step()
	defer p.step()
	return p.Engine.View(ctx, fn)
}

func (p *pausing) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	p.step()
	defer p.step()
	return p.Engine.Update(ctx, fn)
}

// A node that stands still in the middle of a backup is overtaken by another, and
// makes none when it wakes up, but for one whose file was there already.
func TestANodeStopsInABackup(t *testing.T) {
	twice, stopped := 0, 0
	for at := 1; at < 60; at += 1 {
		dir := t.TempDir()
		synced(t, func(t *testing.T) {
			st := newStore(t, memory.New())
			st.fill(t, 60, 1000)
			slow := &pausing{Engine: st.engine}
			a := st.node(t, slow).scheduled("a", backup.Plan{Directory: dir, Every: time.Hour, Keep: 100})
			b := st.node(t, st.engine).scheduled("b", a.Plan)
			slow.at = at
			var work sync.WaitGroup
			work.Go(func() { a.run(t, 50*time.Minute) })
			time.Sleep(30 * time.Second)
			work.Go(func() { b.run(t, 50*time.Minute) })
			work.Wait()
			if !slow.until.IsZero() {
				stopped++
			}
			files := names(t, dir)
			switch len(files) {
			case 1:
			case 2:
				twice++
			default:
				t.Errorf("step %d: %v", at, files)
			}
			if st := b.status(t); st.Last == nil || len(a.made)+len(b.made) != len(files) {
				t.Errorf("step %d: %+v; a made %v, b %v, there is %v", at, st, a.made, b.made, files)
			}
			a.barrier.Shut()
			b.barrier.Shut()
			st.barrier.Shut()
		})
	}
	t.Logf("stopped at %d steps; %d times there were two files", stopped, twice)
	if stopped < 50 || twice > 4 {
		t.Errorf("stopped at %d steps; %d times there were two files", stopped, twice)
	}
}
