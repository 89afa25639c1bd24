package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// usualShares is how many shares are made unless flags say otherwise, and how
// many of them are needed.
var usualShares = numbers{5, 3}

// exitNew is the code of operator init -status for a server that is not
// initialized.
const exitNew = 2

// initBody asks for a server to be initialized.
type initBody struct {
	Shares            int      `json:"secret_shares,omitempty"`
	Threshold         int      `json:"secret_threshold,omitempty"`
	RecoveryShares    int      `json:"recovery_shares,omitempty"`
	RecoveryThreshold int      `json:"recovery_threshold,omitempty"`
	PGP               []string `json:"pgp_keys,omitempty"`
	RootPGP           string   `json:"root_token_pgp_key,omitempty"`
	RecoveryPGP       []string `json:"recovery_pgp_keys,omitempty"`
}

// initShown is what a machine is told of an initialization, in the shape of
// Vault's command line.
type initShown struct {
	KeysBase64        []string `json:"unseal_keys_b64"`
	KeysHex           []string `json:"unseal_keys_hex"`
	Shares            int      `json:"unseal_shares"`
	Threshold         int      `json:"unseal_threshold"`
	RecoveryBase64    []string `json:"recovery_keys_b64"`
	RecoveryHex       []string `json:"recovery_keys_hex"`
	RecoveryShares    int      `json:"recovery_keys_shares"`
	RecoveryThreshold int      `json:"recovery_keys_threshold"`
	RootToken         string   `json:"root_token"`
}

func (s *shell) initCommand() *cobra.Command {
	var body initBody
	var status bool
	keys, recovery := numbers{}, numbers{}
	cmd := &cobra.Command{
		Use: "init", Args: exactly(0),
		Short: "Initialize a new server; its root token and key shares are shown once.",
		Long: `Initialize a new server. Its root token and key shares are shown once, and kept
nowhere: hand each share to another person.

With a Shamir seal there are 5 shares, of which 3 open the server, unless the
flags say otherwise. Any other seal opens by itself and needs none; recovery
shares, which allow a rekey and a new root token, are made where they are asked
for, and can be given out later with coffer operator shares.

With -status nothing is done; the exit code is 0 where the server is initialized,
2 where it is not, and 1 where it cannot be asked.`,
		Example: "  coffer operator init -status\n  coffer operator init -key-shares=5 -key-threshold=3\n  coffer operator init -format=json >keys.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if status {
				return s.initStatus(cmd.Context())
			}
			body.Shares, body.Threshold = keys.shares, keys.threshold
			body.RecoveryShares, body.RecoveryThreshold = recovery.shares, recovery.threshold
			return s.initialize(cmd.Context(), body)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&status, "status", false, "only say whether the server is initialized")
	flags.IntVarP(&keys.shares, "key-shares", "n", 0, "how many key shares to make, with a Shamir seal; 5")
	flags.IntVarP(&keys.threshold, "key-threshold", "t", 0, "how many of them open the server; 3")
	recovery.add(cmd, "recovery-", "recovery shares, with another seal,")
	flags.StringSliceVar(&body.PGP, "pgp-keys", nil, "refused: shares are not encrypted to PGP keys")
	flags.StringVar(&body.RootPGP, "root-token-pgp-key", "", "refused, as -pgp-keys")
	flags.StringSliceVar(&body.RecoveryPGP, "recovery-pgp-keys", nil, "refused, as -pgp-keys")
	return cmd
}

func (s *shell) initStatus(ctx context.Context) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	done, err := c.Sys().Initialized(ctx)
	if err != nil {
		return &exit{exitLocal, err}
	}
	about := struct {
		Initialized bool `json:"initialized"`
	}{done}
	err = s.value(about, func() error {
		if done {
			return s.say("The server is initialized.")
		}
		return s.say("The server is not initialized: coffer operator init")
	})
	if err == nil && !done {
		err = &exit{code: exitNew}
	}
	return err
}

func (s *shell) initialize(ctx context.Context, body initBody) error {
	if _, err := s.client(); err != nil {
		return err
	}
	status, err := s.one.Sys().SealStatus(ctx) // also where init is only shown
	if err != nil {
		return refused(err)
	}
	if !status.RecoverySeal {
		usual(&body.Shares, usualShares.shares)
		usual(&body.Threshold, min(usualShares.threshold, body.Shares))
	}
	answer, err := s.do(ctx, client.Request{Method: "POST", Path: "sys/init", Body: body, Anonymous: true, WrapTTL: -1})
	if err != nil {
		return err
	}
	var made client.InitAnswer
	if err := answer.Decode(&made); err != nil {
		return err
	}
	shown := initShown{
		KeysBase64: reveal(made.KeysBase64), KeysHex: reveal(made.Keys), Shares: body.Shares, Threshold: body.Threshold,
		RecoveryBase64: reveal(made.RecoveryBase64), RecoveryHex: reveal(made.Recovery),
		RecoveryShares: body.RecoveryShares, RecoveryThreshold: body.RecoveryThreshold, RootToken: made.RootToken.Reveal(),
	}
	if len(made.Keys) == 0 {
		shown.Shares, shown.Threshold = 1, 1 // as Vault says of a server that opens by itself
	}
	return s.value(shown, func() error { return s.initialized(&made, &body) })
}

func usual(number *int, value int) {
	if *number == 0 {
		*number = value
	}
}

// reveal returns secrets as text, never nil.
func reveal(secrets []client.Secret) []string {
	out := make([]string, len(secrets))
	for i, secret := range secrets {
		out[i] = secret.Reveal()
	}
	return out
}

func (s *shell) initialized(made *client.InitAnswer, body *initBody) error {
	s.shareLines("Unseal Key", made.KeysBase64)
	s.shareLines("Recovery Key", made.RecoveryBase64)
	if len(made.Keys)+len(made.Recovery) > 0 {
		fmt.Fprintln(s.Stdout)
	}
	fmt.Fprintf(s.Stdout, "Initial Root Token: %s\n\n", printable(made.RootToken.Reveal()))
	if len(made.Keys) > 0 {
		fmt.Fprintf(s.Stdout, `The server is initialized, and sealed. It was split into %d key shares, any %d of
which open it: after every start and every seal somebody has to give them. Hand
each share to another person. They are kept nowhere else: with fewer than %[2]d of
them everything in the server is lost.

Next: coffer operator unseal   (%[2]d times, each with another share)
`, body.Shares, body.Threshold)
	} else {
		fmt.Fprintln(s.Stdout, "The server is initialized, and opens by itself.")
	}
	if len(made.Recovery) > 0 {
		fmt.Fprintf(s.Stdout, "\nThe %d recovery shares, any %d of which together allow coffer operator rekey and\ngenerate-root, do not open the server. Hand each to another person.\n", body.RecoveryShares, body.RecoveryThreshold)
	}
	_, err := fmt.Fprint(s.Stdout, "\nThe root token may do everything. Use it to enable an auth method and write\npolicies, then end it: coffer token revoke -self\n")
	return err
}
