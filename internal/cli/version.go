package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (s *shell) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", GroupID: "server", Args: exactly(0),
		Short:   "Print which version of Coffer this is.",
		Example: "  coffer version",
		RunE: func(*cobra.Command, []string) error {
			about := struct {
				Version string `json:"version"`
				Built   string `json:"built,omitempty"`
			}{Version: s.Version.Coffer}
			if !s.Version.Built.IsZero() {
				about.Built = s.Version.Built.UTC().Format("2006-01-02T15:04:05Z")
			}
			return s.value(about, func() error {
				text := "Coffer " + about.Version
				if about.Built != "" {
					text += ", built " + about.Built
				}
				_, err := fmt.Fprintln(s.Stdout, text)
				return err
			})
		},
	}
}
