package cli

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// printUsage prints how a command is called: examples, the commands below it and
// its flags, written with one dash as everywhere else.
func printUsage(cmd *cobra.Command) error {
	w := cmd.OutOrStdout()
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "Usage: %s COMMAND\n", cmd.CommandPath())
	} else {
		fmt.Fprintf(w, "Usage: %s\n", cmd.UseLine())
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	printCommands(w, cmd)
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(w, "\nAlso: %s\n", strings.Join(cmd.Aliases, ", "))
	}
	printFlags(w, cmd.LocalFlags())
	switch {
	case cmd.HasAvailableSubCommands():
		fmt.Fprintf(w, "\nMore of one: %s COMMAND -help\n", cmd.CommandPath())
	case cmd.HasParent():
		fmt.Fprintf(w, "\nFlags that every command takes, such as -address and -format: %s -help\n", cmd.Root().Name())
	}
	return nil
}

// printCommands prints the commands below one, by their groups.
func printCommands(w io.Writer, cmd *cobra.Command) {
	width := 0
	for _, sub := range cmd.Commands() {
		width = max(width, len(sub.Name()))
	}
	titles := []*cobra.Group{{Title: "Commands:"}}
	if groups := cmd.Groups(); len(groups) > 0 {
		titles = append(groups, &cobra.Group{Title: "More:"})
	}
	for _, group := range titles {
		title := "\n" + group.Title + "\n"
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.GroupID == group.ID {
				fmt.Fprintf(w, "%s  %-*s  %s\n", title, width, sub.Name(), sub.Short)
				title = ""
			}
		}
	}
}

// twoDashes is a long flag as pflag writes it.
var twoDashes = regexp.MustCompile(`(?m)^( +(?:-\w, )?)--`)

func printFlags(w io.Writer, flags *pflag.FlagSet) {
	shown := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && f.Name != "version" || f.Value.Type() != "bool" {
			shown.AddFlag(f)
		}
	})
	if text := shown.FlagUsages(); text != "" {
		fmt.Fprintf(w, "\nFlags:\n%s", twoDashes.ReplaceAllString(text, "$1-"))
	}
}
