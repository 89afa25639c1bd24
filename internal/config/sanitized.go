package config

import (
	"crypto/tls"
	"log/slog"
	"strings"
	"time"
)

// Sanitized is the configuration as sys/config/state/sanitized answers it: in
// Vault's shape and without secrets. Durations are whole seconds.
type Sanitized struct {
	APIAddr                   string              `json:"api_addr"`
	CacheSize                 int64               `json:"cache_size"`
	ClusterAddr               string              `json:"cluster_addr"`
	ClusterCipherSuites       string              `json:"cluster_cipher_suites"`
	ClusterName               string              `json:"cluster_name"`
	DefaultLeaseTTL           int64               `json:"default_lease_ttl"`
	DefaultMaxRequestDuration int64               `json:"default_max_request_duration"`
	DisableCache              bool                `json:"disable_cache"`
	DisableClustering         bool                `json:"disable_clustering"`
	DisableIndexing           bool                `json:"disable_indexing"`
	DisableMlock              bool                `json:"disable_mlock"`
	DisablePerformanceStandby bool                `json:"disable_performance_standby"`
	DisablePrintableCheck     bool                `json:"disable_printable_check"`
	DisableSealwrap           bool                `json:"disable_sealwrap"`
	EnableUI                  bool                `json:"enable_ui"`
	IntrospectionEndpoint     bool                `json:"introspection_endpoint"`
	Listeners                 []SanitizedListener `json:"listeners"`
	LogFormat                 string              `json:"log_format"`
	LogLevel                  string              `json:"log_level"`
	MaxLeaseTTL               int64               `json:"max_lease_ttl"`
	MaxPayloadSize            int64               `json:"max_payload_size"`
	PIDFile                   string              `json:"pid_file"`
	PluginDirectory           string              `json:"plugin_directory"`
	RawStorageEndpoint        bool                `json:"raw_storage_endpoint"`
	Seals                     []SanitizedSeal     `json:"seals"`
	Storage                   SanitizedStorage    `json:"storage"`
	Telemetry                 SanitizedTelemetry  `json:"telemetry"`
}

// SanitizedListener is one listener.
type SanitizedListener struct {
	Type   string                  `json:"type"`
	Config SanitizedListenerConfig `json:"config"`
}

// SanitizedListenerConfig are a listener's settings.
type SanitizedListenerConfig struct {
	Address        string `json:"address"`
	TLSDisable     bool   `json:"tls_disable"`
	TLSCertFile    string `json:"tls_cert_file,omitempty"`
	TLSKeyFile     string `json:"tls_key_file,omitempty"`
	TLSClientCA    string `json:"tls_client_ca_file,omitempty"`
	TLSMinVersion  string `json:"tls_min_version,omitempty"`
	RequireClient  bool   `json:"tls_require_and_verify_client_cert,omitempty"`
	MaxRequestSize int64  `json:"max_request_size,omitempty"`
}

// SanitizedSeal is one seal.
type SanitizedSeal struct {
	Type     string `json:"type"`
	Name     string `json:"name"`
	Disabled bool   `json:"disabled"`
}

// SanitizedStorage is the storage.
type SanitizedStorage struct {
	Type              string `json:"type"`
	RedirectAddr      string `json:"redirect_addr"`
	ClusterAddr       string `json:"cluster_addr"`
	DisableClustering bool   `json:"disable_clustering"`
}

// SanitizedTelemetry is the telemetry block.
type SanitizedTelemetry struct {
	DisableHostname         bool  `json:"disable_hostname"`
	PrometheusRetentionTime int64 `json:"prometheus_retention_time"`
	UsageGaugePeriod        int64 `json:"usage_gauge_period"`
}

// Sanitized returns what may be shown of the configuration.
func (c *Config) Sanitized() Sanitized {
	s := Sanitized{
		APIAddr: c.APIAddr, CacheSize: c.CacheSize, ClusterAddr: c.ClusterAddr, ClusterName: c.ClusterName,
		DefaultLeaseTTL: seconds(c.DefaultLeaseTTL), DefaultMaxRequestDuration: seconds(c.MaxRequestDuration),
		DisableCache: c.DisableCache, DisableMlock: c.DisableMlock, EnableUI: c.UI,
		LogFormat: c.LogFormat, LogLevel: levelName(c.LogLevel), MaxLeaseTTL: seconds(c.MaxLeaseTTL),
		MaxPayloadSize: c.MaxPayloadSize, PIDFile: c.PIDFile,
		Listeners: []SanitizedListener{}, Seals: []SanitizedSeal{},
		Storage:   SanitizedStorage{Type: c.Storage.Kind, RedirectAddr: c.APIAddr, ClusterAddr: c.ClusterAddr},
		Telemetry: SanitizedTelemetry{c.Telemetry.DisableHostname, seconds(c.Telemetry.Retention), seconds(c.Telemetry.UsageGauge)},
	}
	for _, l := range c.Listeners {
		settings := SanitizedListenerConfig{Address: l.Address, TLSDisable: l.TLS.Mode == TLSOff, MaxRequestSize: l.MaxRequestSize}
		if !settings.TLSDisable {
			settings.TLSCertFile, settings.TLSKeyFile, settings.TLSClientCA = l.TLS.Cert, l.TLS.Key, l.TLS.ClientCA
			settings.TLSMinVersion = map[uint16]string{tls.VersionTLS12: "tls12", tls.VersionTLS13: "tls13"}[l.TLS.Min]
			settings.RequireClient = l.TLS.Auth == tls.RequireAndVerifyClientCert
		}
		s.Listeners = append(s.Listeners, SanitizedListener{l.Kind, settings})
	}
	for _, seal := range c.Seals {
		s.Seals = append(s.Seals, SanitizedSeal{seal.Kind, seal.Name, seal.Disabled})
	}
	return s
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func levelName(l slog.Level) string {
	if l < slog.LevelDebug {
		return "trace"
	}
	return strings.ToLower(l.String())
}
