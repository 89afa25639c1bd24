package cli

import (
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) kvSearchCommand() *cobra.Command {
	var f kvFlags
	var q client.Query
	var limit int
	cmd := &cobra.Command{
		Use: "search [PATH]", Args: atMost(1), ValidArgsFunction: s.completeKV(&f),
		Short: "Search a folder and everything below it.",
		Long: `Search a folder and everything below it for secrets that the token may see. What
no flag names matches everything. Of a secret whose metadata the token may not
read only the path is told, and only where nothing but the path was asked about.`,
		Example: "  coffer kv search -text=db secret\n  coffer kv search -owner=payments -tag=env=prod secret/app\n  coffer kv search -text='app/*/tls' -field=path secret",
		RunE: func(cmd *cobra.Command, args []string) error {
			path := strings.Join(args, "")
			if path == "" && f.mount == "" {
				return usage("name a folder, or a mount with -mount")
			}
			p, err := s.kvPath(cmd.Context(), &f, path)
			if err != nil {
				return err
			}
			if p.version == 1 {
				return usage("%s is kv version 1, which cannot be searched; coffer kv list -r lists all of it", p.mount)
			}
			c, err := s.client()
			if err != nil {
				return err
			}
			q.Folder = p.path
			out, left := s.stream([]string{"Path", "Version", "Owner", "Kind", "Tags", "Updated"}), limit
			for found, err := range c.KV(p.mount).Search(cmd.Context(), q) {
				if err != nil {
					return refused(err)
				}
				row := foundSecret{Path: p.mount + found.Path, Found: found}
				if err := out.add(row, row.cells()); err != nil {
					return err
				}
				if left--; left == 0 {
					break
				}
			}
			if !out.begun && len(out.rows) == 0 {
				if err := s.say("Nothing was found."); err != nil {
					return err
				}
			}
			return out.close()
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&q.Text, "text", "", "part of the path, in any case; with * or ? a pattern for all of it")
	flags.StringVar(&q.Owner, "owner", "", "the owner")
	flags.StringVar(&q.Kind, "kind", "", "the kind")
	flags.StringArrayVar(&q.Tags, "tag", nil, "a tag that must be there, name or name=value; may be given several times")
	flags.IntVar(&limit, "limit", 0, "stop after so many; 0 shows all")
	return cmd
}

// foundSecret is one secret of a search, under its whole path.
type foundSecret struct {
	Path string `json:"path"`
	client.Found
}

func (f foundSecret) cells() []string {
	version := "n/a"
	if f.Current > 0 {
		version = strconv.FormatUint(f.Current, 10)
	}
	tags := make([]string, 0, len(f.Tags))
	for name, value := range f.Tags {
		tags = append(tags, name+"="+value)
	}
	slices.Sort(tags)
	return []string{f.Path, version, f.Owner, f.Kind, strings.Join(tags, " "), moment(f.Updated)}
}
