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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

// scheduled is a schedule over a store of its own, and what it recorded.
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
	e := memory.New()
	s := &scheduled{store: newStore(t, e)}
	s.Scheduler = &backup.Scheduler{
		Plan: p, From: from, Barrier: s.barrier, Turn: backup.Alone, Log: slog.New(slog.DiscardHandler),
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

// run runs the schedule for some time.
func (s *scheduled) run(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := s.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
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
		if len(s.made) != 3 || s.Status().Failures != 0 || s.Status().Last.File != filepath.Join(dir, s.made[2]) {
			t.Errorf("%v, %+v", s.made, s.Status())
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
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	for s.Status().Last == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
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
		s.run(t, 3*time.Minute+30*time.Second) // at 0 min, 1 min, 3 min
		if st := s.Status(); st.Failures != 3 || !strings.Contains(st.Error, "audit log is full") || len(s.failures) != 3 {
			t.Errorf("%+v", st)
		}
		if left := names(t, dir); len(left) != 0 {
			t.Errorf("%v are left", left)
		}
		s.refuse = nil
		s.run(t, time.Minute)
		if st := s.Status(); st.Failures != 0 || st.Error != "" || st.Last == nil {
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
		s.run(t, time.Second)
		if st := s.Status(); st.Failures != 1 || !strings.Contains(st.Error, "core/x") || len(names(t, dir)) != 0 {
			t.Errorf("%+v, %v", st, names(t, dir))
		}
		s.barrier.Shut()
	})
}

// Of several nodes one makes each backup, and a node that loses its turn stops.
func TestTurns(t *testing.T) {
	shared := t.TempDir()
	synced(t, func(t *testing.T) {
		var taken sync.Map
		var nodes []*scheduled
		var work sync.WaitGroup
		for range 3 {
			s := newScheduled(t, backup.Plan{Directory: shared, Every: time.Hour, Keep: 100})
			s.Turn = func(ctx context.Context, due time.Time, do func(context.Context) error) (bool, error) {
				if _, other := taken.LoadOrStore(due.Unix()/60, true); other {
					return false, nil
				}
				return true, do(ctx)
			}
			nodes = append(nodes, s)
			work.Go(func() { s.run(t, 3*time.Hour+time.Minute) })
		}
		work.Wait()
		n := 0
		for _, s := range nodes {
			n += len(s.made)
			s.barrier.Shut()
		}
		if n != 4 || len(names(t, shared)) != 4 {
			t.Errorf("%d backups, %v", n, names(t, shared))
		}
	})
	own := t.TempDir()
	synced(t, func(t *testing.T) {
		s := newScheduled(t, backup.Plan{Directory: own, Every: time.Hour, Keep: 100})
		s.fill(t, 60, 50_000)
		lost := errors.New("another node has the turn")
		var asked atomic.Int32
		s.Turn = func(ctx context.Context, _ time.Time, do func(context.Context) error) (bool, error) {
			asked.Add(1)
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(lost)
			if err := do(ctx); err == nil {
				return true, fmt.Errorf("it went on")
			}
			return false, nil
		}
		s.run(t, time.Minute)
		if len(s.made) != 0 || asked.Load() != 1 || len(names(t, own)) != 0 {
			t.Errorf("%v made, %d asked, %v left", s.made, asked.Load(), names(t, own))
		}
		s.barrier.Shut()
	})
}
