// Package cli is the command line: the server's process, and every command that
// speaks to a server. Where Vault's command line has a command, this one takes
// the same words and flags.
//
// A command gets what it touches of the world from Env, asks servers through
// package client, and prints through a printer; it holds no logic of its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/internal/sys"
)

// Exit codes.
const (
	exitOK      = 0
	exitLocal   = 1 // wrong usage, or something on this machine
	exitRefused = 2 // the server refused, or has no such thing
)

// Env is what the command line touches of the world.
type Env struct {
	Program        string // as it was called
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Home           string // where the token file lies; "" keeps none
	Terminal       bool   // whether Stdout is one
	// Prompt asks the person at the keyboard for something that is not shown; nil
	// where there is nobody.
	Prompt func(question string) (string, error)
	// Browse shows an address in the person's browser; nil where there is none.
	Browse  func(address string) error
	Version sys.Version
}

// exit is an error that chose its exit code.
type exit struct {
	code int
	err  error // nil where everything was said
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// usage is a mistake in how a command was called; its help follows the error.
func usage(format string, args ...any) error {
	return &misuse{fmt.Errorf(format, args...)}
}

type misuse struct{ error }

// Main runs one command and returns its exit code.
func Main(ctx context.Context, args []string, env Env) int {
	if completesOneDash(args) {
		env.Stdout = oneDash{env.Stdout}
	}
	root := New(env)
	root.SetArgs(doubleDashes(args))
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil || errors.Is(err, errShown) {
		return exitOK
	}
	code := exitLocal
	var chosen *exit
	if errors.As(err, &chosen) {
		code = chosen.code
		if chosen.err == nil {
			return code
		}
	}
	explain(env.Stderr, cmd, err)
	return code
}

// New returns the root of all commands.
func New(env Env) *cobra.Command {
	s := &shell{Env: env}
	root := &cobra.Command{
		Use:           "coffer",
		Short:         "A secret manager: keeps, versions, hands out, revokes and audits credentials.",
		SilenceErrors: true, SilenceUsage: true,
		Version:           env.Version.Coffer,
		Args:              cobra.ArbitraryArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error { return s.checkFormat() },
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknown(cmd, args[0])
		},
	}
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetVersionTemplate("coffer {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &misuse{err} })
	root.SetUsageFunc(printUsage)
	for _, group := range []*cobra.Group{
		{ID: "secrets", Title: "Secrets:"}, {ID: "access", Title: "Access:"}, {ID: "server", Title: "Server:"},
	} {
		root.AddGroup(group)
	}
	s.globalFlags(root)
	formats := cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)
	_ = root.RegisterFlagCompletionFunc("format", formats) // it fails where there is no such flag
	for _, add := range s.commands() {
		root.AddCommand(add)
	}
	return root
}

// group returns a command that only holds others, and refuses words that name
// none of them.
func group(id, use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, GroupID: id, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknown(cmd, args[0])
		},
	}
	cmd.AddCommand(commands...)
	return cmd
}

func unknown(cmd *cobra.Command, word string) error {
	text := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), word)
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage("%s", text)
}

// explain says what went wrong and what to do next.
func explain(w io.Writer, cmd *cobra.Command, err error) {
	fmt.Fprintln(w, "Error:", printableLines(err.Error()))
	var wrong *misuse
	if errors.As(err, &wrong) {
		fmt.Fprintf(w, "\nUsage: %s\nMore:  %s -help\n", cmd.UseLine(), cmd.CommandPath())
		return
	}
	for _, line := range advice(err) {
		fmt.Fprintln(w, printableLines(line))
	}
}

// longFlag is a flag written with one dash, as Vault's command line has them.
var longFlag = regexp.MustCompile(`^-[a-zA-Z][a-zA-Z0-9-]+(=|$)`)

// doubleDashes gives long flags that were written with one dash their second.
// What stands behind "--" is left alone.
func doubleDashes(args []string) []string {
	out := make([]string, 0, len(args))
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		if longFlag.MatchString(a) {
			a = "-" + a
		}
		out = append(out, a)
	}
	return out
}
