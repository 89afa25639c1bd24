package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// VersionState is what a secret's metadata tells of one version.
type VersionState struct {
	Created    Time `json:"created_time"`
	Deletion   Time `json:"deletion_time"`
	Destroyed  bool `json:"destroyed"`
	Deprecated bool `json:"deprecated"`
}

// Metadata is what is known of a secret besides its data.
type Metadata struct {
	Versions        map[uint64]VersionState `json:"versions"`
	Current         uint64                  `json:"current_version"` // the newest that was ever active
	Newest          uint64                  `json:"newest_version"`  // staged ones included
	Oldest          uint64                  `json:"oldest_version"`  // 0 until one was removed
	Created         Time                    `json:"created_time"`
	Updated         Time                    `json:"updated_time"`
	MaxVersions     int                     `json:"max_versions"` // 0 is the mount's number
	CASRequired     bool                    `json:"cas_required"`
	DeleteAfter     Seconds                 `json:"delete_version_after"`
	DestroyAfter    Seconds                 `json:"destroy_deleted_after"`
	Custom          map[string]string       `json:"custom_metadata"`
	Labels          map[string]uint64       `json:"labels"`
	Owner           string                  `json:"owner"`
	Description     string                  `json:"description"`
	Kind            string                  `json:"kind"`
	Tags            map[string]string       `json:"tags"`
	Expires         Time                    `json:"expires_at"`
	Expiry          string                  `json:"expiry"` // warn or enforce
	Validators      *Validators             `json:"validators"`
	CreatedBy       string                  `json:"created_by"`
	UpdatedBy       string                  `json:"updated_by"`
	LastRead        Time                    `json:"last_read_time"`
	LastReadBy      string                  `json:"last_read_by"`
	DeprecatedReads uint64                  `json:"deprecated_reads"` // how often deprecated versions were read
}

// Validators are rules that data must keep before it is stored.
type Validators struct {
	RequiredKeys []string          `json:"required_keys,omitzero"` // members that must be there and not be null or empty
	JSONSchema   any               `json:"json_schema,omitzero"`
	PEM          []string          `json:"pem,omitzero"`   // members that must hold PEM blocks
	X509         []string          `json:"x509,omitzero"`  // members that must hold certificates
	Regex        map[string]string `json:"regex,omitzero"` // members that must match
	MaxBytes     int               `json:"max_bytes,omitzero"`
}

// MetadataChange changes a secret's metadata. What is nil stays as it is.
type MetadataChange struct {
	MaxVersions  *int     `json:"max_versions,omitzero"`
	CASRequired  *bool    `json:"cas_required,omitzero"`
	DeleteAfter  *Seconds `json:"delete_version_after,omitzero"`
	DestroyAfter *Seconds `json:"destroy_deleted_after,omitzero"`
	Owner        *string  `json:"owner,omitzero"`
	Description  *string  `json:"description,omitzero"`
	Kind         *string  `json:"kind,omitzero"`
	Expires      *Time    `json:"expires_at,omitzero"`
	Expiry       *string  `json:"expiry,omitzero"` // warn or enforce
	// Custom and Tags replace those there are in SetMetadata, and are merged
	// into them in PatchMetadata, where nil removes a name.
	Custom     map[string]*string `json:"custom_metadata,omitzero"`
	Tags       map[string]*string `json:"tags,omitzero"`
	Validators *Validators        `json:"validators,omitzero"`
}

// Metadata returns what is known of a secret.
func (k KV) Metadata(ctx context.Context, path string) (*Metadata, error) {
	out := new(Metadata)
	if _, err := k.client.ask(ctx, get(k.at("metadata", path)), out); err != nil {
		return nil, err
	}
	return out, nil
}

// SetMetadata sets a secret's metadata, and makes a secret without versions
// where there is none.
func (k KV) SetMetadata(ctx context.Context, path string, change MetadataChange) error {
	_, err := k.client.ask(ctx, post(k.at("metadata", path), change), nil)
	return err
}

// PatchMetadata changes the metadata of a secret that there is.
func (k KV) PatchMetadata(ctx context.Context, path string, change MetadataChange) error {
	_, err := k.client.ask(ctx, Request{Method: http.MethodPatch, Path: k.at("metadata", path), Body: change}, nil)
	return err
}

// DeleteMetadata deletes a secret with all its versions for good.
func (k KV) DeleteMetadata(ctx context.Context, path string) error {
	_, err := k.client.ask(ctx, remove(k.at("metadata", path)), nil)
	return err
}

// Labels is where the labels of a secret point.
type Labels struct {
	Labels     map[string]uint64 `json:"labels"`     // a version's number by the label's name
	Deprecated []uint64          `json:"deprecated"` // versions that are marked deprecated
}

// Move says which version to make active. The zero value is the one that
// Pending (Promote) or Previous (Rollback) points at.
type Move struct {
	Version uint64 `json:"version,omitzero"`
	Label   string `json:"label,omitzero"` // instead of Version: the label that points at it
	CAS     *CAS   `json:"cas,omitzero"`   // the version that must be active now
}

// Promote makes a version active, and the one that was active the previous.
func (k KV) Promote(ctx context.Context, path string, to Move) (*Labels, error) {
	return k.labels(ctx, post(k.at("promote", path), to))
}

// Rollback makes an earlier version active again.
func (k KV) Rollback(ctx context.Context, path string, to Move) (*Labels, error) {
	return k.labels(ctx, post(k.at("rollback", path), to))
}

// Labels returns where a secret's labels point.
func (k KV) Labels(ctx context.Context, path string) (*Labels, error) {
	return k.labels(ctx, get(k.at("labels", path)))
}

type label struct {
	Label   string `json:"label"`
	Version uint64 `json:"version"`
	CAS     *CAS   `json:"cas,omitzero"`
}

// SetLabel points a label at a version, or marks the version Deprecated. With a
// condition it does so only when the label points at that version now, 0 for
// none.
func (k KV) SetLabel(ctx context.Context, path, name string, version uint64, only ...CAS) (*Labels, error) {
	return k.labels(ctx, post(k.at("labels", path), label{name, version, condition(only).CAS}))
}

// RemoveLabel removes a label; the version that it points at stays. For
// Deprecated the version must be named, else it is 0.
func (k KV) RemoveLabel(ctx context.Context, path, name string, version uint64) (*Labels, error) {
	r := remove(k.at("labels", path))
	r.Query = url.Values{"label": {name}}
	if version != 0 {
		r.Query.Set("version", strconv.FormatUint(version, 10))
	}
	return k.labels(ctx, r)
}

func (k KV) labels(ctx context.Context, r Request) (*Labels, error) {
	out := new(Labels)
	if _, err := k.client.ask(ctx, r, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Query says what to search for. What is empty matches everything.
type Query struct {
	Folder string   // where, with everything below it; "" is the whole mount
	Text   string   // part of the path; with * or ? a pattern for all of it
	Owner  string   // the owner
	Kind   string   // the kind
	Tags   []string // that must all be there: name, or name=value
}

// Found is a secret that was found. Of secrets whose metadata the caller may
// not read only Path is told.
type Found struct {
	Path    string            `json:"-"`
	Owner   string            `json:"owner"`
	Kind    string            `json:"kind"`
	Tags    map[string]string `json:"tags"`
	Current uint64            `json:"current_version"`
	Updated Time              `json:"updated_time"`
}

// Search returns the secrets that match and that the caller may see, in order
// of their paths. It asks for them page by page while they are consumed.
func (k KV) Search(ctx context.Context, q Query) iter.Seq2[Found, error] {
	return func(yield func(Found, error) bool) {
		r := get(strings.TrimSuffix(k.at("search", q.Folder), "/") + "/")
		r.Query = q.values()
		for {
			var page struct {
				Keys   []string         `json:"keys"`
				Info   map[string]Found `json:"key_info"`
				Cursor string           `json:"cursor"`
			}
			if _, err := k.client.ask(ctx, r, &page); err != nil {
				yield(Found{}, err)
				return
			}
			for _, path := range page.Keys {
				found := page.Info[path]
				found.Path = path
				if !yield(found, nil) {
					return
				}
			}
			if page.Cursor == "" || page.Cursor == r.Query.Get("after") {
				return
			}
			r.Query.Set("after", page.Cursor)
		}
	}
}

func (q Query) values() url.Values {
	out := url.Values{}
	for name, value := range map[string]string{"q": q.Text, "owner": q.Owner, "kind": q.Kind} {
		if value != "" {
			out.Set(name, value)
		}
	}
	if len(q.Tags) > 0 {
		out["tags"] = q.Tags
	}
	return out
}
