package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/sys"
)

// exitDenied is the code of policy can for what is denied.
const exitDenied = 1

func (s *shell) policyCanCommand() *cobra.Command {
	return &cobra.Command{
		Use: "can IDENTITY CAPABILITY PATH", Args: exactly(3), ValidArgsFunction: s.completeCan,
		Short: "Say whether somebody may do something, and by which rule.",
		Long: `Say whether somebody may do something on the server, and by which rule. IDENTITY is
one of

  policies:NAME,NAME    somebody with just these policies
  token-accessor:WORD   the holder of the token with that accessor
  entity:NAME           an entity, by its policies, those of its groups, and default

To ask needs update on sys/policies/can, and besides read on the policies, on the
entity, or update on auth/token/lookup-accessor. Rules of policies that the asking token
may not read are not shown.

The exit code is 0 where it is allowed and 1 where it is denied.`,
		Example: "  coffer policy can policies:app,default read secret/app/db\n  coffer policy can entity:ada update secret/app/db\n  coffer policy can token-accessor:u1VhIYDK0bXuAJ9gzN0nVfYW delete secret/app/db",
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := canBody(args)
			if err != nil {
				return err
			}
			answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: "sys/policies/can", Body: body, Reads: true})
			if err != nil {
				return err
			}
			var can sys.CanAnswer
			if answer.WrapInfo == nil {
				if err := answer.Decode(&can); err != nil {
					return err
				}
			}
			err = s.asTable(answer, func() error { return s.canLines(&can, args) })
			if err == nil && answer.WrapInfo == nil && !can.Allowed {
				err = &exit{code: exitDenied}
			}
			return err
		},
	}
}

// completeCan completes the kinds of identities, the capabilities and a path.
func (s *shell) completeCan(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return matching([]string{"policies:", "token-accessor:", "entity:"}, "", word)
	case 1:
		return []string{"create", "read", "update", "delete", "list", "patch"}, cobra.ShellCompDirectiveNoFileComp
	case 2:
		return s.completePath(cmd, nil, word)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// canBody reads IDENTITY CAPABILITY PATH.
func canBody(args []string) (any, error) {
	body := struct {
		Policies   []string `json:"policies,omitempty"`
		Accessor   string   `json:"accessor,omitempty"`
		Entity     string   `json:"entity,omitempty"`
		Capability string   `json:"capability"`
		Path       string   `json:"path"`
	}{Capability: args[1], Path: args[2]}
	kind, name, ok := strings.Cut(args[0], ":")
	switch {
	case !ok || name == "":
		return nil, usage("%q is no identity: policies:NAME,NAME or token-accessor:WORD or entity:NAME", args[0])
	case kind == "policies":
		for one := range strings.SplitSeq(name, ",") {
			body.Policies = append(body.Policies, strings.TrimSpace(one))
		}
	case kind == "token-accessor":
		body.Accessor = name
	case kind == "entity":
		body.Entity = name
	default:
		return nil, usage("%q is no identity: policies:NAME,NAME or token-accessor:WORD or entity:NAME", args[0])
	}
	return body, nil
}

func (s *shell) canLines(can *sys.CanAnswer, args []string) error {
	var err error
	if len(can.Considered) > 0 {
		for _, line := range can.Considered {
			err = errors.Join(err, s.say("%s", printable(line)))
		}
		return err
	}
	outcome := "denied"
	if can.Allowed {
		outcome = "allowed"
	}
	err = s.say("%s: %s on %s", outcome, args[1], printable(can.Path))
	if can.Rule != "" {
		err = errors.Join(err, s.say("* %s  %s", printable(can.Policy), can.Rule))
	}
	if can.Hidden > 0 {
		err = errors.Join(err, s.say("%s of theirs you may not read", printable(plural(can.Hidden, "policy"))))
	}
	return err
}

func (s *shell) policyWhoCanCommand() *cobra.Command {
	return &cobra.Command{
		Use: "who-can PATH [CAPABILITY]", Args: arity(1, 2), ValidArgsFunction: s.completePath,
		Short: "List the policies that grant something, and who holds them.",
		Long: `List the policies that grant a capability, read unless it is named, on a path, by which
rule; and who holds them and may do it: roles and users of login methods, groups,
entities, and tokens.

To ask needs update on sys/policies/who-can. What the asking token may not read is left
out and counted: policies, roles and users, groups and entities. Tokens are listed for
those who may look them up: update on auth/token/lookup-accessor. Who holds root may do
everything, and is listed, too.`,
		Example: "  coffer policy who-can secret/app/db\n  coffer policy who-can -format=json secret/app/db delete",
		RunE: func(cmd *cobra.Command, args []string) error {
			body := struct {
				Path       string `json:"path"`
				Capability string `json:"capability,omitempty"`
			}{Path: args[0]}
			if len(args) > 1 {
				body.Capability = args[1]
			}
			answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: "sys/policies/who-can", Body: body, Reads: true})
			if err != nil {
				return err
			}
			return s.asTable(answer, func() error {
				var who sys.WhoCan
				if err := answer.Decode(&who); err != nil {
					return err
				}
				return s.whoCanLines(&who)
			})
		},
	}
}

func (s *shell) whoCanLines(who *sys.WhoCan) error {
	var rules, holders [][]string
	for _, g := range who.Grants {
		note := strings.Join(g.Capabilities, ", ")
		if g.Template {
			note += " (whom the template fits)"
		}
		rules = append(rules, []string{g.Policy, fmt.Sprint(g.Line), g.Rule, note})
	}
	for _, h := range who.Holders {
		holders = append(holders, []string{h.Kind, h.Name, h.ID, strings.Join(h.Policies, ", ")})
	}
	var err error
	if len(rules) == 0 {
		err = s.say("No policy that you may read grants %s on %s.", who.Capability, printable(who.Path))
	} else {
		err = s.table([]string{"Policy", "Line", "Rule", "Grants"}, rules)
	}
	if len(holders) > 0 {
		err = errors.Join(err, s.say(""), s.table([]string{"Holder", "Name", "Id", "By"}, holders))
	} else {
		err = errors.Join(err, s.say("Nobody that you may see holds them."))
	}
	if who.Hidden > 0 {
		err = errors.Join(err, s.say("Left out, for you may not read them: %d", who.Hidden))
	}
	for _, what := range who.Unlisted {
		err = errors.Join(err, s.say("Not listed: %s", printable(what)))
	}
	return err
}
