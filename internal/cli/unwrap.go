package cli

import (
	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) unwrapCommand() *cobra.Command {
	return &cobra.Command{
		Use: "unwrap [TOKEN | -]", GroupID: "secrets", Args: atMost(1),
		Short: "Show what is behind a wrapping token, once.",
		Long: `Show what is behind a wrapping token, which ends with it: whoever comes second
learns that somebody was there before. Without an argument the token that commands
use is taken to be one.`,
		Example: "  coffer unwrap - <wrapping-token.txt\n  coffer unwrap -field=password - <wrapping-token.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, err := s.named(args, false)
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), client.Request{
				Method: "POST", Path: "sys/wrapping/unwrap", Token: of.Token, WrapTTL: -1, Once: true,
			}, "There was nothing behind the token.")
		},
	}
}
