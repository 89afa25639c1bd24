package cli

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) kvListCommand() *cobra.Command {
	var f kvFlags
	var deep bool
	cmd := &cobra.Command{
		Use: "list [PATH]", Args: atMost(1), ValidArgsFunction: s.completeKV(&f),
		Short: "List the names in a folder.",
		Long: `List the names in a folder; a name with more below it ends in a slash. With -r
everything below is listed, as paths from the folder on.`,
		Example: "  coffer kv list secret/app\n  coffer kv list -r -mount=secret\n  coffer kv list -format=json secret/app",
		RunE: func(cmd *cobra.Command, args []string) error {
			path := strings.Join(args, "")
			if path == "" && f.mount == "" {
				return usage("name a folder, or a mount with -mount")
			}
			p, err := s.kvPath(cmd.Context(), &f, path)
			if err != nil {
				return err
			}
			folder := strings.TrimSuffix(p.at("metadata"), "/") + "/"
			names := s.namesIn(cmd.Context(), folder, url.Values{})
			if deep {
				names = s.namesBelow(cmd.Context(), folder, "")
			}
			return s.printNames(names, p.String())
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&deep, "recursive", "r", false, "list everything below")
	return cmd
}

// namesPage is how many names one request asks for.
const namesPage = 1000

// namesIn lists a folder, page by page while the names are consumed. The query
// may say after which name it begins.
func (s *shell) namesIn(ctx context.Context, folder string, query url.Values) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		after := query.Get("after")
		for {
			query.Set("limit", strconv.Itoa(namesPage))
			names, err := s.list(ctx, folder, query)
			if err != nil {
				yield("", err)
				return
			}
			for _, name := range names {
				if after != "" && name <= after {
					return // a server without pages answers the same names again
				}
				if !yield(name, nil) {
					return
				}
			}
			if len(names) != namesPage {
				return
			}
			after = names[len(names)-1]
			query.Set("after", after)
		}
	}
}

// list asks for one page of names; nothing there is none.
func (s *shell) list(ctx context.Context, path string, query url.Values) ([]string, error) {
	answer, err := s.do(ctx, client.Request{Method: "LIST", Path: path, Query: query, WrapTTL: -1})
	if client.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var page struct {
		Keys []string `json:"keys"`
	}
	return page.Keys, answer.Decode(&page)
}

// namesBelow lists a folder and every folder in it, in order.
func (s *shell) namesBelow(ctx context.Context, folder, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range s.namesIn(ctx, folder, url.Values{}) {
			if err != nil || !strings.HasSuffix(name, "/") {
				if !yield(prefix+name, err) {
					return
				}
				continue
			}
			for below, err := range s.namesBelow(ctx, folder+name, prefix+name) {
				if !yield(below, err) {
					return
				}
			}
		}
	}
}

// printNames prints names as they come. There being none is an error, so that a
// script does not take a wrong path for an empty one.
func (s *shell) printNames(names iter.Seq2[string, error], place string) error {
	out := s.stream([]string{"Keys"})
	none := true
	for name, err := range names {
		if err != nil {
			return err
		}
		none = false
		if err := out.add(name, []string{name}); err != nil {
			return err
		}
	}
	if err := out.close(); err != nil {
		return err
	}
	if none {
		return &exit{exitRefused, fmt.Errorf("there is nothing at %s", place)}
	}
	return nil
}
