package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/internal/policy/directory"
	"github.com/cofferhq/coffer/internal/policy/trial"
)

// exitUnread is the code of policy test where it cannot be run: wrong usage, or a
// file that cannot be read. exitLocal says that a test failed.
const exitUnread = 2

// trialFlags are the flags of policy test.
type trialFlags struct {
	json, coverage bool
	only           string
}

// trialReport is what policy test tells a machine.
type trialReport struct {
	Passed   int             `json:"passed"`
	Failed   int             `json:"failed"`
	Results  []trial.Result  `json:"results"`
	Coverage []trial.Covered `json:"coverage,omitempty"`
}

func (s *shell) policyTestCommand() *cobra.Command {
	var f trialFlags
	cmd := &cobra.Command{
		Use:   "test [FILE | DIRECTORY]...",
		Short: "Run the tests of policies, without a server.",
		Long: `Run the tests of policies, without a server. A test is an identity, and requests
that it must be allowed or denied. Tests lie beside the policies they are about, in
files named *_test.hcl or *_test.json; without an argument, those here.

The policies are those of the directory, and "default" as a new server has it. Paths
are written as people say them or as the wire has them. There are the mounts that
mounts.hcl and the test's own file declare, those that every server has, secret/ as
kv version 2, and each login method where its name says.

The exit code is 0 where all pass, 1 where one fails, and 2 where they cannot be run.`,
		Example: "  coffer policy test policies\n  coffer policy test -coverage policies/app_test.hcl\n  coffer policy test -json policies >report.json",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			if f.json {
				s.global.format = "json"
			}
			err := s.runTrials(args, &f)
			var chosen *exit
			if err == nil || errors.As(err, &chosen) {
				return err
			}
			return &exit{exitUnread, err}
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exit{exitUnread, &misuse{err}} })
	cmd.Flags().BoolVar(&f.json, "json", false, "the same as -format=json")
	cmd.Flags().BoolVar(&f.coverage, "coverage", false, "list the rules that no test touched")
	cmd.Flags().StringVar(&f.only, "run", "", "only tests whose name has this in it")
	return cmd
}

func (s *shell) runTrials(args []string, f *trialFlags) error {
	report := trialReport{Results: []trial.Result{}}
	for _, arg := range args {
		results, covered, err := trialsOf(arg, f.only)
		if err != nil {
			return err
		}
		report.Results = append(report.Results, results...)
		if f.coverage {
			report.Coverage = append(report.Coverage, covered...)
		}
	}
	for _, r := range report.Results {
		if r.Passed {
			report.Passed++
		} else {
			report.Failed++
		}
	}
	if report.Passed+report.Failed == 0 {
		return fmt.Errorf("no test is named so; -run takes a part of a test's name")
	}
	if err := s.value(report, func() error { return s.trialLines(&report, f.coverage) }); err != nil {
		return err
	}
	if report.Failed > 0 {
		return &exit{code: exitLocal}
	}
	return nil
}

// trialsOf runs the tests of a directory, or one file of them.
func trialsOf(arg, only string) ([]trial.Result, []trial.Covered, error) {
	info, err := os.Stat(arg)
	if err != nil {
		return nil, nil, err
	}
	root, file := arg, ""
	if !info.IsDir() {
		if !directory.IsTest(arg) {
			return nil, nil, usage("%s is no file of tests: their names end in _test.hcl or _test.json", arg)
		}
		root, file = directory.Of(arg)
	}
	d, err := directory.Load(root)
	if err != nil {
		return nil, nil, err
	}
	return runTrials(d, file, only)
}

// runTrials runs the tests of a loaded directory; file and only may choose among them.
func runTrials(d *directory.Directory, file, only string) ([]trial.Result, []trial.Covered, error) {
	policies, err := withDefault(d.Parsed())
	if err != nil {
		return nil, nil, err
	}
	bench := trial.NewBench(policies)
	var all []trial.Result
	found := false
	for _, f := range d.Tests {
		if file != "" && f.Name != file {
			continue
		}
		found = true
		results, err := bench.Run(f.Named(only), declaredMounts(d.Mounts, f.Mounts))
		if err != nil {
			return nil, nil, err
		}
		all = append(all, results...)
	}
	if !found {
		return nil, nil, fmt.Errorf("%s has no tests: files named *_test.hcl or *_test.json, beside the policies", d.Root)
	}
	var names []string
	for _, p := range d.Policies {
		names = append(names, p.Name)
	}
	return all, bench.Coverage(names), nil
}

func (s *shell) trialLines(r *trialReport, coverage bool) error {
	var err error
	tests := map[[2]string]bool{}
	for _, one := range r.Results {
		tests[[2]string{one.File, one.Test}] = true
		if one.Passed {
			continue
		}
		err = errors.Join(err, s.say("FAIL %s:%d: %s: %s %s %s", printable(one.File), one.Line, printable(one.Test), one.Capability, printable(one.Path), printable(one.Problem)))
		for _, line := range one.Explained {
			err = errors.Join(err, s.say("     %s", printable(line)))
		}
	}
	if coverage {
		err = errors.Join(err, s.coverageLines(r.Coverage))
	}
	verdict := "ok  "
	if r.Failed > 0 {
		verdict = "FAIL"
	}
	return errors.Join(err, s.say("%s %s, %s: %d passed, %d failed", verdict, plural(len(tests), "test"), plural(len(r.Results), "request"), r.Passed, r.Failed))
}

func (s *shell) coverageLines(rules []trial.Covered) error {
	var err error
	touched := 0
	for _, c := range rules {
		if c.Times > 0 {
			touched++
			continue
		}
		err = errors.Join(err, s.say("untested %s:%d: path %q", printable(c.Policy), c.Line, c.Rule))
	}
	percent := 100
	if len(rules) > 0 {
		percent = 100 * touched / len(rules)
	}
	return errors.Join(err, s.say("tests touch %d of %s (%d%%)", touched, strings.TrimSpace(plural(len(rules), "rule")), percent))
}
