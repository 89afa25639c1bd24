package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
)

// Plan says where backups go, how often, and how long they are kept.
type Plan struct {
	Directory string
	Every     time.Duration
	Keep      int           // this many; 0 is no bound
	KeepFor   time.Duration // those younger than this; 0 is no bound
}

// Done is a backup that was made and proven.
type Done struct {
	Node     string        `json:"node"` // that made it
	File     string        `json:"file"`
	Finished time.Time     `json:"finished"`
	Took     time.Duration `json:"took"`
	Bytes    uint64        `json:"bytes"`
	Rows     uint64        `json:"rows"`
	SHA256   string        `json:"sha256"`
}

// Status is how a schedule stands, the same on every node. Its zero value is that
// of no schedule.
type Status struct {
	Directory string
	Every     time.Duration
	Next      time.Time
	Last      *Done
	Failures  int    // since the last success
	Error     string // of the last try, "" after a success; a few hundred bytes at most
}

// Scheduler makes backups when they are due: a job of which the nodes of a store
// do each one once, whichever of them has a schedule. A node that dies between
// the file's appearance and the note that it is there leaves one too many.
type Scheduler struct {
	Plan    Plan
	From    Source
	Barrier *barrier.Barrier
	Node    string // the name of this node
	Log     *slog.Logger
	// Record puts a backup, or its failure, into the audit log; an error fails the
	// backup, and its file is removed.
	Record func(ctx context.Context, sum *Summary, file string, failed error) error

	queue *job.Queue
}

const (
	jobID = "store" // the one job of its kind
	// Rows of the schedule: when a backup was begun, and the last that was done.
	prefix   = "core/backups/"
	begunKey = prefix + "begun"
	lastKey  = prefix + "last"
	longest  = 24 * time.Hour // that one may take
)

// Join has w make the backups. It is called before w runs.
func (s *Scheduler) Join(ctx context.Context, w *job.Workers) (err error) {
	s.queue, err = w.Add(job.Kind{
		Name: "backup", Doc: "Makes the backups of a schedule.",
		Run: s.run, Timeout: longest, MaxBackoff: min(time.Hour, s.Plan.Every),
	})
	if err != nil {
		return err
	}
	_, err = s.Barrier.Update(ctx, s.begin)
	return err
}

// begin makes the first backup due at once, and one sooner where the schedule is
// denser than it was.
func (s *Scheduler) begin(t storage.Txn) error {
	next, found, err := s.queue.Due(t, jobID)
	latest := time.Now().Add(s.Plan.Every)
	switch {
	case err != nil:
		return err
	case !found:
		return s.queue.Schedule(t, jobID, time.Now())
	case next.After(latest):
		return s.queue.Schedule(t, jobID, latest)
	}
	return nil
}

// Status says how the schedule stands.
func (s *Scheduler) Status(ctx context.Context) (Status, error) {
	st := Status{Directory: s.Plan.Directory, Every: s.Plan.Every}
	err := s.Barrier.View(ctx, func(r storage.Reader) (err error) {
		if st.Next, _, err = s.queue.Due(r, jobID); err != nil {
			return err
		}
		row, err := r.Get(lastKey)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err == nil {
			err = json.Unmarshal(row, &st.Last)
		}
		return err
	})
	if err != nil {
		return Status{}, err
	}
	failing, err := s.queue.Failing(ctx, "", 1)
	if len(failing) > 0 {
		st.Failures, st.Error = failing[0].Tries, failing[0].Error
	}
	return st, err
}

// run does the job. Other nodes may have their own plans; this node's holds.
func (s *Scheduler) run(ctx context.Context, c *job.Claim, jobs []job.Job) error {
	j := jobs[0]
	done, err := s.make(ctx, c)
	if err != nil {
		s.failed(ctx, err, j.Tries+1)
		return err
	}
	row, err := json.Marshal(done)
	if err != nil {
		return err
	}
	next := j.Due.Add(s.Plan.Every)
	if now := time.Now(); !next.After(now) {
		next = now.Add(s.Plan.Every)
	}
	_, err = c.Update(ctx, func(t *job.Txn) error {
		if err := t.Put(lastKey, row); err != nil {
			return err
		}
		return t.Again(j, next)
	})
	return err
}

// failed records a failure that is the backup's own.
func (s *Scheduler) failed(ctx context.Context, err error, failures int) {
	if ctx.Err() != nil || errors.Is(err, errNotWhole) || errors.Is(err, job.ErrClaimLost) {
		return
	}
	s.Log.Error("a scheduled backup failed", "directory", s.Plan.Directory, "failures", failures, "error", err)
	if errors.Is(err, storage.ErrUnavailable) {
		return // there will be many until the engine is back
	}
	if err := s.Record(ctx, nil, s.Plan.Directory, err); err != nil {
		s.Log.Error("the failure of a backup is not in the audit log", "error", err)
	}
}

// make makes one backup, proves it, and removes what need not be kept.
func (s *Scheduler) make(ctx context.Context, c *job.Claim) (*Done, error) {
	begun := time.Now().UTC()
	// It is noted first, so that a store that takes no writes, and could not note
	// later that this backup is there, does not have it made again and again.
	_, err := c.Update(ctx, func(t *job.Txn) error { return t.Put(begunKey, []byte(begun.Format(time.RFC3339)+" "+s.Node)) })
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Plan.Directory, 0o700); err != nil {
		return nil, err
	}
	if err := removeUnfinished(s.Plan.Directory); err != nil {
		return nil, err
	}
	sum, file, err := s.write(ctx, c)
	if err != nil {
		return nil, err
	}
	done := &Done{Node: s.Node, File: file, Finished: time.Now().UTC(), Took: time.Since(begun), Bytes: sum.Bytes, Rows: sum.Rows, SHA256: sum.SHA256}
	s.Log.Info("a backup was made and proven", "file", file, "bytes", sum.Bytes, "rows", sum.Rows, "took", done.Took, "sha256", sum.SHA256)
	removed, err := retain(s.Plan, time.Now())
	for _, name := range removed {
		s.Log.Info("an old backup was removed", "file", filepath.Join(s.Plan.Directory, name))
	}
	if err != nil {
		// The backup is there; that the old ones are too does it no harm.
		s.Log.Error("old backups cannot be removed", "directory", s.Plan.Directory, "error", err)
	}
	return done, nil
}

// write makes a file that appears under its name only when it is whole, on the
// disk, proven and recorded, and the claim on making it still holds.
func (s *Scheduler) write(ctx context.Context, c *job.Claim) (sum Summary, path string, err error) {
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
	if _, err := c.Update(ctx, func(*job.Txn) error { return nil }); err != nil {
		return sum, "", err
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
