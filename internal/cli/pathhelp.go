package cli

import (
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) pathHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "path-help PATH", GroupID: "secrets", Args: exactly(1), ValidArgsFunction: s.completePath,
		Short:   "Describe what a path of the API takes, and what it needs.",
		Example: "  coffer path-help secret/data/app/db\n  coffer path-help secret/\n  coffer path-help sys/policies/acl",
		RunE:    func(cmd *cobra.Command, args []string) error { return s.pathHelp(cmd, args[0]) },
	}
}

func (s *shell) pathHelp(cmd *cobra.Command, path string) error {
	answer, err := s.do(cmd.Context(), client.Request{Path: path, Query: url.Values{"help": {"1"}}, WrapTTL: -1})
	if err != nil {
		return err
	}
	return s.asTable(answer, func() error {
		var about struct {
			Help    string   `json:"help"`
			SeeAlso []string `json:"see_also"`
		}
		if err := answer.Decode(&about); err != nil {
			return err
		}
		if err := s.say("%s", printableLines(strings.TrimRight(about.Help, "\n"))); err != nil || len(about.SeeAlso) == 0 {
			return err
		}
		return s.say("\nSee also: %s", printable(strings.Join(about.SeeAlso, ", ")))
	})
}
