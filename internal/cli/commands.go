package cli

import (
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// commands returns every command, in the order of help.
func (s *shell) commands() []*cobra.Command {
	return []*cobra.Command{
		s.kvCommand(), s.readCommand(), s.writeCommand(), s.listCommand(), s.deleteCommand(), s.patchCommand(), s.unwrapCommand(),
		s.loginCommand(), s.tokenCommand(), s.printCommand(), s.versionCommand(),
		s.serverCommand(), s.quickstartCommand(),
	}
}

// exactly refuses any other number of arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("it takes %d arguments, not %d", n, len(args))
		}
		return nil
	}
}

// atLeast refuses fewer arguments.
func atLeast(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return usage("it takes at least %d arguments, not %d", n, len(args))
		}
		return nil
	}
}

// atMost refuses more arguments.
func atMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return usage("it takes at most %d arguments, not %d", n, len(args))
		}
		return nil
	}
}

// queryOf reads name=value arguments of a request without a body.
func queryOf(args []string) (url.Values, error) {
	query := url.Values{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, usage("%q is not name=value", arg)
		}
		query.Add(name, value)
	}
	return query, nil
}
