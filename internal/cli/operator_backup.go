package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/backup"
)

func (s *shell) backupCommand() *cobra.Command {
	var loud bool
	cmd := &cobra.Command{
		Use: "backup FILE | -", Args: exactly(1),
		Short: "Write an encrypted archive of everything, while the server serves.",
		Long: `Write an encrypted archive of everything as it is at this moment, while the server
serves. Any seal that opens the server today opens the archive, and nothing else
does: keep the seal's key, or the key shares, apart from it. The audit log is not
in it; it is files of its own.

The file appears under its name only when it is whole, with mode 0600; one that is
there is not replaced. With - the archive goes to standard output, for a pipe.`,
		Example: "  coffer operator backup coffer.backup\n  coffer operator backup - >/mnt/elsewhere/coffer.backup",
		RunE:    func(cmd *cobra.Command, args []string) error { return s.backup(cmd.Context(), args[0], loud) },
	}
	cmd.Flags().BoolVar(&loud, "progress", false, "say how far it is also where standard output is no terminal")
	return cmd
}

// backupReport is what backup tells a machine.
type backupReport struct {
	File     string    `json:"file"`
	Created  time.Time `json:"created"`
	Store    string    `json:"store"`
	Revision uint64    `json:"revision"`
	Rows     uint64    `json:"rows"`
	Bytes    uint64    `json:"bytes"`
	SHA256   string    `json:"sha256"`
}

func reportOf(file string, sum *backup.Summary) *backupReport {
	return &backupReport{
		File: file, Created: sum.Header.Created, Store: backup.Fingerprint(&sum.Header.Seals),
		Revision: uint64(sum.Header.Revision), Rows: sum.Rows, Bytes: sum.Bytes, SHA256: sum.SHA256,
	}
}

func (s *shell) backup(ctx context.Context, file string, loud bool) error {
	if file == "-" {
		if s.Terminal {
			return usage("an archive is not for a terminal; name a file, or pipe it into something")
		}
		_, err := s.download(ctx, s.Stdout, loud)
		return err
	}
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s is there already; name another file", file)
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	sum, err := s.download(ctx, f, loud)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// A link, unlike a rename, replaces nothing.
	if err := os.Link(f.Name(), file); err != nil {
		return err
	}
	if err := syncDirectory(filepath.Dir(file)); err != nil {
		return err
	}
	return s.value(reportOf(file, sum), func() error {
		return s.say("Success! %s holds %s of the store %s as of %s.\nSHA-256: %s\nProve that it can be restored: coffer operator backup-verify -config=FILE %s",
			file, plural(sum.Rows, "row"), backup.Fingerprint(&sum.Header.Seals), sum.Header.Created.Format(time.RFC3339), sum.SHA256, file)
	})
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// download copies an archive from the server, and checks on the way that it is
// whole.
func (s *shell) download(ctx context.Context, to io.Writer, loud bool) (*backup.Summary, error) {
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	p := s.progress("backup", loud)
	pr, pw := io.Pipe()
	checked := make(chan error, 1)
	var sum backup.Summary
	go func() {
		var err error
		sum, err = backup.Check(pr, p.say)
		pr.CloseWithError(err)
		checked <- err
	}()
	err = c.Stream(ctx, client.Request{Path: "sys/backup", WrapTTL: -1}, io.MultiWriter(to, pw))
	pw.CloseWithError(err)
	wrong := <-checked
	if err != nil {
		return nil, refused(err)
	}
	if wrong != nil {
		return nil, fmt.Errorf("what the server sent is no whole archive: %w", wrong)
	}
	p.done(&sum)
	return &sum, nil
}

func (s *shell) backupStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup-status", Args: exactly(0),
		Short:   "Show how the scheduled backups stand.",
		Long:    "Show how the scheduled backups stand, the same on every node. The exit code is 2 after a failure.",
		Example: "  coffer operator backup-status",
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := s.do(cmd.Context(), client.Request{Path: "sys/backup/status"})
			if err != nil {
				return err
			}
			var st struct {
				Scheduled bool           `json:"scheduled"`
				Directory string         `json:"directory"`
				Every     client.Seconds `json:"every"`
				Next      time.Time      `json:"next"`
				Failures  int            `json:"failures"`
				Error     string         `json:"error"`
				Last      *struct {
					Node     string    `json:"node"`
					File     string    `json:"file"`
					Finished time.Time `json:"finished"`
					Bytes    uint64    `json:"bytes"`
				} `json:"last"`
			}
			if err := answer.Decode(&st); err != nil {
				return err
			}
			err = s.asTable(answer, func() error {
				if !st.Scheduled {
					return s.say("No backups are scheduled: the configuration has no backup block.")
				}
				rows := [][]string{{"Directory", st.Directory}, {"Every", st.Every.Duration().String()}, {"Next", shownTime(st.Next)}}
				if st.Last != nil {
					rows = append(rows, []string{"Last", shownTime(st.Last.Finished)}, []string{"Node", st.Last.Node}, []string{"File", st.Last.File}, []string{"Size", byteCount(st.Last.Bytes)})
				} else {
					rows = append(rows, []string{"Last", "never"})
				}
				if st.Failures > 0 {
					rows = append(rows, []string{"Failures", strconv.Itoa(st.Failures)}, []string{"Error", st.Error})
				}
				return s.table(keyValue, rows)
			})
			if err == nil && st.Failures > 0 {
				err = &exit{code: exitRefused}
			}
			return err
		},
	}
}

func shownTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
