package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/internal/audit"
)

// exitTampered is the code of audit verify for a log that was changed; exitLocal
// is that of one that cannot be checked.
const exitTampered = 2

// progressEvery is how often a long verification says how far it is.
const progressEvery = 2 * time.Second

// auditReport is what audit verify tells a machine.
type auditReport struct {
	Intact      bool           `json:"intact"`
	Origin      string         `json:"origin"`
	Segments    int            `json:"segments"`
	Entries     uint64         `json:"entries"`
	Checkpoints int            `json:"checkpoints"`
	Signed      uint64         `json:"signed"`   // entries that a checkpoint proves
	Unsigned    uint64         `json:"unsigned"` // entries after it
	Torn        int64          `json:"torn"`     // bytes of an unfinished line at the end
	Problems    []auditProblem `json:"problems"`
}

// auditProblem is one thing that is wrong.
type auditProblem struct {
	Entry uint64 `json:"entry,omitempty"` // the first one concerned
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
	Text  string `json:"text"`
}

func (s *shell) auditVerifyCommand() *cobra.Command {
	var keys, checkpoints []string
	cmd := &cobra.Command{
		Use: "verify DIRECTORY", Args: exactly(1),
		Short: "Prove from files alone that nobody changed the audit log.",
		Long: `Prove from files alone that nobody changed the audit log: no entry was edited,
deleted, moved or cut off. It asks no server, and may run while one writes there or
on a copy. It needs the public key that coffer audit key printed, best long ago.

Who can write to the disk can cut the log's end together with the checkpoints that
lie beside it; only a checkpoint that was kept elsewhere shows that: -checkpoint.

The exit code is 0 where the log is intact, 2 where it was changed, and 1 where it
cannot be checked.`,
		Example: "  coffer audit verify -key=audit.pub /var/lib/coffer/audit\n  coffer audit verify -key=audit.pub -checkpoint=checkpoint.txt -format=json /mnt/copy/audit",
		RunE: func(_ *cobra.Command, args []string) error {
			report, err := s.verifyAudit(args[0], keys, checkpoints)
			if err != nil {
				return err
			}
			if err := s.value(shownReport(&report), func() error { return s.reportLines(&report) }); err != nil {
				return err
			}
			if !report.Intact() {
				return &exit{code: exitTampered}
			}
			return nil
		},
		ValidArgsFunction: completeDirectory,
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "the log's public key, or a file with it; may be given several times")
	cmd.Flags().StringArrayVar(&checkpoints, "checkpoint", nil, "a file with a checkpoint that was kept elsewhere; may be given several times")
	return cmd
}

func completeDirectory(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func (s *shell) verifyAudit(dir string, keys, checkpoints []string) (audit.Report, error) {
	none := audit.Report{}
	options := audit.VerifyOptions{}
	for _, key := range keys {
		text, err := keyOf(key)
		if err != nil {
			return none, err
		}
		options.PublicKeys = append(options.PublicKeys, text...)
	}
	if len(options.PublicKeys) == 0 {
		return none, usage("say the log's public key with -key; coffer audit key prints it")
	}
	for _, file := range checkpoints {
		note, err := os.ReadFile(file)
		if err != nil {
			return none, err
		}
		options.Checkpoints = append(options.Checkpoints, audit.Checkpoint{Note: note})
	}
	dir, err := logDirectory(dir)
	if err != nil {
		return none, err
	}
	if s.watched() {
		last := time.Now()
		options.Progress = func(entries uint64) {
			if time.Since(last) > progressEvery {
				last = time.Now()
				fmt.Fprintf(s.Stderr, "%s verified so far\n", plural(entries, "entry"))
			}
		}
	}
	report, err := audit.Verify(dir, options)
	if err == nil && report.Segments == 0 && report.Intact() {
		err = fmt.Errorf("%s holds no audit log", dir)
	}
	return report, err
}

// watched reports whether a person sees what goes on.
func (s *shell) watched() bool { return s.Terminal && !s.global.nonInteractive }

// keyOf returns the public keys in an argument, which is a key or a file with one
// on each line.
func keyOf(arg string) ([]string, error) {
	content, err := os.ReadFile(arg)
	if errors.Is(err, os.ErrNotExist) && strings.Count(arg, "+") >= 2 {
		return []string{arg}, nil // NAME+ID+KEY
	}
	if err != nil {
		return nil, fmt.Errorf("-key: %w", err)
	}
	keys := strings.Fields(string(content))
	if len(keys) == 0 {
		return nil, fmt.Errorf("-key: %s is empty", arg)
	}
	return keys, nil
}

// logDirectory returns the directory with the log's files: the one that is named,
// or audit in it, where that is a server's.
func logDirectory(dir string) (string, error) {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", fmt.Errorf("%s is a file; name the directory that the log's segments are in", dir)
	}
	if below := filepath.Join(dir, "audit"); !audit.Holds(dir) && audit.Holds(below) {
		return below, nil
	}
	return dir, nil
}

func shownReport(r *audit.Report) auditReport {
	out := auditReport{
		Intact: r.Intact(), Origin: r.Origin, Segments: r.Segments, Entries: r.Entries, Checkpoints: r.Checkpoints,
		Signed: r.Signed, Unsigned: r.Unsigned, Torn: r.Torn, Problems: []auditProblem{},
	}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, auditProblem{Entry: p.Seq, File: p.File, Line: p.Line, Text: p.Text})
	}
	return out
}

func (s *shell) reportLines(r *audit.Report) error {
	var err error
	say := func(format string, args ...any) { err = errors.Join(err, s.say(format, args...)) }
	if r.Intact() {
		say("Intact: %s in %s; %d proven by %s.", plural(r.Entries, "entry"), plural(r.Segments, "segment"), r.Signed, plural(r.Checkpoints, "signed checkpoint"))
	} else {
		say("TAMPERED: the audit log is not what was written.")
		if first, ok := r.FirstBad(); ok {
			say("\nThe first bad entry is %d. The %s before it are as they were written.", first.Seq, plural(min(r.Signed, first.Seq-1), "signed entry"))
		}
		say("")
		for _, p := range r.Problems {
			say("  %s", printable(p.String()))
		}
		say("\nKeep the files as they are, and compare them with a copy.")
	}
	if r.Unsigned > 0 {
		say("The last %s not signed yet: they are there, and proven by nothing. A server\nthat runs signs within a second; one that died, at its next start.", verb(r.Unsigned))
	}
	if r.Torn > 0 {
		say("The last line is not finished (%d bytes): it is being written, or a crash cut it.", r.Torn)
	}
	return err
}

// verb returns a count of entries with the verb behind it.
func verb(n uint64) string {
	if n == 1 {
		return "entry is"
	}
	return plural(n, "entry") + " are"
}
