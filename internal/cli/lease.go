package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// leaseBody names a lease.
type leaseBody struct {
	ID        string `json:"lease_id,omitempty"`
	Increment string `json:"increment,omitempty"`
	Sync      bool   `json:"sync,omitempty"`
}

func (s *shell) leaseCommand() *cobra.Command {
	return group("access", "lease", "Look up, renew and revoke leases.", s.leaseLookupCommand(), s.leaseRenewCommand(), s.leaseRevokeCommand())
}

func (s *shell) leaseLookupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "lookup ID", Args: exactly(1),
		Short:   "Show what is known of a lease.",
		Example: "  coffer lease lookup database/creds/readonly/2f6a614c",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/leases/lookup", Body: leaseBody{ID: args[0]}, Reads: true}, "Nothing is known of it.")
		},
	}
}

func (s *shell) leaseRenewCommand() *cobra.Command {
	var body leaseBody
	cmd := &cobra.Command{
		Use: "renew ID", Args: exactly(1),
		Short:   "Extend a lease.",
		Example: "  coffer lease renew -increment=1h database/creds/readonly/2f6a614c",
		RunE: func(cmd *cobra.Command, args []string) error {
			body.ID = args[0]
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/leases/renew", Body: body}, "The lease was renewed.")
		},
	}
	cmd.Flags().StringVarP(&body.Increment, "increment", "i", "", "how long it is to live from now on, for example 1h")
	return cmd
}

func (s *shell) leaseRevokeCommand() *cobra.Command {
	var prefix, force, sync bool
	cmd := &cobra.Command{
		Use: "revoke ID", Args: exactly(1),
		Short: "End a lease, or with -prefix everything that was granted below a path.",
		Long: `End a lease. With -prefix the argument is a path, and everything that was granted
there or below it ends: for example every login of an auth method. With -force as
well, what cannot be taken back elsewhere is forgotten all the same.`,
		Example: "  coffer lease revoke database/creds/readonly/2f6a614c\n  coffer lease revoke -prefix auth/userpass/login/ada",
		RunE: func(cmd *cobra.Command, args []string) error {
			id := strings.Trim(args[0], "/")
			switch {
			case force && !prefix:
				return usage("-force goes with -prefix")
			case force:
				s.warn("what cannot be taken back elsewhere, such as a database user, is forgotten here and stays there")
				return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/leases/revoke-force/" + id}, "Success! Force revoked any leases with prefix: %s", id)
			case prefix:
				return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/leases/revoke-prefix/" + id, Body: leaseBody{Sync: sync}}, "Success! Revoked any leases with prefix: %s", id)
			}
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/leases/revoke", Body: leaseBody{ID: args[0], Sync: sync}}, "Success! Revoked lease: %s", args[0])
		},
	}
	cmd.Flags().BoolVar(&prefix, "prefix", false, "the argument is a path that granted something")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "with -prefix, forget what cannot be taken back")
	cmd.Flags().BoolVar(&sync, "sync", false, "wait until it is done, which it always is here")
	return cmd
}
