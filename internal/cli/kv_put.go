package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
)

// kvWrite is the body of a write to an engine with versions.
type kvWrite struct {
	Data    map[string]json.RawMessage `json:"data"`
	Options kvOptions                  `json:"options"`
}

type kvOptions struct {
	CAS   *int64 `json:"cas,omitempty"`
	Stage string `json:"stage,omitempty"`
}

func (s *shell) kvPutCommand() *cobra.Command {
	var f kvFlags
	var only cas
	var stage string
	cmd := &cobra.Command{
		Use: "put PATH DATA...", Args: atLeast(1), ValidArgsFunction: s.completeKV(&f),
		Short: "Write a secret as a new version.",
		Long: `Write a secret as a new version, which becomes the active one; with -stage it
waits under a label instead, until coffer kv promote.

DATA is name=text, name=@file, name=- for standard input, or a whole JSON object
as @file or -. What stands on the command line is seen by others, so secrets come
better from files and standard input.`,
		Example: "  coffer kv put secret/app/db user=app password=- <password.txt\n  coffer kv put -mount=secret app/db @db.json\n  coffer kv put -stage secret/app/db @next.json\n  coffer kv put -cas=0 secret/app/new @new.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := s.secretData(args)
			if err != nil {
				return err
			}
			p, err := s.secretPath(cmd.Context(), &f, args[0])
			if err != nil {
				return err
			}
			if p.version == 1 {
				if stage != "" || only.value() != nil {
					return usage("%s is kv version 1, which has no -cas and no -stage", p.mount)
				}
				return s.ask(cmd.Context(), client.Request{Method: "POST", Path: p.at("data"), Body: data}, "Success! Data written to: %s", p)
			}
			body := kvWrite{data, kvOptions{only.value(), stage}}
			answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: p.at("data"), Body: body})
			if err != nil {
				return err
			}
			return s.written(answer, p, "data")
		},
	}
	f.add(cmd)
	only.add(cmd, "write only when this is the secret's version now; 0 means that there is none yet")
	addStage(cmd, &stage)
	return cmd
}

// addStage adds the flag that puts a new version under a label.
func addStage(cmd *cobra.Command, stage *string) {
	cmd.Flags().StringVar(stage, "stage", "", "put the version under this label, and leave the active one as it is")
	cmd.Flags().Lookup("stage").NoOptDefVal = client.Pending
}

// secretData reads the data of a secret behind its path.
func (s *shell) secretData(args []string) (map[string]json.RawMessage, error) {
	if len(args) < 2 {
		return nil, usage("say what to write to %s: name=@file, name=- or a JSON object on standard input", args[0])
	}
	data, literal, err := s.values(args[1:])
	if err != nil {
		return nil, err
	}
	s.warnLiteral(literal)
	s.warnLineBreaks(data, slices.Sorted(maps.Keys(data)))
	return data, nil
}

func (s *shell) kvPatchCommand() *cobra.Command {
	var f kvFlags
	var only cas
	var method, stage string
	var remove []string
	cmd := &cobra.Command{
		Use: "patch PATH DATA...", Args: atLeast(1), ValidArgsFunction: s.completeKV(&f),
		Short: "Change members of a secret, as a new version.",
		Long: `Change members of a secret and leave the others as they are; the result is a new
version. DATA is written as in coffer kv put.

The server merges, for which the token needs the capability patch. Where it has
that not, or with -method=rw, the secret is read, changed and written here, only
if nobody else wrote meanwhile; objects within it are then replaced, not merged.`,
		Example: "  coffer kv patch secret/app/db password=@new.txt\n  coffer kv patch -remove-data=port secret/app/db\n  coffer kv patch -stage secret/app/db password=@next.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			var data map[string]json.RawMessage
			if len(args) > 1 || len(remove) == 0 {
				var err error
				if data, err = s.secretData(args); err != nil {
					return err
				}
			}
			p, err := s.versionedPath(cmd.Context(), &f, args[0])
			if err != nil {
				return err
			}
			return s.patchSecret(cmd.Context(), p, method, kvWrite{merge(data, remove), kvOptions{only.value(), stage}})
		},
	}
	f.add(cmd)
	only.add(cmd, "change only when this is the secret's version now")
	addStage(cmd, &stage)
	cmd.Flags().StringVar(&method, "method", "", "patch: the server merges; rw: read, merge here and write; without it patch, then rw")
	cmd.Flags().StringArrayVar(&remove, "remove-data", nil, "remove this member; may be given several times")
	return cmd
}

// merge returns a merge patch that sets members and removes others.
func merge(set map[string]json.RawMessage, remove []string) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for name, value := range set {
		out[name] = value
	}
	for _, name := range remove {
		out[name] = json.RawMessage("null")
	}
	return out
}

func (s *shell) patchSecret(ctx context.Context, p kvPath, method string, patch kvWrite) error {
	if method != "" && method != "patch" && method != "rw" {
		return usage("-method is patch or rw, not %q", method)
	}
	if method != "rw" {
		answer, err := s.do(ctx, client.Request{Method: "PATCH", Path: p.at("data"), Body: patch})
		if err == nil {
			return s.written(answer, p, "data")
		}
		if method == "patch" || !client.IsDenied(err) {
			return err
		}
		s.warn("the token may not patch %s; it is read, changed and written instead", p)
	}
	return s.rewriteSecret(ctx, p, patch)
}

// rewriteSecret patches a secret by reading and writing it.
func (s *shell) rewriteSecret(ctx context.Context, p kvPath, patch kvWrite) error {
	answer, err := s.do(ctx, client.Request{Path: p.at("data"), WrapTTL: -1})
	if err != nil {
		return err
	}
	var now struct {
		Data     map[string]json.RawMessage `json:"data"`
		Metadata struct {
			Version int64 `json:"version"`
		} `json:"metadata"`
	}
	if err := answer.Decode(&now); err != nil {
		return err
	}
	if now.Data == nil {
		return &exit{exitRefused, fmt.Errorf("%s has no data to change", p)}
	}
	for name, value := range patch.Data {
		if string(value) == "null" {
			delete(now.Data, name)
		} else {
			now.Data[name] = value
		}
	}
	if patch.Data = now.Data; patch.Options.CAS == nil {
		patch.Options.CAS = &now.Metadata.Version
	}
	answer, err = s.do(ctx, client.Request{Method: "POST", Path: p.at("data"), Body: patch})
	if err != nil {
		return err
	}
	return s.written(answer, p, "data")
}
