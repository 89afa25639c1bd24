package cli

import (
	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) readCommand() *cobra.Command {
	return &cobra.Command{
		Use: "read PATH [name=value...]", GroupID: "secrets", Args: atLeast(1),
		Short:   "Read what is at a path.",
		Example: "  coffer read sys/audit-log\n  coffer read -field=public_key sys/audit-log",
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := queryOf(args[1:])
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), client.Request{Method: "GET", Path: args[0], Query: query}, "There is nothing to show at %s.", args[0])
		},
	}
}
