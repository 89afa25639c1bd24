package cli

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/internal/app"
	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/config"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/shamir"
)

// exitDamaged is the code for an archive that is not what was written; exitLocal
// is that of one that cannot be opened here.
const exitDamaged = 2

// archiveFlags say how an archive is opened.
type archiveFlags struct {
	config   []string
	shares   string
	progress bool
}

func (f *archiveFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.config, "config", nil, "configuration file of the server, which names storage and seals; may be given several times")
	flags.StringVar(&f.shares, "shares", "", "file with key shares, one on each line, for an archive that only people's shares open; without it they are asked for")
	flags.BoolVar(&f.progress, "progress", false, "say how far it is also where standard output is no terminal")
}

func (s *shell) backupVerifyCommand() *cobra.Command {
	var f archiveFlags
	cmd := &cobra.Command{
		Use: "backup-verify ARCHIVE | -", Args: exactly(1),
		Short: "Prove that an archive can be restored.",
		Long: `Prove that an archive can be restored: a configured seal, or key shares, open it,
it is whole, and every row in it decrypts. Nothing is written. Without -config and
-shares only its checksum is looked at, which finds accidents and no forgery.

The exit code is 0 for an archive that is proven, 2 for one that is damaged or cut
short, and 1 for one that cannot be opened here.`,
		Example: "  coffer operator backup-verify -config=/etc/coffer/coffer.hcl coffer.backup\n  coffer operator backup-verify coffer.backup",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.verifyBackup(cmd.Context(), args[0], &f)
		},
	}
	f.add(cmd)
	return cmd
}

func (s *shell) restoreCommand() *cobra.Command {
	var f archiveFlags
	var how backup.Restore
	cmd := &cobra.Command{
		Use: "restore ARCHIVE | -", Args: exactly(1),
		Short: "Restore an archive into the empty storage of a server that does not run.",
		Long: `Restore an archive into the storage that a configuration names, which must be
empty, whatever engine it is: moving to another engine is a backup and a restore.
The whole archive is proven before anything is written. A restore that was
interrupted leaves a store that no server opens; run it again to finish it.

What was changed after the archive was made is gone: tokens that were revoked since
are valid again, unless -revoke-tokens leaves all tokens behind; then people log in
again, and coffer operator generate-root makes a root token.`,
		Example: "  coffer operator restore -config=/etc/coffer/coffer.hcl coffer.backup\n  coffer operator restore -config=new.hcl -revoke-tokens coffer.backup",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(f.config) == 0 {
				return usage("say with -config=FILE which server's storage the archive is for")
			}
			return s.restore(cmd.Context(), args[0], &f, how)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&how.RevokeTokens, "revoke-tokens", false, "leave every token behind")
	return cmd
}

// verifyReport is what backup-verify and restore tell a machine.
type verifyReport struct {
	backupReport
	Proven bool     `json:"proven"` // false where only the checksum was looked at
	Lost   uint64   `json:"lost"`   // rows of disabled mounts, which nothing reads any more
	Seals  []string `json:"seals"`  // names of the seals that open it
}

func newVerifyReport(file string, sum *backup.Summary, proven bool, lost uint64) *verifyReport {
	out := &verifyReport{backupReport: *reportOf(file, sum), Proven: proven, Lost: lost}
	for _, w := range sum.Header.Seals.Seals {
		out.Seals = append(out.Seals, w.Name)
	}
	return out
}

func (s *shell) verifyBackup(ctx context.Context, file string, f *archiveFlags) error {
	in, err := s.openArchive(file)
	if err != nil {
		return err
	}
	defer in.Close()
	p := s.progress("verify", f.progress)
	if len(f.config) == 0 && f.shares == "" {
		sum, err := backup.Check(in, p.say)
		if err != nil {
			return judged(err)
		}
		return s.value(newVerifyReport(file, &sum, false, 0), func() error {
			return s.say("Whole: %s, made %s of the store %s. Its checksum is right.\nWhether a seal opens it, and every row decrypts, is proven with -config or -shares.",
				plural(sum.Rows, "row"), sum.Header.Created.Format(time.RFC3339), backup.Fingerprint(&sum.Header.Seals))
		})
	}
	_, proof, err := s.prove(ctx, in, f, p)
	if err != nil {
		return err
	}
	p.done(&proof.Summary)
	return s.value(newVerifyReport(file, &proof.Summary, true, proof.Lost), func() error {
		return s.say("Proven: %s, made %s of the store %s, can be restored.",
			plural(proof.Rows, "row"), proof.Header.Created.Format(time.RFC3339), backup.Fingerprint(&proof.Header.Seals))
	})
}

// judged gives an archive that is not what was written its exit code.
func judged(err error) error {
	for _, wrong := range []error{backup.ErrCut, backup.ErrDamaged, backup.ErrNoArchive} {
		if errors.Is(err, wrong) {
			return &exit{exitDamaged, err}
		}
	}
	return err
}

func (s *shell) openArchive(file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(s.Stdin), nil
	}
	return os.Open(file)
}

// prove proves an archive with the seals of a configuration, or with key shares.
func (s *shell) prove(ctx context.Context, in io.Reader, f *archiveFlags, p *meter) (*app.Offline, *backup.Proof, error) {
	var offline *app.Offline
	var seals []seal.Named
	var closed error
	if len(f.config) > 0 {
		cfg, err := config.Load(config.Source{Paths: f.config, Getenv: s.Getenv})
		if err != nil {
			return nil, nil, err
		}
		offline = app.NewOffline(cfg, slog.New(slog.DiscardHandler))
		seals, closed = offline.Seals(ctx)
	}
	proof, err := backup.Verify(ctx, in, func(ctx context.Context, h *backup.Header) ([]byte, error) {
		root, _, err := h.Seals.Unwrap(ctx, seals)
		if err == nil {
			return root, nil
		}
		err = errors.Join(err, closed)
		for _, w := range h.Seals.Seals {
			if w.Kind == shamir.Name {
				root, shared := s.byShares(ctx, h, w.Name, f)
				return root, errors.Join(shared, ifFailed(shared, err))
			}
		}
		return nil, err
	}, p.say)
	return offline, proof, judged(err)
}

func ifFailed(failed, err error) error {
	if failed == nil {
		return nil
	}
	return err
}

// byShares opens an archive with people's key shares.
func (s *shell) byShares(ctx context.Context, h *backup.Header, name string, f *archiveFlags) ([]byte, error) {
	if h.Seals.Shares == nil {
		return nil, errors.New("it does not say how many key shares open it")
	}
	texts, err := s.shareTexts(f.shares, h.Seals.Shares.Threshold)
	if err != nil {
		return nil, err
	}
	var shares [][]byte
	for _, text := range texts {
		share, err := decodeShare(text)
		if err != nil {
			return nil, err
		}
		defer clear(share)
		shares = append(shares, share)
	}
	if n := h.Seals.Shares.Threshold; len(shares) < n {
		return nil, fmt.Errorf("%d key shares are needed, and %d were given", n, len(shares))
	}
	key, err := shamir.Combine(shares)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	opened, err := shamir.Open(key)
	if err != nil {
		return nil, err
	}
	root, _, err := h.Seals.Unwrap(ctx, []seal.Named{{Name: name, Kind: shamir.Name, Seal: opened}})
	return root, err
}

// shareTexts reads key shares from a file, or asks for as many as are needed.
func (s *shell) shareTexts(file string, threshold int) ([]string, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		return strings.Fields(string(text)), err
	}
	var out []string
	for n := range threshold {
		share, _, err := s.keyShare(nil, fmt.Sprintf("Unseal Key %d of %d (will be hidden): ", n+1, threshold))
		if err != nil {
			return nil, fmt.Errorf("key shares open this archive: %w; or name a file with them by -shares", err)
		}
		out = append(out, share.Reveal())
	}
	return out, nil
}

// decodeShare reads a share in hex or base64.
func decodeShare(text string) ([]byte, error) {
	if b, err := hex.DecodeString(text); err == nil {
		return b, nil
	}
	if b, err := base64.StdEncoding.DecodeString(text); err == nil {
		return b, nil
	}
	return nil, errors.New("a key share is neither hex nor base64")
}

func (s *shell) restore(ctx context.Context, file string, f *archiveFlags, how backup.Restore) error {
	in, err := s.seekable(file)
	if err != nil {
		return err
	}
	defer in.Close()
	p := s.progress("verify", f.progress)
	offline, proof, err := s.prove(ctx, in, f, p)
	if err != nil {
		return err
	}
	p.done(&proof.Summary)
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	p = s.progress("restore", f.progress)
	how.Watch = p.say
	if err := offline.Restore(ctx, proof, in, how); err != nil {
		return err
	}
	p.done(&proof.Summary)
	return s.value(newVerifyReport(file, &proof.Summary, true, proof.Lost), func() error { return s.restored(proof, how) })
}

// seekable opens an archive that is read twice; what comes through a pipe is
// kept in a file that has no name.
func (s *shell) seekable(file string) (*os.File, error) {
	if file != "-" {
		return os.Open(file)
	}
	f, err := os.CreateTemp("", "coffer-restore-*") // mode 0600
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := io.Copy(f, s.Stdin); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the archive for its second reading: %w", err), f.Close())
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// restored says what was done, and what to know before the server starts.
func (s *shell) restored(p *backup.Proof, how backup.Restore) error {
	if err := s.say("Success! The store %s is as it was on %s: %s.",
		backup.Fingerprint(&p.Header.Seals), p.Header.Created.Format(time.RFC3339), plural(p.Rows, "row")); err != nil {
		return err
	}
	tokens := "Tokens that were revoked since are valid again; -revoke-tokens would have left all behind."
	if how.RevokeTokens {
		tokens = "No token is valid: log in, or make a root token with coffer operator generate-root."
	}
	if err := s.say("\n%s", tokens); err != nil {
		return err
	}
	for _, note := range p.AuditLogs {
		c, err := audit.ParseCheckpoint(note)
		if err != nil {
			s.warn("a checkpoint of the audit log in the archive cannot be read: %v", err)
			continue
		}
		if err := s.say("The audit log %s had %s then. A server that finds less of it beside this store\nopens only with accept_loss = %d in its audit block.", printable(c.Origin), plural(c.Size, "entry"), c.Size); err != nil {
			return err
		}
	}
	return s.say("\nStart the server: coffer server -config=FILE")
}
