package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/directory"
	"github.com/cofferhq/coffer/internal/policy/traffic"
	"github.com/cofferhq/coffer/internal/wire"
)

// trafficFlags are the flags of policy replay and unused.
type trafficFlags struct {
	log, since string
	files      []string
	offline    bool
	json       bool
	detailed   bool // of replay
	all        bool // of unused
	days       int  // of unused
}

func (f *trafficFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.log, "log", "", "directory of the audit log, or of a copy")
	cmd.Flags().BoolVar(&f.offline, "offline", false, "ask no server for policies that are not here")
	cmd.Flags().BoolVar(&f.json, "json", false, "the same as -format=json")
	_ = cmd.MarkFlagDirname("log") // it fails where there is no such flag
}

func (s *shell) policyReplayCommand() *cobra.Command {
	var f trafficFlags
	cmd := &cobra.Command{
		Use: "replay [DIRECTORY]", Args: atMost(1), ValidArgsFunction: completeDirectory,
		Short: "Hold policies against recorded requests, and list what they would newly deny or allow.",
		Long: `Hold policies against the requests that the audit log recorded, and list what they
would newly deny or allow. The candidates are those of a directory, and those of
-policy; a server that can be asked has the others. The log is read from its files, on
the server's machine or in an auditor's copy.

The log has the names of parameters and not their values, and of who asked the
policies and the entity's id. Requests that hang on more are counted as undecided.

With -detailed-exitcode the code is 0 where all stays as it is, 2 where something
would be decided otherwise, and 1 where it cannot be told.`,
		Example: "  coffer policy replay -log=/var/lib/coffer/audit access\n  coffer policy replay -log=audit-copy -since=7d -policy=app=app.hcl",
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := s.replay(cmd.Context(), args, &f)
			if err == nil {
				err = s.value(report, func() error { return s.replayLines(&report) })
			}
			switch {
			case err != nil && f.detailed:
				return &exit{exitLocal, err}
			case err == nil && f.detailed && report.Denied+report.Allowed > 0:
				return &exit{code: exitChanges}
			}
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&f.files, "policy", nil, "NAME=FILE of a candidate; may be given several times")
	cmd.Flags().StringVar(&f.since, "since", "", "only requests that are not older, for example 7d")
	cmd.Flags().BoolVar(&f.detailed, "detailed-exitcode", false, "end with code 2 where something would be decided otherwise")
	return cmd
}

func (s *shell) replay(ctx context.Context, args []string, f *trafficFlags) (traffic.Report, error) {
	if len(args) == 0 && len(f.files) == 0 {
		return traffic.Report{}, usage("name a directory of policies, or -policy=NAME=FILE")
	}
	judge, since, err := s.judge(ctx, args, f)
	if err != nil {
		return traffic.Report{}, err
	}
	replay := traffic.NewReplay(judge)
	if err := s.eachEntry(ctx, f.log, since, replay.Add); err != nil {
		return traffic.Report{}, err
	}
	return replay.Report(), nil
}

// judge returns a judge by the policies of a directory, of files, and of the server in
// the place of those that are not there.
func (s *shell) judge(ctx context.Context, args []string, f *trafficFlags) (*traffic.Judge, time.Time, error) {
	var since time.Time
	if f.json {
		s.global.format = "json"
	}
	if f.log == "" {
		return nil, since, usage("-log names the directory of the audit log")
	}
	if f.since != "" {
		d, err := wire.ParseDuration(f.since)
		if err != nil || d <= 0 {
			return nil, since, usage("-since=%s is no duration such as 7d", f.since)
		}
		since = time.Now().Add(-d)
	}
	policies, err := candidates(args, f.files)
	if err != nil {
		return nil, since, err
	}
	switch {
	case f.offline:
	case len(policies) == 0:
		if policies, err = s.storedPolicies(ctx); err != nil {
			return nil, since, refused(err)
		}
	default:
		policies = s.withStored(ctx, policies)
	}
	if policies, err = withDefault(policies); err != nil {
		return nil, since, err
	}
	judge := traffic.NewJudge(policies, recordedRoutes)
	if ns := strings.Trim(cmp.Or(s.global.namespace, s.setting("NAMESPACE")), "/"); ns != "" {
		judge.Namespace = ns + "/"
	}
	return judge, since, nil
}

// candidates reads the policies of a directory, and of NAME=FILE, which come before.
func candidates(dirs, files []string) ([]*policy.Policy, error) {
	var out []*policy.Policy
	for _, pair := range files {
		name, file, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usage("-policy=%s is not NAME=FILE", pair)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		p, err := policy.Parse(policyName(name), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, p)
	}
	for _, dir := range dirs {
		d, err := directory.Load(dir)
		if err != nil {
			return nil, err
		}
		out = withoutTwice(out, d.Parsed())
	}
	return out, nil
}

// withoutTwice appends the policies whose names are not there yet.
func withoutTwice(have, more []*policy.Policy) []*policy.Policy {
	for _, p := range more {
		if !slices.ContainsFunc(have, func(o *policy.Policy) bool { return o.Name == p.Name }) {
			have = append(have, p)
		}
	}
	return have
}

// withStored appends the server's policies. Where no server answers, or it refuses,
// that is said, and what hangs on them is undecided.
func (s *shell) withStored(ctx context.Context, have []*policy.Policy) []*policy.Policy {
	stored, err := s.storedPolicies(ctx)
	if err != nil {
		s.warn("the server's policies are not known, and requests of those who have them are undecided: %v", err)
		return have
	}
	return withoutTwice(have, stored)
}

func (s *shell) storedPolicies(ctx context.Context) ([]*policy.Policy, error) {
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	names, err := c.Sys().Policies(ctx)
	if err != nil {
		return nil, err
	}
	var out []*policy.Policy
	for _, name := range names {
		if name == "root" {
			continue
		}
		text, err := c.Sys().Policy(ctx, name)
		if client.IsNotFound(err) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		p, err := policy.Parse(name, text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// eachEntry calls do with the outcomes in a log from a time on.
func (s *shell) eachEntry(ctx context.Context, log string, since time.Time, do func(*audit.Entry)) error {
	dir, err := logDirectory(log)
	if err != nil {
		return err
	}
	newest, err := audit.Newest(dir)
	if err != nil {
		return err
	}
	for e, err := range audit.Read(ctx, dir, audit.ReadOptions{From: 1}) {
		if err != nil {
			return unreadable(err)
		}
		if e.Seq > newest {
			break
		}
		if e.Type == audit.Outcome && !e.Time.Before(since) {
			do(&e)
		}
	}
	return ctx.Err()
}

func (s *shell) replayLines(r *traffic.Report) error {
	var err error
	for i := range r.Groups {
		g := &r.Groups[i]
		head := fmt.Sprintf("%s: %s, %s %s", g.Effect, plural(g.Requests, "request"), printable(g.Operation), printable(g.Path))
		if g.Paths > 1 {
			head += fmt.Sprintf(" and %d other paths", g.Paths-1)
		}
		sign := map[traffic.Effect]string{traffic.NewlyDenied: "-", traffic.NewlyAllowed: "+", traffic.Undecided: "~"}[g.Effect]
		err = errors.Join(err, s.say("%s", s.coloured(sign, head)))
		if g.Rule != "" {
			was := "was allowed by"
			if g.Effect == traffic.NewlyAllowed {
				was = "would be allowed by"
			}
			err = errors.Join(err, s.say("    %s path %q of the policy %s", was, g.Rule, printable(g.Policy)))
		}
		reason := map[traffic.Effect]string{traffic.NewlyDenied: "would be denied: ", traffic.NewlyAllowed: "was denied: ", traffic.Undecided: ""}[g.Effect]
		err = errors.Join(err, s.say("    %s%s", reason, printable(g.Reason)),
			s.say("    policies %s; for example %s, request %s", printable(strings.Join(g.Policies, ", ")), printable(g.Who), printable(g.Example)))
	}
	return errors.Join(err, s.say("%s: %d as before, %d newly denied, %d newly allowed, %d undecided.", plural(r.Requests, "request"), r.Same, r.Denied, r.Allowed, r.Undecided))
}
