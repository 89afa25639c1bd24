package sys

import (
	"cmp"
	"context"
	"strings"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var mountRoutes = []route.Route[*System]{
	route.New("GET", "mounts", "List the secrets engines that are mounted.", (*System).mounts,
		route.Shows("mounts", "", "")),
	route.New("GET", "mounts/{path...}", "Read one mount.", (*System).readMount,
		route.Shows("mounts/team", "", "")),
	route.New("POST", "mounts/{path...}", "Mount a secrets engine.", (*System).enableMount,
		route.Shows("mounts/team", `{"type":"kv","options":{"version":"2"}}`, "")),
	route.New("DELETE", "mounts/{path...}", "Unmount a secrets engine and destroy its keys.", (*System).disableMount,
		route.Shows("mounts/team", "", "")),
	route.New("GET", "mounts/{path...}/tune", "Read a mount's configuration.", (*System).readTune,
		route.Shows("mounts/team/tune", "", "")),
	route.New("POST", "mounts/{path...}/tune", "Change a mount's configuration.", (*System).tune,
		route.Shows("mounts/team/tune", `{"max_lease_ttl":"720h","description":"secrets of the team"}`, "")),
	route.New("POST", "remount", "Move a mount to another path.", (*System).remount, route.Sudo(),
		route.Shows("remount", `{"from":"team","to":"crew"}`, `{"migration_id":"6f3cbf3f-1b09-4e6c-9f0c-6c2b3f0e7a11.dGVhbS8"}`)),
	route.New("GET", "remount/status/{id}", "Read the state of a move.", (*System).remountStatus,
		route.Shows("remount/status/6f3cbf3f-1b09-4e6c-9f0c-6c2b3f0e7a11.dGVhbS8", "", `{"migration_id":"6f3cbf3f-1b09-4e6c-9f0c-6c2b3f0e7a11.dGVhbS8","migration_info":{"source_mount":"team/","target_mount":"crew/","status":"success"}}`)),
	route.New("GET", "internal/ui/mounts", "List the mounts that the caller may use something of; without a token those that everybody is shown.", (*System).uiMounts, route.AnyTokenOrNone()),
	route.New("GET", "internal/ui/mounts/{path...}", "Find the mount that a path lies in.", (*System).uiMount, route.AnyToken(),
		route.Shows("internal/ui/mounts/team/app/db", "", "")),
}

var authRoutes = []route.Route[*System]{
	route.New("GET", "auth", "List the auth methods that are enabled.", (*System).auths),
	route.New("GET", "auth/{path...}", "Read one auth method's mount.", (*System).readAuth, route.Sudo(),
		route.Shows("auth/people", "", "")),
	route.New("POST", "auth/{path...}", "Enable an auth method.", (*System).enableAuth, route.Sudo(),
		route.Shows("auth/people", `{"type":"userpass"}`, "")),
	route.New("DELETE", "auth/{path...}", "Disable an auth method; its tokens end at once.", (*System).disableAuth, route.Sudo(),
		route.Shows("auth/people", "", "")),
	route.New("GET", "auth/{path...}/tune", "Read an auth method's configuration.", (*System).readAuthTune, route.Sudo(),
		route.Shows("auth/people/tune", "", "")),
	route.New("POST", "auth/{path...}/tune", "Change an auth method's configuration.", (*System).tuneAuth, route.Sudo(),
		route.Shows("auth/people/tune", `{"default_lease_ttl":"8h","user_lockout_config":{"lockout_threshold":"10","lockout_duration":"10m"}}`, "")),
}

// MountPath names a mount.
type MountPath struct {
	Path string `path:"path" doc:"The mount's path."`
}

// MountConfig is a mount's configuration in Vault's shape.
type MountConfig struct {
	DefaultTTL        int64        `json:"default_lease_ttl"`
	MaxTTL            int64        `json:"max_lease_ttl"`
	ForceNoCache      bool         `json:"force_no_cache"`
	ListingVisibility string       `json:"listing_visibility,omitempty"`
	TokenType         string       `json:"token_type,omitempty"`
	AuditKeys         wire.Strings `json:"audit_non_hmac_request_keys,omitempty"`
	AuditAnswerKeys   wire.Strings `json:"audit_non_hmac_response_keys,omitempty"`
	PassHeaders       wire.Strings `json:"passthrough_request_headers,omitempty"`
	AnswerHeaders     wire.Strings `json:"allowed_response_headers,omitempty"`
	UserLock          *LockoutInfo `json:"user_lockout_config,omitempty"`
}

// MountInfo is one mount in Vault's shape.
type MountInfo struct {
	Accessor        string            `json:"accessor"`
	Config          MountConfig       `json:"config"`
	Deprecation     string            `json:"deprecation_status"`
	Description     string            `json:"description"`
	ExternalEntropy bool              `json:"external_entropy_access"`
	Local           bool              `json:"local"`
	Options         map[string]string `json:"options"`
	PluginVersion   string            `json:"plugin_version"`
	RunningSHA      string            `json:"running_sha256"`
	RunningVersion  string            `json:"running_plugin_version"`
	SealWrap        bool              `json:"seal_wrap"`
	Type            string            `json:"type"`
	UUID            string            `json:"uuid"`
}

// OneMount is a mount answered alone.
type OneMount struct {
	MountInfo
	route.Doubled
}

// MountMap is a list of mounts by path, without "auth/" in front of methods.
type MountMap struct {
	route.Doubled
	Mounts map[string]MountInfo `json:",embed"`
}

func describe(e *mount.Entry) MountInfo {
	c := e.Config
	if strings.HasPrefix(e.Path, "auth/") && c.TokenType == "" {
		c.TokenType = "default-service"
	}
	return MountInfo{
		Accessor: e.Accessor, Deprecation: "supported", Description: e.Description, Local: e.Local,
		Options: e.Options, SealWrap: e.SealWrap, Type: e.Type, UUID: e.UUID, RunningVersion: "v" + APILevel + "+builtin.coffer",
		Config: MountConfig{
			DefaultTTL: int64(c.DefaultTTL.Duration().Seconds()), MaxTTL: int64(c.MaxTTL.Duration().Seconds()),
			ForceNoCache: c.ForceNoCache, ListingVisibility: c.ListingVisibility, TokenType: c.TokenType,
			AuditKeys: c.AuditKeys, AuditAnswerKeys: c.AuditAnswerKeys, PassHeaders: c.PassHeaders, AnswerHeaders: c.AnswerHeaders,
			UserLock: lockoutInfo(e),
		},
	}
}

func (s *System) mountMap(auth bool) MountMap {
	out := MountMap{Mounts: map[string]MountInfo{}}
	for _, m := range s.Open().Mounts.List() {
		if path, isAuth := strings.CutPrefix(m.Entry.Path, "auth/"); isAuth == auth {
			out.Mounts[path] = describe(m.Entry)
		}
	}
	return out
}

func (s *System) mounts(context.Context, route.Caller, route.Nothing) (MountMap, error) {
	return s.mountMap(false), nil
}

func (s *System) auths(context.Context, route.Caller, route.Nothing) (MountMap, error) {
	return s.mountMap(true), nil
}

func (s *System) at(path string) (*mount.Mounted, error) {
	if m := s.Open().Mounts.At(path); m != nil {
		return m, nil
	}
	return nil, fault.New(fault.Invalid, "No secret engine mount at %s/", strings.Trim(path, "/"))
}

func (s *System) readMount(_ context.Context, _ route.Caller, in MountPath) (OneMount, error) {
	m, err := s.at(in.Path)
	if err != nil {
		return OneMount{}, err
	}
	return OneMount{MountInfo: describe(m.Entry)}, nil
}

func (s *System) readAuth(_ context.Context, _ route.Caller, in MountPath) (OneMount, error) {
	m := s.Open().Mounts.At("auth/" + in.Path)
	if m == nil {
		return OneMount{}, fault.New(fault.Invalid, "No auth engine at %s/", strings.Trim(in.Path, "/"))
	}
	return OneMount{MountInfo: describe(m.Entry)}, nil
}

// EnableMount asks for a mount.
type EnableMount struct {
	Path        string         `path:"path" doc:"Where to mount it."`
	Type        string         `json:"type" doc:"The kind: kv (see sys/plugins/catalog for all)."`
	Description string         `json:"description" doc:"For people."`
	Options     wire.StringMap `json:"options" doc:"Options of the kind, such as version=2."`
	Config      EnableConfig   `json:"config" doc:"Lifetimes and visibility."`
	Local       wire.Bool      `json:"local" doc:"Accepted for Vault's clients."`
	SealWrap    wire.Bool      `json:"seal_wrap" doc:"Accepted for Vault's clients: every value is encrypted under the mount's own keys."`
	Entropy     wire.Bool      `json:"external_entropy_access" doc:"Accepted for Vault's clients."`
	PluginName  string         `json:"plugin_name" doc:"Another spelling of type, where type is plugin."`
	PluginVer   string         `json:"plugin_version" doc:"Accepted for Vault's clients; kinds are built in."`
}

// EnableConfig is the configuration given with a new mount.
type EnableConfig struct {
	mount.Config
	DefaultTTL wire.Lifetime  `json:"default_lease_ttl" doc:"Lifetime of what the mount hands out; the server's unless given."`
	MaxTTL     wire.Lifetime  `json:"max_lease_ttl" doc:"Longest lifetime; the server's unless given."`
	UserLock   *UserLockout   `json:"user_lockout_config" doc:"When failed logins lock a user."`
	PluginName string         `json:"plugin_name" doc:"Another spelling of type, where type is plugin."`
	PluginVer  string         `json:"plugin_version" doc:"Accepted for Vault's clients; kinds are built in."`
	Options    wire.StringMap `json:"options" doc:"Accepted for Vault's clients."`
	Keys       wire.Strings   `json:"allowed_managed_keys" doc:"Accepted for Vault's clients."`
	Delegated  wire.Strings   `json:"delegated_auth_accessors" doc:"Accepted for Vault's clients."`
	Identity   string         `json:"identity_token_key" doc:"Accepted for Vault's clients."`
}

func (s *System) enable(ctx context.Context, in EnableMount, prefix string, class engine.Class) (route.Empty, error) {
	if in.Type == "plugin" || in.Type == "" {
		in.Type = cmp.Or(in.Config.PluginName, in.PluginName)
	}
	if in.Type == "" {
		return route.Empty{}, fault.New(fault.Invalid, "backend type must be specified as a string")
	}
	options, err := in.Config.UserLock.into(in.Type, in.Options)
	if err != nil {
		return route.Empty{}, err
	}
	config := in.Config.Config
	in.Config.DefaultTTL.Into(&config.DefaultTTL)
	in.Config.MaxTTL.Into(&config.MaxTTL)
	_, err = s.Open().Mounts.Enable(ctx, mount.Request{
		Path: prefix + strings.Trim(in.Path, "/"), Type: in.Type, Class: class, Description: in.Description,
		Options: options, Config: config, Local: bool(in.Local), SealWrap: bool(in.SealWrap),
	})
	return route.Empty{}, err
}

func (s *System) enableMount(ctx context.Context, _ route.Caller, in EnableMount) (route.Empty, error) {
	return s.enable(ctx, in, "", engine.Secret)
}

func (s *System) enableAuth(ctx context.Context, _ route.Caller, in EnableMount) (route.Empty, error) {
	return s.enable(ctx, in, "auth/", engine.Auth)
}

func (s *System) disableMount(ctx context.Context, _ route.Caller, in MountPath) (route.Empty, error) {
	if m := s.Open().Mounts.At(in.Path); m != nil && m.Entry.Class == engine.Auth {
		// Not this way: sys/auth asks for sudo.
		return route.Empty{}, fault.New(fault.Invalid, "%s is an auth method; disable it at sys/%s", m.Entry.Path, strings.TrimSuffix(m.Entry.Path, "/"))
	}
	return s.disable(ctx, in.Path)
}

func (s *System) disableAuth(ctx context.Context, _ route.Caller, in MountPath) (route.Empty, error) {
	return s.disable(ctx, "auth/"+strings.Trim(in.Path, "/"))
}

func (s *System) disable(ctx context.Context, path string) (route.Empty, error) {
	if s.Open().Mounts.At(path) == nil {
		return route.Empty{}, nil // Vault answers a repeated unmount like the first
	}
	open := s.Open()
	mount := open.Mounts.At(path).Entry.Path
	if err := open.Mounts.Disable(ctx, path); err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, open.Quotas.Follow(ctx, open.Namespace.Path, mount, "")
}
