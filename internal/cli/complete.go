package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// Bounds of what completion asks a server for, while somebody waits at the
// keyboard.
const (
	completeTime  = 2 * time.Second
	completeNames = 200
)

// completion is what cobra asks for the words that an argument could be.
type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeKV completes the path of a secret, or of a folder.
func (s *shell) completeKV(f *kvFlags) completion {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault // name=@file
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		folder := word[:strings.LastIndexByte(word, '/')+1]
		if f.mount == "" && folder == "" {
			return matching(s.mountNames(ctx), "", word)
		}
		p, err := s.kvPath(ctx, f, folder)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return matching(s.someNames(ctx, strings.TrimSuffix(p.at("metadata"), "/")+"/"), folder, word)
	}
}

// completePath completes a path of any engine: its mount, and what a LIST of the
// folders below it answers.
func (s *shell) completePath(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	folder := word[:strings.LastIndexByte(word, '/')+1]
	if folder == "" {
		return matching(append(s.mountNames(ctx), "auth/", "sys/"), "", word)
	}
	return matching(s.someNames(ctx, folder), folder, word)
}

// completeMounts completes the flag -mount of all commands below one.
func (s *shell) completeMounts(cmd *cobra.Command) *cobra.Command {
	for _, sub := range cmd.Commands() {
		s.completeMounts(sub)
	}
	if cmd.Flags().Lookup("mount") != nil {
		_ = cmd.RegisterFlagCompletionFunc("mount", s.completeMount) // it fails where there is no such flag
	}
	return cmd
}

func (s *shell) completeMount(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	return matching(s.mountNames(ctx), "", word)
}

// matching returns the names in a folder that a word may become. The shell sets
// no space behind, for the path may go on.
func matching(names []string, folder, word string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, name := range names {
		if path := folder + name; strings.HasPrefix(path, word) && printable(path) == path {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

// mountNames returns the secrets engines that the token may use.
func (s *shell) mountNames(ctx context.Context) []string {
	answer, err := s.do(ctx, client.Request{Path: "sys/internal/ui/mounts", WrapTTL: -1, Once: true})
	if err != nil {
		return nil
	}
	var mounts struct {
		Secret map[string]json.RawMessage `json:"secret"`
	}
	if answer.Decode(&mounts) != nil {
		return nil
	}
	var out []string
	for path := range mounts.Secret {
		out = append(out, path)
	}
	return out
}

// someNames returns the first names in a folder.
func (s *shell) someNames(ctx context.Context, folder string) []string {
	var out []string
	for name, err := range s.namesIn(ctx, folder, url.Values{}) {
		if out = append(out, name); err != nil || len(out) == completeNames {
			break
		}
	}
	return out
}

// oneDash makes the answers to a shell that completes a flag written with one
// dash begin with one, for it drops all that do not begin as the word does.
type oneDash struct{ to io.Writer }

// Write implements io.Writer. Cobra writes whole lines.
func (o oneDash) Write(p []byte) (int, error) {
	lines := bytes.SplitAfter(p, []byte("\n"))
	for i, line := range lines {
		if bytes.HasPrefix(line, []byte("--")) {
			lines[i] = line[1:]
		}
	}
	if _, err := o.to.Write(bytes.Join(lines, nil)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// completesOneDash reports whether a shell asks for flags that begin with one
// dash.
func completesOneDash(args []string) bool {
	last := ""
	if len(args) > 1 {
		last = args[len(args)-1]
	}
	return last != "" && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) && last[0] == '-' && !strings.HasPrefix(last, "--")
}
