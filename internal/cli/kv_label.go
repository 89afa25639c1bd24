package cli

import (
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) kvLabelListCommand() *cobra.Command {
	var f kvFlags
	cmd := &cobra.Command{
		Use: "list PATH", Args: exactly(1), ValidArgsFunction: s.completeKV(&f),
		Short:   "Show which versions the labels of a secret point at.",
		Example: "  coffer kv label list secret/app/db",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.onLabels(cmd, &f, args[0], client.Request{})
		},
	}
	f.add(cmd)
	return cmd
}

// kvLabel is the body that moves a label.
type kvLabel struct {
	Label   string `json:"label"`
	Version int64  `json:"version"`
	CAS     *int64 `json:"cas,omitempty"`
}

func (s *shell) kvLabelSetCommand() *cobra.Command {
	var f kvFlags
	var only cas
	cmd := &cobra.Command{
		Use: "set PATH LABEL VERSION", Args: exactly(3), ValidArgsFunction: s.completeKV(&f),
		Short: "Point a label at a version of a secret.",
		Long: `Point a label at a version of a secret: active, pending or one of your own. The
label deprecated is a mark on any number of versions, whose reads then warn.`,
		Example: "  coffer kv label set secret/app/db canary 3\n  coffer kv label set -cas=2 secret/app/db active 3",
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := strconv.ParseInt(args[2], 10, 64)
			if err != nil || number <= 0 {
				return usage("%q is not the number of a version", args[2])
			}
			return s.onLabels(cmd, &f, args[0], client.Request{Method: "POST", Body: kvLabel{args[1], number, only.value()}})
		},
	}
	f.add(cmd)
	only.add(cmd, "move only when the label points at this version now; 0 means at none")
	return cmd
}

func (s *shell) kvLabelRemoveCommand() *cobra.Command {
	var f kvFlags
	var version int64
	cmd := &cobra.Command{
		Use: "remove PATH LABEL", Args: exactly(2), ValidArgsFunction: s.completeKV(&f),
		Short:   "Remove a label from a secret; the version stays.",
		Example: "  coffer kv label remove secret/app/db canary\n  coffer kv label remove -version=1 secret/app/db deprecated",
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"label": {args[1]}}
			if version != 0 {
				query.Set("version", strconv.FormatInt(version, 10))
			}
			return s.onLabels(cmd, &f, args[0], client.Request{Method: "DELETE", Query: query})
		},
	}
	f.add(cmd)
	cmd.Flags().Int64Var(&version, "version", 0, "with deprecated: the version that carries the mark")
	return cmd
}

// onLabels sends a request about the labels of a secret and shows them.
func (s *shell) onLabels(cmd *cobra.Command, f *kvFlags, path string, r client.Request) error {
	p, err := s.versionedPath(cmd.Context(), f, path)
	if err != nil {
		return err
	}
	r.Path = p.at("labels")
	answer, err := s.do(cmd.Context(), r)
	if err != nil {
		return err
	}
	return s.showLabels(answer, p)
}
