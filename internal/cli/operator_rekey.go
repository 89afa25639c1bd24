package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// rekeyFlags are the flags of operator rekey; one of the first four says what is
// done, and without them a share is given.
type rekeyFlags struct {
	init, cancel, status bool
	verify               bool
	numbers
	nonce, target string
	pgp           []string
	backup        bool
}

// rekeyState is how a change of key shares stands, and how the verification of
// the new ones does.
type rekeyState struct {
	Nonce       string          `json:"nonce"`
	Started     bool            `json:"started"`
	Threshold   int             `json:"t"`
	Shares      int             `json:"n"`
	Progress    int             `json:"progress"`
	Required    int             `json:"required"`
	Verify      bool            `json:"verification_required"`
	VerifyNonce string          `json:"verification_nonce"`
	Complete    bool            `json:"complete"`
	KeysBase64  []client.Secret `json:"keys_base64"`
}

// rekeyStart asks for new key shares.
type rekeyStart struct {
	Shares    int      `json:"secret_shares"`
	Threshold int      `json:"secret_threshold"`
	Verify    bool     `json:"require_verification"`
	Backup    bool     `json:"backup,omitempty"`
	PGP       []string `json:"pgp_keys,omitempty"`
}

// shareFor is one share for what a nonce names.
type shareFor struct {
	Key   client.Secret `json:"key"`
	Nonce string        `json:"nonce"`
}

func (s *shell) rekeyCommand() *cobra.Command {
	f := rekeyFlags{numbers: usualShares}
	cmd := &cobra.Command{
		Use: "rekey [SHARE | -]", Args: atMost(1),
		Short: "Replace the key shares, by a quorum of those who hold them.",
		Long: `Replace the key shares, by a quorum of those who hold them.

  1. One starts it with -init, and says how many new shares there are to be.
  2. Each of a quorum gives a share: coffer operator rekey. It is asked for, or
     read from standard input with - and the -nonce of step 1.
  3. The new shares are shown once.
  4. With -init -verify the old shares stay in force until a quorum of the new
     ones was given back: coffer operator rekey -verify, each with another share.

-cancel ends it; -cancel -verify begins step 4 again. A server that opens by
itself changes its recovery shares the same way.`,
		Example: "  coffer operator rekey -init -key-shares=5 -key-threshold=3 -verify\n  coffer operator rekey\n  coffer operator rekey -nonce=2dbd10f1-8528 - <share.txt\n  coffer operator rekey -verify\n  coffer operator rekey -status",
		RunE:    func(cmd *cobra.Command, args []string) error { return s.rekey(cmd, &f, args) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.init, "init", false, "start it")
	flags.BoolVar(&f.cancel, "cancel", false, "end it, and forget the shares that were given")
	flags.BoolVar(&f.status, "status", false, "show how it stands")
	flags.BoolVar(&f.verify, "verify", false, "with -init, want the new shares to be verified; else this is about the verification")
	flags.IntVarP(&f.shares, "key-shares", "n", f.shares, "how many new shares to make")
	flags.IntVarP(&f.threshold, "key-threshold", "t", f.threshold, "how many of them are needed")
	flags.StringVar(&f.nonce, "nonce", "", "the nonce that the start was answered with")
	flags.StringVar(&f.target, "target", "barrier", "barrier or recovery, as Vault has it: a server here has shares of one kind")
	flags.StringSliceVar(&f.pgp, "pgp-keys", nil, "refused: shares are not encrypted to PGP keys")
	flags.BoolVar(&f.backup, "backup", false, "refused, as -pgp-keys")
	return cmd
}

func (s *shell) rekey(cmd *cobra.Command, f *rekeyFlags, args []string) error {
	if f.target != "barrier" && f.target != "recovery" {
		return usage("-target is barrier or recovery, not %q", f.target)
	}
	doing, path := 0, "sys/rekey/init"
	for _, flag := range []bool{f.init, f.cancel, f.status} {
		if flag {
			doing++
		}
	}
	switch {
	case doing > 1:
		return usage("-init, -cancel and -status do not go together")
	case doing > 0 && len(args) > 0:
		return usage("a key share goes with none of -init, -cancel and -status")
	case f.verify && !f.init:
		path = "sys/rekey/verify"
	}
	switch {
	case f.init:
		return s.showRekey(cmd, client.Request{Method: "POST", Path: path, Body: rekeyStart{f.shares, f.threshold, f.verify, f.backup, f.pgp}}, f)
	case f.status:
		return s.showRekey(cmd, client.Request{Path: path}, f)
	case f.cancel && f.verify:
		return s.showRekey(cmd, client.Request{Method: "DELETE", Path: path}, f)
	case f.cancel:
		return s.ask(cmd.Context(), client.Request{Method: "DELETE", Path: path, Anonymous: true}, "Success! Canceled rekeying (if it was started)")
	}
	state, err := s.rekeyState(cmd, path)
	if err != nil {
		return err
	}
	if err := checkRekey(state, f); err != nil {
		return err
	}
	update := "sys/rekey/update"
	if f.verify {
		update = path
	}
	share, err := s.shareOf(args, f.nonce, state.Nonce, "Rekey")
	if err != nil {
		return err
	}
	return s.showRekey(cmd, client.Request{Method: "POST", Path: update, Body: share}, f)
}

func (s *shell) rekeyState(cmd *cobra.Command, path string) (*rekeyState, error) {
	answer, err := s.do(cmd.Context(), client.Request{Path: path, Anonymous: true, WrapTTL: -1})
	if err != nil {
		return nil, err
	}
	state := new(rekeyState)
	return state, answer.Decode(state)
}

// checkRekey says of a share that it comes too early, or for the other step.
func checkRekey(state *rekeyState, f *rekeyFlags) error {
	switch {
	case f.verify && !state.Started:
		return fmt.Errorf("no new key shares wait to be verified; coffer operator rekey -status says how it stands")
	case f.verify:
		return nil
	case !state.Started:
		return fmt.Errorf("no rekey is in progress; start one: coffer operator rekey -init")
	case state.VerifyNonce != "":
		return fmt.Errorf("the new key shares wait to be verified: coffer operator rekey -verify, with a new share")
	}
	return nil
}

// shareOf reads a share for what is under way. The nonce is asked of those whose
// share no person types: it names what the share is meant for.
func (s *shell) shareOf(args []string, given, current, what string) (shareFor, error) {
	if len(args) > 0 && given == "" {
		return shareFor{}, usage("with a share that is not typed, -nonce is needed: it says what the share is meant for; whoever started has it")
	}
	if given == "" {
		fmt.Fprintf(s.Stderr, "%s operation nonce: %s\n", what, printable(current))
		given = current
	}
	share, _, err := s.keyShare(args, "Key share (will be hidden): ")
	return shareFor{share, given}, err
}

// showRekey sends a request of a rekey, and shows how it stands then.
func (s *shell) showRekey(cmd *cobra.Command, r client.Request, f *rekeyFlags) error {
	r.Anonymous, r.WrapTTL = true, -1 // shares authorize, not a token
	answer, err := s.do(cmd.Context(), r)
	if err != nil {
		return err
	}
	return s.asTable(answer, func() error {
		var state rekeyState
		if err := answer.Decode(&state); err != nil {
			return err
		}
		switch verifying := f.verify && !f.init; {
		case verifying && state.Complete:
			return s.say("Success! The new key shares are verified, and in force now; the old ones are of no use any more.")
		case verifying:
			return s.verifyTable(&state)
		case len(state.KeysBase64) > 0:
			return s.rekeyed(&state)
		}
		return s.rekeyTable(&state)
	})
}

func (s *shell) verifyTable(state *rekeyState) error {
	if !state.Started {
		return s.say("No new key shares wait to be verified.")
	}
	return s.table(keyValue, [][]string{
		{"Nonce", state.Nonce}, {"New Shares", strconv.Itoa(state.Shares)}, {"New Threshold", strconv.Itoa(state.Threshold)},
		{"Verification Progress", progress(state.Progress, state.Threshold)},
	})
}

func (s *shell) rekeyTable(state *rekeyState) error {
	rows := [][]string{{"Nonce", state.Nonce}, {"Started", strconv.FormatBool(state.Started)}}
	if state.Started {
		rows = append(rows, []string{"Rekey Progress", progress(state.Progress, state.Required)},
			[]string{"New Shares", strconv.Itoa(state.Shares)}, []string{"New Threshold", strconv.Itoa(state.Threshold)},
			[]string{"Verification Required", strconv.FormatBool(state.Verify)})
	}
	if state.VerifyNonce != "" {
		rows = append(rows, []string{"Verification Nonce", state.VerifyNonce})
	}
	if err := s.table(keyValue, rows); err != nil {
		return err
	}
	switch {
	case state.VerifyNonce != "":
		return s.say("\nThe new shares wait to be verified: coffer operator rekey -verify")
	case state.Started:
		return s.say("\nNext: coffer operator rekey   (each of %d people with a present share)", state.Required-state.Progress)
	}
	return nil
}

// rekeyed shows the new shares, once.
func (s *shell) rekeyed(state *rekeyState) error {
	s.shareLines("Key", state.KeysBase64)
	fmt.Fprintf(s.Stdout, "\nOperation nonce: %s\n\n", printable(state.Nonce))
	if state.VerifyNonce != "" {
		fmt.Fprintf(s.Stdout, "Verification nonce: %s\n\n", printable(state.VerifyNonce))
		return s.say("The new shares are not in force yet. Hand each to another person; then %d of them\ngive theirs back: coffer operator rekey -verify. Until then the old ones count.", state.Threshold)
	}
	return s.say("The new shares are in force, any %d of them, and the old ones are of no use any\nmore. They are kept nowhere else: hand each to another person.", state.Threshold)
}
