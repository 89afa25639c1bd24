package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/internal/plan"
	"github.com/cofferhq/coffer/internal/policy/directory"
	"github.com/cofferhq/coffer/internal/policy/trial"
)

// exitChanges is the code of policy plan -detailed-exitcode where there is something
// to do.
const exitChanges = 2

// planFlags are the flags of policy plan and apply.
type planFlags struct {
	set                string
	prune, pruneMounts bool
	json               bool
	detailed           bool   // of plan
	expect             string // of apply
}

func (f *planFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.set, "set", "main", "name of the directory on the server; several directories need several names")
	cmd.Flags().BoolVar(&f.prune, "prune", false, "delete policies and roles that this directory had and has no more")
	cmd.Flags().BoolVar(&f.pruneMounts, "prune-mounts", false, "disable mounts that this directory had and has no more, and destroy what is in them")
	cmd.Flags().BoolVar(&f.json, "json", false, "the same as -format=json")
}

const planLayout = `
A directory has policies/NAME.hcl with their tests NAME_test.hcl beside them,
mounts.hcl, and below paths/ what is written to other paths: a role of AppRole is
paths/auth/approle/role/NAME.hcl. Every file may be JSON. The tests run first, and
nothing else happens where one fails.`

func (s *shell) policyPlanCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use: "plan DIRECTORY", Args: exactly(1), ValidArgsFunction: completeDirectory,
		Short: "Show what would change on the server to be as a directory of policies, mounts and roles says.",
		Long: `Show what would change on the server to be as a directory of policies, mounts and
roles says, and what others changed since it was last applied.
` + planLayout + `

With -detailed-exitcode the code is 0 where nothing would change, 2 where something
would, and 1 where the plan cannot be made.`,
		Example: "  coffer policy plan access\n  coffer policy plan -detailed-exitcode -prune -json access",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.makePlan(cmd.Context(), args[0], &f)
			if err == nil {
				err = s.value(p, func() error { return s.planLines(p) })
			}
			switch {
			case err != nil && f.detailed:
				return &exit{exitLocal, err}
			case err == nil && f.detailed && p.Pending():
				return &exit{code: exitChanges}
			}
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.detailed, "detailed-exitcode", false, "end with code 2 where something would change")
	return cmd
}

func (s *shell) policyApplyCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use: "apply DIRECTORY", Args: exactly(1), ValidArgsFunction: completeDirectory,
		Short: "Make the server as a directory of policies, mounts and roles says.",
		Long: `Make the server as a directory of policies, mounts and roles says, one item after
the other, each only where the server still has what the plan saw. What was done
stays done where it is interrupted; the next run goes on. A second run changes nothing.
` + planLayout + `

With -plan, which takes the name that coffer policy plan printed, nothing is done where
the plan would be another one by now.`,
		Example: "  coffer policy apply access\n  coffer policy apply -prune -plan=5f0c2d9a81b7e346 access",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.makePlan(cmd.Context(), args[0], &f)
			if err != nil {
				return err
			}
			if f.expect != "" && f.expect != p.Name() {
				return fmt.Errorf("the plan is %s by now, not %s: the directory or the server changed; look at coffer policy plan again", p.Name(), f.expect)
			}
			return s.applyPlan(cmd.Context(), p)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.expect, "plan", "", "name of the plan that was looked at")
	return cmd
}

// makePlan runs a directory's tests and compares it with the server.
func (s *shell) makePlan(ctx context.Context, root string, f *planFlags) (*plan.Plan, error) {
	if f.json {
		s.global.format = "json"
	}
	d, err := directory.Load(root)
	if err != nil {
		return nil, err
	}
	if err := s.trialsFirst(d); err != nil {
		return nil, err
	}
	if _, err := s.client(); err != nil {
		return nil, err
	}
	p, err := plan.Make(ctx, d, plan.Options{Client: s.one, Set: f.set, Prune: f.prune, PruneMounts: f.pruneMounts})
	return p, refused(err)
}

// trialsFirst refuses to go on where a test fails.
func (s *shell) trialsFirst(d *directory.Directory) error {
	if len(d.Tests) == 0 {
		if len(d.Policies) > 0 {
			s.warn("%s has no tests of its policies", d.Root)
		}
		return nil
	}
	results, _, err := runTrials(d, "", "")
	if err != nil {
		return err
	}
	failed := trialReport{}
	for _, r := range results {
		if !r.Passed {
			failed.Failed++
			failed.Results = append(failed.Results, r)
		}
	}
	if failed.Failed == 0 {
		return nil
	}
	lines := []string{fmt.Sprintf("%d of the %s of the tests failed, so nothing is planned:", failed.Failed, plural(len(results), "request"))}
	for _, r := range failed.Results {
		lines = append(lines, failedLine(&r))
	}
	return errors.New(strings.Join(lines, "\n"))
}

func failedLine(r *trial.Result) string {
	return fmt.Sprintf("%s:%d: %s: %s %s %s", r.File, r.Line, r.Test, r.Capability, r.Path, r.Problem)
}

// signs are what stands before an item for its action.
var signs = map[plan.Action]string{plan.Create: "+", plan.Update: "~", plan.Delete: "-", plan.Keep: "!"}

func (s *shell) planLines(p *plan.Plan) error {
	var err error
	for i := range p.Changes {
		c := &p.Changes[i]
		sign := signs[c.Action]
		if sign == "" && !(c.Drifted && c.Action == plan.Adopt) {
			continue
		}
		head := fmt.Sprintf("%s %s %s", sign, c.Action, c.ID)
		if sign == "" {
			head = "  " + c.ID
		}
		if c.Drifted {
			head += "   (changed on the server since it was applied)"
		}
		err = errors.Join(err, s.say("%s", s.coloured(sign, printable(head))))
		for line := range strings.Lines(c.Diff) {
			line = strings.TrimSuffix(line, "\n")
			err = errors.Join(err, s.say("    %s", s.coloured(line, printable(line))))
		}
		if c.Note != "" {
			err = errors.Join(err, s.say("    # %s", printable(c.Note)))
		}
	}
	if len(p.Unmanaged) > 0 {
		err = errors.Join(err, s.say("Not of this directory, and left alone: %s", printable("policy "+strings.Join(p.Unmanaged, ", "))))
	}
	if !p.Pending() {
		return errors.Join(err, s.say("Nothing to change."))
	}
	return errors.Join(err, s.say("Plan %s: %d to create, %d to update, %d to delete.", p.Name(), p.Count(plan.Create), p.Count(plan.Update), p.Count(plan.Delete)))
}

// coloured returns a text in the colour of its sign, where it is for a person's eyes.
func (s *shell) coloured(sign, text string) string {
	if !s.Terminal || s.Getenv("NO_COLOR") != "" || sign == "" {
		return text
	}
	colours := map[byte]string{'+': "32", '-': "31", '~': "33", '!': "33"}
	colour, ok := colours[sign[0]]
	if !ok {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// appliedChange is what policy apply tells a machine of each change.
type appliedChange struct {
	Action plan.Action `json:"action"`
	ID     string      `json:"id"`
}

func (s *shell) applyPlan(ctx context.Context, p *plan.Plan) error {
	todo := p.Count(plan.Create) + p.Count(plan.Update) + p.Count(plan.Delete)
	made := []appliedChange{}
	err := p.Apply(ctx, s.one, func(c plan.Change) {
		if signs[c.Action] == "" {
			return
		}
		made = append(made, appliedChange{c.Action, c.ID})
		_ = s.say("[%d/%d] %s %s", len(made), todo, c.Action, printable(c.ID)) // the end says whether it could be written
	})
	if err != nil {
		return refused(fmt.Errorf("%w\n%d of %d changes are made and stay; the next apply goes on", err, len(made), todo))
	}
	return s.value(made, func() error {
		if todo == 0 {
			return s.say("Nothing to change.")
		}
		return s.say("Success! Made %s.", plural(todo, "change"))
	})
}
