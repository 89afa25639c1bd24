package cli

import (
	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// unsealBody gives one key share.
type unsealBody struct {
	Key     client.Secret `json:"key,omitempty"`
	Reset   bool          `json:"reset,omitempty"`
	Migrate bool          `json:"migrate,omitempty"`
}

func (s *shell) unsealCommand() *cobra.Command {
	var body unsealBody
	cmd := &cobra.Command{
		Use: "unseal [SHARE | -]", Args: atMost(1),
		Short: "Give one key share, until there are enough to open the server.",
		Long: `Give one key share. Once there are enough of them the server opens. The share is
asked for on the terminal; - reads it from standard input. Shares may come from
several people at several machines; -reset makes the server forget those it has.`,
		Example: "  coffer operator unseal\n  coffer operator unseal - <share.txt\n  coffer operator unseal -reset",
		RunE: func(cmd *cobra.Command, args []string) error {
			if body.Reset && len(args) > 0 {
				return usage("-reset goes with no key share")
			}
			if !body.Reset {
				var err error
				if body.Key, _, err = s.keyShare(args, "Unseal Key (will be hidden): "); err != nil {
					return err
				}
			}
			return s.unseal(cmd, body)
		},
	}
	cmd.Flags().BoolVar(&body.Reset, "reset", false, "forget the shares that were given")
	cmd.Flags().BoolVar(&body.Migrate, "migrate", false, "accepted as Vault's: seals migrate by the configuration")
	return cmd
}

func (s *shell) unseal(cmd *cobra.Command, body unsealBody) error {
	answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: "sys/unseal", Body: body, Anonymous: true, WrapTTL: -1})
	if err != nil {
		return err
	}
	return s.asTable(answer, func() error {
		var status client.SealStatus
		if err := answer.Decode(&status); err != nil {
			return err
		}
		if err := s.table(keyValue, sealRows(&status)); err != nil {
			return err
		}
		if next := nextOf(&status); next != "" {
			return s.say("\n%s", next)
		}
		return s.say("\nThe server is unsealed.")
	})
}

// newShares are shown once.
type newShares struct {
	Keys       []client.Secret `json:"keys"` // in hex
	KeysBase64 []client.Secret `json:"keys_base64"`
}

func (s *shell) sharesCommand() *cobra.Command {
	n := usualShares
	cmd := &cobra.Command{
		Use: "shares", Args: exactly(0),
		Short: "Give out the first key shares of a server that has none.",
		Long: `Give out the first key shares of a server that was initialized without any
because it opens by itself. They are shown once. A quorum of them allows coffer
operator rekey and generate-root. Where there are shares, rekey replaces them.`,
		Example: "  coffer operator shares -key-shares=5 -key-threshold=3",
		RunE: func(cmd *cobra.Command, _ []string) error {
			body := struct {
				Shares    int `json:"secret_shares"`
				Threshold int `json:"secret_threshold"`
			}{n.shares, n.threshold}
			answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: "sys/seal/shares", Body: body})
			if err != nil {
				return err
			}
			return s.asTable(answer, func() error {
				var made newShares
				if err := answer.Decode(&made); err != nil {
					return err
				}
				s.shareLines("Key", made.KeysBase64)
				return s.say("\nAny %d of these %d shares together allow coffer operator rekey and generate-root.\nThey are kept nowhere else: hand each to another person.", n.threshold, n.shares)
			})
		},
	}
	n.add(cmd, "key-", "key shares")
	return cmd
}
