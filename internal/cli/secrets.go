package cli

import "github.com/spf13/cobra"

func (s *shell) secretsCommand() *cobra.Command {
	enable, disable, list, tune, move := s.enableMount(&engines), s.disableMount(&engines), s.listMounts(&engines), s.tuneMount(&engines), s.moveMount(&engines)

	enable.Short = "Enable a secrets engine."
	enable.Long = "Enable a secrets engine of a type at a path. The type kv-v2 is kv with -version=2.\ncoffer read sys/plugins/catalog lists the types."
	enable.Example = "  coffer secrets enable -path=team -version=2 kv\n  coffer secrets enable -path=plain -description='of the build' -max-lease-ttl=24h -options=version=1 kv\n  coffer secrets enable kv-v2"

	disable.Short = "Disable a secrets engine, and destroy everything in it."
	disable.Example = "  coffer secrets disable team"

	list.Short = "List the secrets engines."
	list.Example = "  coffer secrets list\n  coffer secrets list -detailed"

	tune.Short = "Change a secrets engine's configuration, or show it where no flag is given."
	tune.Example = "  coffer secrets tune team\n  coffer secrets tune -default-lease-ttl=8h -description='of the team' team"

	move.Short = "Move a secrets engine to another path."
	move.Long = "Move a secrets engine to another path, with everything in it. Policies that name\nthe old path do not follow."
	move.Example = "  coffer secrets move team crew"
	return group("secrets", "secrets", "Enable, list, tune, move and disable secrets engines.", enable, list, tune, move, disable)
}
