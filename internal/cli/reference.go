package cli

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Reference returns the reference of the command line in Markdown, from the
// commands themselves.
func Reference() []byte {
	root := New(Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Getenv: func(string) string { return "" }})
	var out bytes.Buffer
	fmt.Fprintf(&out, `# Reference of the command line

Generated from the commands by %[1]smake docs%[1]s; %[1]scoffer COMMAND -help%[1]s says the same.

Long flags may be written with one dash or two, and stand anywhere behind the
command. What is read from a server is printed as a table, or with
%[1]s-format=json%[1]s or %[1]syaml%[1]s for programs; %[1]s-field=NAME%[1]s prints one field as it is.
Where a variable COFFER_NAME is unset, VAULT_NAME is read. Exit codes are 0, 1 for
wrong usage or something on this machine, and 2 where the server refused or has no
such thing; commands whose codes say more describe them below.
%[1]scoffer completion bash%[1]s (zsh, fish, powershell) prints a script for the shell.

Flags that every command takes:
`, "`")
	writeFlags(&out, func(w io.Writer) { printFlags(w, root.PersistentFlags()) })
	for _, group := range root.Groups() {
		fmt.Fprintf(&out, "\n## %s\n", strings.TrimSuffix(group.Title, ":"))
		for _, cmd := range root.Commands() {
			if cmd.GroupID == group.ID {
				writeCommand(&out, cmd)
			}
		}
	}
	return out.Bytes()
}

// writeCommand writes a command, or those below it where it only holds others.
func writeCommand(out *bytes.Buffer, cmd *cobra.Command) {
	if cmd.HasSubCommands() {
		for _, sub := range cmd.Commands() {
			writeCommand(out, sub)
		}
		return
	}
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	fmt.Fprintf(out, "\n### %s\n\n%s\n\n```\n%s\n```\n", cmd.CommandPath(), prose(about), cmd.UseLine())
	writeFlags(out, func(w io.Writer) { printFlags(w, cmd.LocalNonPersistentFlags()) })
	fmt.Fprintf(out, "\n```sh\n%s\n```\n", unindent(cmd.Example))
}

// writeFlags writes what print prints, without its title, as it is; nothing
// where there are no flags.
func writeFlags(out *bytes.Buffer, print func(io.Writer)) {
	var text bytes.Buffer
	print(&text)
	if lines := strings.TrimPrefix(text.String(), "\nFlags:\n"); lines != "" {
		fmt.Fprintf(out, "\n```\n%s\n```\n", strings.TrimRight(lines, "\n"))
	}
}

// prose escapes what Markdown would take for its own in a help text. Indented
// lines are lists, which Markdown reads as people do.
func prose(text string) string {
	return strings.NewReplacer("<", "&lt;", "*", `\*`, "_", `\_`).Replace(text)
}

func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return line == "" }), "\n")
}
