package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) kvCommand() *cobra.Command {
	return s.completeMounts(group("secrets", "kv", "Read, write and describe secrets.",
		s.kvGetCommand(), s.kvPutCommand(), s.kvPatchCommand(), s.kvListCommand(), s.kvSearchCommand(),
		s.kvDeleteCommand(), s.kvUndeleteCommand(), s.kvDestroyCommand(),
		s.kvPromoteCommand(), s.kvRollbackCommand(), s.kvHistoryCommand(),
		group("", "label", "Read and move the labels of a secret's versions.",
			s.kvLabelListCommand(), s.kvLabelSetCommand(), s.kvLabelRemoveCommand()),
		group("", "metadata", "Read and change what is kept about a secret.",
			s.kvMetadataGetCommand(), s.kvMetadataPutCommand(), s.kvMetadataPatchCommand(), s.kvMetadataDeleteCommand()),
		s.kvEnableVersioningCommand(),
	))
}

// kvFlags are those that every kv command takes.
type kvFlags struct {
	mount string
}

func (f *kvFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.mount, "mount", "", "where the secrets are mounted; without it PATH begins with the mount")
}

// kvPath is a secret, or a folder of them.
type kvPath struct {
	mount   string // with its slash
	version int    // of the engine: 1 or 2
	path    string // below the mount, without slashes around it
}

// at returns the path of a request: below one of the engine's verbs where it has
// them.
func (p kvPath) at(verb string) string {
	if p.version == 1 {
		return p.mount + p.path
	}
	return p.mount + verb + "/" + p.path
}

// String returns the path as people write it.
func (p kvPath) String() string { return p.mount + p.path }

// kvPath finds the mount that a path lies in by asking the server.
func (s *shell) kvPath(ctx context.Context, f *kvFlags, arg string) (kvPath, error) {
	whole := strings.Trim(arg, "/")
	if f.mount != "" {
		whole = strings.Trim(f.mount, "/") + "/" + whole
	}
	answer, err := s.look(ctx, client.Request{Path: "sys/internal/ui/mounts/" + strings.Trim(whole, "/"), WrapTTL: -1})
	if client.IsDenied(err) {
		return unseenPath(f, whole), nil
	}
	if err != nil {
		return kvPath{}, err
	}
	var found struct {
		Path    string `json:"path"`
		Type    string `json:"type"`
		Options struct {
			Version string `json:"version"`
		} `json:"options"`
	}
	if err := answer.Decode(&found); err != nil {
		return kvPath{}, err
	}
	if found.Type != "kv" && found.Type != "generic" && found.Type != "cubbyhole" {
		return kvPath{}, fmt.Errorf("%s holds no kv secrets, it is of type %s; use coffer read, write and list", found.Path, found.Type)
	}
	out := kvPath{mount: found.Path, version: 1, path: strings.Trim(strings.TrimPrefix(whole+"/", found.Path), "/")}
	if found.Options.Version == "2" {
		out.version = 2
	}
	return out, nil
}

// unseenPath is a path in a mount that the token may not know of. The request
// for it goes out all the same: its refusal is one that can be asked about.
func unseenPath(f *kvFlags, whole string) kvPath {
	mount, path, _ := strings.Cut(whole, "/")
	if named := strings.Trim(f.mount, "/"); named != "" {
		mount, path = named, strings.TrimPrefix(strings.TrimPrefix(whole, named), "/")
	}
	return kvPath{mount: mount + "/", version: 2, path: path}
}

// secretPath is kvPath of a secret: not of a whole mount.
func (s *shell) secretPath(ctx context.Context, f *kvFlags, arg string) (kvPath, error) {
	p, err := s.kvPath(ctx, f, arg)
	if err == nil && p.path == "" {
		err = usage("%s is a mount; name a secret in it", p.mount)
	}
	return p, err
}

// versionedPath is secretPath where only an engine with versions has what is
// asked for.
func (s *shell) versionedPath(ctx context.Context, f *kvFlags, arg string) (kvPath, error) {
	p, err := s.secretPath(ctx, f, arg)
	if err == nil && p.version == 1 {
		err = fmt.Errorf("%s is kv version 1, which has no versions, labels and metadata; coffer kv enable-versioning %s gives it them", p.mount, strings.TrimSuffix(p.mount, "/"))
	}
	return p, err
}

// titled prints rows under a title between equal signs, as wide as they are.
func (s *shell) titled(title string, header []string, rows [][]string) error {
	width := 0
	for _, row := range rows {
		width = max(width, len([]rune(row[0])))
	}
	fmt.Fprintln(s.Stdout, between(title, width+len("    Value")))
	return s.table(header, rows)
}

// titledPath prints a path as the first thing of several.
func (s *shell) titledPath(title, path string) {
	fmt.Fprintf(s.Stdout, "%s\n%s\n\n", between(title, len(path)), printable(path))
}

// between puts a title between equal signs.
func between(title string, width int) string {
	signs := width - len(title) - 2
	if signs <= 0 {
		signs = 4
	}
	side := strings.Repeat("=", (signs+1)/2)
	return side + " " + title + " " + side
}

var keyValue = []string{"Key", "Value"}

// written shows what a write of a secret was answered.
func (s *shell) written(answer *client.Response, p kvPath, verb string) error {
	if answer.Data == nil || answer.WrapInfo != nil || s.format() != "table" || s.global.field != "" {
		return s.showOr(answer, "Success! Data written to: %s", p)
	}
	f, err := fieldsOf(answer)
	if err != nil {
		return err
	}
	s.titledPath("Secret Path", p.at(verb))
	return s.titled("Metadata", keyValue, f.rows())
}

// cas is a check-and-set condition that may have been left out.
type cas struct{ number int64 }

func (c *cas) add(cmd *cobra.Command, doc string) {
	c.number = -1
	cmd.Flags().Int64Var(&c.number, "cas", -1, doc)
}

// value returns the condition, nil where there is none.
func (c *cas) value() *int64 {
	if c.number < 0 {
		return nil
	}
	return &c.number
}

// versionNumbers reads lists of version numbers with commas between them.
func versionNumbers(lists []string) ([]int64, error) {
	var out []int64
	for _, list := range lists {
		for text := range strings.SplitSeq(list, ",") {
			n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			if err != nil || n <= 0 {
				return nil, usage("-versions: %q is not the number of a version", text)
			}
			out = append(out, n)
		}
	}
	return out, nil
}
