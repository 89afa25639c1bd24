package config

import (
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// settings is the section of a file.
func (c *Config) settings() *section {
	s := &section{keys: []key{
		{"api_addr", apiAddress(&c.APIAddr)},
		{"cluster_addr", apiAddress(&c.ClusterAddr)},
		{"cluster_name", text(&c.ClusterName)},
		{"data_dir", directory(&c.DataDir)},
		{"node_id", nodeID(&c.NodeID)},
		{"default_lease_ttl", duration(&c.DefaultLeaseTTL, time.Second)},
		{"max_lease_ttl", duration(&c.MaxLeaseTTL, time.Second)},
		{"default_max_request_duration", duration(&c.MaxRequestDuration, time.Millisecond)},
		{"max_payload_size", size(&c.MaxPayloadSize, 1024)},
		{"stale_reads", duration(&c.StaleReads, 0)},
		{"log_level", level(&c.LogLevel)},
		{"log_format", oneOf(&c.LogFormat, "standard", "json")},
		{"log_file", writable(&c.LogFile)},
		{"pid_file", writable(&c.PIDFile)},
		{"ui", flag(&c.UI)},
		{"disable_mlock", flag(&c.DisableMlock)},
		{"disable_cache", flag(&c.DisableCache)},
		{"cache_size", cacheSize(&c.CacheSize)},
	}}
	s.keys = append(s.keys, foreignKeys()...)
	storage := c.openStorage()
	s.blocks = []block{
		{"storage", true, storage},
		{"backend", true, storage},
		{"listener", true, c.openListener},
		{"seal", true, c.openSeal},
		{"user_lockout", true, c.openLockout},
		{"audit", false, c.openAudit},
		{"telemetry", false, c.openTelemetry},
		{"backup", false, c.openBackup},
		{"ha_storage", true, func(string) (*section, error) {
			return nil, fmt.Errorf("there is no separate HA storage: nodes coordinate through their storage")
		}},
		{"service_registration", true, func(string) (*section, error) {
			return nil, &notice{"ignored: the server registers nowhere; let the registry probe /v1/sys/health"}
		}},
		{"entropy", true, func(string) (*section, error) {
			return nil, &notice{"ignored: randomness comes from the operating system"}
		}},
		{"kms_library", true, func(string) (*section, error) {
			return nil, &notice{"ignored: there are no managed keys; a pkcs11 seal names its own lib"}
		}},
		{"sentinel", false, func(string) (*section, error) {
			return nil, fmt.Errorf("policies in Sentinel are not supported; write them in HCL instead, so that nothing is allowed by mistake")
		}},
		{"reporting", false, func(string) (*section, error) { return nil, &notice{"ignored: nothing is reported to anyone"} }},
	}
	return s
}

// foreignKeys are Vault's settings that are not Coffer's.
func foreignKeys() []key {
	keys := []key{
		refused("raw_storage_endpoint", "reading and writing storage behind the API's back is not supported"),
		refused("log_rotate_duration", "log files are not rotated here; use logrotate with SIGHUP, or log to the journal"),
		refused("log_rotate_bytes", "log files are not rotated here; use logrotate with SIGHUP, or log to the journal"),
		refused("log_rotate_max_files", "log files are not rotated here; use logrotate with SIGHUP, or log to the journal"),
		ignored("license_path", "no license is needed"),
		ignored("introspection_endpoint", "there is no such endpoint"),
		ignored("detect_deadlocks", "it is a debugging aid of another server"),
		ignored("log_requests_level", "every request is in the audit log"),
		ignored("experiments", "there are none"),
		ignored("disable_clustering", "nodes coordinate through their storage"),
		ignored("disable_performance_standby", "every node serves"),
		ignored("disable_sealwrap", "the seal wraps the root key only"),
		ignored("disable_printable_check", "paths are valid UTF-8 without control characters, always"),
		ignored("allow_audit_log_prefixing", "the prefix of a file device is accepted"),
		ignored("imprecise_lease_role_tracking", "leases are rows in an index"),
		ignored("enable_response_header_hostname", "answers do not name the machine"),
		ignored("enable_response_header_raft_node_id", "there are no Raft nodes"),
		ignored("administrative_namespace_path", "there is no administrative namespace"),
		ignored("enable_ui", "write ui"),
	}
	for _, name := range []string{"plugin_directory", "plugin_tmpdir", "plugin_file_uid", "plugin_file_permissions"} {
		keys = append(keys, ignored(name, "engines are built in; there are no plugins"))
	}
	return keys
}

// openStorage counts the storage blocks of one file: later files replace
// earlier ones, but two in one file contradict each other.
func (c *Config) openStorage() func(string) (*section, error) {
	here := 0
	return func(kind string) (*section, error) {
		here++
		if here > 1 {
			return nil, fmt.Errorf("there is a storage block already")
		}
		c.Storage = Storage{Kind: "pebble"}
		s := &section{keys: []key{{"path", directory(&c.Storage.Path)}}, done: func() error {
			if c.Storage.Path == "" {
				return fmt.Errorf("path is missing; give the directory to keep everything in")
			}
			return nil
		}}
		switch kind {
		case "pebble":
			return s, nil
		case "file", "raft":
			for _, name := range []string{"node_id", "performance_multiplier", "trailing_logs", "snapshot_threshold", "snapshot_interval",
				"max_entry_size", "max_transaction_size", "autopilot_reconcile_interval", "autopilot_update_interval"} {
				s.keys = append(s.keys, ignored(name, "it is a setting of Raft"))
			}
			s.blocks = append(s.blocks, block{"retry_join", false, func(string) (*section, error) {
				return nil, fmt.Errorf("the embedded engine serves one machine and joins nobody; remove retry_join")
			}})
			return s, &notice{fmt.Sprintf("the embedded engine (pebble) is used in this directory; data of Vault's %s storage is not read", kind)}
		case "inmem":
			return nil, fmt.Errorf("keeping secrets in memory only is for development; start with -dev")
		}
		if !slices.Contains(remoteKinds, kind) {
			return nil, fmt.Errorf("storage %q is not there; available are \"pebble\" (one directory, embedded; Vault's names \"file\" and \"raft\" mean it too), \"etcd\" and \"postgres\"", kind)
		}
		c.Storage = Storage{Kind: kind, Settings: Settings{}}
		return c.Storage.remote(), nil
	}
}

// remoteKinds are the engines that are servers of their own, under every name
// that package builtin knows them by.
var remoteKinds = []string{"etcd", "postgres", "postgresql"}

// remote is the block of an engine on the network. Which settings there are is
// the engine's to say, when it is opened.
func (s *Storage) remote() *section {
	return &section{any: func(name string, v value) error {
		text, err := v.text()
		if err != nil {
			var items []string
			if items, err = v.list(); err == nil {
				text = strings.Join(items, ",")
			}
		}
		s.Settings[name] = text
		return err
	}}
}

// nodeID accepts a name that may stand in keys, logs and checkpoints.
func nodeID(to *string) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		if !nodeName.MatchString(text) {
			return fmt.Errorf("%q is no name for a node; write up to 64 letters, digits, dots, dashes and underscores", text)
		}
		*to = text
		return nil
	}
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (c *Config) openListener(kind string) (*section, error) {
	if kind != "tcp" && kind != "unix" {
		return nil, fmt.Errorf("a listener is \"tcp\" or \"unix\"; %s", suggest(kind, []string{"tcp", "unix"}))
	}
	at := len(c.Listeners)
	c.Listeners = append(c.Listeners, Listener{})
	// The block fills its own copy; growing the list would leave it behind.
	l := defaultListener(kind)
	s := l.settings()
	check := s.done
	s.done = func() error {
		err := check()
		c.Listeners[at] = l
		return err
	}
	return s, nil
}

func (c *Config) openLockout(kind string) (*section, error) {
	known := []string{"all", "userpass", "approle", "ldap"}
	if !slices.Contains(known, kind) {
		return nil, fmt.Errorf("%q is no auth method with a lockout; %s", kind, suggest(kind, known))
	}
	l := &Lockout{Kind: kind, Threshold: 5, Duration: 15 * time.Minute, CounterReset: 15 * time.Minute}
	return &section{keys: []key{
		{"lockout_threshold", count(&l.Threshold, 1, 1_000_000)},
		{"lockout_duration", duration(&l.Duration, time.Second)},
		{"lockout_counter_reset", duration(&l.CounterReset, time.Second)},
		{"disable_lockout", flag(&l.Disabled)},
	}, done: func() error {
		c.Lockouts = slices.DeleteFunc(c.Lockouts, func(o Lockout) bool { return o.Kind == kind })
		c.Lockouts = append(c.Lockouts, *l)
		return nil
	}}, nil
}

func (c *Config) openAudit(string) (*section, error) {
	return &section{keys: []key{
		{"path", directory(&c.Audit.Path)},
		{"sync", func(v value) error {
			var how string
			err := oneOf(&how, "always", "changes", "true", "false")(v)
			c.Audit.SyncReads = how == "always" || how == "true"
			return err
		}},
		{"segment_size", size(&c.Audit.SegmentSize, 1<<20)},
		{"reserve", size(&c.Audit.Reserve, 1<<20)},
		{"accept_loss", count(&c.Audit.AcceptLoss, 1, math.MaxInt)},
	}}, nil
}

func (c *Config) openBackup(string) (*section, error) {
	b := &c.Backup
	return &section{keys: []key{
		{"directory", directory(&b.Directory)},
		{"every", duration(&b.Every, time.Minute)},
		{"keep", count(&b.Keep, 1, 1_000_000)},
		{"keep_for", duration(&b.KeepFor, time.Minute)},
	}, done: func() error {
		switch {
		case b.Directory == "":
			return fmt.Errorf("directory is missing; give one on another disk than the storage's")
		case b.Every == 0:
			return fmt.Errorf("every is missing; say how often, for example \"24h\"")
		case b.Keep == 0 && b.KeepFor == 0:
			return fmt.Errorf("keep or keep_for is missing; say how many backups are kept, or for how long")
		}
		return nil
	}}, nil
}

func (c *Config) openTelemetry(string) (*section, error) {
	t := &c.Telemetry
	s := &section{keys: []key{
		{"prometheus_retention_time", duration(&t.Retention, 0)},
		{"disable_hostname", flag(&t.DisableHostname)},
		{"usage_gauge_period", usagePeriod(&t.UsageGauge)},
	}}
	const pull = "metrics are read from /v1/sys/metrics, not sent"
	for _, name := range []string{"statsite_address", "statsd_address", "dogstatsd_addr", "dogstatsd_tags", "circonus_api_token", "circonus_api_app",
		"circonus_api_url", "circonus_submission_interval", "circonus_submission_url", "circonus_check_id", "circonus_check_force_metric_activation",
		"circonus_check_instance_id", "circonus_check_search_tag", "circonus_check_display_name", "circonus_check_tags", "circonus_broker_id",
		"circonus_broker_select_tag", "stackdriver_project_id", "stackdriver_location", "stackdriver_namespace", "stackdriver_debug_logs"} {
		s.keys = append(s.keys, ignored(name, pull))
	}
	for _, name := range []string{"maximum_gauge_cardinality", "lease_metrics_epsilon", "num_lease_metrics_buckets", "add_lease_metrics_namespace_labels",
		"add_mount_point_rollback_metrics", "filter_default", "prefix_filter", "metrics_prefix", "enable_hostname_label"} {
		s.keys = append(s.keys, ignored(name, "the metrics have bounded labels and fixed names"))
	}
	return s, nil
}

// usagePeriod accepts Vault's "none".
func usagePeriod(to *time.Duration) func(value) error {
	return func(v value) error {
		if text, err := v.text(); err == nil && text == "none" {
			*to = 0
			return nil
		}
		return duration(to, 0)(v)
	}
}

// cacheSize accepts bytes. Vault counts entries, and nobody means a cache of a
// few thousand bytes.
func cacheSize(to *int64) func(value) error {
	return func(v value) error {
		var n int64
		if err := size(&n, 0)(v); err != nil {
			return err
		}
		if n < 1<<20 {
			return &notice{"it counts bytes here, not entries as in Vault; write for example \"128MiB\""}
		}
		*to = n
		return nil
	}
}

func level(to *slog.Level) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		known := map[string]slog.Level{"trace": slog.LevelDebug - 4, "debug": slog.LevelDebug, "info": slog.LevelInfo, "notice": slog.LevelInfo,
			"warn": slog.LevelWarn, "warning": slog.LevelWarn, "error": slog.LevelError, "err": slog.LevelError}
		l, ok := known[strings.ToLower(text)]
		if !ok {
			return fmt.Errorf("%q is not known; %s", text, suggest(text, []string{"trace", "debug", "info", "warn", "error"}))
		}
		*to = l
		return nil
	}
}

// apiAddress accepts the URL of a server: scheme, host and port, nothing else.
func apiAddress(to *string) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		u, err := url.Parse(text)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return fmt.Errorf("%q is not a server's URL; write for example https://coffer.example.com:8200", text)
		}
		*to = strings.TrimRight(text, "/")
		return nil
	}
}

// writable accepts the path of a file to make in a directory that is there.
func writable(to *string) func(value) error {
	return func(v value) error {
		var path, dir string
		err := text(&path)(v)
		if err == nil && path != "" {
			err = directory(&dir)(value{plain: filepath.Dir(path)})
			if err == nil {
				err = exists(dir)
			}
		}
		*to = path
		return err
	}
}
