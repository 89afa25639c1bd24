package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// kvVersions is the body of what is done to versions.
type kvVersions struct {
	Versions []int64 `json:"versions"`
}

func (s *shell) kvDeleteCommand() *cobra.Command {
	cmd := s.onVersions("delete", "Deleted", false)
	cmd.Short = "Delete a secret's active version, or those that are named."
	cmd.Long = `Delete a secret's active version, or those that are named. They can be made
readable again by coffer kv undelete; coffer kv destroy takes their data for good,
and coffer kv metadata delete the whole secret. Under kv version 1 the secret is
gone at once.`
	cmd.Example = "  coffer kv delete secret/app/db\n  coffer kv delete -versions=1,2 secret/app/db"
	return cmd
}

func (s *shell) kvUndeleteCommand() *cobra.Command {
	cmd := s.onVersions("undelete", "Made readable again", true)
	cmd.Short = "Make deleted versions of a secret readable again."
	cmd.Example = "  coffer kv undelete -versions=2 secret/app/db"
	return cmd
}

func (s *shell) kvDestroyCommand() *cobra.Command {
	cmd := s.onVersions("destroy", "Destroyed", true)
	cmd.Short = "Destroy the data of versions for good."
	cmd.Example = "  coffer kv destroy -versions=1,2 secret/app/db"
	return cmd
}

// onVersions returns a command that does what verb says to the versions that its
// flag names.
func (s *shell) onVersions(verb, done string, needed bool) *cobra.Command {
	var f kvFlags
	var lists []string
	cmd := &cobra.Command{
		Use: verb + " PATH", Args: exactly(1), ValidArgsFunction: s.completeKV(&f),
		RunE: func(cmd *cobra.Command, args []string) error {
			numbers, err := versionNumbers(lists)
			if err != nil {
				return err
			}
			if needed && len(numbers) == 0 {
				return usage("say -versions=N,...; coffer kv history %s shows them", args[0])
			}
			p, err := s.secretPath(cmd.Context(), &f, args[0])
			if err != nil {
				return err
			}
			if p.version == 1 && (needed || len(numbers) > 0) {
				return usage("%s is kv version 1 and keeps one version", p.mount)
			}
			r := client.Request{Method: "DELETE", Path: p.at("data")}
			said := fmt.Sprintf("Success! Data deleted (if it existed) at: %s", p)
			if len(numbers) > 0 {
				r = client.Request{Method: "POST", Path: p.at(verb), Body: kvVersions{numbers}}
				said = fmt.Sprintf("Success! %s, of %s: version %s", done, p, joined(numbers))
			}
			return s.ask(cmd.Context(), r, "%s", said)
		},
	}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&lists, "versions", nil, "numbers of the versions, with commas between them")
	return cmd
}

func joined(numbers []int64) string {
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(texts, ", ")
}

func (s *shell) kvPromoteCommand() *cobra.Command {
	cmd := s.moveActive("promote", client.Pending)
	cmd.Short = "Make the pending version active, or the one that is named."
	cmd.Long = `Make the version that was staged by coffer kv put -stage active, or the one that
is named. The one that was active becomes the previous, to which coffer kv
rollback goes back.`
	cmd.Example = "  coffer kv promote secret/app/db\n  coffer kv promote -version=3 -cas=2 secret/app/db"
	return cmd
}

func (s *shell) kvRollbackCommand() *cobra.Command {
	cmd := s.moveActive("rollback", client.Previous)
	cmd.Short = "Make the previous version active again, or the one that is named."
	cmd.Long = `Make the previous version active again, or the one that is named. The labels move,
and no new version is made; coffer kv promote goes forth again.`
	cmd.Example = "  coffer kv rollback secret/app/db\n  coffer kv rollback -version=1 secret/app/db"
	return cmd
}

// kvMove is the body of a promotion and of a rollback.
type kvMove struct {
	Version int64  `json:"version,omitempty"`
	Label   string `json:"label,omitempty"`
	CAS     *int64 `json:"cas,omitempty"`
}

func (s *shell) moveActive(verb, usual string) *cobra.Command {
	var f kvFlags
	var only cas
	var to kvMove
	cmd := &cobra.Command{
		Use: verb + " PATH", Args: exactly(1), ValidArgsFunction: s.completeKV(&f),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to.Version < 0 {
				return usage("-version is a number from 1 on, not %d", to.Version)
			}
			p, err := s.versionedPath(cmd.Context(), &f, args[0])
			if err != nil {
				return err
			}
			to.CAS = only.value()
			answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: p.at(verb), Body: to})
			if err != nil {
				return err
			}
			return s.showLabels(answer, p)
		},
	}
	f.add(cmd)
	only.add(cmd, "move only when this version is the active one now")
	cmd.Flags().Int64Var(&to.Version, "version", 0, "number of the version; "+usual+" without it")
	cmd.Flags().StringVar(&to.Label, "label", "", "the version that this label points at")
	return cmd
}

// showLabels prints where labels point.
func (s *shell) showLabels(answer *client.Response, p kvPath) error {
	if answer.WrapInfo != nil || s.format() != "table" || s.global.field != "" {
		return s.show(answer)
	}
	var labels client.Labels
	if err := answer.Decode(&labels); err != nil {
		return err
	}
	s.titledPath("Secret Path", p.String())
	return s.table([]string{"Label", "Version"}, labelRows(&labels))
}

// labelRows returns one row a label, those that every secret has in front.
func labelRows(l *client.Labels) [][]string {
	var rows [][]string
	for name, number := range l.Labels {
		rows = append(rows, []string{name, strconv.FormatUint(number, 10)})
	}
	slices.SortFunc(rows, func(a, b []string) int {
		weight := func(name string) int {
			return slices.Index([]string{client.Previous, client.Pending, client.Active}, name)
		}
		if d := weight(b[0]) - weight(a[0]); d != 0 {
			return d
		}
		return strings.Compare(a[0], b[0])
	})
	for _, number := range l.Deprecated {
		rows = append(rows, []string{client.Deprecated, strconv.FormatUint(number, 10)})
	}
	return rows
}

// moment prints a time for people.
func moment(t client.Time) string {
	if t.IsZero() {
		return "n/a"
	}
	return t.UTC().Format(time.RFC3339)
}

func isPast(t client.Time) bool { return !t.IsZero() && t.Before(time.Now()) }
