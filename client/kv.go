package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// The labels that every secret has or may have, besides those of its users.
const (
	Active     = "active"     // the version that is read
	Pending    = "pending"    // the one that Promote makes active
	Previous   = "previous"   // the one that Rollback makes active
	Deprecated = "deprecated" // a mark on any number of versions, whose reads warn
)

// KV is a mount of versioned secrets (kv version 2).
type KV struct {
	client *Client
	mount  string
}

// KV returns the mount at a path; "" is secret.
func (c *Client) KV(mount string) KV { return KV{c, mountPath(mount, "secret")} }

func (k KV) at(verb, path string) string {
	return k.mount + "/" + verb + "/" + strings.TrimPrefix(path, "/")
}

// CAS makes a write conditional: it is refused, see IsConflict, unless the
// secret's version is this one; 0 means that there must be none yet.
type CAS uint64

// VersionInfo is what is told of a version besides its data.
type VersionInfo struct {
	Number    uint64            `json:"version"`
	Created   Time              `json:"created_time"`
	Deletion  Time              `json:"deletion_time"` // from when on it answers as deleted; zero for never
	Destroyed bool              `json:"destroyed"`
	Custom    map[string]string `json:"custom_metadata"`
	Labels    []string          `json:"labels"` // that point at it
	Warnings  []string          `json:"-"`      // of the server, for a person to read
}

// Version is a version of a secret.
type Version struct {
	VersionInfo
	Data Raw // a JSON object
}

// Decode reads the secret into a struct or map; see Raw.Decode.
func (v *Version) Decode(into any) error { return v.Data.Decode(into) }

// Text returns a member of the secret that is a string.
func (v *Version) Text(member string) (Secret, error) {
	var all map[string]Raw
	if err := v.Decode(&all); err != nil {
		return "", err
	}
	text, ok := all[member]
	if !ok {
		return "", fmt.Errorf("the secret has no member %q", member)
	}
	var out Secret
	if text.Decode(&out) != nil {
		return "", fmt.Errorf("the secret's member %q is not a string", member)
	}
	return out, nil
}

// Get returns the active version of a secret. Errors: IsNotFound when there is
// none, or it is deleted or destroyed.
func (k KV) Get(ctx context.Context, path string) (*Version, error) { return k.get(ctx, path, nil) }

// GetVersion returns a version of a secret by its number.
func (k KV) GetVersion(ctx context.Context, path string, number uint64) (*Version, error) {
	return k.get(ctx, path, url.Values{"version": {strconv.FormatUint(number, 10)}})
}

// GetLabel returns the version of a secret that a label points at.
func (k KV) GetLabel(ctx context.Context, path, label string) (*Version, error) {
	return k.get(ctx, path, url.Values{"label": {label}})
}

func (k KV) get(ctx context.Context, path string, query url.Values) (*Version, error) {
	var out struct {
		Data     Raw         `json:"data"`
		Metadata VersionInfo `json:"metadata"`
	}
	r := get(k.at("data", path))
	r.Query = query
	answer, err := k.client.ask(ctx, r, &out)
	if err != nil {
		return nil, err
	}
	out.Metadata.Warnings = answer.Warnings
	return &Version{out.Metadata, out.Data}, nil
}

type writeOptions struct {
	CAS   *CAS   `json:"cas,omitzero"`
	Stage string `json:"stage,omitzero"`
}

type write struct {
	Data    any          `json:"data"`
	Options writeOptions `json:"options,omitzero"`
}

// Put adds a version and makes it active. data is marshalled to a JSON object.
func (k KV) Put(ctx context.Context, path string, data any, only ...CAS) (*VersionInfo, error) {
	return k.write(ctx, http.MethodPost, path, write{data, condition(only)})
}

// Stage adds a version under a label, Pending or one of the user's own, and
// leaves the active one as it is.
func (k KV) Stage(ctx context.Context, path, label string, data any, only ...CAS) (*VersionInfo, error) {
	options := condition(only)
	options.Stage = label
	return k.write(ctx, http.MethodPost, path, write{data, options})
}

// Patch adds a version that is the active one with a JSON merge patch (RFC
// 7396) applied: members that are null are removed.
func (k KV) Patch(ctx context.Context, path string, patch any, only ...CAS) (*VersionInfo, error) {
	return k.write(ctx, http.MethodPatch, path, write{patch, condition(only)})
}

// condition returns the options of a write; of several conditions the last
// counts.
func condition(only []CAS) (out writeOptions) {
	if len(only) > 0 {
		out.CAS = &only[len(only)-1]
	}
	return out
}

func (k KV) write(ctx context.Context, method, path string, body write) (*VersionInfo, error) {
	var out VersionInfo
	answer, err := k.client.ask(ctx, Request{Method: method, Path: k.at("data", path), Body: body}, &out)
	if err != nil {
		return nil, err
	}
	out.Warnings = answer.Warnings
	return &out, nil
}

type versions struct {
	Versions []uint64 `json:"versions"`
}

// Delete deletes versions, the active one when none is named. They can be
// undeleted.
func (k KV) Delete(ctx context.Context, path string, numbers ...uint64) error {
	r := remove(k.at("data", path))
	if len(numbers) > 0 {
		r = post(k.at("delete", path), versions{numbers})
	}
	_, err := k.client.ask(ctx, r, nil)
	return err
}

// Undelete makes deleted versions readable again.
func (k KV) Undelete(ctx context.Context, path string, numbers ...uint64) error {
	_, err := k.client.ask(ctx, post(k.at("undelete", path), versions{numbers}), nil)
	return err
}

// Destroy destroys the data of versions for good.
func (k KV) Destroy(ctx context.Context, path string, numbers ...uint64) error {
	_, err := k.client.ask(ctx, post(k.at("destroy", path), versions{numbers}), nil)
	return err
}

// pageSize is how many names a page of a list asks for.
const pageSize = 1000

// List returns the names in a folder, in order; a name with more below it ends
// in a slash. It asks for them page by page while they are consumed. A folder
// that does not exist has no names.
func (k KV) List(ctx context.Context, folder string) iter.Seq2[string, error] {
	return k.list(ctx, folder, pageSize)
}

func (k KV) list(ctx context.Context, folder string, size int) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		path := strings.TrimSuffix(k.at("metadata", folder), "/") + "/"
		for after := ""; ; {
			r := Request{Path: path, Query: url.Values{"limit": {strconv.Itoa(size)}}}
			if after != "" {
				r.Query.Set("after", after)
			}
			names, err := k.client.names(ctx, r)
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
			if len(names) != size {
				return
			}
			after = names[len(names)-1]
		}
	}
}
