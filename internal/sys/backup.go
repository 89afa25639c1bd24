package sys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// A backup changes nothing, and still an intent of it is recorded: it carries
// everything away. Restoring is not of the API: `coffer operator restore` writes
// into the storage of a server that does not run.
var backupRoutes = []route.Route[*System]{
	route.New("GET", "backup", "Stream an encrypted archive of everything, as of this moment.", (*System).backup,
		route.Sudo(), route.Changes(), route.Shows("backup", "", "")),
	route.New("GET", "storage/raft/snapshot", "Stream the same archive in the wrapping that Vault's clients look for.", (*System).snapshot,
		route.Sudo(), route.Changes(), route.Shows("storage/raft/snapshot", "", "")),
	route.New("GET", "backup/status", "Read how the scheduled backups of this node stand.", (*System).backupStatus),
}

// MaxBackups is how many archives may be streamed at a time.
const MaxBackups = 2

func (s *System) backup(context.Context, route.Caller, route.Nothing) (route.Stream, error) {
	return s.archive(func(ctx context.Context, w io.Writer) (backup.Summary, error) { return s.Backup(ctx, w) })
}

func (s *System) snapshot(context.Context, route.Caller, route.Nothing) (route.Stream, error) {
	return s.archive(func(ctx context.Context, w io.Writer) (backup.Summary, error) {
		z := backup.NewSnapshot(w)
		sum, err := s.Backup(ctx, z)
		if err == nil {
			err = z.Close()
		}
		return sum, err
	})
}

func (s *System) archive(write func(context.Context, io.Writer) (backup.Summary, error)) (route.Stream, error) {
	return route.Stream{ContentType: "application/octet-stream", Write: func(ctx context.Context, w io.Writer) (route.Subject, error) {
		if n := s.backups.Add(1); n > MaxBackups {
			s.backups.Add(-1)
			return route.Subject{}, &fault.Error{Kind: fault.Limited, Message: fmt.Sprintf("%d backups are being taken already; try again when one is done", MaxBackups), RetryAfter: 10 * time.Second}
		}
		defer s.backups.Add(-1)
		sum, err := write(ctx, w)
		if errors.Is(err, barrier.ErrRotating) {
			err = fault.Wrap(fault.Unavailable, err, "the root key is being rotated at this moment; try again")
		}
		return subjectOf(&sum), err
	}}, nil
}

// subjectOf is what the audit log says of an archive.
func subjectOf(sum *backup.Summary) route.Subject {
	out := route.Subject{
		Path: "backup", Version: int(sum.Header.Revision),
		Label: fmt.Sprintf("%d rows, %d bytes", sum.Rows, sum.Bytes),
	}
	if sum.SHA256 != "" {
		out.Fingerprint = "sha256:" + sum.SHA256
	}
	return out
}

// BackupStatus is how the scheduled backups stand, the same on every node.
type BackupStatus struct {
	Scheduled bool         `json:"scheduled" doc:"Whether the configuration of the node that answers asks for backups."`
	Directory string       `json:"directory,omitempty"`
	Every     wire.Seconds `json:"every,omitempty"`
	Next      time.Time    `json:"next,omitzero" doc:"When the next one is due."`
	Last      *BackupDone  `json:"last,omitempty" doc:"The last one that was made and proven, by whichever node."`
	Failures  int          `json:"failures" doc:"Failures since the last success."`
	Error     string       `json:"error,omitempty" doc:"Why the last try failed; empty after a success."`
}

// BackupDone is a backup that was made and proven.
type BackupDone struct {
	Node     string       `json:"node" doc:"The node that made it, and has the file."`
	File     string       `json:"file"`
	Finished time.Time    `json:"finished"`
	Took     wire.Seconds `json:"took"`
	Bytes    uint64       `json:"bytes"`
	Rows     uint64       `json:"rows"`
	SHA256   string       `json:"sha256"`
}

func (s *System) backupStatus(ctx context.Context, _ route.Caller, _ route.Nothing) (BackupStatus, error) {
	st, err := s.Backups(ctx)
	if err != nil {
		return BackupStatus{}, err
	}
	out := BackupStatus{Scheduled: st.Directory != "", Directory: st.Directory, Every: wire.Seconds(st.Every), Next: st.Next, Failures: st.Failures, Error: st.Error}
	if d := st.Last; d != nil {
		out.Last = &BackupDone{Node: d.Node, File: d.File, Finished: d.Finished, Took: wire.Seconds(d.Took), Bytes: d.Bytes, Rows: d.Rows, SHA256: d.SHA256}
	}
	return out, nil
}
