package cli

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

func (s *shell) kvGetCommand() *cobra.Command {
	var f kvFlags
	var version int64
	var label string
	cmd := &cobra.Command{
		Use: "get PATH", Args: exactly(1), ValidArgsFunction: s.completeKV(&f),
		Short: "Read a secret.",
		Long: `Read the active version of a secret, or another by its number or by a label that
points at it: pending, previous, or one of your own.

A version that is deleted or destroyed has no data: what is known of it is
printed, and the exit code is 2.`,
		Example: "  coffer kv get secret/app/db\n  coffer kv get -mount=secret -field=password app/db\n  coffer kv get -label=previous secret/app/db",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.secretPath(cmd.Context(), &f, args[0])
			if err != nil {
				return err
			}
			query, err := whichVersion(p, version, label)
			if err != nil {
				return err
			}
			answer, err := s.do(cmd.Context(), client.Request{Path: p.at("data"), Query: query})
			if client.IsNotFound(err) && answer.Data == nil {
				return missing(p, query, err)
			}
			return s.showSecret(p, answer, err)
		},
	}
	f.add(cmd)
	cmd.Flags().Int64Var(&version, "version", 0, "number of the version")
	cmd.Flags().StringVar(&label, "label", "", "the version that this label points at")
	return cmd
}

// whichVersion returns the query that names a version.
func whichVersion(p kvPath, version int64, label string) (url.Values, error) {
	query := url.Values{}
	switch {
	case version < 0:
		return nil, usage("-version is a number from 1 on, not %d", version)
	case version > 0 && label != "":
		return nil, usage("-version and -label both name a version; use one")
	case p.version == 1 && (version > 0 || label != ""):
		return nil, usage("%s is kv version 1 and keeps one version", p.mount)
	case version > 0:
		query.Set("version", strconv.FormatInt(version, 10))
	case label != "":
		query.Set("label", label)
	}
	return query, nil
}

// missing says what it is that is not there.
func missing(p kvPath, query url.Values, err error) error {
	var what string
	switch {
	case query.Has("version"):
		what = fmt.Sprintf("%s has no version %s; coffer kv history %s shows those it has", p, query.Get("version"), p)
	case query.Has("label"):
		what = fmt.Sprintf("%s has no version under the label %s; coffer kv label list %s shows its labels", p, query.Get("label"), p)
	default:
		what = fmt.Sprintf("there is no secret %s; coffer kv list shows what there is", p)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// showSecret prints a secret with what is known of its version. refusal stands
// beside an answer that has no data because the version is deleted.
func (s *shell) showSecret(p kvPath, answer *client.Response, refusal error) error {
	if refusal != nil && (answer == nil || answer.Data == nil) {
		return refusal
	}
	if answer.WrapInfo != nil {
		return s.show(answer)
	}
	secret := struct {
		Data     json.RawMessage `json:"data"`
		Metadata json.RawMessage `json:"metadata"`
	}{Data: json.RawMessage(answer.Data)}
	if p.version == 2 {
		if err := answer.Decode(&secret); err != nil {
			return err
		}
	}
	var gone error
	if refusal != nil {
		gone = &exit{exitRefused, fmt.Errorf("%s", goneText(p, secret.Metadata))}
	}
	switch {
	case s.global.field != "":
		if gone != nil {
			return gone
		}
		return s.secretField(secret.Data)
	case s.format() != "table":
		if err := s.document(answer.Body); err != nil {
			return err
		}
		return gone
	}
	if err := s.secretTables(p, secret.Metadata, secret.Data); err != nil {
		return err
	}
	return gone
}

// secretField prints one member of a secret; data is all of it, unless it has a
// member of that name.
func (s *shell) secretField(data json.RawMessage) error {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &members); err != nil {
		return errAnswer
	}
	if _, ok := members["data"]; !ok {
		members["data"] = data
	}
	if _, ok := members[s.global.field]; !ok {
		return &exit{exitLocal, fmt.Errorf("the secret has no member %q", s.global.field)}
	}
	return s.showField(members)
}

func (s *shell) secretTables(p kvPath, metadata, data json.RawMessage) error {
	if p.version == 2 {
		s.titledPath("Secret Path", p.at("data"))
		rows, err := memberRows(metadata)
		if err != nil {
			return err
		}
		if err := s.titled("Metadata", keyValue, rows); err != nil {
			return err
		}
	}
	if len(data) == 0 || string(data) == "null" {
		return nil
	}
	rows, err := memberRows(data)
	if err != nil {
		return err
	}
	if p.version == 2 {
		fmt.Fprintln(s.Stdout)
	}
	return s.titled("Data", keyValue, rows)
}

// memberRows returns the members of a JSON object as a table's rows, sorted.
func memberRows(object json.RawMessage) ([][]string, error) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, errAnswer
	}
	rows := make([][]string, 0, len(members))
	for name, value := range members {
		rows = append(rows, []string{name, scalar(value)})
	}
	slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return rows, nil
}

// goneText says why a version has no data, and what to do about it.
func goneText(p kvPath, metadata json.RawMessage) string {
	var m struct {
		Version   int64  `json:"version"`
		Deletion  string `json:"deletion_time"`
		Destroyed bool   `json:"destroyed"`
	}
	_ = json.Unmarshal(metadata, &m)
	if m.Destroyed {
		return fmt.Sprintf("version %d of %s is destroyed, and its data gone for good; coffer kv history %s shows the others", m.Version, p, p)
	}
	if m.Deletion == "" {
		return fmt.Sprintf("version %d of %s has expired; coffer kv metadata get %s shows since when", m.Version, p, p)
	}
	return fmt.Sprintf("version %d of %s is deleted; coffer kv undelete -versions=%d %s makes it readable again", m.Version, p, m.Version, p)
}

func (s *shell) kvHistoryCommand() *cobra.Command {
	var f kvFlags
	cmd := &cobra.Command{
		Use: "history PATH", Aliases: []string{"versions"}, Args: exactly(1), ValidArgsFunction: s.completeKV(&f),
		Short:   "Show a secret's versions, the newest first.",
		Long:    "Show a secret's versions, the newest first, with the labels that point at them and what became of them.",
		Example: "  coffer kv history secret/app/db",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.versionedPath(cmd.Context(), &f, args[0])
			if err != nil {
				return err
			}
			answer, err := s.do(cmd.Context(), client.Request{Path: p.at("metadata"), WrapTTL: -1})
			if err != nil {
				return err
			}
			var m client.Metadata
			if err := answer.Decode(&m); err != nil {
				return err
			}
			history := versionsOf(&m)
			return s.value(history, func() error {
				rows := make([][]string, len(history))
				for i, v := range history {
					rows[i] = []string{strconv.FormatUint(v.Version, 10), moment(v.Created), strings.Join(v.Labels, " "), v.State}
				}
				return s.table([]string{"Version", "Created", "Labels", "State"}, rows)
			})
		},
	}
	f.add(cmd)
	return cmd
}

// pastVersion is one row of a history.
type pastVersion struct {
	Version uint64      `json:"version"`
	Created client.Time `json:"created_time"`
	Labels  []string    `json:"labels"`
	State   string      `json:"state"` // kept, deleted, destroyed; deprecated is a label
	Deleted client.Time `json:"deletion_time"`
}

func versionsOf(m *client.Metadata) []pastVersion {
	out := make([]pastVersion, 0, len(m.Versions))
	for number, v := range m.Versions {
		past := pastVersion{Version: number, Created: v.Created, Labels: []string{}, State: "kept", Deleted: v.Deletion}
		for label, at := range m.Labels {
			if at == number {
				past.Labels = append(past.Labels, label)
			}
		}
		if v.Deprecated {
			past.Labels = append(past.Labels, client.Deprecated)
		}
		slices.Sort(past.Labels)
		switch {
		case v.Destroyed:
			past.State = "destroyed"
		case isPast(v.Deletion):
			past.State = "deleted"
		}
		out = append(out, past)
	}
	slices.SortFunc(out, func(a, b pastVersion) int { return int(b.Version) - int(a.Version) })
	return out
}
