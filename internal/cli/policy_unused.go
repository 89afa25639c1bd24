package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/traffic"
)

// unusedReport is what policy unused tells a machine.
type unusedReport struct {
	Requests  int           `json:"requests"`      // that were looked at
	Undecided int           `json:"undecided"`     // whose rules cannot all be told
	From      time.Time     `json:"from,omitzero"` // the first entry that was looked at
	Rules     []traffic.Use `json:"rules"`
}

func (s *shell) policyUnusedCommand() *cobra.Command {
	var f trafficFlags
	cmd := &cobra.Command{
		Use: "unused [DIRECTORY]", Args: atMost(1), ValidArgsFunction: completeDirectory,
		Short: "List what policies grant and no recorded request has used.",
		Long: `List the rules of policies that no request in the audit log has used for a while,
the capabilities that were not used of others, and broad rules of which only a few
paths were used, with narrower ones that would have done. The policies are those of a
directory, or the server's. The log is read from its files.

A rule that denies is never listed. A rule for an emergency is unused, too: judge.`,
		Example: "  coffer policy unused -log=/var/lib/coffer/audit\n  coffer policy unused -log=audit-copy -days=90 -offline access",
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := s.unused(cmd.Context(), args, &f)
			if err != nil {
				return err
			}
			return s.value(report, func() error { return s.unusedLines(report, &f) })
		},
	}
	f.add(cmd)
	cmd.Flags().IntVar(&f.days, "days", 30, "how many days back; 0 for the whole log")
	cmd.Flags().BoolVar(&f.all, "all", false, "list all rules, with what was used of them")
	return cmd
}

func (s *shell) unused(ctx context.Context, args []string, f *trafficFlags) (*unusedReport, error) {
	if f.days < 0 {
		return nil, usage("-days is a number of days, or 0 for the whole log")
	}
	if len(args) == 0 && f.offline {
		return nil, usage("name a directory of policies, or let the server be asked for its own")
	}
	judge, _, err := s.judge(ctx, args, f)
	if err != nil {
		return nil, err
	}
	var since time.Time
	if f.days > 0 {
		since = time.Now().AddDate(0, 0, -f.days)
	}
	report := &unusedReport{}
	uses := traffic.NewUses(judge)
	named, err := candidates(args, nil)
	if err != nil {
		return nil, err
	}
	err = s.eachEntry(ctx, f.log, since, func(e *audit.Entry) {
		if report.From.IsZero() {
			report.From = e.Time
		}
		uses.Add(e)
	})
	report.Requests, report.Undecided, report.Rules = uses.Requests, uses.Undecided, []traffic.Use{}
	for _, use := range uses.Report(f.all) {
		if asked(use.Policy, named) {
			report.Rules = append(report.Rules, use)
		}
	}
	return report, err
}

// asked reports whether a policy is one of those that were named, and where none was,
// one that somebody wrote.
func asked(name string, named []*policy.Policy) bool {
	if len(named) == 0 {
		return name != "default"
	}
	return slices.ContainsFunc(named, func(p *policy.Policy) bool { return p.Name == name })
}

func (s *shell) unusedLines(r *unusedReport, f *trafficFlags) error {
	var err error
	for i := range r.Rules {
		u := &r.Rules[i]
		used := "never used"
		if u.Requests > 0 {
			used = plural(u.Requests, "request") + ", the last " + u.Last.UTC().Format(time.DateOnly)
		}
		err = errors.Join(err, s.say("%s:%d: path %q: %s", printable(u.Policy), u.Line, u.Rule, used))
		if u.Advice != "" {
			err = errors.Join(err, s.say("    %s", u.Advice))
		}
		for line := range strings.Lines(u.Narrower) {
			err = errors.Join(err, s.say("        %s", printable(strings.TrimSuffix(line, "\n"))))
		}
	}
	if len(r.Rules) == 0 {
		err = errors.Join(err, s.say("Every grant was used."))
	}
	if f.days > 0 && r.From.After(time.Now().AddDate(0, 0, 1-f.days)) {
		s.warn("the log begins %s, less than %d days ago: what is used rarely may not be in it", r.From.UTC().Format(time.DateOnly), f.days)
	}
	return errors.Join(err, s.say("Looked at %s; of %d not every rule can be told.", plural(r.Requests, "request"), r.Undecided))
}
