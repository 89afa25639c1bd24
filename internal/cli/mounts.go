package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cofferhq/coffer/client"
)

// mountKind is what secrets engines and auth methods have in common on the
// command line, and where they differ.
type mountKind struct {
	table string // of the server: sys/mounts or sys/auth
	noun  string // what one is called
	below string // in front of its paths
}

var (
	engines = mountKind{table: "sys/mounts", noun: "secrets engine"}
	methods = mountKind{table: "sys/auth", noun: "auth method", below: "auth/"}
)

// name returns a mount's path as its table has it.
func (k *mountKind) name(path string) string {
	return strings.TrimPrefix(strings.Trim(path, "/"), k.below)
}

// mountFlags are the flags that say how a mount is to be.
type mountFlags struct {
	path, description, defaultTTL, maxTTL string
	visibility, tokenType, version        string
	pluginName, pluginVersion             string
	options                               pairs
	auditKeys, answerKeys                 []string
	passHeaders, answerHeaders            []string
	noCache, local, sealWrap, entropy     bool
	lockThreshold, lockDuration           string
	lockReset                             string
	lockDisable                           bool
}

// mountConfig is a mount's configuration as it is sent; what is nil stays as it
// is, or is the server's.
type mountConfig struct {
	DefaultTTL    *string      `json:"default_lease_ttl,omitempty"`
	MaxTTL        *string      `json:"max_lease_ttl,omitempty"`
	Visibility    *string      `json:"listing_visibility,omitempty"`
	TokenType     *string      `json:"token_type,omitempty"`
	AuditKeys     []string     `json:"audit_non_hmac_request_keys,omitempty"`
	AnswerKeys    []string     `json:"audit_non_hmac_response_keys,omitempty"`
	PassHeaders   []string     `json:"passthrough_request_headers,omitempty"`
	AnswerHeaders []string     `json:"allowed_response_headers,omitempty"`
	NoCache       *bool        `json:"force_no_cache,omitempty"`
	PluginVersion *string      `json:"plugin_version,omitempty"`
	Lockout       *lockoutBody `json:"user_lockout_config,omitempty"`
}

// lockoutBody says when failed logins lock a user.
type lockoutBody struct {
	Threshold *string `json:"lockout_threshold,omitempty"`
	Duration  *string `json:"lockout_duration,omitempty"`
	Reset     *string `json:"lockout_counter_reset_duration,omitempty"`
	Disable   *bool   `json:"lockout_disable,omitempty"`
}

// enableBody asks for a mount.
type enableBody struct {
	Type        string            `json:"type"`
	Description string            `json:"description,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
	Local       bool              `json:"local,omitempty"`
	SealWrap    bool              `json:"seal_wrap,omitempty"`
	Entropy     bool              `json:"external_entropy_access,omitempty"`
	PluginName  string            `json:"plugin_name,omitempty"`
	Config      mountConfig       `json:"config,omitzero"`
}

// tuneBody changes a mount.
type tuneBody struct {
	mountConfig
	Description *string           `json:"description,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
}

// add adds the flags that enable and tune share.
func (f *mountFlags) add(cmd *cobra.Command, kind *mountKind) {
	flags := cmd.Flags()
	flags.StringVar(&f.description, "description", "", "what it is for")
	flags.StringVar(&f.defaultTTL, "default-lease-ttl", "", "lifetime of what it hands out, for example 8h; the server's without this")
	flags.StringVar(&f.maxTTL, "max-lease-ttl", "", "longest lifetime of what it hands out, for example 720h; the server's without this")
	flags.StringVar(&f.visibility, "listing-visibility", "", "hidden, or unauth to show it to callers without a token")
	flags.Var(&f.options, "options", "an option of its kind; may be given several times")
	flags.StringVar(&f.pluginVersion, "plugin-version", "", "accepted as Vault's: kinds are built in")
	flags.StringSliceVar(&f.auditKeys, "audit-non-hmac-request-keys", nil, "accepted as Vault's: values are never in the audit log")
	flags.StringSliceVar(&f.answerKeys, "audit-non-hmac-response-keys", nil, "accepted as Vault's: values are never in the audit log")
	flags.StringSliceVar(&f.passHeaders, "passthrough-request-headers", nil, "accepted as Vault's: engines are shown no headers")
	flags.StringSliceVar(&f.answerHeaders, "allowed-response-headers", nil, "accepted as Vault's: engines set no headers")
	if kind.below != "" {
		flags.StringVar(&f.tokenType, "token-type", "", "type of the tokens that it grants: default-service, default-batch, service or batch")
		return
	}
	flags.StringVar(&f.version, "version", "", "of a kv engine: 1 or 2, as -options=version=2")
}

func (f *mountFlags) addEnable(cmd *cobra.Command, kind *mountKind) {
	f.add(cmd, kind)
	flags := cmd.Flags()
	flags.StringVar(&f.path, "path", "", "where to mount it; its type without this")
	flags.StringVar(&f.pluginName, "plugin-name", "", "the type, where the type is plugin")
	flags.BoolVar(&f.noCache, "force-no-cache", false, "accepted as Vault's: caches are never stale here")
	flags.BoolVar(&f.local, "local", false, "accepted as Vault's")
	flags.BoolVar(&f.sealWrap, "seal-wrap", false, "accepted as Vault's: every value is encrypted under the mount's own keys")
	flags.BoolVar(&f.entropy, "external-entropy-access", false, "accepted as Vault's")
}

func (f *mountFlags) addTune(cmd *cobra.Command, kind *mountKind) {
	f.add(cmd, kind)
	if kind.below == "" {
		return
	}
	flags := cmd.Flags()
	flags.StringVar(&f.lockThreshold, "user-lockout-threshold", "", "failed logins in a row that lock a user; 0 never locks")
	flags.StringVar(&f.lockDuration, "user-lockout-duration", "", "how long a user stays locked, for example 15m")
	flags.StringVar(&f.lockReset, "user-lockout-counter-reset-duration", "", "how long after a failed login it counts no more")
	flags.BoolVar(&f.lockDisable, "user-lockout-disable", false, "lock nobody")
}

// config returns what the flags that were given say.
func (f *mountFlags) config(cmd *cobra.Command) mountConfig {
	given := cmd.Flags().Changed
	out := mountConfig{AuditKeys: f.auditKeys, AnswerKeys: f.answerKeys, PassHeaders: f.passHeaders, AnswerHeaders: f.answerHeaders}
	var lock lockoutBody
	for _, text := range []struct {
		flag string
		from *string
		to   **string
	}{
		{"default-lease-ttl", &f.defaultTTL, &out.DefaultTTL}, {"max-lease-ttl", &f.maxTTL, &out.MaxTTL},
		{"listing-visibility", &f.visibility, &out.Visibility}, {"token-type", &f.tokenType, &out.TokenType},
		{"plugin-version", &f.pluginVersion, &out.PluginVersion},
		{"user-lockout-threshold", &f.lockThreshold, &lock.Threshold}, {"user-lockout-duration", &f.lockDuration, &lock.Duration},
		{"user-lockout-counter-reset-duration", &f.lockReset, &lock.Reset},
	} {
		if given(text.flag) {
			*text.to = text.from
		}
	}
	if given("force-no-cache") {
		out.NoCache = &f.noCache
	}
	if given("user-lockout-disable") {
		lock.Disable = &f.lockDisable
	}
	if lock != (lockoutBody{}) {
		out.Lockout = &lock
	}
	return out
}

// kindOptions returns the options, with -version among them.
func (f *mountFlags) kindOptions() map[string]string {
	out := map[string]string(f.options)
	if f.version != "" {
		if out == nil {
			out = map[string]string{}
		}
		out["version"] = f.version
	}
	return out
}

// anyGiven reports whether any of a command's own flags was given.
func anyGiven(cmd *cobra.Command) bool {
	given := false
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { given = given || f.Changed })
	return given
}

func (s *shell) enableMount(kind *mountKind) *cobra.Command {
	var f mountFlags
	cmd := &cobra.Command{
		Use: "enable TYPE", Args: exactly(1), ValidArgsFunction: s.completeKinds(kind),
		RunE: func(cmd *cobra.Command, args []string) error {
			typ := strings.TrimSpace(args[0])
			if typ == "plugin" && f.pluginName == "" {
				return usage("with the type plugin, -plugin-name is needed")
			}
			path := kind.name(f.path)
			if path == "" {
				if path = typ; typ == "plugin" {
					path = f.pluginName
				}
			}
			body := enableBody{
				Type: typ, Description: f.description, Options: f.kindOptions(), Local: f.local, SealWrap: f.sealWrap,
				Entropy: f.entropy, PluginName: f.pluginName, Config: f.config(cmd),
			}
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: kind.table + "/" + path, Body: body}, "Success! Enabled the %s %s at: %s/", typ, kind.noun, path)
		},
	}
	f.addEnable(cmd, kind)
	return cmd
}

func (s *shell) disableMount(kind *mountKind) *cobra.Command {
	return &cobra.Command{
		Use: "disable PATH", Args: exactly(1), ValidArgsFunction: s.completeMounted(kind),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := kind.name(args[0])
			return s.ask(cmd.Context(), client.Request{Method: "DELETE", Path: kind.table + "/" + path}, "Success! Disabled the %s (if it existed) at: %s/", kind.noun, path)
		},
	}
}

func (s *shell) tuneMount(kind *mountKind) *cobra.Command {
	var f mountFlags
	cmd := &cobra.Command{
		Use: "tune PATH", Args: exactly(1), ValidArgsFunction: s.completeMounted(kind),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := kind.name(args[0])
			body := tuneBody{mountConfig: f.config(cmd), Options: f.kindOptions()}
			if cmd.Flags().Changed("description") {
				body.Description = &f.description
			}
			if !anyGiven(cmd) {
				return s.ask(cmd.Context(), client.Request{Path: kind.table + "/" + path + "/tune"}, "")
			}
			return s.ask(cmd.Context(), client.Request{Method: "POST", Path: kind.table + "/" + path + "/tune", Body: body}, "Success! Tuned the %s at: %s/", kind.noun, path)
		},
	}
	f.addTune(cmd, kind)
	return cmd
}

func (s *shell) moveMount(kind *mountKind) *cobra.Command {
	return &cobra.Command{
		Use: "move SOURCE DESTINATION", Args: exactly(2), ValidArgsFunction: s.completeMounted(kind),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to := kind.below+kind.name(args[0]), kind.below+kind.name(args[1])
			body := struct {
				From string `json:"from"`
				To   string `json:"to"`
			}{from, to}
			answer, err := s.do(cmd.Context(), client.Request{Method: "POST", Path: "sys/remount", Body: body})
			if err != nil {
				return err
			}
			return s.asTable(answer, func() error {
				return s.say("Success! Moved the %s %s/ to: %s/", kind.noun, from, to)
			})
		},
	}
}

// mountShown is a mount as the server lists it.
type mountShown struct {
	client.Mount
	Local          bool   `json:"local"`
	SealWrap       bool   `json:"seal_wrap"`
	RunningVersion string `json:"running_plugin_version"`
	Deprecation    string `json:"deprecation_status"`
}

func (s *shell) listMounts(kind *mountKind) *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{
		Use: "list", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := s.do(cmd.Context(), client.Request{Path: kind.table})
			if err != nil {
				return err
			}
			if answer.WrapInfo == nil && s.global.field == "" && s.format() != "table" {
				return s.document(answer.Data.Reveal()) // as Vault: the mounts without an envelope
			}
			return s.asTable(answer, func() error {
				var mounts map[string]mountShown
				if err := answer.Decode(&mounts); err != nil {
					return err
				}
				return s.mountTable(mounts, detailed)
			})
		},
	}
	cmd.Flags().BoolVar(&detailed, "detailed", false, "show lifetimes, options and identifiers too")
	return cmd
}

func (s *shell) mountTable(mounts map[string]mountShown, detailed bool) error {
	var rows [][]string
	for path, m := range mounts {
		row := []string{path, m.Type, m.Accessor}
		if detailed {
			row = append(row, lifetime(m.Config.DefaultTTL), lifetime(m.Config.MaxTTL), m.Config.TokenType, strconv.FormatBool(m.Local), strconv.FormatBool(m.SealWrap),
				fmt.Sprint(m.Options), m.UUID, m.RunningVersion, m.Deprecation)
		}
		if m.Description == "" {
			m.Description = "n/a"
		}
		rows = append(rows, append(row, m.Description))
	}
	slices.SortFunc(rows, slices.Compare[[]string])
	header := []string{"Path", "Type", "Accessor", "Description"}
	if detailed {
		header = []string{"Path", "Type", "Accessor", "Default TTL", "Max TTL", "Token Type", "Local", "Seal Wrap", "Options", "UUID", "Running Version", "Deprecation Status", "Description"}
	}
	return s.table(header, rows)
}

// lifetime prints one of a mount; 0 is the server's.
func lifetime(seconds client.Seconds) string {
	if seconds == 0 {
		return "system"
	}
	return duration([]byte(strconv.FormatInt(int64(seconds.Duration()/time.Second), 10)))
}
