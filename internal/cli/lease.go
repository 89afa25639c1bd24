package cli

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

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
	return group("access", "lease", "Look up, renew and revoke leases.", s.leaseLookupCommand(), s.leaseListCommand(), s.leaseRenewCommand(), s.leaseRevokeCommand())
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

func (s *shell) leaseListCommand() *cobra.Command {
	var failing bool
	cmd := &cobra.Command{
		Use: "list [PATH]", Args: cobra.MaximumNArgs(1),
		Short: "List leases below a path, or those that cannot be taken back.",
		Long: `List the leases and paths directly below a path; without one, the paths that lent
something. With -failing, list what could not be taken back yet, with the words of
the target: Coffer goes on trying, but for those that it set aside, which wait for
"coffer lease revoke -sync ID".`,
		Example: "  coffer lease list database/creds/readonly\n  coffer lease list -failing",
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "sys/leases/lookup"
			switch {
			case failing && len(args) > 0:
				return usage("-failing takes no path")
			case failing:
				return s.failingLeases(cmd.Context())
			case len(args) > 0:
				path += "/" + strings.Trim(args[0], "/")
			}
			return s.listPath(cmd, path, nil, false)
		},
	}
	cmd.Flags().BoolVar(&failing, "failing", false, "those that could not be taken back yet")
	return cmd
}

// failingLease is one that could not be taken back.
type failingLease struct {
	ID       string    `json:"lease_id"`
	Error    string    `json:"error"`
	Refused  int       `json:"refused"`
	Away     int       `json:"unreachable"`
	Last     time.Time `json:"last_try"`
	SetAside bool      `json:"set_aside"`
}

func (s *shell) failingLeases(ctx context.Context) error {
	answer, err := s.do(ctx, client.Request{Method: "GET", Path: "sys/leases", Query: url.Values{"type": {"irrevocable"}, "limit": {"none"}}})
	if err != nil {
		return err
	}
	var page struct {
		Leases []failingLease `json:"leases"`
	}
	if answer.WrapInfo != nil || s.global.field != "" {
		return s.show(answer)
	}
	if err := answer.Decode(&page); err != nil {
		return err
	}
	return s.value(page.Leases, func() error {
		if len(page.Leases) == 0 {
			return s.say("Everything that ended was taken back.")
		}
		rows := [][]string{}
		for _, l := range page.Leases {
			next := "tried again"
			if l.SetAside {
				next = "set aside"
			}
			rows = append(rows, []string{l.ID, strconv.Itoa(l.Refused + l.Away), l.Last.Format(time.RFC3339), next, l.Error})
		}
		return s.table([]string{"Lease", "Tries", "Last", "Now", "Why"}, rows)
	})
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
well, what cannot be taken back elsewhere is forgotten all the same.

A lease that could not be taken back, see "coffer lease list -failing", is tried
again by this command, also when it was set aside.`,
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
	cmd.Flags().BoolVar(&sync, "sync", false, "wait until it is taken back, or told why it cannot be")
	return cmd
}
