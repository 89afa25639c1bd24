package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/policy"
)

// lintTime is how long a lint waits for a server that it could do without.
const lintTime = 5 * time.Second

// lintFinding is one finding, and the file or policy that it is in.
type lintFinding struct {
	In string `json:"in"`
	policy.Finding
}

func (s *shell) policyLintCommand() *cobra.Command {
	var offline bool
	cmd := &cobra.Command{
		Use: "lint FILE | NAME | -...", Args: atLeast(1), ValidArgsFunction: s.completePolicyOrFile,
		Short: "Say what in policies is likely not meant, before they are stored.",
		Long: `Say what in policies is likely not meant. An argument is a file, - for standard
input, or the name of a policy that is stored. Where a server can be asked, its
mounts are known, which shows more; with -offline none is asked. The exit code is
0 where nothing was found, else 1.`,
		Example: "  coffer policy lint app.hcl\n  coffer policy lint -offline -format=json policies/app.hcl policies/web.hcl\n  coffer policy lint default",
		RunE: func(cmd *cobra.Command, args []string) error {
			all := []lintFinding{}
			for _, arg := range args {
				found, err := s.lintOne(cmd.Context(), arg, &offline)
				if err != nil {
					return err
				}
				all = append(all, found...)
			}
			if err := s.value(all, func() error { return s.lintTable(all) }); err != nil {
				return err
			}
			if len(all) > 0 {
				return &exit{code: exitLocal}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "ask no server")
	return cmd
}

func (s *shell) lintTable(all []lintFinding) error {
	var err error
	for _, f := range all {
		err = errors.Join(err, s.say("%s:%d: %s: path %q: %s [%s]\n  %s", printable(f.In), f.Line, f.Severity, f.Rule, printable(f.Text), f.Code, printable(f.Advice)))
	}
	if len(all) == 0 {
		return s.say("Nothing was found.")
	}
	return err
}

// lintOne checks a file, standard input, or a stored policy. Once no server
// answers, offline is set and no other is waited for.
func (s *shell) lintOne(ctx context.Context, arg string, offline *bool) ([]lintFinding, error) {
	text, err := s.fileOrStdin(arg)
	stored := errors.Is(err, os.ErrNotExist) && filepath.Base(arg) == arg && filepath.Ext(arg) == ""
	switch {
	case stored && *offline:
		return nil, fmt.Errorf("there is no file %s; what is stored cannot be read with -offline", arg)
	case stored:
		if text, err = s.storedPolicy(ctx, arg); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	p, err := policy.Parse(arg, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place(arg), err)
	}
	var found []policy.Finding
	if !*offline {
		if found, err = s.lintThere(ctx, text); err != nil {
			s.warn("the mounts are not known, which hides what depends on them: %v", err)
			*offline = true
		}
	}
	if *offline {
		found = policy.Lint(p, nil)
	}
	out := make([]lintFinding, len(found))
	for i, f := range found {
		out[i] = lintFinding{place(arg), f}
	}
	return out, nil
}

func (s *shell) storedPolicy(ctx context.Context, name string) (string, error) {
	c, err := s.client()
	if err != nil {
		return "", err
	}
	text, err := c.Sys().Policy(ctx, policyName(name))
	if client.IsNotFound(err) {
		return "", &exit{exitRefused, fmt.Errorf("there is neither a file nor a policy named %s", name)}
	}
	return text, refused(err)
}

// lintThere lets the server check a policy, which knows its mounts.
func (s *shell) lintThere(ctx context.Context, text string) ([]policy.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, lintTime)
	defer cancel()
	body := struct {
		Policy string `json:"policy"`
	}{text}
	answer, err := s.do(ctx, client.Request{Method: "POST", Path: "sys/policies/lint", Body: body, Once: true, WrapTTL: -1})
	if err != nil {
		return nil, err
	}
	var out struct {
		Findings []policy.Finding `json:"findings"`
	}
	return out.Findings, answer.Decode(&out)
}

func (s *shell) policyFmtCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use: "fmt FILE | -...", Args: atLeast(1),
		Short: "Write policies in the usual shape; comments and order stay.",
		Long: `Write policy files anew in the usual shape; comments and order stay. With - it
reads standard input and prints the result. With -check nothing is written, the
files that are not in that shape are named, and the exit code is 1 where one is.`,
		Example: "  coffer policy fmt app.hcl\n  coffer policy fmt - <app.hcl\n  coffer policy fmt -check policies/app.hcl policies/web.hcl",
		RunE: func(_ *cobra.Command, args []string) error {
			wrong := 0
			for _, arg := range args {
				same, err := s.format1(arg, check)
				if err != nil {
					return err
				}
				if !same {
					wrong++
				}
			}
			if check && wrong > 0 {
				return &exit{code: exitLocal}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "write nothing, and name the files that would change")
	return cmd
}

// format1 formats one file, and reports whether it was so already.
func (s *shell) format1(arg string, check bool) (same bool, err error) {
	text, err := s.fileOrStdin(arg)
	if err != nil {
		return false, err
	}
	shaped, err := policy.Format(text)
	if err != nil {
		return false, fmt.Errorf("%s: %w", place(arg), err)
	}
	same = shaped == text
	switch {
	case check && same:
		return true, nil
	case check:
		return false, s.say("%s", place(arg))
	case arg == "-":
		_, err := strings.NewReader(shaped).WriteTo(s.Stdout)
		return same, err
	case same:
		return true, s.say("Success! Formatted policy: %s", arg)
	}
	if err := rewrite(arg, []byte(shaped)); err != nil {
		return false, err
	}
	return false, s.say("Success! Formatted policy: %s", arg)
}

// rewrite replaces a file's content, all of it or nothing, and keeps its mode. A
// symbolic link stays one.
func rewrite(name string, content []byte) error {
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = bytes.NewReader(content).WriteTo(f)
	if err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
