package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// leaves calls do for every command that does something itself.
func leaves(cmd *cobra.Command, do func(*cobra.Command)) {
	if !cmd.HasSubCommands() {
		do(cmd)
	}
	for _, sub := range cmd.Commands() {
		leaves(sub, do)
	}
}

// scripts returns the lines of all scripts.
func scripts(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no scripts: %v", err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// Every command says what it is for, shows how it is used, and is run by a
// script.
func TestEveryCommandIsDescribedAndRun(t *testing.T) {
	run := scripts(t)
	leaves(New(Env{Getenv: func(string) string { return "" }}), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if cmd.Short == "" || !strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: it says %q of itself", path, cmd.Short)
		}
		if cmd.Example == "" {
			t.Errorf("%s: it has no example", path)
		}
		if !strings.Contains(run, path+" ") && !strings.Contains(run, path+"\n") {
			t.Errorf("%s: no script runs it", path)
		}
	})
}

// What examples say can be typed: the commands, flags and numbers of arguments
// are there.
func TestExamplesCanBeTyped(t *testing.T) {
	leaves(New(Env{Getenv: func(string) string { return "" }}), func(cmd *cobra.Command) {
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			line = strings.TrimSpace(line)
			line = line[strings.LastIndex(line, "| ")+1:]
			words := shellWords(line)[1:]
			for i, word := range words {
				if strings.HasPrefix(word, "<") || strings.HasPrefix(word, ">") || word == "#" || word == "&" {
					words = words[:i]
					break
				}
			}
			root := New(Env{Getenv: func(string) string { return "" }})
			found, rest, err := root.Find(doubleDashes(words))
			if err != nil || found.CommandPath() != cmd.CommandPath() {
				t.Errorf("%s: the example %q is of another command", cmd.CommandPath(), line)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%s: the example %q: %v", cmd.CommandPath(), line, err)
				continue
			}
			if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%s: the example %q: %v", cmd.CommandPath(), line, err)
			}
		}
	})
}

// shellWords splits a line as a shell does, as far as examples need it.
func shellWords(line string) []string {
	var out []string
	var word strings.Builder
	var quote rune
	inside := false
	for _, r := range line + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, inside = r, true
		case quote == 0 && r == ' ':
			if inside {
				out = append(out, word.String())
			}
			word.Reset()
			inside = false
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	return out
}
