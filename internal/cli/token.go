package cli

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) tokenCommand() *cobra.Command {
	return group("access", "token", "Create, look up, renew and revoke tokens.",
		s.tokenCreateCommand(), s.tokenLookupCommand(), s.tokenRenewCommand(), s.tokenRevokeCommand(), s.tokenCapabilitiesCommand())
}

// newToken is the body that creates a token. Durations are as they were typed;
// the server reads them.
type newToken struct {
	ID              client.Secret     `json:"id,omitempty"`
	Policies        []string          `json:"policies,omitempty"`
	NoDefaultPolicy bool              `json:"no_default_policy,omitempty"`
	NoParent        bool              `json:"no_parent,omitempty"`
	Meta            map[string]string `json:"meta,omitempty"`
	DisplayName     string            `json:"display_name,omitempty"`
	Type            string            `json:"type,omitempty"`
	Renewable       *bool             `json:"renewable,omitempty"`
	NumUses         int64             `json:"num_uses,omitempty"`
	TTL             string            `json:"ttl,omitempty"`
	ExplicitMaxTTL  string            `json:"explicit_max_ttl,omitempty"`
	Period          string            `json:"period,omitempty"`
	EntityAlias     string            `json:"entity_alias,omitempty"`
}

func (s *shell) tokenCreateCommand() *cobra.Command {
	var body newToken
	var id, role string
	var renewable bool
	cmd := &cobra.Command{
		Use: "create", Args: exactly(0),
		Short: "Create a token.",
		Long: `Create a token below the one that is used, with its policies unless -policy names
some of them. It ends with its parent; an orphan, for which sudo is needed, has none.`,
		Example: "  coffer token create -policy=app -ttl=1h\n  coffer token create -role=ci -field=token\n  coffer token create -policy=app -wrap-ttl=5m",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if id != "" {
				text, literal, err := s.text(id)
				if err != nil {
					return err
				}
				if literal {
					s.warnToken("-id=-")
				}
				body.ID = client.Secret(strings.TrimSpace(text))
			}
			if cmd.Flags().Changed("renewable") {
				body.Renewable = &renewable
			}
			path := "auth/token/create"
			if role != "" {
				path += "/" + role
			}
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: path, Body: body}, "The token was created.")
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&id, "id", "", "the token itself, @file or - for standard input; only with sudo")
	flags.StringArrayVar(&body.Policies, "policy", nil, "a policy; may be given several times")
	flags.BoolVar(&body.NoDefaultPolicy, "no-default-policy", false, "leave the policy default out")
	flags.BoolVar(&body.NoParent, "orphan", false, "create it without a parent; only with sudo")
	flags.StringVar(&role, "role", "", "create it by this role")
	flags.StringVar(&body.DisplayName, "display-name", "", "a name for lookups and the audit log")
	flags.Var((*pairs)(&body.Meta), "metadata", "name=value for lookups and the audit log; may be given several times")
	flags.StringVar(&body.Type, "type", "", "service or batch")
	flags.BoolVar(&renewable, "renewable", true, "whether it may be renewed")
	flags.Int64Var(&body.NumUses, "use-limit", 0, "how many requests it may make; 0 is any number")
	flags.StringVar(&body.TTL, "ttl", "", "how long it lives, for example 30m")
	flags.StringVar(&body.ExplicitMaxTTL, "explicit-max-ttl", "", "when it ends whatever happens")
	flags.StringVar(&body.Period, "period", "", "each renewal starts this long anew; only with sudo")
	flags.StringVar(&body.EntityAlias, "entity-alias", "", "with -role: the entity alias that it is for")
	return cmd
}

// ofToken is the body that names a token by itself or by its accessor; empty it
// is the calling one.
type ofToken struct {
	Token     client.Secret `json:"token,omitempty"`
	Accessor  string        `json:"accessor,omitempty"`
	Increment string        `json:"increment,omitempty"`
}

// named reads an argument that is a token, or with accessor its accessor.
func (s *shell) named(args []string, accessor bool) (ofToken, error) {
	if len(args) == 0 {
		if accessor {
			return ofToken{}, usage("-accessor wants an accessor")
		}
		return ofToken{}, nil
	}
	text, literal, err := s.text(args[0])
	text, err = checkedToken(text, err)
	switch {
	case err != nil:
		return ofToken{}, err
	case accessor:
		return ofToken{Accessor: text}, nil
	case literal:
		s.warnToken("- in its place")
	}
	return ofToken{Token: client.Secret(text)}, nil
}

// tokenPath returns the route of a verb for the token that is named: its own
// for the calling one.
func tokenPath(verb string, of ofToken) string {
	switch {
	case of.Accessor != "":
		verb += "-accessor"
	case of.Token == "":
		verb += "-self"
	}
	return "auth/token/" + verb
}

func (s *shell) tokenLookupCommand() *cobra.Command {
	var accessor bool
	cmd := &cobra.Command{
		Use: "lookup [TOKEN | -]", Args: atMost(1),
		Short:   "Show what is known of a token, the one that is used unless another is named.",
		Example: "  coffer token lookup\n  coffer token lookup - <token.txt\n  coffer token lookup -accessor 9793c9b3",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, err := s.named(args, accessor)
			if err != nil {
				return err
			}
			r := client.Request{Method: "POST", Path: tokenPath("lookup", of), Body: of, Reads: true}
			if len(args) == 0 {
				r = client.Request{Method: "GET", Path: tokenPath("lookup", of)}
			}
			return s.ask(cmd.Context(), r, "Nothing is known of it.")
		},
	}
	cmd.Flags().BoolVar(&accessor, "accessor", false, "the argument is an accessor")
	return cmd
}

func (s *shell) tokenRenewCommand() *cobra.Command {
	var accessor bool
	var increment string
	cmd := &cobra.Command{
		Use: "renew [TOKEN | -]", Args: atMost(1),
		Short:   "Extend a token's life, of the one that is used unless another is named.",
		Example: "  coffer token renew\n  coffer token renew -increment=30m - <token.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, err := s.named(args, accessor)
			if err != nil {
				return err
			}
			of.Increment = increment
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: tokenPath("renew", of), Body: of}, "The token was renewed.")
		},
	}
	cmd.Flags().BoolVar(&accessor, "accessor", false, "the argument is an accessor")
	cmd.Flags().StringVarP(&increment, "increment", "i", "", "how long it is to live from now on, for example 30m")
	return cmd
}

func (s *shell) tokenRevokeCommand() *cobra.Command {
	var accessor, self bool
	var mode string
	cmd := &cobra.Command{
		Use: "revoke TOKEN | - | -self", Args: atMost(1),
		Short: "End a token, with everything below it.",
		Long: `End a token, and with it every token and lease below it. With -mode=orphan the
tokens below live on. With -mode=path the argument is a path like auth/userpass/,
and everything that was created there ends.`,
		Example: "  coffer token revoke -self\n  coffer token revoke - <token.txt\n  coffer token revoke -accessor 9793c9b3",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.revocation(args, accessor, self, mode)
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), r, "Success! Revoked token (if it existed)")
		},
	}
	cmd.Flags().BoolVar(&accessor, "accessor", false, "the argument is an accessor")
	cmd.Flags().BoolVar(&self, "self", false, "end the token that is used")
	cmd.Flags().StringVar(&mode, "mode", "", "orphan or path")
	return cmd
}

// revocation returns the request that ends what the flags and the argument name.
func (s *shell) revocation(args []string, accessor, self bool, mode string) (client.Request, error) {
	none := client.Request{}
	switch {
	case self && (len(args) > 0 || accessor || mode != ""):
		return none, usage("-self goes with no token, -accessor or -mode")
	case !self && len(args) == 0:
		return none, usage("name a token, or -self for the one that is used")
	case mode != "" && mode != "orphan" && mode != "path":
		return none, usage("-mode is orphan or path, not %q", mode)
	case mode != "" && accessor:
		return none, usage("-accessor and -mode do not go together")
	case mode == "path":
		return client.Request{Method: "POST", Path: "sys/leases/revoke-prefix/" + strings.Trim(args[0], "/")}, nil
	}
	of, err := s.named(args, accessor)
	path := tokenPath("revoke", of)
	if mode == "orphan" {
		path = "auth/token/revoke-orphan"
	}
	return client.Request{Method: "POST", Path: path, Body: of}, err
}

// ofPaths is the body that asks what a token may do.
type ofPaths struct {
	ofToken
	Paths []string `json:"paths"`
}

func (s *shell) tokenCapabilitiesCommand() *cobra.Command {
	var accessor bool
	cmd := &cobra.Command{
		Use: "capabilities [TOKEN | -] PATH", Args: arity(1, 2),
		Short:   "Show what a token may do at a path, the one that is used unless another is named.",
		Example: "  coffer token capabilities secret/data/app/db\n  coffer token capabilities - secret/data/app/db <token.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, err := s.named(args[:len(args)-1], accessor)
			if err != nil {
				return err
			}
			path := args[len(args)-1]
			verb := strings.TrimPrefix(tokenPath("capabilities", of), "auth/token/")
			answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: "sys/" + verb, Body: ofPaths{of, []string{path}}, Reads: true, WrapTTL: -1})
			if err != nil {
				return err
			}
			var all map[string]json.RawMessage
			if err := answer.Decode(&all); err != nil {
				return err
			}
			var list []string
			if err := json.Unmarshal(all[path], &list); err != nil {
				return err
			}
			slices.Sort(list)
			return s.value(list, func() error { return s.say("%s", strings.Join(list, ", ")) })
		},
	}
	cmd.Flags().BoolVar(&accessor, "accessor", false, "the argument is an accessor")
	return cmd
}
