package cli

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// completeMounted completes the path of a mount.
func (s *shell) completeMounted(kind *mountKind) completion {
	return s.completeOne(func(ctx context.Context) []string { return s.namesAt(ctx, client.Request{Path: kind.table}) })
}

// completeKinds completes the type of a mount.
func (s *shell) completeKinds(kind *mountKind) completion {
	return s.completeOne(func(ctx context.Context) []string {
		answer, err := s.do(ctx, client.Request{Path: "sys/plugins/catalog", WrapTTL: -1, Once: true})
		if err != nil {
			return nil
		}
		var kinds struct {
			Secret []string `json:"secret"`
			Auth   []string `json:"auth"`
		}
		if answer.Decode(&kinds) != nil {
			return nil
		}
		if kind.below != "" {
			return kinds.Auth
		}
		return kinds.Secret
	})
}

// completePolicy completes the name of a policy.
func (s *shell) completePolicy() completion {
	return s.completeOne(func(ctx context.Context) []string {
		c, err := s.client()
		if err != nil {
			return nil
		}
		names, _ := c.Sys().Policies(ctx)
		return names
	})
}

// completeOne completes the first argument with names that the server gives.
func (s *shell) completeOne(names func(context.Context) []string) completion {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		out, _ := matching(names(ctx), "", word)
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// namesAt returns the names of the members that a path answers, without the
// slash at their ends.
func (s *shell) namesAt(ctx context.Context, r client.Request) []string {
	r.WrapTTL, r.Once = -1, true
	answer, err := s.do(ctx, r)
	if err != nil {
		return nil
	}
	var members map[string]json.RawMessage
	if answer.Decode(&members) != nil {
		return nil
	}
	out := slices.Sorted(maps.Keys(members))
	for i, name := range out {
		out[i] = strings.TrimSuffix(name, "/")
	}
	return out
}

// completePolicyOrFile completes names of policies, and leaves files to the
// shell.
func (s *shell) completePolicyOrFile(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	names, _ := s.completePolicy()(cmd, nil, word)
	return names, cobra.ShellCompDirectiveDefault
}
