package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/wire"
)

func (s *shell) kvMetadataGetCommand() *cobra.Command {
	var f kvFlags
	cmd := &cobra.Command{
		Use: "get PATH", Args: exactly(1), ValidArgsFunction: s.completeKV(&f),
		Short:   "Show what is kept about a secret, and about each version.",
		Example: "  coffer kv metadata get secret/app/db\n  coffer kv metadata get -field=owner secret/app/db",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.versionedPath(cmd.Context(), &f, args[0])
			if err != nil {
				return err
			}
			answer, err := s.do(cmd.Context(), client.Request{Path: p.at("metadata")})
			if err != nil {
				return err
			}
			if answer.WrapInfo != nil || s.format() != "table" || s.global.field != "" {
				return s.show(answer)
			}
			return s.metadataTables(answer, p)
		},
	}
	f.add(cmd)
	return cmd
}

func (s *shell) metadataTables(answer *client.Response, p kvPath) error {
	members, err := fieldsOf(answer)
	if err != nil {
		return err
	}
	var versions map[string]json.RawMessage
	if err := json.Unmarshal(members.values["versions"], &versions); err != nil {
		return errAnswer
	}
	members.order = slices.DeleteFunc(members.order, func(name string) bool { return name == "versions" })
	s.titledPath("Metadata Path", p.at("metadata"))
	if err := s.titled("Metadata", keyValue, members.rows()); err != nil {
		return err
	}
	numbers := make([]int, 0, len(versions))
	for number := range versions {
		n, _ := strconv.Atoi(number)
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		rows, err := memberRows(versions[strconv.Itoa(n)])
		if err != nil {
			return err
		}
		fmt.Fprintln(s.Stdout)
		if err := s.titled("Version "+strconv.Itoa(n), keyValue, rows); err != nil {
			return err
		}
	}
	return nil
}

// metadataBody is what a change of metadata sends; what is nil stays as it is.
type metadataBody struct {
	MaxVersions  *int64             `json:"max_versions,omitempty"`
	CASRequired  *bool              `json:"cas_required,omitempty"`
	DeleteAfter  *string            `json:"delete_version_after,omitempty"`
	DestroyAfter *string            `json:"destroy_deleted_after,omitempty"`
	Owner        *string            `json:"owner,omitempty"`
	Description  *string            `json:"description,omitempty"`
	Kind         *string            `json:"kind,omitempty"`
	Expires      *client.Time       `json:"expires_at,omitempty"`
	Expiry       *string            `json:"expiry,omitempty"`
	Custom       map[string]*string `json:"custom_metadata,omitempty"`
	Tags         map[string]*string `json:"tags,omitempty"`
	Validators   json.RawMessage    `json:"validators,omitempty"`
}

// metadataFlags are the flags of a change of metadata.
type metadataFlags struct {
	kvFlags
	maxVersions                int64
	casRequired                bool
	deleteAfter, destroyAfter  string
	owner, description, kind   string
	expires, expiry            string
	custom, tags               pairs
	validators                 string
	withoutCustom, withoutTags []string
}

func (f *metadataFlags) add(cmd *cobra.Command) {
	f.kvFlags.add(cmd)
	flags := cmd.Flags()
	flags.Int64Var(&f.maxVersions, "max-versions", 0, "how many versions are kept; 0 is the mount's number")
	flags.BoolVar(&f.casRequired, "cas-required", false, "every write must carry -cas")
	flags.StringVar(&f.deleteAfter, "delete-version-after", "", "how long after it is written a version answers as deleted, for example 720h; 0 is the mount's time")
	flags.StringVar(&f.destroyAfter, "destroy-deleted-after", "", "how long after its deletion a version's data is destroyed; 0 is the mount's time")
	flags.StringVar(&f.owner, "owner", "", "who answers for the secret")
	flags.StringVar(&f.description, "description", "", "what it is for")
	flags.StringVar(&f.kind, "kind", "", "what it is, for example api-key")
	flags.StringVar(&f.expires, "expires", "", "when it stops being good: 2031-12-31, a time in RFC 3339, a duration from now, or never")
	flags.StringVar(&f.expiry, "expiry", "", "what a read does after that: warn or enforce")
	flags.Var(&f.custom, "custom-metadata", "name=value of your own; may be given several times")
	flags.Var(&f.tags, "tag", "name=value by which it is found; may be given several times")
	flags.StringVar(&f.validators, "validators", "", "rules for the data: a JSON object, in @file or - for standard input; {} for none")
}

// body returns what the flags that were given change.
func (f *metadataFlags) body(cmd *cobra.Command, s *shell) (*metadataBody, error) {
	var out metadataBody
	given := cmd.Flags().Changed
	if given("max-versions") {
		out.MaxVersions = &f.maxVersions
	}
	if given("cas-required") {
		out.CASRequired = &f.casRequired
	}
	for _, text := range []struct {
		flag string
		from *string
		to   **string
	}{
		{"delete-version-after", &f.deleteAfter, &out.DeleteAfter}, {"destroy-deleted-after", &f.destroyAfter, &out.DestroyAfter},
		{"owner", &f.owner, &out.Owner}, {"description", &f.description, &out.Description},
		{"kind", &f.kind, &out.Kind}, {"expiry", &f.expiry, &out.Expiry},
	} {
		if given(text.flag) {
			*text.to = text.from
		}
	}
	if given("expires") {
		at, err := expiryTime(f.expires, time.Now())
		if err != nil {
			return nil, err
		}
		out.Expires = &at
	}
	out.Custom, out.Tags = changed(f.custom, f.withoutCustom), changed(f.tags, f.withoutTags)
	if given("validators") {
		text, _, err := s.text(f.validators)
		if err != nil {
			return nil, fmt.Errorf("-validators: %w", err)
		}
		out.Validators = json.RawMessage(strings.TrimSpace(text))
		if !json.Valid(out.Validators) || out.Validators[0] != '{' {
			return nil, usage("-validators is a JSON object like {\"required_keys\":[\"password\"]}, written there, in @file or on standard input")
		}
	}
	return &out, nil
}

// changed returns names to set and, as nil, names to remove; nil where there are
// neither.
func changed(set map[string]string, without []string) map[string]*string {
	if len(set)+len(without) == 0 {
		return nil
	}
	out := map[string]*string{}
	for name, value := range set {
		out[name] = &value
	}
	for _, name := range without {
		out[name] = nil
	}
	return out
}

// expiryTime reads when a secret expires; never is the zero time.
func expiryTime(text string, now time.Time) (client.Time, error) {
	if text == "" || text == "never" {
		return client.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return client.Time{Time: at}, nil
		}
	}
	after, err := wire.ParseDuration(text)
	if err != nil || after <= 0 {
		return client.Time{}, usage("-expires is a day like 2031-12-31, a time like 2031-12-31T12:00:00Z, a duration like 720h, or never; not %q", text)
	}
	return client.Time{Time: now.Add(after)}, nil
}

func (s *shell) kvMetadataPutCommand() *cobra.Command {
	cmd := s.changeMetadata("put", "POST", &metadataFlags{})
	cmd.Short = "Set what is kept about a secret; makes one without versions where there is none."
	cmd.Long = `Set what is kept about a secret. What no flag names stays as it is; tags and
custom metadata replace those there are. Where there is no secret one without
versions is made.`
	cmd.Example = "  coffer kv metadata put -owner=payments -tag=env=prod secret/app/db\n  coffer kv metadata put -max-versions=5 -validators=@rules.json secret/app/db"
	return cmd
}

func (s *shell) kvMetadataPatchCommand() *cobra.Command {
	f := &metadataFlags{}
	cmd := s.changeMetadata("patch", "PATCH", f)
	cmd.Short = "Change what is kept about a secret that there is."
	cmd.Long = "Change what is kept about a secret that there is. Tags and custom metadata are\nadded to those there are."
	cmd.Example = "  coffer kv metadata patch -expires=720h secret/app/db\n  coffer kv metadata patch -remove-custom-metadata=team secret/app/db"
	cmd.Flags().StringArrayVar(&f.withoutCustom, "remove-custom-metadata", nil, "remove this name; may be given several times")
	cmd.Flags().StringArrayVar(&f.withoutTags, "remove-tag", nil, "remove this tag; may be given several times")
	return cmd
}

func (s *shell) changeMetadata(verb, method string, f *metadataFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " PATH", Args: exactly(1), ValidArgsFunction: s.completeKV(&f.kvFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := f.body(cmd, s)
			if err != nil {
				return err
			}
			p, err := s.versionedPath(cmd.Context(), &f.kvFlags, args[0])
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), client.Request{Method: method, Path: p.at("metadata"), Body: body}, "Success! Data written to: %s", p.at("metadata"))
		},
	}
	f.add(cmd)
	return cmd
}

func (s *shell) kvMetadataDeleteCommand() *cobra.Command {
	var f kvFlags
	cmd := &cobra.Command{
		Use: "delete PATH", Args: exactly(1), ValidArgsFunction: s.completeKV(&f),
		Short:   "Delete a secret with all its versions for good.",
		Example: "  coffer kv metadata delete secret/app/old",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := s.versionedPath(cmd.Context(), &f, args[0])
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), client.Request{Method: "DELETE", Path: p.at("metadata")}, "Success! Data deleted (if it existed) at: %s", p.at("metadata"))
		},
	}
	f.add(cmd)
	return cmd
}
