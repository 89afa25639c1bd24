package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// tuneOptions is the body that changes a mount's options.
type tuneOptions struct {
	Options map[string]string `json:"options"`
}

func (s *shell) kvEnableVersioningCommand() *cobra.Command {
	return &cobra.Command{
		Use: "enable-versioning MOUNT", Args: exactly(1),
		Short:   "Turn a mount of kv version 1 into one of version 2.",
		Long:    "Turn a mount of kv version 1 into one of version 2. Its secrets stay, each as its\nversion 1. There is no way back.",
		Example: "  coffer kv enable-versioning legacy",
		RunE: func(cmd *cobra.Command, args []string) error {
			mount := strings.Trim(args[0], "/")
			body := tuneOptions{map[string]string{"version": "2"}}
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/mounts/" + mount + "/tune", Body: body},
				"Success! Tuned the secrets engine at: %s/", mount)
		},
	}
}
