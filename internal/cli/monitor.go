package cli

import (
	"context"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) monitorCommand() *cobra.Command {
	var level, format string
	cmd := &cobra.Command{
		Use: "monitor", GroupID: "server", Args: exactly(0),
		Short: "Follow the server's log, as it is written.",
		Long: `Follow the server's log, as it is written, until it is stopped. The level may be
lower than that of the log itself. It ends when the token does, when the server is
sealed, and after an hour. It needs read and sudo on sys/monitor.`,
		Example: "  coffer monitor\n  coffer monitor -log-level=debug -log-format=json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.client()
			if err != nil {
				return err
			}
			// Stopping it is how it ends, and no failure.
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return s.follow(ctx, c, url.Values{"log_level": {level}, "log_format": {format}})
		},
	}
	cmd.Flags().StringVar(&level, "log-level", "info", "trace, debug, info, warn or error")
	cmd.Flags().StringVar(&format, "log-format", "standard", "standard or json")
	return cmd
}

func (s *shell) follow(ctx context.Context, c *client.Client, query url.Values) error {
	err := c.Stream(ctx, client.Request{Path: "sys/monitor", Query: query, WrapTTL: -1, Quiet: true}, s.Stdout)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return refused(err)
	}
	return nil
}
