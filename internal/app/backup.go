package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/config"
	"github.com/cofferhq/coffer/internal/metrics"
	"github.com/cofferhq/coffer/internal/seal"
)

// backupSource is what archives say of this server.
func (s *Server) backupSource() backup.Source {
	return backup.Source{Coffer: s.version.Coffer, Engine: s.cfg.Storage.Kind}
}

// writeBackup writes an archive of the open store.
func (s *Server) writeBackup(ctx context.Context, w io.Writer) (backup.Summary, error) {
	return backup.Write(ctx, s.barrier, s.backupSource(), w, nil)
}

// backups says how the backups on a schedule stand.
func (s *Server) backups(ctx context.Context) (backup.Status, error) {
	if r := s.getRunning(); r != nil && r.backups != nil {
		return r.backups.Status(ctx)
	}
	return backup.Status{}, nil
}

// scheduleBackups has the workers make the configured backups, if there are any.
func (s *Server) scheduleBackups(ctx context.Context, r *running) error {
	c := s.cfg.Backup
	if c.Directory == "" {
		return nil
	}
	r.backups = &backup.Scheduler{
		Plan: backup.Plan{Directory: c.Directory, Every: c.Every, Keep: c.Keep, KeepFor: c.KeepFor},
		From: s.backupSource(), Barrier: s.barrier, Node: s.nodeID, Log: s.log, Record: s.recordBackup,
	}
	return r.backups.Join(ctx, r.Jobs)
}

// recordBackup puts a scheduled backup into the audit log.
func (s *Server) recordBackup(ctx context.Context, sum *backup.Summary, file string, failed error) error {
	e := &audit.Entry{Type: audit.Event, Event: "backup-made", Subject: audit.Subject{Path: file}}
	if failed != nil {
		e.Event, e.Error = "backup-failed", failed.Error()
	} else {
		e.Subject.Version = int(sum.Header.Revision)
		e.Subject.Label = fmt.Sprintf("%d rows, %d bytes", sum.Rows, sum.Bytes)
		e.Subject.Fingerprint = "sha256:" + sum.SHA256
	}
	return s.audit.Append(context.WithoutCancel(ctx), e)
}

// noticeRestore says, and records, that the store was put back to an earlier
// state: the audit log goes on from where it was, and may tell of changes that
// the store no longer has.
func (s *Server) noticeRestore(ctx context.Context) error {
	return backup.TakeNotice(ctx, s.engine, func(n backup.Notice) error {
		s.log.Warn("the store was restored from a backup: what was changed after it is gone, and tokens that were revoked after it are valid again unless they were left behind",
			"made", n.Created, "revision", uint64(n.Revision), "sha256", n.Archive, "restored", n.Finished, "tokens_revoked", n.RevokeTokens)
		label := "made " + n.Created.Format(time.RFC3339) + ", restored " + n.Finished.Format(time.RFC3339)
		if n.RevokeTokens {
			label += ", tokens revoked"
		}
		return s.audit.Append(ctx, &audit.Entry{Type: audit.Event, Event: "restored", Subject: audit.Subject{
			Path: "backup", Version: int(n.Revision), Label: label, Fingerprint: "sha256:" + n.Archive,
		}})
	})
}

// figuresBound is how long metrics wait for what they read from the store.
const figuresBound = time.Second

func (s *Server) backupFigures() metrics.Backup {
	out := metrics.Backup{Scheduled: s.cfg.Backup.Directory != ""}
	ctx, cancel := context.WithTimeout(context.Background(), figuresBound)
	defer cancel()
	st, err := s.backups(ctx)
	if err != nil {
		return metrics.Backup{} // unknown
	}
	out.Failures = st.Failures
	if st.Last != nil {
		out.Last, out.Bytes, out.Took = st.Last.Finished, st.Last.Bytes, st.Last.Took
	}
	return out
}

// Offline is the storage and the seals of a configuration whose server does not
// run.
type Offline struct{ server *Server }

// NewOffline opens nothing yet.
func NewOffline(cfg *config.Config, log *slog.Logger) *Offline {
	return &Offline{&Server{cfg: cfg, log: log, dataDir: cfg.DataDir, store: filepath.Join(cfg.Storage.Path, "store")}}
}

// Seals returns the configured seals that can be opened without people, and why
// the others cannot.
func (o *Offline) Seals(ctx context.Context) (seals []seal.Named, err error) {
	for _, c := range o.server.openSeals(ctx) {
		if c.Err != nil {
			err = errors.Join(err, fmt.Errorf("seal %q: %w", c.Name, c.Err))
		}
		if c.Seal != nil {
			seals = append(seals, c.Named)
		}
	}
	return seals, err
}

// Restore writes a proven archive into the storage.
func (o *Offline) Restore(ctx context.Context, proof *backup.Proof, archive io.Reader, how backup.Restore) (err error) {
	e, err := o.server.openStorage(ctx)
	if err != nil {
		return fmt.Errorf("open the storage: %w", err)
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return proof.Into(ctx, e, archive, how)
}
