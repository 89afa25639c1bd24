package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) readCommand() *cobra.Command {
	return &cobra.Command{
		Use: "read PATH [name=value...]", GroupID: "secrets", Args: atLeast(1), ValidArgsFunction: s.completePath,
		Short:   "Read what is at a path.",
		Long:    "Read what is at a path of the API, without its /v1/; name=value goes into the\nquery. coffer path-help PATH says what a path has.",
		Example: "  coffer read auth/token/lookup-self\n  coffer read -field=public_key sys/audit-log\n  coffer read secret/data/app/db version=1",
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := queryOf(args[1:])
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), client.Request{Method: "GET", Path: args[0], Query: query}, "There is nothing to show at %s.", args[0])
		},
	}
}

func (s *shell) writeCommand() *cobra.Command {
	cmd := s.sends("write", "POST")
	cmd.Short = "Write to a path."
	cmd.Long = `Write to a path of the API, without its /v1/. DATA is name=text, name=@file,
name=- for standard input, or a whole JSON object as @file or -; a name that is
given several times makes a list. With -force nothing is sent.`
	cmd.Example = "  coffer write auth/userpass/users/ada password=- policies=app <password.txt\n  coffer write -force sys/rotate\n  coffer write -wrap-ttl=5m sys/wrapping/wrap @handover.json"
	return cmd
}

func (s *shell) patchCommand() *cobra.Command {
	cmd := s.sends("patch", "PATCH")
	cmd.Short = "Change a part of what is at a path."
	cmd.Long = "Change a part of what is at a path of the API, by a JSON merge patch. DATA is\nwritten as in coffer write; null in a JSON object removes a member."
	cmd.Example = "  coffer patch secret/metadata/app/db owner=payments"
	return cmd
}

// sends returns a command that sends data to a path.
func (s *shell) sends(verb, method string) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: verb + " PATH [DATA...]", GroupID: "secrets", Args: atLeast(1), ValidArgsFunction: s.completePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && !force {
				return usage("say what to write to %s, or -force to send nothing", args[0])
			}
			data, literal, err := s.values(args[1:])
			if err != nil {
				return err
			}
			s.warnLiteral(secretNames(literal))
			s.warnLineBreaks(data, secretNames(slices.Sorted(maps.Keys(data))))
			return s.ask(cmd.Context(), client.Request{Method: method, Path: args[0], Body: data}, "Success! Data written to: %s", args[0])
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "send nothing, for paths that want no data")
	return cmd
}

func (s *shell) listCommand() *cobra.Command {
	var after string
	var limit int
	var detailed bool
	cmd := &cobra.Command{
		Use: "list PATH", GroupID: "secrets", Args: exactly(1), ValidArgsFunction: s.completePath,
		Short:   "List the names at a path.",
		Example: "  coffer list secret/metadata/app\n  coffer list -format=json sys/policies/acl\n  coffer list -detailed auth/userpass/locked-users",
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{}
			if after != "" {
				query.Set("after", after)
			}
			if limit > 0 {
				query.Set("limit", strconv.Itoa(limit))
			}
			return s.listPath(cmd, args[0], query, detailed)
		},
	}
	cmd.Flags().BoolVar(&detailed, "detailed", false, "show what the path tells about each name, too")
	cmd.Flags().StringVar(&after, "after", "", "begin behind this name")
	cmd.Flags().IntVar(&limit, "limit", 0, "show at most so many names")
	return cmd
}

func (s *shell) listPath(cmd *cobra.Command, path string, query url.Values, detailed bool) error {
	answer, err := s.do(cmd.Context(), client.Request{Method: "LIST", Path: path, Query: query})
	if client.IsNotFound(err) {
		return &exit{exitRefused, fmt.Errorf("there is nothing at %s", path)}
	}
	if err != nil {
		return err
	}
	var page struct {
		Keys []string                              `json:"keys"`
		Info map[string]map[string]json.RawMessage `json:"key_info"`
	}
	if answer.WrapInfo == nil && s.global.field == "" && (detailed || s.format() != "table") {
		if err := answer.Decode(&page); err != nil {
			return err
		}
	}
	switch {
	case page.Info != nil && detailed:
		return s.value(page.Info, func() error { return s.detailedTable(page.Keys, page.Info) })
	case answer.WrapInfo != nil || s.global.field != "" || s.format() == "table":
		return s.show(answer)
	}
	return s.value(page.Keys, nil)
}

// detailedTable prints names with what is told about each, a column for every
// field that any of them has.
func (s *shell) detailedTable(keys []string, info map[string]map[string]json.RawMessage) error {
	header := []string{"Keys"}
	for _, fields := range info {
		header = append(header, slices.Collect(maps.Keys(fields))...)
	}
	slices.Sort(header[1:])
	header = slices.Compact(header)
	rows := make([][]string, len(keys))
	for i, key := range keys {
		rows[i] = []string{key}
		for _, field := range header[1:] {
			cell := "n/a"
			if value, ok := info[key][field]; ok {
				cell = scalar(value)
			}
			rows[i] = append(rows[i], cell)
		}
	}
	return s.table(header, rows)
}

func (s *shell) deleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete PATH [name=value...]", GroupID: "secrets", Args: atLeast(1), ValidArgsFunction: s.completePath,
		Short:   "Delete what is at a path.",
		Example: "  coffer delete auth/userpass/users/ada",
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := queryOf(args[1:])
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), client.Request{Method: "DELETE", Path: args[0], Query: query}, "Success! Data deleted (if it existed) at: %s", args[0])
		},
	}
}
