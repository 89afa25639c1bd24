package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
)

// Plan says where backups go, how often, and how long they are kept.
type Plan struct {
	Directory string
	Every     time.Duration
	Keep      int           // this many; 0 is no bound
	KeepFor   time.Duration // those younger than this; 0 is no bound
}

// Turn decides which node of a cluster makes a backup that is due. It calls work
// on the node whose turn it is, and returns whether it did; work's context ends
// when the turn is lost to another node. The error is work's own, or says why
// nobody can be asked. What nodes take for due differs by what lies in their
// directories: a Turn for several keeps for itself when the last one was made.
type Turn func(ctx context.Context, due time.Time, work func(context.Context) error) (mine bool, err error)

// Alone is the Turn of a node that is the only one.
func Alone(ctx context.Context, _ time.Time, work func(context.Context) error) (bool, error) {
	return true, work(ctx)
}

// Done is a backup that was made and proven.
type Done struct {
	File     string
	Finished time.Time
	Took     time.Duration // 0 for one that an earlier process made
	Bytes    uint64
	Rows     uint64 // 0 for one that an earlier process made
	SHA256   string // "" for one that an earlier process made
}

// Status is how a schedule stands. Its zero value is that of no schedule.
type Status struct {
	Directory string
	Every     time.Duration
	Next      time.Time
	Last      *Done
	Failures  int    // since the last success
	Error     string // of the last try, "" after a success
}

// Scheduler makes backups when they are due.
type Scheduler struct {
	Plan    Plan
	From    Source
	Barrier *barrier.Barrier
	Turn    Turn
	Log     *slog.Logger
	// Record puts a backup, or its failure, into the audit log; an error fails the
	// backup, and its file is removed.
	Record func(ctx context.Context, sum *Summary, file string, failed error) error

	mu     sync.Mutex
	status Status
}

// Pauses after a failure: a full disk or a lost engine is tried again before the
// next backup would be due.
const (
	retryFirst = time.Minute
	retryMost  = time.Hour
	retryNew   = time.Second // while the store is being initialized
)

// Status says how the schedule stands.
func (s *Scheduler) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run makes backups until ctx ends. What is due is told from the files that are
// there, so that a restart neither skips a backup nor makes one too many.
func (s *Scheduler) Run(ctx context.Context) error {
	next := s.begin()
	for failures := 0; ; {
		s.set(func(st *Status) { st.Next = next })
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(next)):
		}
		mine, err := s.Turn(ctx, next, s.Make)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errNotWhole):
			next = time.Now().Add(retryNew)
		case err != nil:
			failures++
			s.failed(ctx, err, failures)
			next = time.Now().Add(min(retryFirst<<min(failures-1, 6), retryMost, s.Plan.Every))
		default:
			failures = 0
			if !mine {
				s.set(func(st *Status) { st.Failures, st.Error = 0, "" })
			}
			if next = next.Add(s.Plan.Every); !next.After(time.Now()) {
				next = time.Now().Add(s.Plan.Every)
			}
		}
	}
}

// begin looks at what is there and returns when the next backup is due.
func (s *Scheduler) begin() time.Time {
	s.set(func(st *Status) { *st = Status{Directory: s.Plan.Directory, Every: s.Plan.Every} })
	files, err := list(s.Plan.Directory)
	if err != nil || len(files) == 0 {
		return time.Now()
	}
	newest := files[0]
	s.set(func(st *Status) {
		st.Last = &Done{File: filepath.Join(s.Plan.Directory, newest.name), Finished: newest.made, Bytes: newest.size}
	})
	return newest.made.Add(s.Plan.Every)
}

func (s *Scheduler) set(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

func (s *Scheduler) failed(ctx context.Context, err error, failures int) {
	s.set(func(st *Status) { st.Failures, st.Error = failures, err.Error() })
	s.Log.Error("a scheduled backup failed", "directory", s.Plan.Directory, "failures", failures, "error", err)
	if err := s.Record(ctx, nil, s.Plan.Directory, err); err != nil {
		s.Log.Error("the failure of a backup is not in the audit log", "error", err)
	}
}

// Make makes one backup, proves it, and removes what need not be kept. Run calls
// it when one is due; whoever decides that otherwise calls it in place of Run.
func (s *Scheduler) Make(ctx context.Context) error {
	begun := time.Now()
	if err := os.MkdirAll(s.Plan.Directory, 0o700); err != nil {
		return err
	}
	if err := removeUnfinished(s.Plan.Directory); err != nil {
		return err
	}
	sum, file, err := s.write(ctx)
	if err != nil {
		return err
	}
	done := &Done{File: file, Finished: time.Now().UTC(), Took: time.Since(begun), Bytes: sum.Bytes, Rows: sum.Rows, SHA256: sum.SHA256}
	s.set(func(st *Status) { st.Last, st.Failures, st.Error = done, 0, "" })
	s.Log.Info("a backup was made and proven", "file", file, "bytes", sum.Bytes, "rows", sum.Rows, "took", done.Took, "sha256", sum.SHA256)
	removed, err := retain(s.Plan, time.Now())
	for _, name := range removed {
		s.Log.Info("an old backup was removed", "file", filepath.Join(s.Plan.Directory, name))
	}
	if err != nil {
		// The backup is there; that the old ones are too does it no harm.
		s.Log.Error("old backups cannot be removed", "directory", s.Plan.Directory, "error", err)
	}
	return nil
}

// write makes a file that appears under its name only when it is whole, on the
// disk, proven and recorded.
func (s *Scheduler) write(ctx context.Context) (sum Summary, path string, err error) {
	f, err := os.OpenFile(filepath.Join(s.Plan.Directory, unfinishedName()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return sum, "", err
	}
	defer func() {
		if f.Close(); err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if sum, err = Write(ctx, s.Barrier, s.From, f, nil); err != nil {
		return sum, "", err
	}
	if err := f.Sync(); err != nil {
		return sum, "", err
	}
	if err := s.prove(ctx, f, &sum); err != nil {
		return sum, "", fmt.Errorf("the backup that was written is not what it should be: %w", err)
	}
	path = filepath.Join(s.Plan.Directory, nameOf(&sum.Header))
	if err := s.Record(ctx, &sum, path, nil); err != nil {
		return sum, "", err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return sum, "", err
	}
	return sum, path, syncDirectory(s.Plan.Directory)
}

func (s *Scheduler) prove(ctx context.Context, f io.ReadSeeker, sum *Summary) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	v, err := s.Barrier.Verifier()
	if err != nil {
		return err
	}
	p, err := Prove(ctx, f, v, nil)
	if err != nil {
		return err
	}
	if p.SHA256 != sum.SHA256 {
		return ErrAnother
	}
	return nil
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
