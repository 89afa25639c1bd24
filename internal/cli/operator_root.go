package cli

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// rootFlags are the flags of operator generate-root.
type rootFlags struct {
	init, cancel, status, pad bool
	decode, otp, nonce, pgp   string
}

// rootState is how the making of a root token stands.
type rootState struct {
	Nonce     string        `json:"nonce"`
	Started   bool          `json:"started"`
	Progress  int           `json:"progress"`
	Required  int           `json:"required"`
	Complete  bool          `json:"complete"`
	Encoded   client.Secret `json:"encoded_token"`
	OTP       client.Secret `json:"otp"`
	OTPLength int           `json:"otp_length"`
}

// rootStart starts it.
type rootStart struct {
	OTP client.Secret `json:"otp,omitempty"`
	PGP string        `json:"pgp_key,omitempty"`
}

const rootAttempt = "sys/generate-root/attempt"

func (s *shell) generateRootCommand() *cobra.Command {
	var f rootFlags
	cmd := &cobra.Command{
		Use: "generate-root [SHARE | -]", Args: atMost(1),
		Short: "Make a new root token, by a quorum of those who hold key shares.",
		Long: `Make a new root token, by a quorum of those who hold key shares.

  1. One starts it with -init and keeps the one-time pad (OTP) it is answered with.
  2. Each of a quorum gives a share: coffer operator generate-root. It is asked
     for, or read from standard input with - and the -nonce of step 1. The last
     one is shown the token, encoded.
  3. Who has the pad decodes it: -decode=ENCODED -otp=PAD. Either may be @file or
     - for standard input.

-cancel ends it. -generate-otp makes a pad to start with: -init -otp=@file.`,
		Example: "  coffer operator generate-root -init\n  coffer operator generate-root\n  coffer operator generate-root -nonce=2dbd10f1-8528 - <share.txt\n  coffer operator generate-root -decode=IF1BXVcxUQFRMjUHaHYHdQ -otp=@otp.txt\n  coffer operator generate-root -cancel",
		RunE:    func(cmd *cobra.Command, args []string) error { return s.generateRoot(cmd, &f, args) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.init, "init", false, "start it")
	flags.BoolVar(&f.cancel, "cancel", false, "end it, and forget the shares that were given")
	flags.BoolVar(&f.status, "status", false, "show how it stands")
	flags.BoolVar(&f.pad, "generate-otp", false, "make a one-time pad, and do nothing else")
	flags.StringVar(&f.decode, "decode", "", "decode this token with -otp")
	flags.StringVar(&f.otp, "otp", "", "the one-time pad; the server makes one where -init is given none")
	flags.StringVar(&f.nonce, "nonce", "", "the nonce that the start was answered with")
	flags.StringVar(&f.pgp, "pgp-key", "", "refused: tokens are not encrypted to PGP keys")
	return cmd
}

func (s *shell) generateRoot(cmd *cobra.Command, f *rootFlags, args []string) error {
	doing := 0
	for _, flag := range []bool{f.init, f.cancel, f.status, f.pad, f.decode != ""} {
		if flag {
			doing++
		}
	}
	if doing > 1 || doing == 1 && len(args) > 0 {
		return usage("-init, -cancel, -status, -generate-otp, -decode and a key share do not go together")
	}
	switch {
	case f.init:
		return s.startRoot(cmd, f)
	case f.cancel:
		return s.ask(cmd.Context(), client.Request{Method: "DELETE", Path: rootAttempt, Anonymous: true}, "Success! Root token generation canceled (if it was started)")
	case f.decode != "":
		return s.decodeRoot(f)
	}
	state, answer, err := s.rootRequest(cmd, client.Request{Path: rootAttempt})
	switch {
	case err != nil:
		return err
	case f.status:
		return s.asTable(answer, func() error { return s.rootTable(state) })
	case f.pad:
		return s.generatePad(state.OTPLength)
	case !state.Started:
		return errors.New("no root token is being made; start it: coffer operator generate-root -init")
	}
	share, err := s.shareOf(args, f.nonce, state.Nonce, "Root generation")
	if err != nil {
		return err
	}
	state, answer, err = s.rootRequest(cmd, client.Request{Method: "POST", Path: "sys/generate-root/update", Body: share})
	if err != nil {
		return err
	}
	return s.asTable(answer, func() error { return s.rootTable(state) })
}

func (s *shell) startRoot(cmd *cobra.Command, f *rootFlags) error {
	otp, literal, err := s.text(f.otp)
	if err != nil {
		return fmt.Errorf("-otp: %w", err)
	}
	if literal && otp != "" {
		s.warnLiteral([]string{"-otp"})
	}
	body := rootStart{client.Secret(strings.TrimSpace(otp)), f.pgp}
	state, answer, err := s.rootRequest(cmd, client.Request{Method: "POST", Path: rootAttempt, Body: body})
	if err != nil {
		return err
	}
	return s.asTable(answer, func() error { return s.rootTable(state) })
}

// rootRequest sends a request; shares authorize it, not a token.
func (s *shell) rootRequest(cmd *cobra.Command, r client.Request) (*rootState, *client.Response, error) {
	r.Anonymous, r.WrapTTL = true, -1
	answer, err := s.do(cmd.Context(), r)
	if err != nil {
		return nil, answer, err
	}
	state := new(rootState)
	return state, answer, answer.Decode(state)
}

func (s *shell) rootTable(state *rootState) error {
	rows := [][]string{
		{"Nonce", state.Nonce}, {"Started", strconv.FormatBool(state.Started)},
		{"Progress", progress(state.Progress, state.Required)}, {"Complete", strconv.FormatBool(state.Complete)},
	}
	if state.Encoded != "" {
		rows = append(rows, []string{"Encoded Token", state.Encoded.Reveal()})
	}
	if state.OTP != "" {
		rows = append(rows, []string{"OTP", state.OTP.Reveal()})
	}
	rows = append(rows, []string{"OTP Length", strconv.Itoa(state.OTPLength)})
	if err := s.table(keyValue, rows); err != nil {
		return err
	}
	switch {
	case state.Complete:
		return s.say("\nNext, by whoever has the pad: coffer operator generate-root -decode=%s -otp=-", state.Encoded.Reveal())
	case state.OTP != "":
		return s.say("\nKeep the OTP: the token is decoded with it. Next, each of %d people with a share:\n  coffer operator generate-root", state.Required)
	case state.Started:
		return s.say("\nNext, each of %d people with another share: coffer operator generate-root", state.Required-state.Progress)
	}
	return nil
}

// padLetters are the letters of one-time pads.
const padLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// generatePad prints a one-time pad of random letters and digits.
func (s *shell) generatePad(length int) error {
	pad, last := make([]byte, 0, length), big.NewInt(int64(len(padLetters)))
	for len(pad) < length {
		n, err := rand.Int(rand.Reader, last)
		if err != nil {
			return err
		}
		pad = append(pad, padLetters[n.Int64()])
	}
	out := struct {
		OTP       string `json:"otp"`
		OTPLength int    `json:"otp_length"`
	}{string(pad), length}
	return s.value(out, func() error { return s.say("%s", out.OTP) })
}

// decodeRoot prints the token that a root generation gave encoded.
func (s *shell) decodeRoot(f *rootFlags) error {
	if f.otp == "" {
		return usage("-decode needs the -otp that the start was answered with; @file and - read it")
	}
	if f.otp == "-" && f.decode == "-" {
		return usage("only one of -decode and -otp can be read from standard input")
	}
	encoded, _, err := s.text(f.decode)
	if err != nil {
		return fmt.Errorf("-decode: %w", err)
	}
	pad, literal, err := s.text(f.otp)
	if err != nil {
		return fmt.Errorf("-otp: %w", err)
	}
	if literal {
		s.warnLiteral([]string{"-otp"})
	}
	token, err := unmask(strings.TrimSpace(encoded), strings.TrimSpace(pad))
	if err != nil {
		return err
	}
	out := struct {
		Token string `json:"token"`
	}{token}
	return s.value(out, func() error { return s.say("%s", printable(token)) })
}

// unmask takes a pad off an encoded token.
func unmask(encoded, pad string) (string, error) {
	mixed, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
	switch {
	case err != nil:
		return "", fmt.Errorf("-decode: it is not what a root generation gave: %w", err)
	case len(mixed) != len(pad):
		return "", fmt.Errorf("the token has %d bytes and the pad %d; they do not belong together", len(mixed), len(pad))
	}
	for i := range mixed {
		mixed[i] ^= pad[i]
	}
	return string(mixed), nil
}
