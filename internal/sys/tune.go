package sys

import (
	"context"
	"maps"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// TuneAnswer is a mount's configuration with the server's lifetimes filled in.
type TuneAnswer struct {
	MountConfig
	route.Doubled
	LockoutInfo
	Description string            `json:"description"`
	Options     map[string]string `json:"options,omitempty"`
}

func (s *System) tuneAnswer(m *mount.Mounted) TuneAnswer {
	info := describe(m.Entry)
	def, max := s.Open().Tokens.Lifetimes()
	if info.Config.DefaultTTL == 0 {
		info.Config.DefaultTTL = int64(def.Seconds())
	}
	if info.Config.MaxTTL == 0 {
		info.Config.MaxTTL = int64(max.Seconds())
	}
	out := TuneAnswer{MountConfig: info.Config, Description: info.Description, Options: info.Options}
	if lock := info.Config.UserLock; lock != nil {
		out.LockoutInfo, out.UserLock = *lock, nil // here they stand among the others
	}
	return out
}

func (s *System) readTune(_ context.Context, _ route.Caller, in MountPath) (TuneAnswer, error) {
	m, err := s.at(in.Path)
	if err != nil {
		return TuneAnswer{}, err
	}
	return s.tuneAnswer(m), nil
}

func (s *System) readAuthTune(ctx context.Context, by route.Caller, in MountPath) (TuneAnswer, error) {
	return s.readTune(ctx, by, MountPath{"auth/" + in.Path})
}

// Tune changes what is given and leaves the rest.
type Tune struct {
	Path        string         `path:"path" doc:"The mount's path."`
	DefaultTTL  wire.Lifetime  `json:"default_lease_ttl" doc:"Lifetime of what the mount hands out; system is the server's."`
	MaxTTL      wire.Lifetime  `json:"max_lease_ttl" doc:"Longest lifetime; system is the server's."`
	Description *string        `json:"description" doc:"For people."`
	Options     wire.StringMap `json:"options" doc:"Options of the kind; version=2 upgrades a kv mount, an empty value removes an option."`
	Visibility  *string        `json:"listing_visibility" doc:"hidden or unauth."`
	TokenType   *string        `json:"token_type" doc:"Type of the tokens an auth mount grants: default-service, default-batch, service or batch."`
	UserLock    *UserLockout   `json:"user_lockout_config" doc:"When failed logins lock a user; of userpass and ldap."`
	AuditKeys   *wire.Strings  `json:"audit_non_hmac_request_keys" doc:"Accepted for Vault's clients; values are never in the audit log."`
	AnswerKeys  *wire.Strings  `json:"audit_non_hmac_response_keys" doc:"Accepted for Vault's clients; values are never in the audit log."`
	PassHeaders *wire.Strings  `json:"passthrough_request_headers" doc:"Accepted for Vault's clients; engines are shown no headers."`
	Headers     *wire.Strings  `json:"allowed_response_headers" doc:"Accepted for Vault's clients; engines set no headers."`
	NoCache     *wire.Bool     `json:"force_no_cache" doc:"Accepted for Vault's clients; caches here are never stale."`
	PluginVer   string         `json:"plugin_version" doc:"Accepted for Vault's clients; kinds are built in."`
	Keys        wire.Strings   `json:"allowed_managed_keys" doc:"Accepted for Vault's clients."`
	Delegated   wire.Strings   `json:"delegated_auth_accessors" doc:"Accepted for Vault's clients."`
	Identity    string         `json:"identity_token_key" doc:"Accepted for Vault's clients."`
	TrimSlashes wire.Bool      `json:"trim_request_trailing_slashes" doc:"Accepted for Vault's clients."`
	Pinned      wire.Bool      `json:"override_pinned_version" doc:"Accepted for Vault's clients; kinds are built in."`
}

// check refuses what a mount of the class cannot be told.
func (in *Tune) check(e *mount.Entry) error {
	switch {
	case e.Type == "system" || e.Type == "cubbyhole":
		return fault.New(fault.Invalid, "cannot tune %s", e.Path)
	case in.TokenType == nil:
		return nil
	case e.Class == engine.Secret:
		return fault.New(fault.Invalid, "'token_type' can only be modified on auth mounts")
	case e.Type == "token":
		return fault.New(fault.Invalid, "'token_type' cannot be set for 'token' auth mounts")
	}
	return nil
}

// into changes a mount's row. It may run more than once on fresh rows.
func (in *Tune) into(e *mount.Entry) error {
	if err := in.check(e); err != nil {
		return err
	}
	options := maps.Clone(e.Options)
	for name, value := range in.Options {
		switch {
		case value == "" && name != "version":
			delete(options, name)
		case options == nil:
			options = map[string]string{name: value}
		default:
			options[name] = value
		}
	}
	options, err := in.UserLock.into(e.Type, options)
	if err != nil {
		return err
	}
	e.Options = options
	in.DefaultTTL.Into(&e.Config.DefaultTTL)
	in.MaxTTL.Into(&e.Config.MaxTTL)
	given(&e.Description, in.Description)
	given(&e.Config.ListingVisibility, in.Visibility)
	given(&e.Config.TokenType, in.TokenType)
	given(&e.Config.AuditKeys, in.AuditKeys)
	given(&e.Config.AuditAnswerKeys, in.AnswerKeys)
	given(&e.Config.PassHeaders, in.PassHeaders)
	given(&e.Config.AnswerHeaders, in.Headers)
	given((*wire.Bool)(&e.Config.ForceNoCache), in.NoCache)
	return nil
}

func given[T any](dst, value *T) {
	if value != nil {
		*dst = *value
	}
}

func (s *System) tune(ctx context.Context, _ route.Caller, in Tune) (route.Empty, error) {
	if _, err := s.at(in.Path); err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, s.Open().Mounts.Tune(ctx, in.Path, in.into)
}

func (s *System) tuneAuth(ctx context.Context, by route.Caller, in Tune) (route.Empty, error) {
	in.Path = "auth/" + in.Path
	return s.tune(ctx, by, in)
}
