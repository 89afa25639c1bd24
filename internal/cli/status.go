package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// exitSealed is the code of coffer status for a server that is sealed.
const exitSealed = 2

// serverStatus is what coffer status shows: the seal, and beside it which node
// answered.
type serverStatus struct {
	client.SealStatus
	Built   string `json:"build_date"`
	HA      bool   `json:"ha_enabled"`
	Active  bool   `json:"is_self"`
	Since   string `json:"active_time"`
	Address string `json:"leader_address"`
}

func (s *shell) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", GroupID: "server", Args: exactly(0),
		Short: "Show how the server and its seal stand.",
		Long: `Show how the server and its seal stand. It needs no token, and works while the
server is sealed. The exit code is 0 where it is unsealed, 2 where it is sealed or
not initialized, and 1 where it cannot be asked.`,
		Example: "  coffer status\n  coffer status -format=json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := s.serverStatus(cmd)
			if err != nil {
				return &exit{exitLocal, err}
			}
			if err := s.value(status, func() error { return s.statusTable(status) }); err != nil {
				return err
			}
			if status.Sealed {
				return &exit{code: exitSealed}
			}
			return nil
		},
	}
}

func (s *shell) serverStatus(cmd *cobra.Command) (*serverStatus, error) {
	out := new(serverStatus)
	for _, path := range []string{"sys/leader", "sys/seal-status"} {
		answer, err := s.do(cmd.Context(), client.Request{Path: path, Anonymous: true, Once: true, WrapTTL: -1})
		if err != nil {
			return nil, err
		}
		if err := answer.Decode(out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *shell) statusTable(status *serverStatus) error {
	rows := sealRows(&status.SealStatus)
	for _, row := range [][]string{
		{"Version", status.Version}, {"Build Date", status.Built}, {"Storage Type", status.StorageType},
		{"Cluster Name", status.ClusterName}, {"Cluster ID", status.ClusterID},
	} {
		if row[1] != "" && row[1] != zeroTime {
			rows = append(rows, row)
		}
	}
	rows = append(rows, []string{"HA Enabled", strconv.FormatBool(status.HA)})
	if err := s.table(keyValue, rows); err != nil {
		return err
	}
	if next := nextOf(&status.SealStatus); next != "" {
		return s.say("\n%s", next)
	}
	return nil
}

// zeroTime is a time that is not known, as the server writes it.
var zeroTime = time.Time{}.Format(time.RFC3339)

// sealRows are the rows of how a seal stands.
func sealRows(status *client.SealStatus) [][]string {
	of := ""
	if status.RecoverySeal {
		of = "Recovery "
	}
	rows := [][]string{
		{"Seal Type", status.Type},
		{"Initialized", strconv.FormatBool(status.Initialized)},
		{"Sealed", strconv.FormatBool(status.Sealed)},
		{"Total " + of + "Shares", strconv.Itoa(status.Shares)},
		{"Threshold", strconv.Itoa(status.Threshold)},
	}
	if status.Sealed && status.Initialized && !status.RecoverySeal {
		rows = append(rows, []string{"Unseal Progress", progress(status.Progress, status.Threshold)}, []string{"Unseal Nonce", status.Nonce})
	}
	if status.Migration {
		rows = append(rows, []string{"Seal Migration in Progress", "true"})
	}
	return rows
}

func progress(given, needed int) string { return fmt.Sprintf("%d/%d", given, needed) }

// nextOf says what a server waits for, "" where for nothing.
func nextOf(status *client.SealStatus) string {
	switch left := status.Threshold - status.Progress; {
	case !status.Initialized:
		return "The server is new: coffer operator init"
	case !status.Sealed:
		return ""
	case status.RecoverySeal:
		return "The server opens by itself, and has not yet: its log says why."
	case left == 1:
		return "The server is sealed; one more key share opens it: coffer operator unseal"
	default:
		return fmt.Sprintf("The server is sealed; %d more key shares open it: coffer operator unseal", left)
	}
}

// asTable prints an answer as a table of its own, or as it was asked for.
func (s *shell) asTable(answer *client.Response, table func() error) error {
	if answer.WrapInfo != nil || s.format() != "table" || s.global.field != "" {
		return s.show(answer)
	}
	return table()
}

// keyShare returns the key share of the arguments, or asks for it. typed says
// that a person was asked.
func (s *shell) keyShare(args []string, question string) (share client.Secret, typed bool, err error) {
	var text string
	switch {
	case len(args) > 0:
		var literal bool
		if text, literal, err = s.text(args[0]); literal {
			s.warn("the key share stood on the command line, which the shell keeps in its history and other users see in the process list; let it be asked for, or use - to read standard input")
		}
	case s.Prompt == nil || s.global.nonInteractive:
		return "", false, usage("there is nobody to ask for the key share; give it on standard input, with - as the argument")
	default:
		typed = true
		text, err = s.Prompt(question)
	}
	if err != nil {
		return "", typed, fmt.Errorf("read the key share: %w", err)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", typed, errors.New("the key share is empty")
	}
	return client.Secret(text), typed, nil
}
