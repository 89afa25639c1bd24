package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) namespaceCommand() *cobra.Command {
	return group("access", "namespace", "Make, list, lock and delete namespaces.",
		s.namespaceListCommand(), s.namespaceLookupCommand(), s.namespaceCreateCommand(), s.namespacePatchCommand(),
		s.namespaceDeleteCommand(), s.namespaceLockCommand(), s.namespaceUnlockCommand())
}

const namespaceTable = "sys/namespaces"

// namespacePath is where a namespace is found below the one that is asked.
func namespacePath(arg string) (string, error) {
	name := strings.Trim(arg, "/")
	if name == "" {
		return "", usage("name a namespace, by its path from the one that is asked (-namespace)")
	}
	return namespaceTable + "/" + name, nil
}

func (s *shell) namespaceListCommand() *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{
		Use: "list", Args: exactly(0),
		Short:   "List the namespaces directly in the one that is asked.",
		Example: "  coffer namespace list\n  coffer namespace list -namespace=team -detailed",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.listPath(cmd, namespaceTable, nil, detailed)
		},
	}
	cmd.Flags().BoolVar(&detailed, "detailed", false, "show ids and metadata, too")
	return cmd
}

func (s *shell) namespaceLookupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "lookup NAMESPACE", Args: exactly(1),
		Short:   "Read about a namespace.",
		Example: "  coffer namespace lookup team/dev",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := namespacePath(args[0])
			if err != nil {
				return err
			}
			err = s.ask(cmd.Context(), client.Request{Method: "GET", Path: path}, "")
			if client.IsNotFound(err) {
				return &exit{exitRefused, fmt.Errorf("there is no namespace %s; coffer namespace list shows those there are", args[0])}
			}
			return err
		},
	}
}

// namespaceBody is what a namespace is written with.
type namespaceBody struct {
	Metadata map[string]any `json:"custom_metadata,omitempty"`
}

func (s *shell) namespaceCreateCommand() *cobra.Command {
	var metadata pairs
	cmd := &cobra.Command{
		Use: "create NAMESPACE", Args: exactly(1),
		Short:   "Make a namespace.",
		Long:    "Make a namespace, with mounts, policies, identities, tokens and keys of its own. The\none it is in must be there.",
		Example: "  coffer namespace create team\n  coffer namespace create -custom-metadata=owner=payments team/dev",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := namespacePath(args[0])
			if err != nil {
				return err
			}
			body := namespaceBody{Metadata: map[string]any{}}
			for k, v := range metadata {
				body.Metadata[k] = v
			}
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: path, Body: body}, "")
		},
	}
	cmd.Flags().Var(&metadata, "custom-metadata", "a pair to keep with it; may be given several times")
	return cmd
}

func (s *shell) namespacePatchCommand() *cobra.Command {
	var set pairs
	var remove []string
	cmd := &cobra.Command{
		Use: "patch NAMESPACE", Args: exactly(1),
		Short:   "Change a part of a namespace's metadata.",
		Example: "  coffer namespace patch -custom-metadata=owner=web -remove-custom-metadata=floor team",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := namespacePath(args[0])
			if err != nil {
				return err
			}
			body := namespaceBody{Metadata: map[string]any{}}
			for k, v := range set {
				body.Metadata[k] = v
			}
			for _, k := range remove {
				body.Metadata[k] = nil
			}
			if len(body.Metadata) == 0 {
				return usage("say what to change: -custom-metadata or -remove-custom-metadata")
			}
			return s.ask(cmd.Context(), client.Request{Method: "PATCH", Path: path, Body: body}, "")
		},
	}
	cmd.Flags().Var(&set, "custom-metadata", "a pair to set; may be given several times")
	cmd.Flags().StringSliceVar(&remove, "remove-custom-metadata", nil, "names of pairs to remove")
	return cmd
}

func (s *shell) namespaceDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAMESPACE", Args: exactly(1),
		Short:   "Delete a namespace, and destroy the keys of all that is in it.",
		Long:    "Delete a namespace that has none below it. Its keys are destroyed at once: nothing\nthat was in it can be read again, and its tokens end. What it leaves is erased in\nthe background.",
		Example: "  coffer namespace delete team/dev",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := namespacePath(args[0])
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), client.Request{Method: "DELETE", Path: path}, "Success! Deleted namespace: %s/", strings.Trim(args[0], "/"))
		},
	}
}

// lockPath is where a namespace is locked or unlocked: the one that is asked, or one
// below it.
func lockPath(verb string, args []string) string {
	path := namespaceTable + "/api-lock/" + verb
	if len(args) > 0 {
		path += "/" + strings.Trim(args[0], "/")
	}
	return path
}

func (s *shell) namespaceLockCommand() *cobra.Command {
	return &cobra.Command{
		Use: "lock [NAMESPACE]", Args: atMost(1),
		Short:   "Refuse every request in a namespace and below, until it is unlocked.",
		Long:    "Refuse every request in a namespace and below it, on every node within a second. The\nkey that is printed unlocks it; it is shown once.",
		Example: "  coffer namespace lock team\n  coffer namespace lock -namespace=team",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: lockPath("lock", args), Once: true}, "")
		},
	}
}

func (s *shell) namespaceUnlockCommand() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "unlock [NAMESPACE]", Args: atMost(1),
		Short:   "Answer requests in a locked namespace again.",
		Example: "  coffer namespace unlock -unlock-key=- team <key.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			body := struct {
				Key string `json:"unlock_key,omitempty"`
			}{key}
			if key == "-" {
				text, err := s.fileOrStdin("-")
				if err != nil {
					return err
				}
				body.Key = strings.TrimSpace(text)
			}
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: lockPath("unlock", args), Body: body}, "Success! The namespace answers again.")
		},
	}
	cmd.Flags().StringVar(&key, "unlock-key", "", "the key that locking printed, or - for standard input; the root token needs none")
	return cmd
}
