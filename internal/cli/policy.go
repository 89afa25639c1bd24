package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) policyCommand() *cobra.Command {
	return group("access", "policy", "Write, check and explain policies.",
		s.policyListCommand(), s.policyReadCommand(), s.policyWriteCommand(), s.policyDeleteCommand(),
		s.policyLintCommand(), s.policyFmtCommand(), s.policyTestCommand(), s.policyPlanCommand(), s.policyApplyCommand(),
		s.policyWhyCommand(), s.policyCanCommand(), s.policyWhoCanCommand(), s.policyReplayCommand(), s.policyUnusedCommand())
}

func (s *shell) policyListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Args: exactly(0),
		Short:   "List the policies.",
		Example: "  coffer policy list\n  coffer policy list -format=json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := s.do(cmd.Context(), client.Request{Method: "LIST", Path: "sys/policies/acl"})
			if err != nil {
				return err
			}
			if answer.WrapInfo != nil || s.global.field != "" {
				return s.show(answer)
			}
			var all struct {
				Keys []string `json:"keys"`
			}
			if err := answer.Decode(&all); err != nil {
				return err
			}
			return s.value(all.Keys, func() error {
				for _, name := range all.Keys {
					if err := s.say("%s", printable(name)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (s *shell) policyReadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "read NAME", Args: exactly(1), ValidArgsFunction: s.completePolicy(),
		Short:   "Print a policy as it was written.",
		Example: "  coffer policy read default\n  coffer policy read app >app.hcl",
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := s.do(cmd.Context(), client.Request{Path: "sys/policies/acl/" + policyName(args[0])})
			if client.IsNotFound(err) {
				return &exit{exitRefused, fmt.Errorf("there is no policy named %s; coffer policy list shows those there are", args[0])}
			}
			if err != nil {
				return err
			}
			if answer.WrapInfo != nil {
				return s.show(answer)
			}
			var p struct {
				Policy string `json:"policy"`
			}
			if err := answer.Decode(&p); err != nil {
				return err
			}
			return s.value(p, func() error { return s.say("%s", printableLines(strings.TrimSuffix(p.Policy, "\n"))) })
		},
	}
}

// policyName returns a name as the server keeps it.
func policyName(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

func (s *shell) policyWriteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "write NAME FILE | -", Args: exactly(2),
		Short: "Store a policy from a file or standard input, and say what looks wrong in it.",
		Long: `Store a policy, in HCL or JSON, from a file or standard input. What looks wrong in
it is said on standard error, and it is stored all the same; coffer policy lint
says so before. Tokens that have the policy are under the new one at once.`,
		Example: "  coffer policy write app app.hcl\n  coffer policy write app - <app.hcl",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := policyName(args[0])
			if name == "" {
				return usage("the policy's name is empty")
			}
			if name != args[0] {
				s.warn("names of policies are in lower case: %q is stored as %q", args[0], name)
			}
			text, err := s.fileOrStdin(args[1])
			if err != nil {
				return err
			}
			body := struct {
				Policy string `json:"policy"`
			}{text}
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/policies/acl/" + name, Body: body}, "Success! Uploaded policy: %s", name)
		},
	}
}

// fileOrStdin reads a file, or standard input where its name is -.
func (s *shell) fileOrStdin(name string) (string, error) {
	if name != "-" {
		name = "@" + name
	}
	text, _, err := s.text(name)
	return text, err
}

func (s *shell) policyDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Args: exactly(1), ValidArgsFunction: s.completePolicy(),
		Short:   "Delete a policy; tokens that have it may do less at once.",
		Example: "  coffer policy delete app",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := policyName(args[0])
			return s.ask(cmd.Context(), client.Request{Method: "DELETE", Path: "sys/policies/acl/" + name}, "Success! Deleted policy: %s", name)
		},
	}
}

// whyShown is what policy why shows of a denial.
type whyShown struct {
	client.Why
	Plain      string   `json:"plain_path"`
	Considered []string `json:"considered"`
}

func (s *shell) policyWhyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "why REQUEST_ID", Args: exactly(1),
		Short: "Say why a request was denied, and what would have allowed it.",
		Long: `Say why a request was denied: who asked for what, which policy and rule decided,
and the smallest rule that would have allowed it. A denial names its request. To
ask, a token needs the capability update on sys/policies/why.`,
		Example: "  coffer policy why 7b2f4a7e-31a8-4b8b-8d2f-0c6f1f4f1c55",
		RunE: func(cmd *cobra.Command, args []string) error {
			body := struct {
				RequestID string `json:"request_id"`
			}{strings.TrimSpace(args[0])}
			answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: "sys/policies/why", Body: body, Reads: true})
			if err != nil {
				return err
			}
			return s.asTable(answer, func() error {
				var why whyShown
				if err := answer.Decode(&why); err != nil {
					return err
				}
				return s.whyTable(&why)
			})
		},
	}
}

func (s *shell) whyTable(why *whyShown) error {
	rows := [][]string{
		{"Request", why.RequestID}, {"Time", why.Time.UTC().Format("2006-01-02 15:04:05 MST")},
		{"Who", why.Principal}, {"Accessor", why.Accessor}, {"Policies", strings.Join(why.Policies, ", ")},
		{"Path", why.Path},
	}
	if why.Plain != "" {
		rows = append(rows, []string{"Also written", why.Plain})
	}
	rows = append(rows, []string{"Needed", why.Need})
	if why.Rule == "" {
		rows = append(rows, []string{"Decided by", "no rule of these policies matches the path"})
	} else {
		rows = append(rows, []string{"Decided by", fmt.Sprintf("path %q in the policy %s", why.Rule, why.Policy)})
	}
	rows = append(rows, []string{"Denied", why.Missing})
	if err := s.rows(rows); err != nil {
		return err
	}
	var err error
	if rules := ruleLines(why.Considered); len(rules) > 0 {
		err = errors.Join(err, s.say("\nThe rules of these policies, the one that decides first:"))
		for _, line := range rules {
			err = errors.Join(err, s.say("  %s", printable(line)))
		}
	}
	if why.Fix != "" {
		err = errors.Join(err, s.say("\nThis would have allowed it:\n%s", printableLines(strings.TrimRight(why.Fix, "\n"))))
	}
	return err
}

// ruleLines returns the lines of an explanation that are about rules; the rest of
// it stands in the table.
func ruleLines(explanation []string) []string {
	var out []string
	for _, line := range explanation {
		switch {
		case strings.HasPrefix(line, "this rule would allow it"):
			return out
		case strings.HasPrefix(line, "denied: "), strings.HasPrefix(line, "plain spelling: "), strings.HasPrefix(line, "because "):
		default:
			out = append(out, line)
		}
	}
	return out
}
