package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) operatorCommand() *cobra.Command {
	return group("server", "operator", "Initialize, open, seal and rekey a server.",
		s.initCommand(), s.unsealCommand(), s.sealCommand(), s.sharesCommand(), s.rekeyCommand(), s.generateRootCommand(),
		s.rotateCommand(), s.keyStatusCommand(), s.membersCommand(), s.stepDownCommand(),
		s.backupCommand(), s.backupVerifyCommand(), s.restoreCommand(), s.backupStatusCommand())
}

func (s *shell) sealCommand() *cobra.Command {
	return &cobra.Command{
		Use: "seal", Args: exactly(0),
		Short:   "Seal the server: it forgets its keys, and answers nothing until it is unsealed.",
		Example: "  coffer operator seal",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/seal"}, "Success! The server is sealed.")
		},
	}
}

func (s *shell) stepDownCommand() *cobra.Command {
	return &cobra.Command{
		Use: "step-down", Args: exactly(0),
		Short:   "Ask the active node to step down; every node of Coffer serves, so that nothing changes.",
		Example: "  coffer operator step-down",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/step-down"}, "Success! Every node serves; there is none to step down.")
		},
	}
}

func (s *shell) keyStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "key-status", Args: exactly(0),
		Short:   "Show the number and age of the key that encrypts what is written.",
		Example: "  coffer operator key-status",
		RunE:    func(cmd *cobra.Command, _ []string) error { return s.keyStatus(cmd) },
	}
}

func (s *shell) keyStatus(cmd *cobra.Command) error {
	answer, err := s.do(cmd.Context(), client.Request{Path: "sys/key-status"})
	if err != nil {
		return err
	}
	return s.asTable(answer, func() error {
		var key client.KeyStatus
		if err := answer.Decode(&key); err != nil {
			return err
		}
		return s.table(keyValue, [][]string{
			{"Key Term", strconv.FormatUint(uint64(key.Term), 10)},
			{"Install Time", key.Installed.UTC().Format("02 Jan 2006 15:04 MST")},
			{"Encryption Count", strconv.FormatUint(key.Encryptions, 10)},
		})
	})
}

func (s *shell) rotateCommand() *cobra.Command {
	var root, rewrap bool
	cmd := &cobra.Command{
		Use: "rotate", Args: exactly(0),
		Short: "Make new encryption keys, while the server serves.",
		Long: `Make new encryption keys; what is written from now on is encrypted with them, and
what is there stays readable. With -rewrap everything is encrypted anew with the
newest keys, and the older ones are dropped. With -root the root key, which
encrypts those keys, is replaced under every seal; key shares stay as they are.`,
		Example: "  coffer operator rotate\n  coffer operator rotate -rewrap\n  coffer operator rotate -root",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case root && rewrap:
				return usage("-root and -rewrap are two things; run one after the other")
			case root:
				return s.ask(cmd.Context(), client.Request{Method: "POST", Path: "sys/rotate/root"}, "Success! The root key was replaced under every seal.")
			case rewrap:
				return s.rewrapAll(cmd)
			}
			if _, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: "sys/rotate"}); err != nil {
				return err
			}
			if err := s.say("Success! Rotated key\n"); err != nil {
				return err
			}
			return s.keyStatus(cmd)
		},
	}
	cmd.Flags().BoolVar(&root, "root", false, "replace the root key")
	cmd.Flags().BoolVar(&rewrap, "rewrap", false, "encrypt everything anew with the newest keys; it may take long")
	return cmd
}

func (s *shell) rewrapAll(cmd *cobra.Command) error {
	answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: "sys/rotate/rewrap"})
	if err != nil {
		return err
	}
	return s.asTable(answer, func() error {
		var done struct {
			Rows int `json:"rows"`
		}
		if err := answer.Decode(&done); err != nil {
			return err
		}
		return s.say("Success! %d rows are encrypted with the newest keys, and the older keys are gone.", done.Rows)
	})
}

func (s *shell) membersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "members", Args: exactly(0),
		Short: "List the nodes.",
		Long: `List the nodes that share the storage. Every live one serves; one that is not live
has not been heard of for ten seconds, and is forgotten after two hours.`,
		Example: "  coffer operator members\n  coffer operator members -format=json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := s.do(cmd.Context(), client.Request{Path: "sys/ha-status"})
			if err != nil {
				return err
			}
			return s.asTable(answer, func() error {
				var all struct {
					Nodes []struct {
						Node    string `json:"node_id"`
						Host    string `json:"hostname"`
						API     string `json:"api_address"`
						Cluster string `json:"cluster_address"`
						Live    bool   `json:"live"`
						SkewMS  int64  `json:"clock_skew_ms"`
						Version string `json:"version"`
					} `json:"nodes"`
				}
				if err := answer.Decode(&all); err != nil {
					return err
				}
				var rows [][]string
				for _, n := range all.Nodes {
					skew := (time.Duration(n.SkewMS) * time.Millisecond).String()
					rows = append(rows, []string{n.Node, n.Host, n.API, strconv.FormatBool(n.Live), skew, n.Version})
				}
				return s.table([]string{"Node", "Host Name", "API Address", "Live", "Clock Ahead", "Version"}, rows)
			})
		},
	}
}

// numbers are how many shares there are to be, and how many of them are needed.
type numbers struct{ shares, threshold int }

func (n *numbers) add(cmd *cobra.Command, prefix, of string) {
	cmd.Flags().IntVar(&n.shares, prefix+"shares", n.shares, "how many "+of+" to make")
	cmd.Flags().IntVar(&n.threshold, prefix+"threshold", n.threshold, "how many of them are needed")
}

// shareLines prints shares, each on a line that says which one it is.
func (s *shell) shareLines(name string, shares []client.Secret) {
	for i, share := range shares {
		fmt.Fprintf(s.Stdout, "%s %d: %s\n", name, i+1, printable(share.Reveal()))
	}
}
