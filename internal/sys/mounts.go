package sys

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var mountRoutes = []route.Route[*System]{
	route.New("GET", "mounts", "List the secrets engines that are mounted.", (*System).mounts),
	route.New("GET", "mounts/{path...}", "Read one mount.", (*System).readMount),
	route.New("POST", "mounts/{path...}", "Mount a secrets engine.", (*System).enableMount,
		route.Shows("mounts/team", `{"type":"kv","options":{"version":"2"}}`, "")),
	route.New("DELETE", "mounts/{path...}", "Unmount a secrets engine and destroy its keys.", (*System).disableMount),
	route.New("GET", "mounts/{path...}/tune", "Read a mount's configuration.", (*System).readTune),
	route.New("POST", "mounts/{path...}/tune", "Change a mount's configuration.", (*System).tune),
	route.New("POST", "remount", "Move a mount to another path.", (*System).remount, route.Sudo()),
	route.New("GET", "remount/status/{id}", "Read the state of a move.", (*System).remountStatus),
	route.New("GET", "internal/ui/mounts", "List the mounts that the caller may use something of.", (*System).uiMounts),
	route.New("GET", "internal/ui/mounts/{path...}", "Find the mount that a path lies in.", (*System).uiMount),
	route.New("GET", "plugins/catalog", "List the kinds of engines and methods that can be mounted.", (*System).catalog),
	route.New("GET", "plugins/catalog/{class}/{name}", "Read about one kind.", (*System).catalogEntry),
}

var authRoutes = []route.Route[*System]{
	route.New("GET", "auth", "List the auth methods that are enabled.", (*System).auths),
	route.New("GET", "auth/{path...}", "Read one auth method's mount.", (*System).readAuth, route.Sudo()),
	route.New("POST", "auth/{path...}", "Enable an auth method.", (*System).enableAuth, route.Sudo(),
		route.Shows("auth/people", `{"type":"userpass"}`, "")),
	route.New("DELETE", "auth/{path...}", "Disable an auth method; its tokens end at once.", (*System).disableAuth, route.Sudo()),
	route.New("GET", "auth/{path...}/tune", "Read an auth method's configuration.", (*System).readAuthTune, route.Sudo()),
	route.New("POST", "auth/{path...}/tune", "Change an auth method's configuration.", (*System).tuneAuth, route.Sudo()),
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
	return MountInfo{
		Accessor: e.Accessor, Deprecation: "supported", Description: e.Description, Local: e.Local,
		Options: e.Options, SealWrap: e.SealWrap, Type: e.Type, UUID: e.UUID, RunningVersion: "v" + APILevel + "+builtin.coffer",
		Config: MountConfig{
			DefaultTTL: int64(c.DefaultTTL.Duration().Seconds()), MaxTTL: int64(c.MaxTTL.Duration().Seconds()),
			ForceNoCache: c.ForceNoCache, ListingVisibility: c.ListingVisibility, TokenType: c.TokenType,
			AuditKeys: c.AuditKeys, AuditAnswerKeys: c.AuditAnswerKeys, PassHeaders: c.PassHeaders, AnswerHeaders: c.AnswerHeaders,
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
	PluginName string         `json:"plugin_name"`
	PluginVer  string         `json:"plugin_version"`
	Options    wire.StringMap `json:"options"`
	UserLock   wire.Object    `json:"user_lockout_config"`
	Keys       wire.Strings   `json:"allowed_managed_keys"`
	Delegated  wire.Strings   `json:"delegated_auth_accessors"`
	Identity   string         `json:"identity_token_key"`
}

func (s *System) enable(ctx context.Context, in EnableMount, prefix string, class engine.Class) (route.Empty, error) {
	if in.Type == "plugin" || in.Type == "" {
		in.Type = in.PluginName
	}
	if in.Type == "" {
		return route.Empty{}, fault.New(fault.Invalid, "backend type must be specified as a string")
	}
	_, err := s.Open().Mounts.Enable(ctx, mount.Request{
		Path: prefix + strings.Trim(in.Path, "/"), Type: in.Type, Class: class, Description: in.Description,
		Options: in.Options, Config: in.Config.Config, Local: bool(in.Local), SealWrap: bool(in.SealWrap),
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
	if s.Open().Mounts.At(in.Path) == nil {
		return route.Empty{}, nil // Vault answers a repeated unmount like the first
	}
	return route.Empty{}, s.Open().Mounts.Disable(ctx, in.Path)
}

func (s *System) disableAuth(ctx context.Context, by route.Caller, in MountPath) (route.Empty, error) {
	in.Path = "auth/" + strings.Trim(in.Path, "/")
	return s.disableMount(ctx, by, in)
}

// TuneAnswer is a mount's configuration with the server's lifetimes filled in.
type TuneAnswer struct {
	MountConfig
	route.Doubled
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
	if m.Entry.Class == engine.Auth && info.Config.TokenType == "" {
		info.Config.TokenType = "default-service"
	}
	return TuneAnswer{MountConfig: info.Config, Description: info.Description, Options: info.Options}
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
	DefaultTTL  *wire.Seconds  `json:"default_lease_ttl" doc:"Lifetime of what the mount hands out; 0 is the server's."`
	MaxTTL      *wire.Seconds  `json:"max_lease_ttl" doc:"Longest lifetime; 0 is the server's."`
	Description *string        `json:"description" doc:"For people."`
	Options     wire.StringMap `json:"options" doc:"Options of the kind; version=2 upgrades a kv mount."`
	Visibility  *string        `json:"listing_visibility" doc:"hidden or unauth."`
	TokenType   *string        `json:"token_type" doc:"Type of the tokens an auth mount grants."`
	AuditKeys   *wire.Strings  `json:"audit_non_hmac_request_keys" doc:"Accepted for Vault's clients."`
	AnswerKeys  *wire.Strings  `json:"audit_non_hmac_response_keys" doc:"Accepted for Vault's clients."`
	PassHeaders *wire.Strings  `json:"passthrough_request_headers" doc:"Request headers that the engine is shown."`
	Headers     *wire.Strings  `json:"allowed_response_headers" doc:"Headers that the engine may set."`
}

func (s *System) tune(ctx context.Context, _ route.Caller, in Tune) (route.Empty, error) {
	if _, err := s.at(in.Path); err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, s.Open().Mounts.Tune(ctx, in.Path, func(e *mount.Entry) error {
		given(&e.Config.DefaultTTL, in.DefaultTTL)
		given(&e.Config.MaxTTL, in.MaxTTL)
		given(&e.Description, in.Description)
		given(&e.Config.ListingVisibility, in.Visibility)
		given(&e.Config.TokenType, in.TokenType)
		given(&e.Config.AuditKeys, in.AuditKeys)
		given(&e.Config.AuditAnswerKeys, in.AnswerKeys)
		given(&e.Config.PassHeaders, in.PassHeaders)
		given(&e.Config.AnswerHeaders, in.Headers)
		if in.Options != nil {
			e.Options = maps.Clone(e.Options)
			if e.Options == nil {
				e.Options = map[string]string{}
			}
			maps.Copy(e.Options, in.Options)
		}
		return nil
	})
}

func given[T any](dst, value *T) {
	if value != nil {
		*dst = *value
	}
}

func (s *System) tuneAuth(ctx context.Context, by route.Caller, in Tune) (route.Empty, error) {
	in.Path = "auth/" + in.Path
	return s.tune(ctx, by, in)
}

// Remount moves a mount.
type Remount struct {
	From string `json:"from" doc:"The mount's path now."`
	To   string `json:"to" doc:"The path it shall have."`
}

// Migration names a move, as Vault's clients poll it.
type Migration struct {
	ID string `json:"migration_id"`
}

func (s *System) remount(ctx context.Context, _ route.Caller, in Remount) (Migration, error) {
	if s.Open().Mounts.At(in.From) == nil {
		return Migration{}, fault.New(fault.Invalid, "no matching mount at %q", in.From)
	}
	id := s.Open().Mounts.At(in.From).Entry.UUID
	return Migration{id}, s.Open().Mounts.Move(ctx, in.From, in.To)
}

// MigrationID names a move.
type MigrationID struct {
	ID string `path:"id" doc:"The migration_id that the move was answered with."`
}

// MigrationStatus is how a move stands. Moves are one transaction, so that one
// that is known has succeeded.
type MigrationStatus struct {
	ID   string        `json:"migration_id"`
	Info MigrationInfo `json:"migration_info"`
}

// MigrationInfo is the state of a move.
type MigrationInfo struct {
	Target string `json:"target_mount"`
	Status string `json:"status"`
}

func (s *System) remountStatus(_ context.Context, _ route.Caller, in MigrationID) (MigrationStatus, error) {
	for _, m := range s.Open().Mounts.List() {
		if m.Entry.UUID == in.ID {
			return MigrationStatus{in.ID, MigrationInfo{m.Entry.Path, "success"}}, nil
		}
	}
	return MigrationStatus{}, fault.New(fault.NotFound, "no migration %s is known", in.ID)
}

// UIMounts are the mounts that a caller may use something of.
type UIMounts struct {
	Secret map[string]MountInfo `json:"secret"`
	Auth   map[string]MountInfo `json:"auth"`
}

func (s *System) uiMounts(ctx context.Context, by route.Caller, _ route.Nothing) (UIMounts, error) {
	out := UIMounts{Secret: map[string]MountInfo{}, Auth: map[string]MountInfo{}}
	open := s.Open()
	acl, err := open.Policies.ACL(ctx, by.Policies)
	if err != nil {
		return out, err
	}
	for _, m := range open.Mounts.List() {
		if !acl.IsRoot() && !acl.AnyBelow(m.Entry.Path) && m.Entry.Config.ListingVisibility != "unauth" {
			continue
		}
		if path, ok := strings.CutPrefix(m.Entry.Path, "auth/"); ok {
			out.Auth[path] = describe(m.Entry)
		} else {
			out.Secret[m.Entry.Path] = describe(m.Entry)
		}
	}
	return out, nil
}

// UIMount is the mount that a path lies in.
type UIMount struct {
	MountInfo
	Path string `json:"path"`
}

func (s *System) uiMount(ctx context.Context, by route.Caller, in MountPath) (UIMount, error) {
	open := s.Open()
	m, _ := open.Mounts.Find(in.Path)
	acl, err := open.Policies.ACL(ctx, by.Policies)
	if err != nil {
		return UIMount{}, err
	}
	if m == nil || !acl.IsRoot() && !acl.AnyBelow(m.Entry.Path) {
		// One answer for both, so that nobody learns of mounts he may not use.
		return UIMount{}, fault.New(fault.Denied, "preflight capability check returned 403, please ensure client's policies grant access to path %q", strings.TrimSuffix(in.Path, "/")+"/")
	}
	return UIMount{MountInfo: describe(m.Entry), Path: m.Entry.Path}, nil
}

// Catalog lists the kinds, in Vault's shape.
type Catalog struct {
	route.Doubled
	Auth     []string        `json:"auth"`
	Database []string        `json:"database"`
	Secret   []string        `json:"secret"`
	Detailed []CatalogDetail `json:"detailed"`
}

// CatalogDetail is one kind.
type CatalogDetail struct {
	Builtin     bool   `json:"builtin"`
	Deprecation string `json:"deprecation_status"`
	Name        string `json:"name"`
	Type        string `json:"type"`
	Version     string `json:"version"`
	Doc         string `json:"description"`
}

func (s *System) catalog(context.Context, route.Caller, route.Nothing) (Catalog, error) {
	out := Catalog{Auth: []string{}, Secret: []string{}, Database: []string{}}
	for _, k := range s.Kinds() {
		list := &out.Secret
		switch k.Class {
		case engine.Auth:
			list = &out.Auth
		case engine.System:
			continue
		}
		if slices.Contains(*list, k.Name) {
			continue
		}
		*list = append(*list, k.Name)
		out.Detailed = append(out.Detailed, CatalogDetail{true, "supported", k.Name, string(k.Class), "v" + APILevel + "+builtin.coffer", k.Doc})
	}
	return out, nil
}

// CatalogName names a kind.
type CatalogName struct {
	Class string `path:"class" doc:"auth or secret."`
	Name  string `path:"name" doc:"The kind."`
}

func (s *System) catalogEntry(_ context.Context, _ route.Caller, in CatalogName) (CatalogDetail, error) {
	for _, k := range s.Kinds() {
		if k.Name == in.Name && string(k.Class) == in.Class {
			return CatalogDetail{true, "supported", k.Name, string(k.Class), "v" + APILevel + "+builtin.coffer", k.Doc}, nil
		}
	}
	return CatalogDetail{}, route.Missing()
}
