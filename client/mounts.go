package client

import (
	"context"
	"strings"
)

// MountConfig is the part of a mount that can be tuned.
type MountConfig struct {
	DefaultTTL        Seconds `json:"default_lease_ttl,omitzero"`
	MaxTTL            Seconds `json:"max_lease_ttl,omitzero"`
	ListingVisibility string  `json:"listing_visibility,omitzero"` // hidden or unauth
	TokenType         string  `json:"token_type,omitzero"`         // of the tokens that an auth method grants
}

// Mount is a secrets engine or auth method at a path.
type Mount struct {
	Type        string            `json:"type"` // for example kv or userpass
	Description string            `json:"description,omitzero"`
	Options     map[string]string `json:"options,omitzero"` // for kv: version
	Config      MountConfig       `json:"config,omitzero"`

	// What follows is told by the server and not sent to it.
	Accessor string `json:"accessor,omitzero"`
	UUID     string `json:"uuid,omitzero"`
}

// Mounts returns the secrets engines by their paths, which end in a slash.
func (s Sys) Mounts(ctx context.Context) (map[string]Mount, error) {
	return s.mounts(ctx, "sys/mounts")
}

// Mount mounts a secrets engine.
func (s Sys) Mount(ctx context.Context, path string, m Mount) error {
	return s.enable(ctx, "sys/mounts/", path, m)
}

// Unmount removes a secrets engine and destroys its keys, and so its data.
func (s Sys) Unmount(ctx context.Context, path string) error {
	return s.do(ctx, remove("sys/mounts/"+strings.Trim(path, "/")))
}

// Tune changes a secrets engine's configuration; what is zero stays as it is.
func (s Sys) Tune(ctx context.Context, path string, c MountConfig) error {
	return s.do(ctx, post("sys/mounts/"+strings.Trim(path, "/")+"/tune", c))
}

// Auths returns the auth methods by their paths below auth/, which end in a
// slash.
func (s Sys) Auths(ctx context.Context) (map[string]Mount, error) { return s.mounts(ctx, "sys/auth") }

// EnableAuth enables an auth method at a path below auth/.
func (s Sys) EnableAuth(ctx context.Context, path string, m Mount) error {
	return s.enable(ctx, "sys/auth/", path, m)
}

// DisableAuth disables an auth method; its tokens end at once.
func (s Sys) DisableAuth(ctx context.Context, path string) error {
	return s.do(ctx, remove("sys/auth/"+strings.Trim(path, "/")))
}

func (s Sys) mounts(ctx context.Context, path string) (map[string]Mount, error) {
	var out map[string]Mount
	return out, s.read(ctx, get(path), &out)
}

func (s Sys) enable(ctx context.Context, table, path string, m Mount) error {
	m.Accessor, m.UUID = "", ""
	return s.do(ctx, post(table+strings.Trim(path, "/"), m))
}
