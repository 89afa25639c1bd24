package cli

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// commands returns every command, in the order of help.
func (s *shell) commands() []*cobra.Command {
	return []*cobra.Command{
		s.kvCommand(), s.readCommand(), s.writeCommand(), s.listCommand(), s.deleteCommand(), s.patchCommand(), s.unwrapCommand(),
		s.pathHelpCommand(), s.secretsCommand(),
		s.loginCommand(), s.tokenCommand(), s.authCommand(), s.policyCommand(), s.namespaceCommand(), s.leaseCommand(), s.printCommand(), s.versionCommand(),
		s.serverCommand(), s.quickstartCommand(), s.statusCommand(), s.monitorCommand(), s.operatorCommand(), s.auditCommand(),
	}
}

// exactly refuses any other number of arguments.
func exactly(n int) cobra.PositionalArgs { return arity(n, n) }

// atLeast refuses fewer arguments.
func atLeast(n int) cobra.PositionalArgs { return arity(n, -1) }

// atMost refuses more arguments.
func atMost(n int) cobra.PositionalArgs { return arity(0, n) }

// arity refuses fewer arguments than least, and more than most unless that is
// negative.
func arity(least, most int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		n := len(args)
		switch {
		case n >= least && (n <= most || most < 0):
			return nil
		case most == 0:
			return usage("it takes no arguments, and %q is one", args[0])
		case least == most:
			return usage("it takes %s, not %d", arguments(least), n)
		case n < least:
			return usage("it takes at least %s, not %d", arguments(least), n)
		}
		return usage("it takes at most %s, not %d", arguments(most), n)
	}
}

func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return strconv.Itoa(n) + " arguments"
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
