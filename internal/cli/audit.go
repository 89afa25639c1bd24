package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) auditCommand() *cobra.Command {
	return group("server", "audit", "Verify and read the audit log, and manage the devices beside it.",
		s.auditVerifyCommand(), s.auditTailCommand(), s.auditKeyCommand(), s.auditRepairCommand(),
		s.auditEnableCommand(), s.auditListCommand(), s.auditDisableCommand())
}

// deviceBody asks for an audit device.
type deviceBody struct {
	Type        string            `json:"type"`
	Description string            `json:"description,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
	Local       bool              `json:"local,omitempty"`
}

func (s *shell) auditEnableCommand() *cobra.Command {
	var body deviceBody
	var path string
	cmd := &cobra.Command{
		Use: "enable TYPE [name=value...]", Args: atLeast(1),
		Short: "Enable an audit device beside Coffer's own log, which is always there.",
		Long: `Enable an audit device beside Coffer's own log, which is always there and decides.
The type file writes Vault's format to a file of the server's machine; it takes
file_path, mode, format, prefix and hmac_accessor.`,
		Example: "  coffer audit enable file file_path=/var/log/coffer/requests.log\n  coffer audit enable -path=second file file_path=/var/log/coffer/second.log mode=0640",
		RunE: func(cmd *cobra.Command, args []string) error {
			body.Type = args[0]
			body.Options = map[string]string{}
			for _, arg := range args[1:] {
				name, value, ok := strings.Cut(arg, "=")
				if !ok || name == "" {
					return usage("%q is not name=value", arg)
				}
				body.Options[name] = value
			}
			at := strings.Trim(path, "/")
			if at == "" {
				at = body.Type
			}
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/audit/" + at, Body: body}, "Success! Enabled the %s audit device at: %s/", body.Type, at)
		},
	}
	cmd.Flags().StringVar(&path, "path", "", "the device's name; its type without this")
	cmd.Flags().StringVar(&body.Description, "description", "", "what it is for")
	cmd.Flags().BoolVar(&body.Local, "local", false, "accepted as Vault's")
	return cmd
}

func (s *shell) auditDisableCommand() *cobra.Command {
	return &cobra.Command{
		Use: "disable PATH", Args: exactly(1),
		Short:             "Disable an audit device; Coffer's own log goes on.",
		Example:           "  coffer audit disable file",
		ValidArgsFunction: s.completeMounted(&mountKind{table: "sys/audit"}),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := strings.Trim(args[0], "/")
			return s.ask(cmd.Context(), client.Request{Method: "DELETE", Path: "sys/audit/" + path}, "Success! Disabled audit device (if it was enabled) at: %s/", path)
		},
	}
}

func (s *shell) auditListCommand() *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{
		Use: "list", Args: exactly(0),
		Short:   "List the audit devices beside Coffer's own log.",
		Example: "  coffer audit list -detailed",
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := s.do(cmd.Context(), client.Request{Path: "sys/audit"})
			if err != nil {
				return err
			}
			if answer.WrapInfo == nil && s.global.field == "" && s.format() != "table" {
				return s.document(answer.Data.Reveal()) // as Vault: without an envelope
			}
			return s.asTable(answer, func() error { return s.deviceTable(answer, detailed) })
		},
	}
	cmd.Flags().BoolVar(&detailed, "detailed", false, "show the options too")
	return cmd
}

func (s *shell) deviceTable(answer *client.Response, detailed bool) error {
	var devices map[string]struct {
		Type        string            `json:"type"`
		Description string            `json:"description"`
		Options     map[string]string `json:"options"`
		Local       bool              `json:"local"`
	}
	if err := answer.Decode(&devices); err != nil {
		return err
	}
	if len(devices) == 0 {
		return s.say("No audit devices are enabled beside Coffer's own log.")
	}
	header := []string{"Path", "Type", "Description"}
	if detailed {
		header = append(header, "Local", "Options")
	}
	var rows [][]string
	for _, path := range slices.Sorted(maps.Keys(devices)) {
		d := devices[path]
		if d.Description == "" {
			d.Description = "n/a"
		}
		row := []string{path, d.Type, d.Description}
		if detailed {
			var options []string
			for _, name := range slices.Sorted(maps.Keys(d.Options)) {
				options = append(options, name+"="+d.Options[name])
			}
			row = append(row, strconv.FormatBool(d.Local), strings.Join(options, " "))
		}
		rows = append(rows, row)
	}
	return s.table(header, rows)
}

func (s *shell) auditKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "key", Args: exactly(0),
		Short: "Print the public key that the audit log is verified with.",
		Long: `Print the public key that the audit log is verified with. Keep it where nobody
who can write to the server's disk can change it. -field=checkpoint prints the
newest checkpoint; one that is kept elsewhere shows later that the log was cut.`,
		Example: "  coffer audit key >audit.pub\n  coffer audit key -field=checkpoint >checkpoint.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := s.do(cmd.Context(), client.Request{Path: "sys/audit-log"})
			if err != nil {
				return err
			}
			return s.asTable(answer, func() error {
				var about auditState
				if err := answer.Decode(&about); err != nil {
					return err
				}
				return s.say("%s", printable(about.PublicKey))
			})
		},
	}
}

// auditState is what a server says of its audit log.
type auditState struct {
	PublicKey string `json:"public_key"`
	Entries   uint64 `json:"entries"`
}

func (s *shell) auditRepairCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "repair", Args: exactly(0),
		Short: "Let a running server write its audit log again after others touched its files.",
		Long: `Let a running server write its audit log again. A server whose log files were
deleted, moved, replaced or cut refuses requests, because it cannot record them.
Repair puts back what the server still has open, keeps what it finds there as
*.foreign-* beside it, and goes on in a new segment. What was cut off or changed
is lost; an entry in the log says which entries those are, and coffer audit verify
shows them from then on. Copy the files first. Without damage it does nothing.

A server that does not start because of its log says itself what can be done.`,
		Example: "  coffer audit repair -yes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return errors.New("repair gives up for good what was cut off or changed in the log's files: copy them first, then say -yes")
			}
			if err := s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/audit-log/repair"}, "The audit log takes entries. If there was damage, what was lost stands in the log:"); err != nil {
				return err
			}
			return s.say("  coffer audit tail -event=log-repaired DIRECTORY")
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

// plural returns a count with its noun.
func plural[N int | uint64 | int64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if noun, ok := strings.CutSuffix(one, "y"); ok {
		one = noun + "ie"
	}
	return fmt.Sprintf("%d %ss", n, one)
}
