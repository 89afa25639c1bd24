package cli

import "github.com/spf13/cobra"

func (s *shell) authCommand() *cobra.Command {
	enable, disable, list, tune, move := s.enableMount(&methods), s.disableMount(&methods), s.listMounts(&methods), s.tuneMount(&methods), s.moveMount(&methods)

	enable.Short = "Enable an auth method."
	enable.Long = "Enable an auth method of a type at a path below auth/.\ncoffer read sys/plugins/catalog lists the types."
	enable.Example = "  coffer auth enable userpass\n  coffer auth enable -path=people -token-type=service -description='of the house' userpass"

	disable.Short = "Disable an auth method; the tokens that it granted end at once."
	disable.Example = "  coffer auth disable people"

	list.Short = "List the auth methods."
	list.Example = "  coffer auth list\n  coffer auth list -detailed"

	tune.Short = "Change an auth method's configuration, or show it where no flag is given."
	tune.Example = "  coffer auth tune people\n  coffer auth tune -default-lease-ttl=8h -user-lockout-threshold=10 people"

	move.Short = "Move an auth method to another path."
	move.Example = "  coffer auth move people staff"

	help := &cobra.Command{
		Use: "help PATH", Args: exactly(1), ValidArgsFunction: s.completeMounted(&methods),
		Short:   "Describe an auth method that is enabled: its paths and what they take.",
		Example: "  coffer auth help userpass",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.pathHelp(cmd, methods.below+methods.name(args[0])+"/")
		},
	}
	return group("access", "auth", "Enable, list, tune, move and disable auth methods.", enable, list, tune, move, disable, help)
}
