package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// loginFlags are the flags of coffer login.
type loginFlags struct {
	passcode                               string // of a second factor
	method, path                           string
	noStore, noPrint, tokenOnly, noBrowser bool
}

func (s *shell) loginCommand() *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use: "login [TOKEN | - | name=value...]", GroupID: "access", Args: cobra.ArbitraryArgs,
		Short: "Log in, and keep the token for the commands that follow.",
		Long: `Log in, and keep the token in ~/.coffer-token for the commands that follow.

With the method token, which is the usual one, a token is checked and kept. The
others take parameters:

` + methodsTable() + `
What is missing of those without brackets is asked for on the terminal; name=@file
reads a file, - and name=- standard input.`,
		Example: "  coffer login\n  coffer login - <token.txt\n  coffer login -method=userpass username=ada\n  coffer login -method=oidc role=people\n  coffer login -method=jwt -token-only role=deploy jwt=@token.jwt\n  coffer login -method=userpass -path=people -token-only username=ada password=@password.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.tokenOnly {
				f.noStore, s.global.field = true, "token"
			}
			if f.method == "token" {
				return s.loginToken(cmd.Context(), &f, args)
			}
			m := methodNamed(f.method)
			if m == nil {
				return usage("-method is token, %s, not %q; for another coffer write auth/%s/login does", strings.Join(methodNames(), ", "), f.method, f.method)
			}
			answer, err := m.login(s, cmd.Context(), &f, args)
			if err != nil {
				return err
			}
			return s.granted(cmd.Context(), &f, answer)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.method, "method", "token", "token, "+strings.Join(methodNames(), ", "))
	flags.StringVar(&f.path, "path", "", "where the method is enabled; its name without this")
	flags.StringVar(&f.passcode, "mfa-passcode", "", "the passcode of a second factor, or - for standard input; asked for otherwise")
	flags.BoolVar(&f.noStore, "no-store", false, "do not keep the token")
	flags.BoolVar(&f.noPrint, "no-print", false, "print nothing")
	flags.BoolVar(&f.tokenOnly, "token-only", false, "print only the token, and do not keep it")
	flags.BoolVar(&f.noBrowser, "no-browser", false, "print the address to open instead of opening it (oidc)")
	return cmd
}

// mount is where the method is enabled, below auth/.
func (f *loginFlags) mount() string {
	if f.path == "" {
		return f.method
	}
	return strings.TrimPrefix(strings.Trim(f.path, "/"), "auth/")
}

// granted keeps the token of an answer and shows it.
func (s *shell) granted(ctx context.Context, f *loginFlags, answer *client.Response) error {
	if answer.WrapInfo != nil {
		return s.show(answer)
	}
	if answer.Auth == nil {
		return fmt.Errorf("the server's answer holds no token")
	}
	if answer.Auth.Token == "" {
		var err error
		if answer, err = s.proveFactor(ctx, f, answer); err != nil {
			return err
		}
	}
	return s.loggedIn(f, answer.Auth.Token.Reveal(), func() error { return s.show(answer) })
}

// loginToken keeps a token that somebody has, after the server knew it.
func (s *shell) loginToken(ctx context.Context, f *loginFlags, args []string) error {
	token, err := s.tokenToKeep(args)
	if err != nil {
		return err
	}
	answer, err := s.do(ctx, client.Request{Path: "auth/token/lookup-self", Token: client.Secret(token), WrapTTL: -1})
	if err != nil {
		return err
	}
	checked, err := asLogin(answer, token)
	if err != nil {
		return err
	}
	return s.loggedIn(f, token, func() error { return s.show(checked) })
}

// asLogin turns what is known of a token into the answer that a login with it
// would get, so that both are shown alike.
func asLogin(lookup *client.Response, token string) (*client.Response, error) {
	var about client.TokenInfo
	if err := lookup.Decode(&about); err != nil {
		return nil, err
	}
	var login struct {
		RequestID string     `json:"request_id"`
		Auth      loginShown `json:"auth"`
	}
	login.RequestID = lookup.RequestID
	login.Auth = loginShown{
		Token: token, Accessor: about.Accessor, TTL: about.TTL, Renewable: about.Renewable, Metadata: about.Meta, Type: about.Type,
		TokenPolicies: about.Policies, IdentityPolicies: about.IdentityPolicies, Policies: append(about.Policies, about.IdentityPolicies...),
	}
	body, err := json.Marshal(login)
	if err != nil {
		return nil, err
	}
	return &client.Response{RequestID: lookup.RequestID, Auth: &client.Auth{}, Body: body}, nil
}

// loginShown is a login's answer with the token in it.
type loginShown struct {
	Token            string            `json:"client_token"`
	Accessor         string            `json:"accessor"`
	Policies         []string          `json:"policies"`
	TokenPolicies    []string          `json:"token_policies"`
	IdentityPolicies []string          `json:"identity_policies,omitempty"`
	Metadata         map[string]string `json:"metadata"`
	TTL              client.Seconds    `json:"lease_duration"`
	Renewable        bool              `json:"renewable"`
	Type             string            `json:"token_type"`
}

// tokenToKeep returns the token of the arguments, or asks for it.
func (s *shell) tokenToKeep(args []string) (string, error) {
	switch len(args) {
	case 0:
		if s.Prompt == nil || s.global.nonInteractive {
			return "", usage("there is nobody to ask for the token; give it on standard input: coffer login -")
		}
		token, err := s.Prompt("Token (will be hidden): ")
		return checkedToken(token, err)
	case 1:
	default:
		return "", usage("it takes one token, not %d", len(args))
	}
	arg := strings.TrimPrefix(args[0], "token=")
	token, literal, err := s.text(arg)
	if literal {
		s.warnToken("coffer login -")
	}
	return checkedToken(token, err)
}

// checkedToken trims what was typed or read.
func checkedToken(token string, err error) (string, error) {
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if token = strings.TrimSpace(token); token == "" {
		return "", usage("the token is empty")
	}
	return token, nil
}

// warnToken says that a token was given on the command line.
func (s *shell) warnToken(better string) {
	s.warn("the token stood on the command line, which the shell keeps in its history and other users see in the process list; use %s, which reads standard input", better)
}

// password is the body of a login with one.
type password struct {
	Password client.Secret `json:"password"`
}

// loginUser logs a person in with a name and a password.
func (s *shell) loginUser(ctx context.Context, f *loginFlags, args []string) (*client.Response, error) {
	name, word, err := s.nameAndPassword(args)
	if err != nil {
		return nil, err
	}
	path := "auth/" + f.mount() + "/login/" + name
	send := func(word string) (*client.Response, error) {
		return s.do(ctx, client.Request{Method: "POST", Path: path, Body: password{client.Secret(word)}, Anonymous: true})
	}
	answer, err := send(word)
	// The line break at the end of a file may be a part of the password, because
	// it was set from that file, or the editor's.
	if shorter := strings.TrimRight(word, "\r\n"); err != nil && shorter != word && wrongPassword(err) {
		answer, err = send(shorter)
	}
	return answer, err
}

// wrongPassword reports whether the server refused a login itself.
func wrongPassword(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && (e.Status == 400 || e.Status == 403)
}

// nameAndPassword reads username=… and password=…, and asks for what is missing.
func (s *shell) nameAndPassword(args []string) (name, word string, err error) {
	data, literal, err := s.values(args)
	if err != nil {
		return "", "", err
	}
	s.warnLiteral(secretNames(literal))
	for key, value := range data {
		switch key {
		case "username":
			name = strings.TrimSpace(scalar(value))
		case "password":
			word = scalar(value)
		default:
			return "", "", usage("it takes username and password, not %q", key)
		}
	}
	asks := s.Prompt != nil && !s.global.nonInteractive
	if name == "" && asks {
		if name, err = s.askName(); err != nil {
			return "", "", err
		}
	}
	if name == "" {
		return "", "", usage("say username=NAME")
	}
	if word == "" && asks {
		if word, err = s.Prompt("Password (will be hidden): "); err != nil {
			return "", "", err
		}
	}
	if word == "" {
		return "", "", usage("there is nobody to ask for the password; give it with password=@file or password=-")
	}
	return name, word, nil
}

// askName asks for a user's name, which may be seen while it is typed.
func (s *shell) askName() (string, error) {
	usual := s.Getenv("LOGNAME")
	if usual == "" {
		usual = s.Getenv("USER")
	}
	question := "Username: "
	if usual != "" {
		question = fmt.Sprintf("Username [%s]: ", usual)
	}
	fmt.Fprint(s.Stderr, question)
	line, err := bufio.NewReaderSize(s.Stdin, 16).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	if line = strings.TrimSpace(line); line == "" {
		line = usual
	}
	return line, nil
}

// loggedIn keeps a token and shows what it is.
func (s *shell) loggedIn(f *loginFlags, token string, show func() error) error {
	if !f.noStore {
		if err := s.storeToken(token); err != nil {
			return err
		}
		for _, name := range []string{"COFFER_TOKEN", "VAULT_TOKEN"} {
			if s.Getenv(name) != "" {
				s.warn("%s is set, and goes before the token that was stored now; unset it to use that", name)
				break
			}
		}
	}
	if f.noPrint {
		return nil
	}
	if !f.noStore {
		if err := s.say("Success! You are now authenticated. The token is stored, and the commands that\nfollow use it.\n"); err != nil {
			return err
		}
	}
	return show()
}

func (s *shell) printCommand() *cobra.Command {
	return group("access", "print", "Print what commands would use.", &cobra.Command{
		Use: "token", Args: exactly(0),
		Short:   "Print the token that commands use.",
		Example: "  coffer print token",
		RunE: func(*cobra.Command, []string) error {
			c, err := s.client()
			if err != nil {
				return err
			}
			token := c.CallingToken().Reveal()
			if token == "" {
				return fmt.Errorf("there is no token: coffer login, or set COFFER_TOKEN")
			}
			_, err = fmt.Fprintln(s.Stdout, token)
			return err
		},
	})
}
